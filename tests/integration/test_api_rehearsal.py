"""Rehearsals over HTTP and by the job: dry runs, impact, backtests; nothing anybody sends is our fault."""

from __future__ import annotations

import copy
import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from operation_agent.actions import wakeups
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.rehearsal import backtests
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from operation_agent.strategies import authoring
from tests.integration.test_api_strategies import Api
from tests.integration.test_rehearsal_backtest import CARTS, START, identified, live_through, stories, strategy

pytestmark = pytest.mark.integration

TRIGGER = {"kind": "event", "type": "cart.added", "properties": {"product_id": "p1"}}
KNOWN = {"customer.carts_7d": 3, "consent.email": "subscribed"}
TRIED = strategy(CARTS)


@pytest.fixture
def api(client, engine, shop_id) -> Api:
    identified(engine, shop_id)
    live_through(engine, shop_id, stories(1, customers=30))
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        now = SYSTEM.now()
        session.execute(
            text("UPDATE shops SET clock_offset = :offset WHERE id = :id"),
            {"offset": START + timedelta(days=30) - now, "id": shop_id},
        )
        authoring.create(session, shop, TRIED, at=now, actor="t")
    return Api(client, engine, shop_id)


def written(**changes: Any) -> dict[str, Any]:
    return json.loads(json.dumps(TRIED.to_dict())) | changes


def who(api: Api, number: int) -> str:
    (row,) = api.query("SELECT id FROM customers WHERE shop_id = :shop AND external_id = :e", e=f"c{number}")
    return str(row.id)


def test_a_draft_is_tried_on_customers(api):
    told = api.done("POST", "strategies/tried/dry-run", {"customers": [who(api, 1), who(api, 2)], "trigger": TRIGGER})
    assert (told["strategy"], told["version"]) == ("tried", 1)
    assert [one["customer_id"] for one in told["customers"]] == [who(api, 1), who(api, 2)]
    decision = next(one["decision"] for one in told["customers"] if one["decision"])
    assert decision["guardrails"]["consent"]["passes"] in (True, False)
    assert {"en", "zh"} == decision["explanation"].keys()
    assert decision["arms"][0]["steps"][0]["due_at"]


def test_an_unsaved_definition_is_tried_on_somebody_imagined(api):
    body = {"definition": written(key="quite-new"), "customer": {"fields": KNOWN, "locale": "zh"}, "trigger": TRIGGER}
    told = api.done("POST", "strategies/dry-run", body)
    assert (told["strategy"], told["version"], told["customers"][0]["customer_id"]) == ("quite-new", None, None)
    assert told["customers"][0]["decision"]["arms"][0]["steps"][0]["rendered"]["zh"]["subject"] == "您好"
    changed = api.done("POST", "strategies/tried/dry-run", {**body, "definition": written(holdout=0.5)})
    assert changed["customers"][0]["decision"]["receipt"]["holdout"][1] == 0.5


def test_impact_is_told_of_the_draft(api):
    told = api.done("GET", "strategies/tried/impact?in_flight=exit")
    assert told["rules"][0]["change"] == "new"
    assert told["rules"][0]["matching"] > 0 and told["customers"] == 60
    api.done("POST", "strategies/tried/publish", {})
    assert api.done("GET", "strategies/tried/impact?version=live")["rules"][0]["change"] == "same"


def test_a_backtest_is_asked_for_done_and_kept(api, engine, shop_id):
    api.done("POST", "strategies/tried/publish", {})
    api.done("PUT", "strategies/tried/draft", written(caps=[{"channel": "email", "count": 1, "window": "P30D"}]))
    answer = api("POST", "strategies/tried/backtests", {"days": 20}, Idempotency_Key="once")
    assert answer.status_code == 202
    asked = answer.json()
    again = api("POST", "strategies/tried/backtests", {"days": 20}, Idempotency_Key="once")
    assert again.json()["id"] == asked["id"]
    assert (asked["state"], asked["version"], asked["live_version"]) == ("queued", 2, 1)
    rung = api.query("SELECT key FROM outbox WHERE shop_id = :shop AND topic = 'backtests.run'")
    assert [row.key for row in rung] == [asked["id"]]
    backtests.work(engine, shop_id, UUID(asked["id"]))
    done = api.done("GET", f"backtests/{asked['id']}")
    assert done["state"] == "done", done["error"]
    assert done["result"]["diff"]["verdicts"]["capped"] > 0
    assert len(done["result"]["draft"]["days"]) == 21
    assert done["result"]["assumptions"]["zh"]
    (listed,) = api.done("GET", "backtests?strategy=tried")["items"]
    assert listed["id"] == asked["id"] and "result" not in listed
    assert api.query("SELECT 1 FROM schedule_ticks WHERE shop_id = :shop AND finished_at IS NULL") == []


def test_one_whose_worker_died_is_rung_again_and_given_up_in_the_end(api, engine, shop_id, monkeypatch):
    asked = api.done("POST", "strategies/tried/backtests", {"days": 5})
    with for_shop(engine, shop_id) as session:
        session.execute(text("DELETE FROM outbox WHERE shop_id = :s"), {"s": shop_id})
        later = SYSTEM.now() + 2 * wakeups.JOB_PATIENCE
        wakeups.ring_due(session, load_shop(session, shop_id), at=later)
    rung = api.query("SELECT key FROM outbox WHERE shop_id = :shop AND topic = 'backtests.run'")
    assert [row.key for row in rung] == [asked["id"]]

    class KilledError(BaseException):
        pass

    def die(*_args: Any, **_more: Any) -> Any:
        raise KilledError

    monkeypatch.setattr(backtests.backtest, "run", die)
    for _ in range(backtests.MOST_ATTEMPTS):
        with pytest.raises(KilledError):
            backtests.work(engine, shop_id, UUID(asked["id"]))
        assert api.done("GET", f"backtests/{asked['id']}")["state"] == "running"
    backtests.work(engine, shop_id, UUID(asked["id"]))
    found = api.done("GET", f"backtests/{asked['id']}")
    assert found["state"] == "failed" and "died" in found["error"]
    assert api.query("SELECT 1 FROM schedule_ticks WHERE shop_id = :shop AND finished_at IS NULL") == []


def test_only_so_many_wait_at_a_time(api):
    for _ in range(backtests.MOST_OPEN):
        api.done("POST", "strategies/tried/backtests", {"days": 1})
    answer = api("POST", "strategies/tried/backtests", {"days": 1})
    assert (answer.status_code, answer.json()["code"]) == (409, "backtests")


def test_what_an_edit_changes_afterwards_does_not_count(api, engine, shop_id):
    asked = api.done("POST", "strategies/tried/backtests", {"days": 20})
    api.done("PUT", "strategies/tried/draft", written(caps=[{"channel": "email", "count": 1, "window": "P300D"}]))
    backtests.work(engine, shop_id, UUID(asked["id"]))
    first = api.done("GET", f"backtests/{asked['id']}")["result"]["draft"]["total"]["verdicts"]
    other = api.done("POST", "strategies/tried/backtests", {"days": 20})
    backtests.work(engine, shop_id, UUID(other["id"]))
    assert first != api.done("GET", f"backtests/{other['id']}")["result"]["draft"]["total"]["verdicts"]


def test_another_shop_sees_nothing_of_it(api, client, engine):
    from operation_agent.store.shops import create_shop

    asked = api.done("POST", "strategies/tried/backtests", {"days": 1})
    stranger = Api(client, engine, create_shop(engine, slug=f"x-{new_id().hex[-12:]}", name="X", currency="USD").id)
    assert stranger("GET", f"backtests/{asked['id']}").status_code == 404
    assert stranger.done("GET", "backtests")["items"] == []
    body = {"customers": [who(api, 1)], "trigger": TRIGGER, "definition": written()}
    assert stranger("POST", "strategies/dry-run", body).status_code == 400


# -- nonsense -----------------------------------------------------------------------------------------------------

IMAGINED = {"customer": {"fields": KNOWN}, "trigger": TRIGGER}


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("strategies/tried/dry-run", {}, "trigger"),
        ("strategies/tried/dry-run", {"trigger": TRIGGER}, None),
        ("strategies/tried/dry-run", {**IMAGINED, "customers": [str(new_id())]}, None),
        ("strategies/tried/dry-run", {"customers": [str(new_id())], "trigger": TRIGGER}, "customers[0]"),
        ("strategies/tried/dry-run", {"customers": [], "trigger": TRIGGER}, "customers"),
        ("strategies/tried/dry-run", {"customers": [str(UUID(int=1))] * 51, "trigger": TRIGGER}, "customers"),
        ("strategies/tried/dry-run", {**IMAGINED, "version": "newest"}, "version"),
        ("strategies/tried/dry-run", {**IMAGINED, "trigger": {"kind": "event"}}, "trigger.type"),
        ("strategies/tried/dry-run", {**IMAGINED, "trigger": {**TRIGGER, "properties": {}}}, "properties.sku"),
        ("strategies/tried/dry-run", {**IMAGINED, "trigger": {**TRIGGER, "kind": "left"}}, "trigger.group"),
        ("strategies/tried/dry-run", {**IMAGINED, "definition": {"key": "x"}}, None),
        ("strategies/tried/dry-run", {**IMAGINED, "definition": written(key="other")}, "definition.key"),
        (
            "strategies/tried/dry-run",
            {"customer": {"fields": {"customer.order": 1}}, "trigger": TRIGGER},
            "customer.fields.customer.order",
        ),
        (
            "strategies/tried/dry-run",
            {"customer": {"fields": KNOWN, "time_zone": "Mars/Olympus"}, "trigger": TRIGGER},
            "customer.time_zone",
        ),
        ("strategies/dry-run", IMAGINED, "definition"),
        ("strategies/tried/backtests", {"days": 0}, "days"),
        ("strategies/tried/backtests", {"days": 367}, "days"),
        ("strategies/tried/backtests", {"days": 3, "version": "draft", "definition": written()}, None),
        ("strategies/tried/backtests", [], None),
    ],
)
def test_nonsense_is_refused_with_its_place(api, path, body, where):
    answer = api("POST", path, body)
    assert answer.status_code == 400, answer.text
    if where is not None:
        assert answer.json()["where"] == where


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "backtests/nonsense", 400),
        ("GET", f"backtests/{new_id()}", 404),
        ("GET", "backtests?strategy=nobody", 404),
        ("GET", "backtests?cursor=§", 400),
        ("GET", "strategies/nobody/impact", 404),
        ("GET", "strategies/tried/impact?version=9", 404),
        ("GET", "strategies/tried/impact?in_flight=wait", 400),
        ("POST", "strategies/nobody/backtests", 404),
    ],
)
def test_what_is_not_there_is_not_found(api, method, path, status):
    assert api(method, path, {} if method == "POST" else None).status_code == status


SPOILS: list[Any] = [
    None,
    10**30,
    -1,
    1e308,
    "\0",
    "\ud800",
    "x" * 20_000,
    [],
    [[[]]],
    {},
    {"": None},
    True,
    "2026-13-45",
]


def test_no_spoiled_part_of_a_body_is_our_fault(api):
    """Every value of a good body replaced by every spoil, one at a time."""
    bodies = {
        "strategies/tried/dry-run": {
            "version": "draft",
            "customer": {"fields": {**KNOWN, "event.product_id": "p"}, "channels": ["email"], "suppressed": {},
                         "locale": "zh", "first_name": "x", "time_zone": "UTC", "name": "n"},
            "trigger": {"kind": "event", "type": "order.paid", "name": "x",
                        "properties": {"order_id": "1", "total": 3, "products": [{"product_id": "p", "price": 1}]}},
        },
        "strategies/tried/backtests": {"days": 1, "version": "draft"},
    }  # fmt: skip
    for path, good in bodies.items():
        for place in list(_places(good)):
            for spoil in SPOILS:
                body = copy.deepcopy(good)
                _put(body, place, spoil)
                answer = api("POST", path, json.dumps(body).encode())
                assert answer.status_code < 500, (place, spoil, answer.text)


def test_no_event_of_any_type_is_our_fault(api):
    from operation_agent.events.catalogue import TYPES

    odd: list[dict[str, Any]] = [
        {}, {"address": {}}, {"address": "a@example.com", "permanent": True}, {"traits": []}, {"traits": {"a": [1]}},
        {"order_id": "1", "total": 1, "refund_id": [], "amount": 1}, {"product_id": "p", "price": "NaN"},
        {"channel": "email", "state": "subscribed", "topic": 7}, {"query": "x", "action_id": 3},
    ]  # fmt: skip
    customers = [who(api, 1)]
    for type_ in TYPES:
        for properties in odd:
            trigger = {"kind": "event", "type": type_, "properties": properties}
            answer = api("POST", "strategies/tried/dry-run", {"customers": customers, "trigger": trigger})
            assert answer.status_code < 500, (type_, properties, answer.text)


def _places(body: Any, path: tuple[Any, ...] = ()) -> Any:
    if path:
        yield path
    pairs = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for key, value in pairs:
        yield from _places(value, (*path, key))


def _put(body: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        body = body[key]
    body[path[-1]] = value
