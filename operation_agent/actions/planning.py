"""From decisions to actions: one row per step of the chosen arm, for the treated and for the held out alike.

The dedupe key is made of what was decided and not of row ids, so a replay plans the same action and finds it there.
Money is reserved for a decision as a whole: a coupon without the message that carries it helps nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.decision.engine import Decision
from operation_agent.decision.facts import Trigger
from operation_agent.kit.ids import new_id
from operation_agent.store import outbox
from operation_agent.store.shops import Shop
from rules import program
from rules.step import Step

from . import budget
from .budget import Wanted
from .catalogue import needs_approval, unit_cost
from .claiming import TOPIC
from .states import State


@dataclass(frozen=True, slots=True)
class Planned:
    """An action about to be written. `reserve_minor` is what it may cost at most; 0 for the held out."""

    id: UUID
    decision: Decision
    step: Step
    number: int
    due_at: datetime
    after_action: UUID | None
    dedupe_key: str
    state: State
    cost_minor: int
    reserve_minor: int
    parameters: Mapping[str, Any]


def plan(session: Session, shop: Shop, decisions: Sequence[Decision], *, created_at: datetime) -> int:
    """Write the actions of `decisions`, reserve their money, ring for what is due; how many actions are new.

    `created_at` is system time. A decision whose money is not there any more leaves its actions `over_budget`.
    """
    planned = [action for decision in decisions if decision.arm for action in _steps(shop, decision)]
    if not planned:
        return 0
    now = created_at + shop.clock_offset
    new = _insert(session, shop.id, planned, created_at, now)
    ours = [action for action in planned if action.id in new]
    refused = _reserve(session, shop.id, ours, created_at)
    due = {
        action.step.channel
        for action in ours
        if action.state == "ready" and action.after_action is None and action.due_at <= now and action.id not in refused
    }
    outbox.ring(session, shop.id, [(TOPIC, channel) for channel in due], at=created_at)
    return len(ours)


def _steps(shop: Shop, decision: Decision) -> Iterator[Planned]:
    arm = decision.arm
    assert arm is not None
    coupon: UUID | None = None
    walked = program.walk(arm, program.START, decision.decided_at, "UTC", {})
    for due in walked.due:
        number, step = due.placed.number, due.placed.step
        action_id = new_id()
        cost = 0 if decision.held_out else unit_cost(shop.settings, step.action)
        reserve = 0 if decision.held_out else max(cost, decision.costs[number])
        waits = not decision.held_out and needs_approval(shop.settings, step.action, reserve)
        yield Planned(
            id=action_id,
            decision=decision,
            step=step,
            number=number,
            due_at=due.due_at,
            after_action=coupon if step.is_message else None,
            dedupe_key=dedupe_key(decision, number),
            state="waiting_approval" if waits else "ready",
            cost_minor=cost,
            reserve_minor=reserve,
            parameters=_parameters(step, decision.trigger),
        )
        if step.action == "coupon":
            coupon = action_id


def dedupe_key(decision: Decision, number: int) -> str:
    """Stable over replays, restarts and double deliveries: rule, version, customer, trigger, arm, step."""
    assert decision.arm is not None
    return ":".join(
        (
            decision.rule_key,
            str(decision.rule_version),
            str(decision.random_key),
            trigger_key(decision.trigger),
            decision.arm.key,
            str(number),
        )
    )


def trigger_key(trigger: Trigger) -> str:
    if trigger.event is not None:
        return f"{trigger.event.source}/{trigger.event.source_id}"
    return trigger.at.isoformat()


def _parameters(step: Step, trigger: Trigger) -> dict[str, Any]:
    product = trigger.event.properties.get("product_id") if trigger.event else None
    return {**step.parameters, **({"product": {"id": product}} if product is not None and step.is_message else {})}


_INSERT = """
INSERT INTO actions (shop_id, id, decision_id, customer_id, strategy_id, rule_id, arm, step, type, channel, held_out,
  topic, parameters, after_action, dedupe_key, decided_at, exit_on, state, due_at, cost_minor, budget_id,
  reserved_minor, event_received_at, created_at)
SELECT :shop, r.id, r.decision_id, r.customer_id, r.strategy_id, r.rule_id, r.arm, r.step, r.type, r.channel,
  r.held_out, r.topic, r.parameters::jsonb, r.after_action, r.dedupe_key, r.decided_at,
  ARRAY(SELECT jsonb_array_elements_text(r.exit_on::jsonb)), r.state, r.due_at, r.cost_minor, r.budget_id,
  r.reserved_minor, r.event_received_at, :at
FROM unnest(CAST(:ids AS uuid[]), CAST(:decisions AS uuid[]), CAST(:customers AS uuid[]), CAST(:strategies AS uuid[]),
  CAST(:rules AS uuid[]), CAST(:arms AS text[]), CAST(:steps AS smallint[]), CAST(:types AS text[]),
  CAST(:channels AS text[]), CAST(:held_out AS boolean[]), CAST(:topics AS text[]), CAST(:parameters AS text[]),
  CAST(:after AS uuid[]), CAST(:keys AS text[]), CAST(:decided AS timestamptz[]), CAST(:exit_on AS text[]),
  CAST(:states AS text[]), CAST(:due AS timestamptz[]), CAST(:costs AS bigint[]), CAST(:budgets AS uuid[]),
  CAST(:reserved AS bigint[]), CAST(:received AS timestamptz[]))
  AS r (id, decision_id, customer_id, strategy_id, rule_id, arm, step, type, channel, held_out, topic, parameters,
    after_action, dedupe_key, decided_at, exit_on, state, due_at, cost_minor, budget_id, reserved_minor,
    event_received_at)
ON CONFLICT (shop_id, dedupe_key) DO NOTHING
RETURNING id
"""


def _insert(session: Session, shop_id: UUID, planned: Sequence[Planned], at: datetime, now: datetime) -> set[UUID]:
    """`at` is system time, `now` shop time: what is due later than that has no latency of ours to tell."""
    written = sorted(planned, key=lambda action: action.dedupe_key)  # two writers meet in one order
    rows = session.execute(
        text(_INSERT),
        {
            "shop": shop_id,
            "at": at,
            "ids": [one.id for one in written],
            "decisions": [one.decision.id for one in written],
            "customers": [one.decision.customer_id for one in written],
            "strategies": [one.decision.strategy_id for one in written],
            "rules": [one.decision.rule_id for one in written],
            "arms": [one.decision.arm.key if one.decision.arm else "" for one in written],
            "steps": [one.number for one in written],
            "types": [one.step.action for one in written],
            "channels": [one.step.channel for one in written],
            "held_out": [one.decision.held_out for one in written],
            "topics": [one.step.topic for one in written],
            "parameters": [orjson.dumps(one.parameters).decode() for one in written],
            "after": [one.after_action for one in written],
            "keys": [one.dedupe_key for one in written],
            "decided": [one.decision.decided_at for one in written],
            "exit_on": [orjson.dumps(one.decision.exit_on).decode() for one in written],
            "states": [one.state for one in written],
            "due": [one.due_at for one in written],
            "costs": [one.cost_minor for one in written],
            "budgets": [one.decision.budget_id if one.reserve_minor else None for one in written],
            "reserved": [one.reserve_minor if one.decision.budget_id else 0 for one in written],
            "received": [one.decision.event_received_at if one.due_at <= now else None for one in written],
        },
    )
    return set(rows.scalars())


def _reserve(session: Session, shop_id: UUID, planned: Sequence[Planned], at: datetime) -> set[UUID]:
    """Reserve for each decision as a whole; the actions of those that did not fit become `over_budget`."""
    wanted = [
        Wanted(one.decision.budget_id, one.id, one.reserve_minor, group=one.decision.id)
        for one in planned
        if one.decision.budget_id is not None
    ]
    groups = budget.reserve(session, shop_id, wanted, at=at)
    refused = {one.id for one in planned if one.decision.id in groups}
    if refused:
        session.execute(
            text(
                "UPDATE actions SET state = 'over_budget', reason = 'the budget is used up', reserved_minor = 0"
                " WHERE shop_id = :shop AND id = ANY(:ids)"
            ),
            {"shop": shop_id, "ids": list(refused)},
        )
    return refused
