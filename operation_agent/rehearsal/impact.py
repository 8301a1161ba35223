"""What publishing a version would mean: whom its rules would take now, what would stop them, what it may cost, whom it
finds on their way, which other strategies want the same people, and what would come out empty in its messages.

Everybody is looked at as of one moment, in parts. What only an event will tell (`event.*`, a value that changes) is
taken to come out as the rule needs it: then `matching` is who could be taken if such an event came now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.clustering import membership
from operation_agent.customers import features, wire
from operation_agent.customers.features import FeatureTable
from operation_agent.customers.wire import Uuids
from operation_agent.decision import candidates, engine, reading, store
from operation_agent.decision.candidates import Circumstances, Prepared
from operation_agent.decision.engine import Decision
from operation_agent.decision.facts import SCHEDULE, Trigger
from operation_agent.decision.history import History
from operation_agent.store.shops import Shop
from operation_agent.strategies.authoring import InFlight
from operation_agent.strategies.live import LiveRule, live_rules
from operation_agent.strategies.records import StrategyRow
from rules import evaluate
from rules.condition import Condition, Leaf
from rules.rule import Rule
from rules.strategy import Strategy
from rules.trigger import When

from .assuming import weakest
from .conflicts import Conflict, Meeting
from .draft import Cast, as_it_stands, circumstances, fill_purse
from .emptiness import Gap, gaps
from .underway import Held, held_up
from .untouched import forbid_writing, untouched

PART = 20_000
Mask = NDArray[np.bool_]

EVERYBODY = Leaf("customer.orders", "gte", 0.0, "number")
"""Holds for every customer: nobody has fewer than no orders."""
_TOLD_LATER = ("event.", "before:")


@dataclass(slots=True)
class RuleImpact:
    """Of one rule. `change`: 'new', 'changed', 'same' or 'removed'. `matching`: customers it would take now, as far as
    that can be told; `reachable` of them with an address that may be written to and consent. `verdicts`: what would
    become of them by verdict, `other_rule` being taken by another rule of the strategy first. Minor units: `at_most`
    if every coupon were redeemed, `expected` by the arms' priors, `worth` what it is expected to bring."""

    key: str
    change: str
    name: dict[str, str] = field(default_factory=dict)
    matching: int = 0
    reachable: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    other_rule: int = 0
    at_most_minor: int = 0
    expected_minor: float = 0.0
    worth_minor: float = 0.0
    without_name: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "rule": self.key, "name": self.name, "change": self.change, "matching": self.matching,
            "reachable": self.reachable, "acts": self.verdicts["act"], "held_out": self.verdicts["holdout"],
            "verdicts": dict(sorted(self.verdicts.items())), "other_rule": self.other_rule,
            "at_most_minor": self.at_most_minor, "expected_minor": round(self.expected_minor),
            "worth_minor": round(self.worth_minor),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Impact:
    """`customers`: everybody that was looked at. `in_flight`: who is on the way through a rule that changes or goes."""

    as_of: datetime
    customers: int
    currency: str
    rules: list[RuleImpact]
    in_flight: list[Held]
    conflicts: list[Conflict]
    gaps: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        return {
            "as_of": self.as_of, "customers": self.customers, "currency": self.currency,
            "rules": [one.to_dict() for one in self.rules],
            "in_flight": [one.to_dict() for one in self.in_flight],
            "conflicts": [one.to_dict() for one in self.conflicts],
            "empty_variables": self.gaps,
        }  # fmt: skip


def measure(
    session: Session, shop: Shop, strategy: Strategy, *, at: datetime, real: StrategyRow | None = None,
    live: Strategy | None = None, in_flight: InFlight = "finish",
) -> Impact:  # fmt: skip
    """Of publishing `strategy` at `at` (shop time) in place of `live`, of the shop's strategy `real`. Nothing is
    written."""
    with untouched(session):
        forbid_writing(session)
        survey = _Survey(session, shop, as_it_stands(session, shop, strategy, real), at)
        survey.look()
        changes = _changes(live, strategy)
        told = [survey.of(rule, changes[rule.key]) for rule in strategy.rules]
        told += [RuleImpact(key, "removed") for key, change in changes.items() if change == "removed"]
        held = [] if real is None else held_up(session, shop, real, strategy, changes, in_flight)
        return Impact(at, survey.customers, shop.currency, told, held, survey.conflicts(), survey.gaps(strategy))


def audience(session: Session, shop: Shop, *, at: datetime) -> Callable[[Strategy], int]:
    """Tells how many customers a strategy would take as of `at` (shop time): those its rules match now, and of what
    only an event can tell, everybody. What approvals by audience go by."""

    def reached(strategy: Strategy) -> int:
        found = measure(session, shop, strategy, at=at)
        return min(sum(rule.matching for rule in found.rules), found.customers)

    return reached


def _changes(live: Strategy | None, strategy: Strategy) -> dict[str, str]:
    before = {rule.key: rule.to_dict() for rule in live.rules} if live is not None else {}
    after = {rule.key: rule.to_dict() for rule in strategy.rules}
    found = {
        key: "new" if key not in before else "same" if before[key] == written else "changed"
        for key, written in after.items()
    }
    return found | {key: "removed" for key in before if key not in after}


def as_if_now(live: LiveRule) -> LiveRule:
    """A rule as though what it waits for came now, as it wants it."""
    condition: Condition = weakest(live.rule.condition, _is_told_now) or EVERYBODY
    when = live.rule.when
    if when.frequency == "once_per_key":  # the key of what comes next is a new one
        when = When(events=when.events, missed=when.missed, frequency="every_time", cooldown=when.cooldown)
    rule = replace(live.rule, condition=condition, when=when)
    return replace(live, rule=rule, condition=evaluate.compile(condition))


def _is_told_now(leaf: Leaf) -> bool:
    return not any(name.startswith(_TOLD_LATER) for name in leaf.columns)


class _Survey:
    """One pass over everybody."""

    def __init__(self, session: Session, shop: Shop, cast: Cast, at: datetime):
        self.session, self.shop, self.cast, self.at = session, shop, cast, at
        self.rules = [as_if_now(live) for live in cast.rules]
        others = [one for one in live_rules(session, shop.id) if one.strategy_id != cast.real_id]
        self.others = [as_if_now(live) for live in others]
        self.shop_wide: Circumstances = circumstances(session, shop, [cast])
        self.impacts = {live.rule_id: RuleImpact(live.rule.key, "same", live.rule.name) for live in self.rules}
        self.meeting = Meeting(shop, self.rules, self.others)
        self.customers = 0
        self._purses: dict[When, History] = {}

    def look(self) -> None:
        nameless = _nameless(self.session, self.shop)
        table = features.compute_all(self.session, self.shop.id, self.at)
        self.customers = len(table)
        everybody = [*self.rules, *self.others]
        for start in range(0, len(table), PART):
            part = table.part(start, start + PART)
            triggers = _looks(part, self.at)
            clusters = membership.assign(self.session, self.shop.id, part).clusters
            columns = reading.load(self.session, self.shop, triggers, part, clusters, everybody)
            told = evaluate.evaluate_all([one.condition for one in everybody], columns, len(part))
            masks = [one.matched for one in told]
            self.meeting.count(masks[: len(self.rules)], masks[len(self.rules) :])
            self._decide(part, triggers, columns, masks, nameless)

    def _decide(
        self, part: FeatureTable, triggers: Sequence[Trigger], columns: dict[str, Any], masks: Sequence[Mask],
        nameless: Uuids,
    ) -> None:  # fmt: skip
        ids = part.customer_ids
        assert isinstance(ids, Uuids)
        has_no_name = wire.places(ids.raw, nameless)[0]
        for live, mask in zip(self.rules, masks, strict=False):
            impact = self.impacts[live.rule_id]
            impact.matching += int(mask.sum())
            impact.without_name += int((mask & has_no_name).sum())
        for when, hosts in self._together().items():
            taken = np.logical_or.reduce([masks[self.rules.index(live)] for live in hosts])
            index = np.flatnonzero(taken)
            if len(index):
                self._hold(when, hosts, index, triggers, columns, part.columns)

    def _together(self) -> Mapping[When, list[LiveRule]]:
        """Rules that the same trigger asks are one contest."""
        found: dict[When, list[LiveRule]] = {}
        for live in self.rules:
            when = live.rule.when
            source = When(when.events, when.schedule, entered=when.entered, left=when.left, missed=when.missed)
            found.setdefault(source, []).append(live)
        return found

    def _hold(
        self, when: When, hosts: Sequence[LiveRule], index: NDArray[np.int64], triggers: Sequence[Trigger],
        columns: Mapping[str, Any], values: Mapping[str, Any],
    ) -> None:  # fmt: skip
        asked = frozenset(live.rule_id for live in hosts)
        rows = [replace(triggers[row], rule_ids=asked) for row in index.tolist()]
        here = {name: column[index] for name, column in values.items()}
        seen = {name: column[index] for name, column in columns.items()}
        prepared = candidates.prepare(hosts, rows, seen, here, self.shop_wide)
        history = self._history(when, hosts, rows)
        by_rule = {one.live.rule_id: one for one in prepared}
        taken: Counter[UUID] = Counter()
        for decision in engine.settle(self.shop_wide, prepared, rows, here, history):
            self._count(decision, by_rule[decision.rule_id])
            taken[decision.rule_id] += 1
        for rule_id, one in by_rule.items():
            self.impacts[rule_id].other_rule += len(one.rows) - taken[rule_id]

    def _history(self, when: When, hosts: Sequence[LiveRule], rows: Sequence[Trigger]) -> History:
        """What is left of money and of the day goes on from part to part."""
        history = store.load(self.session, self.shop, hosts, rows)
        known = self._purses.get(when)
        if known is None:
            fill_purse(self.session, self.shop, self.cast, history)
            self._purses[when] = history
            return history
        history.purses, history.taken = known.purses, known.taken
        return history

    def _count(self, decision: Decision, one: Prepared) -> None:
        impact = self.impacts[decision.rule_id]
        impact.verdicts[decision.verdict] += 1
        written = orjson.loads(decision.receipt_json)
        stopped = written.get("stopped", ())
        impact.reachable += not any(name in stopped for name in ("address", "suppression", "consent"))
        if decision.verdict == "act" and decision.arm is not None:
            redemption = decision.arm.prior.redemption if decision.arm.prior is not None else 1.0
            impact.at_most_minor += sum(decision.costs)
            impact.worth_minor += float(written["score"] or 0)
            for placed, cost in zip(decision.arm.places.values(), decision.costs, strict=True):
                impact.expected_minor += cost * (redemption if placed.step.action == "coupon" else 1.0)

    # -- what came of it ----------------------------------------------------------------------------------------------

    def of(self, rule: Rule, change: str) -> RuleImpact:
        for live in self.rules:
            if live.rule.key == rule.key:
                impact = self.impacts[live.rule_id]
                impact.change = change
                return impact
        return RuleImpact(rule.key, change, rule.name)  # it is switched off

    def conflicts(self) -> list[Conflict]:
        return self.meeting.conflicts()

    def gaps(self, strategy: Strategy) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for live in self.rules:
            rule = next(one for one in strategy.rules if one.key == live.rule.key)
            impact = self.impacts[live.rule_id]
            found += [_told(rule, gap, impact) for gap in gaps(rule)]
        return found


def _told(rule: Rule, gap: Gap, impact: RuleImpact) -> dict[str, Any]:
    number = impact.without_name
    return {
        "rule": rule.key, "arm": gap.arm, "step": gap.step, "variable": gap.variable,
        "languages": list(gap.languages), "customers": number,
        "share": round(number / impact.matching, 4) if impact.matching else None,
    }  # fmt: skip


def _looks(table: FeatureTable, at: datetime) -> list[Trigger]:
    people = zip(table.customer_ids, table.random_keys, strict=True)
    return [Trigger(one, random_key, SCHEDULE, None, at) for one, random_key in people]


_NAMELESS = text("""
SELECT id FROM customers WHERE shop_id = :shop AND merged_into IS NULL AND COALESCE(btrim(first_name), '') = ''
""")


def _nameless(session: Session, shop: Shop) -> Uuids:
    found: Iterable[UUID] = session.execute(_NAMELESS, {"shop": shop.id}).scalars()
    return Uuids.of(found)
