"""Writing planned actions down: the rows, the executions and the money they take, and the wake-ups.

The dedupe key is made of what was decided and not of row ids, so a replay plans the same action and finds it there.
Money is reserved for a segment as a whole: a coupon without the message that carries it helps nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.kit.ids import new_id
from operation_agent.store import outbox
from operation_agent.store.arrays import instants, integers, texts, uuids
from operation_agent.store.shops import Shop
from rules.step import Step

from . import approving, budget, executions
from .approving import Group, Need, Standing
from .budget import Wanted
from .catalogue import unit_cost
from .claiming import TOPIC
from .executions import Execution
from .segments import Segment


@dataclass(frozen=True, slots=True)
class Written:
    """`count`: actions that were not there before. `refused`: what came too late for the day's executions or for the
    money: actions, and the decisions of opening segments."""

    count: int
    refused: frozenset[UUID]


@dataclass(slots=True)
class _Action:
    """An action about to be written. `reserve`: what it may cost at most (minor units), 0 for the held out. `group`: of
    those that wait for the same yes."""

    id: UUID
    segment: Segment
    number: int
    step: Step
    kind: int
    due_at: datetime
    after: UUID | None
    reserve: int
    key: str
    group: Group | None
    standing: Standing | None = None

    @property
    def state(self) -> str:
        return "ready" if self.standing is None else self.standing.state


def write(session: Session, shop: Shop, segments: Sequence[Segment], *, created_at: datetime) -> Written:
    """Write the actions of `segments`; `created_at` is system time.

    An opening that comes too late for the day's executions leaves its actions cancelled, a segment whose money is not
    there any more leaves them `over_budget`.
    """
    layout = _Layout(shop, _coupons(session, shop.id, segments))
    for segment in segments:
        layout.add(segment)
    if not layout.actions and not any(one.is_opening for one in segments):
        return Written(0, frozenset())
    _ask(session, shop, layout, created_at)
    now = created_at + shop.clock_offset
    new = _insert(session, shop.id, layout, created_at, now)
    ours = [one for one in layout.actions if one.id in new]
    refused = _take(session, shop, segments, ours, created_at)
    due = {
        one.step.channel
        for one in ours
        if one.state == "ready" and one.after is None and one.due_at <= now and one.id not in refused
    }
    outbox.ring(session, shop.id, [(TOPIC, channel) for channel in due], at=created_at)
    return Written(len(ours), frozenset(refused))


class _Layout:
    """Rows of actions. What many have in common stands once, as a kind."""

    def __init__(self, shop: Shop, coupons: dict[str, UUID]):
        self._settings = shop.settings
        self._coupons = coupons
        self._kinds: dict[tuple[Any, ...], int] = {}
        self._costs: dict[str, int] = {}
        self._groups: dict[tuple[int, int], Group | None] = {}
        self.needs: list[tuple[Group, Need]] = []
        self.kinds: list[dict[str, Any]] = []
        self.actions: list[_Action] = []

    def add(self, segment: Segment) -> None:
        entry, manner = segment.entry, segment.manner
        here: dict[int, UUID] = {}
        for due in segment.due:
            number, step = due.placed.number, due.placed.step
            cost = 0 if entry.held_out else self._cost(step.action)
            reserve = 0 if entry.held_out else max(cost, entry.costs[number])
            after = None
            if step.is_message and due.after_coupon is not None:
                after = here.get(due.after_coupon) or self._coupons.get(f"{entry.key}:{due.after_coupon}")
            kind = self._kind(segment, step, number, cost)
            action = _Action(
                id=new_id(),
                segment=segment,
                number=number,
                step=step,
                kind=kind,
                due_at=manner.due_at(due, entry.zone),
                after=after,
                reserve=reserve,
                key=f"{entry.key}:{number}",
                group=self._group(segment, step, kind, reserve) if manner.rulings and not entry.held_out else None,
            )
            here[number] = action.id
            self.actions.append(action)

    def _group(self, segment: Segment, step: Step, kind: int, reserve: int) -> Group | None:
        """Whose yes it needs, worked out once for all that are alike and cost the same."""
        if (kind, reserve) not in self._groups:
            entry = segment.entry
            need = approving.need(segment.manner.rulings, step, reserve_minor=reserve)
            group = None if need is None else Group(entry.rule_id, entry.rule_version, entry.rule_key, need.reason)
            self._groups[kind, reserve] = group
            if group is not None and need is not None:
                self.needs.append((group, need))
        return self._groups[kind, reserve]

    def _cost(self, action: str) -> int:
        found = self._costs.get(action)
        if found is None:
            found = self._costs[action] = unit_cost(self._settings, action)
        return found

    def _kind(self, segment: Segment, step: Step, number: int, cost: int) -> int:
        entry, manner = segment.entry, segment.manner
        key = (
            id(step),
            entry.rule_id,
            entry.rule_version,
            entry.arm,
            number,
            cost,
            entry.budget_id,
            entry.campaign_id,
            entry.exit_on,
        )
        found = self._kinds.get(key)
        if found is None:
            found = self._kinds[key] = len(self.kinds) + 1
            tags = [*step.tags, *(tag for tag in manner.tags if tag not in step.tags)]
            self.kinds.append(
                {
                    "n": found, "strategy_id": entry.strategy_id, "rule_id": entry.rule_id, "arm": entry.arm,
                    "step": number, "type": step.action, "channel": step.channel, "topic": step.topic,
                    "parameters": step.parameters, "exit_events": entry.exit_on, "cost_minor": cost,
                    "budget_id": entry.budget_id, "campaign_id": entry.campaign_id, "tag_list": tags,
                    "counted": manner.counted, "held_back": manner.held_back,
                    "stale_after": manner.stale_after.total_seconds() if step.is_message else None,
                }
            )  # fmt: skip
        return found


def _ask(session: Session, shop: Shop, layout: _Layout, at: datetime) -> None:
    """Put what needs a yes to people; from their answer follows how its actions start."""
    if not layout.needs:
        return
    answers = approving.ask(session, shop, layout.needs, at=at)
    for one in layout.actions:
        if one.group is not None:
            one.standing = answers[one.group]
            if one.state == "cancelled":
                one.reserve = 0


def _coupons(session: Session, shop_id: UUID, segments: Iterable[Segment]) -> dict[str, UUID]:
    """Coupon steps of earlier segments whose codes these messages carry, by dedupe key."""
    wanted = []
    for segment in segments:
        if not segment.is_opening:
            here = {due.placed.number for due in segment.due}
            before = {due.after_coupon for due in segment.due if due.placed.step.is_message} - here
            wanted += [f"{segment.entry.key}:{number}" for number in before if number is not None]
    if not wanted:
        return {}
    rows = session.execute(
        text("SELECT dedupe_key, id FROM actions WHERE shop_id = :shop AND dedupe_key = ANY(:keys)"),
        {"shop": shop_id, "keys": wanted},
    )
    return {row.dedupe_key: row.id for row in rows}


# What is alike stands once, in `kinds`: an e-mail's texts do not travel for each of its readers.
_INSERT = """
WITH k AS MATERIALIZED (
  SELECT k.*, ARRAY(SELECT jsonb_array_elements_text(k.exit_events)) AS exit_on,
    ARRAY(SELECT jsonb_array_elements_text(k.tag_list)) AS tags, make_interval(secs => k.stale_after) AS stale
  FROM jsonb_to_recordset(CAST(:kinds AS jsonb)) AS k (n int, strategy_id uuid, rule_id uuid, arm text, step smallint,
    type text, channel text, topic text, parameters jsonb, exit_events jsonb, cost_minor bigint, budget_id uuid,
    campaign_id uuid, tag_list jsonb, counted boolean, held_back boolean, stale_after float8)
), new AS (
INSERT INTO actions (shop_id, id, decision_id, customer_id, strategy_id, rule_id, arm, step, type, channel, held_out,
  topic, parameters, after_action, dedupe_key, decided_at, exit_on, state, due_at, cost_minor, budget_id,
  reserved_minor, event_received_at, created_at, tags, counted, held_back, stale_at, run_id, campaign_id,
  approval_id, approved_by, reason)
SELECT :shop, r.id, r.decision_id, r.customer_id, k.strategy_id, k.rule_id, k.arm, k.step, k.type, k.channel,
  r.held_out,
  k.topic, CASE WHEN r.product IS NULL THEN k.parameters
           ELSE k.parameters || jsonb_build_object('product', jsonb_build_object('id', CAST(r.product AS jsonb))) END,
  r.after_action, r.dedupe_key, r.decided_at, k.exit_on, r.state,
  r.due_at, k.cost_minor, CASE WHEN r.reserved > 0 THEN k.budget_id END,
  CASE WHEN k.budget_id IS NULL THEN 0 ELSE r.reserved END, r.received, :at, k.tags, k.counted, k.held_back,
  r.due_at + k.stale, r.run_id, k.campaign_id, r.approval_id, r.approved_by, r.reason
FROM unnest(CAST(:ids AS uuid[]), CAST(:kind AS bigint[]), CAST(:decisions AS uuid[]), CAST(:customers AS uuid[]),
  CAST(:held_out AS boolean[]), CAST(:products AS text[]), CAST(:after AS uuid[]), CAST(:keys AS text[]),
  CAST(:decided AS timestamptz[]), CAST(:states AS text[]), CAST(:due AS timestamptz[]), CAST(:reserved AS bigint[]),
  CAST(:received AS timestamptz[]), CAST(:runs AS uuid[]), CAST(:approvals AS uuid[]), CAST(:approvers AS text[]),
  CAST(:reasons AS text[]))
  AS r (id, kind, decision_id, customer_id, held_out, product, after_action, dedupe_key, decided_at, state, due_at,
    reserved, received, run_id, approval_id, approved_by, reason)
JOIN k ON k.n = r.kind
ON CONFLICT (shop_id, dedupe_key) DO NOTHING
RETURNING 1
)
SELECT count(*) FROM new
"""


def _insert(session: Session, shop_id: UUID, layout: _Layout, at: datetime, now: datetime) -> set[UUID]:
    """`at` is system time, `now` shop time: what is due later than that has no latency of ours to tell."""
    written = sorted(layout.actions, key=lambda action: action.key)  # two writers meet in one order
    entries = [one.segment.entry for one in written]
    new = session.execute(
        text(_INSERT),
        {
            "shop": shop_id,
            "at": at,
            "kinds": orjson.dumps(layout.kinds).decode(),
            "ids": uuids([one.id.bytes for one in written]),
            "kind": integers([one.kind for one in written]),
            "decisions": uuids([one.decision_id.bytes for one in entries]),
            "customers": uuids([one.customer_id.bytes for one in entries]),
            "held_out": [one.held_out for one in entries],
            "products": texts([_product(one) for one in written]),
            "after": _uuids([one.after for one in written]),
            "keys": texts([one.key for one in written]),
            "decided": instants([one.entered_at for one in entries]),
            "states": texts([one.state for one in written]),
            "due": instants([one.due_at for one in written]),
            "reserved": integers([one.reserve for one in written]),
            "received": [
                one.event_received_at if action.due_at <= now else None
                for one, action in zip(entries, written, strict=True)
            ],
            "runs": _uuids([one.run_id for one in entries]),
            "approvals": _uuids([one.standing.approval_id if one.standing else None for one in written]),
            "approvers": texts([one.standing.approved_by if one.standing else None for one in written]),
            "reasons": texts([one.standing.reason if one.standing else None for one in written]),
        },
    ).scalar_one()
    if new == len(written):
        return {one.id for one in written}
    found = session.execute(
        text("SELECT id FROM actions WHERE shop_id = :shop AND id = ANY(:ids)"),
        {"shop": shop_id, "ids": uuids([one.id.bytes for one in written])},
    )
    return set(found.scalars())


def _uuids(values: Sequence[UUID | None]) -> Any:
    return uuids([None if one is None else one.bytes for one in values])


def _product(action: _Action) -> str | None:
    product = action.segment.entry.product_id
    return None if product is None or not action.step.is_message else orjson.dumps(product).decode()


# -- executions and money -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Group:
    """The new actions of one segment: they get their money together, or not at all."""

    segment: Segment
    actions: list[_Action] = field(default_factory=list)


def _take(
    session: Session, shop: Shop, segments: Sequence[Segment], actions: Sequence[_Action], at: datetime
) -> set[UUID]:
    """Take an execution of the day for each opening and the money of each segment; returns the actions and the
    decisions that get none.

    Executions before budgets, as `budget` says; what was taken for decisions that then find no money is given back.
    """
    groups = _groups(segments, actions)
    limited = {
        key: Execution(entry.strategy_id, executions.day_of(shop.time_zone, entry.entered_at), limit, key)
        for key, group in groups.items()
        if group.segment.is_opening and (limit := group.segment.manner.executions_per_day) is not None
        for entry in (group.segment.entry,)
    }
    late = executions.take(session, shop.id, list(limited.values()))
    _end(session, shop.id, [one for key in late for one in groups[key].actions], "cancelled", "daily_limit")
    short = budget.reserve(session, shop.id, list(_wanted(shop, groups, late)), at=at)
    executions.give_back(session, shop.id, [limited[key][:2] for key in short if key in limited])
    _end(
        session, shop.id, [one for key in short for one in groups[key].actions], "over_budget", "the budget is used up"
    )
    return {*late, *short, *(one.id for key in (*late, *short) for one in groups[key].actions)}


def _groups(segments: Sequence[Segment], actions: Sequence[_Action]) -> dict[UUID, _Group]:
    """By decision for openings, by the first action for later segments. An opening that begins with a wait has nothing
    to pay for, and is an execution all the same."""
    groups = {
        one.entry.decision_id: _Group(one)
        for one in segments
        if one.is_opening and not one.due and not one.entry.held_out and one.manner.executions_per_day is not None
    }
    keys: dict[int, UUID] = {}
    for action in actions:
        segment = action.segment
        if not segment.entry.held_out and action.state != "cancelled":
            key = segment.entry.decision_id if segment.is_opening else keys.setdefault(id(segment), action.id)
            groups.setdefault(key, _Group(segment)).actions.append(action)
    return groups


def _wanted(shop: Shop, groups: dict[UUID, _Group], late: set[UUID]) -> Iterable[Wanted]:
    """A decision's money counts in its own day, that of a later segment in the day of its first action."""
    days: dict[datetime, Any] = {}
    for key, group in groups.items():
        entry = group.segment.entry
        if entry.budget_id is None or key in late:
            continue
        at = entry.entered_at if group.segment.is_opening else group.segment.due[0].due_at
        day = days.get(at)
        if day is None:
            day = days[at] = executions.day_of(shop.time_zone, at)
        for one in group.actions:
            yield Wanted(entry.budget_id, one.id, one.reserve, key, entry.customer_id, day)


def _end(session: Session, shop_id: UUID, actions: Sequence[_Action], state: str, reason: str) -> None:
    if actions:
        session.execute(
            text(
                "UPDATE actions SET state = :state, reason = :reason, reserved_minor = 0"
                " WHERE shop_id = :shop AND id = ANY(CAST(:ids AS uuid[]))"
            ),
            {"shop": shop_id, "state": state, "reason": reason, "ids": [one.id for one in actions]},
        )
