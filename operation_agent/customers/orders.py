"""Orders, their lines, and what befell them, from events in whatever order they come.

An order has a row once it was paid: of its newest snapshot, whichever event told that. Until then its newest snapshot
waits in `unpaid_orders`; a refund, cancellation or deletion waits in `order_changes`. Guests' orders have no customer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.events.event import Event
from operation_agent.kit.ids import new_id
from operation_agent.store.shops import Shop

from . import snapshots
from .identity import Resolved
from .snapshots import Snapshot

Told = tuple[Event, Resolved | None]

_CHANGES = {
    "order.refunded": ("refunded", None),
    "order.cancelled": ("cancelled", ""),
    "order.deleted": ("cancelled", "deleted"),
}
"""Type -> the kind of change, and the id of the change where an order has only one such."""


def apply(session: Session, shop: Shop, told: Sequence[Told]) -> None:
    """Write what these events say of orders, and make the orders follow."""
    snaps = snapshots.of_events(
        ((event, person.customer_id if person else None) for event, person in told), shop.currency
    )
    changed = _write_changes(session, shop.id, told)
    paid = {order for order, known in snaps.items() if any(one.paid_at for one in known)}
    _take_turns(session, shop.id, paid, _strays(told) - paid)
    if snaps:
        _write_snapshots(session, shop.id, snaps, paid)
    if changed or paid:
        _settle(session, shop.id, sorted(changed | paid))


def known(session: Session, shop_id: UUID, ids: Sequence[str]) -> dict[str, datetime]:
    """Of those of these orders that we have a snapshot of: as of when (the source's `updated_at`), paid or not."""
    rows = session.execute(
        text(
            "SELECT source_order_id, max(updated_at) AS at FROM ("
            " SELECT source_order_id, updated_at FROM orders"
            " WHERE shop_id = :shop AND source_order_id = ANY(CAST(:ids AS text[]))"
            " UNION ALL SELECT source_order_id, updated_at FROM unpaid_orders"
            " WHERE shop_id = :shop AND source_order_id = ANY(CAST(:ids AS text[]))) AS o GROUP BY source_order_id"
        ),
        {"shop": shop_id, "ids": list(ids)},
    )
    return {row.source_order_id: row.at for row in rows}


# -- who may overlook whom ----------------------------------------------------------------------------------------

_KNOWN = "SELECT source_order_id FROM orders WHERE shop_id = :shop AND source_order_id = ANY(CAST(:ids AS text[]))"
_TURN = "SELECT {lock}(hashtextextended('orders:' || :shop, 0))"


def _strays(told: Sequence[Told]) -> set[str]:
    """Orders of which something is told without saying whose they are: another partition may be writing them now."""
    return {
        str(event.properties["order_id"])
        for event, person in told
        if person is None and event.type in ("order.refunded", "order.deleted")
    }


def _take_turns(session: Session, shop_id: UUID, paid: set[str], strays: set[str]) -> None:
    """An order and a refund that are being written at one time would overlook each other, since neither sees the
    other's row. So who has a refund without its order waits for everybody who writes orders, and they for him."""
    if strays:
        strays -= set(session.execute(text(_KNOWN), {"shop": shop_id, "ids": sorted(strays)}).scalars())
    if strays or paid:
        lock = "pg_advisory_xact_lock" if strays else "pg_advisory_xact_lock_shared"
        session.execute(text(_TURN.format(lock=lock)), {"shop": str(shop_id)})


# -- snapshots ----------------------------------------------------------------------------------------------------


def _write_snapshots(session: Session, shop_id: UUID, snaps: Mapping[str, list[Snapshot]], paid: set[str]) -> None:
    others = sorted(snaps.keys() - paid)
    standing: set[str] = set()
    if others:
        locked = text(_KNOWN + " ORDER BY source_order_id FOR NO KEY UPDATE")
        standing = set(session.execute(locked, {"shop": shop_id, "ids": others}).scalars())
    waiting = [snapshots.newest(snaps[order]) for order in others if order not in standing]
    if waiting:
        session.execute(_HOLD, {**_columns(shop_id, waiting), "said": [_json(one.said) for one in waiting]})
    held = _release(session, shop_id, sorted(paid)) if paid else {}
    stand = [snapshots.newest([*snaps[order], *held.get(order, ())]) for order in sorted(paid | standing)]
    if stand:
        _write_orders(session, shop_id, stand)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _columns(shop_id: UUID, rows: Sequence[Snapshot]) -> dict[str, Any]:
    return {
        "shop": shop_id,
        "orders": [one.order_id for one in rows],
        "times": [one.updated_at for one in rows],
        "digests": [one.digest for one in rows],
        "events": [one.event_id for one in rows],
        "customers": [one.customer_id for one in rows],
        "customers_at": [one.customer_at for one in rows],
    }


_NEWER = "(EXCLUDED.updated_at, EXCLUDED.digest, EXCLUDED.event_id) > (o.updated_at, {digest}, o.event_id)"
# a row of an earlier release has none of these
_PAID_BY = "COALESCE(o.paid_event_id, o.event_id)"
_DIGEST = "COALESCE(o.digest, '00000000-0000-0000-0000-000000000000')"
_CUSTOMER = """
  customer_id = CASE WHEN {other} THEN EXCLUDED.customer_id ELSE o.customer_id END,
  customer_at = CASE WHEN {other} THEN EXCLUDED.customer_at ELSE o.customer_at END""".format(
    other="EXCLUDED.customer_id IS NOT NULL AND (o.customer_id IS NULL"
    " OR (EXCLUDED.customer_at, EXCLUDED.customer_id) > (COALESCE(o.customer_at, o.updated_at), o.customer_id))"
)


def _newer(digest: str, *names: str) -> str:
    newer = _NEWER.format(digest=digest)
    return ", ".join(f"{name} = CASE WHEN {newer} THEN EXCLUDED.{name} ELSE o.{name} END" for name in names)


_ARRAYS = """
CAST(:orders AS text[]), CAST(:times AS timestamptz[]), CAST(:digests AS uuid[]), CAST(:events AS uuid[]),
CAST(:customers AS uuid[]), CAST(:customers_at AS timestamptz[])"""
_HOLD = text(f"""
INSERT INTO unpaid_orders AS o
  (shop_id, source_order_id, updated_at, digest, event_id, customer_id, customer_at, snapshot)
SELECT :shop, r.* FROM unnest({_ARRAYS}, CAST(:said AS jsonb[])) AS r
ON CONFLICT (shop_id, source_order_id) DO UPDATE SET {_CUSTOMER},
  {_newer("o.digest", "updated_at", "digest", "event_id", "snapshot")}
""")  # noqa: S608 - our own texts


def _release(session: Session, shop_id: UUID, orders: Sequence[str]) -> dict[str, list[Snapshot]]:
    """The snapshots that waited for these orders to be paid."""
    rows = session.execute(
        text(
            "DELETE FROM unpaid_orders WHERE shop_id = :shop AND source_order_id = ANY(CAST(:orders AS text[]))"
            " RETURNING source_order_id, updated_at, digest, event_id, snapshot, customer_id, customer_at"
        ),
        {"shop": shop_id, "orders": list(orders)},
    )
    return {row.source_order_id: [Snapshot(*row)] for row in rows}


_CONTENT = {
    "currency": "text", "total_minor": "bigint", "discount_minor": "bigint", "tax_minor": "bigint",
    "shipping_minor": "bigint", "quantity": "integer", "name": "text", "financial_status": "text",
    "fulfillment_status": "text", "presentment_currency": "text",
}  # fmt: skip
_UPSERT = text(f"""
INSERT INTO orders AS o (shop_id, id, source_order_id, updated_at, digest, event_id, customer_id, customer_at,
                         ordered_at, paid_event_id, discount_codes, {", ".join(_CONTENT)})
SELECT :shop, r.id, r.source_order_id, r.updated_at, r.digest, r.event_id, r.customer_id, r.customer_at,
       COALESCE(r.paid_at, 'infinity'), r.paid_event_id, ARRAY(SELECT jsonb_array_elements_text(r.codes)),
       {", ".join(_CONTENT)}
FROM unnest({_ARRAYS}, CAST(:ids AS uuid[]), CAST(:paid_at AS timestamptz[]), CAST(:paid_events AS uuid[]),
            CAST(:codes AS jsonb[]),
            {", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in _CONTENT.items())})
  AS r (source_order_id, updated_at, digest, event_id, customer_id, customer_at, id, paid_at, paid_event_id, codes,
        {", ".join(_CONTENT)})
ORDER BY r.source_order_id
ON CONFLICT (shop_id, source_order_id) DO UPDATE SET ordered_at = LEAST(o.ordered_at, EXCLUDED.ordered_at),
  paid_event_id = CASE WHEN (EXCLUDED.ordered_at, EXCLUDED.paid_event_id) < (o.ordered_at, {_PAID_BY})
                       THEN EXCLUDED.paid_event_id ELSE {_PAID_BY} END, {_CUSTOMER},
  {_newer(_DIGEST, "updated_at", "digest", "event_id", "discount_codes", *_CONTENT)}
RETURNING source_order_id, event_id, xmax = 0 AS is_new
""")  # noqa: S608 - our own texts


def _write_orders(session: Session, shop_id: UUID, rows: Sequence[Snapshot]) -> None:
    says = [one.said for one in rows]
    stand = session.execute(
        _UPSERT,
        {
            **_columns(shop_id, rows),
            "ids": [new_id() for _ in rows],
            "paid_at": [one.paid_at for one in rows],
            "paid_events": [one.paid_event_id for one in rows],
            "codes": [_json(said["discount_codes"]) for said in says],
            **{name: [said[name] for said in says] for name in _CONTENT},
        },
    ).all()
    told = {one.event_id for one in rows}
    ours = {row.source_order_id for row in stand if row.event_id in told}
    known = {row.source_order_id for row in stand if not row.is_new}
    _write_lines(session, shop_id, [one for one in rows if one.order_id in ours], known)


# -- lines --------------------------------------------------------------------------------------------------------

_LINE = {
    "line_id": "text", "product_id": "text", "variant_id": "text", "sku": "text", "title": "text",
    "quantity": "integer", "current_quantity": "integer", "unit_minor": "numeric", "discount_minor": "bigint",
}  # fmt: skip
_VALUES = [name for name in _LINE if name != "line_id"]
_INSERT_LINES = text(f"""
INSERT INTO order_lines AS l (shop_id, source_order_id, {", ".join(_LINE)})
SELECT :shop, r.* FROM unnest(CAST(:orders AS text[]),
  {", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in _LINE.items())}) AS r
ON CONFLICT (shop_id, source_order_id, line_id) DO UPDATE SET {", ".join(f"{n} = EXCLUDED.{n}" for n in _VALUES)}
""")  # noqa: S608 - our own texts
_DELETE_LINES = text("""
DELETE FROM order_lines l WHERE l.shop_id = :shop AND l.source_order_id = ANY(CAST(:known AS text[]))
  AND NOT EXISTS (SELECT 1 FROM unnest(CAST(:orders AS text[]), CAST(:line_id AS text[])) AS r (order_id, line_id)
                  WHERE r.order_id = l.source_order_id AND r.line_id = l.line_id)
""")


def _write_lines(session: Session, shop_id: UUID, rows: Sequence[Snapshot], known: set[str]) -> None:
    """Make the lines of these orders those of their snapshots, which stand. `known`: orders that may have lines."""
    lines = [(one.order_id, line) for one in rows for line in one.said["lines"]]
    names = {"shop": shop_id, "orders": [order for order, _ in lines]}
    older = sorted(one.order_id for one in rows if one.order_id in known)
    if older:
        session.execute(_DELETE_LINES, {**names, "known": older, "line_id": [line["line_id"] for _, line in lines]})
    if lines:
        session.execute(_INSERT_LINES, {**names, **{name: [line[name] for _, line in lines] for name in _LINE}})


# -- what befell them ---------------------------------------------------------------------------------------------

_INSERT_CHANGES = text("""
INSERT INTO order_changes AS o (shop_id, source_order_id, kind, change_id, occurred_at, amount_minor, event_id)
SELECT :shop, r.* FROM unnest(CAST(:orders AS text[]), CAST(:kinds AS text[]), CAST(:changes AS text[]),
  CAST(:times AS timestamptz[]), CAST(:amounts AS bigint[]), CAST(:events AS uuid[])) AS r
ON CONFLICT (shop_id, source_order_id, kind, change_id) DO UPDATE SET
  occurred_at = EXCLUDED.occurred_at, amount_minor = EXCLUDED.amount_minor, event_id = EXCLUDED.event_id
WHERE (EXCLUDED.occurred_at, EXCLUDED.amount_minor, EXCLUDED.event_id) < (o.occurred_at, o.amount_minor, o.event_id)
""")


def _write_changes(session: Session, shop_id: UUID, told: Sequence[Told]) -> set[str]:
    """Note the refunds, cancellations and deletions; which orders they befell."""
    rows: dict[tuple[str, str, str], Event] = {}
    for event, _ in told:
        if event.type in _CHANGES:
            kind, change = _CHANGES[event.type]
            if change is None:
                change = str(event.properties.get("refund_id") or event.id)
            key = (str(event.properties["order_id"]), kind, change)
            rows[key] = min(rows.get(key, event), event, key=_first_report)
    if not rows:
        return set()
    keys = sorted(rows)
    session.execute(
        _INSERT_CHANGES,
        {
            "shop": shop_id,
            "orders": [order for order, _, _ in keys],
            "kinds": [kind for _, kind, _ in keys],
            "changes": [change for _, _, change in keys],
            "times": [rows[key].occurred_at for key in keys],
            "amounts": [rows[key].properties.get("amount_minor") or 0 for key in keys],
            "events": [rows[key].id for key in keys],
        },
    )
    return {order for order, _, _ in keys}


def _first_report(event: Event) -> tuple[Any, ...]:
    return (event.occurred_at, event.properties.get("amount_minor") or 0, event.id.int)


_SETTLE = text("""
UPDATE orders o SET refunded_minor = c.refunded_minor, cancelled_at = c.cancelled_at, deleted_at = c.deleted_at
FROM unnest(CAST(:orders AS text[])) AS r (source_order_id) CROSS JOIN LATERAL (
  SELECT COALESCE(sum(x.amount_minor) FILTER (WHERE x.kind = 'refunded'), 0) AS refunded_minor,
         min(x.occurred_at) FILTER (WHERE x.kind = 'cancelled') AS cancelled_at,
         min(x.occurred_at) FILTER (WHERE x.change_id = 'deleted' AND x.kind = 'cancelled') AS deleted_at
  FROM order_changes x WHERE x.shop_id = :shop AND x.source_order_id = r.source_order_id HAVING count(*) > 0) AS c
WHERE o.shop_id = :shop AND o.source_order_id = r.source_order_id
""")


def _settle(session: Session, shop_id: UUID, orders: Sequence[str]) -> None:
    """Make the orders' refunded amount and cancellation follow from `order_changes`."""
    session.execute(_SETTLE, {"shop": shop_id, "orders": list(orders)})
