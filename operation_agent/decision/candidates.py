"""Whom each rule takes: every live rule held against all triggers of a call at once, as columns.

A *candidate* is a trigger whose rule's condition holds. The candidates of one trigger and one strategy are a *contest*:
one decision comes of it, for the first of them that nothing stops. The contests of one customer are decided one after
the other, in rounds over all customers, so that each sees what the one before it led to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from operation_agent.experiments import assignment
from operation_agent.strategies.live import LiveRule
from rules.columns import Labels
from rules.evaluate import evaluate_all
from rules.limits import ShopLimits, parse_shop

from . import receipt, scoring
from .cast import Cast
from .demands import Demands, demands_of
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
    wanted = demands_of(live, limits, shop.settings, shop.currency_digits)
    orders = scoring.order_value(features["average_order_minor"][rows], shop.settings, shop.currency_digits)
    shares = receipt.shares_of(live.strategy.policy, live.rule)
    increments, estimator = _increments(live, features, rows, shop)
    costs = [scoring.step_costs(arm, orders, shop.settings, shop.currency_digits) for arm in arms]
    values = [
        scoring.arm_value(
            arm, orders, margin_rate=shop.margin_rate, costs=cost, increment=increments.get(arm.key)
        ).round(2)
        for arm, cost in zip(arms, costs, strict=True)
    ]
    dearest = [scoring.dearest(arm, cost, n).astype(np.int64) for arm, cost in zip(arms, costs, strict=True)]
    return Prepared(
        live=live,
        wanted=wanted,
        rows=rows.tolist(),
        keys=keys,
        shares=shares,
        orders=orders.tolist(),
        values=list(zip(*(value.tolist() for value in values), strict=True)),
        score=scoring.under_policy(values, shares).tolist(),
        costs=[_tuples(cost, n) for cost in costs],
        arm_costs=[one.tolist() for one in dearest],
        dearest=np.maximum.reduce(dearest).tolist(),
        seen=_seen(wanted, columns, rows),
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


def _seen(wanted: Demands, columns: Columns, rows: Ints) -> list[tuple[Any, ...]]:
    listed = []
    for field in wanted.seen:
        column = columns.get(field)
        listed.append([None] * len(rows) if column is None else _plain(column[rows]))
    return list(zip(*listed, strict=True))


def _plain(column: Any) -> list[Any]:
    values: list[Any] = (column.objects() if isinstance(column, Labels) else column).tolist()
    return values


# -- contests ---------------------------------------------------------------------------------------------------------


class Contest(NamedTuple):
    """The candidates of one trigger and strategy, best first: (which prepared rule, position in it). `others`: rules of
    other strategies that hold for the same trigger; `is_last` of its customer in this call."""

    row: int
    contenders: tuple[tuple[int, int], ...]
    others: tuple[str, ...]
    is_last: bool


def rounds(prepared: Sequence[Prepared], cast: Cast) -> list[list[Contest]]:
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
    rows = row[leads]
    at = np.array([cast.at(one) for one in rows.tolist()])
    when = np.lexsort((which[leads], cast.ranks(rows), -score[leads], -priority[leads], at))
    contenders = _contenders(which[order].tolist(), position[order].tolist(), starts.tolist())
    others = _others(prepared, rows, contenders)
    found: list[list[Contest]] = []
    for number, is_last, index in _numbered(when, cast.codes[rows]):
        if number == len(found):
            found.append([])
        found[number].append(Contest(int(rows[index]), contenders[index], others.get(index, ()), is_last))
    return found


def _contenders(which: list[int], position: list[int], starts: list[int]) -> list[tuple[tuple[int, int], ...]]:
    pairs = list(zip(which, position, strict=True))
    if len(starts) == len(pairs):
        return [(pair,) for pair in pairs]
    return [tuple(pairs[start:end]) for start, end in zip(starts, [*starts[1:], len(pairs)], strict=True)]


def _others(
    prepared: Sequence[Prepared], rows: Ints, contenders: Sequence[tuple[tuple[int, int], ...]]
) -> dict[int, tuple[str, ...]]:
    """By contest, where a trigger has several: the rules of its other contests. Contests of a row are neighbours."""
    found: dict[int, tuple[str, ...]] = {}
    same = np.flatnonzero(np.diff(rows) == 0).tolist()
    groups: dict[int, set[int]] = {}
    for index in same:
        groups.setdefault(int(rows[index]), set()).update((index, index + 1))
    for group in groups.values():
        for index in group:
            beside = [one for one in sorted(group) if one != index]
            found[index] = tuple(prepared[which].live.key for one in beside for which, _ in contenders[one])
    return found


def _numbered(when: Ints, codes: Ints) -> Iterator[tuple[int, bool, int]]:
    """Contests in the order in which they are decided, each with its number among its customer's."""
    rank = np.empty(len(when), np.int64)
    rank[when] = np.arange(len(when))
    together = np.lexsort((rank, codes))
    starts = np.r_[True, np.diff(codes[together]) != 0]
    ends = np.r_[starts[1:], True]
    first = np.maximum.accumulate(np.where(starts, np.arange(len(when)), 0))
    number, is_last = np.empty(len(when), np.int64), np.empty(len(when), np.bool_)
    number[together] = np.arange(len(when)) - first
    is_last[together] = ends
    order = when[np.argsort(number[when], kind="stable")]
    return zip(number[order].tolist(), is_last[order].tolist(), order.tolist(), strict=True)
