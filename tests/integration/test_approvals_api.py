"""The inbox and the budgets over HTTP: who may see, vote and change, and how it is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest

from operation_agent.access.keys import create_key
from operation_agent.actions import approving
from operation_agent.actions.approving import Group, Need
from operation_agent.approvals import approvals
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from tests.integration.sending import Stage, stage

pytestmark = pytest.mark.integration

NEED = Need(({"rule": "types", "limit": ["email"], "found": "email", "of": "shop"},), 2, timedelta(days=3))


@pytest.fixture
def here(engine, shop_id) -> Stage:
    return stage(engine, shop_id, limit=1000)


def caller(here: Stage, name: str, *scopes: str) -> dict[str, str]:
    with for_shop(here.engine, here.shop.id) as session:
        token, _ = create_key(session, here.shop.id, name, scopes or ["*"], SYSTEM.now(), actor="cli")
    return {"Authorization": f"Bearer {token}"}


def plan(here: Stage, number: int, rule: str = "test/a", at=None) -> UUID:
    """Waiting actions of one rule, each with its decision."""
    group = Group(here.strategy_id, 1, rule, "types")
    with for_shop(here.engine, here.shop.id) as session:
        standing = approving.ask(session, here.shop, [(group, NEED)], at=at or SYSTEM.now())[group]
    for _ in range(number):
        customer, decision = here.customer(), new_id()
        here.action(customer, reserve=4, state=standing.state, approval_id=standing.approval_id, decision_id=decision)
        here.run(
            "INSERT INTO decisions (shop_id, id, recorded_at, decided_at, customer_id, strategy_id, rule_id,"
            " rule_version, trigger, verdict, arm, propensity, receipt) VALUES (:shop, :id, :at, :at, :customer,"
            " :strategy, :strategy, 1, 'order.paid', 'act', 'a', 1.0, CAST(:receipt AS jsonb))",
            id=decision, at=here.start, customer=customer, strategy=here.strategy_id,
            receipt=orjson.dumps(RECEIPT).decode(),
        )  # fmt: skip
    return standing.approval_id


RECEIPT: dict[str, Any] = {
    "strategy": "test", "rule": {"key": "test/a", "version": 1}, "cause": {"trigger": "order.paid", "at": "2026-03-01"},
    "verdict": "act", "arm": "a", "arms": [], "others": [], "guardrails": {}, "seen": [],
    "estimator": "template_prior", "score": 0.5,
}  # fmt: skip


def vote(client: httpx.Client, approval: UUID, headers: dict[str, str], verdict: str = "approve", **more: Any):
    return client.post(f"/api/approvals/{approval}/vote", json={"verdict": verdict, **more}, headers=headers)


def test_the_inbox_says_why_shows_receipts_and_takes_votes(client, here):
    approval = plan(here, 25)
    reader, ann, bob = caller(here, "reader", "approvals:read"), caller(here, "ann"), caller(here, "bob")
    (listed,) = client.get("/api/approvals", headers=reader).json()["items"]
    assert (listed["id"], listed["state"], listed["needed"], listed["missing"]) == (str(approval), "pending", 2, 2)
    assert listed["why"] == [{"rule": "types", "limit": ["email"], "found": "email", "of": "shop"}]
    shown = client.get(f"/api/approvals/{approval}", headers=reader).json()
    assert shown["extent"] == {
        "actions": 25, "customers": 25, "reserved_minor": 100, "by_type": {"email": 25},
        "by_state": {"waiting_approval": 25},
    }  # fmt: skip
    assert len(shown["samples"]) == 20 and all(one["sentences"] for one in shown["samples"])
    again = client.get(f"/api/approvals/{approval}", headers=reader, params={"locale": "zh"}).json()
    assert [one["decision_id"] for one in again["samples"]] == [one["decision_id"] for one in shown["samples"]]
    assert again["samples"][0]["sentences"] != shown["samples"][0]["sentences"]
    assert vote(client, approval, reader).status_code == 403
    first = vote(client, approval, ann, comment="looks right")
    assert (first.status_code, first.json()["state"], first.json()["missing"]) == (200, "pending", 1)
    assert vote(client, approval, ann).json()["code"] == "voted"
    once = {**bob, "Idempotency-Key": "bobs-vote"}
    assert vote(client, approval, once).json()["state"] == "granted"
    repeated = vote(client, approval, once)
    assert (repeated.status_code, repeated.json()["state"]) == (200, "granted")
    late = vote(client, approval, caller(here, "eve"))
    assert (late.status_code, late.json()["code"]) == (409, "settled")
    assert here.states() == {"ready": 25}
    assert client.get("/api/approvals", headers=reader).json()["items"] == []
    (kept,) = client.get("/api/approvals", headers=reader, params={"state": "granted", "kind": "action"}).json()[
        "items"
    ]
    assert [(one["voter"], one["comment"]) for one in kept["votes"]] == [("key:ann", "looks right"), ("key:bob", "")]


def test_nobody_votes_on_their_own_over_http(client, here):
    headers = caller(here, "ann")
    with for_shop(here.engine, here.shop.id) as session:
        asked = approvals.request(
            session, here.shop.id, kind="strategy", subject=str(here.strategy_id), fingerprint="f", needed=1, why=[],
            by="key:ann", at=SYSTEM.now(), expires_at=SYSTEM.now() + timedelta(days=1),
        )  # fmt: skip
    refused = vote(client, asked.id, headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "own")
    shown = client.get(f"/api/approvals/{asked.id}", headers=headers).json()
    assert (shown["extent"], shown["samples"]) == (None, [])


def test_a_campaign_shows_what_trying_it_found(client, here):
    campaign, customer = new_id(), new_id()
    samples = [{"customer_id": str(customer), "random_key": str(customer), "receipt": RECEIPT}]
    estimate = {"exact": True, "strategies": {"s": {"candidates": 100_000}}, "samples": samples}
    here.run(
        "INSERT INTO campaigns (shop_id, id, kind, rules, as_of, due_at, state, estimate, created_at, created_by)"
        " VALUES (:shop, :id, 'manual', '[]', :at, :at, 'waiting_approval', CAST(:estimate AS jsonb), :at, 'key:ann')",
        id=campaign, at=here.start, estimate=orjson.dumps(estimate).decode(),
    )  # fmt: skip
    with for_shop(here.engine, here.shop.id) as session:
        asked = approvals.request(
            session, here.shop.id, kind="campaign", subject=str(campaign), fingerprint="f", needed=1, why=[],
            by="key:ann", at=SYSTEM.now(), expires_at=SYSTEM.now() + timedelta(days=1),
        )  # fmt: skip
    shown = client.get(f"/api/approvals/{asked.id}", headers=caller(here, "bob")).json()
    assert shown["estimate"] == {"exact": True, "strategies": {"s": {"candidates": 100_000}}}
    (sample,) = shown["samples"]
    assert (sample["decision_id"], sample["customer_id"], sample["arm"]) == (None, str(customer), "a")
    assert sample["sentences"] and shown["extent"]["actions"] == 0


def test_the_inbox_goes_on_where_the_page_before_ended(client, here):
    made = [str(plan(here, 0, rule=f"test/{n}")) for n in range(5)]
    headers, seen, cursor = caller(here, "ann"), [], None
    while True:
        page = client.get(
            "/api/approvals", headers=headers, params={"limit": 2, **({"cursor": cursor} if cursor else {})}
        ).json()
        seen += [one["id"] for one in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == made[::-1]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/api/approvals/{UUID(int=7)}", 404),
        ("/api/approvals/none", 400),
        ("/api/approvals?state=perhaps", 400),
        ("/api/approvals?kind=wish", 400),
        ("/api/approvals?cursor=x", 400),
        (f"/api/budgets/{UUID(int=7)}", 404),
    ],
)
def test_what_does_not_exist_is_said_so(client, here, path, status):
    assert client.get(path, headers=caller(here, "ann")).status_code == status


def test_another_shops_approvals_and_budgets_do_not_exist(client, here, engine):
    from operation_agent.store.shops import create_shop

    approval = plan(here, 1)
    other = stage(engine, create_shop(engine, slug=f"o-{new_id().hex[-12:]}", name="Other", currency="USD").id)
    headers = caller(other, "ann")
    assert client.get(f"/api/approvals/{approval}", headers=headers).status_code == 404
    assert vote(client, approval, headers).status_code == 404
    assert client.patch(f"/api/budgets/{here.budget_id}", json={}, headers=headers).status_code == 404


def test_budgets_are_shown_with_what_is_left_and_changed_within_reason(client, here):
    plan(here, 3)
    headers = caller(here, "ann")
    path = f"/api/budgets/{here.budget_id}"
    (listed,) = client.get("/api/budgets", headers=headers).json()
    assert listed == client.get(path, headers=headers).json()
    assert (listed["limit_minor"], listed["reserved_minor"], listed["left_minor"]) == (1000, 12, 988)
    assert (listed["daily_minor"], listed["left_today_minor"]) == (None, None)
    changed = client.patch(path, json={"daily_minor": 50, "per_customer_minor": 10}, headers=headers)
    assert changed.status_code == 200
    assert (changed.json()["daily_minor"], changed.json()["left_today_minor"]) == (50, 50)
    low = client.patch(path, json={"limit_minor": 11}, headers=headers)
    assert (low.status_code, low.json()["code"]) == (409, "budget")
    assert "0.12 USD" in low.json()["detail"]
    assert client.patch(path, json={"daily_minor": None}, headers=headers).json()["daily_minor"] is None
    for wrong in (
        {"limit_minor": None},
        {"daily_minor": 1001},
        {"limit_minor": -1},
        {"limit": 5},
        {"limit_minor": 10**16},
    ):
        assert client.patch(path, json=wrong, headers=headers).status_code == 400, wrong
    assert client.patch(path, json={}, headers=caller(here, "eve", "actions:read")).status_code == 403


def settings(client: httpx.Client, here: Stage, **changes: Any) -> httpx.Response:
    headers = caller(here, f"boss-{new_id().hex}")
    return client.patch(f"/api/shops/{here.shop.slug}", json={"settings": changes}, headers=headers)


def test_a_shops_own_limits_are_taken_as_the_workers_will_read_them(client, here):
    from rules.limits import parse_shop

    changed = settings(
        client, here, caps=[{"count": 3, "window": "P7D", "channel": None, "tag": "sale", "scope": "strategy"}],
        quiet_hours={"start": "22:00", "end": "08:00"}, coupons={"count": 2, "window": "P30D"},
        approval={"types": ["coupon"], "cost_above": "12.50", "approvers": 2, "expires_in": "P1D"},
        complaint_cooldown="P30D",
    )  # fmt: skip
    assert changed.status_code == 200, changed.text
    read = parse_shop(changed.json()["settings"])
    assert (read.caps[0].tag, read.caps[0].own, read.caps[0].count) == ("sale", True, 3)
    assert (read.quiet_hours.otherwise, read.coupons.count, read.complaint_cooldown.days) == ("delay", 2, 30)
    assert (str(read.approval.cost_above), read.approval.approvers, read.approval.expires_in.days) == ("12.50", 2, 1)
    removed = settings(client, here, caps=None, quiet_hours=None, approval=None)
    assert set(removed.json()["settings"]) == {"coupons", "complaint_cooldown"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"quiet_hours": {"start": "22:00", "end": "22:00"}},
        {"quiet_hours": {"start": "24:00", "end": "08:00"}},
        {"approval": {}},
        {"approval": {"approvers": 2}},
        {"approval": {"types": ["carrier_pigeon"]}},
        {"approval": {"types": ["coupon"], "approvers": 0}},
        {"caps": [{"count": 0, "window": "P1D"}]},
        {"caps": [{"count": 1, "window": "P1D", "channel": "carrier_pigeon"}]},
        {"caps": [{"count": 1, "window": "PT0S"}]},
        {"coupons": {"window": "P1D"}},
        {"complaint_cooldown": "a while"},
    ],
)
def test_limits_that_say_nothing_or_contradict_themselves_are_refused(client, here, wrong):
    refused = settings(client, here, **wrong)
    assert refused.status_code == 400, refused.text
    assert refused.json()["detail"]
