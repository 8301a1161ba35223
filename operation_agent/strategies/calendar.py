"""When scheduled rules and a shop's own jobs come due. Of rules `campaigns.due` makes campaigns; a job is a tick,
written once, and a wake-up in the caller's transaction.

Used by the scheduler, every few seconds, and by whoever moves a sandbox's clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.store import outbox, ticks
from operation_agent.store.shops import Shop
from rules import recurrence

JOBS = {
    ticks.CLUSTERING: "15 3 * * *",
    ticks.COMPARISON: "5 * * * *",
    ticks.SEGMENTS: "20 * * * *",
    ticks.ESTIMATORS: "35 4 * * 1",
    ticks.PROPOSALS: "5 5 * * 1",
}
"""When a shop's own jobs come due, in its time zone. `shop.settings["schedules"]` changes it by topic; null: never."""

_SCHEDULED = text("""
SELECT r.id, r.definition -> 'when' ->> 'schedule' AS expression, s.started_at
FROM rules AS r JOIN strategies AS s ON s.shop_id = r.shop_id AND s.id = r.strategy_id
WHERE r.shop_id = :shop AND r.state = 'live' AND s.state = 'live' AND r.definition -> 'when' ? 'schedule'
ORDER BY r.key
""")


def due_runs(session: Session, shop: Shop, *, after: datetime, until: datetime) -> Iterator[tuple[UUID, datetime]]:
    """Live scheduled rules with each due time t: after < t <= until, and after the strategy started. Shop time."""
    for row in session.execute(_SCHEDULED, {"shop": shop.id}).all():
        since = max(after, row.started_at) if row.started_at else after
        for due_at in recurrence.fire_times(row.expression, shop.time_zone, since, until):
            yield row.id, due_at


def wake_jobs(session: Session, shop: Shop, *, until: datetime, at: datetime) -> int:
    """Ring for the newest due time of each job by `until` (shop time), unless it was taken; how many were not.

    A week's worth of missed nights is one clustering. `at` is system time.
    """
    return sum(_wake_job(session, shop, topic, until, at) for topic in JOBS)


def _wake_job(session: Session, shop: Shop, topic: str, until: datetime, at: datetime) -> int:
    expression = shop.settings.get("schedules", {}).get(topic, JOBS[topic])
    if expression is None:
        return 0
    due_at = _newest(expression, shop.time_zone, until)
    if due_at is None or not ticks.take(session, shop.id, topic, due_at, at=at):
        return 0
    outbox.ring(session, shop.id, [(topic, "")], at=at)
    return 1


def _newest(expression: str, time_zone: str, until: datetime) -> datetime | None:
    """The newest due time of the last eight days; most come every hour or night, so the last two are looked at first."""
    for days in (2, 8):
        found = max(recurrence.fire_times(expression, time_zone, until - timedelta(days=days), until), default=None)
        if found is not None:
            return found
    return None
