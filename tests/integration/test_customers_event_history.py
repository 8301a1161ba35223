"""Histories against a plain recount in Python, over random timelines and moments; and what merges do to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from operation_agent.customers import event_history, history, identity
from operation_agent.events.event import Event
from operation_agent.kit.ids import digest_id, new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import create_shop, load_shop
from rules.condition import Group, History, Leaf

pytestmark = pytest.mark.integration

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
CUSTOMERS = [digest_id("customer", str(number)) for number in range(4)]


@dataclass(frozen=True)
class Row:
    """One event of a timeline. `ago`: seconds before NOW; negative: in the future."""

    customer: int
    ago: int
    type: str
    name: str | None
    properties: dict[str, Any]

    @property
    def at(self) -> datetime:
        return NOW - self.ago * SECOND

    @property
    def amount(self) -> Any:
        known = {"order.paid": "total_minor", "order.refunded": "amount_minor", "checkout.started": "value_minor"}
        return self.properties.get(known.get(self.type, "price_minor"))


_SPANS = [10, 3600, 86_400, 7 * 86_400, 30 * 86_400]
# often at the very edge of a window, and often at the same instant
_AGO = st.one_of(st.sampled_from([0, *_SPANS]), st.integers(-86_400, 40 * 86_400))
_PRODUCT = st.sampled_from(["a", "b", None])
_KINDS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "product.viewed": st.fixed_dictionaries(
        {"product_id": st.sampled_from(["a", "b", "c"])},
        optional={"price_minor": st.integers(0, 900), "category": st.sampled_from(["shoes", "hats", 7])},
    ),
    "order.paid": st.fixed_dictionaries(
        {"total_minor": st.integers(0, 9_000), "quantity": st.integers(1, 3)}, optional={"note": _PRODUCT}
    ),
    "order.refunded": st.fixed_dictionaries({"amount_minor": st.integers(0, 500)}),
    "page.viewed": st.fixed_dictionaries({}, optional={"path": st.sampled_from(["/", "/sale"])}),
    "custom": st.fixed_dictionaries(
        {}, optional={"colour": st.sampled_from(["red", "green", 3, None]), "score": st.integers(-2, 5)}
    ),
}


@st.composite
def rows(draw: st.DrawFn) -> Row:
    type_ = draw(st.sampled_from(sorted(_KINDS)))
    name = draw(st.sampled_from(["quiz done", "video seen"])) if type_ == "custom" else None
    return Row(draw(st.integers(0, 2)), draw(_AGO), type_, name, draw(_KINDS[type_]))


_WHERES = [
    Leaf("event.category", "equals", "shoes", "label"),
    Leaf("event.price_minor", "gte", 300.0, "number"),
    Group("any", (Leaf("event.quantity", "gt", 1.0, "number"), Leaf("event.total_minor", "lt", 4_000.0, "number"))),
    Group("none", (Leaf("event.colour", "equals", "red", "any"),)),
    Group("all", (Leaf("event.path", "exists", None, "label"), Leaf("event.path", "contains", "sale", "label"))),
]


@st.composite
def histories(draw: st.DrawFn) -> History:
    measure = draw(st.sampled_from(["count", "sum", "distinct", "days_since_last", "days_since_first"]))
    of = None
    if measure == "sum":
        of = draw(st.sampled_from(["amount_minor", "total_minor", "price_minor", "quantity", "score"]))
    if measure == "distinct":
        of = draw(st.sampled_from(["product_id", "category", "colour"]))
    within = draw(st.sampled_from([None, *_SPANS]))
    return History(
        event=draw(st.sampled_from(sorted(_KINDS))),
        measure=measure,
        within=None if within is None else within * SECOND,
        of=of,
        name=draw(st.sampled_from([None, None, "quiz done"])),
        where=draw(st.sampled_from([None, None, *_WHERES])),
    )


# -- the reference ------------------------------------------------------------------------------------------------


def holds(condition: Any, properties: dict[str, Any]) -> bool | None:
    """Of the conditions above, one event at a time."""
    if isinstance(condition, Group):
        found = [holds(child, properties) for child in condition.children]
        if condition.kind == "all":
            return False if False in found else None if None in found else True
        either = True if True in found else None if None in found else False
        return either if condition.kind == "any" else (None if either is None else not either)
    seen = properties.get(condition.field.removeprefix("event."))
    if condition.kind == "label" and not isinstance(seen, str):
        seen = None
    if condition.op == "exists":
        return seen is not None
    if seen is None or (condition.kind == "any" and isinstance(seen, str) != isinstance(condition.value, str)):
        return None
    return {
        "equals": lambda: seen == condition.value,
        "gte": lambda: seen >= condition.value,
        "gt": lambda: seen > condition.value,
        "lt": lambda: seen < condition.value,
        "contains": lambda: condition.value in seen,
    }[condition.op]()


def recount(told: Sequence[Row], customer: int, at: datetime, one: History) -> float:
    past = [row for row in told if row.customer == customer and row.type == one.event and row.at <= at]
    past = [row for row in past if one.within is None or row.at > at - one.within]
    past = [row for row in past if one.name is None or row.name == one.name]
    past = [row for row in past if one.where is None or holds(one.where, row.properties) is True]
    if one.measure == "count":
        return len(past)
    if one.measure.startswith("days_"):
        ages = [(at - row.at) / DAY for row in past]
        return math.nan if not ages else min(ages) if one.measure == "days_since_last" else max(ages)
    shopping = one.event not in ("custom", "page.viewed")
    values = [row.amount if one.of == "amount_minor" and shopping else row.properties.get(one.of) for row in past]
    if one.measure == "sum":
        return sum(value for value in values if isinstance(value, int))
    return len({value for value in values if value is not None})


def store(session, shop_id: UUID, told: Sequence[Row]) -> None:
    for number, row in enumerate(told):
        event_id = digest_id("event", str(number))
        values = {"shop": shop_id, "id": event_id, "at": row.at, "type": row.type, "name": row.name, "n": str(number)}
        session.execute(
            text(
                "INSERT INTO events (shop_id, id, source, source_id, type, name, occurred_at, received_at, identity,"
                " properties, context) VALUES (:shop, :id, 'test', :n, :type, :name, :at, :at, '{}',"
                " CAST(:said AS jsonb), '{}')"
            ),
            {**values, "said": orjson.dumps(row.properties).decode()},
        )
        session.execute(
            text(
                "INSERT INTO timeline (shop_id, customer_id, occurred_at, event_id, type, product_id, amount_minor)"
                " VALUES (:shop, :customer, :at, :id, :type, :product, :amount)"
            ),
            {
                **values,
                "customer": CUSTOMERS[row.customer],
                "product": row.properties.get("product_id"),
                "amount": row.amount,
            },
        )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    told=st.lists(rows(), max_size=12),
    asked=st.lists(histories(), min_size=1, max_size=5),
    moments=st.lists(st.tuples(st.integers(0, 3), _AGO), min_size=1, max_size=6),
)
def test_any_history_as_of_any_moment_agrees_with_a_recount(engine, shop_id, told, asked, moments):
    wanted = {one.column: one for one in asked}
    targets = [(CUSTOMERS[customer], NOW - ago * SECOND) for customer, ago in moments]
    with for_shop(engine, shop_id) as session:
        nested = session.begin_nested()
        store(session, shop_id, told)
        found = event_history.compute(session, shop_id, targets, wanted)
        everyone = event_history.compute_all(session, shop_id, NOW, wanted, CUSTOMERS)
        nested.rollback()
    for name, one in wanted.items():
        for row, (customer, ago) in enumerate(moments):
            expected = recount(told, customer, NOW - ago * SECOND, one)
            assert found[name][row] == pytest.approx(expected, nan_ok=True), (one, customer, ago)
        for customer in range(len(CUSTOMERS)):
            expected = recount(told, customer, NOW, one)
            assert everyone[name][customer] == pytest.approx(expected, nan_ok=True), (one, customer)


def event(at: datetime, type_: str, identity: dict[str, str], **said: Any) -> Event:
    return Event(new_id(), "test", new_id().hex, type_, at, at, identity, said)


def test_what_a_merged_customer_did_is_the_survivors(engine):
    shop_id = create_shop(engine, slug="merged-history", name="m", currency="USD", sandbox=True, seed="test").id
    known, anonymous = {"external": "c1"}, {"anonymous": "a1"}
    told = [
        event(NOW - 3 * DAY, "product.viewed", known, product_id="a"),
        event(NOW - 2 * DAY, "product.viewed", anonymous, product_id="b"),
        event(NOW - 1 * DAY, "customer.identified", {**known, **anonymous}),
    ]
    owners = []
    for one in told:
        with for_shop(engine, shop_id) as session:
            shop = load_shop(session, shop_id)
            people = identity.resolve(session, shop, [one])
            history.apply(session, shop, [one], people)
            owners.append(people[one.id].customer_id)
    survivor = owners[-1]
    (merged,) = {*owners} - {survivor}
    viewed = {"views": History("product.viewed"), "products": History("product.viewed", "distinct", of="product_id")}
    with for_shop(engine, shop_id) as session:
        found = event_history.compute(session, shop_id, [(survivor, NOW), (merged, NOW)], viewed)
        everyone = event_history.compute_all(session, shop_id, NOW, viewed, [merged, survivor])
    np.testing.assert_array_equal(found["views"], [2, 0])
    np.testing.assert_array_equal(found["products"], [2, 0])
    np.testing.assert_array_equal(everyone["views"], [0, 2])


def test_nobody_asked_for_gives_empty_columns(engine, shop_id):
    with for_shop(engine, shop_id) as session:
        found = event_history.compute(session, shop_id, [], {"views": History("product.viewed")})
    assert found["views"].shape == (0,)
