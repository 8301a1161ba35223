"""What the scheduler's ticks do, each callable by itself: write rows and wake-ups, nothing else."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from operation_agent.actions import wakeups
from operation_agent.campaigns import consenting, due
from operation_agent.kit.clock import SYSTEM, Clock
from operation_agent.kit.errors import Rejected
from operation_agent.kit.logging import logger
from operation_agent.privacy import requests as privacy
from operation_agent.store import ticks
from operation_agent.store.session import for_shop, for_system
from operation_agent.store.shops import Shop, list_shops
from operation_agent.strategies import calendar

log = logger(__name__)

_CALENDAR = "calendar"  # the tick up to whose due time the scheduled rules have been looked at
_FARTHEST = timedelta(days=31)
_KEPT = timedelta(days=90)


def shops(engine: Engine) -> list[Shop]:
    with for_system(engine) as session:
        return list_shops(session)


def sweep(engine: Engine, *, clock: Clock = SYSTEM) -> int:
    """Make every lost wake-up again, for every shop; how many were rung. One shop's trouble is not another's."""
    rung = 0
    for shop in shops(engine):
        try:
            with for_shop(engine, shop.id) as session:
                at = clock.now()
                rung += wakeups.ring_due(session, shop, at=at)
                rung += privacy.ring_open(session, shop.id, before=at - wakeups.JOB_PATIENCE, at=at)
        except Exception as error:
            log.error("sweep_failed", shop=shop.slug, exc_info=error)
    return rung


def take_ticks(engine: Engine, *, clock: Clock = SYSTEM) -> int:
    """Whatever came due by now in any shop: cron rules, clustering, comparison. Returns how many ticks were new."""
    taken = 0
    for shop in shops(engine):
        try:
            with for_shop(engine, shop.id) as session:
                taken += due_ticks(session, shop, at=clock.now())
        except Exception as error:
            log.error("ticks_failed", shop=shop.slug, exc_info=error)
    return taken


def due_ticks(session: Session, shop: Shop, *, at: datetime) -> int:
    now = at + shop.clock_offset
    consenting.settle(session, shop, at=at)
    return _rules(session, shop, now, at) + calendar.wake_jobs(session, shop, until=now, at=at)


def _rules(session: Session, shop: Shop, now: datetime, at: datetime) -> int:
    last = session.execute(
        text("SELECT max(due_at) FROM schedule_ticks WHERE shop_id = :shop AND schedule = :name"),
        {"shop": shop.id, "name": _CALENDAR},
    ).scalar()
    after = max(last, now - _FARTHEST) if last else now - _FARTHEST
    if after >= now:
        return 0
    taken = _wake_in_steps(session, shop, after, now, at)
    if ticks.take(session, shop.id, _CALENDAR, now, at=at):
        ticks.finish(session, shop.id, _CALENDAR, up_to=now, at=at)
        session.execute(
            text("DELETE FROM schedule_ticks WHERE shop_id = :shop AND schedule = :name AND due_at < :now"),
            {"shop": shop.id, "name": _CALENDAR, "now": now},
        )
    return taken


def _wake_in_steps(session: Session, shop: Shop, after: datetime, until: datetime, at: datetime) -> int:
    """The calendar refuses too many runs at once: then the first half, then the second."""
    try:
        return due.wake(session, shop, after=after, until=until, at=at)
    except Rejected:
        half = after + (until - after) / 2
        if until - after < timedelta(hours=1):
            raise
        return _wake_in_steps(session, shop, after, half, at) + _wake_in_steps(session, shop, half, until, at)


def make_partitions(engine: Engine, *, clock: Clock = SYSTEM) -> None:
    """This month's and the next two months' partitions of events and decisions; and old ticks go."""
    month = clock.now().date().replace(day=1)
    with for_system(engine) as session:
        for _ in range(3):
            for parent in ("events", "decisions"):
                session.execute(text("SELECT ensure_partition(:parent, :month)"), {"parent": parent, "month": month})
            month = (month + timedelta(days=32)).replace(day=1)
        session.execute(text("DELETE FROM schedule_ticks WHERE finished_at < :before"), {"before": clock.now() - _KEPT})
