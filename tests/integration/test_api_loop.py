"""The loop as its operator sees it over HTTP: a strategy started, events in, each decision and action explained."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from operation_agent.access.keys import create_key
from operation_agent.decision.receipt import VERDICTS
from operation_agent.events.intake import PARTITIONS
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop, for_system
from operation_agent.store.shops import create_shop, load_shop
from operation_agent.strategies.library import library
from workers.processing import drain

pytestmark = pytest.mark.integration

START = datetime(2026, 3, 2, 8, tzinfo=UTC)


class Shop:
    """A sandbox with every shipped strategy live, and a key for it."""

    def __init__(self, engine, client: httpx.Client):
        self.engine, self.client = engine, client
        made = create_shop(
            engine, slug=f"l-{new_id().hex[-12:]}", name="Loop", currency="USD", sandbox=True, seed="s", starts_at=START
        )
        self.id, self.slug = made.id, made.slug
        with for_shop(engine, made.id) as session:
            token, _ = create_key(session, made.id, "test", ["*"], SYSTEM.now())
        self.headers = {"Authorization": f"Bearer {token}"}

    def get(self, path: str, **query) -> httpx.Response:
        return self.client.get(f"/api/{path}", params=query, headers=self.headers)

    def post(self, path: str, body: object = None, **headers: str) -> httpx.Response:
        return self.client.post(f"/api/{path}", json=body, headers={**self.headers, **headers})

    def backlog(self) -> dict:
        return self.get(f"shops/{self.slug}/backlog").json()

    def live_through(self, people: int) -> None:
        """Some customers who agree to e-mail, and fill a cart."""
        with for_shop(self.engine, self.id) as session:
            at = load_shop(session, self.id).now().isoformat()
        batch = []
        for number in range(people):
            who = {"userId": f"c{number}", "timestamp": at}
            traits = {"email": f"c{number}@example.com"}
            consent = {"channel": "email", "topic": "marketing", "state": "subscribed"}
            batch += [
                {"type": "identify", "messageId": f"i{number}", "traits": traits, **who},
                {"type": "track", "messageId": f"k{number}", "event": "Consent Changed", "properties": consent, **who},
                {
                    "type": "track", "messageId": f"a{number}", "event": "Product Added", **who,
                    "properties": {"product_id": "p1", "price": 30, "quantity": 1},
                },
            ]  # fmt: skip
        answer = self.client.post("/v1/batch", json={"batch": batch}, headers=self.headers)
        assert answer.json()["accepted"] == len(batch), answer.text
        for partition in range(PARTITIONS):
            drain(self.engine, self.id, partition)


@pytest.fixture(scope="module")
def shop(engine, client) -> Shop:
    shop = Shop(engine, client)
    for template in ("conversion", "retention", "repurchase", "win_back"):
        started = shop.post("strategies", {"template": template})
        assert started.status_code == 201, started.text
    shop.live_through(60)
    return shop


def test_strategies_are_listed_with_their_rules(shop):
    listed = shop.get("strategies").json()
    assert {one["goal"] for one in listed} == {"conversion", "retention", "repurchase", "win_back"}
    assert {one["state"] for one in listed} == {"live"}
    whole = shop.get(f"strategies/{listed[0]['key']}").json()
    assert whole["rules"]
    assert whole["id"] == shop.get(f"strategies/{listed[0]['id']}").json()["id"]
    assert len(shop.get("rules").json()) == sum(len(shop.get(f"strategies/{s['id']}").json()["rules"]) for s in listed)
    assert {one["key"] for one in shop.get("strategies/templates").json()} == set(library())


def test_every_decision_is_explained_in_both_languages(shop):
    page = shop.get("decisions", limit=200).json()
    assert page["items"], "the full carts set something off"
    assert {one["verdict"] for one in page["items"]} >= {"act", "holdout"}
    assert {one["verdict"] for one in page["items"]} <= set(VERDICTS)
    for decision in page["items"][:20]:
        english = shop.get(f"decisions/{decision['id']}").json()
        chinese = shop.get(f"decisions/{decision['id']}", locale="zh").json()
        assert english["explanation"]["locale"] == "en"
        assert english["explanation"]["sentences"]
        assert chinese["explanation"]["sentences"] != english["explanation"]["sentences"]
        assert english["receipt"]["verdict"] == decision["verdict"]
        again = shop.post(f"decisions/{decision['id']}/replay", {}).json()
        assert (again["same"], again["differences"], again["arm"]) == (True, [], decision["arm"])
        planned = english["actions"]
        assert bool(planned) == (decision["verdict"] in ("act", "holdout"))
        assert all(one["held_out"] == (decision["verdict"] == "holdout") for one in planned)
        assert sum("Action" in line for line in english["explanation"]["sentences"]) == len(planned)
    accepted = shop.client.get(
        f"/api/decisions/{page['items'][0]['id']}",
        headers={**shop.headers, "Accept-Language": "fr, zh-CN;q=0.8, en;q=0.5"},
    )
    assert accepted.json()["explanation"]["locale"] == "zh"


def test_the_summary_counts_what_the_list_shows(shop):
    counted: dict[str, int] = {}
    for one in shop.get("decisions/summary").json():
        counted[one["verdict"]] = counted.get(one["verdict"], 0) + one["number"]
    for verdict, number in counted.items():
        items, cursor = 0, None
        while True:
            page = shop.get("decisions", verdict=verdict, limit=50, **({"cursor": cursor} if cursor else {})).json()
            items, cursor = items + len(page["items"]), page["next"]
            if cursor is None:
                break
        assert items == number


def test_planned_actions_are_in_the_backlog_once_they_are_due(shop):
    actions = shop.get("actions", limit=200).json()["items"]
    assert actions
    assert shop.backlog()["events"] == 0
    latest = max(datetime.fromisoformat(one["due_at"]) for one in actions)
    moved = shop.post(f"shops/{shop.slug}/clock", {"to": latest.isoformat()}, **{"Idempotency-Key": "to-latest"})
    assert moved.status_code == 200, moved.text
    backlog = shop.backlog()
    ready = sum(one["state"] == "ready" for one in actions)
    assert 0 < backlog["actions_due"] <= ready
    assert backlog["outbox"] > 0
    again = shop.post(f"shops/{shop.slug}/clock", {"to": latest.isoformat()}, **{"Idempotency-Key": "to-latest"})
    assert (again.content, again.headers["Idempotent-Replay"]) == (moved.content, "true")


def test_a_moved_clock_makes_scheduled_rules_due_in_the_backlog(shop):
    """win_back runs on Mondays at ten."""
    before = shop.backlog()["running"]
    with for_shop(shop.engine, shop.id) as session:
        now = load_shop(session, shop.id).now()
    moved = shop.post(f"shops/{shop.slug}/clock", {"to": now.replace(year=now.year + 1).isoformat()})
    assert moved.status_code in (200, 400), moved.text
    if moved.status_code == 400:
        moved = shop.post(f"shops/{shop.slug}/clock", {"to": now.replace(month=now.month + 1).isoformat()})
    assert moved.json()["schedules"] > 0
    assert shop.backlog()["running"] == before + moved.json()["schedules"]


def test_a_person_calls_an_action_off(shop):
    action = next(one for one in shop.get("actions", state="ready", held_out=False, limit=200).json()["items"])
    assert shop.get(f"actions/{action['id']}").json()["attempts"] == []
    done = shop.post(f"actions/{action['id']}/cancel")
    assert (done.status_code, done.json()["state"]) == (200, "cancelled"), done.text
    assert shop.post(f"actions/{action['id']}/cancel").status_code == 409
    assert shop.post(f"actions/{action['id']}/resolve", {"outcome": "sent"}).status_code == 409
    entry = shop.get("audit", verb="action.cancelled").json()["items"][0]
    assert (entry["subject"], entry["actor"]) == (f"action:{action['id']}", "key:test")


def _set_state(shop: Shop, action_id: str, state: str) -> None:
    with for_shop(shop.engine, shop.id) as session:
        session.execute(
            text("UPDATE actions SET state = :state, maybe_sent = true WHERE id = :id"),
            {"state": state, "id": action_id},
        )


def test_a_person_settles_what_nobody_else_can_tell(shop):
    emails = shop.get("actions", state="ready", channel="email", held_out=False, limit=200).json()["items"]
    sent, again, left = (one["id"] for one in emails[:3])
    for action_id in (sent, again):
        _set_state(shop, action_id, "parked")
    _set_state(shop, left, "ready")
    assert shop.post(f"actions/{sent}/resolve", {"outcome": "sent"}).json()["state"] == "sent"
    tried = shop.post(f"actions/{again}/resolve", {"outcome": "not_sent"}).json()
    assert (tried["state"], tried["maybe_sent"]) == ("ready", False)
    assert shop.post(f"actions/{left}/cancel").json()["state"] == "parked"  # it may have reached somebody


def test_a_coupon_that_was_made_by_hand_needs_its_code(shop):
    with for_shop(shop.engine, shop.id) as session:
        found = session.execute(
            text("SELECT id FROM actions WHERE channel = 'coupon' AND NOT held_out LIMIT 1")
        ).scalar()
    if found is None:
        with for_shop(shop.engine, shop.id) as session:
            found = session.execute(
                text("UPDATE actions SET channel = 'coupon' WHERE id = (SELECT id FROM actions WHERE state = 'ready'"
                     " AND NOT held_out LIMIT 1) RETURNING id")
            ).scalar_one()  # fmt: skip
    _set_state(shop, str(found), "parked")
    assert shop.post(f"actions/{found}/resolve", {"outcome": "sent"}).json()["where"] == "coupon"
    coupon = {"code": "BACK10", "percent": "10", "expires_at": "2027-01-01T00:00:00Z"}
    done = shop.post(f"actions/{found}/resolve", {"outcome": "sent", "coupon": coupon})
    assert done.json()["state"] == "sent", done.text
    with for_shop(shop.engine, shop.id) as session:
        assert (
            session.execute(text("SELECT code FROM coupons WHERE action_id = :id"), {"id": found}).scalar() == "BACK10"
        )


def test_a_strategy_is_paused_and_goes_on(shop):
    def change(state: str) -> httpx.Response:
        return shop.client.patch("/api/strategies/win-back", json={"state": state}, headers=shop.headers)

    assert change("paused").json()["state"] == "paused"
    assert change("paused").status_code == 409
    assert change("live").json()["state"] == "live"
    assert shop.client.patch("/api/strategies/none", json={"state": "live"}, headers=shop.headers).status_code == 404


def test_a_draft_takes_the_holdout_and_budget_it_is_given(engine, client):
    shop = Shop(engine, client)
    body = {"template": "win_back", "state": "draft", "holdout": 0.5, "budget": "120.50"}
    made = shop.post("strategies", body).json()
    assert (made["state"], made["holdout"]) == ("draft", 0.5)
    (budget,) = shop.get("budgets").json()
    assert (budget["limit_minor"], budget["strategies"]) == (12050, [made["key"]])
    assert shop.post("strategies", {"template": "no-such"}).status_code == 404


def test_settings_are_checked_before_workers_read_them(shop):
    def change(settings: object) -> httpx.Response:
        return shop.client.patch(f"/api/shops/{shop.slug}", json={"settings": settings}, headers=shop.headers)

    good = {"costs": {"email": 2}, "schedules": {"clustering.fit": "0 4 * * *", "effects.compare": None}}
    assert change(good).json()["settings"]["costs"] == {"email": 2}
    assert change({"costs": None}).json()["settings"] == {"schedules": good["schedules"]}
    for bad in (
        {"costs": {"email": -1}}, {"costs": 5}, {"no_such": 1}, {"schedules": {"clustering.fit": "nightly"}},
        {"hard_caps": {"email": {"count": 1, "window": "a week"}}}, {"global_holdout": 1}, {"language": "fr"},
    ):  # fmt: skip
        assert change(bad).status_code == 400, bad


def test_the_summary_of_actions_tells_states_and_latencies(shop):
    with for_shop(shop.engine, shop.id) as session:
        session.execute(
            text(
                "UPDATE actions SET event_received_at = created_at,"
                " called_at = created_at + interval '120 milliseconds' WHERE NOT held_out"
            )
        )
    summary = shop.get("actions/summary").json()
    assert sum(one["number"] for one in summary["states"]) > 0
    email = next(one for one in summary["latencies"] if one["channel"] == "email")
    assert (email["p50_ms"], email["p99_ms"]) == (pytest.approx(120), pytest.approx(120))
    assert 0 <= summary["without_person"] <= 1
    metrics = shop.client.get("/metrics", headers=shop.headers).text
    assert f'opagent_action_call_seconds_bucket{{channel="email",le="0.25",shop="{shop.slug}"}}' in metrics
    assert "opagent_scrape_skipped_shop{" not in metrics


def test_a_customers_page_shows_the_whole_story(shop):
    listed = shop.get("customers", q="c7@example.com").json()["items"]
    story = shop.get(f"customers/{listed[0]['id']}").json()
    assert story["consents"][0]["state"] == "subscribed"
    assert story["features"]["carts_7d"] == 1
    assert [one["type"] for one in story["timeline"]][0] == "cart.added"
    assert story["decisions"]


def test_effects_are_asked_for_once_and_listed(shop):
    asked = shop.post("effects", **{"Idempotency-Key": "e1"})
    again = shop.post("effects", **{"Idempotency-Key": "e1"})
    assert (asked.status_code, again.content) == (202, asked.content)
    with for_system(shop.engine) as session:
        taken = session.execute(
            text("SELECT count(*) FROM schedule_ticks WHERE shop_id = :s AND schedule = 'effects.compare'"
                 " AND finished_at IS NULL"), {"s": shop.id},
        ).scalar_one()  # fmt: skip
    assert taken >= 1
    assert UUID(shop.get("strategies").json()[0]["id"])


def test_nothing_of_another_shop_is_found(engine, client, shop):
    stranger = Shop(engine, client)
    paths = {
        "decisions": shop.get("decisions", limit=1).json()["items"][0]["id"],
        "actions": shop.get("actions", limit=1).json()["items"][0]["id"],
        "customers": shop.get("customers", limit=1).json()["items"][0]["id"],
        "strategies": shop.get("strategies").json()[0]["id"],
    }
    for room, identity in paths.items():
        assert shop.get(f"{room}/{identity}").status_code == 200
        assert stranger.get(f"{room}/{identity}").status_code == 404
    assert stranger.post(f"decisions/{paths['decisions']}/replay", {}).status_code == 404
    for change in ("cancel", "resolve"):
        assert stranger.post(f"actions/{paths['actions']}/{change}", {"outcome": "sent"}).status_code == 404
    for room in ("decisions", "actions", "customers"):
        assert stranger.get(room).json()["items"] == []
    for room in ("strategies", "rules", "budgets", "effects", "integrations", "decisions/summary"):
        assert stranger.get(room).json() == []


def test_events_are_counted_by_what_became_of_them(shop):
    message = {"type": "page", "messageId": "m-1", "userId": "u", "timestamp": START.isoformat()}
    for _ in range(2):
        answer = shop.client.post("/v1/batch", json={"batch": [message, {"type": "nonsense"}]}, headers=shop.headers)
        assert answer.status_code == 200, answer.text
    shop.client.post("/v1/page", json=message, headers=shop.headers)
    shown = shop.client.get("/metrics", headers=shop.headers).text
    for outcome, number in (("duplicate", 2), ("rejected", 2)):
        assert f'opagent_events_total{{outcome="{outcome}",shop="{shop.slug}",source="segment"}} {number}.0' in shown
