"""What a proposed strategy is expected to earn, and how sure that is: a template's prior, corrected by what was seen.

Pure. The quantity is the increment: by how much the chance of an order rises against being left alone. A shipped prior
is an educated guess, so it enters as a normal distribution whose 95 % interval reaches from nothing to twice the guess.
What the shop's own holdouts measured is combined with it by precision (normal-normal shrinkage, Efron and Morris 1973):
first what the template did in any cluster, widened by how much clusters may differ, then what it did in this one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from statistics import NormalDist

CONFIDENCE = 0.95
_REACH = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
LEAST_SPREAD = 0.005
"""Half a percentage point: how little may be claimed to be known of an increment before anything was measured, and how
much clusters are taken to differ."""


@dataclass(frozen=True, slots=True)
class Belief:
    """A normal distribution of an increment. `evidence`: customers it rests on, 0 for a guess."""

    mean: float
    variance: float
    evidence: int = 0

    def widened(self, by: float) -> Belief:
        return Belief(self.mean, self.variance + by, self.evidence)

    def combined(self, other: Belief) -> Belief:
        """Both, weighted by their precision."""
        precision = 1 / self.variance + 1 / other.variance
        mean = (self.mean / self.variance + other.mean / other.variance) / precision
        return Belief(mean, 1 / precision, self.evidence + other.evidence)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a template's arms did in customers of one cluster label: customers and orders of both sides."""

    treated: int
    treated_orders: int
    held_out: int
    held_out_orders: int

    def belief(self) -> Belief | None:
        """The difference of both sides' shares of customers who ordered, with its variance; None while a side has
        nobody. Agresti and Caffo (2000): one more of each outcome on each side, so that no side claims certainty."""
        if not self.treated or not self.held_out:
            return None
        n, m = self.treated + 2, self.held_out + 2
        p, q = (self.treated_orders + 1) / n, (self.held_out_orders + 1) / m
        return Belief(p - q, p * (1 - p) / n + q * (1 - q) / m, self.treated + self.held_out)

    def __add__(self, other: Measured) -> Measured:
        return Measured(
            self.treated + other.treated, self.treated_orders + other.treated_orders,
            self.held_out + other.held_out, self.held_out_orders + other.held_out_orders,
        )  # fmt: skip


def prior(increment: float) -> Belief:
    """A template's guess: its 95 % interval reaches from nothing to twice of it."""
    spread = max(abs(increment) / _REACH, LEAST_SPREAD)
    return Belief(increment, spread**2)


def predict(guess: float, elsewhere: Iterable[Measured], here: Measured | None) -> Belief:
    """The increment of an arm in one cluster. `guess`: the template's; `elsewhere`: what the same template did in the
    other clusters; `here`: in this one."""
    belief = prior(guess)
    others = reduce(lambda one, two: one + two, elsewhere, Measured(0, 0, 0, 0)).belief()
    if others is not None:
        belief = belief.combined(others.widened(max(abs(guess) / _REACH, LEAST_SPREAD) ** 2))
    own = here.belief() if here is not None else None
    return belief if own is None else belief.combined(own)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Of one option over its horizon: incremental orders and profit (minor units) with 95 % intervals, what is spent
    (discounts on the orders that redeem, and messages), and its `liability`: were every coupon redeemed, which is what
    a budget commits. `evidence`: customers behind it, 0: the prior alone."""

    customers: float
    orders: float
    orders_lower: float
    orders_upper: float
    profit: float
    profit_lower: float
    profit_upper: float
    spend: float
    liability: float
    evidence: int


@dataclass(frozen=True, slots=True)
class ArmPlan:
    """One arm as the prediction needs it: its share of the treated, belief, the chance that its coupon is redeemed,
    its depth in percent, and what its messages cost (minor units a customer). `fixed`: what a coupon gives that is not
    a share of the order, minor units."""

    share: float
    increment: Belief
    redemption: float
    percent: float
    message_cost: float
    fixed: float = 0.0


def forecast(arms: Iterable[ArmPlan], *, customers: float, order_minor: float, margin_rate: float) -> Prediction:
    """Over `customers` treated, each arm its share. Profit = increment · order · margin - redemption · (order · percent
    + fixed) - messages. Only the increment is uncertain here; arms of one template err together: errors add up."""
    orders = profit = spend = liability = deviation = 0.0
    evidence = 0
    for arm in arms:
        reached = customers * arm.share
        cost = reached * (arm.redemption * order_minor * arm.percent / 100 + arm.message_cost)
        cost += reached * arm.redemption * arm.fixed
        orders += reached * arm.increment.mean
        profit += reached * arm.increment.mean * order_minor * margin_rate - cost
        spend += cost
        liability += reached * (order_minor * arm.percent / 100 + arm.message_cost) + reached * arm.fixed
        deviation += reached * math.sqrt(arm.increment.variance)
        evidence = max(evidence, arm.increment.evidence)
    reach = _REACH * deviation
    worth = reach * order_minor * margin_rate
    return Prediction(
        customers, orders, orders - reach, orders + reach, profit, profit - worth, profit + worth, spend, liability,
        evidence,
    )  # fmt: skip
