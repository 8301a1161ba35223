"""From decisions to actions: one row per step of the chosen arm, for the treated and for the held out alike.

Where an arm has to wait or to branch, `plan` goes so far, and a run says where the customer stands; `journeys` plans on
from there. Arms that only wait for time are planned whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.orm import Session

from operation_agent.decision.engine import Decision
from operation_agent.kit.ids import new_id
from operation_agent.store.shops import Shop
from operation_agent.strategies.calendar import zone_of
from rules import program
from rules.program import Arm, Delay, Due, Placed, Walked
from rules.step import Step

from . import parking, writing
from .parking import Parking
from .segments import Entry, Manner, Segment, entry_key, product_of, trigger_key


def plan(session: Session, shop: Shop, decisions: Sequence[Decision], *, created_at: datetime) -> int:
    """Write the first actions of `decisions`, reserve their money, ring for what is due; how many actions are new.

    Who has to wait, or comes to a branch, gets a run. `created_at` is system time. A decision whose money is not there
    any more leaves its actions `over_budget`, and no run.
    """
    acting = [one for one in decisions if one.arm is not None and one.arm.steps]
    if not acting:
        return 0
    opener = _Opener(shop)
    segments: list[Segment] = []
    parked: list[Parking] = []
    for decision in acting:
        segment, parking_ = opener.open(decision)
        segments.append(segment)
        if parking_ is not None:
            parked.append(parking_)
    written = writing.write(session, shop, segments, created_at=created_at)
    on_their_way = [one for one in parked if one.entry.decision_id not in written.refused]
    parking.park(session, shop.id, on_their_way, at=created_at)
    return written.count


class _Opener:
    """The first segment of each decision of a call. What decisions have in common is worked out once."""

    def __init__(self, shop: Shop):
        self._shop = shop
        self._manners: dict[UUID, Manner] = {}
        self._courses: dict[int, tuple[tuple[Placed, timedelta, int | None], ...] | None] = {}

    def open(self, decision: Decision) -> tuple[Segment, Parking | None]:
        arm = decision.arm
        assert arm is not None
        zone = zone_of(decision.zone, self._shop)
        walked = self._walked(arm, decision, zone)
        waits = walked.parked is not None
        event = decision.trigger.event
        entry = Entry(
            decision_id=decision.id,
            customer_id=decision.customer_id,
            strategy_id=decision.strategy_id,
            rule_id=decision.rule_id,
            rule_key=decision.rule_key,
            rule_version=decision.rule_version,
            arm=arm.key,
            key=_key(decision, arm),
            held_out=decision.held_out,
            entered_at=decision.decided_at,
            exit_on=decision.exit_on,
            costs=decision.costs,
            zone=zone,
            product_id=product_of(event.properties) if event is not None else None,
            budget_id=decision.budget_id,
            event_received_at=decision.event_received_at,
            run_id=new_id() if waits else None,
            campaign_id=decision.campaign_id,
        )
        segment = Segment(entry, walked.due, self._manner(decision), is_opening=True)
        return segment, Parking.of(entry, decision, walked) if waits else None

    def _manner(self, decision: Decision) -> Manner:
        found = self._manners.get(decision.strategy_id)
        if found is None:
            found = self._manners[decision.strategy_id] = Manner.of(decision.limits, self._shop)
        return found

    def _walked(self, arm: Arm, decision: Decision, zone: str) -> Walked:
        course = self._courses[id(arm)] if id(arm) in self._courses else self._course(arm, decision.decided_at)
        at = decision.decided_at
        if course is not None:
            return Walked(tuple(Due(placed, at + offset, coupon) for placed, offset, coupon in course), None)
        event = decision.trigger.event
        return program.walk(arm, program.START, at, zone, event.properties if event else {})

    def _course(self, arm: Arm, at: datetime) -> tuple[tuple[Placed, timedelta, int | None], ...] | None:
        """Of an arm whose every step is due a fixed time after the decision: walked once for all who take it."""
        found = None
        if _is_plain(arm):
            due = program.walk(arm, program.START, at, "UTC", {}).due
            found = tuple((one.placed, one.due_at - at, one.after_coupon) for one in due)
        self._courses[id(arm)] = found
        return found


def _is_plain(arm: Arm) -> bool:
    return all(isinstance(step, Step) or (isinstance(step, Delay) and step.span is not None) for step in arm.steps)


def _key(decision: Decision, arm: Arm) -> str:
    trigger = trigger_key(decision.trigger)
    return entry_key(decision.rule_key, decision.rule_version, decision.random_key, trigger, arm.key)


def dedupe_key(decision: Decision, number: int) -> str:
    """Of the decision's action of that number."""
    assert decision.arm is not None
    return f"{_key(decision, decision.arm)}:{number}"
