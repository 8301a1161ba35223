"""A weaker condition holds for everybody whom the whole one takes, and asks for nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.rehearsal.assuming import weakest
from rules.condition import Condition, Group, Leaf, columns_of
from rules.evaluate import compile

pytestmark = pytest.mark.unit

KNOWN, UNKNOWN = ("customer.a", "customer.b"), ("event.c", "event.d")
leaf = st.builds(
    Leaf, st.sampled_from(KNOWN + UNKNOWN), st.sampled_from(["lt", "gte"]), st.integers(0, 3).map(float),
    st.just("number"),
)  # fmt: skip
tree = st.recursive(
    leaf,
    lambda inner: st.builds(
        Group, st.sampled_from(["all", "any", "none"]), st.lists(inner, min_size=1, max_size=3).map(tuple)
    ),
    max_leaves=8,
)
value = st.one_of(st.just(math.nan), st.integers(0, 3).map(float))
rows = st.fixed_dictionaries(
    {name: st.lists(value, min_size=12, max_size=12).map(np.array) for name in KNOWN + UNKNOWN}
)


def is_known(one: Leaf) -> bool:
    return one.field in KNOWN


@given(tree, rows)
def test_nobody_is_lost_by_looking_at_less(condition: Condition, columns):
    weaker = weakest(condition, is_known)
    if weaker is None:
        return
    assert columns_of(weaker) <= set(KNOWN)
    whole = compile(condition).evaluate(columns, 12).matched
    less = compile(weaker).evaluate({name: columns[name] for name in KNOWN}, 12).matched
    assert not (whole & ~less).any()


@given(tree.filter(lambda one: columns_of(one) <= set(KNOWN)), rows)
def test_where_everything_is_known_it_is_the_same(condition: Condition, columns):
    weaker = weakest(condition, is_known)
    assert weaker is not None
    same = compile(condition).evaluate(columns, 12).matched == compile(weaker).evaluate(columns, 12).matched
    assert same.all()


def a(op: str, number: float) -> Leaf:
    return Leaf("customer.a", op, number, "number")


def c(op: str, number: float) -> Leaf:
    return Leaf("event.c", op, number, "number")


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Group("all", (a("lt", 1.0), c("lt", 1.0))), Group("all", (a("lt", 1.0),))),
        (Group("any", (a("lt", 1.0), c("lt", 1.0))), None),
        (Group("none", (a("lt", 1.0), c("lt", 1.0))), Group("none", (a("lt", 1.0),))),
        (Group("none", (Group("all", (a("lt", 1.0), c("lt", 1.0))),)), None),
        (Group("none", (Group("any", (a("lt", 1.0), c("lt", 1.0))),)), Group("none", (Group("any", (a("lt", 1.0),)),))),
        (c("lt", 1.0), None),
    ],
)
def test_what_is_left_of_a_group(condition, expected):
    assert weakest(condition, is_known) == expected
