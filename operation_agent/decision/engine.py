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
import orjson
from numpy.typing import NDArray

from operation_agent.experiments import assignment
from operation_agent.experiments.assignment import Side
from operation_agent.kit.ids import new_id
from operation_agent.strategies.live import LiveRule
from rules import program
from rules.evaluate import Evaluation
from rules.program import Arm

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
    # written out at once: the dicts of a hundred thousand receipts are what the garbage collector chokes on
    receipt_json: bytes

    @property
    def receipt(self) -> dict[str, Any]:
        """As decision.receipt describes it."""
        found: dict[str, Any] = orjson.loads(self.receipt_json)
        return found

    @property
    def is_enrolled(self) -> bool:
        """Whether the customer entered the rule: it reached the draw."""
        return self.arm is not None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A live rule held against all rows of a call. Per arm and row: `values` (expected, minor units, None: unknown) and
    `costs` of each step. Per row: `score` under the policy, and `costliest`, what the dearest arm may cost."""

    live: LiveRule
    evaluation: Evaluation
    rows: list[int]
    shares: tuple[float, ...]
    demands: Demands
    values: list[list[float | None]]
    costs: list[list[list[float]]]
    score: list[float]
    costliest: list[float]


def prepare(
    live: LiveRule, triggers: Sequence[Trigger], columns: Columns, features: Columns, shop: Circumstances
) -> Prepared | None:
    """Evaluate one rule over all triggers; None when it takes nobody. `features` as FeatureTable.columns."""
    n, arms = len(triggers), live.rule.arms
    asked = np.fromiter((is_asked(live, trigger) for trigger in triggers), np.bool_, n)
    evaluation = live.condition.evaluate(columns, n)
    rows = np.flatnonzero(asked & evaluation.matched).tolist()
    if not rows:
        return None
    orders = scoring.order_value(features["average_order_minor"], shop.settings, shop.currency_digits)
    shares = tuple(assignment.shares([arm.weight for arm in arms]))
    if live.strategy.policy == "first":
        shares = (1.0,) + (0.0,) * (len(arms) - 1)
    values = [scoring.arm_value(arm, orders, margin_rate=shop.margin_rate, settings=shop.settings) for arm in arms]
    costs = [[scoring.step_cost(placed.step, orders, shop.settings) for placed in program.actions(arm)] for arm in arms]
    score = sum((share * np.nan_to_num(value) for share, value in zip(shares, values, strict=True)), np.zeros(n))
    costliest = np.maximum.reduce(
        [np.zeros(n) + program.costliest(arm, steps, np.maximum) for arm, steps in zip(arms, costs, strict=True)]
    )
    return Prepared(
        live, evaluation, rows, shares, guardrails.demands(arms), [_rounded(value) for value in values],
        [[step.tolist() for step in steps] for steps in costs], score.round(2).tolist(), costliest.tolist(),
    )  # fmt: skip


def _rounded(values: NDArray[np.float64]) -> list[float | None]:
    # NaN is the one value that differs from itself
    return [value if value == value else None for value in values.round(2).tolist()]


def is_asked(live: LiveRule, trigger: Trigger) -> bool:
    """Whether the trigger is one that the rule waits for."""
    if trigger.type == SCHEDULE:
        return live.rule_id in trigger.rule_ids
    return trigger.type in live.rule.when.events


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trigger whose rule's condition holds. `key`: of the enrolment."""

    prepared: Prepared
    row: int
    trigger: Trigger
    key: str


def candidates(prepared: Sequence[Prepared], triggers: Sequence[Trigger]) -> list[Candidate]:
    """Every (trigger, rule) whose condition holds, in the order in which they are decided."""
    found = []
    for one in prepared:
        key_field = one.live.rule.when.key
        for row in one.rows:
            key = "" if key_field is None else property_of(triggers[row].event, key_field)
            if key is not None:  # else the trigger does not say what it is about
                found.append(Candidate(one, row, triggers[row], key))
    return sorted(found, key=_order)


def _order(candidate: Candidate) -> tuple[Any, ...]:
    trigger, one = candidate.trigger, candidate.prepared
    return (trigger.at, -one.live.rule.priority, -one.score[candidate.row], trigger.random_key.int, trigger.key,
            one.live.key)  # fmt: skip


def decide_all(shop: Circumstances, features: Columns, listed: Sequence[Candidate], history: History) -> list[Decision]:
    """Decide every candidate in order; `history` takes up what is decided."""
    orders, revenue = features["orders"].tolist(), features["revenue_minor"].tolist()
    rivals: dict[int, list[str]] = {}
    for candidate in listed:
        rivals.setdefault(candidate.row, []).append(candidate.prepared.live.key)
    taken: dict[tuple[int, UUID], str] = {}
    made = []
    for candidate in listed:
        slot = (candidate.row, candidate.prepared.live.strategy_id)
        verdicts = _verdicts(candidate, history, taken.get(slot))
        failed = next((verdict for verdict in verdicts if not verdict.passed), None)
        drawn = None if failed else _draw(shop, candidate, history)
        if drawn:
            _take_up(history, candidate, drawn)
            taken[slot] = candidate.prepared.live.key
        verdict = guardrails.STOPS_AS[failed.name] if failed else drawn.verdict if drawn else "nothing"
        written = _receipt(shop, candidate, verdicts, drawn, verdict, rivals[candidate.row])
        prior = (int(orders[candidate.row]), int(revenue[candidate.row]))
        made.append(_decision(candidate, drawn, verdict, prior, written))
    return made


@dataclass(frozen=True, slots=True)
class Drawn:
    """Where the draws put a candidate. `propensity`: of the arm, or of being held out."""

    side: Side | Kept
    is_new: bool
    arm: Arm
    index: int
    arm_draw: float
    propensity: float

    @property
    def verdict(self) -> str:
        if self.side.held_out:
            return "holdout"
        return "act" if self.arm.steps else "nothing"


def _verdicts(candidate: Candidate, history: History, taken_by: str | None) -> list[Verdict]:
    """Every guardrail's, also after one has failed: the receipt answers "and what else?"."""
    one, trigger = candidate.prepared, candidate.trigger
    live, wanted, customer = one.live, one.demands, trigger.customer_id
    person = history.people.get(customer, UNKNOWN_PERSON)
    entries = history.entries.get((live.rule_id, customer), {})
    planned = history.messages.get(customer, {})
    available = history.available.get(live.budget_id) if live.budget_id else None
    return [
        guardrails.one_rule(taken_by),
        guardrails.enrolment(live.rule.when, candidate.key, entries, trigger.at),
        guardrails.address(wanted.channels, person.addresses),
        guardrails.suppression(wanted.channels, person.suppressed),
        guardrails.consent(wanted.topics, person.consents),
        guardrails.cap(live.strategy.caps, wanted.messages, planned, trigger.at.timestamp()),
        guardrails.budget(int(one.costliest[candidate.row]), available),
    ]


def _draw(shop: Circumstances, candidate: Candidate, history: History) -> Drawn:
    live, shares = candidate.prepared.live, candidate.prepared.shares
    random_key = str(candidate.trigger.random_key)
    known = history.sides.get((live.strategy_id, candidate.trigger.customer_id))
    side: Side | Kept
    if known is not None:
        side = Kept(known.held_out, known.propensity)  # as assigned before, whatever the shares are today
    else:
        side = assignment.side(
            shop.seed, live.strategy.key, random_key, holdout=live.strategy.holdout, global_holdout=shop.global_holdout
        )
    index, draw = assignment.arm(shop.seed, live.strategy.key, live.rule.key, random_key, shares)
    propensity = side.propensity if side.held_out else side.propensity * shares[index]
    return Drawn(side, known is None, live.rule.arms[index], index, draw, propensity)


def _take_up(history: History, candidate: Candidate, drawn: Drawn) -> None:
    one, trigger = candidate.prepared, candidate.trigger
    customer, budget = trigger.customer_id, one.live.budget_id
    history.sides.setdefault((one.live.strategy_id, customer), drawn.side)
    history.enter(one.live.rule_id, customer, candidate.key, trigger.at)
    history.plan(customer, one.demands.messages[drawn.index], trigger.at.timestamp())
    if budget in history.available and not drawn.side.held_out:
        history.available[budget] -= sum(_costs(candidate, drawn))


def _costs(candidate: Candidate, drawn: Drawn) -> tuple[int, ...]:
    return tuple(int(step[candidate.row]) for step in candidate.prepared.costs[drawn.index])


def _receipt(
    shop: Circumstances, candidate: Candidate, verdicts: Sequence[Verdict], drawn: Drawn | None, verdict: str,
    rivals: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    one, row, trigger = candidate.prepared, candidate.row, candidate.trigger
    written = {
        **receipt.cause(one.live, trigger),
        "seen": receipt.seen(one.evaluation.explain(row)),
        "arms": [
            {"key": arm.key, "share": share, "score": values[row]}
            for arm, share, values in zip(one.live.rule.arms, one.shares, one.values, strict=True)
        ],
        "others": [key for key in rivals if key != one.live.key],
        "score": one.score[row],
        "estimator": scoring.ESTIMATOR,
        "guardrails": receipt.guardrails(verdicts),
    }
    if drawn is not None:
        written |= receipt.draws(one.live, trigger, drawn.side, shop.global_holdout, drawn.arm_draw)
    written["arm"] = drawn.arm.key if drawn else None
    written["propensity"] = drawn.propensity if drawn else None
    written["verdict"] = verdict
    return written


def _decision(
    candidate: Candidate, drawn: Drawn | None, verdict: str, prior: tuple[int, int], written: dict[str, Any]
) -> Decision:
    trigger, live = candidate.trigger, candidate.prepared.live
    return Decision(
        id=new_id(), customer_id=trigger.customer_id, random_key=trigger.random_key, strategy_id=live.strategy_id,
        strategy_key=live.strategy.key, rule_id=live.rule_id, rule_key=live.key, rule_version=live.version,
        trigger=trigger, verdict=verdict, arm=drawn.arm if drawn else None,
        held_out=drawn is not None and drawn.side.held_out, propensity=drawn.propensity if drawn else None,
        decided_at=trigger.at, event_received_at=trigger.event_received_at, budget_id=live.budget_id,
        exit_on=live.rule.exit_on, costs=_costs(candidate, drawn) if drawn else (), enrolment_key=candidate.key,
        prior_orders=prior[0], prior_revenue_minor=prior[1], is_new_assignment=drawn is not None and drawn.is_new,
        side_propensity=drawn.side.propensity if drawn else None, receipt_json=orjson.dumps(written),
    )  # fmt: skip
