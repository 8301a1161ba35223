"""From decisions to actions: one row per step of the chosen arm, for the treated and for the held out alike.

The dedupe key is made of what was decided and not of row ids, so a replay plans the same action and finds it there.
Money is reserved for a segment as a whole: a coupon without the message that carries it helps nobody. Where an arm has
to wait or to branch, `plan` goes so far, and a run says where the customer stands; `journeys` plans on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.decision.engine import Decision
from operation_agent.kit.ids import new_id
from operation_agent.store.shops import Shop
from operation_agent.strategies.live import live_rules
from rules import program
from rules.limits import UNLIMITED, ShopLimits, parse_shop
from rules.program import Arm, Delay, Due, Walked
from rules.step import Step

from . import parking, writing
from .parking import Parking
from .segments import Entry, Manner, Segment, entry_key, product_of, trigger_key, zone_of


def plan(session: Session, shop: Shop, decisions: Sequence[Decision], *, created_at: datetime) -> int:
    """Write the first actions of `decisions`, reserve their money, ring for what is due; how many actions are new.

    Who has to wait, or comes to a branch, gets a run. `created_at` is system time. A decision whose money is not there
    any more leaves its actions `over_budget`, and no run.
    """
    acting = [one for one in decisions if one.arm is not None and one.arm.steps]
    if not acting:
        return 0
    manners = _Manners(session, shop)
    zones = _zones(session, shop, acting, manners)
    opened = [_open(shop, one, manners, zones) for one in acting]
    written = writing.write(session, shop, [segment for segment, _ in opened], created_at=created_at)
    stopped = written.refused
    parked = [one for segment, one in opened if one is not None and segment.entry.decision_id not in stopped]
    parking.park(session, shop.id, parked, at=created_at)
    return written.count


class _Manners:
    """How each strategy's messages go out, found once."""

    def __init__(self, session: Session, shop: Shop):
        self._limits = {live.strategy_id: live.strategy.limits for live in live_rules(session, shop.id)}
        self._shop: ShopLimits = parse_shop(shop.settings)
        self._kept: dict[UUID, Manner] = {}

    def of(self, strategy_id: UUID) -> Manner:
        found = self._kept.get(strategy_id)
        if found is None:
            # a strategy that stopped since it decided has no limits of its own any more; the shop's still hold
            limits = self._limits.get(strategy_id, UNLIMITED)
            found = self._kept[strategy_id] = Manner.of(limits, self._shop)
        return found


def _zones(session: Session, shop: Shop, decisions: Iterable[Decision], manners: _Manners) -> Mapping[UUID, str]:
    """The time zones of those customers for whom it matters."""
    asked = {
        one.customer_id
        for one in decisions
        if manners.of(one.strategy_id).quiet is not None or (one.arm is not None and not _is_plain(one.arm))
    }
    if not asked:
        return {}
    rows = session.execute(
        text(
            "SELECT id, time_zone FROM customers WHERE shop_id = :shop AND time_zone IS NOT NULL"
            " AND id = ANY(CAST(:ids AS uuid[]))"
        ),
        {"shop": shop.id, "ids": list(asked)},
    )
    return {row.id: zone_of(row.time_zone, shop.time_zone) for row in rows}


def _is_plain(arm: Arm) -> bool:
    """Whether every step is due a fixed time after the decision."""
    return all(isinstance(step, Step) or (isinstance(step, Delay) and step.span is not None) for step in arm.steps)


@dataclass(frozen=True, slots=True)
class _Course:
    """The actions of a plain arm, with how long after the decision each is due."""

    steps: tuple[tuple[Due, timedelta], ...]

    def at(self, moment: datetime) -> tuple[Due, ...]:
        return tuple(replace(due, due_at=moment + offset) for due, offset in self.steps)


_COURSES: dict[int, tuple[Arm, _Course | None]] = {}
_MOST_COURSES = 4096


def _course(arm: Arm) -> _Course | None:
    """Of a plain arm; kept as long as the arm is, which is as long as its rule's version is live."""
    kept = _COURSES.get(id(arm))
    if kept is not None and kept[0] is arm:
        return kept[1]
    found = None
    if _is_plain(arm):
        start = datetime.min.replace(year=2000, tzinfo=_UTC)
        walked = program.walk(arm, program.START, start, "UTC", {})
        found = _Course(tuple((due, due.due_at - start) for due in walked.due))
    if len(_COURSES) >= _MOST_COURSES:
        _COURSES.clear()
    _COURSES[id(arm)] = (arm, found)
    return found
