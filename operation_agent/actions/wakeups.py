"""Finding what should have been woken and was not: every wake-up can be made again from the tables.

The broker may lose anything and a worker may die anywhere; what is still to be done stands in the tables. The sweep
calls this every second for each shop, and the API calls it after moving a sandbox's clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.store import outbox, ticks
from operation_agent.store.shops import Shop
from operation_agent.storefront import changes, connection, sync

from . import approving, code_pools, recalling
from .claiming import DUE, TOPIC
from .reconciler import expire_leases
from .states import TERMINAL

PATIENCE = timedelta(seconds=1)
"""How long an ordinary wake-up may take before the sweep rings again."""

JOB_PATIENCE = timedelta(seconds=30)

_DUE_CHANNELS = f"SELECT DISTINCT a.channel {DUE}"
_CAMPAIGN = "campaign:"


def ring_due(session: Session, shop: Shop, *, at: datetime, patience: timedelta = PATIENCE) -> int:
    """Expire leases and ring for all that waits longer than `patience`; how many wake-ups. `at` is system time."""
    expire_leases(session, shop.id, at=at)
    wake_ups = [
        *_events(session, shop, at - patience),
        *_actions(session, shop, at),
        *_doubts(session, shop, at),
        *_journeys(session, shop, at),
        *_answers(session, shop, at),
        *code_pools.due(session, shop, at=at),
        *recalling.due(session, shop.id, at=at),
        *_open_ticks(session, shop, at - JOB_PATIENCE),
        *connection.due(session, shop.id, at=at),
        *sync.due(session, shop.id, at=at),
        *changes.due(session, shop.id, at=at),
    ]
    outbox.ring(session, shop.id, wake_ups, at=at)
    return len(wake_ups)


def _events(session: Session, shop: Shop, before: datetime) -> Iterable[tuple[str, str]]:
    partitions = session.execute(
        text("SELECT DISTINCT partition FROM event_queue WHERE shop_id = :shop AND received_at <= :before"),
        {"shop": shop.id, "before": before},
    ).scalars()
    return [("events.process", str(partition)) for partition in partitions]


def _actions(session: Session, shop: Shop, at: datetime) -> Iterable[tuple[str, str]]:
    channels = session.execute(
        text(_DUE_CHANNELS),
        {"shop": shop.id, "now": at + shop.clock_offset, "at": at, "terminal": list(TERMINAL)},
    ).scalars()
    stopped = connection.stopped_channels(session, shop.id)
    return [(TOPIC, channel) for channel in channels if channel not in stopped]


def _doubts(session: Session, shop: Shop, at: datetime) -> Iterable[tuple[str, str]]:
    is_due = session.execute(
        text("SELECT EXISTS (SELECT 1 FROM actions WHERE shop_id = :shop AND state = 'unknown' AND retry_at <= :at)"),
        {"shop": shop.id, "at": at},
    ).scalar()
    return [("actions.reconcile", "")] if is_due else []


def _answers(session: Session, shop: Shop, at: datetime) -> Iterable[tuple[str, str]]:
    """Approvals that nobody gave in time, or whose actions were left behind."""
    return [("approvals.settle", "")] if approving.has_work(session, shop.id, at=at) else []


_JOURNEYS_DUE = text("""
SELECT EXISTS (SELECT 1 FROM runs WHERE shop_id = :shop AND state = 'waiting' AND due_at <= :now)
  OR EXISTS (SELECT 1 FROM watches WHERE shop_id = :shop AND due_at <= :now)
""")


def _journeys(session: Session, shop: Shop, at: datetime) -> Iterable[tuple[str, str]]:
    """Runs whose wait is over or whose branch is due, goals that were not reached in time."""
    is_due = session.execute(_JOURNEYS_DUE, {"shop": shop.id, "now": at + shop.clock_offset}).scalar_one()
    return [("journeys.advance", "")] if is_due else []


def _open_ticks(session: Session, shop: Shop, before: datetime) -> Iterable[tuple[str, str]]:
    """Jobs that were asked for, published, and never said that they were done."""
    rows = session.execute(
        text(
            "SELECT DISTINCT schedule, due_at FROM schedule_ticks"
            " WHERE shop_id = :shop AND finished_at IS NULL AND taken_at <= :before"
        ),
        {"shop": shop.id, "before": before},
    )
    return {_wake_up(row.schedule, row.due_at) for row in rows}


def _wake_up(schedule: str, due_at: datetime) -> tuple[str, str]:
    if schedule.startswith(_CAMPAIGN):
        return "campaigns.run", "0"  # whichever is at its turn
    if schedule.startswith(ticks.BACKTEST):
        return "backtests.run", schedule.removeprefix(ticks.BACKTEST)
    return schedule, ""
