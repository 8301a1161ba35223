"""Who is in which segment, on real PostgreSQL: by events, by time alone, by a fit; and the rules that sets off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import Engine, text

from operation_agent import agent
from operation_agent.customers import identity
from operation_agent.events.event import Event
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Conflict, Rejected
from operation_agent.kit.ids import new_id
from operation_agent.segments import active, lifecycle, membership, preview
from operation_agent.store import ticks
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, create_shop, load_shop
from operation_agent.strategies import lifecycle as strategies
from operation_agent.strategies import vocabulary
from rules.errors import RuleError
from rules.strategy import parse
from workers.regrouping import refresh

pytestmark = pytest.mark.integration

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
CART = {"field": "customer.open_cart", "op": "equals", "value": True}
LAPSING = {"field": "customer.days_since_order", "op": "gt", "value": 45}
TWO_ORDERS = {"field": "customer.orders", "op": "gte", "value": 2}
ALWAYS = {"field": "customer.orders", "op": "gte", "value": 0}


@dataclass
class Stage:
    """A shop whose present is the system's."""

    engine: Engine
    shop: Shop
    now: datetime = field(default_factory=SYSTEM.now)
    people: dict[str, UUID] = field(default_factory=dict)
    number: int = 0

    def segment(self, key: str, definition: dict[str, Any]) -> lifecycle.SegmentRow:
        with for_shop(self.engine, self.shop.id) as session:
            return lifecycle.create(
                session, self.shop, key=key, name={"en": key, "zh": key}, definition=definition,
                vocabulary=vocabulary.of_shop(session, self.shop.id), at=self.now, actor="test",
            )  # fmt: skip

    def change(self, key: str, **changes: Any) -> lifecycle.SegmentRow:
        with for_shop(self.engine, self.shop.id) as session:
            return lifecycle.change(
                session, self.shop, key, vocabulary=vocabulary.of_shop(session, self.shop.id), at=SYSTEM.now(),
                actor="test", **changes,
            )  # fmt: skip

    def strategy(self, when: dict[str, Any], condition: dict[str, Any] | None = None, key: str = "s") -> None:
        raw = {
            "key": key, "name": {"en": key, "zh": key}, "goal": "retention", "why": {"en": "w", "zh": "w"},
            "holdout": 0.0,
            "rules": [{"key": "r", "when": when, "if": condition or ALWAYS,
                       "then": {"arms": [{"key": "a", "steps": []}]}}],
        }  # fmt: skip
        with for_shop(self.engine, self.shop.id) as session:
            known = vocabulary.of_shop(session, self.shop.id)
            strategies.create(session, self.shop, parse(raw, known), at=SYSTEM.now(), actor="test")
            strategies.move(session, self.shop, key, "live", at=SYSTEM.now(), actor="test")

    def event(self, who: str, type_: str, ago: timedelta, **said: Any) -> Event:
        self.number += 1
        at = self.now - ago
        return Event(new_id(), "test", f"{who}-{self.number}", type_, at, at, {"external": who}, said)

    def paid(self, who: str, ago: timedelta) -> Event:
        order = {"order_id": f"o{self.number}", "total_minor": 100, "discount_minor": 0, "currency": "USD",
                 "quantity": 1, "discount_codes": [], "products": []}  # fmt: skip
        return self.event(who, "order.paid", ago, **order)

    def cart(self, who: str, ago: timedelta) -> Event:
        return self.event(who, "cart.added", ago, product_id="a", quantity=1)

    def told(self, *events: Event) -> agent.Observed:
        with for_shop(self.engine, self.shop.id) as session:
            made = agent.observe(session, self.shop, events, recorded_at=SYSTEM.now())
            for event_id, person in identity.resolve(session, self.shop, events).items():
                who = next(one for one in events if one.id == event_id).identity["external"]
                self.people[who] = person.customer_id
        return made

    def refreshed(self, at: datetime | None = None) -> int:
        """As if the clock had come to `at`."""
        with for_shop(self.engine, self.shop.id) as session:
            ticks.take(session, self.shop.id, ticks.SEGMENTS, at or SYSTEM.now(), at=SYSTEM.now())
        return refresh(self.engine, self.shop.id)

    def run(self, sql: str, **values: Any) -> list[Any]:
        with for_shop(self.engine, self.shop.id) as session:
            return list(session.execute(text(sql), {"shop": self.shop.id, **values}).all())

    def members(self, key: str) -> set[str]:
        rows = self.run(
            "SELECT m.customer_id FROM segment_members m JOIN segments s ON s.shop_id = m.shop_id"
            " AND s.id = m.segment_id WHERE m.shop_id = :shop AND s.key = :key AND m.left_at IS NULL",
            key=key,
        )
        names = {customer_id: who for who, customer_id in self.people.items()}
        return {names[row.customer_id] for row in rows}

    def span(self, key: str, who: str) -> tuple[datetime, datetime | None]:
        row = self.run(
            "SELECT m.since, m.left_at FROM segment_members m JOIN segments s ON s.shop_id = m.shop_id"
            " AND s.id = m.segment_id WHERE m.shop_id = :shop AND s.key = :key AND m.customer_id = :who",
            key=key, who=self.people[who],
        )[0]  # fmt: skip
        return row.since, row.left_at

    def decided(self) -> list[tuple[str, str, datetime, str]]:
        """Who, by which trigger, when and with which cause."""
        names = {customer_id: who for who, customer_id in self.people.items()}
        rows = self.run(
            "SELECT customer_id, trigger, decided_at, receipt -> 'cause' ->> 'key' AS key FROM decisions"
            " WHERE shop_id = :shop ORDER BY decided_at, trigger, customer_id"
        )
        return [(names[row.customer_id], row.trigger, row.decided_at, row.key) for row in rows]


@pytest.fixture
def stage(engine: Engine, shop_id: UUID) -> Iterator[Stage]:
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
    yield Stage(engine, shop)


# -- by events ----------------------------------------------------------------------------------------------------


def test_events_bring_customers_in_and_take_them_out(stage):
    stage.segment("carts", CART)
    stage.refreshed()
    stage.told(stage.cart("ann", 3 * HOUR), stage.event("bob", "page.viewed", 3 * HOUR))
    assert stage.members("carts") == {"ann"}
    assert stage.span("carts", "ann") == (stage.now - 3 * HOUR, None)
    stage.told(stage.paid("ann", HOUR))
    assert stage.members("carts") == set()
    assert stage.span("carts", "ann") == (stage.now - 3 * HOUR, stage.now - HOUR)


def test_one_batch_or_many_give_the_same(stage, engine):
    other = create_shop(engine, slug=f"x-{new_id().hex[-12:]}", name="x", currency="USD", sandbox=True, seed="test")
    found = []
    for one, is_batch in ((stage, True), (Stage(engine, other, stage.now), False)):
        one.segment("carts", CART)
        one.segment("twice", TWO_ORDERS)
        one.refreshed()
        one.strategy({"entered": "segment.carts", "frequency": "every_time"}, key="in")
        one.strategy({"left": "segment.carts", "frequency": "every_time"}, key="out")
        events = [one.cart("ann", 5 * HOUR), one.paid("ann", 4 * HOUR), one.cart("ann", 3 * HOUR),
                  one.cart("bob", 2 * HOUR), one.paid("ann", HOUR)]  # fmt: skip
        for part in [events] if is_batch else [[event] for event in events]:
            one.told(*part)
        found.append((one.decided(), one.members("carts"), one.members("twice"), one.span("carts", "ann")))
    assert found[0] == found[1]
    decisions, carts, twice, span = found[0]
    assert (carts, twice) == ({"bob"}, {"ann"})
    assert span == (stage.now - 3 * HOUR, stage.now - HOUR)
    assert [(who, trigger) for who, trigger, _, _ in decisions] == [
        ("ann", "segment.entered"), ("ann", "segment.left"), ("ann", "segment.entered"), ("bob", "segment.entered"),
        ("ann", "segment.left"),
    ]  # fmt: skip
    assert decisions[0][3] == f"segment.carts@{(stage.now - 5 * HOUR).isoformat()}"


def test_what_comes_late_moves_nobody(stage):
    stage.segment("carts", CART)
    stage.refreshed()
    stage.told(stage.paid("ann", HOUR))
    stage.told(stage.cart("ann", 2 * HOUR))  # before that order: the cart is not open now
    assert stage.members("carts") == set()


def test_an_old_event_enters_a_segment_but_sets_nothing_off(stage):
    stage.segment("carts", CART)
    stage.refreshed()
    stage.strategy({"entered": "segment.carts"})
    stage.told(stage.cart("ann", 3 * DAY))
    assert stage.members("carts") == {"ann"}
    assert stage.decided() == []


def test_a_segment_may_be_made_of_segments_and_of_how_long_somebody_is_in(stage):
    stage.segment("carts", CART)
    stage.segment("both", {"all": [{"field": "segment.carts", "op": "equals", "value": True}, TWO_ORDERS]})
    stage.segment("long", {"field": "segment.carts", "op": "equals", "value": True, "for": "P2D"})
    stage.refreshed()
    stage.told(stage.paid("ann", 9 * DAY), stage.paid("ann", 8 * DAY), stage.cart("ann", 3 * DAY))
    stage.told(stage.cart("bob", HOUR))
    assert (stage.members("both"), stage.members("long")) == ({"ann"}, set())
    stage.refreshed()
    assert (stage.members("carts"), stage.members("long")) == ({"ann", "bob"}, {"ann"})


def test_a_merged_customer_does_not_enter_again(stage):
    stage.segment("carts", CART)
    stage.refreshed()
    stage.strategy({"entered": "segment.carts", "frequency": "every_time"})
    anonymous = Event(new_id(), "test", "m1", "cart.added", stage.now - 3 * HOUR, stage.now, {"anonymous": "x"},
                      {"product_id": "a", "quantity": 1})  # fmt: skip
    with for_shop(stage.engine, stage.shop.id) as session:
        agent.observe(session, stage.shop, [anonymous], recorded_at=SYSTEM.now())
    stage.told(stage.event("ann", "page.viewed", 5 * HOUR))
    joined = Event(new_id(), "test", "m2", "customer.identified", stage.now - HOUR, stage.now,
                   {"external": "ann", "anonymous": "x"}, {})  # fmt: skip
    stage.told(joined)
    ((survivor,),) = stage.run("SELECT id FROM customers WHERE shop_id = :shop AND merged_into IS NULL")
    stage.people["ann"] = survivor
    assert stage.members("carts") == {"ann"}
    assert stage.span("carts", "ann") == (stage.now - 3 * HOUR, None)
    rows = stage.run("SELECT trigger FROM decisions WHERE shop_id = :shop")
    assert [row.trigger for row in rows] == ["segment.entered"]


# -- by time, and for everybody -----------------------------------------------------------------------------------


def test_time_alone_brings_customers_in_and_sets_rules_off_once(stage):
    stage.segment("lapsing", LAPSING)
    stage.told(stage.paid("ann", 46 * DAY), stage.paid("bob", 44 * DAY), stage.event("cid", "page.viewed", DAY))
    stage.strategy({"entered": "segment.lapsing", "frequency": "every_time"})
    assert stage.members("lapsing") == set()  # as of its event, an order was just paid
    stage.refreshed()
    assert stage.members("lapsing") == {"ann"}
    assert stage.decided() == []  # it was there from the start
    row = stage.run("SELECT size, refreshed_at FROM segments WHERE shop_id = :shop")[0]
    assert row.size == 1
    later = stage.now + 3 * DAY
    stage.shop = stage_at(stage, 3 * DAY)
    assert stage.refreshed(later) == 1
    assert stage.members("lapsing") == {"ann", "bob"}
    assert stage.decided() == [("bob", "segment.entered", later, f"segment.lapsing@{later.isoformat()}")]
    assert stage.refreshed(later + HOUR) == 0
    assert len(stage.decided()) == 1


def stage_at(stage: Stage, ahead: timedelta) -> Shop:
    """The shop with its clock moved."""
    stage.run("UPDATE shops SET clock_offset = :ahead WHERE id = :shop RETURNING 1", ahead=ahead)
    with for_shop(stage.engine, stage.shop.id) as session:
        return load_shop(session, stage.shop.id)


def test_a_refresh_that_died_goes_on_where_it_stopped_and_repeats_nobody(stage, monkeypatch):
    stage.segment("lapsing", LAPSING)
    stage.told(*[stage.paid(f"c{number}", (38 + number) * DAY) for number in range(6)])
    stage.refreshed()
    assert stage.members("lapsing") == set()
    stage.strategy({"entered": "segment.lapsing", "frequency": "every_time"})
    later = stage.now + 20 * DAY
    stage.shop = stage_at(stage, 20 * DAY)
    monkeypatch.setattr("workers.regrouping.PART", 2)
    survive = agent.regroup
    calls = []

    def die(*given: Any, **named: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:
            survive(*given, **named)
            raise RuntimeError("killed before the commit")
        return survive(*given, **named)

    monkeypatch.setattr(agent, "regroup", die)
    with pytest.raises(RuntimeError):
        stage.refreshed(later)
    assert len(stage.members("lapsing")) == 2
    refresh(stage.engine, stage.shop.id)
    assert len(stage.members("lapsing")) == 6
    assert sorted(who for who, *_ in stage.decided()) == [f"c{number}" for number in range(6)]
    assert {at for _, _, at, _ in stage.decided()} == {later}
    with for_shop(stage.engine, stage.shop.id) as session:
        assert ticks.newest_open(session, stage.shop.id, ticks.SEGMENTS) is None


def test_a_customer_seen_after_the_due_time_is_left_to_its_event(stage):
    stage.segment("carts", {"none": [CART]})
    stage.told(stage.event("ann", "page.viewed", 3 * HOUR))
    stage.refreshed()
    assert stage.members("carts") == {"ann"}
    stage.told(stage.cart("ann", HOUR))
    stage.refreshed(stage.now - 2 * HOUR)  # a tick that waited long: then, there was no cart
    assert stage.members("carts") == set()


def test_who_meets_a_changed_definition_enters(stage):
    stage.segment("lapsing", LAPSING)
    stage.told(stage.paid("ann", 30 * DAY), stage.paid("bob", 50 * DAY))
    stage.refreshed()
    stage.strategy({"entered": "segment.lapsing"})
    made = stage.change("lapsing", definition={**LAPSING, "value": 20})
    assert made.version == 2
    assert refresh(stage.engine, stage.shop.id) == 1  # the change has asked for it
    assert stage.members("lapsing") == {"ann", "bob"}
    assert [(who, trigger) for who, trigger, _, _ in stage.decided()] == [("ann", "segment.entered")]
    assert stage.change("lapsing", definition={**LAPSING, "value": 20.0}).version == 2  # says the same


def test_a_screening_and_an_update_find_the_same(stage):
    """Whoever the hourly pass would move is moved by it, and nobody else."""
    stage.segment("carts", CART)
    stage.segment("none", {"none": [{"field": "segment.carts", "op": "equals", "value": True}]})
    stage.segment("viewed", {"history": {"event": "product.viewed", "within": "P7D"}, "op": "gte", "value": 2})
    stage.told(
        *[stage.event(f"c{n}", "product.viewed", n * DAY, product_id="a") for n in (1, 1, 5, 5, 9) for _ in "ab"]
    )
    stage.told(stage.cart("c1", HOUR), stage.cart("c9", 10 * DAY))
    at = SYSTEM.now()
    with for_shop(stage.engine, stage.shop.id) as session:
        movers = membership.screen(session, stage.shop, at)
        agent.regroup(session, stage.shop, movers, at, recorded_at=at)
        assert membership.screen(session, stage.shop, at) == []
    assert stage.members("carts") == {"c1"}
    assert stage.members("none") == {"c5", "c9"}
    assert stage.members("viewed") == {"c1", "c5"}


# -- clusters -----------------------------------------------------------------------------------------------------


def a_clustering(stage: Stage, labels: tuple[str, str], version: int = 1) -> None:
    """Two groups: without orders (the first label) and with many (the second)."""
    stage.run(
        "UPDATE clusterings SET state = 'retired' WHERE shop_id = :shop AND state = 'live' RETURNING 1"
    )  # fmt: skip
    clustering = new_id()
    model = {"features": ["orders"], "fill": [0.0], "unit": [1.0], "mean": [0.0], "scale": [1.0], "logged": [False],
             "clip": 100.0, "centroids": [[0.0], [4.0]]}  # fmt: skip
    stage.run(
        "INSERT INTO clusterings (shop_id, id, version, state, features, k, model, quality, customers, as_of,"
        " fitted_at, members_at) VALUES (:shop, :id, :version, 'live', ARRAY['orders'], 2, CAST(:model AS jsonb), '{}',"
        " 0, :at, :at, :at) RETURNING 1",
        id=clustering, version=version, model=orjson.dumps(model).decode(), at=stage.now,
    )  # fmt: skip
    for number, label in enumerate(labels):
        stage.run(
            "INSERT INTO clusters (shop_id, clustering_id, number, lineage_id, label_key, labels, size, profile)"
            " VALUES (:shop, :clustering, :number, :lineage, :label, '{}', 0, '{}') RETURNING 1",
            clustering=clustering, number=number, lineage=new_id(), label=label,
        )  # fmt: skip


def test_a_customer_comes_into_a_cluster_and_leaves_the_other(stage):
    a_clustering(stage, ("visitor", "loyal"))
    stage.strategy({"entered": "cluster.loyal", "frequency": "every_time"}, key="in")
    stage.strategy({"left": "cluster.visitor", "frequency": "every_time"}, key="out")
    stage.told(stage.event("ann", "page.viewed", 9 * HOUR))
    assert stage.decided() == []
    stage.told(*[stage.paid("ann", hours * HOUR) for hours in (5, 4, 3)])
    at = stage.now - 3 * HOUR
    assert stage.decided() == [
        ("ann", "cluster.entered", at, f"cluster.loyal@{at.isoformat()}"),
        ("ann", "cluster.left", at, f"cluster.visitor@{at.isoformat()}"),
    ]
    (row,) = stage.run("SELECT label_key, label_since FROM cluster_members WHERE shop_id = :shop")
    assert (row.label_key, row.label_since) == ("loyal", at)


def test_whom_a_fit_moves_enters_with_the_next_refresh(stage):
    a_clustering(stage, ("visitor", "loyal"))
    stage.told(stage.event("ann", "page.viewed", 5 * HOUR), *[stage.paid("bob", n * HOUR) for n in (5, 4, 3)])
    stage.strategy({"entered": "cluster.at_risk", "frequency": "every_time"})
    a_clustering(stage, ("visitor", "at_risk"), version=2)
    stage.run(  # as the job does: everybody by COPY, without a word on who moved
        "UPDATE cluster_members m SET clustering_id = c.clustering_id, lineage_id = c.lineage_id FROM clusters c"
        " JOIN clusterings g ON g.shop_id = c.shop_id AND g.id = c.clustering_id AND g.state = 'live'"
        " WHERE m.shop_id = :shop AND c.shop_id = :shop AND c.number = m.number RETURNING 1"
    )
    at = SYSTEM.now()
    assert stage.refreshed(at) == 1
    assert [(who, trigger, when) for who, trigger, when, _ in stage.decided()] == [("bob", "cluster.entered", at)]
    assert stage.refreshed(at + HOUR) == 0
    labels = stage.run("SELECT DISTINCT label_key FROM cluster_members WHERE shop_id = :shop")
    assert {row.label_key for row in labels} == {"visitor", "at_risk"}


def test_labels_that_nobody_waits_for_are_settled_without_a_word(stage):
    a_clustering(stage, ("visitor", "loyal"))
    stage.told(stage.event("ann", "page.viewed", 5 * HOUR))
    stage.run("UPDATE cluster_members SET label_key = 'old' WHERE shop_id = :shop RETURNING 1")
    assert stage.refreshed() == 0
    (row,) = stage.run("SELECT label_key FROM cluster_members WHERE shop_id = :shop")
    assert row.label_key == "visitor"


# -- made, changed, archived --------------------------------------------------------------------------------------


def test_a_segment_that_is_asked_for_cannot_be_archived(stage):
    stage.segment("carts", CART)
    stage.segment("both", {"all": [{"field": "segment.carts", "op": "equals", "value": True}, TWO_ORDERS]})
    stage.segment("free", TWO_ORDERS)
    stage.strategy({"event": "cart.added"}, {"field": "segment.both", "op": "equals", "value": True}, key="asks")
    stage.strategy({"entered": "segment.free"}, key="waits")
    with for_shop(stage.engine, stage.shop.id) as session:
        for key, user in (("carts", "segment both"), ("both", "strategy asks"), ("free", "strategy waits")):
            with pytest.raises(Conflict, match=user):
                lifecycle.archive(session, stage.shop, key, at=stage.now, actor="test")
        strategies.move(session, stage.shop, "waits", "archived", at=stage.now, actor="test")
        assert lifecycle.archive(session, stage.shop, "free", at=stage.now, actor="test").state == "archived"
        assert [one.key for one in active.segments(session, stage.shop.id)] == ["carts", "both"]
    with pytest.raises(Rejected, match=r"no field 'segment\.free'"):
        stage.segment("again", {"field": "segment.free", "op": "equals", "value": True})


def test_a_circle_of_segments_is_refused(stage):
    stage.segment("a", CART)
    stage.segment("b", {"field": "segment.a", "op": "equals", "value": True})
    with pytest.raises(Rejected, match="a → b → a"):
        stage.change("a", definition={"field": "segment.b", "op": "equals", "value": True})


@pytest.mark.parametrize(
    ("key", "definition", "where"),
    [
        ("Upper", CART, "key"),
        ("with.dot", CART, "key"),
        ("x", {"all": [CART, {"field": "segment.nobody", "op": "equals", "value": True}]}, "definition.all[1].field"),
        ("x", {"field": "cluster.label", "op": "equals", "value": "lojal"}, "definition.value"),
        ("x", {"field": "consent.emial", "op": "equals", "value": "subscribed"}, "definition.field"),
    ],
)
def test_what_does_not_read_is_refused_where_it_stands(stage, key, definition, where):
    with pytest.raises(Rejected) as refused:
        stage.segment(key, definition)
    assert refused.value.where == where


@pytest.mark.parametrize("when", [{"entered": "segment.nobody"}, {"left": "cluster.lojal"}])
def test_a_rule_cannot_wait_for_a_group_that_there_is_not(stage, when):
    with pytest.raises(RuleError) as refused:
        stage.strategy(when)
    assert refused.value.where == f"rules[0].when.{next(iter(when))}"


def test_every_change_is_in_the_audit_log(stage):
    stage.segment("carts", CART)
    stage.change("carts", name={"en": "Carts", "zh": "购物车"})
    with for_shop(stage.engine, stage.shop.id) as session:
        lifecycle.archive(session, stage.shop, "carts", at=stage.now, actor="test")
    verbs = stage.run(
        "SELECT verb, detail FROM audit_log WHERE shop_id = :shop AND subject = 'segment:carts' ORDER BY seq"
    )
    assert [row.verb for row in verbs] == ["segment.created", "segment.changed", "segment.archived"]
    assert verbs[1].detail["after"]["name"]["zh"] == "购物车"
    with pytest.raises(Conflict):
        stage.change("carts", definition=LAPSING)


def test_a_preview_says_how_many_and_why_and_writes_nothing(stage):
    stage.told(*[stage.paid(f"c{n}", n * DAY) for n in range(30, 60)], stage.event("new", "page.viewed", DAY))
    with for_shop(stage.engine, stage.shop.id) as session:
        condition = lifecycle.read(LAPSING, vocabulary.of_shop(session, stage.shop.id))
        found = preview.preview(session, stage.shop, condition, stage.now)
    assert (found.customers, found.size, found.unknown) == (31, 14, 1)
    assert len(found.sample) == 14
    names = {customer_id: who for who, customer_id in stage.people.items()}
    seen = {names[one.customer_id]: one.seen[0]["seen"] for one in found.sample}
    assert seen == {f"c{n}": n for n in range(46, 60)}
    assert stage.run("SELECT 1 FROM segment_members WHERE shop_id = :shop") == []
