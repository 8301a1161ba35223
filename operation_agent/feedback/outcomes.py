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


def apply(session: Session, shop: Shop, events: Sequence[Event], people: Mapping[UUID, Any]) -> int:
    """Write the outcomes these events are; returns how many are new. Idempotent.

    Runs after `customers.history.apply`. `people` maps an event's id to its `Resolved` customer, or None.
    A provider's event belongs to the action it names (or whose `provider_ref` it carries), whoever's address it bears.
    """
    found = _of_messages(session, shop, [event for event in events if message_kind(event.type, event.properties)])
    found += _of_orders(session, shop, [event for event in events if event.type == "order.paid"], people)
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


def _of_orders(session: Session, shop: Shop, events: Sequence[Event], people: Mapping[UUID, Any]) -> list[Outcome]:
    if not events:
        return []
    window = timedelta(days=shop.settings["attribution_days"]) if "attribution_days" in shop.settings else WINDOW
    coupons = _coupons(session, shop, events)
    customers = {event.id: person.customer_id for event in events if (person := people.get(event.id)) is not None}
    touches = _touches(session, shop, events, customers, window)
    outcomes, redeemed = [], []
    for event in events:
        codes, customer = event.properties.get("discount_codes") or [], customers.get(event.id)
        for code in codes:
            touch = coupons.get(code.upper())
            if touch is not None:
                redeemed.append((touch.action_id, event))
                value = int(event.properties.get("discount_minor") or 0)
                outcomes += _outcome(touch, event, "redeemed", customer, value)
        given = credit(event.occurred_at, codes, coupons, touches.get(customer, ()), window)
        if given is not None:
            outcomes += _outcome(given.touch, event, "ordered", customer, int(event.properties["total_minor"]))
    _redeem(session, shop, redeemed)
    return outcomes


def _outcome(touch: Touch, event: Event, kind: str, customer: UUID | None, value: int) -> list[Outcome]:
    owner = customer or touch.customer_id
    if owner is None:
        return []
    return [Outcome(touch.action_id, event.id, kind, owner, touch.strategy_id, event.occurred_at, value)]


def _coupons(session: Session, shop: Shop, events: Sequence[Event]) -> dict[str, Touch]:
    """Our own codes among those the orders carry. Shopify compares codes without regard to case, so do we."""
    codes = sorted({code.upper() for event in events for code in event.properties.get("discount_codes") or []})
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
    session: Session, shop: Shop, events: Sequence[Event], customers: Mapping[UUID, UUID], window: timedelta
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
            "customers": sorted(set(customers.values())),
            "since": min(event.occurred_at for event in events) - window,
            "until": max(event.occurred_at for event in events),
        },
    )
    touches: dict[UUID | None, list[Touch]] = defaultdict(list)
    for row in rows:
        touches[row.customer_id].append(Touch(row.id, row.strategy_id, row.sent_at, row.dedupe_key))
    return touches


def _redeem(session: Session, shop: Shop, redeemed: Sequence[tuple[UUID, Event]]) -> None:
    """Mark coupons used; of several orders with one code the earliest stays, whichever is processed first."""
    pairs = sorted(redeemed, key=lambda pair: (pair[0], pair[1].occurred_at, pair[1].source_id))
    first = dict(reversed(pairs))
    if not first:
        return
    session.execute(
        text(
            "UPDATE coupons c SET redeemed_at = r.at, redeemed_order_id = o.id"
            " FROM unnest(CAST(:actions AS uuid[]), CAST(:orders AS text[]), CAST(:at AS timestamptz[]))"
            "   AS r (action_id, source_order_id, at)"
            " LEFT JOIN orders o ON o.shop_id = :shop AND o.source_order_id = r.source_order_id"
            " WHERE c.shop_id = :shop AND c.action_id = r.action_id"
            "   AND (c.redeemed_at IS NULL OR c.redeemed_at > r.at)"
        ),
        {
            "shop": shop.id,
            "actions": list(first),
            "orders": [str(event.properties["order_id"]) for event in first.values()],
            "at": [event.occurred_at for event in first.values()],
        },
    )


def _write(session: Session, shop: Shop, outcomes: Sequence[Outcome]) -> int:
    if not outcomes:
        return 0
    rows = sorted(outcomes, key=lambda row: (row.action_id, row.event_id, row.kind))
    written = session.execute(
        text(
            "INSERT INTO outcomes (shop_id, action_id, event_id, kind, customer_id, strategy_id, occurred_at,"
            "  value_minor)"
            " SELECT :shop, r.* FROM unnest(CAST(:actions AS uuid[]), CAST(:events AS uuid[]), CAST(:kinds AS text[]),"
            "   CAST(:customers AS uuid[]), CAST(:strategies AS uuid[]), CAST(:at AS timestamptz[]),"
            "   CAST(:amounts AS bigint[])) AS r ON CONFLICT DO NOTHING"
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
        },
    )
    return cast("CursorResult[Any]", written).rowcount
