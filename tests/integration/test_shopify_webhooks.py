"""Every documented and every real payload of the topics we read, by signed HTTP and through the real processing: twice
and in any order it leaves the same customers, orders, lines and things of the shop as once and in order."""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import Engine, text

from integrations.shopify import webhook
from operation_agent.access.keys import create_key
from operation_agent.events.intake import PARTITIONS
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, create_shop
from workers import processing

pytestmark = pytest.mark.integration

CONTRACTS = Path(__file__).parents[2] / "../shared/contracts/shopify/webhooks"
needs_contracts = pytest.mark.skipif(not CONTRACTS.exists(), reason="../shared/contracts is not here")
SECRET = "hush-hush-hush"
Body = dict[str, Any]


@dataclass(frozen=True)
class Delivery:
    topic: str
    body: Body
    triggered_at: datetime
    version: str = "2026-07"
    name: str = ""

    def again(self) -> Delivery:
        """As a new delivery of the same content."""
        return Delivery(self.topic, self.body, self.triggered_at, self.version, new_id().hex)

    def headers(self, raw: bytes) -> dict[str, str]:
        digest = hmac.new(SECRET.encode(), raw, hashlib.sha256).digest()
        return {
            "X-Shopify-Topic": self.topic, "X-Shopify-Hmac-Sha256": base64.b64encode(digest).decode(),
            "X-Shopify-API-Version": self.version, "X-Shopify-Event-Id": f"event-{self.name}",
            "X-Shopify-Webhook-Id": f"webhook-{self.name}", "X-Shopify-Triggered-At": self.triggered_at.isoformat(),
        }  # fmt: skip


class Receiver:
    """A shop that is told things over HTTP."""

    def __init__(self, client, engine: Engine):
        self.client, self.engine = client, engine
        self.shop: Shop = create_shop(
            engine, slug=f"s-{new_id().hex[-12:]}", name="Test", currency="USD", sandbox=True, seed="test"
        )
        with for_shop(engine, self.shop.id) as session:
            token, _ = create_key(session, self.shop.id, "test", ["*"], SYSTEM.now())
        secrets = {"access_token": "t", "webhook_secret": SECRET}
        answer = client.put(
            "/api/integrations/shopify",
            json={"base_url": "http://127.0.0.1:9", "secrets": secrets},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert answer.status_code == 200, answer.text

    def tell(self, delivery: Delivery) -> Body:
        raw = orjson.dumps(delivery.body)
        answer = self.client.post(f"/webhooks/shopify/{self.shop.slug}", content=raw, headers=delivery.headers(raw))
        assert answer.status_code == 200, (delivery.topic, answer.text)
        return answer.json()

    def drain(self) -> None:
        for partition in range(PARTITIONS):
            processing.drain(self.engine, self.shop.id, partition, seconds=60)
        with for_shop(self.engine, self.shop.id) as session:
            failed = session.execute(text("SELECT error FROM event_failures")).scalars().all()
            assert failed == []
            assert session.execute(text("SELECT count(*) FROM event_queue")).scalar() == 0

    def state(self) -> dict[str, list[Body]]:
        with for_shop(self.engine, self.shop.id) as session:
            return state(session, self.shop.id)


@pytest.fixture
def receivers(client, engine) -> Iterator[Any]:
    yield lambda: Receiver(client, engine)


# -- what is compared ---------------------------------------------------------------------------------------------

NOT_ABOUT_IT = {
    "event_keys", "event_queue", "events", "outbox", "api_keys", "audit_log", "shops", "integrations", "members",
    "customer_features", "customer_merges", "ticks", "heartbeats", "privacy_requests",
}  # fmt: skip
"""How it came in, who may ask, and what is computed from the tables that are compared."""
CHANCE = {"shop_id", "id", "event_id", "paid_event_id", "random_key", "created_at", "merged_into"}
"""Columns that say when and under which number we wrote it down."""


def state(session: Any, shop_id: UUID) -> dict[str, list[Body]]:
    """Every row of the shop, customers named by their identities: the same for the same facts."""
    names = _names(session)
    found = {}
    for table in _tables(session):
        condition = " WHERE merged_into IS NULL" if table == "customers" else ""
        rows = session.execute(text(f"SELECT * FROM {table}{condition}")).mappings()  # noqa: S608 - names of our tables
        written = [_row(table, dict(row), names) for row in rows]
        if written:
            found[table] = sorted(written, key=lambda row: orjson.dumps(row, option=orjson.OPT_SORT_KEYS))
    return found


def _tables(session: Any) -> list[str]:
    rows = session.execute(
        text(
            "SELECT DISTINCT c.table_name FROM information_schema.columns c JOIN pg_class t ON t.relname = c.table_name"
            " WHERE c.table_schema = current_schema() AND c.column_name = 'shop_id' AND t.relkind IN ('r', 'p')"
            " AND NOT t.relispartition ORDER BY 1"
        )
    )
    return [table for table in rows.scalars() if table not in NOT_ABOUT_IT]


def _names(session: Any) -> dict[UUID, str]:
    rows = session.execute(text("SELECT customer_id, kind, value FROM identities ORDER BY kind, value"))
    names: dict[UUID, str] = {}
    for row in rows:
        names[row.customer_id] = f"{names.get(row.customer_id, '')}{row.kind}:{row.value} "
    return names


def _row(table: str, row: Body, names: dict[UUID, str]) -> Body:
    who = row.get("id") if table == "customers" else row.get("customer_id")
    chance = CHANCE | ({"first_seen_at"} if table == "identities" else set())  # by which event it was linked
    kept = {name: _plain(value) for name, value in row.items() if name not in chance and name != "customer_id"}
    if table == "timeline" and row["type"] in ("order.created", "order.paid"):
        del kept["amount_minor"]  # of the snapshot that first told of it; what the order comes to now is in `orders`
    return {"who": names.get(who), **kept} if who is not None else kept


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)


# -- what is told -------------------------------------------------------------------------------------------------

START = datetime(2026, 3, 1, 9, tzinfo=UTC)


def documented() -> list[Delivery]:
    """The sample of every topic we read. Two customers of the samples have one address, which a shop's cannot have."""
    found = []
    for topic in webhook.TOPICS:
        body = _sample(topic)
        if topic.startswith("checkouts/") and body.get("customer"):
            body["customer"]["email"] = "another.john@example.com"
        found.append(Delivery(topic, body, _lately(), name=f"sample-{topic}"))
    return found


def exemplars() -> list[Delivery]:
    """The real, anonymised payloads, under every topic whose payload they may be."""
    found = []
    for path in sorted((CONTRACTS / "exemplars_2025-04").glob("*/*.json")):
        for topic in webhook.TOPICS:
            if topic.split("/")[0] == path.parent.name:
                name = f"{path.parent.name}-{path.stem}-{topic}"
                found.append(Delivery(topic, json.loads(path.read_text()), _lately(), "2025-04", name))
    return found


def _lately() -> datetime:
    return SYSTEM.now().replace(microsecond=0, second=0) - timedelta(hours=1)


def _sample(topic: str) -> Body:
    return json.loads((CONTRACTS / f"samples_2026-07/{topic}.json").read_text())["response"]


def _at(minutes: float) -> str:
    return (START + timedelta(minutes=minutes)).isoformat()


def lives() -> list[Delivery]:
    """The documented order, no longer a test and with a history: forty orders of twelve customers and some guests, each
    changed several times, one in ten in another currency; and their customers, with consents, tags and carts."""
    return [delivery for number in range(40) for delivery in _life(number)] + _customers()


def _life(number: int) -> list[Delivery]:
    random_ = random.Random(number)
    order_id, customer = 2**60 + number, None if number % 5 == 4 else number % 12
    base = _sample("orders/paid") | {
        "id": order_id, "name": f"#{number}", "test": False, "cancelled_at": None, "financial_status": "pending",
        "cart_token": f"cart-{number}", "checkout_token": f"checkout-{number}", "created_at": _at(number),
        "processed_at": _at(number), "updated_at": _at(number), "presentment_currency": "EUR",
    }  # fmt: skip
    person = (
        base["customer"] | {"id": 2**55 + customer, "email": f"c{customer}@example.com"}
        if customer is not None
        else None
    )
    base["customer"] = person
    for line in base["line_items"]:
        line["id"] += number * 1_000
        line["quantity"] = line["current_quantity"] = 1 + number % 3
    _in_money(base, 1000 + 37 * number, "CAD" if number % 10 == 7 else "USD")
    told: list[tuple[str, Body]] = [("orders/create", base)]
    paid = base | {"financial_status": "paid", "updated_at": _at(number + random_.choice([0, 0.01, 5]))}
    told += [("orders/paid", paid), ("orders/updated", paid)]
    later = copy.deepcopy(paid) | {"fulfillment_status": "fulfilled", "updated_at": _at(number + 60)}
    later["fulfillments"] = [{"id": number, "status": "success", "created_at": _at(number + 59)}]
    _in_money(later, 1500 + 37 * number, "CAD" if number % 10 == 7 else "USD")  # somebody edited it
    later["line_items"] = later["line_items"][:-1]
    told += [("orders/fulfilled", later), ("orders/updated", later)]
    if number % 3 == 0:
        refund = _sample("refunds/create") | {
            "id": 2**59 + number,
            "order_id": order_id,
            "processed_at": _at(number + 90),
        }
        for one in refund["transactions"]:
            one |= {"currency": "USD", "amount": f"{1 + number}.50"}
        told.append(("refunds/create", refund))
        later = later | {"refunds": [refund], "financial_status": "partially_refunded", "updated_at": _at(number + 91)}
        told.append(("orders/updated", later))
    if number % 7 == 0:
        later = later | {"cancelled_at": _at(number + 100), "updated_at": _at(number + 100)}
        told += [("orders/cancelled", later), ("orders/updated", later)]
    if number % 13 == 0:
        told.append(("orders/delete", {"id": order_id}))
    return [Delivery(topic, body, _lately(), name=f"{number}-{i}-{topic}")
            for i, (topic, body) in enumerate(told)]  # fmt: skip


def _in_money(order: Body, total_minor: int, currency: str) -> None:
    amount = f"{total_minor // 100}.{total_minor % 100:02d}"
    for name in ("total_price", "total_discounts", "total_tax", "total_shipping_price"):
        order[f"{name}_set"] = {
            "shop_money": {"amount": amount if name == "total_price" else "1.00", "currency_code": currency},
            "presentment_money": {"amount": "77.77", "currency_code": "EUR"},
        }


def _customers() -> list[Delivery]:
    told: list[tuple[str, Body]] = []
    for number in range(12):
        made = _sample("customers/create") | {
            "id": 2**55 + number, "email": f"c{number}@example.com", "created_at": _at(number),
            "updated_at": _at(number),
        }  # fmt: skip
        changed = made | {"first_name": f"Name {number}", "updated_at": _at(number + 30)}
        told += [("customers/create", made), ("customers/update", changed)]
        for state_, minutes in (("subscribed", 5), ("unsubscribed", 40 + number), ("subscribed", 10 + 7 * number)):
            consent = {"state": state_, "consent_updated_at": _at(minutes)}
            told.append(
                ("customers_email_marketing_consent/update",
                 {"customer_id": made["id"], "email_marketing_consent": consent})
            )  # fmt: skip
        tags = {"customerId": f"gid://shopify/Customer/{made['id']}", "tags": ["vip", f"t{number}"]}
        told += [
            ("customer.tags_added", tags | {"occurredAt": _at(3)}),
            ("customer.tags_removed", tags | {"tags": ["vip"], "occurredAt": _at(4 if number % 2 else 2)}),
        ]
        cart = _sample("carts/create") | {
            "token": f"cart-{number}",
            "created_at": _at(number),
            "updated_at": _at(number),
        }
        told.append(("carts/create", cart))
        checkout = _sample("checkouts/create") | {
            "token": f"checkout-{number}", "cart_token": f"cart-{number}", "created_at": _at(number),
            "updated_at": _at(number + 1), "completed_at": _at(number + 1) if number % 2 else None,
        }  # fmt: skip
        buyer = checkout["customer"] | {"id": 2**55 + number, "email": f"c{number}@example.com"}
        told += [
            ("checkouts/create", checkout | {"customer": None}),
            ("checkouts/update", checkout | {"customer": buyer}),
        ]
    return [
        Delivery(topic, body, START + timedelta(hours=5), name=f"customer-{i}") for i, (topic, body) in enumerate(told)
    ]


# -- the tests ----------------------------------------------------------------------------------------------------


def ingest_in_order(receiver: Receiver, deliveries: list[Delivery]) -> dict[str, list[Body]]:
    for delivery in deliveries:
        receiver.tell(delivery)
    receiver.drain()
    return receiver.state()


def ingest_twice_in_any_order(receiver: Receiver, deliveries: list[Delivery], seed: int) -> dict[str, list[Body]]:
    """Each as it was and once more, half of them as a new delivery; worked off now and then in between."""
    random_ = random.Random(seed)
    told = deliveries + [one.again() if random_.random() < 0.5 else one for one in deliveries]
    random_.shuffle(told)
    for number, delivery in enumerate(told):
        receiver.tell(delivery)
        if random_.random() < 0.02:
            partition = random_.randrange(PARTITIONS)
            processing.drain(receiver.engine, receiver.shop.id, partition, batch=1 + number % 9)
    receiver.drain()
    return receiver.state()


@needs_contracts
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("corpus", [documented, exemplars, lives])
def test_twice_and_in_any_order_is_as_once_and_in_order(receivers, corpus, seed):
    deliveries = corpus()
    expected = ingest_in_order(receivers(), deliveries)
    found = ingest_twice_in_any_order(receivers(), deliveries, seed)
    assert set(found) == set(expected)
    for table, rows in expected.items():
        different = [pair for pair in zip_longest(rows, found[table]) if pair[0] != pair[1]]
        assert different == [], table


@needs_contracts
def test_the_totals_are_those_of_the_orders(receivers):
    receiver = receivers()
    ingest_twice_in_any_order(receiver, lives(), 7)
    with for_shop(receiver.engine, receiver.shop.id) as session:
        row = session.execute(
            text(
                "SELECT count(*) AS orders, sum(total_minor) AS total, sum(refunded_minor) AS refunded,"
                " count(cancelled_at) AS cancelled, count(*) FILTER (WHERE customer_id IS NULL) AS guests FROM orders"
            )
        ).one()
    ours = [number for number in range(40) if number % 10 != 7]  # the others are in another currency
    refunds = range(0, 40, 3)
    transactions = len(_sample("refunds/create")["transactions"])
    assert (row.orders, row.total) == (36, sum(1500 + 37 * number for number in ours))
    assert row.refunded == sum(transactions * (150 + 100 * number) for number in refunds if number in ours)
    assert row.cancelled == len([number for number in ours if number % 7 == 0 or number % 13 == 0])
    assert row.guests == len([number for number in ours if number % 5 == 4])


@needs_contracts
def test_every_exemplar_without_amounts_is_refused_with_the_reason(receivers):
    receiver = receivers()
    refused = {}
    for delivery in exemplars():
        answer = receiver.tell(delivery)
        if answer["rejected"]:
            refused[delivery.topic] = answer["rejected"][0]
            assert answer["accepted"] == 0
            assert answer["rejected"][0]["reason"]
    priced = ("orders/create", "orders/paid", "refunds/create", "checkouts/create", "carts/update", "products/update")
    for topic in priced:
        assert refused[topic]["code"] in ("mixed_currency", "amount", "field_missing"), refused[topic]
    with for_shop(receiver.engine, receiver.shop.id) as session:
        types = session.execute(text("SELECT DISTINCT type FROM events")).scalars().all()
    assert not any(one.startswith(("order.", "cart.", "checkout.")) for one in types)
