"""Campaigns that the calendar calls for: scheduled rules that come due at the same instant are one campaign.

Used by the scheduler every few seconds and by whoever moves a sandbox's clock. The campaign's row decides who made it,
so a second scheduler is harmless.
"""

from __future__ import annotations

from datetime import datetime
from itertools import islice

from sqlalchemy.orm import Session

from operation_agent.kit.errors import Rejected
from operation_agent.store import outbox
from operation_agent.store.shops import Shop
from operation_agent.strategies import calendar

from . import records
from .records import FIRST_LANE, TOPIC, Asked

MOST_RUNS = 1000
"""Runs of rules that may come due in one step of a clock."""


def wake(session: Session, shop: Shop, *, after: datetime, until: datetime, at: datetime) -> int:
    """Make the campaigns of all rules that came due between two instants of shop time; how many runs of rules are new.

    `at` is system time. Raises Rejected when more than MOST_RUNS came due.
    """
    runs = list(islice(calendar.due_runs(session, shop, after=after, until=until), MOST_RUNS + 1))
    if len(runs) > MOST_RUNS:
        raise Rejected(f"more than {MOST_RUNS} scheduled runs come due at once; move the clock in smaller steps")
    by_instant: dict[datetime, list[Asked]] = {}
    for run in runs:
        zones = None if run.zones is None else tuple(sorted(run.zones))
        by_instant.setdefault(run.due_at, []).append(Asked(run.rule_id, zones=zones))
    new = 0
    for due_at, rules in sorted(by_instant.items()):
        made = records.insert(
            session, shop.id, kind="cron", rules=rules, audience={}, as_of=due_at, due_at=due_at, by="schedule", at=at
        )
        new += len(rules) if made is not None else 0
    if new:
        outbox.ring(session, shop.id, [(TOPIC, FIRST_LANE)], at=at)
    return new
