"""What doing something is expected to be worth, before anything was measured here: the template's prior.

expected value = increment × order × margin − redemption × discount − message costs, in minor units of the shop's
currency. `increment` is by how much the arm raises the chance of an order against doing nothing; `redemption` the
chance that its coupon is used, also by those who would have ordered anyway. An estimator fitted to this shop replaces
the prior; the receipt names which one spoke (ESTIMATOR).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rules import program
from rules.program import Arm
from rules.step import Step

ESTIMATOR = "prior/1"

TYPICAL_ORDER = 50
"""Units of the shop's currency: the order assumed of somebody who has not ordered yet, in a shop whose settings do not
say `typical_order_minor`."""

MESSAGE_COST_MINOR = {"email": 1}
"""`shop.settings["costs"]` overrides it by action type."""

Floats = NDArray[np.float64]


def order_value(average_order_minor: Floats, settings: Mapping[str, Any], currency_digits: int) -> Floats:
    """The order to expect of each customer: the average of its own, else the shop's typical one."""
    typical = float(settings.get("typical_order_minor") or TYPICAL_ORDER * 10**currency_digits)
    return np.where(average_order_minor > 0, average_order_minor, typical)


def step_cost(step: Step, orders: Floats, settings: Mapping[str, Any]) -> Floats:
    """What a step may cost at most, per customer: a message its price, a coupon its discount on the expected order.
    This is what a budget reserves."""
    unit = float(settings.get("costs", {}).get(step.action, MESSAGE_COST_MINOR.get(step.action, 0)))
    percent = float(step.parameters.get("percent", 0)) if step.action == "coupon" else 0.0
    return np.ceil(orders * (percent / 100) + unit)


def arm_value(arm: Arm, orders: Floats, *, margin_rate: float, settings: Mapping[str, Any]) -> Floats:
    """Expected value of an arm per customer; without a prior, NaN for an arm with steps. Doing nothing is worth 0."""
    if not arm.steps:
        return np.zeros_like(orders)
    if arm.prior is None:
        return np.full_like(orders, np.nan)
    value = arm.prior.increment * orders * margin_rate
    for placed in program.actions(arm):
        cost = step_cost(placed.step, orders, settings)
        value = value - (arm.prior.redemption * cost if placed.step.action == "coupon" else cost)
    return value
