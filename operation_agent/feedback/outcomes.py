"""Events become outcomes of actions: what a provider reports of a message, and the orders that follow one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import CursorResult, text
from sqlalchemy.orm import Session

from operation_agent.events.event import Event
from operation_agent.kit.ids import as_uuid
from operation_agent.store.shops import Shop

from .attribution import WINDOW, Touch, credit, message_kind


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row of `outcomes`. `occurred_at` is shop time, `value_minor` of the shop's currency."""

    action_id: UUID
    event_id: UUID
    kind: str
    customer_id: UUID
    strategy_id: UUID
    occurred_at: datetime
    value_minor: int = 0
    source_order_id: str | None = None


def apply(session: Session, shop: Shop, events: Sequence[Event], people: Mapping[UUID, Any]) -> int:
    """Write the outcomes these events are; returns how many are new or changed. Idempotent.

    Runs after `customers.history.apply`: what an order is now, whose, and by which event it was paid first is read from
    there, so that its outcomes follow it (and `people` is not needed).
    A provider's event belongs to the action it names (or whose `provider_ref` it carries), whoever's address it bears.
    """
    found = _of_messages(session, shop, [event for event in events if message_kind(event.type, event.properties)])
    orders = sorted({str(event.properties["order_id"]) for event in events if event.type in _ORDERS})
    if orders:
        found += _of_orders(session, shop, orders)
        _drop_others(session, shop, orders, found)
    return _write(session, shop, found)


def _of_messages(session: Session, shop: Shop, events: Sequence[Event]) -> list[Outcome]:
    if not events:
        return []
    named = [as_uuid(event.properties.get("action_id")) for event in events]
    refs = [event.properties.get("provider_ref") for event in events]
    rows = session.execute(
        text(
            "SELECT id, customer_id, strategy_id, provider, provider_ref FROM actions"
            " WHERE shop_id = :shop AND id = ANY(CAST(:ids AS uuid[]))"
            " UNION SELECT id, customer_id, strategy_id, provider, provider_ref FROM actions"
            " WHERE shop_id = :shop AND provider = ANY(CAST(:vendors AS text[]))"
            "   AND provider_ref = ANY(CAST(:refs AS text[]))"
        ),
        {
            "shop": shop.id,
            "ids": [name for name in named if name],
            "vendors": sorted({event.source for event in events}),
            "refs": [str(ref) for ref in refs if ref],
        },
    ).all()
    by_id = {row.id: row for row in rows}
    by_ref = {(row.provider, row.provider_ref): row for row in rows if row.provider_ref}
    outcomes = []
    for event, name, ref in zip(events, named, refs, strict=True):
        action = by_id.get(name) or by_ref.get((event.source, ref))
        kind = message_kind(event.type, event.properties)
        if action is not None and kind is not None:
            outcomes.append(
                Outcome(action.id, event.id, kind, action.customer_id, action.strategy_id, event.occurred_at)
            )
    return outcomes


_ORDERS = ("order.paid", "order.updated")


@dataclass(frozen=True, slots=True)
class _Order:
    """An order as it stands: money in minor units, `ordered_at` in shop time."""

    id: UUID
    source_order_id: str
    event_id: UUID
    customer_id: UUID | None
    ordered_at: datetime
    total_minor: int
    discount_minor: int
    codes: Sequence[str]


def _of_orders(session: Session, shop: Shop, names: Sequence[str]) -> list[Outcome]:
    orders = [
        _Order(*row)
        for row in session.execute(
            text(
                "SELECT id, source_order_id, COALESCE(paid_event_id, event_id), customer_id, ordered_at, total_minor,"
                " discount_minor, discount_codes FROM orders"
                " WHERE shop_id = :shop AND source_order_id = ANY(CAST(:names AS text[])) ORDER BY source_order_id"
            ),
            {"shop": shop.id, "names": list(names)},
        )
    ]
    if not orders:
        return []
    window = timedelta(days=shop.settings["attribution_days"]) if "attribution_days" in shop.settings else WINDOW
    coupons = _coupons(session, shop, orders)
    touches = _touches(session, shop, orders, window)
    outcomes, redeemed = [], []
    for order in orders:
        for code in order.codes:
            touch = coupons.get(code.upper())
            if touch is not None:
                redeemed.append((touch.action_id, order))
                outcomes += _outcome(touch, order, "redeemed", order.discount_minor)
        near = touches.get(order.customer_id, ())
        given = credit(order.ordered_at, order.codes, coupons, near, window)
        if given is not None:
            outcomes += _outcome(given.touch, order, "ordered", order.total_minor)
    _redeem(session, shop, redeemed)
    return outcomes


def _outcome(touch: Touch, order: _Order, kind: str, value: int) -> list[Outcome]:
    owner = order.customer_id or touch.customer_id
    if owner is None:
        return []
    return [
        Outcome(
            touch.action_id, order.event_id, kind, owner, touch.strategy_id, order.ordered_at, value,
            order.source_order_id,
        )
    ]  # fmt: skip


def _drop_others(session: Session, shop: Shop, orders: Sequence[str], outcomes: Sequence[Outcome]) -> None:
    """What was written of these orders and is not so any more."""
    stand = [one for one in outcomes if one.source_order_id is not None]
    session.execute(
        text(
            "DELETE FROM outcomes o WHERE o.shop_id = :shop AND o.source_order_id = ANY(CAST(:orders AS text[]))"
            " AND NOT EXISTS (SELECT 1 FROM unnest(CAST(:actions AS uuid[]), CAST(:events AS uuid[]),"
            " CAST(:kinds AS text[])) AS r (action_id, event_id, kind)"
            " WHERE r.action_id = o.action_id AND r.event_id = o.event_id AND r.kind = o.kind)"
        ),
        {
            "shop": shop.id,
            "orders": list(orders),
            "actions": [one.action_id for one in stand],
            "events": [one.event_id for one in stand],
            "kinds": [one.kind for one in stand],
        },
    )


def _coupons(session: Session, shop: Shop, orders: Sequence[_Order]) -> dict[str, Touch]:
    """Our own codes among those the orders carry. Shopify compares codes without regard to case, so do we."""
    codes = sorted({code.upper() for order in orders for code in order.codes})
    if not codes:
        return {}
    rows = session.execute(
        text(
            "SELECT c.code, c.action_id, a.strategy_id, c.issued_at, a.dedupe_key, c.customer_id"
            " FROM coupons c JOIN actions a ON a.shop_id = c.shop_id AND a.id = c.action_id"
            " WHERE c.shop_id = :shop AND upper(c.code) = ANY(CAST(:codes AS text[]))"
        ),
        {"shop": shop.id, "codes": codes},
    )
    return {
        row.code.upper(): Touch(row.action_id, row.strategy_id, row.issued_at, row.dedupe_key, row.customer_id)
        for row in rows
    }


def _touches(
    session: Session, shop: Shop, orders: Sequence[_Order], window: timedelta
) -> dict[UUID | None, list[Touch]]:
    """Messages that reached these customers, or would have: held-out ones count too, so both sides can be compared."""
    rows = session.execute(
        text(
            "SELECT id, customer_id, strategy_id, sent_at, dedupe_key FROM actions"
            " WHERE shop_id = :shop AND customer_id = ANY(CAST(:customers AS uuid[]))"
            "   AND sent_at BETWEEN :since AND :until AND state = 'sent' AND channel <> 'coupon'"
        ),
        {
            "shop": shop.id,
            "customers": sorted({order.customer_id for order in orders if order.customer_id is not None}),
            "since": min(order.ordered_at for order in orders) - window,
            "until": max(order.ordered_at for order in orders),
        },
    )
    touches: dict[UUID | None, list[Touch]] = defaultdict(list)
    for row in rows:
        touches[row.customer_id].append(Touch(row.id, row.strategy_id, row.sent_at, row.dedupe_key))
    return touches


def _redeem(session: Session, shop: Shop, redeemed: Sequence[tuple[UUID, _Order]]) -> None:
    """Mark coupons used; of several orders with one code the earliest stays, whichever is processed first."""
    pairs = sorted(redeemed, key=lambda pair: (pair[0], pair[1].ordered_at, pair[1].source_order_id))
    first = dict(reversed(pairs))
    if not first:
        return
    session.execute(
        text(
            "UPDATE coupons c SET redeemed_at = r.at, redeemed_order_id = r.order_id"
            " FROM unnest(CAST(:actions AS uuid[]), CAST(:orders AS uuid[]), CAST(:at AS timestamptz[]))"
            "   AS r (action_id, order_id, at)"
            " WHERE c.shop_id = :shop AND c.action_id = r.action_id"
            "   AND (c.redeemed_at IS NULL OR c.redeemed_at > r.at)"
        ),
        {
            "shop": shop.id,
            "actions": list(first),
            "orders": [order.id for order in first.values()],
            "at": [order.ordered_at for order in first.values()],
        },
    )


def _write(session: Session, shop: Shop, outcomes: Sequence[Outcome]) -> int:
    if not outcomes:
        return 0
    found = {(row.action_id, row.event_id, row.kind): row for row in outcomes}
    rows = [found[key] for key in sorted(found)]
    written = session.execute(
        text(
            "INSERT INTO outcomes AS o (shop_id, action_id, event_id, kind, customer_id, strategy_id, occurred_at,"
            "  value_minor, source_order_id)"
            " SELECT :shop, r.* FROM unnest(CAST(:actions AS uuid[]), CAST(:events AS uuid[]), CAST(:kinds AS text[]),"
            "   CAST(:customers AS uuid[]), CAST(:strategies AS uuid[]), CAST(:at AS timestamptz[]),"
            "   CAST(:amounts AS bigint[]), CAST(:orders AS text[])) AS r"
            " ON CONFLICT (shop_id, action_id, event_id, kind) DO UPDATE SET customer_id = EXCLUDED.customer_id,"
            "   occurred_at = EXCLUDED.occurred_at, value_minor = EXCLUDED.value_minor,"
            "   source_order_id = EXCLUDED.source_order_id"
            " WHERE EXCLUDED.source_order_id IS NOT NULL"
            "   AND (o.customer_id, o.occurred_at, o.value_minor, o.source_order_id) IS DISTINCT FROM"
            "     (EXCLUDED.customer_id, EXCLUDED.occurred_at, EXCLUDED.value_minor, EXCLUDED.source_order_id)"
        ),
        {
            "shop": shop.id,
            "actions": [row.action_id for row in rows],
            "events": [row.event_id for row in rows],
            "kinds": [row.kind for row in rows],
            "customers": [row.customer_id for row in rows],
            "strategies": [row.strategy_id for row in rows],
            "at": [row.occurred_at for row in rows],
            "amounts": [row.value_minor for row in rows],
            "orders": [row.source_order_id for row in rows],
        },
    )
    return cast("CursorResult[Any]", written).rowcount
