"""What stands of what was told: the same whatever came first, twice, or in parts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.kit.errors import Rejected
from operation_agent.storefront import records
from operation_agent.storefront.records import KINDS, Complete, Record
from operation_agent.storefront.standing import State, exceptions, gone_since, join, of_record, restored

pytestmark = pytest.mark.unit

START = datetime(2026, 5, 1, tzinfo=UTC)
PRODUCT, LEVEL = KINDS["product"], KINDS["inventory_level"]


def at(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


def product(minute: int, *, deleted: bool = False, **values: object) -> Record:
    return Record("product", ("1",), at(minute), values, deleted)


_VALUES = st.fixed_dictionaries(
    {}, optional={"title": st.sampled_from("ab"), "vendor": st.sampled_from("xy"), "tags": st.just(["n"])}
)
_TOLD = st.builds(
    lambda minute, values, deleted: product(minute, deleted=deleted, **values),
    st.integers(0, 4), _VALUES, st.sampled_from([False, False, False, True]),
)  # fmt: skip
_STATES = st.one_of(_TOLD.map(of_record), st.integers(0, 4).map(lambda minute: State(listed_at=at(minute))))


@given(_STATES, _STATES, _STATES, st.sampled_from([PRODUCT, LEVEL]))
def test_states_join_alike_in_any_order_and_number(one, two, three, kind):
    assert join(kind, one, two) == join(kind, two, one)
    assert join(kind, join(kind, one, two), three) == join(kind, one, join(kind, two, three))
    assert join(kind, one, one) == one


@given(st.lists(_STATES, min_size=1, max_size=8))
def test_a_row_holds_all_that_a_state_says(states):
    state = reduce(lambda one, other: join(PRODUCT, one, other), states)
    values = {name: state.value(name) for name in PRODUCT.columns}
    told = exceptions(PRODUCT, state) if state.version else {}
    assert restored(PRODUCT, values, state.version, told, state.listed_at, state.removed_at) == state


def test_a_part_that_is_told_leaves_the_rest_as_it_was_and_the_newer_stands_by_column():
    full = of_record(product(1, title="a", vendor="x"))
    part = of_record(product(5, vendor="y"))
    late = of_record(product(3, title="b", vendor="z"))
    state = join(PRODUCT, join(PRODUCT, part, full), late)
    assert (state.value("title"), state.value("vendor")) == ("b", "y")


def test_two_full_tellings_of_one_moment_are_never_mixed():
    one, two = of_record(product(1, title="a", vendor="y")), of_record(product(1, title="b", vendor="x"))
    state = join(PRODUCT, one, two)
    assert (state.value("title"), state.value("vendor")) in {("a", "y"), ("b", "x")}


def test_of_several_deletions_the_first_counts_for_ever_and_the_last_for_what_may_return():
    one, two = State(removed_at=at(5)), State(removed_at=at(7))
    assert gone_since(PRODUCT, join(PRODUCT, two, one), None) == at(5)
    assert gone_since(LEVEL, join(LEVEL, one, two), None) == at(7)


def test_deleted_is_for_ever_unless_the_key_may_return():
    gone = State(removed_at=at(5))
    for heard in (4, 6):
        state = join(PRODUCT, gone, of_record(product(heard, title="a")))
        assert gone_since(PRODUCT, state, None) == at(5)
    back = join(LEVEL, gone, of_record(Record("inventory_level", ("i", "l"), at(6), {"available": 1})))
    assert gone_since(LEVEL, back, None) is None
    again = join(LEVEL, back, State(removed_at=at(7)))
    assert gone_since(LEVEL, again, None) == at(7)


@pytest.mark.parametrize(
    ("told", "listed", "parent_listed", "is_gone"),
    [
        (3, None, None, False),  # nobody listed them
        (3, None, 5, True),  # missing on a later list
        (7, None, 5, False),  # told of after that list
        (5, None, 5, True),  # at one instant the list counts
        (3, 5, 5, False),  # it is on it
        (3, 4, 5, True),  # it was on an older one
        (None, 4, 5, True),
    ],
)
def test_who_is_not_on_the_newest_list_is_gone_unless_told_of_later(told, listed, parent_listed, is_gone):
    kind = KINDS["variant"]
    state = State(listed_at=at(listed)) if listed is not None else State()
    if told is not None:
        state = join(kind, state, of_record(Record("variant", ("v",), at(told), {"product_id": "1"})))
    found = gone_since(kind, state, at(parent_listed) if parent_listed is not None else None)
    assert found == (state.heard_at if is_gone else None)


@pytest.mark.parametrize(
    "telling",
    [
        Record("planet", ("1",), START),
        Record("product", ("1", "2"), START),
        Record("product", ("",), START),
        Record("product", ("a\0b",), START),
        Record("product", ("1",), START.replace(tzinfo=None)),
        Record("product", ("1",), START, {"colour": "red"}),
        Record("product", ("1",), START, {"title": 5}),
        Record("product", ("1",), START, {"title": "\ud800"}),
        Record("product", ("1",), START, {"tags": "a, b"}),
        Record("product", ("1",), START, {"published_at": "yesterday"}),
        Record("product", ("1",), START, {"published_at": "2026-01-01T00:00:00"}),
        Record("variant", ("1",), START, {"price_minor": 2**63}),
        Record("variant", ("1",), START, {"price_minor": 1.5}),
        Record("variant", ("1",), START, {"position": True}),
        Record("cart", ("1",), START, {"lines": [{"title": "a\0"}]}),
        Complete("variant", ("title", "1"), [], START),
        Complete("product", ("product_id", "1"), [], START),
        Complete("variant", ("product_id", "1"), [("1", "2")], START),
        Complete("variant", ("product_id", ""), [], START),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_kind(telling):
    with pytest.raises(Rejected) as refusal:
        records.check(telling)
    assert refusal.value.where in (telling.kind, "kind")


def test_a_telling_survives_json():
    told = [
        Record("product", ("9007199254740993",), START, {"title": "t", "published_at": START, "tags": ["a"]}),
        Complete("variant", ("product_id", "9007199254740993"), [("1",)], START),
    ]
    read = records.from_json(records.to_json(told))
    assert read[1] == told[1]
    assert of_record(read[0]) == of_record(told[0])
