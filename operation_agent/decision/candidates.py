"""Whom each rule takes: every live rule held against all triggers of a call at once, as columns.

A *candidate* is a trigger whose rule's condition holds. The candidates of one trigger and one strategy are a *contest*:
one decision comes of it, for the first of them that nothing stops. The contests of one customer are decided one after
the other, in rounds over all customers, so that each sees what the one before it led to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from operation_agent.experiments import assignment
from operation_agent.strategies.live import LiveRule
from rules.columns import Labels
from rules.evaluate import evaluate_all
from rules.limits import ShopLimits, parse_shop

from . import receipt, scoring
from .demands import Demands, demands
from .facts import Columns, Trigger, property_of
from .scoring import Estimator

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What of the shop a decision depends on. `margin_rate` is a share of the price; money in minor units; `zone` the
    shop's time zone (IANA); `estimators` by strategy. `campaign_id`: of the campaign that decides."""

    seed: str
    currency_digits: int
    margin_rate: float
    settings: Mapping[str, Any]
    zone: str = "UTC"
    estimators: Mapping[UUID, Estimator] | None = None
    campaign_id: UUID | None = None

    @property
    def global_holdout(self) -> float:
        """`shop.settings["global_holdout"]`, a share in [0, 1); held out of every strategy of the shop."""
        return float(self.settings.get("global_holdout", assignment.GLOBAL_HOLDOUT))

    def limits(self) -> ShopLimits:
        """Raises RuleError when the shop's settings do not read: without its limits nothing may be decided."""
        return parse_shop(self.settings)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A live rule with the rows it takes; all else is by position among them. `keys`: of the enrolment (None: ""
    everywhere). `values`: expected value of each arm (minor units, NaN: unknown), `score` under the policy. `costs`:
    per arm, of each action; `arm_costs`: of the dearest way through each arm, `dearest`: through the dearest of them.
    `seen`: the values that the condition looked at."""

    live: LiveRule
    wanted: Demands
    rows: list[int]
    keys: list[str] | None
    shares: tuple[float, ...]
    orders: list[float]
    values: list[tuple[float, ...]]
    score: list[float]
    costs: list[list[tuple[int, ...]]]
    arm_costs: list[list[int]]
    dearest: list[int]
    seen: list[tuple[Any, ...]]
    estimator: str

    def key(self, position: int) -> str:
        """Of the enrolment."""
        return "" if self.keys is None else self.keys[position]


def prepare(
    rules: Sequence[LiveRule], triggers: Sequence[Trigger], columns: Columns, features: Columns, shop: Circumstances
) -> list[Prepared]:
    """Hold each rule against the triggers that ask it; those that take nobody are left out. `features` as
    FeatureTable.columns."""
    codes, kinds = _kinds(triggers)
    limits = shop.limits()
    found = []
    wanted = [(live, np.array([is_asked(live, one) for one in kinds], np.bool_)) for live in rules]
    asked = sorted(((live, mask) for live, mask in wanted if mask.any()), key=lambda one: one[0].key)
    told = evaluate_all([live.condition for live, _ in asked], columns, len(triggers))
    for (live, mask), evaluation in zip(asked, told, strict=True):
        rows = np.flatnonzero(evaluation.matched if mask.all() else mask[codes] & evaluation.matched)
        keys, rows = _keys(live, triggers, rows)
        if len(rows):
            found.append(_prepared(live, rows, keys, columns, features, shop, limits))
    return found


def _kinds(triggers: Sequence[Trigger]) -> tuple[Ints, list[Trigger]]:
    """Triggers that ask the same rules have one code; and one trigger of each."""
    found: dict[Any, int] = {}
    codes = [found.setdefault((one.type, one.rule_ids, one.group), len(found)) for one in triggers]
    firsts: dict[int, Trigger] = {}
    for code, trigger in zip(reversed(codes), reversed(triggers), strict=True):
        firsts[code] = trigger
    return np.array(codes, np.int64), [firsts[code] for code in range(len(found))]


def is_asked(live: LiveRule, trigger: Trigger) -> bool:
    """Whether the trigger is one that the rule waits for."""
    if trigger.rule_ids:
        return live.rule_id in trigger.rule_ids
    if trigger.group is not None:
        return trigger.group == (live.rule.when.left if trigger.type.endswith(".left") else live.rule.when.entered)
    return trigger.type in live.rule.when.events


def _keys(live: LiveRule, triggers: Sequence[Trigger], rows: Ints) -> tuple[list[str] | None, Ints]:
    """The enrolment's key of each row; a trigger that does not say what it is about is no candidate."""
    field = live.rule.when.key
    if field is None:
        return None, rows
    keys = [property_of(triggers[row].event, field) for row in rows.tolist()]
    known = [key for key in keys if key is not None]
    return known, rows[[key is not None for key in keys]]


def _prepared(
    live: LiveRule, rows: Ints, keys: list[str] | None, columns: Columns, features: Columns, shop: Circumstances,
    limits: ShopLimits,
) -> Prepared:  # fmt: skip
    arms, n = live.rule.arms, len(rows)
    orders = scoring.order_value(features["average_order_minor"][rows], shop.settings, shop.currency_digits)
    shares = receipt.shares_of(live.strategy.policy, live.rule)
    increments, estimator = _increments(live, features, rows, shop)
    costs = [scoring.step_costs(arm, orders, shop.settings) for arm in arms]
    values = [
        scoring.arm_value(
            arm, orders, margin_rate=shop.margin_rate, settings=shop.settings, increment=increments.get(arm.key)
        ).round(2)
        for arm in arms
    ]
    dearest = [scoring.dearest(arm, cost, n).astype(np.int64) for arm, cost in zip(arms, costs, strict=True)]
    return Prepared(
        live=live,
        wanted=demands(live, limits, shop.settings, shop.currency_digits),
        rows=rows.tolist(),
        keys=keys,
        shares=shares,
        orders=orders.tolist(),
        values=list(zip(*(value.tolist() for value in values), strict=True)),
        score=scoring.under_policy(values, shares).tolist(),
        costs=[_tuples(cost, n) for cost in costs],
        arm_costs=[one.tolist() for one in dearest],
        dearest=np.maximum.reduce(dearest).tolist(),
        seen=_seen(live, columns, rows),
        estimator=estimator,
    )


def _increments(
    live: LiveRule, features: Columns, rows: Ints, shop: Circumstances
) -> tuple[dict[str, NDArray[np.float64]], str]:
    """Of the strategy's estimator, when it knows every arm that does something: values of two kinds do not compare."""
    estimator = (shop.estimators or {}).get(live.strategy_id)
    acting = [arm.key for arm in live.rule.arms if arm.places]
    if estimator is None or not acting or not set(acting) <= set(estimator.model.arms):
        return {}, scoring.PRIOR
    wanted = {one.name: features[one.name][rows] for one in estimator.model.scalings}
    return estimator.increments(wanted), estimator.name


def _tuples(costs: Sequence[NDArray[np.float64]], n: int) -> list[tuple[int, ...]]:
    return list(zip(*(cost.astype(np.int64).tolist() for cost in costs), strict=True)) if costs else [()] * n


def _seen(live: LiveRule, columns: Columns, rows: Ints) -> list[tuple[Any, ...]]:
    listed = []
    for field, _ in receipt.fields(live.rule.condition):
        column = columns.get(field)
        listed.append([None] * len(rows) if column is None else _plain(column[rows]))
    return list(zip(*listed, strict=True))


def _plain(column: Any) -> list[Any]:
    values: list[Any] = (column.objects() if isinstance(column, Labels) else column).tolist()
    return values


# -- contests ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Contest:
    """The candidates of one trigger and strategy, best first: (which prepared rule, position in it)."""

    row: int
    contenders: tuple[tuple[int, int], ...]
    others: tuple[str, ...]  # rules of other strategies that hold for the same trigger
    is_last: bool  # of its customer in this call


def rounds(prepared: Sequence[Prepared], triggers: Sequence[Trigger]) -> list[list[Contest]]:
    """The contests in the rounds in which they are decided: the k-th of each customer in round k.

    A customer's are taken by time, then priority, then expected value, then key, and so are the rules of a contest.
    """
    which = np.repeat(np.arange(len(prepared)), [len(one.rows) for one in prepared])
    position = np.concatenate([np.arange(len(one.rows)) for one in prepared])
    row = np.concatenate([np.asarray(one.rows, np.int64) for one in prepared])
    score = np.concatenate([np.asarray(one.score) for one in prepared])
    priority = np.array([one.live.rule.priority for one in prepared])[which]
    codes: dict[UUID, int] = {}
    strategy = np.array([codes.setdefault(one.live.strategy_id, len(codes)) for one in prepared])[which]
    order = np.lexsort((which, -score, -priority, strategy, row))
    starts = np.flatnonzero(np.r_[True, (np.diff(row[order]) != 0) | (np.diff(strategy[order]) != 0)])
    leads = order[starts]
    pairs = list(zip(which[order].tolist(), position[order].tolist(), strict=True))
    contests = _contests(prepared, pairs, starts.tolist(), row[leads].tolist(), len(order))
    at = np.array([triggers[one].at.timestamp() for one in row[leads].tolist()])
    when = np.lexsort((which[leads], _by_trigger(triggers, row[leads]), -score[leads], -priority[leads], at))
    return _in_rounds(contests, when, [triggers[one].customer_id for one in row[leads].tolist()])


def _contests(
    prepared: Sequence[Prepared], pairs: list[tuple[int, int]], starts: list[int], rows: list[int], n: int
) -> list[tuple[int, tuple[tuple[int, int], ...], tuple[str, ...]]]:
    ends = [*starts[1:], n]
    rivals: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        rivals.setdefault(row, []).append(index)
    found = []
    for index, (row, start, end) in enumerate(zip(rows, starts, ends, strict=True)):
        beside = rivals[row]
        others: tuple[str, ...] = ()
        if len(beside) > 1:
            others = tuple(prepared[pairs[at][0]].live.key for one in beside if one != index
                           for at in range(starts[one], ends[one]))  # fmt: skip
        found.append((row, tuple(pairs[start:end]), others))
    return found


def _by_trigger(triggers: Sequence[Trigger], rows: Ints) -> Ints:
    """Ranks by what is the same in every run; alike where every trigger is of another customer."""
    listed = [triggers[row] for row in rows.tolist()]
    if len({one.customer_id for one in listed}) == len(listed) or all(one.event is None for one in listed):
        return np.zeros(len(listed), np.int64)
    keys = {key: rank for rank, key in enumerate(sorted({one.key for one in listed}))}
    return np.array([keys[one.key] for one in listed], np.int64)


def _in_rounds(
    contests: Sequence[tuple[int, tuple[tuple[int, int], ...], tuple[str, ...]]], order: Ints, customers: list[UUID]
) -> list[list[Contest]]:
    left: dict[UUID, int] = {}
    for customer in customers:
        left[customer] = left.get(customer, 0) + 1
    passed = dict.fromkeys(left, 0)
    found: list[list[Contest]] = []
    for index in order.tolist():
        customer = customers[index]
        number = passed[customer]
        passed[customer] = number + 1
        if number == len(found):
            found.append([])
        row, contenders, others = contests[index]
        found[number].append(Contest(row, contenders, others, number + 1 == left[customer]))
    return found
