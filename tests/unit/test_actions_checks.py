"""What is asked at the moment of sending, and in what order the reasons are given."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from operation_agent.actions import catalogue
from operation_agent.actions.checks import Situation, Verdict, judge
from operation_agent.kit.errors import Rejected
from rules.step import ACTIONS

pytestmark = pytest.mark.unit

FINE = Situation(
    held_out=False, is_customer_known=True, is_strategy_ended=False, has_prerequisite_failed=False, goal_reached=None,
    is_address_missing=False, consent="subscribed", needs_consent=True, suppression=None, is_capped=False,
)  # fmt: skip


def test_with_everything_in_order_the_treated_are_claimed_and_the_held_out_trapped():
    assert judge(FINE) == Verdict("claimed")
    assert judge(replace(FINE, held_out=True)) == Verdict("trapped")


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"is_customer_known": False}, Verdict("cancelled", "customer_erased")),
        ({"is_strategy_ended": True}, Verdict("cancelled", "strategy_ended")),
        ({"goal_reached": "order.paid"}, Verdict("cancelled", "goal_reached")),
        ({"has_prerequisite_failed": True}, Verdict("cancelled", "prerequisite_failed")),
        ({"is_address_missing": True}, Verdict("suppressed", "no_address")),
        ({"suppression": "bounced"}, Verdict("suppressed", "suppressed:bounced")),
        ({"consent": "unsubscribed"}, Verdict("suppressed", "no_consent")),
        ({"consent": None}, Verdict("suppressed", "no_consent")),
        ({"is_capped": True}, Verdict("suppressed", "capped")),
    ],
)
def test_each_reason_stops_the_treated_and_the_held_out_alike(change, verdict):
    assert judge(replace(FINE, **change)) == verdict
    assert judge(replace(FINE, held_out=True, **change)) == verdict


def test_silence_is_no_consent_but_a_coupon_needs_none():
    assert judge(replace(FINE, consent=None, needs_consent=False)).happening == "claimed"


def test_the_catalogue_and_the_rule_language_know_the_same_actions():
    assert {name: one.channel for name, one in catalogue.TYPES.items()} == {
        name: form.channel for name, form in ACTIONS.items()
    }
    assert {one.channel for one in catalogue.TYPES.values()} == set(catalogue.CHANNELS)
    for name, form in ACTIONS.items():
        assert catalogue.CHANNELS[form.channel].is_message == form.is_message
        assert set(catalogue.TYPES[name].schema["required"]) <= set(form.keys)


def test_an_unknown_type_is_refused_by_name():
    with pytest.raises(Rejected, match="carrier_pigeon"):
        catalogue.action_type("carrier_pigeon")


def test_caps_are_the_shops_and_the_strategys():
    strategy = [{"channel": "email", "count": 2, "window": "P7D"}, {"channel": "sms", "count": 1, "window": "P1D"}]
    weekly = catalogue.Cap(2, timedelta(days=7))
    assert catalogue.caps({}, "email", strategy) == [catalogue.DEFAULT_CAPS["email"], weekly]
    assert catalogue.caps({"hard_caps": {"email": None}}, "email", strategy) == [weekly]
    daily = {"hard_caps": {"email": {"count": 1, "window": "P1D"}}}
    assert catalogue.caps(daily, "email", None) == [catalogue.Cap(1, timedelta(days=1))]


def test_approval_is_asked_for_by_type_or_amount():
    assert not catalogue.needs_approval({}, "coupon", 10**9)
    assert catalogue.needs_approval({"approval": {"types": ["coupon"]}}, "coupon", 0)
    assert catalogue.needs_approval({"approval": {"above_minor": 500}}, "email", 501)
    assert not catalogue.needs_approval({"approval": {"above_minor": 500}}, "email", 500)


def test_costs_are_the_shops_own_where_it_says_so():
    assert catalogue.unit_cost({"costs": {"email": 7}}, "email") == 7
    assert catalogue.unit_cost({}, "email") == 1
