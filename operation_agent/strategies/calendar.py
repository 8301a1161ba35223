"""When scheduled rules and a shop's own jobs come due. Of rules `campaigns.due` makes campaigns; a job is a tick,
written once, and a wake-up in the caller's transaction.

Used by the scheduler, every few seconds, and by whoever moves a sandbox's clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from uuid import UUID
from zoneinfo import available_timezones

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
    ticks.PRIVACY: "45 2 * * *",
    ticks.REFRESH: "50 * * * *",
    ticks.RECONCILE: "10 2 * * *",
}
"""When a shop's own jobs come due, in its time zone. `shop.settings["schedules"]` changes it by topic; null: never."""

_SCHEDULED = text("""
SELECT r.id, r.definition -> 'when' ->> 'schedule' AS expression, s.started_at,
  COALESCE(r.definition -> 'when' ->> 'time_zone', 'shop') = 'customer' AS is_local
FROM rules AS r JOIN strategies AS s ON s.shop_id = r.shop_id AND s.id = r.strategy_id
WHERE r.shop_id = :shop AND r.state = 'live' AND s.state = 'live' AND r.definition -> 'when' ? 'schedule'
ORDER BY r.key
""")


@dataclass(frozen=True, slots=True)
class DueRun:
    """A rule that comes due at an instant (shop time, UTC), for the customers of `zones` (IANA names, the shop's
    standing for who has none); None: for everybody."""

    rule_id: UUID
    due_at: datetime
    zones: frozenset[str] | None = None


def due_runs(session: Session, shop: Shop, *, after: datetime, until: datetime) -> Iterator[DueRun]:
    """Live scheduled rules with each due time t: after < t <= until, and after the strategy started. Shop time.

    A rule by the customers' own clocks comes due once in each time zone that somebody lives in; zones whose clocks show
    the same come due together. Stretches of time that follow each other miss nobody and take nobody twice.
    """
    zones: list[str] | None = None
    for row in session.execute(_SCHEDULED, {"shop": shop.id}).all():
        since = max(after, row.started_at) if row.started_at else after
        if not row.is_local:
            for due_at in recurrence.fire_times(row.expression, shop.time_zone, since, until):
                yield DueRun(row.id, due_at)
            continue
        zones = lived_in(session, shop) if zones is None else zones
        by_instant: dict[datetime, set[str]] = {}
        for zone in zones:
            for due_at in recurrence.fire_times(row.expression, zone, since, until):
                by_instant.setdefault(due_at, set()).add(zone)
        for due_at, there in sorted(by_instant.items()):
            yield DueRun(row.id, due_at, frozenset(there))


# a look-up of each name there is, rather than reading a million customers for the few that are used
_LIVED_IN = text("""
SELECT z.name FROM unnest(CAST(:names AS text[])) AS z (name)
WHERE EXISTS (SELECT 1 FROM customers c WHERE c.shop_id = :shop AND c.time_zone = z.name AND c.merged_into IS NULL)
""")


def lived_in(session: Session, shop: Shop) -> list[str]:
    """The time zones of a shop's customers, and the shop's own."""
    names = session.execute(_LIVED_IN, {"shop": shop.id, "names": sorted(_names())}).scalars()
    return sorted({*names, shop.time_zone})


def zone_of(said: str | None, shop: Shop) -> str:
    """The time zone that somebody is said to live in; the shop's when that is none of the IANA database."""
    return said if said in _names() else shop.time_zone


@cache
def _names() -> frozenset[str]:
    return frozenset(available_timezones())


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
    """The newest due time of the last eight days. Most jobs come every hour or night: two are looked at first."""
    for days in (2, 8):
        found = max(recurrence.fire_times(expression, time_zone, until - timedelta(days=days), until), default=None)
        if found is not None:
            return found
    return None
