"""Ledger lines and attribution: the same whatever came first, and adding up to exactly what the definitions say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import permutations
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.feedback.attribution import Touch, credit, message_kind
from operation_agent.feedback.ledger import Order, Reversal, lines

pytestmark = pytest.mark.unit

NOON = datetime(1998, 7, 3, 12, tzinfo=UTC)
RATE = Decimal("0.4")


def order(total: int, discount: int = 0) -> Order:
    return Order("1001", NOON, total, discount)


def test_a_discount_comes_out_of_the_margin_whole():
    assert [(line.kind, line.amount_minor) for line in lines(order(9000, 1000), [], RATE)] == [
        ("margin", 4000),  # of the 10,000 before the discount
        ("discount", -1000),
    ]


def test_a_part_refund_takes_its_share_and_the_rest_takes_the_rest():
    refunds = [Reversal("a", 3000, NOON + timedelta(days=2)), Reversal("b", 6000, NOON + timedelta(days=5))]
    found = lines(order(9000, 1000), refunds, RATE)
    assert [line.amount_minor for line in found] == [4000, -1000, -1000, -2000]
    assert [line.occurred_at for line in found][2:] == [NOON + timedelta(days=2), NOON + timedelta(days=5)]


def test_what_is_refunded_and_then_cancelled_is_lost_once():
    found = lines(order(9000), [Reversal("a", 4500, NOON), Reversal("cancelled", None, NOON)], RATE)
    assert sum(line.amount_minor for line in found) == 0


def test_a_refund_never_takes_more_than_the_order():
    found = lines(order(1000), [Reversal("a", 9999, NOON), Reversal("b", 1, NOON)], RATE)
    assert [line.amount_minor for line in found] == [400, -400, 0]


def test_lines_do_not_depend_on_the_order_of_arrival():
    reversals = [Reversal(name, 1111, NOON + timedelta(hours=hour)) for name, hour in [("a", 9), ("b", 9), ("c", 2)]]
    reversals.append(Reversal("cancelled", None, NOON + timedelta(hours=20)))
    outcomes = {tuple(lines(order(7777, 333), arrived, RATE)) for arrived in permutations(reversals)}
    assert len(outcomes) == 1


@given(
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.lists(st.integers(0, 10**9), max_size=6),
    st.decimals(0, 1, places=4),
)
def test_a_cancelled_order_earns_exactly_nothing(total, discount, refunds, rate):
    reversals = [Reversal(str(index), amount, NOON) for index, amount in enumerate(refunds)]
    reversals.append(Reversal("cancelled", None, NOON + timedelta(days=1)))
    assert sum(line.amount_minor for line in lines(order(total, discount), reversals, rate)) == 0


def touch(number: int, hours: float) -> Touch:
    return Touch(UUID(int=number), UUID(int=99), NOON - timedelta(hours=hours), f"key-{number}")


def test_the_last_touch_within_the_window_gets_the_order():
    touches = [touch(1, 30), touch(2, 5), touch(3, 24 * 8), touch(4, -1)]
    assert credit(NOON, [], {}, touches).touch == touch(2, 5)
    assert credit(NOON, [], {}, [touch(3, 24 * 8)]) is None
    assert credit(NOON, [], {}, [touch(3, 24 * 8)], timedelta(days=9)).touch == touch(3, 24 * 8)


def test_a_redeemed_coupon_beats_a_later_message():
    given_credit = credit(NOON, ["other", "save-1"], {"SAVE-1": touch(7, 200)}, [touch(2, 1)])
    assert (given_credit.touch, given_credit.by) == (touch(7, 200), "code")


def test_ties_do_not_depend_on_the_order_of_rows():
    one, two = touch(1, 3), touch(2, 3)
    assert credit(NOON, [], {}, [one, two]) == credit(NOON, [], {}, [two, one])


def test_an_open_by_a_machine_is_no_open():
    assert message_kind("email.opened", {}) == "opened"
    assert message_kind("email.opened", {"machine_open": True}) is None
    assert message_kind("order.paid", {}) is None
