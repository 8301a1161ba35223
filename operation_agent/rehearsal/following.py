"""What would have followed a decision to act: its arm walked through what really happened afterwards.

A wait is answered by the events that came; e-mails that were never sent were never opened either, so a wait for a click
ends by its time-out. A branch is looked at as of its moment. An event that ends the rule ends it here too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.actions.segments import Manner
from operation_agent.clustering import membership
from operation_agent.customers import features
from operation_agent.decision import reading
from operation_agent.decision.engine import Decision
from operation_agent.decision.facts import Trigger
from operation_agent.events import columns as event_columns
from operation_agent.store.shops import Shop
from operation_agent.strategies.calendar import zone_of
from rules import evaluate, program
from rules.condition import Condition, leaves
from rules.program import Branch, Due, Parked, Wait, at_path, resume, walk


@dataclass(frozen=True, slots=True)
class Sent:
    """One action that would have come due at `at` (shop time, quiet hours kept). `is_moved`: they put it off.
    `planned_at`: when it would have been written down, the decision's moment or that of the last wait or branch."""

    decision: Decision
    due: Due
    at: datetime
    is_moved: bool
    planned_at: datetime


@dataclass(slots=True)
class Followed:
    """`ended`: actions that did not come due, since an event had ended the rule; each with when it would have.
    `under_way`: decisions whose customers would still be waiting."""

    sent: list[Sent]
    ended: list[tuple[Decision, datetime]]
    under_way: list[Decision]


@dataclass(slots=True)
class _Walker:
    decision: Decision
    path: str
    at: datetime
    coupon: int | None
    exit_at: datetime | None

    @property
    def event_id(self) -> UUID | None:
        event = self.decision.trigger.event
        return event.id if event is not None else None

    @property
    def properties(self) -> dict[str, Any]:
        event = self.decision.trigger.event
        return event.properties if event is not None else {}


def follow(session: Session, shop: Shop, decisions: Sequence[Decision], *, until: datetime) -> Followed:
    """Walk the arms that were drawn, up to `until` (shop time)."""
    exits = _exits(session, shop, [one for one in decisions if one.exit_on])
    walkers = [_Walker(one, program.START, one.decided_at, None, exits.get(one.id)) for one in decisions]
    manners: dict[UUID, Manner] = {}
    for one in decisions:
        if one.strategy_id not in manners:
            manners[one.strategy_id] = Manner.of(one.limits, shop)
    followed = Followed([], [], [])
    while walkers:
        stopped: list[tuple[_Walker, Parked]] = []
        for walker in walkers:
            parked = _walk(shop, walker, manners[walker.decision.strategy_id], followed)
            if parked is None or (walker.exit_at is not None and walker.exit_at <= parked.at):
                continue
            if parked.at > until:
                followed.under_way.append(walker.decision)
            else:
                stopped.append((walker, parked))
        walkers = _resumed(session, shop, stopped, until, followed)
    return followed


def _walk(shop: Shop, walker: _Walker, manner: Manner, followed: Followed) -> Parked | None:
    decision = walker.decision
    assert decision.arm is not None
    zone = zone_of(decision.zone, shop)
    walked = walk(decision.arm, walker.path, walker.at, zone, walker.properties, coupon=walker.coupon)
    for due in walked.due:
        at = manner.due_at(due, zone)
        if walker.exit_at is not None and walker.exit_at <= at:
            followed.ended.append((decision, at))
        else:
            followed.sent.append(Sent(decision, due, at, at != due.due_at, walker.at))
    walker.coupon = walked.coupon
    return walked.parked


_EXITS = text("""
SELECT r.number, (SELECT min(t.occurred_at) FROM timeline t WHERE t.shop_id = :shop AND t.customer_id = r.customer_id
                  AND t.occurred_at > r.since AND t.type = ANY(string_to_array(r.types, ','))) AS at
FROM unnest(CAST(:numbers AS int[]), CAST(:customers AS uuid[]), CAST(:since AS timestamptz[]), CAST(:types AS text[]))
  AS r (number, customer_id, since, types)
""")


def _exits(session: Session, shop: Shop, decisions: Sequence[Decision]) -> dict[UUID, datetime]:
    """When an event of `exit_on` first followed each decision."""
    if not decisions:
        return {}
    rows = session.execute(
        _EXITS,
        {
            "shop": shop.id, "numbers": list(range(len(decisions))),
            "customers": [one.customer_id for one in decisions], "since": [one.decided_at for one in decisions],
            "types": [",".join(one.exit_on) for one in decisions],
        },
    )  # fmt: skip
    return {decisions[row.number].id: row.at for row in rows if row.at is not None}


# -- what a stop is answered by -----------------------------------------------------------------------------------


def _resumed(
    session: Session, shop: Shop, stopped: Sequence[tuple[_Walker, Parked]], until: datetime, followed: Followed
) -> list[_Walker]:
    waits = [one for one in stopped if one[1].kind == "wait"]
    branches = [one for one in stopped if one[1].kind == "branch"]
    going = []
    for (walker, parked), came_at in zip(waits, _awaited(session, shop, waits), strict=True):
        assert parked.deadline is not None
        at = parked.deadline if came_at is None else came_at
        if at > until:
            followed.under_way.append(walker.decision)
        elif walker.exit_at is None or walker.exit_at > at:
            going.append(_on(walker, parked, came_at is not None, at))
    for (walker, parked), holds in zip(branches, _looked_at(session, shop, branches), strict=True):
        going.append(_on(walker, parked, holds, parked.at))
    return going


def _on(walker: _Walker, parked: Parked, outcome: bool, at: datetime) -> _Walker:
    arm = walker.decision.arm
    assert arm is not None
    return _Walker(walker.decision, resume(arm, parked.path, outcome), at, walker.coupon, walker.exit_at)


_AWAITED = text("""
SELECT r.number, t.occurred_at, t.event_id FROM unnest(CAST(:numbers AS int[]), CAST(:customers AS uuid[]),
  CAST(:since AS timestamptz[]), CAST(:until AS timestamptz[]), CAST(:types AS text[]),
  CAST(:begun_by AS uuid[])) AS r (number, customer_id, since, until, types, begun_by)
JOIN timeline t ON t.shop_id = :shop AND t.customer_id = r.customer_id AND t.occurred_at >= r.since
  AND t.occurred_at <= r.until AND t.type = ANY(string_to_array(r.types, ','))
  AND t.event_id IS DISTINCT FROM r.begun_by
ORDER BY r.number, t.occurred_at, t.event_id
""")


def _awaited(session: Session, shop: Shop, waits: Sequence[tuple[_Walker, Parked]]) -> list[datetime | None]:
    """When what each wait waits for came, within its time; None: it did not."""
    if not waits:
        return []
    steps = [_step(walker, parked, Wait) for walker, parked in waits]
    rows = session.execute(
        _AWAITED,
        {
            "shop": shop.id, "numbers": list(range(len(waits))),
            "customers": [walker.decision.customer_id for walker, _ in waits],
            "since": [parked.at for _, parked in waits], "until": [parked.deadline for _, parked in waits],
            "types": [",".join(step.events) for step in steps],
            "begun_by": [walker.event_id for walker, _ in waits],
        },
    ).all()  # fmt: skip
    asked = {row.event_id for row in rows if steps[row.number].where is not None or steps[row.number].name is not None}
    events = _events(session, shop, list(asked))
    found: list[datetime | None] = [None] * len(waits)
    for row in rows:
        if found[row.number] is None and _is_meant(steps[row.number], events.get(row.event_id)):
            found[row.number] = row.occurred_at
    return found


_EVENTS = text("SELECT id, type, name, properties FROM events WHERE shop_id = :shop AND id = ANY(:ids)")


def _events(session: Session, shop: Shop, ids: Sequence[UUID]) -> dict[UUID, Any]:
    if not ids:
        return {}
    return {row.id: row for row in session.execute(_EVENTS, {"shop": shop.id, "ids": list(ids)})}


def _is_meant(step: Wait, event: Any) -> bool:
    if step.name is not None and (event is None or event.name != step.name):
        return False
    return step.where is None or (event is not None and _meets(step.where, event))


def _meets(condition: Condition, event: Any) -> bool:
    known = {**event.properties, "type": event.type, "name": event.name}
    columns = {
        leaf.field: event_columns.column(leaf.kind, [known.get(leaf.field.removeprefix("event."))])
        for leaf in leaves(condition)
    }
    return bool(evaluate.compile(condition).evaluate(columns, 1).matched[0])


def _looked_at(session: Session, shop: Shop, branches: Sequence[tuple[_Walker, Parked]]) -> list[bool]:
    """Whether each branch's condition held at its moment."""
    if not branches:
        return []
    triggers = [_as_of(walker.decision.trigger, walker.decision.customer_id, parked.at) for walker, parked in branches]
    table = features.compute(session, shop.id, [(one.customer_id, one.at) for one in triggers])
    clusters = membership.assign(session, shop.id, table).clusters
    compiled: dict[int, Any] = {}
    for walker, parked in branches:
        condition = _step(walker, parked, Branch).condition
        compiled.setdefault(id(condition), evaluate.compile(condition))
    columns = reading.load_for(session, shop, triggers, table, clusters, list(compiled.values()))
    told = {key: one.evaluate(columns, len(triggers)).matched for key, one in compiled.items()}
    return [
        bool(told[id(_step(walker, parked, Branch).condition)][row]) for row, (walker, parked) in enumerate(branches)
    ]


def _as_of(trigger: Trigger, customer_id: UUID, at: datetime) -> Trigger:
    return Trigger(customer_id, trigger.random_key, trigger.type, trigger.event, at)


def _step(walker: _Walker, parked: Parked, kind: Callable[..., Any]) -> Any:
    arm = walker.decision.arm
    assert arm is not None
    found = at_path(arm, parked.path)
    assert isinstance(found, kind)  # type: ignore[arg-type]
    return found
