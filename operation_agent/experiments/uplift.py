"""Uplift against doing nothing: how much an arm raises each customer's chance of the outcome. Pure.

Two-model ("T") learner with logistic regression: one model of the held out, one of each arm, and the difference of
their probabilities. On the Hillstrom experiment it is level with far dearer learners, and boosted trees are worse.
It speaks only when it has shown on customers it was not fitted to that its order of customers is worth something: the
cross-fitted Qini coefficient is above zero by its bootstrap. Otherwise `Inconclusive`, and the prior goes on speaking.

Qini coefficient as Radcliffe, "Using Control Groups to Target on Predicted Lift" (2007): the area between the curve
of incremental outcomes, customers taken in descending order of predicted uplift, and the straight line of a random
order; per customer, in units of the outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .comparison import Inconclusive

Floats = NDArray[np.float64]

KIND = "logistic_t"
LEAST_CUSTOMERS = 500
LEAST_OUTCOMES = 50
"""On each side, below which no model is fitted: ten outcomes for each of a handful of features, the usual rule of
thumb of logistic regression (Peduzzi et al. 1996)."""
BOOTSTRAPS = 200
SKEWED = 4.0
"""From this skewness on a feature enters by its logarithm."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """How a feature becomes an input: missing is `fill`, then log1p where `is_log`, then (x - mean) / scale."""

    name: str
    fill: float
    is_log: bool
    mean: float
    scale: float

    def apply(self, column: Floats) -> Floats:
        filled = np.where(np.isnan(column), self.fill, column)
        shaped = np.log1p(np.maximum(filled, 0.0)) if self.is_log else filled
        return (shaped - self.mean) / self.scale


@dataclass(frozen=True, slots=True)
class Logistic:
    """P(outcome) = 1 / (1 + exp(-(intercept + weights · inputs)))."""

    intercept: float
    weights: tuple[float, ...]

    def probability(self, inputs: Floats) -> Floats:
        margin = self.intercept + inputs @ np.array(self.weights)
        chance: Floats = 1.0 / (1.0 + np.exp(-np.clip(margin, -40.0, 40.0)))
        return chance


@dataclass(frozen=True, slots=True)
class Model:
    """`nothing` is the model of the held out; `arms` by their keys."""

    scalings: tuple[Scaling, ...]
    nothing: Logistic
    arms: Mapping[str, Logistic]

    def increments(self, columns: Mapping[str, Floats]) -> dict[str, Floats]:
        """By arm: P(outcome | arm) - P(outcome | nothing) of each row. `columns`: every feature, NaN for missing."""
        inputs = np.column_stack([one.apply(columns[one.name]) for one in self.scalings])
        nothing = self.nothing.probability(inputs)
        return {key: arm.probability(inputs) - nothing for key, arm in self.arms.items()}

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": KIND,
            "features": [
                {"name": s.name, "fill": s.fill, "is_log": s.is_log, "mean": s.mean, "scale": s.scale}
                for s in self.scalings
            ],
            "nothing": {"intercept": self.nothing.intercept, "weights": list(self.nothing.weights)},
            "arms": {key: {"intercept": arm.intercept, "weights": list(arm.weights)} for key, arm in self.arms.items()},
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Model:
        """Raises ValueError for a model of another kind."""
        if written.get("kind") != KIND:
            raise ValueError(f"a model of kind {written.get('kind')!r}, not {KIND!r}")

        def logistic(one: Mapping[str, Any]) -> Logistic:
            return Logistic(one["intercept"], tuple(one["weights"]))

        arms = {key: logistic(arm) for key, arm in written["arms"].items()}
        return cls(tuple(Scaling(**one) for one in written["features"]), logistic(written["nothing"]), arms)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model with what it showed: the cross-fitted Qini coefficient of each arm and its bootstrap's 5 % quantile."""

    model: Model
    qini: dict[str, float]
    lower: dict[str, float]
    customers: int


def fit(
    columns: Mapping[str, Floats], arms: NDArray[np.object_], outcome: Floats, *, seed: int
) -> Fitted | Inconclusive:
    """Fit to what a strategy did. Row by row: features before the assignment (NaN missing), the arm's key or None for
    the held out, and the outcome (1 or 0). Inconclusive where there is too little, or the order shows no gain."""
    held = np.array([arm is None for arm in arms], np.bool_)
    keys = sorted({arm for arm in arms if arm is not None})
    enough = [key for key in keys if _is_enough(outcome[arms == key])]
    if not _is_enough(outcome[held]) or not enough:
        return Inconclusive(
            "too_few",
            f"{int(held.sum())} held out with {int(outcome[held].sum())} outcomes, arms {', '.join(keys) or 'none'}:"
            f" {LEAST_CUSTOMERS} customers and {LEAST_OUTCOMES} outcomes are needed on each side",
        )
    scalings = _scalings(columns)
    if not scalings:
        return Inconclusive("zero_variance", "no feature varies")
    inputs = np.column_stack([one.apply(columns[one.name]) for one in scalings])
    qini, lower, models = {}, {}, {}
    for key in enough:
        rows = np.flatnonzero(held | (arms == key))
        treated, y = ~held[rows], outcome[rows]
        predicted = _cross_fitted(inputs[rows], treated, y, seed)
        qini[key] = qini_coefficient(predicted, treated, y)
        lower[key] = _lower(predicted, treated, y, seed)
        models[key] = _logistic(inputs[arms == key], outcome[arms == key])
    shown = [key for key in enough if lower[key] > 0]
    if not shown:
        best = max(enough, key=lambda key: qini[key])
        return Inconclusive(
            "no_gain", f"the best arm, {best}, has a Qini of {qini[best]:.5f} (5 % quantile {lower[best]:.5f})"
        )
    model = Model(tuple(scalings), _logistic(inputs[held], outcome[held]), {key: models[key] for key in shown})
    return Fitted(model, qini, lower, len(outcome))


def qini_coefficient(predicted: Floats, treated: NDArray[np.bool_], outcome: Floats) -> float:
    """Area between the Qini curve and the random line, per customer. Ties are taken in the order given."""
    order = np.argsort(-predicted, kind="stable")
    is_treated, y = treated[order], outcome[order]
    n_treated, n_held = np.cumsum(is_treated), np.cumsum(~is_treated)
    by_treated, by_held = np.cumsum(y * is_treated), np.cumsum(y * ~is_treated)
    if not n_treated[-1] or not n_held[-1]:
        return 0.0
    ratio = np.divide(n_treated, n_held, out=np.zeros(len(y)), where=n_held > 0)
    curve = np.concatenate([[0.0], by_treated - by_held * ratio])
    n = len(y)
    area = float((curve[1:] + curve[:-1]).sum() / 2 / n)
    return (area - float(curve[-1]) / 2) / float(n_treated[-1])


def _is_enough(outcome: Floats) -> bool:
    happened = int(outcome.sum())
    return len(outcome) >= LEAST_CUSTOMERS and LEAST_OUTCOMES <= happened <= len(outcome) - LEAST_OUTCOMES


def _scalings(columns: Mapping[str, Floats]) -> list[Scaling]:
    found = []
    for name in sorted(columns):
        column = columns[name]
        known = column[~np.isnan(column)]
        if not known.size or float(known.std()) == 0.0:
            continue
        fill = float(np.median(known))
        is_log = bool(known.min() >= 0 and _skewness(known) > SKEWED)
        shaped = Scaling(name, fill, is_log, 0.0, 1.0).apply(column)
        if float(shaped.std()) > 0:
            found.append(Scaling(name, fill, is_log, float(shaped.mean()), float(shaped.std())))
    return found


def _skewness(values: Floats) -> float:
    centred = values - values.mean()
    return float((centred**3).mean() / max(float((centred**2).mean()) ** 1.5, 1e-300))


def _logistic(inputs: Floats, outcome: Floats) -> Logistic:
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=1.0, max_iter=1000).fit(inputs, outcome)
    return Logistic(float(fitted.intercept_[0]), tuple(float(weight) for weight in fitted.coef_[0]))


def _cross_fitted(inputs: Floats, treated: NDArray[np.bool_], outcome: Floats, seed: int, folds: int = 4) -> Floats:
    """Each row's uplift by models that were not fitted to it; folds drawn within each side and outcome."""
    fold = np.zeros(len(outcome), np.int64)
    generator = np.random.default_rng(seed)
    for side in (False, True):
        for happened in (0.0, 1.0):
            rows = np.flatnonzero((treated == side) & (outcome == happened))
            fold[generator.permutation(rows)] = np.arange(len(rows)) % folds
    predicted = np.zeros(len(outcome))
    for number in range(folds):
        out, rest = fold == number, fold != number
        with_arm = _logistic(inputs[rest & treated], outcome[rest & treated])
        without = _logistic(inputs[rest & ~treated], outcome[rest & ~treated])
        predicted[out] = with_arm.probability(inputs[out]) - without.probability(inputs[out])
    return predicted


def _lower(predicted: Floats, treated: NDArray[np.bool_], outcome: Floats, seed: int) -> float:
    generator = np.random.default_rng(seed + 1)
    drawn: Sequence[float] = [
        qini_coefficient(predicted[rows], treated[rows], outcome[rows])
        for rows in (generator.integers(0, len(outcome), len(outcome)) for _ in range(BOOTSTRAPS))
    ]
    return float(np.quantile(drawn, 0.05))
