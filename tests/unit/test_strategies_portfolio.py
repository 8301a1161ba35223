"""The portfolio is the best feasible set, and says of everything else why it is not in it."""

from __future__ import annotations

from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.strategies.portfolio import Bounds, Option, choose

pytestmark = pytest.mark.unit

options = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(-50, 100), st.integers(0, 60), st.integers(0, 3)),
    max_size=8,
).map(
    lambda rows: [
        Option(f"o{i}", f"s{slot}-{cluster}", f"c{cluster}", float(profit), float(spend), float(messages))
        for i, (slot, cluster, profit, spend, messages) in enumerate(rows)
    ]
)
bounds = st.builds(Bounds, st.none() | st.integers(0, 150).map(float), st.integers(0, 6).map(float), st.integers(0, 8))


def is_feasible(chosen, limits):
    return (
        len(chosen) <= limits.strategies
        and len({one.slot for one in chosen}) == len(chosen)
        and (limits.budget is None or sum(one.spend for one in chosen) <= limits.budget)
        and all(
            sum(one.messages for one in chosen if one.cluster == cluster) <= limits.messages
            for cluster in {one.cluster for one in chosen}
        )
    )


@given(options, bounds)
def test_no_feasible_set_earns_more(listed, limits):
    found = choose(listed, limits)
    by_key = {one.key: one for one in listed}
    assert is_feasible([by_key[key] for key in found.chosen], limits)
    every = chain.from_iterable(combinations(listed, size) for size in range(len(listed) + 1))
    best = max(sum(one.profit for one in some) for some in every if is_feasible(some, limits))
    assert found.profit == pytest.approx(best, abs=1e-6)
    assert sorted([*found.chosen, *(one.key for one in found.left_out)]) == sorted(by_key)


@given(options, bounds)
def test_the_order_in_which_options_come_changes_nothing(listed, limits):
    one, two = choose(listed, limits), choose(list(reversed(listed)), limits)
    assert one.chosen == two.chosen


def test_each_thing_left_out_is_told_with_its_own_reason():
    listed = [
        Option("good", "a", "c1", 100, 50, 1),
        Option("worse", "a", "c1", 60, 50, 1),
        Option("losing", "b", "c1", -5, 0, 0),
        Option("dear", "c", "c2", 90, 70, 1),
        Option("loud", "d", "c1", 5, 0, 2),
    ]
    found = choose(listed, Bounds(budget=100, messages=2, strategies=9))
    assert found.chosen == ("good",)
    assert {one.key: (one.why, one.detail) for one in found.left_out} == {
        "worse": ("better_variant", {"rival": "good", "profit_minor": 100}),
        "losing": ("loses_money", {"profit_minor": -5}),
        "dear": ("budget", {"needed_minor": 70, "left_minor": 50}),
        "loud": ("messages", {"needed": 2, "left": 1}),
    }
    assert choose(listed, Bounds(None, 9, 1)).left_out[-1].why == "too_many"


def test_two_options_of_one_key_are_refused():
    with pytest.raises(ValueError, match="same key"):
        choose([Option("a", "a", "c", 1, 1, 1)] * 2, Bounds(None, 9, 9))
