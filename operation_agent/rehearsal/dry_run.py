"""The test bench: a strategy held against chosen customers as of now, by the code that decides live.

The event of a trial is taken in as any other would be, inside a savepoint that is given up afterwards: features,
histories and consents are what they would be, and nothing stays. Each customer is tried alone, so that they do not
compete for money.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy.orm import Session

from operation_agent.actions.executor import sender_of
from operation_agent.actions.rendering import Person, Sender
from operation_agent.actions.segments import Manner
from operation_agent.actions.situations import people_of
from operation_agent.clustering import membership
from operation_agent.customers import features, history
from operation_agent.customers.identity import Resolved
from operation_agent.decision import candidates, engine, reading, store
from operation_agent.decision.candidates import Circumstances, Prepared
from operation_agent.decision.engine import Decision
from operation_agent.decision.explain import LANGUAGES, explain
from operation_agent.decision.facts import Trigger
from operation_agent.decision.history import History
from operation_agent.kit.errors import Rejected
from operation_agent.segments import before
from operation_agent.segments.columns import Wanted
from operation_agent.store.shops import Shop
from operation_agent.strategies.calendar import zone_of
from operation_agent.strategies.live import LiveRule
from operation_agent.strategies.records import StrategyRow
from rules.strategy import Strategy

from .draft import Cast, as_it_stands, circumstances, fill_purse
from .preview import Paper, SampleLinks, Viewer
from .trial import Trial
from .untouched import forbid_writing, untouched

MOST_CUSTOMERS = 50


@dataclass(frozen=True, slots=True)
class Tried:
    """What the strategy would do for one customer (None: a hypothetical one). `rules`: each with whether the trigger
    asks it, whether its condition holds (None: unknown) and every comparison. `decision` None: no rule takes it."""

    customer_id: UUID | None
    rules: list[dict[str, Any]]
    candidates: list[dict[str, Any]]
    decision: dict[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "customer_id": self.customer_id, "rules": self.rules, "candidates": self.candidates,
            "decision": self.decision,
        }  # fmt: skip


def run(
    session: Session, shop: Shop, strategy: Strategy, customer_ids: Sequence[UUID], trial: Trial, *, at: datetime,
    real: StrategyRow | None = None, base_url: str = "",
) -> list[Tried]:  # fmt: skip
    """Try `strategy` on up to MOST_CUSTOMERS as of `at` (shop time), in their order; nothing is written.

    `real`: the strategy of the shop that it is a version of. `base_url`: of the sample unsubscribe link. Raises
    Rejected for no or too many customers, an unknown one (`where` names it), or a malformed event.
    """
    if not 1 <= len(customer_ids) <= MOST_CUSTOMERS:
        raise Rejected(f"{len(customer_ids)} customers; name 1 to {MOST_CUSTOMERS}", where="customers")
    with untouched(session):
        return _Bench(session, shop, strategy, real, at, base_url).on_customers(customer_ids, trial)


class _Bench:
    def __init__(
        self, session: Session, shop: Shop, strategy: Strategy, real: StrategyRow | None, at: datetime, base_url: str
    ):
        self.session, self.shop, self.at = session, shop, at
        self.cast = as_it_stands(session, shop, strategy, real)
        self.stage = Stage(shop, self.cast, circumstances(session, shop, [self.cast]), base_url)

    def on_customers(self, customer_ids: Sequence[UUID], trial: Trial) -> list[Tried]:
        session, shop, rules = self.session, self.shop, self.cast.rules
        people = people_of(session, shop.id, set(customer_ids))
        for number, one in enumerate(customer_ids):
            if one not in people:
                raise Rejected(f"there is no customer {one}", code="customer", where=f"customers[{number}]")
        persons = [people[one] for one in customer_ids]
        wanted = Wanted.of(live.condition for live in rules)
        remembered = before.remember(session, shop.id, [one.id for one in persons], wanted)
        events = [trial.event(shop, self.at) for _ in persons]
        keys = _random_keys(session, shop, [one.id for one in persons], self.at)
        if trial.kind == "event":
            told = [event for event in events if event is not None]
            known = {
                event.id: Resolved(one.id, key)
                for event, one, key in zip(told, persons, keys, strict=True)
            }  # fmt: skip
            history.apply(session, shop, told, known)
        forbid_writing(session)
        triggers = [
            trial.trigger(one.id, key, event, self.at, rules)
            for one, key, event in zip(persons, keys, events, strict=True)
        ]
        table = features.compute(session, shop.id, [(one.customer_id, one.at) for one in triggers])
        clusters = membership.assign(session, shop.id, table).clusters
        columns = reading.load(session, shop, triggers, table, clusters, rules, remembered=remembered)
        past = store.load(session, shop, rules, triggers)
        fill_purse(session, shop, self.cast, past)
        return [
            self.stage.one(
                person, trigger, _row(columns, row), _row(table.columns, row), deepcopy(past), customer_id=asked
            )
            for row, (asked, person, trigger) in enumerate(zip(customer_ids, persons, triggers, strict=True))
        ]


def _random_keys(session: Session, shop: Shop, ids: Sequence[UUID], at: datetime) -> list[UUID]:
    return list(features.compute(session, shop.id, [(one, at) for one in ids]).random_keys)


def _row(columns: Mapping[str, Any], row: int) -> dict[str, Any]:
    return {name: column[row : row + 1] for name, column in columns.items()}


@dataclass(frozen=True, slots=True)
class Stage:
    """Where one customer is tried, with columns of one row. Pure."""

    shop: Shop
    cast: Cast
    circumstances: Circumstances
    base_url: str

    def one(
        self, person: Person, trigger: Trigger, columns: dict[str, Any], values: dict[str, Any], past: History,
        *, customer_id: UUID | None, paper: Paper | None = None,
    ) -> Tried:  # fmt: skip
        """`values` as FeatureTable.columns; `past` is used up."""
        rules = [self._rule(live, trigger, columns) for live in self.cast.rules]
        prepared = candidates.prepare(self.cast.rules, [trigger], columns, values, self.circumstances)
        decisions = engine.settle(self.circumstances, prepared, [trigger], values, past)
        decision = None
        if decisions:
            chosen = next(one for one in prepared if one.live.rule_id == decisions[0].rule_id)
            decision = self._decision(decisions[0], chosen, person, paper or Paper())
        return Tried(customer_id, rules, [_candidate(one) for one in prepared], decision)

    def _rule(self, live: LiveRule, trigger: Trigger, columns: Mapping[str, Any]) -> dict[str, Any]:
        evaluation = live.condition.evaluate(columns, 1)
        matched = None if evaluation.unknown[0] else bool(evaluation.matched[0])
        return {
            "rule": live.rule.key, "when": live.rule.when.to_dict(),
            "is_asked": candidates.is_asked(live, trigger), "holds": matched,
            "comparisons": [leaf.to_dict() for leaf in evaluation.explain(0)],
        }  # fmt: skip

    def _decision(self, decision: Decision, one: Prepared, person: Person, paper: Paper) -> dict[str, Any]:
        receipt = decision.receipt
        chosen = decision.arm.key if decision.arm is not None else None
        return {
            "rule": one.live.rule.key, "verdict": decision.verdict, "arm": chosen, "held_out": decision.held_out,
            "propensity": decision.propensity, "guardrails": _told(receipt["guardrails"]),
            "side": receipt.get("side"), "arm_draw": receipt.get("arm_draw"),
            "needs_approval": list(decision.needs_approval), "cost_minor": sum(decision.costs),
            "arms": [self._arm(index, decision, one, person, paper) for index in range(len(one.live.rule.arms))],
            "explanation": {language: explain(receipt, language) for language in LANGUAGES},
            "receipt": receipt,
        }  # fmt: skip

    def _arm(
        self, index: int, decision: Decision, one: Prepared, person: Person, paper: Paper
    ) -> dict[str, Any]:  # fmt: skip
        arm, costs = one.live.rule.arms[index], one.costs[index][0]
        event = decision.trigger.event
        viewer = Viewer(
            self._sender(), Manner.of(decision.limits, self.shop), person, zone_of(decision.zone, self.shop),
            event.properties if event is not None else {}, costs, paper,
        )  # fmt: skip
        return {
            "arm": arm.key, "share": one.shares[index], "score": _number(one.values[0][index]),
            "is_chosen": decision.arm is not None and decision.arm.key == arm.key,
            "cost_minor": one.arm_costs[index][0], "steps": viewer.steps(arm, decision.decided_at),
        }  # fmt: skip

    def _sender(self) -> Sender:
        return sender_of(self.shop, SampleLinks(self.base_url.rstrip("/"), ""))


def _told(guardrails: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: {"passes": detail is True, "why": None if detail is True else detail}
        for name, detail in guardrails.items()
    }


def _candidate(one: Prepared) -> dict[str, Any]:
    return {
        "rule": one.live.rule.key, "priority": one.live.rule.priority, "score": one.score[0],
        "estimator": one.estimator, "dearest_minor": one.dearest[0],
        "arms": [
            {"arm": arm.key, "share": share, "score": _number(value)}
            for arm, share, value in zip(one.live.rule.arms, one.shares, one.values[0], strict=True)
        ],
    }  # fmt: skip


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
