"""What a treatment changed, and how sure that is: pure functions from sufficient statistics to intervals.

A result is either a value with an interval or `Inconclusive` with the reason; nothing here ever answers p = 1 for
want of data. Formulas: Welch (1947) for the difference of means; CUPED after Deng, Xu, Kohavi and Walker (WSDM
2013), theta pooled over both sides; relative lift by the delta method; ratio of two differences by Fieller (1954);
sample-ratio mismatch by Pearson's chi-squared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95
SAMPLE_RATIO_ALARM = 0.001
"""Below this p the sides are not what was drawn, and no difference between them can be trusted. The customary
threshold of Fabijan et al., "Diagnosing Sample Ratio Mismatch" (KDD 2019) is of this order."""

Reason = Literal["no_holdout", "too_few", "zero_variance", "sample_ratio", "denominator_near_zero", "no_gain"]


@dataclass(frozen=True, slots=True)
class Inconclusive:
    """Not knowable from what there is. `reason` is stable; `detail` says it in a sentence."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Sufficient statistics of one side: a metric y and a covariate x measured before the assignment.

    Variances and the covariance have the denominator n - 1 (0 when n < 2). Without a covariate its fields are 0.
    """

    n: int
    mean: float
    variance: float
    covariate_mean: float = 0.0
    covariate_variance: float = 0.0
    covariance: float = 0.0

    @classmethod
    def of(cls, metric: ArrayLike, covariate: ArrayLike | None = None) -> Sample:
        """From one value per customer; both arrays have the same length. Raises ValueError for non-finite values."""
        y = np.asarray(metric, dtype=float)
        x = np.zeros_like(y) if covariate is None else np.asarray(covariate, dtype=float)
        if y.shape != x.shape or y.ndim != 1:
            raise ValueError(f"one covariate value per metric value: {x.shape} is not {y.shape}")
        if not (np.isfinite(y).all() and np.isfinite(x).all()):
            raise ValueError("a metric of a comparison is a finite number for every customer")
        if y.size < 2:
            return cls(int(y.size), float(y.sum()), 0.0, float(x.sum()), 0.0, 0.0)
        dy, dx = y - y.mean(), x - x.mean()
        m = y.size - 1
        return cls(
            int(y.size), float(y.mean()), float(dy @ dy / m), float(x.mean()), float(dx @ dx / m), float(dx @ dy / m)
        )

    def __add__(self, other: Sample) -> Sample:
        """Both sides as one sample (Chan, Golub and LeVeque's update), as if the rows had been put together."""
        n = self.n + other.n
        if n == 0:
            return self
        dy, dx = other.mean - self.mean, other.covariate_mean - self.covariate_mean
        between, share = self.n * other.n / n, other.n / n

        def joined(one: float, two: float, cross: float) -> float:
            return (one * max(self.n - 1, 0) + two * max(other.n - 1, 0) + cross * between) / max(n - 1, 1)

        return Sample(
            n,
            self.mean + dy * share,
            joined(self.variance, other.variance, dy * dy),
            self.covariate_mean + dx * share,
            joined(self.covariate_variance, other.covariate_variance, dx * dx),
            joined(self.covariance, other.covariance, dx * dy),
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """Treated minus held out, per customer, with a two-sided interval. `theta` is CUPED's slope (0: not adjusted)."""

    estimate: float
    standard_error: float
    lower: float
    upper: float
    p_value: float
    degrees: float
    theta: float = 0.0

    def scaled(self, by: float) -> Difference:
        """The same difference for `by` customers: a total with its interval."""
        return replace(
            self,
            estimate=self.estimate * by,
            standard_error=self.standard_error * by,
            lower=self.lower * by,
            upper=self.upper * by,
        )


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio and its interval."""

    estimate: float
    lower: float
    upper: float


def too_small(treated: Sample, held_out: Sample) -> Inconclusive | None:
    """Whether there are customers enough to say anything at all: two on each side."""
    if held_out.n == 0:
        return Inconclusive("no_holdout", "nobody was held out, so there is nothing to compare with")
    if treated.n < 2 or held_out.n < 2:
        return Inconclusive(
            "too_few", f"{treated.n} treated and {held_out.n} held out: a comparison needs two on each side"
        )
    return None


def slope(treated: Sample, held_out: Sample) -> float:
    """CUPED's theta = cov(x, y) / var(x) over both sides together; 0 when the covariate does not vary."""
    both = treated + held_out
    return both.covariance / both.covariate_variance if both.covariate_variance > 0 else 0.0


def adjusted(sample: Sample, theta: float, centre: float) -> Sample:
    """The sample of y - theta (x - centre)."""
    variance = sample.variance + theta * theta * sample.covariate_variance - 2 * theta * sample.covariance
    return replace(sample, mean=sample.mean - theta * (sample.covariate_mean - centre), variance=max(variance, 0.0))


def difference(
    treated: Sample, held_out: Sample, *, cuped: bool = False, confidence: float = CONFIDENCE
) -> Difference | Inconclusive:
    """Welch's interval of mean(treated) - mean(held out), with `cuped` after removing what the covariate foretold."""
    small = too_small(treated, held_out)
    if small is not None:
        return small
    theta = slope(treated, held_out) if cuped else 0.0
    centre = (treated + held_out).covariate_mean
    one, two = adjusted(treated, theta, centre), adjusted(held_out, theta, centre)
    return welch(one.mean - two.mean, [(one.variance / one.n, one.n - 1), (two.variance / two.n, two.n - 1)],
                 theta=theta, confidence=confidence)  # fmt: skip


def welch(
    estimate: float, parts: Sequence[tuple[float, int]], *, theta: float = 0.0, confidence: float = CONFIDENCE
) -> Difference | Inconclusive:
    """An interval for an estimate whose variance is a sum of independent `parts`, each (variance, degrees).

    Degrees of freedom by Welch and Satterthwaite. Inconclusive when nothing varied.
    """
    from scipy.special import stdtr, stdtrit

    variance = sum(part for part, _ in parts)
    if not variance > 0:
        return Inconclusive("zero_variance", "every customer of both sides has the same value")
    degrees = variance**2 / sum(part**2 / degree for part, degree in parts if part > 0)
    error = math.sqrt(variance)
    reach = float(stdtrit(degrees, (1 + confidence) / 2)) * error
    p_value = 2 * float(stdtr(degrees, -abs(estimate) / error))
    return Difference(estimate, error, estimate - reach, estimate + reach, p_value, degrees, theta)


def relative_lift(treated: Sample, held_out: Sample, *, confidence: float = CONFIDENCE) -> Ratio | Inconclusive:
    """mean(treated) / mean(held out) - 1 by the delta method, with the uncertainty of both means."""
    small = too_small(treated, held_out)
    if small is not None:
        return small
    if not treated.variance + held_out.variance > 0:
        return Inconclusive("zero_variance", "every customer of both sides has the same value")
    base, error = held_out.mean, math.sqrt(held_out.variance / held_out.n)
    z = _normal_quantile(confidence)
    if abs(base) <= z * error:
        return Inconclusive("denominator_near_zero", "the held-out mean cannot be told from zero")
    ratio = treated.mean / base
    variance = treated.variance / treated.n / base**2 + ratio**2 * (error / base) ** 2
    reach = z * math.sqrt(variance)
    return Ratio(ratio - 1, ratio - 1 - reach, ratio - 1 + reach)


def ratio_of_differences(treated: Sample, held_out: Sample, *, confidence: float = CONFIDENCE) -> Ratio | Inconclusive:
    """(difference of y) / (difference of x) by Fieller: incremental profit per incremental unit of spend.

    Here the sample's covariate is the denominator's metric. Inconclusive when the denominator cannot be told from
    zero: then Fieller's set is not an interval.
    """
    small = too_small(treated, held_out)
    if small is not None:
        return small
    top = treated.mean - held_out.mean
    bottom = treated.covariate_mean - held_out.covariate_mean
    var_top = treated.variance / treated.n + held_out.variance / held_out.n
    var_bottom = treated.covariate_variance / treated.n + held_out.covariate_variance / held_out.n
    cov = treated.covariance / treated.n + held_out.covariance / held_out.n
    return fieller(top, bottom, var_top, var_bottom, cov, confidence=confidence)


def fieller(
    top: float, bottom: float, var_top: float, var_bottom: float, cov: float, *, confidence: float = CONFIDENCE
) -> Ratio | Inconclusive:
    """The interval of top / bottom, both normal with the variances and the covariance given."""
    square = _normal_quantile(confidence) ** 2
    a = bottom**2 - square * var_bottom
    if a <= 0:
        return Inconclusive("denominator_near_zero", "what was spent more cannot be told from zero")
    b = top * bottom - square * cov
    c = top**2 - square * var_top
    root = math.sqrt(max(b * b - a * c, 0.0))
    return Ratio(top / bottom, (b - root) / a, (b + root) / a)


def sample_ratio(counts: Sequence[int], shares: Sequence[float]) -> float | Inconclusive:
    """Pearson's p that `counts` came from a draw with the probabilities `shares` (which sum to 1)."""
    from scipy.special import chdtrc

    total = sum(counts)
    if len(counts) < 2 or any(share <= 0 for share in shares):
        return Inconclusive("no_holdout", "one side has no share of the draw")
    if min(total * share for share in shares) < 5:
        return Inconclusive("too_few", "fewer than five expected on one side: the chi-squared test does not hold")
    statistic = sum((n - total * share) ** 2 / (total * share) for n, share in zip(counts, shares, strict=True))
    return float(chdtrc(len(counts) - 1, statistic))


def _normal_quantile(confidence: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + confidence) / 2))
