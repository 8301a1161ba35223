"""The profit ledger: what each order earned and what was given or taken back for it.

Definitions, all in minor units of the order's currency:
  gross        = what was paid + the discount
  margin       = margin_rate x gross                 (the shop's rate, of the price before discounts)
  discount     = -discount                           (a discount comes out of the margin, whole)
  refund       = -(margin + discount) x share of the payment that was given back
so an order that is refunded in full or cancelled earns nothing, and a part refund takes its share. Message costs
are written by the executor when the provider has the message. Orders of guests have no customer and no rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, cast
from uuid import UUID

from sqlalchemy import CursorResult, text
from sqlalchemy.orm import Session

from operation_agent.events.event import Event
from operation_agent.store.shops import Shop

_TYPES = ("order.paid", "order.updated", "order.refunded", "order.cancelled", "order.deleted")


@dataclass(frozen=True, slots=True)
class Order:
    """An order as paid: amounts in minor units, `ordered_at` in shop time."""

    source_order_id: str
    ordered_at: datetime
    total_minor: int
    discount_minor: int


@dataclass(frozen=True, slots=True)
class Reversal:
    """Money given back; `amount_minor` None means all that was left."""

    source_id: str
    amount_minor: int | None
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Line:
    kind: str
    source_id: str
    amount_minor: int
    occurred_at: datetime


def _whole(amount: Decimal) -> int:
    return int(amount.to_integral_value(ROUND_HALF_EVEN))


def lines(order: Order, reversals: Iterable[Reversal], margin_rate: Decimal) -> list[Line]:
    """The ledger rows of one order; a function of the set of reversals, whatever order they came in.

    Refunds beyond what was paid are cut off, and roundings are taken on the running sum, so that the rows of a
    fully refunded order add up to exactly nothing.
    """
    margin = _whole(margin_rate * (order.total_minor + order.discount_minor))
    rows = [Line("margin", order.source_order_id, margin, order.ordered_at)]
    if order.discount_minor:
        rows.append(Line("discount", order.source_order_id, -order.discount_minor, order.ordered_at))
    earned, share, taken = margin - order.discount_minor, Decimal(0), 0
    for reversal in sorted(reversals, key=lambda item: (item.occurred_at, item.source_id)):
        if reversal.amount_minor is None:
            share = Decimal(1)
        elif order.total_minor:
            share = min(Decimal(1), share + Decimal(reversal.amount_minor) / order.total_minor)
        upto = _whole(earned * share)
        source_id = f"{order.source_order_id}/{reversal.source_id}"
        rows.append(Line("refund", source_id, taken - upto, max(reversal.occurred_at, order.ordered_at)))
        taken = upto
    return rows


def apply(session: Session, shop: Shop, events: Sequence[Event], people: Mapping[UUID, Any]) -> int:
    """Write the ledger rows of the orders these events speak of; returns how many rows are new or changed.

    Runs after `customers.history.apply`: orders, what befell them and whose they are is read from there (so `people`
    is not needed, and a merge that moved an order is followed). Idempotent; a refund that came before its order
    enters the ledger with it.
    """
    names = {str(event.properties["order_id"]) for event in events if event.type in _TYPES}
    return rewrite(session, shop, sorted(names)) if names else 0


_ORDERS = text(
    "SELECT o.source_order_id, o.ordered_at, o.total_minor, o.discount_minor, o.customer_id, o.currency,"
    "  COALESCE(r.sources, '{}') AS sources, COALESCE(r.amounts, '{}') AS amounts, COALESCE(r.at, '{}') AS at"
    " FROM orders o LEFT JOIN LATERAL ("
    "   SELECT array_agg(CASE WHEN change_id = '' THEN kind ELSE change_id END) AS sources,"
    "     array_agg(CASE WHEN kind = 'refunded' THEN amount_minor END) AS amounts, array_agg(occurred_at) AS at"
    "   FROM order_changes WHERE shop_id = o.shop_id AND source_order_id = o.source_order_id) r ON true"
    " WHERE o.shop_id = :shop AND o.source_order_id = ANY(CAST(:names AS text[])) AND o.customer_id IS NOT NULL"
    " ORDER BY o.source_order_id"
)

_WRITE = text(
    "INSERT INTO ledger AS l (shop_id, kind, source_id, customer_id, amount_minor, currency, occurred_at)"
    " SELECT :shop, r.* FROM unnest(CAST(:kinds AS text[]), CAST(:sources AS text[]), CAST(:customers AS uuid[]),"
    "   CAST(:amounts AS bigint[]), CAST(:currencies AS text[]), CAST(:at AS timestamptz[])) AS r"
    " ON CONFLICT (shop_id, kind, source_id) DO UPDATE"
    "   SET customer_id = excluded.customer_id, amount_minor = excluded.amount_minor,"
    "       currency = excluded.currency, occurred_at = excluded.occurred_at"
    "   WHERE (l.customer_id, l.amount_minor, l.currency, l.occurred_at)"
    "     IS DISTINCT FROM (excluded.customer_id, excluded.amount_minor, excluded.currency, excluded.occurred_at)"
)

# an edited order may have lost its discount
_TAKE_BACK = text(
    "DELETE FROM ledger WHERE shop_id = :shop AND kind = 'discount' AND source_id = ANY(CAST(:orders AS text[]))"
)


def rewrite(session: Session, shop: Shop, source_order_ids: Sequence[str]) -> int:
    """Bring the ledger rows of these orders to what `lines` says now; returns how many changed."""
    rows, current = [], []
    for found in session.execute(_ORDERS, {"shop": shop.id, "names": list(source_order_ids)}):
        order = Order(found.source_order_id, found.ordered_at, found.total_minor, found.discount_minor)
        current.append(found.source_order_id)
        reversals = map(Reversal, found.sources, found.amounts, found.at)
        rows += [(found, line) for line in lines(order, reversals, shop.margin_rate)]
    if not rows:
        return 0
    rows.sort(key=lambda row: (row[1].kind, row[1].source_id))  # one order of locks for every writer
    written = session.execute(
        _WRITE,
        {
            "shop": shop.id,
            "kinds": [line.kind for _, line in rows],
            "sources": [line.source_id for _, line in rows],
            "customers": [found.customer_id for found, _ in rows],
            "amounts": [line.amount_minor for _, line in rows],
            "currencies": [found.currency for found, _ in rows],
            "at": [line.occurred_at for _, line in rows],
        },
    )
    with_discount = {line.source_id for _, line in rows if line.kind == "discount"}
    without = [order for order in current if order not in with_discount]
    taken = session.execute(_TAKE_BACK, {"shop": shop.id, "orders": without}) if without else None
    return cast("CursorResult[Any]", written).rowcount + (cast("CursorResult[Any]", taken).rowcount if taken else 0)
