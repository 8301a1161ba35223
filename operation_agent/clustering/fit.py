"""From a matrix of features to a clustering, or the reason why there is none.

How many clusters: every k is tried on a sample and must pass three gates - the smallest cluster is worth acting on,
the grouping comes back when half the customers are left out (stability), and the groups are apart (silhouette).
Without the first, raw spending "wins" with a cluster of one customer. Silhouette alone nearly always says two
(bought once, bought more than once), so two clusters are taken only when nothing finer passes; of those within
`tolerance` of the best, the one nearest to `handy` clusters, as many as an operator can work with, is taken. Then
one fit over everybody, from the sample's centroids.

Pure: the same rows in the same order and the same seed give the same model (centroids are rounded to six digits,
since sums over threads are not associative).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .model import CHUNK, Floats, Model

REDUNDANT_CORRELATION = 0.97
"""Two columns that move together this closely are one fact counted twice."""
SKEWED = 1.0
"""Sample skewness above which a non-negative column is logged; an exponential distribution has 2."""
SKEW_STAYS = 0.5
"""How far the skewness must cross SKEWED before a refit changes what the previous fit did with the column."""
DIGITS = 6


@dataclass(frozen=True, slots=True)
class Options:
    """What counts as a clustering. Shares are of customers; `sample` rows choose k, `silhouette_sample` judge it."""

    k_min: int = 2
    k_max: int = 8
    smallest_share: float = 0.02
    smallest_people: int = 30
    minimum_silhouette: float = 0.15
    minimum_stability: float = 0.8
    tolerance: float = 0.15
    handy: int = 5
    sample: int = 10_000
    silhouette_sample: int = 3_000
    resamples: int = 6
    starts: int = 5
    clip: float = 4.0
    log: bool = True


@dataclass(frozen=True, eq=False)
class Fit:
    """`numbers` and `distances` are those of the rows that were given; cluster 0 is the largest."""

    model: Model
    numbers: NDArray[np.int16]
    distances: Floats
    quality: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Inconclusive:
    """There is no clustering to be had from these rows: `code` is stable, `reason` says it with the figures."""

    code: str
    reason: str
    quality: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Tried:
    k: int
    silhouette: float
    stability: float
    smallest: int
    smallest_share: float
    centroids: Floats
    verdict: str

    @property
    def score(self) -> float:
        return self.silhouette * self.stability

    def as_json(self) -> dict[str, Any]:
        return {
            "k": self.k, "silhouette": round(self.silhouette, 4), "stability": round(self.stability, 4),
            "smallest": self.smallest, "smallest_share": round(self.smallest_share, 4), "verdict": self.verdict,
        }  # fmt: skip


def fit(
    matrix: Floats,
    names: Sequence[str],
    seed: int,
    *,
    options: Options | None = None,
    missing: Mapping[str, str] | None = None,
    previous: Model | None = None,
) -> Fit | Inconclusive:
    """Cluster the rows of `matrix` (customers x features, NaN = missing), rows in random_key order.

    The order matters only for which rows are the sample (the first ones: a random key is a uniform hash, so they
    are a random sample, and the same people at the next fit). `missing` says per feature what a missing value is
    taken for: 'horizon' (the largest value seen in any column of that kind: it has not happened for as long as there
    is history), 'zero' (the default) or 'median'. `previous` keeps a column's transformation and the number of
    clusters unless the data clearly say otherwise, so that a refit does not change the groups for nothing.
    """
    options = options or Options()
    rows = len(matrix)
    floor = max(options.smallest_people, 1)
    if rows < 2 * floor:
        return Inconclusive(
            "too_few_customers", f"{rows} customers are too few: two clusters of {floor} need {2 * floor}"
        )
    prepared, dropped = _prepare(np.asarray(matrix, np.float64), names, missing or {}, previous, options)
    quality: dict[str, Any] = {
        "dropped": dropped,
        "missing": _missing_shares(matrix, names),
        "options": asdict(options),
    }
    if prepared is None:
        return Inconclusive("no_features", f"no feature tells these {rows} customers apart", quality)
    kept = [list(names).index(name) for name in prepared.features]
    scaled = _scale_all(prepared, matrix, kept)
    with _one_thread():
        tried = _try_all(scaled, seed, options)
    quality |= {"sample": min(rows, options.sample), "tried": [one.as_json() for one in tried]}
    ranking = _ranked(tried, options, previous.k if previous else None)
    if not ranking:
        return Inconclusive("no_clustering_passes", _why_none(tried), quality)
    return _fit_everybody(scaled, prepared, ranking, quality, options)


# -- columns ----------------------------------------------------------------------------------------------------


def _missing_shares(matrix: Floats, names: Sequence[str]) -> dict[str, float]:
    shares = {name: float(np.isnan(matrix[:, place]).mean()) for place, name in enumerate(names)}
    return {name: round(share, 4) for name, share in shares.items() if share > 0}


def _prepare(
    matrix: Floats, names: Sequence[str], missing: Mapping[str, str], previous: Model | None, options: Options
) -> tuple[Model | None, dict[str, str]]:
    """The transformation (a Model without centroids) over the columns worth keeping, and why others were dropped."""
    kept: dict[str, dict[str, Any]] = {}
    dropped: dict[str, str] = {}
    judged: list[Floats] = []
    horizon = _horizon(matrix, names, missing)
    for place, name in enumerate(names):
        column = matrix[:, place]
        seen = column[~np.isnan(column)]
        if not len(seen):
            dropped[name] = "missing for everyone"
            continue
        parameters, values = _column(
            column, seen, _fill(seen, missing.get(name, "zero"), horizon), _was_logged(previous, name), options
        )
        why = _useless(values, options.smallest_share)
        if why is None:
            judge = ((values - parameters["mean"]) / parameters["scale"])[: options.sample]
            why = _repeats(judge, dict(zip(kept, judged, strict=True)))
        if why is None:
            kept[name] = parameters
            judged.append(judge)
        else:
            dropped[name] = why
    if not kept:
        return None, dropped
    vectors = {
        key: np.array([one[key] for one in kept.values()]) for key in ("fill", "unit", "mean", "scale", "logged")
    }
    return Model(tuple(kept), clip=options.clip, centroids=np.empty((0, len(kept))), **vectors), dropped


def _column(
    column: Floats, seen: Floats, fill: float, was_logged: bool | None, options: Options
) -> tuple[dict[str, Any], Floats]:
    values = np.where(np.isnan(column), fill, column)
    positive = seen[seen > 0]
    # counted in its own typical size, so that cents and dollars, or yen, give the same clusters
    unit = float(np.median(positive)) if len(positive) else 1.0
    threshold = SKEWED if was_logged is None else SKEWED + (-SKEW_STAYS if was_logged else SKEW_STAYS)
    logged = options.log and float(seen.min()) >= 0 and _skewness(values) > threshold
    if logged:
        values = np.log1p(values / unit)
    scale = float(values.std())
    parameters = {"fill": fill, "unit": unit, "logged": logged, "mean": float(values.mean()), "scale": scale or 1.0}
    return {key: value if key == "logged" else _rounded(value) for key, value in parameters.items()}, values


def _horizon(matrix: Floats, names: Sequence[str], missing: Mapping[str, str]) -> float:
    places = [place for place, name in enumerate(names) if missing.get(name) == "horizon"]
    seen = [matrix[:, place][~np.isnan(matrix[:, place])] for place in places]
    return max((float(values.max()) for values in seen if len(values)), default=0.0)


def _fill(seen: Floats, rule: str, horizon: float) -> float:
    fills = {"zero": 0.0, "horizon": horizon, "median": float(np.median(seen))}
    return fills[rule]


def _rounded(value: float) -> float:
    """Twelve significant digits: the last ones depend on the order of summation."""
    return float(f"{value:.12g}")


def _was_logged(previous: Model | None, name: str) -> bool | None:
    if previous is None or name not in previous.features:
        return None
    return bool(previous.logged[previous.features.index(name)])


def _skewness(values: Floats) -> float:
    gaps = values - values.mean()
    squares = gaps * gaps
    spread = float(squares.mean()) ** 1.5
    return float((squares * gaps).mean()) / spread if spread > 0 else 0.0


def _useless(values: Floats, smallest_share: float) -> str | None:
    if values.max() == values.min():
        return "the same for everyone"
    common = float(np.median(values))
    apart = float((values != common).mean())
    if apart < smallest_share:
        return f"differs for only {apart:.2%} of the customers"
    return None


def _repeats(values: Floats, kept: Mapping[str, Floats]) -> str | None:
    if values.std() == 0:
        return None
    for name, other in kept.items():
        if other.std() > 0 and abs(float(np.corrcoef(values, other)[0, 1])) > REDUNDANT_CORRELATION:
            return f"says the same as {name}"
    return None


def _scale_all(prepared: Model, matrix: Floats, kept: list[int]) -> Floats:
    scaled = np.empty((len(matrix), len(kept)))
    for start in range(0, len(matrix), CHUNK):
        part = slice(start, start + CHUNK)
        scaled[part] = prepared.scaled(matrix[part][:, kept])
    return scaled


# -- how many clusters --------------------------------------------------------------------------------------------


def _one_thread() -> AbstractContextManager[Any]:
    """The sample is too small to share: on a busy machine its threads wait for each other ten times longer."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1)
    return limits


def _kmeans(rows: Floats, k: int, seed: int, starts: int) -> Floats:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # fewer distinct rows than clusters: the floor on the smallest cluster judges that
        warnings.simplefilter("ignore", ConvergenceWarning)
        centroids: Floats = KMeans(k, n_init=starts, random_state=seed, max_iter=100).fit(rows).cluster_centers_
    return centroids


def _numbers(rows: Floats, centroids: Floats) -> NDArray[np.intp]:
    numbers: NDArray[np.intp] = ((centroids**2).sum(axis=1) - 2.0 * (rows @ centroids.T)).argmin(axis=1)
    return numbers


def _try_all(scaled: Floats, seed: int, options: Options) -> list[_Tried]:
    sample = scaled[: options.sample]
    judged = sample[: options.silhouette_sample]
    squares = (judged**2).sum(axis=1)
    gaps = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2.0 * (judged @ judged.T), 0.0))
    tried = []
    for k in range(options.k_min, options.k_max + 1):
        centroids = _kmeans(sample, k, seed, options.starts)
        numbers = _numbers(sample, centroids)
        smallest = float(np.bincount(numbers, minlength=k).min() / len(sample))
        one = _Tried(
            k, silhouette(gaps, numbers[: len(judged)], k), _stability(sample, numbers, k, seed, options),
            round(smallest * len(scaled)), smallest, centroids, "",
        )  # fmt: skip
        tried.append(replace(one, verdict=_judge(one, options)))
    return tried


def silhouette(gaps: Floats, numbers: NDArray[Any], k: int) -> float:
    """Mean silhouette (Rousseeuw 1987) from a matrix of distances; a member of a cluster of one counts as 0."""
    member = np.eye(k)[numbers]
    sizes = member.sum(axis=0)
    if (sizes > 0).sum() < 2:
        return 0.0
    totals = gaps @ member
    own = sizes[numbers]
    rows = np.arange(len(numbers))
    inside = totals[rows, numbers] / np.maximum(own - 1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        outside = np.where(sizes > 0, totals / sizes, np.inf)
    outside[rows, numbers] = np.inf
    nearest = outside.min(axis=1)
    widest = np.maximum(inside, nearest)
    scores = np.where((own > 1) & (widest > 0), (nearest - inside) / np.where(widest > 0, widest, 1.0), 0.0)
    return float(scores.mean())


def _stability(sample: Floats, numbers: NDArray[Any], k: int, seed: int, options: Options) -> float:
    """Mean agreement (adjusted Rand) with the clusterings of random halves of the sample."""
    draw = np.random.default_rng(seed * 1_000_003 + k)
    agreements = []
    for turn in range(options.resamples):
        half = draw.permutation(len(sample))[: max(len(sample) // 2, k)]
        again = _numbers(sample, _kmeans(sample[half], k, seed + 1 + turn, 2))
        agreements.append(adjusted_rand(numbers, again))
    return float(np.mean(agreements))


def adjusted_rand(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Agreement of two groupings of the same rows, corrected for chance (Hubert and Arabie 1985); 1 = the same."""
    table = np.zeros((int(one.max()) + 1, int(other.max()) + 1))
    np.add.at(table, (one, other), 1)

    def pairs(counts: Floats) -> float:
        return float((counts * (counts - 1) / 2).sum())

    together, left, right = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    every = len(one) * (len(one) - 1) / 2
    expected, most = left * right / every, (left + right) / 2
    return 1.0 if most == expected else (together - expected) / (most - expected)


def _judge(one: _Tried, options: Options) -> str:
    if one.smallest_share < options.smallest_share or one.smallest < options.smallest_people:
        return f"smallest cluster too small: {one.smallest} customers, {one.smallest_share:.2%}"
    if one.stability < options.minimum_stability:
        return f"not stable: agreement {one.stability:.2f} is below {options.minimum_stability}"
    if one.silhouette < options.minimum_silhouette:
        return f"not apart: silhouette {one.silhouette:.2f} is below {options.minimum_silhouette}"
    return "passed"


def _ranked(tried: list[_Tried], options: Options, previous_k: int | None) -> list[_Tried]:
    """Those that passed, the one to take first: the previous k, else the handiest near the best; then by score."""
    passed = [one for one in tried if one.verdict == "passed"]
    if not passed:
        return []
    finer = [one for one in passed if one.k > 2] or passed
    winner = max(finer, key=lambda one: one.score)
    near = [one for one in finer if one.score >= (1 - options.tolerance) * winner.score]
    first = min(near, key=lambda one: (one.k != previous_k, abs(one.k - options.handy), -one.score))
    rest = sorted((one for one in passed if one is not first), key=lambda one: (one.k <= 2, -one.score))
    return [first, *rest]


def _why_none(tried: list[_Tried]) -> str:
    return "; ".join(f"k = {one.k}: {one.verdict}" for one in tried)


# -- everybody ----------------------------------------------------------------------------------------------------


def _fit_everybody(
    scaled: Floats, prepared: Model, ranking: list[_Tried], quality: dict[str, Any], options: Options
) -> Fit | Inconclusive:
    from sklearn.cluster import KMeans

    floor = max(options.smallest_people, options.smallest_share * len(scaled))
    for one in ranking:
        estimator = KMeans(one.k, init=one.centroids, n_init=1, max_iter=100, copy_x=False).fit(scaled)
        model = replace(prepared, centroids=np.round(_largest_first(estimator), DIGITS) + 0.0)
        numbers, distances = _nearest_all(model, scaled)
        sizes = np.bincount(numbers, minlength=one.k)
        if sizes.min() >= floor:
            return Fit(model, numbers, distances, quality | _figures(one, sizes, len(scaled)))
        _mark(quality, one.k, f"smallest cluster too small over everybody: {sizes.min()} customers")
    return Inconclusive(
        "no_clustering_passes", "; ".join(f"k = {row['k']}: {row['verdict']}" for row in quality["tried"]), quality
    )


def _largest_first(estimator: Any) -> Floats:
    sizes = np.bincount(estimator.labels_, minlength=len(estimator.cluster_centers_))
    order = sorted(range(len(sizes)), key=lambda at: (-sizes[at], tuple(estimator.cluster_centers_[at])))
    ordered: Floats = estimator.cluster_centers_[order]
    return ordered


def _nearest_all(model: Model, scaled: Floats) -> tuple[NDArray[np.int16], Floats]:
    numbers, distances = np.empty(len(scaled), np.int16), np.empty(len(scaled))
    for start in range(0, len(scaled), CHUNK):
        part = slice(start, start + CHUNK)
        numbers[part], distances[part] = model.nearest(scaled[part])
    return numbers, distances


def _mark(quality: dict[str, Any], k: int, verdict: str) -> None:
    for row in quality["tried"]:
        if row["k"] == k:
            row["verdict"] = verdict


def _figures(one: _Tried, sizes: NDArray[Any], rows: int) -> dict[str, Any]:
    return {
        "k": one.k, "silhouette": round(one.silhouette, 4), "stability": round(one.stability, 4),
        "smallest": int(sizes.min()), "smallest_share": round(float(sizes.min() / rows), 4),
    }  # fmt: skip
