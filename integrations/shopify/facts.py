"""What Shopify says, in one form whether a webhook or an export said it, and the events that follow from it.

Ids are text without the `gid://…` form around them; instants are UTC, whole seconds; money is minor units of the shop's
currency. An event's source id follows from the fact alone, so whatever tells of it again tells of the same event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

SOURCE = "shopify"


@dataclass(frozen=True, slots=True)
class Customer:
    """`email` and `phone` are normalised. `consents`: channel (email, sms) -> (subscribed | unsubscribed, since when);
    a state in between (pending, not yet asked) is left out. `tags` None: not told."""

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

    `paid`: all of it was paid, whatever was given back since. A test order is never paid.
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
