"""Whom a rule that runs by the clock looks at. When it is due, `strategies.calendar` says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.store.shops import Shop
from operation_agent.strategies.live import live_rules

from .facts import SCHEDULE, Trigger

CHUNK = 10_000

_CUSTOMERS = text(
    "SELECT id, random_key FROM customers WHERE shop_id = :shop AND merged_into IS NULL AND first_seen_at <= :at"
    " AND (CAST(:after AS uuid) IS NULL OR random_key > :after) ORDER BY random_key LIMIT :limit"
)


def scheduled_triggers(
    session: Session, shop: Shop, rule_id: UUID, at: datetime, *, chunk: int = CHUNK
) -> Iterator[list[Trigger]]:
    """Every customer there was at `at` (shop time), for one rule, in lists of at most `chunk` by random key.

    Nobody, when the rule is no longer live.
    """
    key = next((live.key for live in live_rules(session, shop.id) if live.rule_id == rule_id), None)
    after, is_more = None, key is not None
    while is_more:
        rows = session.execute(_CUSTOMERS, {"shop": shop.id, "at": at, "after": after, "limit": chunk}).all()
        if rows:
            yield [Trigger(row.id, row.random_key, SCHEDULE, None, at, rule_id=rule_id, rule_key=key) for row in rows]
            after = rows[-1].random_key
        is_more = len(rows) == chunk
