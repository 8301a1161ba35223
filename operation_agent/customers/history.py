"""What events say about customers, written down: timeline, orders, consents, suppressions, profile.

Every statement gives the same rows whatever order the events come in: facts are kept by their own time, the newest
consent stands, and a refund or cancellation waits in `order_changes` for its order. A second processing of the same
events changes nothing.
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

from . import consent
from .identity import Resolved
from .traits import COLUMNS, Profile

Told = tuple[Event, Resolved | None]
"""An event and whose it is."""

_PROFILE = ("customer.identified", "customer.aliased")
_AMOUNT = {"order.paid": "total_minor", "order.refunded": "amount_minor", "checkout.started": "value_minor"}


def amount_property(type: str) -> str:
    """Which property of an event of this type stands in `timeline.amount_minor`."""
    return _AMOUNT.get(type, "price_minor")


def apply(session: Session, shop: Shop, events: Sequence[Event], people: Mapping[UUID, Resolved | None]) -> None:
    """Write what `events` say; `people` is what `identity.resolve` answered for them (by event id).

    A guest's order is kept without a customer; whatever else has no customer leaves no trace but its event.
    """
    told: list[Told] = [(event, people.get(event.id)) for event in events]
    _see(session, shop.id, told)
    _profile(session, shop.id, told)
    _timeline(session, shop.id, told)
    _orders(session, shop, told)
    _order_changes(session, shop.id, told)
    consent.apply(session, shop.id, told)


def _see(session: Session, shop_id: UUID, told: Sequence[Told]) -> None:
    """First and last seen, of customers that were seen earlier or later than the row says."""
    seen: dict[UUID, list[datetime]] = {}
    for event, person in told:
        if person is not None:
            seen.setdefault(person.customer_id, []).append(event.occurred_at)
    if not seen:
        return
    ids = sorted(seen)
    session.execute(
        text(
            "UPDATE customers c SET first_seen_at = LEAST(c.first_seen_at, r.first),"
            " last_seen_at = GREATEST(c.last_seen_at, r.last)"
            " FROM unnest(CAST(:ids AS uuid[]), CAST(:firsts AS timestamptz[]), CAST(:lasts AS timestamptz[]))"
            " AS r (id, first, last) WHERE c.shop_id = :shop_id AND c.id = r.id"
            " AND (r.first < c.first_seen_at OR r.last > c.last_seen_at)"
        ),
        {
            "shop_id": shop_id,
            "ids": ids,
            "firsts": [min(seen[customer_id]) for customer_id in ids],
            "lasts": [max(seen[customer_id]) for customer_id in ids],
        },
    )


def _profile(session: Session, shop_id: UUID, told: Sequence[Told]) -> None:
    sayings = [(event, person) for event, person in told if person and event.type == "customer.identified"]
    if not sayings:
        return
    ids = sorted({person.customer_id for _, person in sayings})
    rows = session.execute(
        text(
            "SELECT id, traits, trait_times FROM customers WHERE shop_id = :shop_id AND id = ANY(CAST(:ids AS uuid[]))"
        ),
        {"shop_id": shop_id, "ids": ids},
    )
    profiles = {row.id: Profile(row.traits, row.trait_times) for row in rows}
    for event, person in sayings:
        profiles[person.customer_id].say(_traits(event), event.occurred_at)
    columns = {name: [profiles[customer_id].column(name) for customer_id in ids] for name in COLUMNS}
    arrays = ", ".join(f"CAST(:{name} AS text[])" for name in COLUMNS)
    session.execute(
        text(
            f"UPDATE customers c SET {', '.join(f'{n} = COALESCE(r.{n}, c.{n})' for n in COLUMNS)},"  # noqa: S608
            " traits = r.traits, trait_times = r.trait_times FROM unnest(CAST(:ids AS uuid[]),"
            f" CAST(:traits AS jsonb[]), CAST(:times AS jsonb[]), {arrays})"
            f" AS r (id, traits, trait_times, {', '.join(COLUMNS)}) WHERE c.shop_id = :shop_id AND c.id = r.id"
        ),
        {
            "shop_id": shop_id,
            "ids": ids,
            "traits": [orjson.dumps(profiles[customer_id].traits).decode() for customer_id in ids],
            "times": [orjson.dumps(profiles[customer_id].times).decode() for customer_id in ids],
            **columns,
        },
    )


def _traits(event: Event) -> dict[str, Any]:
    """What was said, with e-mail and phone as the identity has them: normalised."""
    traits = event.properties.get("traits") or {}
    ids = {kind: event.identity[kind] for kind in ("email", "phone") if kind in traits and event.identity.get(kind)}
    return {**traits, **ids}


def _timeline(session: Session, shop_id: UUID, told: Sequence[Told]) -> None:
    """What customers did: an open that a mail program made by itself says nothing of its reader."""
    rows = [
        (event, person)
        for event, person in told
        if person and event.type not in _PROFILE and not event.properties.get("machine_open")
    ]
    if not rows:
        return
    session.execute(
        text(
            "INSERT INTO timeline (shop_id, customer_id, occurred_at, event_id, type, product_id, amount_minor)"
            " SELECT :shop_id, r.* FROM unnest(CAST(:customers AS uuid[]), CAST(:times AS timestamptz[]),"
            " CAST(:events AS uuid[]), CAST(:types AS text[]), CAST(:products AS text[]), CAST(:amounts AS bigint[]))"
            " AS r ON CONFLICT DO NOTHING"
        ),
        {
            "shop_id": shop_id,
            "customers": [person.customer_id for _, person in rows],
            "times": [event.occurred_at for event, _ in rows],
            "events": [event.id for event, _ in rows],
            "types": [event.type for event, _ in rows],
            "products": [_text(event.properties.get("product_id")) for event, _ in rows],
            "amounts": [event.properties.get(amount_property(event.type)) for event, _ in rows],
        },
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


_UPSERT_ORDERS = text("""
INSERT INTO orders AS o (shop_id, id, source_order_id, customer_id, ordered_at, updated_at, currency, total_minor,
                         discount_minor, quantity, discount_codes, event_id)
SELECT :shop_id, r.id, r.source_order_id, r.customer_id, r.ordered_at, r.updated_at, r.currency, r.total_minor,
       r.discount_minor, r.quantity, ARRAY(SELECT jsonb_array_elements_text(r.codes)), r.event_id
FROM unnest(CAST(:ids AS uuid[]), CAST(:orders AS text[]), CAST(:customers AS uuid[]), CAST(:firsts AS timestamptz[]),
            CAST(:times AS timestamptz[]), CAST(:currencies AS text[]), CAST(:totals AS bigint[]),
            CAST(:discounts AS bigint[]), CAST(:quantities AS integer[]), CAST(:codes AS jsonb[]),
            CAST(:events AS uuid[]))
  AS r (id, source_order_id, customer_id, ordered_at, updated_at, currency, total_minor, discount_minor, quantity,
        codes, event_id)
ORDER BY r.source_order_id
ON CONFLICT (shop_id, source_order_id) DO UPDATE SET
  ordered_at = LEAST(o.ordered_at, EXCLUDED.ordered_at),
  customer_id = CASE WHEN :newer THEN COALESCE(EXCLUDED.customer_id, o.customer_id)
                     ELSE COALESCE(o.customer_id, EXCLUDED.customer_id) END,
  updated_at = CASE WHEN :newer THEN EXCLUDED.updated_at ELSE o.updated_at END,
  currency = CASE WHEN :newer THEN EXCLUDED.currency ELSE o.currency END,
  total_minor = CASE WHEN :newer THEN EXCLUDED.total_minor ELSE o.total_minor END,
  discount_minor = CASE WHEN :newer THEN EXCLUDED.discount_minor ELSE o.discount_minor END,
  quantity = CASE WHEN :newer THEN EXCLUDED.quantity ELSE o.quantity END,
  discount_codes = CASE WHEN :newer THEN EXCLUDED.discount_codes ELSE o.discount_codes END,
  event_id = CASE WHEN :newer THEN EXCLUDED.event_id ELSE o.event_id END
""".replace(
    ":newer",  # what the order says last stands; a tie is settled by content, never by who came first
    "(EXCLUDED.updated_at, EXCLUDED.total_minor, EXCLUDED.discount_minor, EXCLUDED.quantity, EXCLUDED.event_id)"
    " > (o.updated_at, o.total_minor, o.discount_minor, o.quantity, o.event_id)",
))  # fmt: skip


def _orders(session: Session, shop: Shop, told: Sequence[Told]) -> None:
    rows = _newest_of_each_order([(event, person) for event, person in told if event.type == "order.paid"])
    if not rows:
        return
    says = [event.properties for event, _, _ in rows]
    session.execute(
        _UPSERT_ORDERS,
        {
            "shop_id": shop.id,
            "ids": [new_id() for _ in rows],
            "orders": [str(said["order_id"]) for said in says],
            "customers": [customer_id for _, customer_id, _ in rows],
            "firsts": [first for _, _, first in rows],
            "times": [event.occurred_at for event, _, _ in rows],
            "currencies": [said.get("currency") or shop.currency for said in says],
            "totals": [said["total_minor"] for said in says],
            "discounts": [said.get("discount_minor") or 0 for said in says],
            "quantities": [said.get("quantity", 1) for said in says],
            "codes": [orjson.dumps(said.get("discount_codes") or []).decode() for said in says],
            "events": [event.id for event, _, _ in rows],
        },
    )
    _settle(session, shop.id, [str(said["order_id"]) for said in says])


def _newest_of_each_order(paid: Sequence[Told]) -> list[tuple[Event, UUID | None, datetime]]:
    """One row an order, since a statement updates a row once: what was said last, its customer, and first paid when."""
    found: dict[str, list[Told]] = {}
    for event, person in paid:
        found.setdefault(str(event.properties["order_id"]), []).append((event, person))
    rows = []
    for sayings in found.values():
        sayings.sort(key=lambda told: _rank(told[0]), reverse=True)
        customer = next((person.customer_id for _, person in sayings if person), None)
        rows.append((sayings[0][0], customer, min(event.occurred_at for event, _ in sayings)))
    return rows


def _rank(event: Event) -> tuple[Any, ...]:
    said = event.properties
    return (
        event.occurred_at,
        said["total_minor"],
        said.get("discount_minor") or 0,
        said.get("quantity", 1),
        event.id.int,
    )


def _order_changes(session: Session, shop_id: UUID, told: Sequence[Told]) -> None:
    rows: dict[tuple[str, str, str], Event] = {}
    for event, _ in told:
        if event.type in ("order.refunded", "order.cancelled"):
            kind = event.type.removeprefix("order.")
            change = _text(event.properties.get("refund_id")) if kind == "refunded" else ""
            key = (str(event.properties["order_id"]), kind, str(event.id) if change is None else change)
            rows[key] = min(rows.get(key, event), event, key=_first_report)
    if not rows:
        return
    keys = sorted(rows)
    session.execute(
        text(
            "INSERT INTO order_changes AS o"
            " (shop_id, source_order_id, kind, change_id, occurred_at, amount_minor, event_id)"
            " SELECT :shop_id, r.* FROM unnest(CAST(:orders AS text[]), CAST(:kinds AS text[]),"
            " CAST(:changes AS text[]), CAST(:times AS timestamptz[]), CAST(:amounts AS bigint[]),"
            " CAST(:events AS uuid[])) AS r"
            " ON CONFLICT (shop_id, source_order_id, kind, change_id) DO UPDATE SET"
            " occurred_at = EXCLUDED.occurred_at, amount_minor = EXCLUDED.amount_minor, event_id = EXCLUDED.event_id"
            " WHERE (EXCLUDED.occurred_at, EXCLUDED.amount_minor, EXCLUDED.event_id)"
            " < (o.occurred_at, o.amount_minor, o.event_id)"
        ),
        {
            "shop_id": shop_id,
            "orders": [order for order, _, _ in keys],
            "kinds": [kind for _, kind, _ in keys],
            "changes": [change for _, _, change in keys],
            "times": [rows[key].occurred_at for key in keys],
            "amounts": [rows[key].properties.get("amount_minor") or 0 for key in keys],
            "events": [rows[key].id for key in keys],
        },
    )
    _settle(session, shop_id, sorted({order for order, _, _ in keys}))


def _first_report(event: Event) -> tuple[Any, ...]:
    return (event.occurred_at, event.properties.get("amount_minor") or 0, event.id.int)


def _settle(session: Session, shop_id: UUID, orders: Sequence[str]) -> None:
    """Make the orders' refunded amount and cancellation follow from `order_changes`."""
    session.execute(
        text(
            "UPDATE orders o SET refunded_minor = c.refunded_minor, cancelled_at = c.cancelled_at"
            " FROM unnest(CAST(:orders AS text[])) AS r (source_order_id) CROSS JOIN LATERAL ("
            " SELECT COALESCE(sum(x.amount_minor) FILTER (WHERE x.kind = 'refunded'), 0) AS refunded_minor,"
            " min(x.occurred_at) FILTER (WHERE x.kind = 'cancelled') AS cancelled_at FROM order_changes x"
            " WHERE x.shop_id = :shop_id AND x.source_order_id = r.source_order_id HAVING count(*) > 0) AS c"
            " WHERE o.shop_id = :shop_id AND o.source_order_id = r.source_order_id"
        ),
        {"shop_id": shop_id, "orders": list(orders)},
    )
