"""Everything one customer did and what befell them, as one timeline, newest first.

Its parts stand in tables of their own: what they did (`timeline`), carts and checkouts, orders paid and not, what
became of those, and what was sent to them. A page is read from each part's newest rows before a position, so that it
costs the same however long the customer's story is. Carts belong to who has their token among the identities,
checkouts besides to who has their customer's id; a merge moves both with the identities: the story is the survivor's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.events.catalogue import TYPES
from operation_agent.kit.errors import NotFound, Rejected
from operation_agent.store.shops import Shop

from .words import KINDS, LABELS

MOST = 1_000


class Position(NamedTuple):
    """Where a page ended: of the next, every entry comes after it (is older)."""

    at: datetime
    kind: str
    ref: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened. `at` is shop time; `ref` names it within its kind; `amount_minor` is of `currency`, the
    shop's. `labels` are the kind's names, {zh, en}."""

    at: datetime
    kind: str
    ref: str
    labels: Mapping[str, str]
    amount_minor: int | None
    currency: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def position(self) -> Position:
        return Position(self.at, self.kind, self.ref)


def get_customer_behavior(
    session: Session,
    shop: Shop,
    customer_id: UUID,
    *,
    before: datetime | Position | None = None,
    since: datetime | None = None,
    kinds: Collection[str] | None = None,
    limit: int = 100,
) -> list[Entry]:
    """At most `limit` entries, newest first: older than `before`, not older than `since` (shop time), of these `kinds`.

    Of a customer who was merged into another, the other's. Raises NotFound, and Rejected for a kind there is not.
    """
    wanted = frozenset(kinds) if kinds is not None else frozenset(KINDS)
    unknown = sorted(wanted - KINDS)
    if unknown:
        raise Rejected(f"there is no kind {unknown[0]!r}; there are {', '.join(sorted(KINDS))}", where="kinds")
    values = {
        "shop": shop.id,
        "customer": _survivor(session, shop.id, customer_id),
        "types": sorted(wanted & TYPES.keys()),
        "since": since,
        "limit": max(0, min(limit, MOST)),
        **_before(before),
    }
    parts = [part for kind, part in _PARTS.items() if kind in wanted]
    if values["types"]:
        parts.append(_DONE)
    if not parts:
        return []
    rows = session.execute(text(_of(parts)), values).all()
    details = _details(session, shop.id, rows)
    return [
        Entry(row.at, row.kind, row.ref, LABELS[row.kind], row.amount_minor, shop.currency,
              details.get((row.kind, row.ref), row.details))
        for row in rows
    ]  # fmt: skip


def _survivor(session: Session, shop_id: UUID, customer_id: UUID) -> UUID:
    found: UUID | None = session.execute(
        text("SELECT COALESCE(merged_into, id) FROM customers WHERE shop_id = :shop AND id = :id"),
        {"shop": shop_id, "id": customer_id},
    ).scalar_one_or_none()
    if found is None:
        raise NotFound(f"there is no customer {customer_id}")
    return found


def _before(before: datetime | Position | None) -> dict[str, Any]:
    if isinstance(before, datetime):
        before = Position(before, "", "")  # less than every entry of that instant
    at, kind, ref = before or (None, None, None)
    return {"before": at, "before_kind": kind, "before_ref": ref}


# -- the parts ----------------------------------------------------------------------------------------------------
# each: when, of what kind, named how, how much, and details for those that are not looked up for the page

_DONE = """
SELECT t.occurred_at AS at, t.type AS kind, t.event_id::text AS ref, t.amount_minor, '{}'::jsonb AS details
FROM timeline t
WHERE t.shop_id = :shop AND t.customer_id = :customer AND t.type = ANY(CAST(:types AS text[]))
  AND NOT (t.type = 'checkout.started' AND EXISTS (
    SELECT 1 FROM events e JOIN checkouts k ON k.shop_id = :shop AND k.checkout_token = e.properties ->> 'checkout_id'
    WHERE e.shop_id = :shop AND e.id = t.event_id AND k.source_updated_at IS NOT NULL AND k.deleted_at IS NULL))"""

_TOKENS = """
SELECT substr(i.value, 6) FROM identities i
WHERE i.shop_id = :shop AND i.customer_id = :customer AND i.kind = 'anonymous' AND i.value ^@ 'cart:'"""

_CART = f"""
SELECT c.source_updated_at, 'cart', c.cart_token, c.value_minor, jsonb_build_object(
         'cart_token', c.cart_token, 'quantity', c.quantity, 'lines', COALESCE(c.lines, '[]'),
         'is_open', c.quantity > 0 AND NOT EXISTS (
           SELECT 1 FROM checkouts k WHERE k.shop_id = :shop AND k.cart_token = c.cart_token
                                       AND k.completed_at IS NOT NULL))
FROM carts c
WHERE c.shop_id = :shop AND c.source_updated_at IS NOT NULL AND c.deleted_at IS NULL AND c.cart_token IN ({_TOKENS}
  UNION SELECT k.cart_token FROM checkouts k WHERE k.shop_id = :shop AND k.source_customer_id IN (
    SELECT i.value FROM identities i WHERE i.shop_id = :shop AND i.customer_id = :customer AND i.kind = 'shopify'))"""  # noqa: S608

_CHECKOUT = f"""
SELECT COALESCE(k.started_at, k.source_updated_at), 'checkout', k.checkout_token, k.value_minor, jsonb_build_object(
         'checkout_token', k.checkout_token, 'cart_token', k.cart_token, 'quantity', k.quantity,
         'lines', COALESCE(k.lines, '[]'), 'updated_at', k.source_updated_at, 'completed_at', k.completed_at,
         'is_open', k.completed_at IS NULL, 'recovery_url', k.recovery_url)
FROM checkouts k
WHERE k.shop_id = :shop AND k.source_updated_at IS NOT NULL AND k.deleted_at IS NULL AND k.checkout_token IN (
  SELECT o.checkout_token FROM checkouts o WHERE o.shop_id = :shop AND o.cart_token IN ({_TOKENS})
  UNION SELECT o.checkout_token FROM checkouts o WHERE o.shop_id = :shop AND o.source_customer_id IN (
    SELECT i.value FROM identities i WHERE i.shop_id = :shop AND i.customer_id = :customer AND i.kind = 'shopify'))"""  # noqa: S608

_ORDER = """
SELECT o.ordered_at, 'order', o.source_order_id, o.total_minor, jsonb_build_object(
         'order_id', o.source_order_id, 'name', o.name, 'paid', true, 'discount_minor', o.discount_minor,
         'tax_minor', o.tax_minor, 'shipping_minor', o.shipping_minor, 'refunded_minor', o.refunded_minor,
         'quantity', o.quantity, 'discount_codes', o.discount_codes, 'financial_status', o.financial_status,
         'fulfillment_status', o.fulfillment_status, 'presentment_currency', o.presentment_currency,
         'cancelled_at', o.cancelled_at, 'deleted_at', o.deleted_at, 'updated_at', o.updated_at)
FROM orders o WHERE o.shop_id = :shop AND o.customer_id = :customer"""

_UNPAID = """
SELECT o.updated_at, 'unpaid_order', o.source_order_id, (o.snapshot ->> 'total_minor')::bigint,
       o.snapshot || jsonb_build_object('order_id', o.source_order_id, 'paid', false, 'updated_at', o.updated_at)
FROM unpaid_orders o WHERE o.shop_id = :shop AND o.customer_id = :customer"""

_CHANGE = """
SELECT x.occurred_at, '{kind}', x.source_order_id || '/' || x.change_id, {amount}, jsonb_build_object(
         'order_id', x.source_order_id, 'name', o.name {more})
FROM order_changes x JOIN ({orders}) AS o ON o.source_order_id = x.source_order_id
WHERE x.shop_id = :shop AND {those}"""
_HIS = """SELECT source_order_id, name FROM orders WHERE shop_id = :shop AND customer_id = :customer
  UNION ALL SELECT source_order_id, snapshot ->> 'name' FROM unpaid_orders
  WHERE shop_id = :shop AND customer_id = :customer"""


def _change(kind: str, those: str, amount: str = "NULL::bigint", more: str = "") -> str:
    return _CHANGE.format(kind=kind, those=those, amount=amount, more=more, orders=_HIS)


_FULFILLMENT = f"""
SELECT f.source_updated_at, 'fulfillment', f.fulfillment_id, NULL::bigint, jsonb_build_object(
         'order_id', f.source_order_id, 'name', o.name, 'status', f.status, 'shipment_status', f.shipment_status,
         'tracking_company', f.tracking_company, 'tracking_numbers', COALESCE(f.tracking_numbers, '{{}}'))
FROM fulfillments f JOIN ({_HIS}) AS o ON o.source_order_id = f.source_order_id
WHERE f.shop_id = :shop AND f.source_updated_at IS NOT NULL AND f.deleted_at IS NULL"""  # noqa: S608

_MESSAGE = """
SELECT a.sent_at, 'message', a.id::text, NULL::bigint, jsonb_build_object(
         'type', a.type, 'channel', a.channel, 'strategy_id', a.strategy_id, 'rule_id', a.rule_id, 'arm', a.arm)
FROM actions a
WHERE a.shop_id = :shop AND a.customer_id = :customer AND a.state = 'sent' AND NOT a.held_out
  AND a.sent_at IS NOT NULL"""

_PARTS: dict[str, str] = {
    "cart": _CART,
    "checkout": _CHECKOUT,
    "order": _ORDER,
    "unpaid_order": _UNPAID,
    "refund": _change("refund", "x.kind = 'refunded'", "x.amount_minor", ", 'refund_id', x.change_id"),
    "cancellation": _change("cancellation", "x.kind = 'cancelled' AND x.change_id = ''"),
    "deletion": _change("deletion", "x.kind = 'cancelled' AND x.change_id = 'deleted'"),
    "fulfillment": _FULFILLMENT,
    "message": _MESSAGE,
}

_NEWEST = """
(SELECT * FROM ({part}) AS x (at, kind, ref, amount_minor, details)
 WHERE (CAST(:since AS timestamptz) IS NULL OR x.at >= :since)
   AND (CAST(:before AS timestamptz) IS NULL
        OR x.at <= :before AND (x.at, x.kind COLLATE "C", x.ref COLLATE "C") < (:before, :before_kind, :before_ref))
 ORDER BY x.at DESC, x.kind COLLATE "C" DESC, x.ref COLLATE "C" DESC LIMIT :limit)"""


def _of(parts: Sequence[str]) -> str:
    every = " UNION ALL ".join(_NEWEST.format(part=part) for part in parts)
    return f'SELECT * FROM ({every}) AS e ORDER BY at DESC, kind COLLATE "C" DESC, ref COLLATE "C" DESC LIMIT :limit'  # noqa: S608


# -- details of a page --------------------------------------------------------------------------------------------

_EVENTS = text("""
SELECT e.type, e.id::text, e.source, e.name, e.properties FROM events e
WHERE e.shop_id = :shop AND e.id = ANY(CAST(:ids AS uuid[]))
""")
_LINES = text("""
SELECT source_order_id, jsonb_agg(jsonb_build_object(
         'line_id', line_id, 'product_id', product_id, 'variant_id', variant_id, 'sku', sku, 'title', title,
         'quantity', quantity, 'current_quantity', current_quantity, 'unit_minor', unit_minor::text,
         'discount_minor', discount_minor) ORDER BY line_id) AS lines
FROM order_lines WHERE shop_id = :shop AND source_order_id = ANY(CAST(:orders AS text[])) GROUP BY source_order_id
""")


def _details(session: Session, shop_id: UUID, rows: Sequence[Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """What the events of this page say, and what the orders on it consist of."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    events = [row.ref for row in rows if row.kind in TYPES]
    if events:
        for type_, ref, source, name, properties in session.execute(_EVENTS, {"shop": shop_id, "ids": events}):
            said = {"source": source, **({"name": name} if name is not None else {})}
            found[type_, ref] = {**properties, **said}
    orders = {row.ref: row.details for row in rows if row.kind == "order"}
    if orders:
        lines = session.execute(_LINES, {"shop": shop_id, "orders": list(orders)})
        of_order = {row.source_order_id: row.lines for row in lines}
        for order, details in orders.items():
            found["order", order] = {**details, "lines": of_order.get(order, [])}
    return found
