"""Decide: from facts and history to decisions, without a session, a clock or a random number.

Each candidate (a trigger whose rule's condition holds) goes: guardrails → holdout → arm. The guardrails stand before
the draw, so that whoever is held out could have been treated. Candidates are taken in the order of their triggers'
times; at the same time by priority, then by expected value, so that the best go first where money is short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from operation_agent.experiments import assignment
from operation_agent.experiments.assignment import Side
from operation_agent.kit.ids import new_id
from operation_agent.strategies.live import LiveRule
from rules.evaluate import Evaluation
from rules.rule import Arm

from . import guardrails, receipt, scoring
from .facts import SCHEDULE, Columns, Trigger, property_of
from .guardrails import Demands, Verdict
from .history import UNKNOWN_PERSON, History, Kept


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What of the shop a decision depends on. `margin_rate` is a share of the price; money in minor units."""

    seed: str
    currency_digits: int
    margin_rate: float
    settings: Mapping[str, Any]

    @property
    def global_holdout(self) -> float:
        """`shop.settings["global_holdout"]`, a share in [0, 1); held out of every strategy of the shop."""
        return float(self.settings.get("global_holdout", assignment.GLOBAL_HOLDOUT))


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided for one customer at one moment. `arm` is what is done, or for a held-out customer what would
    have been; None where a guardrail stopped it. `costs`: what each of its steps may cost at most (minor units), to be
    reserved for the treated. `decided_at` is shop time, `event_received_at` system time."""

    id: UUID
    customer_id: UUID
    random_key: UUID
    strategy_id: UUID
    strategy_key: str
    rule_id: UUID
    rule_key: str
    rule_version: int
    trigger: Trigger
    verdict: str
    arm: Arm | None
    held_out: bool
    propensity: float | None
    decided_at: datetime
    event_received_at: datetime | None
    budget_id: UUID | None
    exit_on: tuple[str, ...]
    costs: tuple[int, ...]
    enrolment_key: str
    prior_orders: int
    prior_revenue_minor: int
    is_new_assignment: bool
    side_propensity: float | None
    receipt: dict[str, Any]

    @property
    def is_enrolled(self) -> bool:
        """Whether the customer entered the rule: it reached the draw."""
        return self.arm is not None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A live rule held against all rows of a call, with what its arms are worth and cost for each row."""

    live: LiveRule
    evaluation: Evaluation
    rows: NDArray[np.intp]
    shares: tuple[float, ...]
    demands: Demands
    values: tuple[NDArray[np.float64], ...]
    costs: tuple[tuple[NDArray[np.float64], ...], ...]
    score: NDArray[np.float64]
    costliest: NDArray[np.float64]


def prepare(
    live: LiveRule, triggers: Sequence[Trigger], columns: Columns, features: Columns, shop: Circumstances
) -> Prepared | None:
    """Evaluate one rule over all triggers; None when it takes nobody. `features` as FeatureTable.columns."""
    asked = np.fromiter((is_asked(live, trigger) for trigger in triggers), np.bool_, len(triggers))
    if not asked.any():
        return None
    evaluation = live.condition.evaluate(columns, len(triggers))
    rows = np.flatnonzero(asked & evaluation.matched)
    if not len(rows):
        return None
    arms = live.rule.arms
    orders = scoring.order_value(features["average_order_minor"], shop.settings, shop.currency_digits)
    shares = (1.0,) + (0.0,) * (len(arms) - 1)
    if live.strategy.policy == "split":
        shares = tuple(assignment.shares([arm.weight for arm in arms]))
    values = tuple(scoring.arm_value(arm, orders, margin_rate=shop.margin_rate, settings=shop.settings) for arm in arms)
    costs = tuple(tuple(scoring.step_cost(step, orders, shop.settings) for step in arm.steps) for arm in arms)
    totals = [sum(steps, np.zeros(len(triggers))) for steps in costs]
    score = sum(
        (share * np.nan_to_num(value) for share, value in zip(shares, values, strict=True)), np.zeros(len(triggers))
    )
    return Prepared(
        live, evaluation, rows, shares, guardrails.demands(arms), values, costs, score, np.maximum.reduce(totals)
    )


def is_asked(live: LiveRule, trigger: Trigger) -> bool:
    if trigger.type == SCHEDULE:
        return trigger.rule_id == live.rule_id
    return trigger.type in live.rule.when.events


@dataclass(frozen=True, slots=True)
class Candidate:
    prepared: Prepared
    row: int
    key: str  # of the enrolment


def candidates(prepared: Sequence[Prepared], triggers: Sequence[Trigger]) -> list[Candidate]:
    """Every (trigger, rule) whose condition holds, in the order in which they are decided."""
    found = []
    for one in prepared:
        when = one.live.rule.when
        for row in one.rows.tolist():
            key: str | None = ""
            if when.key is not None:
                key = property_of(triggers[row].event, when.key)
                if key is None:
                    continue  # the trigger does not say which key it is about
            found.append(Candidate(one, row, key or ""))

    def order(candidate: Candidate) -> tuple[Any, ...]:
        trigger, one = triggers[candidate.row], candidate.prepared
        return (
            trigger.at, -one.live.rule.priority, -float(one.score[candidate.row]), trigger.random_key, trigger.key,
            one.live.key,
        )  # fmt: skip

    return sorted(found, key=order)


def decide_all(
    shop: Circumstances, triggers: Sequence[Trigger], features: Columns, listed: Sequence[Candidate], history: History
) -> list[Decision]:
    """Decide every candidate in order; `history` takes up what is decided."""
    taken: dict[tuple[int, UUID], str] = {}
    rivals: dict[int, list[str]] = {}
    for candidate in listed:
        rivals.setdefault(candidate.row, []).append(candidate.prepared.live.key)
    made = []
    for candidate in listed:
        slot = (candidate.row, candidate.prepared.live.strategy_id)
        decision = _decide(
            shop, triggers[candidate.row], features, candidate, history, taken.get(slot), rivals[candidate.row]
        )
        if decision.is_enrolled:
            taken[slot] = decision.rule_key
        made.append(decision)
    return made


def _decide(
    shop: Circumstances, trigger: Trigger, features: Columns, candidate: Candidate, history: History,
    taken_by: str | None, rivals: list[str],
) -> Decision:  # fmt: skip
    one, row = candidate.prepared, candidate.row
    live = one.live
    verdicts = _verdicts(trigger, candidate, history, taken_by)
    written = receipt.cause(live, trigger)
    written["seen"] = receipt.seen(one.evaluation.explain(row))
    written["arms"] = _alternatives(one, row)
    written["others"] = [key for key in rivals if key != live.key]
    written["score"] = round(float(one.score[row]), 2)
    written["estimator"] = scoring.ESTIMATOR
    written["guardrails"] = receipt.guardrails(verdicts)
    failed = next((verdict for verdict in verdicts if not verdict.passed), None)
    arm: Arm | None = None
    found: Side | Kept | None = None
    is_new, propensity = False, None
    costs: tuple[int, ...] = ()
    if failed is not None:
        verdict = guardrails.STOPS_AS[failed.name]
    else:
        found, is_new = _side(shop, trigger, live, history)
        written["side"] = receipt.side(live, trigger, found, shop.global_holdout)
        index, draw = assignment.arm(shop.seed, live.strategy.key, live.rule.key, str(trigger.random_key), one.shares)
        written["arm_draw"] = {
            "draw": draw,
            "salt": assignment.arm_salt(live.strategy.key, live.rule.key, str(trigger.random_key)),
        }
        arm = live.rule.arms[index]
        verdict = "holdout" if found.held_out else "act" if arm.steps else "nothing"
        propensity = found.propensity * (1 if found.held_out else one.shares[index])
        costs = tuple(int(cost[row]) for cost in one.costs[index])
        _take_up(history, trigger, candidate, index, found, costs)
    written |= {"arm": arm.key if arm else None, "propensity": propensity, "verdict": verdict}
    return Decision(
        id=new_id(), customer_id=trigger.customer_id, random_key=trigger.random_key, strategy_id=live.strategy_id,
        strategy_key=live.strategy.key, rule_id=live.rule_id, rule_key=live.key, rule_version=live.version,
        trigger=trigger, verdict=verdict, arm=arm, held_out=bool(found and found.held_out), propensity=propensity,
        decided_at=trigger.at, event_received_at=trigger.event_received_at, budget_id=live.budget_id,
        exit_on=live.rule.exit_on, costs=costs, enrolment_key=candidate.key,
        prior_orders=int(features["orders"][row]), prior_revenue_minor=int(features["revenue_minor"][row]),
        is_new_assignment=is_new, side_propensity=found.propensity if found else None, receipt=written,
    )  # fmt: skip


def _verdicts(trigger: Trigger, candidate: Candidate, history: History, taken_by: str | None) -> list[Verdict]:
    """Every guardrail's, also after one has failed: the receipt answers "and what else?"."""
    one, customer = candidate.prepared, trigger.customer_id
    live, wanted = one.live, one.demands
    person = history.people.get(customer, UNKNOWN_PERSON)
    return [
        guardrails.one_rule(taken_by),
        guardrails.enrolment(
            live.rule.when, candidate.key, history.entries.get((live.rule_id, customer), {}), trigger.at
        ),
        guardrails.address(wanted.channels, person.addresses),
        guardrails.suppression(wanted.channels, person.suppressed),
        guardrails.consent(wanted.topics, person.consents),
        guardrails.cap(live.strategy.caps, wanted.messages, history.messages.get(customer, {}), trigger.at.timestamp()),
        guardrails.budget(
            int(one.costliest[candidate.row]), history.available.get(live.budget_id) if live.budget_id else None
        ),
    ]


def _side(shop: Circumstances, trigger: Trigger, live: LiveRule, history: History) -> tuple[Side | Kept, bool]:
    """The side the customer is on in this strategy: as assigned before, or drawn now."""
    known = history.sides.get((live.strategy_id, trigger.customer_id))
    if known is not None:
        return Kept(known.held_out, known.propensity), False
    drawn = assignment.side(
        shop.seed, live.strategy.key, str(trigger.random_key), holdout=live.strategy.holdout,
        global_holdout=shop.global_holdout,
    )  # fmt: skip
    return drawn, True


def _take_up(
    history: History, trigger: Trigger, candidate: Candidate, index: int, side: Side | Kept, costs: tuple[int, ...]
) -> None:
    one, customer = candidate.prepared, trigger.customer_id
    history.sides.setdefault((one.live.strategy_id, customer), side)
    history.enter(one.live.rule_id, customer, candidate.key, trigger.at)
    history.plan(customer, one.demands.messages[index], trigger.at.timestamp())
    budget = one.live.budget_id
    if budget in history.available and not side.held_out:
        history.available[budget] -= sum(costs)


def _alternatives(one: Prepared, row: int) -> list[dict[str, Any]]:
    return [
        {
            "key": arm.key,
            "share": round(share, 6),
            "score": None if np.isnan(value[row]) else round(float(value[row]), 2),
        }
        for arm, share, value in zip(one.live.rule.arms, one.shares, one.values, strict=True)
    ]
