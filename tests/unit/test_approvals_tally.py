"""What votes amount to, whose yes an action needs, and who stands behind a key."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from operation_agent.actions.approving import Ruling, _largest, need, rulings
from operation_agent.approvals.approval import fingerprint, tally
from operation_agent.approvals.people import _closure
from operation_agent.kit.ids import new_id
from operation_agent.store.shops import Shop
from rules.limits import Approval, Limits
from rules.step import Step

pytestmark = pytest.mark.unit


def shop(**settings) -> Shop:
    return Shop(new_id(), "s", "S", "USD", "UTC", True, timedelta(0), Decimal("0.4"), "seed", settings)


def step(action: str, **parameters) -> Step:
    return Step(action, action, "marketing", timedelta(0), parameters)


@pytest.mark.parametrize(
    ("needed", "verdicts", "state"),
    [
        (1, [], "pending"),
        (1, ["approve"], "granted"),
        (2, ["approve"], "pending"),
        (2, ["approve", "approve"], "granted"),
        (2, ["approve", "reject"], "rejected"),
        (1, ["reject"], "rejected"),
        (3, ["approve", "approve"], "pending"),
    ],
)
def test_enough_people_grant_and_one_no_is_a_no(needed, verdicts, state):
    assert tally(needed, verdicts) == state


def test_a_fingerprint_follows_the_content_and_not_the_order_of_keys():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"percent": 10}) != fingerprint({"percent": 15})


def test_whoever_made_a_key_stands_behind_it():
    makers = {"key:ci": {"user:ann"}, "key:deep": {"key:ci"}, "key:loop": {"key:loop"}}
    assert _closure("user:ann", makers) == {"user:ann"}
    assert _closure("key:deep", makers) == {"key:deep", "key:ci", "user:ann"}
    assert _closure("key:loop", makers) == {"key:loop"}
    assert _closure("key:cli", makers) == {"key:cli"}


def test_nobody_is_asked_without_a_rule():
    assert rulings(shop(), Limits()) == ()
    assert need((), step("coupon", percent=90), reserve_minor=10**9, audience=10**6) is None


STRICT = Limits(
    approval=Approval(types=("coupon",), percent_above=20, cost_above=Decimal("5.00"), audience_above=100, approvers=2)
)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ((step("email"), 500, 100), None),
        ((step("email"), 501, None), "cost_above"),
        ((step("email"), 0, 101), "audience_above"),
        ((step("email", percent=50), 0, None), None),  # only a coupon's depth is one
        ((step("coupon", percent=20.0), 0, None), "types"),
        ((step("coupon", percent=20.5), 0, None), "percent_above+types"),
        ((step("coupon", percent=30), 501, 101), "audience_above+cost_above+percent_above+types"),
    ],
)
def test_each_rule_asks_by_itself_and_above_its_limit_only(asked, reason):
    one, cost, audience = asked
    found = need(rulings(shop(), STRICT), one, reserve_minor=cost, audience=audience)
    assert (found.reason if found else None) == reason
    assert found is None or found.needed == 2


def test_the_shops_rules_and_the_strategys_add_up():
    asked = rulings(shop(approval={"types": ["email"], "approvers": 3, "expires_in": "P1D"}), STRICT)
    found = need(asked, step("coupon", percent=30), reserve_minor=0)
    assert (found.needed, found.expires_in) == (2, timedelta(days=3))  # the shop's rule does not ask for coupons
    assert need(asked, step("email"), reserve_minor=0).needed == 3
    both = need(asked, step("email"), reserve_minor=900)
    assert (both.needed, both.expires_in, both.reason) == (3, timedelta(days=1), "cost_above+types")
    assert {one["of"] for one in both.why} == {"shop", "strategy"}


def test_the_older_way_to_write_a_cost_still_asks():
    asked = rulings(shop(approval={"above_minor": 500}), Limits())
    assert need(asked, step("email"), reserve_minor=500) is None
    assert need(asked, step("email"), reserve_minor=501).why == (
        {"rule": "cost_above", "limit": 500, "found": 501, "of": "shop"},
    )


def test_a_group_says_the_largest_it_found():
    asked = (Ruling("shop", frozenset(), 10.0, None, None, 1, timedelta(days=1)),)
    found = [need(asked, step("coupon", percent=percent), reserve_minor=0) for percent in (15, 40, 20)]
    assert _largest(found) == [{"rule": "percent_above", "limit": 10.0, "found": 40.0, "of": "shop"}]
