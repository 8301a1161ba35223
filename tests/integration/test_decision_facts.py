"""What conditions see of a trigger: every family of fields, now and right before it, on real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import orjson
import pytest
from sqlalchemy import Engine, event, text

from operation_agent import agent
from operation_agent.customers import features, history, identity
from operation_agent.decision import reading
from operation_agent.decision.facts import Trigger
from operation_agent.events.event import Event
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id, uniform
from operation_agent.segments import lifecycle as segments
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, load_shop
from operation_agent.strategies import lifecycle as strategies
from operation_agent.strategies import vocabulary
from rules import condition as conditions
from rules.evaluate import compile
from rules.strategy import parse
from rules.tree import Node

pytestmark = pytest.mark.integration

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass
class Desk:
    """A shop into which events are told one by one."""

    engine: Engine
    shop: Shop
    owners: dict[str, tuple[UUID, UUID]] = field(default_factory=dict)

    def tell(self, who: str, type_: str, ago: timedelta, **said: Any) -> Event:
        at = NOW - ago
        one = Event(new_id(), "test", new_id().hex, type_, at, at, {"external": who}, said)
        with for_shop(self.engine, self.shop.id) as session:
            people = identity.resolve(session, self.shop, [one])
            history.apply(session, self.shop, [one], people)
            session.execute(
                text(
                    "INSERT INTO events (shop_id, id, source, source_id, type, occurred_at, received_at, identity,"
                    " properties, context) VALUES (:shop, :id, 'test', :key, :type, :at, :at, '{}',"
                    " CAST(:said AS jsonb), '{}')"
                ),
                {"shop": self.shop.id, "id": one.id, "key": one.source_id, "type": type_, "at": at,
                 "said": orjson.dumps(said).decode()},
            )  # fmt: skip
        person = people[one.id]
        self.owners[who] = (person.customer_id, person.random_key)
        return one

    def run(self, sql: str, **values: Any) -> None:
        with for_shop(self.engine, self.shop.id) as session:
            session.execute(text(sql), {"shop": self.shop.id, **values})

    def trigger(self, who: str, at: datetime = NOW, one: Event | None = None) -> Trigger:
        customer_id, random_key = self.owners[who]
        return Trigger(customer_id, random_key, one.type if one else "schedule", one, at)

    def columns(self, raw: dict[str, Any], triggers: list[Trigger], clusters: Any = None) -> Any:
        compiled = [compile(conditions.parse(Node(raw), vocabulary.vocabulary()))]
        with for_shop(self.engine, self.shop.id) as session:
            table = features.compute(session, self.shop.id, [(one.customer_id, one.at) for one in triggers])
            return reading.load_for(session, self.shop, triggers, table, clusters, compiled)

    def holds(self, raw: dict[str, Any], *triggers: Trigger, clusters: Any = None) -> list[bool | None]:
        """Per trigger: true, false, or None for unknown."""
        columns = self.columns(raw, list(triggers), clusters)
        found = compile(conditions.parse(Node(raw), vocabulary.vocabulary())).evaluate(columns, len(triggers))
        return [
            None if unknown else bool(matched) for matched, unknown in zip(found.matched, found.unknown, strict=True)
        ]


def leaf(name: str, value: Any = True, op: str = "equals", **more: Any) -> dict[str, Any]:
    return {"field": name, "op": op, **({} if value is None else {"value": value}), **more}


@pytest.fixture
def desk(engine: Engine, shop_id: UUID) -> Iterator[Desk]:
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
    yield Desk(engine, shop)


def test_traits_are_seen_with_their_own_type_also_inside_objects(desk):
    traits = {"size": 7, "tags": ["a", "b"], "address": {"city": "上海"}, "vip": True}
    desk.tell("ann", "customer.identified", HOUR, traits=traits)
    desk.tell("bob", "page.viewed", HOUR)
    ann, bob = desk.trigger("ann"), desk.trigger("bob")
    assert desk.holds(leaf("trait.size", 5, "gt"), ann, bob) == [True, None]
    assert desk.holds(leaf("trait.size", "7"), ann) == [None]  # a number is not a text
    assert desk.holds(leaf("trait.tags", "b", "contains"), ann, bob) == [True, None]
    assert desk.holds(leaf("trait.tag:b", True), ann, bob) == [True, None]
    assert desk.holds(leaf("trait.address.city", "上海"), ann, bob) == [True, None]
    assert desk.holds(leaf("trait.vip", True), ann) == [True]


def test_consent_is_seen_by_channel_and_topic(desk):
    desk.tell("ann", "consent.changed", 2 * HOUR, channel="email", topic="marketing", state="subscribed")
    desk.tell("ann", "consent.changed", HOUR, channel="email", topic="news", state="unsubscribed")
    ann = desk.trigger("ann")
    assert desk.holds(leaf("consent.email", "subscribed"), ann) == [True]
    assert desk.holds(leaf("consent.email.news", "subscribed"), ann) == [False]
    assert desk.holds(leaf("consent.sms", "subscribed"), ann) == [None]


def test_a_random_bucket_is_the_same_for_ever_and_another_by_each_name(desk):
    desk.tell("ann", "page.viewed", HOUR)
    key = desk.owners["ann"][1]
    column = desk.columns(leaf("random.a", 0.5, "lt"), [desk.trigger("ann"), desk.trigger("ann", NOW - DAY)])[
        "random.a"
    ]
    expected = uniform("test", "bucket", "a", str(key))
    np.testing.assert_array_equal(column, [expected, expected])
    assert desk.columns(leaf("random.b", 0.5, "lt"), [desk.trigger("ann")])["random.b"][0] != expected


def a_segment(desk: Desk, key: str = "vip") -> None:
    with for_shop(desk.engine, desk.shop.id) as session:
        segments.create(
            session, desk.shop, key=key, name={"en": key, "zh": key}, definition=leaf("customer.orders", 9, "gt"),
            vocabulary=vocabulary.of_shop(session, desk.shop.id), at=SYSTEM.now(), actor="test",
        )  # fmt: skip


def test_a_membership_is_seen_as_it_was_at_the_moment_and_right_before_it(desk):
    a_segment(desk)
    for who in ("ann", "bob", "cid"):
        desk.tell(who, "page.viewed", 10 * DAY)
    for who, left in (("ann", None), ("bob", NOW - 2 * DAY)):
        desk.run(
            "INSERT INTO segment_members (shop_id, customer_id, segment_id, since, left_at, as_of)"
            " SELECT :shop, :who, id, :since, :left, :since FROM segments WHERE shop_id = :shop",
            who=desk.owners[who][0], since=NOW - 5 * DAY, left=left,
        )  # fmt: skip
    moments = [NOW, NOW - 3 * DAY, NOW - 5 * DAY, NOW - 6 * DAY]
    vip = leaf("segment.vip")
    assert desk.holds(vip, *[desk.trigger("ann", at) for at in moments]) == [True, True, True, False]
    assert desk.holds(vip, *[desk.trigger("bob", at) for at in moments]) == [False, True, True, False]
    assert desk.holds(vip, desk.trigger("cid")) == [False]
    held = leaf("segment.vip", **{"for": "P3D"})
    assert desk.holds(held, *[desk.trigger("ann", at) for at in moments]) == [True, False, False, False]
    out = leaf("segment.vip", False, **{"for": "P1D"})
    assert desk.holds(out, desk.trigger("bob"), desk.trigger("bob", NOW - 36 * HOUR)) == [True, False]
    assert desk.holds(out, desk.trigger("cid")) == [None]  # since when, nobody knows
    changed = leaf("segment.vip", None, "changed")
    assert desk.holds(changed, *[desk.trigger("ann", at) for at in moments]) == [False, False, True, False]
    left = [desk.trigger("bob", at) for at in (NOW - 2 * DAY, NOW - 2 * DAY + HOUR)]
    assert desk.holds(leaf("segment.vip", {"from": True, "to": False}, "changed"), *left) == [True, False]


def test_a_strategy_is_seen_from_the_assignment_on_on_either_side(desk):
    with for_shop(desk.engine, desk.shop.id) as session:
        row = strategies.start(session, desk.shop, "conversion", at=SYSTEM.now(), actor="test")
    for who in ("ann", "bob"):
        desk.tell(who, "page.viewed", 10 * DAY)
    desk.run(
        "INSERT INTO assignments (shop_id, strategy_id, customer_id, held_out, propensity, assigned_at, decision_id)"
        " VALUES (:shop, :strategy, :who, true, 0.2, :at, :who)",
        strategy=row.id, who=desk.owners["ann"][0], at=NOW - 2 * DAY,
    )  # fmt: skip
    asked = leaf("strategy.conversion")
    triggers = [desk.trigger("ann"), desk.trigger("ann", NOW - 3 * DAY), desk.trigger("bob")]
    assert desk.holds(asked, *triggers) == [True, False, False]
    assert desk.holds(leaf("strategy.conversion", **{"for": "P1D"}), desk.trigger("ann")) == [True]
    assert desk.holds(leaf("strategy.unheard-of"), desk.trigger("ann")) == [False]


def test_a_label_is_held_since_it_was_given_and_a_lineage_since_it_began(desk):
    desk.tell("ann", "page.viewed", 10 * DAY)
    lineage, clustering = new_id(), new_id()
    desk.run(
        "INSERT INTO cluster_members (shop_id, customer_id, clustering_id, number, lineage_id, distance, since, as_of,"
        " label_key, label_since) VALUES (:shop, :who, :clustering, 0, :lineage, 0, :since, :since, 'at_risk', :label)",
        who=desk.owners["ann"][0], clustering=clustering, lineage=lineage, since=NOW - DAY, label=NOW - 4 * DAY,
    )  # fmt: skip
    cluster = [{"label_key": "at_risk", "lineage_id": lineage}]
    ann = desk.trigger("ann")
    assert desk.holds(leaf("cluster.label", "at_risk", **{"for": "P3D"}), ann, clusters=cluster) == [True]
    assert desk.holds(leaf("cluster.lineage", str(lineage), **{"for": "P3D"}), ann, clusters=cluster) == [False]
    elsewhere = [{"label_key": "loyal", "lineage_id": new_id()}]
    assert desk.holds(leaf("cluster.label", "loyal", **{"for": "P3D"}), ann, clusters=elsewhere) == [None]


def test_histories_and_the_events_own_properties_stand_beside_each_other(desk):
    for days in (1, 2, 9):
        desk.tell("ann", "product.viewed", days * DAY, product_id="p", category="shoes")
    one = desk.tell("ann", "product.viewed", timedelta(0), product_id="q", category="hats")
    seen = {"history": {"event": "product.viewed", "within": "P7D"}, "op": "equals", "value": 3}
    shoes = {
        "history": {"event": "product.viewed", "where": leaf("event.category", "shoes")},
        "op": "equals",
        "value": 3,
    }
    ann = desk.trigger("ann", one=one)
    assert desk.holds({"all": [seen, shoes, leaf("event.category", "hats")]}, ann) == [True]


def test_a_call_asks_a_constant_number_of_statements(desk):
    a_segment(desk)
    for number in range(30):
        desk.tell(f"c{number}", "product.viewed", DAY, product_id="p")
    everything = {
        "all": [
            *[leaf("segment.vip"), leaf("strategy.x"), leaf("trait.a", 1), leaf("consent.email", "subscribed")],
            *[leaf("random.a", 0.5, "lt"), leaf("cluster.label", "loyal", **{"for": "P1D"})],
            {"history": {"event": "product.viewed"}, "op": "gte", "value": 1},
            *[leaf("customer.orders", None, "changed"), leaf("trait.b", None, "changed")],
        ]
    }
    counts = []
    for n in (1, 30):
        statements = []

        def note(*given: Any, into: list[Any] = statements) -> None:
            into.append(given[2])

        event.listen(desk.engine, "before_cursor_execute", note)
        desk.columns(everything, [desk.trigger(f"c{number}") for number in range(n)])
        event.remove(desk.engine, "before_cursor_execute", note)
        counts.append(len(statements))
    assert counts[0] == counts[1]


# -- what was before, through the whole agent ---------------------------------------------------------------------


def started(desk: Desk, condition: dict[str, Any], events: list[str]) -> None:
    raw = {
        "key": "s", "name": {"en": "s", "zh": "s"}, "goal": "retention", "why": {"en": "w", "zh": "w"}, "holdout": 0.0,
        "rules": [{"key": "r", "when": {"event": events, "frequency": "every_time"}, "if": condition,
                   "then": {"arms": [{"key": "a", "steps": []}]}}],
    }  # fmt: skip
    with for_shop(desk.engine, desk.shop.id) as session:
        strategies.create(session, desk.shop, parse(raw, vocabulary.vocabulary()), at=SYSTEM.now(), actor="test")
        strategies.move(session, desk.shop, "s", "live", at=SYSTEM.now(), actor="test")


def fed(desk: Desk, told: list[tuple[str, timedelta, dict[str, Any]]], size: int) -> list[timedelta]:
    """Tell the agent of ann, `size` events at a time; how long ago each decision was taken."""
    now = SYSTEM.now()
    made = []
    for number, (type_, ago, said) in enumerate(told):
        made.append(Event(new_id(), "test", f"e{number}", type_, now - ago, now - ago, {"external": "ann"}, said))
    for start in range(0, len(made), size):
        with for_shop(desk.engine, desk.shop.id) as session:
            agent.observe(session, desk.shop, made[start : start + size], recorded_at=SYSTEM.now())
    with for_shop(desk.engine, desk.shop.id) as session:
        rows = session.execute(
            text("SELECT decided_at FROM decisions WHERE shop_id = :s ORDER BY decided_at"), {"s": desk.shop.id}
        )
        return [now - row.decided_at for row in rows]


def bought(order: str) -> dict[str, Any]:
    return {"order_id": order, "total_minor": 100, "discount_minor": 0, "currency": "USD", "quantity": 1,
            "discount_codes": [], "products": []}  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_feature_has_changed_by_the_event_that_changed_it(desk, size):
    started(desk, leaf("customer.purchase_stage", {"to": "decision"}, "changed"), ["cart.added", "page.viewed"])
    cart = {"product_id": "p", "quantity": 1}
    told = [
        ("page.viewed", 9 * HOUR, {}),
        ("cart.added", 8 * HOUR, cart),  # new -> decision
        ("cart.added", 7 * HOUR, cart),  # decision still
        ("order.paid", 6 * HOUR, bought("o1")),
        ("cart.added", 5 * HOUR, cart),  # customer -> decision
        ("page.viewed", 4 * HOUR, {}),
    ]
    assert fed(desk, told, size) == [8 * HOUR, 5 * HOUR]


@pytest.mark.parametrize("size", [1, 3])
def test_a_trait_has_changed_by_the_event_that_said_so(desk, size):
    started(desk, leaf("trait.city", {"from": "A", "to": "B"}, "changed"), ["customer.identified", "page.viewed"])
    told = [
        ("customer.identified", 9 * HOUR, {"traits": {"city": "A"}}),
        ("page.viewed", 8 * HOUR, {}),
        ("page.viewed", 7 * HOUR, {}),
        ("customer.identified", 6 * HOUR, {"traits": {"city": "B"}}),
        ("page.viewed", 5 * HOUR, {}),
        ("page.viewed", 4 * HOUR, {}),
    ]
    assert fed(desk, told, size) == [6 * HOUR]


@pytest.mark.parametrize("size", [1, 4])
def test_consent_has_changed_by_the_event_that_gave_it(desk, size):
    started(desk, leaf("consent.email", None, "changed"), ["consent.changed", "page.viewed"])
    said = {"channel": "email", "topic": "marketing"}
    told = [
        ("consent.changed", 9 * HOUR, {**said, "state": "subscribed"}),  # from nothing: not known what it was
        ("page.viewed", 8 * HOUR, {}),
        ("consent.changed", 7 * HOUR, {**said, "state": "unsubscribed"}),
        ("page.viewed", 6 * HOUR, {}),
    ]
    assert fed(desk, told, size) == [7 * HOUR]
