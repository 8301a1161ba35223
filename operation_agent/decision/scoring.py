"""What doing something is expected to be worth, against doing nothing.

expected value = increment × order × margin − redemption × discount − message costs, in minor units of the shop's
currency. `increment` is by how much the arm raises the chance of an order against doing nothing; `redemption` the
chance that its coupon is used, also by those who would have ordered anyway. The increment is what an estimator fitted
to this shop says of this customer; before there is one, the template's prior for everybody. The receipt names which
one spoke.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operation_agent.experiments.uplift import Model
from rules import offer
from rules.program import Arm, costliest
from rules.step import Step

PRIOR = "prior/1"

MESSAGE_COST_MINOR = {"email": 1}
"""`shop.settings["costs"]` overrides it by action type."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimator:
    """What was learned of one strategy: for each of its arms, by how much it raises the chance of an order."""

    name: str
    model: Model

    @classmethod
    def read(cls, kind: str, version: int, model: Mapping[str, Any]) -> Estimator:
        """From the table `estimators`. Raises ValueError for a kind this code does not know."""
        return cls(f"{kind}/{version}", Model.from_json({"kind": kind, **model}))

    def increment(self, arm_key: str, columns: Mapping[str, NDArray[Any]]) -> Floats | None:
        """Of each row; None for an arm it knows nothing of. `columns` as FeatureTable.columns, NaN for missing."""
        if arm_key not in self.model.arms:
            return None
        return self.increments(columns)[arm_key]

    def increments(self, columns: Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
        """Of every arm it knows, by the arm's key."""
        wanted = {one.name: columns[one.name].astype(np.float64) for one in self.model.scalings}
        return self.model.increments(wanted)


def order_value(average_order_minor: Floats, settings: Mapping[str, Any], currency_digits: int) -> Floats:
    """The order to expect of each customer: the average of its own, else the shop's typical one."""
    typical = offer.Prices.of(settings, currency_digits).order_minor
    return np.where(average_order_minor > 0, average_order_minor, typical)


def step_cost(step: Step, orders: Floats, settings: Mapping[str, Any], currency_digits: int = 2) -> Floats:
    """What a step may cost at most, per customer: a message its price, a coupon its discount on the expected order (or
    on the least order it is for), as often as it can be used. This is what a budget reserves."""
    unit = float(settings.get("costs", {}).get(step.action, MESSAGE_COST_MINOR.get(step.action, 0)))
    if step.action != "coupon":
        return np.full(len(orders), math.ceil(unit), np.float64)
    one = offer.value(step.parameters, offer.Prices.of(settings, currency_digits))
    given = np.maximum(orders, one.least_minor) * one.share + one.fixed_minor
    return np.ceil(given * one.uses + unit)


def step_costs(arm: Arm, orders: Floats, settings: Mapping[str, Any], currency_digits: int = 2) -> list[Floats]:
    """Of every action of an arm, by its number."""
    return [step_cost(placed.step, orders, settings, currency_digits) for placed in arm.places.values()]


def dearest(arm: Arm, costs: list[Floats], n: int) -> Floats:
    """What the dearest way through an arm costs each of `n` customers."""
    found: Floats = np.zeros(n) + costliest(arm, costs, np.maximum)
    return found


def arm_value(
    arm: Arm, orders: Floats, *, margin_rate: float, costs: Sequence[Floats], increment: Floats | None = None
) -> Floats:
    """Expected value of an arm per customer; NaN for one with actions of which neither an estimator (`increment`) nor a
    prior says anything; `costs` as step_costs. Doing nothing is worth 0."""
    if not arm.places:
        return np.zeros_like(orders)
    if increment is None and arm.prior is None:
        return np.full_like(orders, np.nan)
    expected: Floats | float = increment if increment is not None else arm.prior.increment if arm.prior else 0.0
    redemption = arm.prior.redemption if arm.prior else np.maximum(expected, 0.0)
    value = expected * orders * margin_rate
    for placed, cost in zip(arm.places.values(), costs, strict=True):
        value = value - (redemption * cost if placed.step.action == "coupon" else cost)
    return value


def under_policy(values: Sequence[Floats], shares: Sequence[float]) -> Floats:
    """What a rule is worth: its arms' values (rounded to hundredths) by their shares; an unknown one counts 0."""
    total = np.zeros_like(values[0])
    for value, share in zip(values, shares, strict=True):
        total = total + share * np.where(np.isnan(value), 0.0, value)
    return total.round(2)
