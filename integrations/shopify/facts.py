"""What Shopify says, in one form whether a webhook or an export said it, and the events that follow from it.

Ids are text without the `gid://…` form around them; instants are UTC, whole seconds; money is minor units of the shop's
currency. An event's source id follows from the fact alone, so whatever tells of it again tells of the same event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from operation_agent.events.event import Event
from operation_agent.kit.ids import digest, new_id
from operation_agent.storefront import records
from operation_agent.storefront.records import Telling

SOURCE = "shopify"
PAID = frozenset({"paid", "partially_refunded", "refunded"})
"""Financial states (REST's words) of an order that was paid in full, whatever was given back since."""


@dataclass(frozen=True, slots=True)
class Customer:
    """`email` and `phone` are normalised. `consents`: channel (email, sms) -> (subscribed | unsubscribed, since when);
    a state in between (pending, not yet asked) is left out. `tags` None: not told. `updated_at` None: only what the
    consents say is told, and nothing of the profile.

    Names of traits: first_name, last_name, locale, country (ISO 3166), state (enabled, disabled, invited, declined),
    verified_email, tax_exempt, created_at (ISO 8601). A value of None is known to be empty.
    """

    customer_id: str
    updated_at: datetime | None = None
    email: str | None = None
    phone: str | None = None
    traits: Mapping[str, Any] = field(default_factory=dict)
    consents: Mapping[str, tuple[str, datetime]] = field(default_factory=dict)
    tags: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Line:
    line_id: str
    quantity: int
    product_id: str | None = None
    variant_id: str | None = None
    sku: str | None = None
    title: str | None = None
    current_quantity: int | None = None
    price_minor: int = 0
    discount_minor: int = 0


@dataclass(frozen=True, slots=True)
class Refund:
    refund_id: str
    order_id: str
    amount_minor: int
    refunded_at: datetime


@dataclass(frozen=True, slots=True)
class Order:
    """An order as of `updated_at`. `total_minor` is what was to be paid, before anything was given back.

    `ordered_at` is when the buyer placed it (`processed_at`), `created_at` when the shop wrote it down: later for an
    imported one; None: the same. `paid`: all of it was paid, whatever was given back since. A test order is never paid.
    The states are REST's words in lower case, `fulfillment_status` None where nothing was fulfilled.
    """

    order_id: str
    updated_at: datetime
    ordered_at: datetime
    total_minor: int
    discount_minor: int
    currency: str
    paid: bool
    customer: Customer | None = None
    name: str | None = None
    tax_minor: int = 0
    shipping_minor: int = 0
    presentment_currency: str | None = None
    financial_status: str | None = None
    fulfillment_status: str | None = None
    test: bool = False
    cancelled_at: datetime | None = None
    fulfilled_at: datetime | None = None
    cart_token: str | None = None
    checkout_token: str | None = None
    source_name: str | None = None
    discount_codes: tuple[str, ...] = ()
    lines: Sequence[Line] = ()
    refunds: Sequence[Refund] = ()
    created_at: datetime | None = None


def at_second(at: datetime) -> str:
    """An instant as it stands in source ids and properties: ISO 8601, UTC, whole seconds."""
    return at.astimezone(UTC).isoformat(timespec="seconds")[:19] + "Z"


def order_events(
    order: Order, *, received_at: datetime, is_update: bool, delivery: tuple[str, ...] = ()
) -> list[Event]:
    """What an order says of itself: created, paid, cancelled, fulfilled, each refund; and with `is_update` that this is
    how it stands now. `order.paid` is told once, with the snapshot that came first: whatever may not be the first one
    needs an update too. Of a test order only the last, unpaid. `received_at` is system time, `delivery` as in Event.
    """
    told = _Telling(received_at, order_identity(order), delivery)
    snapshot = order_properties(order)
    stands = told.event(
        f"order.updated:{order.order_id}@{snapshot['updated_at']}:{_content(snapshot, told.identity)}",
        "order.updated",
        order.updated_at,
        snapshot,
    )
    if order.test:
        return [stands]
    events = [
        told.event(f"order.created:{order.order_id}", "order.created", order.created_at or order.ordered_at, snapshot)
    ]
    if order.paid:
        events.append(told.event(f"order.paid:{order.order_id}", "order.paid", order.ordered_at, snapshot))
    if is_update:
        events.append(stands)
    for type_, at in (("order.cancelled", order.cancelled_at), ("order.fulfilled", order.fulfilled_at)):
        if at is not None:
            events.append(told.event(f"{type_}:{order.order_id}", type_, at, {"order_id": order.order_id}))
    return events + [
        refund_event(refund, order.currency, received_at=received_at, delivery=delivery)
        for refund in order.refunds
        if refund.amount_minor
    ]


def refund_event(refund: Refund, currency: str, *, received_at: datetime, delivery: tuple[str, ...] = ()) -> Event:
    """Money that went back. It names nobody: its order does."""
    return _Telling(received_at, {}, delivery).event(
        f"order.refunded:{refund.refund_id}",
        "order.refunded",
        refund.refunded_at,
        {
            "order_id": refund.order_id, "refund_id": refund.refund_id, "amount_minor": refund.amount_minor,
            "currency": currency,
        },
    )  # fmt: skip


def customer_events(customer: Customer, *, received_at: datetime, delivery: tuple[str, ...] = ()) -> list[Event]:
    """Who a customer is (unless `updated_at` is None), and each consent given or withdrawn. `received_at` is system
    time."""
    events = []
    if customer.updated_at is not None:
        properties: dict[str, Any] = {"traits": dict(customer.traits) | _contact(customer)}
        if customer.tags is not None:
            properties["tags"] = sorted(customer.tags)
        identified = _Telling(received_at, customer_identity(customer), delivery)
        said = _content(properties, identified.identity)
        source_id = f"customer:{customer.customer_id}@{at_second(customer.updated_at)}:{said}"
        events.append(identified.event(source_id, "customer.identified", customer.updated_at, properties))
    told = _Telling(received_at, {"shopify": customer.customer_id}, delivery)
    for channel, (state, since) in sorted(customer.consents.items()):
        source_id = f"consent:{customer.customer_id}:{channel}@{at_second(since)}:{state}"
        properties = {"channel": channel, "topic": "marketing", "state": state}
        events.append(told.event(source_id, "consent.changed", since, properties))
    return events


def tellings_event(
    tellings: Sequence[Telling], *, received_at: datetime, occurred_at: datetime, delivery: tuple[str, ...] = ()
) -> Event:
    """What the shop's own things are now. `occurred_at` is shop time, `received_at` system time."""
    written = records.to_json(tellings)
    return _Telling(received_at, {}, delivery).event(
        f"storefront:{_content(written)}", "storefront.changed", occurred_at, {"tellings": written}
    )


def customer_identity(customer: Customer) -> dict[str, str]:
    return {"shopify": customer.customer_id, **_contact(customer)}


def order_identity(order: Order) -> dict[str, str]:
    """Its customer's, and the cart it was. An order without a customer is a guest's, whatever address stands on it."""
    if order.customer is None:
        return {}
    identity = customer_identity(order.customer)
    if order.cart_token:
        identity["anonymous"] = f"cart:{order.cart_token}"
    return identity


def order_properties(order: Order) -> dict[str, Any]:
    """The snapshot in every `order.created`, `order.paid` and `order.updated`. Money in minor units of `currency`."""
    return {
        "order_id": order.order_id,
        "name": order.name,
        "total_minor": order.total_minor,
        "discount_minor": order.discount_minor,
        "tax_minor": order.tax_minor,
        "shipping_minor": order.shipping_minor,
        "currency": order.currency,
        "presentment_currency": order.presentment_currency,
        "quantity": max(1, sum(line.quantity for line in order.lines)),
        "discount_codes": list(order.discount_codes),
        "products": [_product(line) for line in order.lines],
        "paid": order.paid and not order.test,
        "test": order.test,
        "financial_status": order.financial_status,
        "fulfillment_status": order.fulfillment_status,
        "updated_at": at_second(order.updated_at),
        "ordered_at": at_second(order.ordered_at),
        "cancelled_at": at_second(order.cancelled_at) if order.cancelled_at else None,
        "cart_token": order.cart_token,
        "checkout_token": order.checkout_token,
        "source_name": order.source_name,
    }


def _content(*said: Any) -> str:
    """A digest, in the source id of what stands at a moment: two changes may fall into one second, and neither is lost
    whichever comes first."""
    return digest(orjson.dumps(said, option=orjson.OPT_SORT_KEYS).decode()).hex()


def _product(line: Line) -> dict[str, Any]:
    return {
        "line_id": line.line_id,
        "product_id": line.product_id,
        "variant_id": line.variant_id,
        "sku": line.sku,
        "title": line.title,
        "quantity": line.quantity,
        "current_quantity": line.current_quantity,
        "price_minor": line.price_minor,
        "discount_minor": line.discount_minor,
    }


def _contact(customer: Customer) -> dict[str, str]:
    told = {"email": customer.email, "phone": customer.phone}
    return {name: value for name, value in told.items() if value}


@dataclass(frozen=True, slots=True)
class _Telling:
    """What the events of one telling have in common."""

    received_at: datetime
    identity: dict[str, str]
    delivery: tuple[str, ...] = ()

    def event(self, source_id: str, type_: str, occurred_at: datetime, properties: dict[str, Any]) -> Event:
        return Event(
            id=new_id(),
            source=SOURCE,
            source_id=source_id,
            type=type_,
            occurred_at=occurred_at,
            received_at=self.received_at,
            identity=self.identity,
            properties=properties,
            delivery=self.delivery,
        )
