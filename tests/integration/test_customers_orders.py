"""Orders as a storefront tells of them: created, paid, edited, refunded, deleted, in any order and any batches."""

from __future__ import annotations

import random
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from operation_agent.customers import history, identity
from operation_agent.events.event import Event
from operation_agent.feedback import ledger, outcomes
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import create_shop, load_shop

pytestmark = pytest.mark.integration

START = datetime(2026, 3, 1, tzinfo=UTC)


def at(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


def event(minute: int, type: str, properties: dict[str, Any] | None = None, **identity: str) -> Event:
    return Event(new_id(), "shopify", new_id().hex, type, at(minute), at(minute), identity, properties or {})


def line(number: int, quantity: int = 1, **more: Any) -> dict[str, Any]:
    return {"line_id": f"l{number}", "product_id": f"p{number}", "variant_id": f"v{number}", "sku": f"S{number}",
            "title": f"Thing {number}", "quantity": quantity, "price_minor": 500, "discount_minor": 0,
            **more}  # fmt: skip


def order(
    type: str, minute: int, number: str = "o1", total: int = 1000, *, lines: int = 1, who: str | None = "7",
    happened: int | None = None, **more: Any,
) -> Event:  # fmt: skip
    """`minute` is the snapshot's own, `happened` the event's."""
    properties = {
        "order_id": number, "name": f"#{number}", "total_minor": total, "discount_minor": 0, "tax_minor": 20,
        "shipping_minor": 5, "currency": "USD", "presentment_currency": "CAD", "quantity": lines,
        "discount_codes": [], "products": [line(n) for n in range(1, lines + 1)], "paid": type != "order.created",
        "financial_status": "paid", "fulfillment_status": None, "updated_at": at(minute).isoformat(), **more,
    }  # fmt: skip
    return event(minute if happened is None else happened, type, properties, **({"shopify": who} if who else {}))


def take(engine: Engine, shop_id: UUID, *events: Event) -> dict[UUID, Any]:
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        people = identity.resolve(session, shop, events)
        history.apply(session, shop, events, people)
        ledger.apply(session, shop, events, people)
        outcomes.apply(session, shop, events, people)
    return people


def rows(engine: Engine, shop_id: UUID, sql: str) -> list[tuple]:
    with for_shop(engine, shop_id) as session:
        return [tuple(row) for row in session.execute(text(sql))]


STORY = [
    order("order.created", 1, total=900, paid=False),
    order("order.paid", 2, total=900, discount_minor=100, discount_codes=["A"], happened=2),
    order("order.updated", 5, total=1500, lines=3, discount_codes=["A", "B"]),
    order("order.updated", 9, total=1200, lines=2, products=[line(1, 2), line(3)], fulfillment_status="partial"),
    order("order.updated", 9, total=1100, lines=2),
    event(6, "order.refunded", {"order_id": "o1", "refund_id": "r1", "amount_minor": 300}),
    event(7, "order.refunded", {"order_id": "o1", "refund_id": "r1", "amount_minor": 300}, shopify="7"),
    order("order.created", 3, "unpaid", paid=False, financial_status="pending"),
    order("order.updated", 4, "unpaid", 700, paid=False, financial_status="voided"),
    event(5, "order.cancelled", {"order_id": "unpaid"}, shopify="7"),
    order("order.paid", 3, "gone", 400),
    event(8, "order.deleted", {"order_id": "gone"}),
    event(12, "order.cancelled", {"order_id": "gone"}, shopify="7"),
    order("order.paid", 3, "guests", 250, who=None),
    order("order.updated", 6, "guests", 200, who=None, lines=0, products=[]),
    order("order.updated", 4, "test", 100, test=True, paid=False),
    order("order.paid", 4, "moved", 300, who=None),
    order("order.updated", 5, "moved", 300, who="8"),
    order("order.updated", 6, "moved", 310, who="7"),
    order("order.updated", 7, "moved", 320, who=None),
    event(0, "customer.identified", {"traits": {"plan": "x"}, "tags": ["new"]}, shopify="7"),
    event(4, "customer.tagged", {"added": ["vip"], "removed": ["new"]}, shopify="7"),
    event(2, "customer.identified", {"traits": {"plan": "y"}, "tags": ["new", "old"]}, shopify="7"),
    event(3, "customer.tagged", {"added": ["early"], "removed": []}, shopify="7"),
]


def state(engine: Engine, shop_id: UUID) -> dict[str, list[tuple]]:
    named = "(SELECT shopify_id FROM customers c WHERE c.id = o.customer_id)"
    queries = {
        "orders": f"SELECT source_order_id, {named}, ordered_at, total_minor, discount_minor, tax_minor,"  # noqa: S608
        " shipping_minor, refunded_minor, quantity, discount_codes, cancelled_at, deleted_at, updated_at, name,"
        " financial_status, fulfillment_status, presentment_currency, event_id, paid_event_id FROM orders o ORDER BY 1",
        "lines": "SELECT source_order_id, line_id, product_id, quantity, unit_minor, discount_minor FROM order_lines"
        " ORDER BY 1, 2",
        "unpaid": f"SELECT source_order_id, {named}, updated_at, snapshot FROM unpaid_orders o ORDER BY 1",  # noqa: S608
        "ledger": "SELECT kind, source_id, amount_minor, occurred_at FROM ledger ORDER BY 1, 2",
        "timeline": "SELECT occurred_at, event_id, type, amount_minor FROM timeline ORDER BY 1, 2",
        "customers": "SELECT shopify_id, traits, trait_times FROM customers ORDER BY 1",
        "consents": "SELECT channel, topic, state, changed_at, event_id FROM consents ORDER BY 1, 2",
        "changes": "SELECT channel, topic, state, changed_at, event_id FROM consent_changes ORDER BY 1, 2, 4, 5",
    }
    return {name: rows(engine, shop_id, sql) for name, sql in queries.items()}


def told(engine: Engine, story: list[Event], batch: int) -> dict[str, list[tuple]]:
    shop = create_shop(engine, slug=f"o-{new_id().hex[-12:]}", name="o", currency="USD", sandbox=True, seed="test")
    for start in range(0, len(story), batch):
        take(engine, shop.id, *story[start : start + batch])
    return state(engine, shop.id)


def test_the_newest_snapshot_stands_with_its_lines_and_an_unpaid_order_is_none(engine):
    found = told(engine, STORY, 4)
    orders = {row[0]: row[1:] for row in found["orders"]}
    assert orders.keys() == {"o1", "gone", "guests", "moved"}
    who, ordered_at, total, discount, tax, shipping, refunded, *_ = orders["o1"]
    assert (who, ordered_at, discount, tax, shipping, refunded) == ("7", at(2), 0, 20, 5, 300)
    assert total in (1100, 1200)  # two of one second: either whole, never a mix of both
    edited = [("o1", "l1", 2), ("o1", "l3", 1)] if total == 1200 else [("o1", "l1", 1), ("o1", "l2", 1)]
    assert [row[:2] + row[3:4] for row in found["lines"] if row[0] == "o1"] == edited
    assert orders["gone"][9:11] == (at(8), at(8))  # cancelled, deleted
    assert orders["guests"][0] is None
    assert orders["guests"][2] == 200
    assert orders["moved"][0] == "7"  # the newest that named somebody
    assert [(row[0], row[3]["financial_status"]) for row in found["unpaid"]] == [("test", "paid"), ("unpaid", "voided")]
    assert not [row for row in found["lines"] if row[0] == "guests"]


def test_the_ledger_follows_an_edited_order(engine):
    found = told(engine, STORY, 4)
    total = next(row[3] for row in found["orders"] if row[0] == "o1")
    earned = {(kind, source): amount for kind, source, amount, _ in found["ledger"]}
    assert earned["margin", "o1"] == total * 4 // 10
    assert earned["refund", "o1/r1"] == -300 * 4 // 10
    assert ("discount", "o1") not in earned  # the order lost it
    assert (earned["margin", "gone"], earned["refund", "gone/deleted"], earned["refund", "gone/cancelled"]) == (
        160, -160, 0,
    )  # fmt: skip


def test_snapshots_and_tags_are_no_things_that_happened(engine):
    found = told(engine, STORY, 4)
    types = {row[2] for row in found["timeline"]}
    assert types == {"order.created", "order.paid", "order.refunded", "order.cancelled"}
    traits = next(row[1] for row in found["customers"] if row[0] == "7")
    assert traits["tags"] == ["early", "old", "vip"]
    assert (traits["tag:vip"], traits["tag:new"], traits["plan"]) == (True, False, "y")


@pytest.mark.parametrize("seed", range(12))
def test_any_order_of_arrival_gives_the_same_rows(engine, seed):
    draw = random.Random(seed)
    shuffled = [*STORY, *draw.sample(STORY, 5)]
    draw.shuffle(shuffled)
    assert told(engine, shuffled, draw.choice([1, 3, 40])) == told(engine, STORY, 40)


def test_what_is_known_of_orders_and_customers_is_as_of_their_own_clock(engine, shop_id):
    take(engine, shop_id, *STORY)
    with for_shop(engine, shop_id) as session:
        assert history.known_orders(session, shop_id, ["o1", "unpaid", "test", "never"]) == {
            "o1": at(9), "unpaid": at(4), "test": at(4),
        }  # fmt: skip
        assert history.known_customers(session, shop_id, ["7", "8", "9"]) == {"7": at(2)}


def test_lines_are_kept_for_orders_of_other_sources_too(engine, shop_id):
    products = [{"sku": "a", "quantity": 2, "price_minor": 150}, {"sku": "b", "unit_minor": "33.333", "quantity": 3},
                {"line_id": "x"}, {"line_id": "x"}]  # fmt: skip
    said = {"order_id": "t", "total_minor": 400, "products": products, "quantity": 5, "discount_codes": []}
    take(engine, shop_id, event(1, "order.paid", said, external="c"))
    found = rows(engine, shop_id, "SELECT line_id, sku, quantity, unit_minor FROM order_lines ORDER BY 1")
    assert found == [
        ("1", "a", 2, Decimal(150)), ("2", "b", 3, Decimal("33.333")), ("x", None, 1, None), ("x#2", None, 1, None),
    ]  # fmt: skip


CONSENTS = [
    event(1, "consent.changed", {"channel": "email", "topic": "marketing", "state": "subscribed"}, shopify="7"),
    event(2, "consent.changed", {"channel": "sms", "topic": "marketing", "state": "subscribed"}, shopify="7"),
    event(3, "consent.changed", {"channel": "email", "topic": "news", "state": "unsubscribed"}, shopify="7"),
    event(5, "customer.deleted", {}, shopify="7"),
    event(4, "customer.identified", {"traits": {"plan": "late"}}, shopify="7"),
    event(9, "consent.changed", {"channel": "sms", "topic": "marketing", "state": "subscribed"}, shopify="7"),
]


def test_a_deleted_customer_has_withdrawn_every_consent_given_until_then(engine):
    found = told(engine, CONSENTS[:5], 9)
    assert [row[:4] for row in found["consents"]] == [
        ("email", "marketing", "unsubscribed", at(5)),
        ("email", "news", "unsubscribed", at(5)),
        ("sms", "marketing", "unsubscribed", at(5)),
    ]
    assert found["customers"][0][1]["deleted_at"].startswith("2026-03-01T00:05")
    again = told(engine, CONSENTS, 9)
    assert again["consents"][2][2:4] == ("subscribed", at(9))


@pytest.mark.parametrize("seed", range(8))
def test_a_late_consent_revives_nothing(engine, seed):
    draw = random.Random(seed)
    shuffled = [*CONSENTS, *draw.sample(CONSENTS, 2)]
    draw.shuffle(shuffled)
    assert told(engine, shuffled, draw.choice([1, 2, 9])) == told(engine, CONSENTS, 9)


def test_a_record_that_is_deleted_after_it_was_merged_into_another_takes_no_consent_along(engine):
    merged = event(3, "customer.aliased", {}, shopify="7", previous="8")
    gone = event(5, "customer.deleted", {}, shopify="8")
    kept = told(engine, [*CONSENTS[:2], event(2, "page.viewed", {}, shopify="8"), merged, gone], 9)
    assert [row[2] for row in kept["consents"]] == ["subscribed", "subscribed"]
    both = told(engine, [*CONSENTS[:2], merged, gone, event(6, "customer.deleted", {}, shopify="7")], 9)
    assert [row[2:4] for row in both["consents"]] == [("unsubscribed", at(6))] * 2


@pytest.mark.parametrize("refund_first", [True, False])
def test_a_refund_and_its_order_written_at_one_time_do_not_overlook_each_other(engine, shop_id, refund_first):
    """The refund names nobody, so another worker has it: each is written while the other is not committed."""
    failures: list[BaseException] = []
    told = [
        order("order.paid", 1, "o"),
        event(2, "order.refunded", {"order_id": "o", "refund_id": "r", "amount_minor": 100}),
    ]
    first, second = reversed(told) if refund_first else told

    def work() -> None:
        try:
            take(engine, shop_id, second)
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    other = threading.Thread(target=work)
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        people = identity.resolve(session, shop, [first])
        history.apply(session, shop, [first], people)
        ledger.apply(session, shop, [first], people)
        other.start()
        other.join(0.5)
    other.join()
    assert failures == []
    assert rows(engine, shop_id, "SELECT refunded_minor FROM orders") == [(100,)]
    assert rows(engine, shop_id, "SELECT amount_minor FROM ledger WHERE kind = 'refund'") == [(-40,)]
