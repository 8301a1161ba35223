"""An invoice of Online Retail as the event it is: an order, a refund, or an adjustment that counts as no sale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from operation_agent.kit.ids import new_id

from .event import PAST, Event
from .order_rows import SOURCE

NAME = "online-retail"
CURRENCY = "GBP"
PENCE = Decimal(100)


@dataclass(frozen=True, slots=True)
class Line:
    stock_code: str
    title: str | None
    quantity: int
    price: Decimal

    @property
    def minor(self) -> Decimal:
        """Pence, exactly."""
        return self.quantity * self.price * PENCE


@dataclass(slots=True)
class Invoice:
    number: str
    at: datetime | None = None
    customer: str | None = None
    country: str | None = None
    lines: list[Line] = field(default_factory=list)


def _event(
    invoice: Invoice, source_id: str, type: str, lines: Sequence[Line], received_at: datetime, *,
    sign: int = 1, name: str | None = None, **said: Any,
) -> tuple[Event, int]:  # fmt: skip
    assert invoice.at is not None
    properties = {
        "invoice": invoice.number,
        "currency": CURRENCY,
        "country": invoice.country,
        "products": [_product(number, line, sign) for number, line in enumerate(lines, 1)],
        **said,
    }
    identity = {"external": invoice.customer} if invoice.customer else {}
    event = Event(
        new_id(), SOURCE, f"{NAME}:{source_id}", type, invoice.at, received_at, identity, properties, {PAST: True}, name
    )
    return event, len(lines)


def order(invoice: Invoice, sold: Sequence[Line], received_at: datetime) -> tuple[Event, int]:
    """The event, and how many rows of the file it stands for; so the others."""
    return _event(
        invoice, f"invoice:{invoice.number}", "order.paid", sold, received_at,
        order_id=invoice.number,
        total_minor=_whole(sum((line.minor for line in sold), Decimal(0))),
        discount_minor=0,
        quantity=sum(line.quantity for line in sold),
        discount_codes=[],
    )  # fmt: skip


def refund(invoice: Invoice, order: str, lines: Sequence[Line], received_at: datetime) -> tuple[Event, int]:
    return _event(
        invoice, f"refund:{invoice.number}:{order}", "order.refunded", lines, received_at, sign=-1,
        order_id=order,
        refund_id=invoice.number,
        amount_minor=_whole(-sum((line.minor for line in lines), Decimal(0))),
    )  # fmt: skip


def adjustment(invoice: Invoice, name: str, lines: Sequence[Line], received_at: datetime) -> tuple[Event, int]:
    return _event(invoice, f"{name}:{invoice.number}", "custom", lines, received_at, name=name)


def _product(number: int, line: Line, sign: int) -> dict[str, Any]:
    unit = line.price * PENCE
    titled = {"title": line.title} if line.title else {}
    return {
        "line_id": str(number),
        "product_id": line.stock_code,
        "sku": line.stock_code,
        **titled,
        "quantity": sign * line.quantity,
        "price_minor": _whole(unit),
        "unit_minor": format(unit.normalize(), "f"),
    }


def _whole(minor: Decimal) -> int:
    return int(minor.to_integral_value(ROUND_HALF_EVEN))
