"""The admin API over HTTP, on a real database: who may, what is shown, what a change leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from api.app import create_app
from operation_agent.access.keys import create_key
from operation_agent.access.users import create_user
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.kit.settings import settings
from operation_agent.store.session import for_shop, for_system
from operation_agent.store.shops import create_shop, load_shop
from tests.serving import serve

pytestmark = pytest.mark.integration


def bearer(engine, shop_id: UUID, *scopes: str) -> dict[str, str]:
    with for_shop(engine, shop_id) as session:
        token, _ = create_key(session, shop_id, "test", scopes or ["*"], SYSTEM.now())
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def key(engine, shop_id) -> dict[str, str]:
    return bearer(engine, shop_id)


def slug(engine, shop_id) -> str:
    with for_shop(engine, shop_id) as session:
        return load_shop(session, shop_id).slug


def test_every_list_of_an_empty_shop_is_empty(client, key):
    for path in ("customers", "clusterings", "actions", "imports", "events/failures"):
        answer = client.get(f"/api/{path}", headers=key)
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"items": [], "next": None}
    for path in ("budgets", "effects"):
        assert client.get(f"/api/{path}", headers=key).json() == []


def test_a_shops_backlog_of_nothing_is_zero(client, engine, shop_id, key):
    answer = client.get(f"/api/shops/{slug(engine, shop_id)}/backlog", headers=key).json()
    assert answer == {
        "events": 0, "actions_due": 0, "outbox": 0, "running": 0, "failed_events": 0, "oldest_seconds": 0.0,
    }  # fmt: skip


def test_asking_for_a_clustering_shows_in_the_backlog_until_it_is_done(client, engine, shop_id, key):
    from operation_agent.store import ticks

    asked = client.post("/api/clusterings", headers=key)
    assert asked.status_code == 202, asked.text
    backlog = client.get(f"/api/shops/{slug(engine, shop_id)}/backlog", headers=key).json()
    assert (backlog["running"], backlog["outbox"]) == (1, 1)
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        assert ticks.finish(session, shop_id, ticks.CLUSTERING, up_to=shop.now(), at=SYSTEM.now()) == 1
    with for_system(engine) as session:
        session.execute(text("DELETE FROM outbox WHERE shop_id = :s"), {"s": shop_id})
    backlog = client.get(f"/api/shops/{slug(engine, shop_id)}/backlog", headers=key).json()
    assert (backlog["running"], backlog["outbox"]) == (0, 0)


def test_the_same_post_with_the_same_key_does_its_work_once(client, engine, shop_id, key):
    headers = {**key, "Idempotency-Key": "abc"}
    body = {"name": "tracking", "scopes": ["events:write"]}
    first = client.post("/api/keys", json=body, headers=headers)
    again = client.post("/api/keys", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert again.headers["Idempotent-Replay"] == "true"
    assert "Idempotent-Replay" not in first.headers
    other = client.post("/api/keys", json={**body, "name": "another"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_reused")
    with for_shop(engine, shop_id) as session:
        assert session.execute(text("SELECT count(*) FROM api_keys WHERE name = 'tracking'")).scalar() == 1
        stored = session.execute(text("SELECT response FROM idempotency_keys")).scalar_one()
    assert first.json()["key"].encode() not in bytes(stored)


def test_a_failed_post_is_not_remembered(client, key):
    headers = {**key, "Idempotency-Key": "later"}
    refused = client.post("/api/keys", json={"name": "x", "scopes": ["no:such"]}, headers=headers)
    assert refused.status_code == 400
    assert client.post("/api/keys", json={"name": "x", "scopes": ["events:write"]}, headers=headers).status_code == 201


def test_while_the_first_request_runs_the_second_is_told_so(client, engine, shop_id, key):
    with for_shop(engine, shop_id) as session:
        session.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"),
            {"name": f"idempotency:{shop_id}:slow"},
        )
        answer = client.post("/api/clusterings", headers={**key, "Idempotency-Key": "slow"})
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_running")


def test_a_key_cannot_give_more_than_it_has(client, engine, shop_id):
    limited = bearer(engine, shop_id, "keys:write", "events:write")
    assert client.post("/api/keys", json={"name": "x", "scopes": ["*"]}, headers=limited).status_code == 403
    assert client.post("/api/keys", json={"name": "x", "scopes": ["events:write"]}, headers=limited).status_code == 201


def test_a_missing_scope_is_403_and_no_key_is_401(client, engine, shop_id):
    limited = bearer(engine, shop_id, "events:write")
    refused = client.get("/api/customers", headers=limited)
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
    assert refused.headers["content-type"] == "application/problem+json"
    assert client.get("/api/customers").status_code == 401
    assert client.get("/api/customers", headers={"Authorization": "Bearer opk_wrong"}).status_code == 401


def test_a_revoked_key_opens_nothing(client, engine, shop_id, key):
    made = client.post("/api/keys", json={"name": "short", "scopes": ["customers:read"]}, headers=key).json()
    revoked = client.delete(f"/api/keys/{made['id']}", headers=key)
    assert revoked.status_code == 200
    assert client.delete(f"/api/keys/{made['id']}", headers=key).status_code == 409
    assert client.get("/api/customers", headers={"Authorization": f"Bearer {made['key']}"}).status_code == 401


def _customer(engine, shop_id: UUID, email: str) -> UUID:
    customer_id, now = new_id(), SYSTEM.now()
    with for_shop(engine, shop_id) as session:
        session.execute(
            text(
                "INSERT INTO customers (shop_id, id, random_key, email, first_seen_at, last_seen_at, created_at)"
                " VALUES (:shop, :id, :id, :email, :now, :now, :now)"
            ),
            {"shop": shop_id, "id": customer_id, "email": email, "now": now},
        )
        session.execute(
            text("INSERT INTO identities VALUES (:shop, 'email', :email, :id, :now)"),
            {"shop": shop_id, "id": customer_id, "email": email, "now": now},
        )
    return customer_id


def test_pages_neither_skip_nor_repeat(client, engine, shop_id, key):
    made = [str(_customer(engine, shop_id, f"p{number}@example.com")) for number in range(7)]
    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        page = client.get(
            "/api/customers", params={"limit": 3, "cursor": cursor} if cursor else {"limit": 3}, headers=key
        )
        seen += [item["id"] for item in page.json()["items"]]
        cursor, pages = page.json()["next"], pages + 1
    assert (seen, pages) == (sorted(made), 3)


@pytest.mark.parametrize("cursor", ["x", "!!!!", "W10", "WyJ4Il0", "WzFd", "A" * 600, "\x00", "é"])
def test_a_bad_cursor_is_refused(client, key, cursor):
    for path in ("customers", "clusterings", "actions", "audit", "imports"):
        answer = client.get(f"/api/{path}", params={"cursor": cursor}, headers=key)
        if not (path in ("clusterings", "audit") and cursor == "WzFd"):  # [1] is theirs
            assert answer.status_code == 400, (path, answer.text)


def test_customers_are_found_by_the_beginning_of_an_identity(client, engine, shop_id, key):
    wanted = str(_customer(engine, shop_id, "anna@example.com"))
    _customer(engine, shop_id, "bert@example.com")
    for q in ("anna", "ANNA@EX", "anna@example.com"):
        assert [c["id"] for c in client.get("/api/customers", params={"q": q}, headers=key).json()["items"]] == [wanted]
    assert client.get("/api/customers", params={"q": "%"}, headers=key).json()["items"] == []


def test_another_shops_rows_are_not_found(client, engine, shop_id, key):
    other = create_shop(engine, slug=f"o-{new_id().hex[-12:]}", name="Other", currency="USD", sandbox=True)
    hidden = _customer(engine, other.id, "hidden@example.com")
    assert client.get(f"/api/customers/{hidden}", headers=bearer(engine, other.id)).status_code == 200
    assert client.get(f"/api/customers/{hidden}", headers=key).status_code == 404
    assert client.get(f"/api/shops/{other.slug}", headers=key).status_code == 404
    assert client.get(f"/api/shops/{other.slug}/backlog", headers=key).status_code == 404
    moved = client.post(f"/api/shops/{other.slug}/clock", json={"to": "2030-01-01T00:00:00Z"}, headers=key)
    assert moved.status_code == 404
    assert [shop["slug"] for shop in client.get("/api/shops", headers=key).json()] == [slug(engine, shop_id)]


def test_a_customer_is_shown_with_all_that_is_known(client, engine, shop_id, key):
    customer_id = _customer(engine, shop_id, "whole@example.com")
    shown = client.get(f"/api/customers/{customer_id}", headers=key).json()
    assert shown["identities"][0]["value"] == "whole@example.com"
    assert shown["features"] is None
    assert shown["timeline"] == shown["orders"] == shown["decisions"] == shown["actions"] == []


def test_a_sandboxs_clock_only_goes_forward_and_rings(client, engine, shop_id, key):
    name = slug(engine, shop_id)
    moved = client.post(f"/api/shops/{name}/clock", json={"to": "2031-05-01T00:00:00Z"}, headers=key)
    assert moved.status_code == 200, moved.text
    assert moved.json()["now"].startswith("2031-05-01")
    back = client.post(f"/api/shops/{name}/clock", json={"to": "2031-04-01T00:00:00Z"}, headers=key)
    assert (back.status_code, back.json()["where"]) == (400, "to")
    entry = client.get("/api/audit", params={"verb": "shop.clock_moved", "verify": True}, headers=key).json()
    assert entry["whole"] is True
    assert len(entry["items"]) == 1


def test_a_real_shops_clock_cannot_be_moved(client, engine):
    real = create_shop(engine, slug=f"r-{new_id().hex[-12:]}", name="Real", currency="USD")
    answer = client.post(
        f"/api/shops/{real.slug}/clock", json={"to": "2031-05-01T00:00:00Z"}, headers=bearer(engine, real.id)
    )
    assert answer.status_code == 400


def test_making_a_shop_twice_with_one_key_makes_one(client, key):
    name = f"n-{new_id().hex[-12:]}"
    body = {"slug": name, "name": "New", "currency": "CNY", "sandbox": True}
    headers = {**key, "Idempotency-Key": "shop-1"}
    first, again = (client.post("/api/shops", json=body, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201), again.text
    assert first.json()["id"] == again.json()["id"]
    assert client.post("/api/shops", json=body, headers=key).status_code == 409


class TestSessions:
    password = "correct horse battery"

    @pytest.fixture
    def person(self, engine) -> str:
        address = f"{new_id().hex[-12:]}@example.com"
        with for_system(engine) as session:
            create_user(session, address, self.password, SYSTEM.now())
        return address

    @pytest.fixture
    def browser(self, engine) -> Iterator[httpx.Client]:
        with serve(create_app(engine)) as browser:
            yield browser

    def test_a_person_logs_in_looks_around_and_logs_out(self, browser, engine, shop_id, person):
        opened = browser.post("/api/session", json={"email": person.upper(), "password": self.password})
        assert opened.status_code == 201, opened.text
        cookie = opened.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        name = slug(engine, shop_id)
        assert name in browser.get("/api/session").json()["shops"]
        assert browser.get("/api/customers", params={"shop": name}).status_code == 200
        assert browser.get("/api/customers").json()["code"] == "shop_missing"
        assert browser.post("/api/clusterings", params={"shop": name}).json()["code"] == "csrf"
        ours = {"X-Requested-With": "fetch"}
        made = browser.post(
            "/api/users",
            params={"shop": name},
            json={"email": f"b{person}", "password": self.password},
            headers=ours,
        )
        assert made.status_code == 201, made.text
        kept = browser.cookies["opagent_session"]
        assert browser.delete("/api/session", headers=ours).status_code == 204
        browser.cookies.set("opagent_session", kept)
        assert browser.get("/api/session").status_code == 401

    def test_guessing_is_slowed_down(self, browser, person):
        wrong = {"email": person, "password": "wrong"}
        answers = [browser.post("/api/session", json=wrong) for _ in range(11)]
        assert [answer.status_code for answer in answers] == [401] * 10 + [429]
        assert int(answers[-1].headers["Retry-After"]) > 0

    def test_no_shops_key_manages_users(self, client, key):
        assert client.get("/api/users", headers=key).status_code == 403


def test_alive_ready_and_measured(client, key, engine):
    assert client.get("/healthz").json() == {"status": "ok"}
    answer = client.get("/readyz")
    assert answer.status_code == 503
    parts = answer.json()["parts"]
    assert (parts["database"], parts["migrations"], parts["worker"]) == ("ok", "ok", "has never been seen")
    assert client.get("/metrics").status_code == 401  # 192.0.2.1 is not this machine's
    shown = client.get("/metrics", headers=key)
    assert shown.status_code == 200, shown.text
    assert 'route="/healthz"' in shown.text
    assert "opagent_outbox_depth" in shown.text


def test_readiness_needs_every_part(engine, redis_server, monkeypatch):
    monkeypatch.setenv("OPAGENT_REDIS_URL", redis_server.url)
    settings.cache_clear()
    with for_system(engine) as session:
        session.execute(
            text("INSERT INTO heartbeats SELECT c, 'test', :now FROM unnest(CAST(:names AS text[])) AS c"),
            {"now": SYSTEM.now(), "names": ["relay", "scheduler", "worker"]},
        )
    with serve(create_app(engine)) as client:
        assert client.get("/readyz").json() == {
            "ready": True,
            "parts": dict.fromkeys(("database", "migrations", "relay", "scheduler", "worker", "redis"), "ok"),
        }
        with for_system(engine) as session:
            session.execute(
                text("UPDATE heartbeats SET beat_at = beat_at - interval '1 hour' WHERE component = 'relay'")
            )
        late = client.get("/readyz")
    assert (late.status_code, late.json()["parts"]["relay"][:9]) == (503, "last seen")
    with for_system(engine) as session:
        session.execute(text("DELETE FROM heartbeats"))


def test_failed_events_are_shown_and_processed_again(client, engine, shop_id, key):
    event_id, now = new_id(), SYSTEM.now()
    with for_shop(engine, shop_id) as session:
        session.execute(
            text(
                "INSERT INTO events (shop_id, id, source, source_id, type, occurred_at, received_at, identity,"
                " properties, context)"
                " VALUES (:shop, :id, 'segment', 'm1', 'page.viewed', :now, :now, '{}', '{}', '{}')"
            ),
            {"shop": shop_id, "id": event_id, "now": now},
        )
        session.execute(
            text("INSERT INTO event_failures VALUES (:shop, :id, :now, 5, :now, 'boom')"),
            {"shop": shop_id, "id": event_id, "now": now},
        )
    assert client.get("/api/events/failures", headers=key).json()["items"][0]["error"] == "boom"
    assert client.post(f"/api/events/failures/{new_id()}/replay", headers=key).status_code == 404
    assert client.post(f"/api/events/failures/{event_id}/replay", headers=key).json() == {"replayed": 1}
    backlog = client.get(f"/api/shops/{slug(engine, shop_id)}/backlog", headers=key).json()
    assert (backlog["events"], backlog["failed_events"], backlog["outbox"]) == (1, 0, 1)
