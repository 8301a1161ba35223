"""When scheduled rules come due, and writing that down once: a tick and a wake-up in the caller's transaction.

Used by the scheduler, every minute, and by whoever moves a sandbox's clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.kit.errors import Rejected
from operation_agent.store import outbox, ticks
from operation_agent.store.shops import Shop
from rules import cron

TOPIC = "schedule.run"
JOBS = {ticks.CLUSTERING: "15 3 * * *", ticks.COMPARISON: "5 * * * *"}
"""When a shop's own jobs come due, in its time zone. `shop.settings["schedules"]` changes it by topic; null: never."""
MOST_RUNS = 1000
"""Runs that may come due in one step of a clock."""

_SCHEDULED = text("""
SELECT r.id, r.definition -> 'when' ->> 'schedule' AS expression, s.started_at
FROM rules AS r JOIN strategies AS s ON s.shop_id = r.shop_id AND s.id = r.strategy_id
WHERE r.shop_id = :shop AND r.state = 'live' AND s.state = 'live' AND r.definition -> 'when' ? 'schedule'
ORDER BY r.key
""")


def tick_name(rule_id: UUID) -> str:
    """How a rule's ticks are called in `schedule_ticks.schedule`."""
    return f"rule:{rule_id}"


def wake_up_key(rule_id: UUID, due_at: datetime) -> str:
    """The outbox key of one run; `read_key` is its inverse."""
    return f"{rule_id}@{due_at.isoformat()}"


def read_key(key: str) -> tuple[UUID, datetime]:
    rule_id, _, due_at = key.partition("@")
    return UUID(rule_id), datetime.fromisoformat(due_at)


def finish(session: Session, shop_id: UUID, rule_id: UUID, due_at: datetime, *, at: datetime) -> bool:
    """Close one run, in the transaction of its last decisions; False when it was done before. `at` is system time."""
    return ticks.finish_one(session, shop_id, tick_name(rule_id), due_at, at=at)


def due_runs(session: Session, shop: Shop, *, after: datetime, until: datetime) -> Iterator[tuple[UUID, datetime]]:
    """Live scheduled rules with each due time t: after < t <= until, and after the strategy started. Shop time."""
    for row in session.execute(_SCHEDULED, {"shop": shop.id}).all():
        since = max(after, row.started_at) if row.started_at else after
        for due_at in cron.fire_times(row.expression, shop.time_zone, since, until):
            yield row.id, due_at


def wake(session: Session, shop: Shop, *, after: datetime, until: datetime, at: datetime) -> int:
    """Take every run that came due between two instants of shop time and ring for it; how many were not taken before.

    `at` is system time. Raises Rejected when more than MOST_RUNS came due.
    """
    runs = list(islice(due_runs(session, shop, after=after, until=until), MOST_RUNS + 1))
    if len(runs) > MOST_RUNS:
        raise Rejected(f"more than {MOST_RUNS} scheduled runs come due at once; move the clock in smaller steps")
    taken = [run for run in runs if ticks.take(session, shop.id, tick_name(run[0]), run[1], at=at)]
    outbox.ring(session, shop.id, [(TOPIC, wake_up_key(*run)) for run in taken], at=at)
    return len(taken)


def wake_jobs(session: Session, shop: Shop, *, until: datetime, at: datetime) -> int:
    """Ring for the newest due time of each job by `until` (shop time), unless it was taken; how many were not.

    A week's worth of missed nights is one clustering. `at` is system time.
    """
    return sum(_wake_job(session, shop, topic, until, at) for topic in JOBS)


def _wake_job(session: Session, shop: Shop, topic: str, until: datetime, at: datetime) -> int:
    expression = shop.settings.get("schedules", {}).get(topic, JOBS[topic])
    if expression is None:
        return 0
    due_at = max(cron.fire_times(expression, shop.time_zone, until - timedelta(days=2), until), default=None)
    if due_at is None or not ticks.take(session, shop.id, topic, due_at, at=at):
        return 0
    outbox.ring(session, shop.id, [(topic, "")], at=at)
    return 1
