"""What is asked at the moment of sending, and in what order the reasons are given."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operation_agent.actions import catalogue
from operation_agent.actions.checks import Message, Situation, Verdict, is_capped, judge
from operation_agent.kit.errors import Rejected
from operation_agent.kit.ids import new_id
from rules.limits import Cap
from rules.step import ACTIONS

pytestmark = pytest.mark.unit

FINE = Situation(
    held_out=False, is_customer_known=True, is_strategy_ended=False, has_prerequisite_failed=False, goal_reached=None,
    is_unapproved=False, is_stale=False, is_address_missing=False, suppression=None, has_consent=True,
    has_complained=False, quiet=None, is_capped=False,
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
        ({"is_unapproved": True}, Verdict("suppressed", "not_approved")),
        ({"is_stale": True}, Verdict("suppressed", "stale")),
        ({"has_consent": False}, Verdict("suppressed", "no_consent")),
        ({"has_complained": True}, Verdict("suppressed", "complained")),
        ({"quiet": "skip"}, Verdict("suppressed", "quiet")),
        ({"quiet": "delay"}, Verdict(None, "quiet")),
        ({"is_capped": True}, Verdict("suppressed", "capped")),
    ],
)
def test_each_reason_stops_the_treated_and_the_held_out_alike(change, verdict):
    assert judge(replace(FINE, **change)) == verdict
    assert judge(replace(FINE, held_out=True, **change)) == verdict


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


def test_a_channels_last_line_is_the_shops_to_move():
    weekly = Cap("email", 2, timedelta(days=7))
    assert catalogue.shop_caps({}, [weekly]) == (catalogue.DEFAULT_CAPS["email"], weekly)
    assert catalogue.shop_caps({"hard_caps": {"email": None}}, [weekly]) == (weekly,)
    daily = {"hard_caps": {"email": {"count": 1, "window": "P1D"}}}
    assert catalogue.shop_caps(daily, []) == (Cap("email", 1, timedelta(days=1)),)


AT = datetime(2026, 3, 2, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def message(at: datetime, *tags: str, channel: str = "email", strategy: UUID = UUID(int=1)) -> Message:
    return Message(new_id(), at, channel, frozenset(tags), strategy)


@pytest.mark.parametrize(
    ("others", "is_held"),
    [
        ([AT - DAY, AT - 2 * DAY], True),
        ([AT - DAY, AT - 3 * DAY], False),  # three days ago is out of a window of three days that ends now
        ([AT + DAY, AT + 2 * DAY], True),  # later ones that went first: the window that ends with them holds this one
        ([AT - 2 * DAY, AT + 2 * DAY], False),  # no window of three days holds both
        ([AT - DAY, AT + DAY], True),
        ([AT, AT], True),
    ],
)
def test_no_rolling_window_that_holds_the_message_may_overflow(others, is_held):
    cap = Cap(None, 2, 3 * DAY)
    assert is_capped([cap], message(AT), [message(at) for at in others]) is is_held


def test_a_cap_counts_by_channel_tag_and_strategy():
    sale, plain = message(AT, "sale"), message(AT)
    foreign = message(AT, strategy=UUID(int=2))
    texted = message(AT, "sale", channel="sms")
    assert is_capped([Cap("email", 1, DAY)], plain, [sale])
    assert not is_capped([Cap("email", 1, DAY)], plain, [texted])
    assert is_capped([Cap(None, 1, DAY)], plain, [texted])
    assert not is_capped([Cap(None, 1, DAY, tag="sale")], plain, [sale])
    assert not is_capped([Cap(None, 1, DAY, tag="sale")], sale, [plain])
    assert is_capped([Cap(None, 1, DAY, tag="sale")], sale, [texted])
    assert not is_capped([Cap(None, 1, DAY, own=True)], plain, [foreign])
    assert is_capped([Cap(None, 1, DAY, own=True), Cap(None, 2, DAY)], plain, [message(AT)])
    assert is_capped([Cap(None, 5, DAY), Cap("email", 0, DAY)], plain, [])


def test_a_message_does_not_stand_in_its_own_way():
    tried = message(AT)
    assert not is_capped([Cap(None, 1, DAY)], tried, [tried])


@settings(max_examples=300)
@given(st.lists(st.integers(0, 40), max_size=12), st.integers(0, 40), st.integers(1, 4), st.integers(1, 15))
def test_what_caps_let_through_overflows_no_window(others, moment, count, window):
    """Against every window there is, hour by hour."""
    cap = Cap(None, count, timedelta(hours=window))
    sent: list[int] = []
    for hour in [*others, moment]:
        going = message(AT + timedelta(hours=hour))
        if not is_capped([cap], going, [message(AT + timedelta(hours=one)) for one in sent]):
            sent.append(hour)
    for end in range(60):
        assert sum(end - window < one <= end for one in sent) <= count


def test_costs_are_the_shops_own_where_it_says_so():
    assert catalogue.unit_cost({"costs": {"email": 7}}, "email") == 7
    assert catalogue.unit_cost({}, "email") == 1
