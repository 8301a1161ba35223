"""Coupons of every kind in decisions: what they cost, whose yes they need, and what one that is out forbids."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
import pytest
from sqlalchemy import text

from operation_agent.decision import archive
from operation_agent.decision.engine import Decision
from operation_agent.decision.explain import explain
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from operation_agent.strategies import lifecycle
from operation_agent.strategies.library import library
from tests.integration.deciding import AT, make_people
from tests.integration.test_customers_history import event, take
from tests.integration.test_decision_guardrails import Scene

pytestmark = pytest.mark.integration

DAY = timedelta(days=1)
BXGY = {"buy": {"quantity": 2, "products": [1]}, "get": {"quantity": 1, "products": ["1"]}}
KINDS: dict[str, tuple[dict[str, Any], int]] = {  # with its cost to a customer whose orders are 30.00
    "percent": ({"percent": 10}, 300),
    "amount": ({"amount": 7, "minimum_subtotal": 35}, 700),
    "shipping": ({"free_shipping": True}, 450),
    "bxgy": ({"buy_x_get_y": BXGY, "worth": "8.50", "usage_limit": 2}, 1700),
}


@pytest.fixture
def scene(engine, shop_id) -> Scene:
    (who,) = make_people(engine, shop_id, 1)
    made = Scene(engine, shop_id, who)
    made.settings(global_holdout=0.0, free_shipping_minor=450)
    return made


def strategy(scene: Scene, coupon: dict[str, Any], **changes: Any) -> None:
    """Live: a cart is answered with this coupon, by e-mail."""
    definition = orjson.loads(orjson.dumps(library()["conversion"].to_dict()))
    rule = definition["rules"][0]
    rule["when"] = {"event": ["cart.added"], "frequency": "every_time"}
    body = "{{ coupon.code }}: {{ coupon.description }} {{ unsubscribe_url }}"
    letter = {"action": "email", "subject": {"en": "x", "zh": "x"}, "body": {"en": body, "zh": body}}
    steps = [{"action": "coupon", "expires_in": "P7D", **coupon}, letter]
    rule["then"]["arms"] = [{"key": "gift", "weight": 1, "prior": {"increment": 0.1, "redemption": 0.2},
                             "steps": steps}]  # fmt: skip
    definition |= {"caps": [], "holdout": 0.0, "policy": {"kind": "first"}, **changes}
    with for_shop(scene.engine, scene.shop_id) as session:
        shop = load_shop(session, scene.shop_id)
        lifecycle.create(session, shop, lifecycle.read(definition), at=SYSTEM.now(), actor="test")
        row = lifecycle.move(session, shop, "conversion", "live", at=SYSTEM.now(), actor="test")
    scene.strategies["conversion"] = row.id


def decide(scene: Scene) -> Decision:
    (one,) = scene.decide()
    return one


@pytest.mark.parametrize("kind", KINDS)
def test_a_decision_says_what_its_coupon_may_cost_and_replays(scene: Scene, kind: str):
    coupon, cost = KINDS[kind]
    strategy(scene, coupon)
    one = decide(scene)
    assert one.verdict == "act"
    assert one.costs == (cost, 1)
    with for_shop(scene.engine, scene.shop_id) as session:
        assert archive.again(session, load_shop(session, scene.shop_id), one.id).is_same
    # expected value: 0.1 × order × margin − 0.2 × discount − the letter
    assert one.receipt["score"] == pytest.approx(0.1 * 3000 * 0.4 - 0.2 * cost - 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_budget_that_cannot_hold_the_worst_case_stops_it(scene: Scene, kind: str):
    coupon, cost = KINDS[kind]
    strategy(scene, coupon, budget={"limit": cost / 100})  # the letter costs a cent more
    one = decide(scene)
    assert one.verdict == "over_budget"
    scene.run("UPDATE budgets SET limit_minor = limit_minor + 1 WHERE shop_id = :shop")
    assert decide(scene).verdict == "act"


@pytest.mark.parametrize(("kind", "depth"), [("percent", 10), ("amount", 14), ("shipping", 9), ("bxgy", 17)])
def test_a_yes_by_depth_is_asked_for_whatever_is_given(scene: Scene, kind: str, depth: float):
    strategy(scene, KINDS[kind][0])
    for limit, is_asked in ((depth, False), (depth - 0.5, True)):
        scene.settings(approval={"percent_above": limit, "approvers": 1, "expires_in": "P3D"})
        one = decide(scene)
        assert bool(one.needs_approval) is is_asked
        if is_asked:
            assert f"{depth:g} % off, more than {limit:g} %" in "\n".join(explain(one.receipt, "en"))


def out(scene: Scene, offer: str | None, *, until: timedelta = DAY, redeemed: bool = False, **more: Any) -> None:
    """A coupon that the customer has."""
    given = orjson.dumps({"percent": 10, "expires_in": "P7D", **({"offer": offer} if offer else {})}).decode()
    at = AT - 2 * DAY
    action = scene.action(at, type="coupon", channel="coupon", parameters=given, **more)
    scene.run(
        "INSERT INTO coupons (shop_id, action_id, customer_id, code, percent, issued_at, expires_at, redeemed_at,"
        " offer) VALUES (:shop, :action, :who, :code, 10, :at, :until, :redeemed, :offer)",
        action=action, code=action.hex, at=at, until=AT + until, redeemed=at if redeemed else None, offer=offer,
    )  # fmt: skip


def test_the_code_that_is_out_already_is_not_one_coupon_too_many(scene: Scene):
    strategy(scene, {"percent": 10, "offer": "spring"}, coupons={"count": 1, "window": "P30D", "stacking": False})
    out(scene, "spring")
    one = decide(scene)
    assert one.verdict == "act"
    with for_shop(scene.engine, scene.shop_id) as session:
        assert archive.again(session, load_shop(session, scene.shop_id), one.id).is_same


@pytest.mark.parametrize("other", ["summer", None])
def test_another_offer_beside_one_that_is_out_is_stopped(scene: Scene, other: str | None):
    strategy(scene, {"percent": 10, "offer": "spring"})
    out(scene, other)
    assert decide(scene).verdict == "coupon_limit"


def test_an_offer_that_was_used_counts_when_it_would_be_given_anew(scene: Scene):
    strategy(scene, {"percent": 10, "offer": "spring"}, coupons={"count": 1, "window": "P30D", "stacking": False})
    out(scene, "spring", redeemed=True)
    assert decide(scene).verdict == "coupon_limit"


def test_a_code_told_again_is_no_second_coupon(scene: Scene):
    strategy(scene, {"percent": 10}, coupons={"count": 2, "window": "P30D", "stacking": True})
    out(scene, "spring")
    for _ in range(3):
        told = orjson.dumps({"percent": 10, "offer": "spring"}).decode()
        action = scene.action(AT - DAY, type="coupon", channel="coupon", parameters=told)
        scene.run(
            "UPDATE actions SET result = jsonb_build_object('first_action', id) WHERE shop_id = :shop AND id = :id",
            id=action,
        )
    assert decide(scene).verdict == "act"


def test_a_coupon_that_was_taken_back_is_not_out_any_more(scene: Scene):
    strategy(scene, {"percent": 10})
    out(scene, None)
    assert decide(scene).verdict == "coupon_limit"
    scene.run("UPDATE coupons SET deactivated_at = issued_at WHERE shop_id = :shop")
    assert decide(scene).verdict == "act"


def test_a_merged_customer_brings_the_codes_of_pools_along(engine, shop_id):
    first = [event(1, "page.viewed", external="7"), event(2, "page.viewed", anonymous="a")]
    people = take(engine, shop_id, *first)
    older, younger = (people[one.id].customer_id for one in first)
    pools = [new_id(), new_id()]
    with for_shop(engine, shop_id) as session:
        for number, (pool, customer) in enumerate([(pools[0], younger), (pools[1], older), (pools[1], younger)]):
            session.execute(
                text(
                    "INSERT INTO pool_codes (shop_id, pool_id, number, code, is_made, customer_id, given_at)"
                    " VALUES (:shop, :pool, :number, :code, true, :customer, :at)"
                ),
                {"shop": shop_id, "pool": pool, "number": number, "code": f"C{number}", "customer": customer, "at": AT},
            )
    joining = event(30, "page.viewed", external="7", anonymous="a")
    assert take(engine, shop_id, joining)[joining.id].customer_id == older
    with for_shop(engine, shop_id) as session:
        owners = session.execute(
            text("SELECT code, customer_id FROM pool_codes WHERE shop_id = :shop ORDER BY code"), {"shop": shop_id}
        ).all()
    assert [tuple(row) for row in owners] == [("C0", older), ("C1", older), ("C2", younger)]
