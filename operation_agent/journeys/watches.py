"""Goals that were not reached in time: `missed` rules.

One of a rule's events begins a watch; the goal within its time ends it; without that, the customer is decided about as
of the moment at which the time was up. A rule that is not live any more by then asks nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.actions import parking
from operation_agent.decision.facts import Trigger
from operation_agent.events.event import Event
from operation_agent.store.shops import Shop
from operation_agent.strategies.live import LiveRule, live_rules

from .advance import BATCH, settled_until
from .runs import read_event

MISSED = "goal.missed"
_SOURCE = "missed"


def watching_types(session: Session, shop_id: UUID) -> frozenset[str]:
    """The event types that begin a watch of some live rule."""
    return frozenset(name for _, missed in _watching(session, shop_id) for name in missed.events)


def _watching(session: Session, shop_id: UUID) -> list[tuple[LiveRule, Any]]:
    return [(live, live.rule.when.missed) for live in live_rules(session, shop_id) if live.rule.when.missed is not None]


# what is watched already, in a replay, stays as it is
_BEGIN = text("""
INSERT INTO watches (shop_id, rule_id, key, customer_id, goals, began_at, due_at, event)
SELECT :shop, r.rule_id, r.key, r.customer_id, ARRAY(SELECT jsonb_array_elements_text(r.goals)), r.began_at, r.due_at,
  r.event
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (rule_id uuid, key text, customer_id uuid, goals jsonb,
  began_at timestamptz, due_at timestamptz, event jsonb)
ON CONFLICT DO NOTHING
""")

_REACHED = text("""
DELETE FROM watches w WHERE w.shop_id = :shop AND w.customer_id = ANY(CAST(:customers AS uuid[])) AND EXISTS (
  SELECT 1 FROM timeline t WHERE t.shop_id = w.shop_id AND t.customer_id = w.customer_id
    AND t.occurred_at > w.began_at AND t.occurred_at <= w.due_at AND t.type = ANY(w.goals))
""")


def on_events(session: Session, shop: Shop, triggers: Sequence[Trigger], customers: Iterable[UUID]) -> None:
    """Begin the watches that `triggers` (by events, none of them too late) call for; end those whose goal `customers`
    have reached. Call it when the events stand in the timeline, with the customers locked."""
    rows = [
        _row(live.rule_id, missed.goals, missed.within, trigger)
        for live, missed in _watching(session, shop.id)
        for trigger in triggers
        if trigger.type in missed.events and trigger.event is not None
    ]
    if rows:
        rows.sort(key=lambda row: (row["rule_id"], row["key"]))  # two writers meet in one order
        session.execute(_BEGIN, {"shop": shop.id, "rows": orjson.dumps(rows).decode()})
    touched = list(customers)
    if touched:
        session.execute(_REACHED, {"shop": shop.id, "customers": touched})


def _row(rule_id: UUID, goals: Sequence[str], within: timedelta, trigger: Trigger) -> dict[str, Any]:
    event = trigger.event
    assert event is not None
    return {
        "rule_id": rule_id, "key": f"{event.source}/{event.source_id}", "customer_id": trigger.customer_id,
        "goals": goals, "began_at": trigger.at, "due_at": trigger.at + within,
        "event": parking.trigger_row(trigger),
    }  # fmt: skip


# as in advance: under the lock of the customer; those somebody is at come with the next call
_TAKE = text("""
WITH due AS (
  SELECT w.rule_id, w.key, c.random_key FROM watches w
  JOIN customers c ON c.shop_id = w.shop_id AND c.id = w.customer_id
  WHERE w.shop_id = :shop AND w.due_at <= :until ORDER BY w.due_at, w.rule_id, w.key LIMIT :limit
  FOR NO KEY UPDATE OF c SKIP LOCKED FOR UPDATE OF w SKIP LOCKED
)
DELETE FROM watches w USING due WHERE w.shop_id = :shop AND w.rule_id = due.rule_id AND w.key = due.key
RETURNING w.rule_id, w.key, w.customer_id, due.random_key, w.due_at, w.event, EXISTS (
  SELECT 1 FROM timeline t WHERE t.shop_id = w.shop_id AND t.customer_id = w.customer_id
    AND t.occurred_at > w.began_at AND t.occurred_at <= w.due_at AND t.type = ANY(w.goals)) AS is_reached
""")

_ERASED = text("""
DELETE FROM watches w WHERE w.shop_id = :shop AND w.due_at <= :until
  AND NOT EXISTS (SELECT 1 FROM customers c WHERE c.shop_id = w.shop_id AND c.id = w.customer_id)
""")


def due(session: Session, shop: Shop, *, at: datetime, limit: int = BATCH) -> tuple[list[Trigger], int]:
    """Take the watches whose time is up, at most `limit`: the triggers of the goals that were missed, in the order of
    their times, and how many watches were taken. Who takes them decides in this transaction. `at` is system time."""
    until = settled_until(session, shop, at)
    if until is None:
        return [], 0
    rows = session.execute(_TAKE, {"shop": shop.id, "until": until, "limit": limit}).all()
    if len(rows) < limit:
        session.execute(_ERASED, {"shop": shop.id, "until": until})
    missed = [_trigger(row) for row in rows if not row.is_reached]
    missed.sort(key=lambda one: (one.at, one.random_key.int, one.key))
    return missed, len(rows)


def _trigger(row: Any) -> Trigger:
    return Trigger(
        row.customer_id, row.random_key, MISSED, _as_missed(row.event), row.due_at, rule_ids=frozenset({row.rule_id})
    )


def _as_missed(written: Mapping[str, Any]) -> Event:
    """The event that began the watch, under a name of its own: the rules that it set off itself had its name."""
    event = read_event(written)
    assert event is not None
    return Event(
        id=event.id, source=_SOURCE, source_id=f"{event.source}/{event.source_id}", type=event.type,
        occurred_at=event.occurred_at, received_at=event.received_at, identity={}, properties=event.properties,
        name=event.name,
    )  # fmt: skip
