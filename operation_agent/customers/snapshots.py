"""An order as one event tells it, in the form that is written down, and which of several tellings stands. Pure.

The newest stands, by the source's own `updated_at` (the event's moment where it has none); at one instant the digest of
what is said decides, so that the order of arrival never does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

import orjson

from operation_agent.events.event import Event
from operation_agent.kit.ids import digest_id

TYPES = ("order.created", "order.paid", "order.updated")
_TEXTS = ("name", "financial_status", "fulfillment_status", "presentment_currency")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What an order was at `updated_at`. `said` is its content as JSON: money in minor units of its `currency`, and
    `lines`. `customer_at`: of the newest snapshot that named its customer. `paid_at`, `paid_event_id`: when it was paid
    first, and what told so. Instants are shop time, UTC."""

    order_id: str
    updated_at: datetime
    digest: UUID
    event_id: UUID
    said: Mapping[str, Any]
    customer_id: UUID | None = None
    customer_at: datetime | None = None
    paid_at: datetime | None = None
    paid_event_id: UUID | None = None

    @property
    def rank(self) -> tuple[datetime, int, int]:
        return (self.updated_at, self.digest.int, self.event_id.int)


def of_events(told: Iterable[tuple[Event, UUID | None]], currency: str) -> dict[str, list[Snapshot]]:
    """The snapshots of each order in these events (others are passed over), with whose they are; `currency` is the
    shop's, for events that name none. The events of one payload say the same, which is then read once."""
    found: dict[str, list[Snapshot]] = {}
    read: dict[str, tuple[Mapping[str, Any], Mapping[str, Any], UUID]] = {}
    for event, customer_id in told:
        if event.type not in TYPES:
            continue
        order_id = str(event.properties["order_id"])
        known = read.get(order_id)
        if known is None or known[0] != event.properties:
            said = _content(event.properties, currency)
            digest = digest_id(orjson.dumps(said, option=orjson.OPT_SORT_KEYS).decode())
            known = read[order_id] = (event.properties, said, digest)
        found.setdefault(order_id, []).append(_snapshot(event, order_id, customer_id, known[1], known[2]))
    return found


def _snapshot(
    event: Event, order_id: str, customer_id: UUID | None, said: Mapping[str, Any], digest: UUID
) -> Snapshot:  # fmt: skip
    updated_at = _instant(event.properties.get("updated_at")) or event.occurred_at
    is_paid = event.type == "order.paid"
    return Snapshot(
        order_id=order_id,
        updated_at=updated_at,
        digest=digest,
        event_id=event.id,
        said=said,
        customer_id=customer_id,
        customer_at=updated_at if customer_id is not None else None,
        paid_at=event.occurred_at if is_paid else None,
        paid_event_id=event.id if is_paid else None,
    )


def _content(told: Mapping[str, Any], currency: str) -> dict[str, Any]:
    return {
        "currency": told.get("currency") or currency, "total_minor": told["total_minor"],
        "discount_minor": told.get("discount_minor") or 0, "tax_minor": told.get("tax_minor") or 0,
        "shipping_minor": told.get("shipping_minor") or 0, "quantity": told.get("quantity", 1),
        "test": bool(told.get("test")), "discount_codes": list(told.get("discount_codes") or []),
        **{name: told.get(name) for name in _TEXTS}, "lines": _lines(told.get("products") or []),
    }  # fmt: skip


def newest(told: Sequence[Snapshot]) -> Snapshot:
    """What stands of several tellings of one order; its customer is of the newest that names one, and it was paid when
    the first of them says."""
    if len(told) == 1:
        return told[0]
    chosen = max(told, key=lambda one: one.rank)
    named = [(one.customer_at, one.customer_id) for one in told if one.customer_at and one.customer_id]
    customer_at, customer_id = max(named) if named else (None, None)
    paid = [(one.paid_at, one.paid_event_id) for one in told if one.paid_at and one.paid_event_id]
    paid_at, paid_event_id = min(paid) if paid else (None, None)
    return replace(
        chosen, customer_id=customer_id, customer_at=customer_at, paid_at=paid_at, paid_event_id=paid_event_id
    )  # fmt: skip


def _lines(products: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The order's lines, each with an id of its own: the source's, or its place in the order."""
    seen: dict[str, int] = {}
    made = []
    for place, product in enumerate(products, 1):
        told = product.get
        line_id = str(told("line_id") or place)
        seen[line_id] = seen.get(line_id, 0) + 1
        made.append(
            {
                "line_id": line_id if seen[line_id] == 1 else f"{line_id}#{seen[line_id]}",
                "product_id": _text(told("product_id")), "variant_id": _text(told("variant_id")),
                "sku": _text(told("sku")), "title": _text(told("title")), "quantity": told("quantity", 1),
                "current_quantity": told("current_quantity"), "unit_minor": _unit(product),
                "discount_minor": told("discount_minor") or 0,
            }
        )  # fmt: skip
    return made


def _unit(product: Mapping[str, Any]) -> str | None:
    """The price of one in minor units, as decimal text: to a fraction where the source has one."""
    for name in ("unit_minor", "price_minor"):
        if product.get(name) is None:
            continue
        if type(product[name]) is int and abs(product[name]) < 10**14:
            return str(product[name])
        try:
            price = Decimal(str(product[name]))
        except InvalidOperation:
            continue
        if price.is_finite() and abs(price) < 10**14:
            return str(price)
    return None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _instant(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return at.astimezone(UTC) if at.tzinfo is not None else None
