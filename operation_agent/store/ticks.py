"""Work that was asked for once: a cron rule's due time, a clustering, a comparison.

Whoever inserts the row owns it, so two schedulers are harmless. The task that does the work says so in the transaction
of its result; a wake-up that was published and not yet done is therefore still visible as an open tick.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

CLUSTERING = "clustering.fit"
COMPARISON = "effects.compare"
ESTIMATORS = "estimators.fit"
PRIVACY = "privacy.settle"
PROPOSALS = "strategies.propose"
RECONCILE = "storefront.reconcile"
REFRESH = "storefront.refresh"
SEGMENTS = "segments.refresh"
BACKTEST = "backtest:"
"""Before the id of one."""


def take(session: Session, shop_id: UUID, schedule: str, due_at: datetime, *, at: datetime) -> bool:
    """Claim one due time of a schedule; False when it was claimed before. `due_at` is shop time, `at` system time."""
    taken = session.execute(
        text(
            "INSERT INTO schedule_ticks (shop_id, schedule, due_at, taken_at) VALUES (:shop, :schedule, :due, :at)"
            " ON CONFLICT DO NOTHING RETURNING 1"
        ),
        {"shop": shop_id, "schedule": schedule, "due": due_at, "at": at},
    )
    return taken.scalar() is not None


def reopen(session: Session, shop_id: UUID, schedule: str, due_at: datetime, *, at: datetime) -> None:
    """Say that there is work (again) that belongs to a due time (shop time), as of `at` (system time)."""
    session.execute(
        text(
            "INSERT INTO schedule_ticks (shop_id, schedule, due_at, taken_at) VALUES (:shop, :schedule, :due, :at)"
            " ON CONFLICT (shop_id, schedule, due_at) DO UPDATE SET taken_at = excluded.taken_at, finished_at = NULL"
            " WHERE schedule_ticks.finished_at IS NOT NULL"
        ),
        {"shop": shop_id, "schedule": schedule, "due": due_at, "at": at},
    )


def finish(session: Session, shop_id: UUID, schedule: str, *, up_to: datetime, at: datetime) -> int:
    """Close the open ticks of a schedule that were due by `up_to` (shop time) at `at` (system time); how many."""
    closed = session.execute(
        text(
            "UPDATE schedule_ticks SET finished_at = :at"
            " WHERE shop_id = :shop AND schedule = :schedule AND due_at <= :up_to AND finished_at IS NULL RETURNING 1"
        ),
        {"shop": shop_id, "schedule": schedule, "up_to": up_to, "at": at},
    )
    return len(closed.all())


def finish_one(session: Session, shop_id: UUID, schedule: str, due_at: datetime, *, at: datetime) -> bool:
    """Close one tick at `at` (system time); False when it is not open."""
    closed = session.execute(
        text(
            "UPDATE schedule_ticks SET finished_at = :at"
            " WHERE shop_id = :shop AND schedule = :schedule AND due_at = :due AND finished_at IS NULL RETURNING 1"
        ),
        {"shop": shop_id, "schedule": schedule, "due": due_at, "at": at},
    )
    return closed.scalar() is not None


def newest_open(session: Session, shop_id: UUID, schedule: str) -> datetime | None:
    """The latest due time (shop time) of a schedule that is still to be done; None: nothing is."""
    due_at: datetime | None = session.execute(
        text("SELECT max(due_at) FROM schedule_ticks WHERE shop_id = :shop AND schedule = :schedule"
             " AND finished_at IS NULL"),
        {"shop": shop_id, "schedule": schedule},
    ).scalar()  # fmt: skip
    return due_at


def unfinished(session: Session, shop_id: UUID) -> int:
    """How many ticks of a shop are still to be done."""
    return session.execute(
        text("SELECT count(*) FROM schedule_ticks WHERE shop_id = :shop AND finished_at IS NULL"), {"shop": shop_id}
    ).scalar_one()
