"""A fit is reproducible, refuses degenerate groupings, and says why when there is none; CDNOW is the real check."""

from __future__ import annotations

import gzip
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operation_agent.clustering.fit import Fit, Inconclusive, Options, adjusted_rand, fit, silhouette
from operation_agent.clustering.lineage import match

pytestmark = pytest.mark.unit

NAMES = ("a", "b", "c")
RFM = ("days_since_order", "orders", "revenue_minor")


def _blobs(k=4, each=150, seed=0):
    draw = np.random.default_rng(seed)
    middles = np.column_stack([draw.permutation(8)[:k] * 10.0 + draw.uniform(0, 3, k) for _ in range(3)])
    rows = np.concatenate([middle + draw.normal(0, 0.4, (each, 3)) for middle in middles])
    truth = np.repeat(np.arange(k), each)
    order = draw.permutation(len(rows))
    return rows[order], truth[order]


def _cdnow_lines():
    for path in (
        Path(__file__).parents[2] / "../shared/data/cdnow/CDNOW_master.txt.gz",
        Path((find_spec("lifetimes") or find_spec("numpy")).origin).parent / "datasets/CDNOW_master.txt",
    ):
        if path.exists():
            return (gzip.open(path, "rt") if path.suffix == ".gz" else path.open()).read().splitlines()
    pytest.skip("CDNOW is neither in ../shared/data/cdnow nor in the package lifetimes")
    return []


@pytest.fixture(scope="module")
def cdnow():
    """Recency in days at the end of the file, orders, revenue in cents; customers in an arbitrary fixed order."""
    bought: dict[str, list[tuple[date, float]]] = {}
    for line in _cdnow_lines():
        who, day, *_, dollars = line.split()
        if day.isdigit():
            bought.setdefault(who, []).append((date(int(day[:4]), int(day[4:6]), int(day[6:])), float(dollars)))
    end = max(day for orders in bought.values() for day, _ in orders)
    rows = [
        ((end - max(day for day, _ in orders)).days, len(orders), 100 * sum(dollars for _, dollars in orders))
        for orders in bought.values()
    ]
    return np.random.default_rng(11).permutation(np.array(rows, float))


def test_cdnow_gives_about_four_stable_groups_that_are_apart(cdnow):
    found = fit(cdnow, RFM, 1, missing={"days_since_order": "horizon"})
    assert isinstance(found, Fit)
    assert len(cdnow) == 23_570
    assert 3 <= found.model.k <= 5
    assert found.quality["silhouette"] >= 0.38
    assert found.quality["stability"] >= 0.8
    assert found.quality["smallest_share"] >= 0.02
    four = next(one for one in found.quality["tried"] if one["k"] == 4)
    assert four["silhouette"] >= 0.38
    assert four["stability"] >= 0.8


def test_two_halves_of_cdnow_tell_the_same_groups(cdnow):
    """Bootstrap agreement outside of the fit's own figure: models of two different samples, over everybody."""
    draw = np.random.default_rng(5)
    options = Options(k_min=4, k_max=4)
    models = [fit(cdnow[draw.integers(0, len(cdnow), len(cdnow))], RFM, 1, options=options) for _ in range(2)]
    columns = dict(zip(RFM, cdnow.T, strict=True))
    assert adjusted_rand(*(found.model.assign(columns)[0].astype(int) for found in models)) >= 0.8


def test_on_raw_values_the_highest_silhouette_is_a_handful_of_customers_and_loses(cdnow):
    found = fit(cdnow, RFM, 1, options=Options(log=False, clip=np.inf))
    assert isinstance(found, Fit)
    best = max(found.quality["tried"], key=lambda one: one["silhouette"])
    assert "too small" in best["verdict"]
    assert found.quality["k"] != best["k"]
    assert found.quality["smallest_share"] >= 0.02


def test_cents_dollars_and_yen_give_the_same_groups(cdnow):
    cents, dollars = fit(cdnow, RFM, 1), fit(cdnow / (1, 1, 100), RFM, 1)
    assert isinstance(cents, Fit)
    assert isinstance(dollars, Fit)
    assert adjusted_rand(cents.numbers.astype(int), dollars.numbers.astype(int)) > 0.999


@pytest.mark.parametrize("k", [3, 4, 5])
def test_groups_that_are_there_are_found(k):
    rows, truth = _blobs(k)
    found = fit(rows, NAMES, 0)
    assert isinstance(found, Fit)
    assert found.model.k == k
    assert adjusted_rand(found.numbers.astype(int), truth) > 0.99


def test_the_same_rows_and_seed_give_the_same_model_to_the_last_digit():
    rows, _ = _blobs()
    one, two = fit(rows, NAMES, 3), fit(rows, NAMES, 3)
    assert one.model.to_json() == two.model.to_json()
    assert one.quality == two.quality


def test_assigning_the_rows_of_a_fit_gives_its_numbers():
    rows, _ = _blobs()
    rows[::7, 1] = np.nan
    found = fit(rows, NAMES, 0, missing={"b": "median"})
    numbers, distances = found.model.assign(dict(zip(NAMES, rows.T, strict=True)))
    assert (numbers == found.numbers).all()
    np.testing.assert_allclose(distances, found.distances)


@given(st.integers(0, 1_000))
@settings(max_examples=5, deadline=None)
def test_a_refit_on_the_same_data_keeps_every_lineage_whatever_the_seed(seed):
    rows, _ = _blobs(seed=seed % 5)
    one = fit(rows, NAMES, 0)
    two = fit(rows, NAMES, seed, previous=one.model)
    found = match(two.numbers, one.numbers, k_new=two.model.k, k_old=one.model.k)
    assert {heir.verdict for heir in found.heirs} == {"same"}
    assert found.ended == ()


def test_columns_that_tell_nothing_are_dropped_and_named():
    rows, _ = _blobs()
    rare = np.zeros(len(rows))
    rare[:3] = 1
    nobody = np.full(len(rows), np.nan)
    wide = np.column_stack([rows, np.ones(len(rows)), nobody, rows[:, 0] * 3 + 1, rare])
    found = fit(wide, (*NAMES, "constant", "nobody", "twin", "rare"), 0)
    assert found.model.features == NAMES
    assert found.quality["dropped"] == {
        "constant": "the same for everyone",
        "nobody": "missing for everyone",
        "twin": "says the same as a",
        "rare": "differs for only 0.50% of the customers",
    }
    assert found.quality["missing"] == {"nobody": 1.0}


def test_what_never_happened_counts_as_longest_ago():
    rows, _ = _blobs()
    rows[:100, 1] = np.nan
    found = fit(rows, NAMES, 0, missing={"a": "horizon", "b": "horizon"})
    assert found.model.fill[found.model.features.index("b")] == pytest.approx(np.nanmax(rows[:, :2]))


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        (np.random.default_rng(0).normal(size=(59, 3)), "too_few_customers"),
        (np.empty((0, 3)), "too_few_customers"),
        (np.ones((500, 3)), "no_features"),
        (np.full((500, 3), np.nan), "no_features"),
        (np.repeat(np.eye(3)[[0, 1]], [495, 5], axis=0), "no_features"),
    ],
)
def test_no_clustering_is_said_and_not_invented(rows, code):
    found = fit(rows, NAMES, 0)
    assert isinstance(found, Inconclusive)
    assert found.code == code


def test_when_no_k_passes_the_reason_names_each():
    rows = np.random.default_rng(0).uniform(size=(400, 3))
    found = fit(rows, NAMES, 0, options=Options(minimum_silhouette=0.6))
    assert isinstance(found, Inconclusive)
    assert found.code == "no_clustering_passes"
    assert [one["k"] for one in found.quality["tried"]] == list(range(2, 9))
    assert all(f"k = {k}: " in found.reason for k in range(2, 9))


def test_the_previous_number_of_clusters_is_kept_when_it_is_nearly_as_good(cdnow):
    four = fit(cdnow, RFM, 1, options=Options(k_min=4, k_max=4))
    three = fit(cdnow, RFM, 1, options=Options(k_min=3, k_max=3))
    assert fit(cdnow, RFM, 1, previous=four.model).model.k == 4
    assert fit(cdnow, RFM, 1, previous=three.model).model.k == 3


@given(st.integers(0, 500))
@settings(max_examples=15, deadline=None)
def test_our_figures_are_scikit_learns(seed):
    from sklearn.metrics import adjusted_rand_score, silhouette_score

    draw = np.random.default_rng(seed)
    rows, one, two = draw.normal(size=(60, 2)), draw.integers(0, 4, 60), draw.integers(0, 3, 60)
    one[:4] = range(4)
    gaps = np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(axis=2))
    assert silhouette(gaps, one, 4) == pytest.approx(silhouette_score(rows, one), abs=1e-9)
    assert adjusted_rand(one, two) == pytest.approx(adjusted_rand_score(one, two), abs=1e-9)
