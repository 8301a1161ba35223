"""What each draft is expected to earn over the horizon: whom it reaches, times what its arms are believed to do. Pure.

What was measured is a strategy's as a whole, all its arms together; it moves the belief about each of its arms alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from operation_agent.strategies.generator import Draft
from operation_agent.strategies.predictor import ArmPlan, Measured, Prediction, forecast, predict
from rules import offer
from rules.program import Arm, actions
from rules.rule import Rule

from .evidence import Evidence, elsewhere


def predicted(
    draft: Draft,
    reached: Mapping[str, int],
    evidence: Evidence,
    *,
    treated_share: float,
    margin_rate: float,
    costs: Mapping[str, Any],
    prices: offer.Prices,
) -> Prediction:
    """`reached`: customers that each of the draft's rules takes, by its key; of them `treated_share` are not held out.
    `costs`: minor units by action type; `prices` of the shop. An arm without a prior is taken to do nothing."""
    label = draft.cluster.label_key
    here = evidence.get((draft.template, label))
    others = list(elsewhere(evidence, draft.template, label))
    parts = [
        forecast(
            _plans(rule, here, others, costs, prices),
            customers=reached.get(rule.key, 0) * treated_share,
            order_minor=draft.cluster.order_minor,
            margin_rate=margin_rate,
        )
        for rule in draft.strategy.rules
    ]
    total = parts[0]
    for part in parts[1:]:
        total = _added(total, part)
    return total


def messages(draft: Draft) -> float:
    """How many messages one customer gets at most: of the busiest arm of the busiest rule."""
    return float(max(_messages(arm) for rule in draft.strategy.rules for arm in rule.arms))


def _messages(arm: Arm) -> int:
    return sum(1 for one in actions(arm) if one.step.is_message and one.step.topic == "marketing")


def _plans(
    rule: Rule, here: Measured | None, others: list[Measured], costs: Mapping[str, Any], prices: offer.Prices
) -> list[ArmPlan]:
    weight = sum(arm.weight for arm in rule.arms)
    guess = sum(arm.weight * _increment(arm) for arm in rule.arms) / weight
    belief = predict(guess, others, here)
    plans = []
    for arm in rule.arms:
        if arm.steps:
            own = replace(belief, mean=_increment(arm) + belief.mean - guess)
            redemption = arm.prior.redemption if arm.prior else 0.0
            percent, fixed = _given(arm, prices)
            plans.append(ArmPlan(arm.weight / weight, own, redemption, percent, _cost(arm, costs), fixed))
    return plans


def _increment(arm: Arm) -> float:
    return arm.prior.increment if arm.prior and arm.steps else 0.0


def _given(arm: Arm, prices: offer.Prices) -> tuple[float, float]:
    """What its deepest coupon gives: percent of an order, and minor units besides."""
    coupons = [one.step.parameters for one in actions(arm) if one.step.action == "coupon"]
    if not coupons:
        return 0.0, 0.0
    deepest = max(coupons, key=lambda one: offer.depth(one, prices))
    value = offer.value(deepest, prices)
    return float(deepest.get("percent", 0)) * value.uses, value.fixed_minor * value.uses


def _cost(arm: Arm, costs: Mapping[str, Any]) -> float:
    return float(sum(costs.get(one.step.action, 0) for one in actions(arm)))


def _added(one: Prediction, two: Prediction) -> Prediction:
    """Two rules of one strategy err together, so their intervals add up."""
    names = [name for name in Prediction.__dataclass_fields__ if name != "evidence"]
    summed = {name: getattr(one, name) + getattr(two, name) for name in names}
    return Prediction(**summed, evidence=max(one.evidence, two.evidence))
