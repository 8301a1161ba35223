"""The pure parts of changing a shop: what each kind takes, and how far a price may move."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.kit.errors import Rejected
from operation_agent.storefront import kinds, price_bound

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 20, 12, 0, 0, 999, tzinfo=UTC)
PRICES = st.decimals("0.01", "100000", places=2)


def offers(*prices: Decimal | str, cost: str | None = None) -> dict[str, dict[str, Any]]:
    return {str(n): {"price": str(price), "compare_at": None, "cost": cost} for n, price in enumerate(prices)}


@pytest.mark.parametrize("kind", sorted(kinds.KINDS))
def test_an_example_reads_and_reads_again_the_same(kind: str):
    made = kinds.read(kind, kinds.KINDS[kind].example, at=NOW)
    assert kinds.read(kind, made, at=NOW) == made
    assert kinds.subject_of(kind, made)


def test_the_moment_of_asking_is_filled_in_where_no_other_is_told():
    given_ = {"customer_id": "1", "channel": "email", "state": "subscribed"}
    assert kinds.read("customer.consent", given_, at=NOW)["consented_at"] == "2026-11-20T12:00:00+00:00"
    told = kinds.read("customer.consent", {**given_, "consented_at": "2026-01-01T00:00:00Z"}, at=NOW)
    assert told["consented_at"] == "2026-01-01T00:00:00+00:00"
    with pytest.raises(Rejected, match="still to come"):
        kinds.read("customer.consent", {**given_, "consented_at": "2026-11-20T13:30:00+01:00"}, at=NOW)


def test_what_is_new_has_no_subject_yet():
    assert kinds.subject_of("page.create", {}) == "page"
    assert kinds.subject_of("publication.set", {"product_id": None, "collection_id": "8"}) == "collection:8"


@given(PRICES, PRICES, st.decimals("0.01", "1", places=2))
def test_a_price_passes_if_and_only_if_it_moves_within_the_bound(old: Decimal, new: Decimal, bound: Decimal):
    within = abs(new - old) <= bound * old
    try:
        price_bound.check(offers(old), offers(new), bound)
    except Rejected as error:
        assert not within
        assert error.code == "price_bound"
        assert f"{bound:.1%}" in error.detail
    else:
        assert within


@given(PRICES, PRICES, st.decimals("0.01", "1", places=2))
def test_what_a_person_need_not_see_is_always_allowed(old: Decimal, new: Decimal, bound: Decimal):
    if not price_bound.needs_a_person(offers(old), offers(new), bound):
        price_bound.check(offers(old), offers(new), bound)


@given(st.lists(st.tuples(PRICES, PRICES), min_size=1, max_size=5))
def test_the_largest_move_is_that_of_one_of_them(pairs: list[tuple[Decimal, Decimal]]):
    before, after = offers(*(old for old, _ in pairs)), offers(*(new for _, new in pairs))
    moves = [abs(new - old) / old for old, new in pairs]
    assert price_bound.largest_move(before, after) == max(moves)


def test_a_price_from_nothing_is_beyond_every_bound():
    with pytest.raises(Rejected, match="from nothing"):
        price_bound.check(offers("0.00"), offers("0.01"), Decimal(10))
    price_bound.check(offers("0.00"), offers("0.00"), Decimal("0.1"))


def test_a_price_below_nothing_is_refused_whatever_the_bound():
    with pytest.raises(Rejected, match="below nothing"):
        price_bound.check(offers("1.00"), offers("-0.01"), Decimal(10))


def test_a_price_below_cost_may_go_up_but_not_down():
    with pytest.raises(Rejected, match="what it costs"):
        price_bound.check(offers("9.00", cost="9.50"), offers("8.99"), Decimal(1))
    price_bound.check(offers("9.00", cost="9.50"), offers("9.20"), Decimal(1))


def test_the_oldest_of_several_changes_is_where_a_price_came_from():
    now = offers("14.60", "5.00")
    earlier = [{"0": {"price": "20.00"}}, {"0": {"price": "18.00"}}]
    first = price_bound.first_known(now, earlier)
    assert (first["0"]["price"], first["1"]["price"]) == ("20.00", "5.00")


def test_the_bound_is_the_shops_or_thirty_per_cent():
    assert price_bound.bound_of({}) == Decimal("0.30")
    assert price_bound.bound_of({"price_bound": 0.1}) == Decimal("0.1")
