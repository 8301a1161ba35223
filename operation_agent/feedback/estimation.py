"""From a population to totals with intervals. Pure.

The total increment of a stratum is n_treated x (mean treated - mean held out), after CUPED. Strata (strategies, and
shares that were changed while running) add up. A customer may be in several strata, so the variance is the sum over
customers of the squared sum of its influences; for a single stratum that is exactly Welch's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from operation_agent.experiments.comparison import (
    SAMPLE_RATIO_ALARM,
    Difference,
    Inconclusive,
    Ratio,
    Sample,
    adjusted,
    fieller,
    sample_ratio,
    slope,
    too_small,
    welch,
)

from .population import COVARIATES, Population


@dataclass(frozen=True, slots=True)
class Influence:
    """A total and how each customer moved it. `parts`: (variance, degrees of freedom) of each stratum's sides."""

    total: float
    treated: int
    by_customer: NDArray[np.float64]
    parts: list[tuple[float, int]]
    thetas: list[float] = field(default_factory=list)

    @property
    def variance(self) -> float:
        return float(self.by_customer @ self.by_customer)


def balance(population: Population) -> float | Inconclusive:
    """p of the sides' sizes under the shares that were drawn with; below the alarm it is `sample_ratio`."""
    if len(population) == 0:
        return Inconclusive("too_few", "nobody has been assigned yet")
    held, share = int(population.held_out.sum()), float(population.share.mean())
    p_value = sample_ratio([len(population) - held, held], [1 - share, share])
    if isinstance(p_value, float) and p_value < SAMPLE_RATIO_ALARM:
        return Inconclusive(
            "sample_ratio",
            f"{held} of {len(population)} are held out where {share:.1%} were drawn (p = {p_value:.2g}):"
            " something removes customers from one side",
        )
    return p_value


def comparable(population: Population) -> tuple[list[Population], Inconclusive | None]:
    """The strata that have two customers on each side, and why there are none if there are none."""
    strata, reason = [], Inconclusive("too_few", "nobody has been assigned yet")
    for stratum in population.strata():
        small = too_small(*_sides(stratum, "orders"))
        if small is None:
            strata.append(stratum)
        else:
            reason = small
    return strata, None if strata else reason


def influence(strata: list[Population], metric: str) -> Influence:
    """The total increment of `metric` over the treated of all strata, and each customer's part in its error."""
    total, treated, parts, thetas = 0.0, 0, [], []
    moved = np.zeros(max((int(stratum.customers.max()) + 1 for stratum in strata), default=0))
    for stratum in strata:
        y, x, held = stratum.metrics[metric], stratum.covariates[COVARIATES[metric]], stratum.held_out
        one, two = _sides(stratum, metric)
        theta, centre = slope(one, two), (one + two).covariate_mean
        thetas.append(theta)
        one, two = adjusted(one, theta, centre), adjusted(two, theta, centre)
        total += one.n * (one.mean - two.mean)
        treated += one.n
        parts += [(one.n * one.variance, one.n - 1), (one.n**2 * two.variance / two.n, two.n - 1)]
        values = y - theta * (x - centre)
        weights = np.where(
            held,
            -(one.n / two.n) * math.sqrt(two.n / (two.n - 1)) * (values - two.mean),
            math.sqrt(one.n / (one.n - 1)) * (values - one.mean),
        )
        np.add.at(moved, stratum.customers, weights)
    return Influence(total, treated, moved, parts, thetas)


def total(found: Influence) -> Difference | Inconclusive:
    """The total with its interval; degrees of freedom from the parts, the variance from the customers."""
    plain = welch(found.total, found.parts)
    if isinstance(plain, Inconclusive):
        return plain
    stretch = math.sqrt(found.variance / math.fsum(part for part, _ in found.parts))
    if not stretch > 0:
        return Inconclusive("zero_variance", "every customer of both sides has the same value")
    return welch(found.total, [(part * stretch**2, degrees) for part, degrees in found.parts], theta=found.thetas[0])


def return_on_spend(profit: Influence, spend: Influence) -> Ratio | Inconclusive:
    """Incremental profit per unit of incremental spend, by Fieller, with both totals' common error."""
    together = float(profit.by_customer @ spend.by_customer)
    return fieller(profit.total, spend.total, profit.variance, spend.variance, together)


def means(population: Population, metric: str) -> tuple[float | None, float | None]:
    """The plain mean per customer of each side (treated, held out), before any adjustment."""
    values: NDArray[np.float64] = population.metrics[metric]
    sides = values[~population.held_out], values[population.held_out]
    treated, held_out = (float(side.mean()) if side.size else None for side in sides)
    return treated, held_out


def _sides(stratum: Population, metric: str) -> tuple[Sample, Sample]:
    y, x, held = stratum.metrics[metric], stratum.covariates[COVARIATES[metric]], stratum.held_out
    return Sample.of(y[~held], x[~held]), Sample.of(y[held], x[held])
