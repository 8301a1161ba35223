"""One timeline of a customer who has everything: events, messages, carts, checkouts, orders, refunds, shipments."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from operation_agent import agent
from operation_agent.access.keys import create_key
from operation_agent.events import intake
from operation_agent.events.catalogue import TYPES
from operation_agent.events.event import Event
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import NotFound, Rejected
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import create_shop, load_shop
from operation_agent.storefront import records
from operation_agent.storefront.behavior import Position, get_customer_behavior
from operation_agent.storefront.records import Record, Telling
from operation_agent.storefront.words import KINDS

pytestmark = pytest.mark.integration

START = datetime(2026, 3, 1, tzinfo=UTC)
LINE = {"line_id": "l1", "product_id": "p1", "variant_id": "v1", "sku": "S", "title": "Thing", "quantity": 2,
        "current_quantity": 1, "price_minor": 500, "discount_minor": 0}  # fmt: skip


def at(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


def event(minute: int, type: str, properties: dict[str, Any] | None = None, **identity: str) -> Event:
    return Event(new_id(), "shopify", new_id().hex, type, at(minute), at(minute), identity, properties or {})


def told(*tellings: Telling) -> Event:
    return event(0, "storefront.changed", {"tellings": records.to_json(tellings)})


def order(type: str, minute: int, number: str, **identity: str) -> Event:
    said = {"order_id": number, "name": f"#{number}", "total_minor": 1000, "discount_minor": 0, "tax_minor": 10,
            "currency": "USD", "quantity": 2, "discount_codes": ["A"], "products": [LINE],
            "updated_at": at(minute).isoformat()}  # fmt: skip
    return event(minute, type, said, **identity)


HERS = [
    event(1, "product.viewed", {"product_id": "p1", "price_minor": 500}, anonymous="device"),
    event(1, "product.searched", {"query": "thing"}, anonymous="device"),
    event(2, "custom", {"colour": "red"}, anonymous="device", external="e"),
    event(3, "cart.added", {"cart_id": "t1", "product_id": "p1", "price_minor": 500, "quantity": 2},
          anonymous="cart:t1"),
    told(Record("cart", ("t1",), at(4), {"value_minor": 1000, "quantity": 2, "lines": [LINE]})),
    event(5, "checkout.started", {"checkout_id": "c1", "value_minor": 1000}, shopify="7", anonymous="cart:t1"),
    told(Record("checkout", ("c1",), at(6), {"cart_token": "t1", "source_customer_id": "7", "value_minor": 1000,
                                             "quantity": 2, "lines": [LINE], "started_at": at(5),
                                             "completed_at": at(8), "recovery_url": "https://shop.example/r"})),
    order("order.created", 7, "o1", shopify="7"),
    order("order.paid", 8, "o1", shopify="7"),
    event(9, "order.refunded", {"order_id": "o1", "refund_id": "r1", "amount_minor": 300}),
    order("order.created", 10, "o2", shopify="7"),
    event(11, "order.cancelled", {"order_id": "o2"}, shopify="7"),
    told(Record("fulfillment", ("f1",), at(12), {"source_order_id": "o1", "status": "success",
                                                 "tracking_numbers": ["1Z"]})),
    event(13, "order.fulfilled", {"order_id": "o1"}, shopify="7"),
    event(14, "consent.changed", {"channel": "email", "topic": "marketing", "state": "subscribed"}, shopify="7"),
    told(Record("cart", ("t2",), at(15), {"value_minor": 700, "quantity": 1, "lines": [LINE]}),
         Record("checkout", ("c2",), at(16), {"cart_token": "t2", "source_customer_id": "7", "value_minor": 700,
                                              "started_at": at(16)})),
    event(20, "customer.aliased", {}, external="e", shopify="7"),
    order("order.updated", 21, "o1", shopify="7"),
    event(22, "customer.tagged", {"added": ["vip"], "removed": []}, shopify="7"),
]  # fmt: skip
OTHERS = [
    event(1, "product.viewed", {"product_id": "p9"}, external="other"),
    order("order.paid", 2, "o9", shopify="9"),
    event(3, "order.refunded", {"order_id": "o9", "refund_id": "r9", "amount_minor": 100}),
    told(Record("cart", ("t9",), at(3), {"value_minor": 1}),
         Record("checkout", ("c9",), at(3), {"cart_token": "t9", "source_customer_id": "9"}),
         Record("fulfillment", ("f9",), at(4), {"source_order_id": "o9"})),
    event(3, "cart.added", {"product_id": "p9", "quantity": 1}, anonymous="cart:t9"),
]  # fmt: skip


@pytest.fixture
def her(engine, shop_id) -> UUID:
    mixed = [one for pair in zip(HERS, [*OTHERS, *[None] * len(HERS)], strict=False) for one in pair if one]
    events = [replace(one, id=new_id()) for one in mixed]
    with for_shop(engine, shop_id) as session:
        intake.commit(session, shop_id, events)
        for start in range(0, len(events), 4):
            agent.observe(session, load_shop(session, shop_id), events[start : start + 4], recorded_at=SYSTEM.now())
        (customer,) = session.execute(
            text("SELECT DISTINCT customer_id FROM identities WHERE value IN ('e', '7', 'device', 'cart:t1')")
        ).scalars()
        session.execute(
            text(
                "INSERT INTO actions (shop_id, id, decision_id, customer_id, strategy_id, rule_id, arm, step, type,"
                " channel, held_out, parameters, dedupe_key, state, decided_at, due_at, sent_at, created_at)"
                " SELECT :s, a, a, :c, a, a, 'x', 0, 'email', 'email', h, '{}', a::text, 'sent', :at, :at, :at, :at"
                " FROM unnest(CAST(:ids AS uuid[]), CAST(:held AS boolean[])) AS r (a, h)"
            ),
            {"s": shop_id, "c": customer, "ids": [new_id(), new_id()], "held": [False, True], "at": at(17)},
        )
    return customer


def kinds(entries) -> list[tuple[int, str]]:
    return [(round((entry.at - START).total_seconds() / 60), entry.kind) for entry in entries]


ALL = [
    (17, "message"), (16, "checkout"), (15, "cart"), (14, "consent.changed"), (13, "order.fulfilled"),
    (12, "fulfillment"), (11, "cancellation"), (10, "unpaid_order"), (9, "refund"), (8, "order"), (5, "checkout"),
    (4, "cart"), (3, "cart.added"), (2, "custom"), (1, "product.viewed"), (1, "product.searched"),
]  # fmt: skip


def test_everything_stands_once_newest_first_and_nobody_elses(engine, shop_id, her):
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        entries = get_customer_behavior(session, shop, her)
        assert kinds(entries) == ALL
        found = {(entry.kind, entry.ref): entry for entry in entries}
    bought = found["order", "o1"]
    assert (bought.amount_minor, bought.currency, bought.details["refunded_minor"]) == (1000, "USD", 300)
    assert [(line["sku"], line["quantity"], line["current_quantity"]) for line in bought.details["lines"]] == [
        ("S", 2, 1)
    ]
    assert found["refund", "o1/r1"].amount_minor == 300
    assert found["unpaid_order", "o2"].details["lines"][0]["title"] == "Thing"
    assert (found["cart", "t1"].details["is_open"], found["cart", "t2"].details["is_open"]) == (False, True)
    assert (found["checkout", "c1"].details["is_open"], found["checkout", "c2"].details["is_open"]) == (False, True)
    assert found["checkout", "c1"].details["recovery_url"] == "https://shop.example/r"
    assert found["fulfillment", "f1"].details["tracking_numbers"] == ["1Z"]
    (searched,) = [entry for entry in entries if entry.kind == "product.searched"]
    assert searched.details == {"query": "thing", "source": "shopify"}
    assert bought.labels == {"zh": "订单", "en": "Order"}


def test_pages_of_any_size_are_the_whole(engine, shop_id, her):
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        for size in (1, 2, 5):
            seen, before = [], None
            while page := get_customer_behavior(session, shop, her, before=before, limit=size):
                seen += page
                before = page[-1].position
            assert kinds(seen) == ALL


def test_a_span_and_kinds_may_be_asked_for(engine, shop_id, her):
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        between = get_customer_behavior(session, shop, her, since=at(9), before=at(12))
        assert kinds(between) == [(11, "cancellation"), (10, "unpaid_order"), (9, "refund")]
        some = get_customer_behavior(session, shop, her, kinds=["order", "custom"])
        assert kinds(some) == [(8, "order"), (2, "custom")]
        assert get_customer_behavior(session, shop, her, kinds=[]) == []
        with pytest.raises(Rejected, match="no kind 'orders'"):
            get_customer_behavior(session, shop, her, kinds=["orders"])
        with pytest.raises(NotFound):
            get_customer_behavior(session, shop, new_id())


def test_a_merged_customers_story_is_the_survivors(engine, shop_id, her):
    late = event(30, "page.viewed", {"path": "/"}, external="elsewhere")
    joins = event(31, "customer.aliased", external="e", previous="elsewhere")
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        agent.observe(session, shop, [late], recorded_at=SYSTEM.now())
        agent.observe(session, shop, [joins], recorded_at=SYSTEM.now())
        merged = session.execute(text("SELECT from_customer_id FROM customer_merges")).scalars().all()
        for one in [her, *merged]:
            assert kinds(get_customer_behavior(session, shop, one)) == [(30, "page.viewed"), *ALL]


def test_every_type_of_event_is_shown_or_told_by_a_table_of_its_own():
    ours = {"order.created", "order.paid", "order.updated", "order.refunded", "order.cancelled", "order.deleted"}
    no_deeds = {"customer.identified", "customer.aliased", "customer.tagged", "webhook.kept"}
    shown = {type_ for type_ in TYPES if not type_.startswith(("storefront.", "shop.", "app.", "privacy."))}
    assert shown - ours - no_deeds <= KINDS


def test_the_route_pages_and_knows_its_own_customers_only(engine, shop_id, client, her):
    def key(shop: UUID, *scopes: str) -> dict[str, str]:
        with for_shop(engine, shop) as session:
            made, _ = create_key(session, shop, name="k", scopes=list(scopes), actor="test", at=SYSTEM.now())
        return {"Authorization": f"Bearer {made}"}

    mine = key(shop_id, "customers:read")
    path, seen, cursor = f"/api/customers/{her}/behavior", [], None
    while cursor is not None or not seen:
        page = client.get(path, headers=mine, params={"limit": 7, **({"cursor": cursor} if cursor else {})})
        assert page.status_code == 200, page.text
        seen += page.json()["items"]
        cursor = page.json()["next"]
        if cursor is None:
            break
    assert [entry["kind"] for entry in seen] == [kind for _, kind in ALL]
    some = client.get(path, headers=mine, params={"kind": ["order", "refund"], "since": at(9).isoformat()})
    assert [entry["kind"] for entry in some.json()["items"]] == ["refund"]
    assert client.get(path, headers=mine, params={"kind": "orders"}).status_code == 400
    assert client.get(path, headers=mine, params={"cursor": "x"}).status_code == 400
    assert client.get(path, headers=key(shop_id, "segments:read")).status_code == 403
    other = create_shop(engine, slug=f"x-{new_id().hex[-12:]}", name="x", currency="USD", sandbox=True)
    assert client.get(path, headers=key(other.id, "customers:read")).status_code == 404
    assert client.get(f"/api/customers/{new_id()}/behavior", headers=mine).status_code == 404


def test_a_position_is_strictly_before(engine, shop_id, her):
    with for_shop(engine, shop_id) as session:
        found = get_customer_behavior(session, load_shop(session, shop_id), her, before=Position(at(1), "z", ""))
        assert kinds(found) == ALL[-2:]
