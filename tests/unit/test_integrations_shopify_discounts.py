"""Discounts as Shopify's published schema takes them, and which of those found are ours."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from graphql import is_input_type, parse, type_from_ast
from graphql.utilities import validate_input_value
from hypothesis import given
from hypothesis import strategies as st

from integrations.shopify import discounts, documents
from integrations.shopify.channel import outcome_of
from integrations.shopify.errors import (
    Malformed,
    ScopeMissing,
    ShopUnavailable,
    Throttled,
    Unauthorized,
    Uncertain,
    Unreachable,
)
from operation_agent.actions.channel import NewDiscount, NotSent, Unknown
from rules import offer
from rules.tree import Node
from tests.shopify_schema import published

pytestmark = pytest.mark.unit

AT = datetime(2026, 3, 1, tzinfo=UTC)
ITEMS = st.one_of(
    st.just({}),
    st.lists(st.integers(1, 2**60), min_size=1, max_size=3).map(lambda ids: {"products": ids}),
    st.lists(st.just("gid://shopify/Collection/5"), min_size=1, max_size=2).map(lambda ids: {"collections": ids}),
)
MINIMA = st.one_of(
    st.just({}), st.just({"minimum_subtotal": "40.00"}), st.integers(1, 9).map(lambda n: {"minimum_quantity": n})
)
USES = st.fixed_dictionaries(
    {},
    optional={
        "usage_limit": st.integers(1, 9), "once_per_customer": st.booleans(),
        "combines_with": st.lists(st.sampled_from(["order", "product"]), min_size=1),
        "customer_segments": st.just([7]),
    },
)  # fmt: skip
SOME = ITEMS.filter(bool)
BXGY = st.builds(
    lambda buy, get, n, percent: {
        "buy_x_get_y": {"buy": {"quantity": n, **buy}, "get": {"quantity": 1, "percent": percent, **get}},
    },
    SOME, SOME, st.integers(1, 5), st.sampled_from([50, 100]),
)  # fmt: skip
TERMS = st.one_of(
    st.builds(lambda n, *more: {"percent": n} | {k: v for one in more for k, v in one.items()},
              st.sampled_from([1, 12.5, 100]), ITEMS, MINIMA, USES),
    st.builds(lambda n, *more: {"amount": n} | {k: v for one in more for k, v in one.items()},
              st.sampled_from([1, "4.99"]), ITEMS, MINIMA, USES),
    st.builds(lambda *more: {"free_shipping": True} | {k: v for one in more for k, v in one.items()}, MINIMA, USES),
    st.builds(lambda bxgy, uses: bxgy | uses, BXGY, USES),
)  # fmt: skip


def wanted(terms: dict[str, Any], **changes: Any) -> NewDiscount:
    read = offer.read_terms(Node(terms, "terms"))
    return replace(NewDiscount("Personal coupon X1", "X1", read, AT, AT + timedelta(days=7)), **changes)


def wrongs(told: discounts.Asked) -> list[str]:
    """What the schema has against the one variable of an operation."""
    (definition,) = parse(documents.read(told.operation)).definitions
    (variable,) = definition.variable_definitions
    kind, found = type_from_ast(published(), variable.type), []
    assert is_input_type(kind)
    validate_input_value(told.discount, kind, lambda error, path: found.append(f"{path}: {error.message}"))
    return found


@given(TERMS, st.sampled_from([None, "77"]), st.booleans())
def test_whatever_terms_read_their_input_is_one_the_schema_takes(terms: dict, customer: str | None, ends: bool):
    told = discounts.asked(wanted(terms, customer=customer, **({} if ends else {"ends_at": None})))
    assert wrongs(told) == []


def test_the_schema_tells_a_field_that_is_not_there():
    told = discounts.asked(wanted({"percent": 10}))
    assert len(wrongs(replace(told, discount={**told.discount, "colour": "red", "usageLimit": "one"}))) == 2


def found(**changes: Any) -> dict[str, Any]:
    return {
        "__typename": "DiscountCodeBasic", "title": "Personal coupon X1", "startsAt": "2026-03-01T00:00:00Z",
        "endsAt": "2026-03-08T00:00:00Z", "usageLimit": 1, "customerGets": {"value": {"percentage": 0.1}}, **changes,
    }  # fmt: skip


def test_an_earlier_attempt_of_ours_is_recognised_though_it_began_at_another_moment():
    ours = wanted({"percent": 10})
    assert discounts.why_not_ours(found(), ours) is None
    earlier = found(startsAt="2026-02-28T23:00:00Z", endsAt="2026-03-07T23:00:00Z")
    assert discounts.why_not_ours(earlier, ours) is None
    assert discounts.other_end(found(), ours) is None
    assert discounts.other_end(earlier, ours) == AT + timedelta(days=6, hours=23)


@pytest.mark.parametrize(
    "changes",
    [
        {"title": "Summer sale"}, {"__typename": "DiscountCodeFreeShipping"}, {"usageLimit": None},
        {"customerGets": {"value": {"percentage": 0.5}}}, {"customerGets": {"value": {"amount": {"amount": "10.0"}}}},
        {"endsAt": None}, {"endsAt": "2027-01-01T00:00:00Z"}, {"customerGets": None},
    ],
)  # fmt: skip
def test_what_differs_is_somebody_elses(changes: dict[str, Any]):
    assert discounts.why_not_ours(found(**changes), wanted({"percent": 10})) is not None


def test_amounts_are_the_same_however_they_are_written():
    ours = wanted({"amount": "5"})
    assert discounts.why_not_ours(found(customerGets={"value": {"amount": {"amount": "5.00"}}}), ours) is None
    assert discounts.why_not_ours(found(customerGets={"value": {"amount": {"amount": "5.01"}}}), ours) is not None


def test_every_error_of_the_client_means_one_thing_for_an_action():
    told = {
        Throttled("t", retry_after=timedelta(seconds=3)): (False, True, None),
        Unreachable("u"): (False, True, None),
        ShopUnavailable("s"): (False, True, "unavailable"),
        Unauthorized("a"): (False, True, "unauthorized"),
        ScopeMissing("m"): (False, True, "scopes"),
        Malformed("x"): (True, False, None),
    }
    for error, expected in told.items():
        outcome = outcome_of(error)
        assert isinstance(outcome, NotSent)
        assert (outcome.permanent, outcome.is_provider_down, outcome.problem) == expected
    assert isinstance(outcome_of(Uncertain("?")), Unknown)
    waits = outcome_of(Throttled("t", retry_after=timedelta(seconds=3)))
    assert isinstance(waits, NotSent)
    assert waits.retry_after == timedelta(seconds=3)
