"""Comparisons: the published figures of a real experiment, agreement with scipy, and refusal where nothing is known."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.experiments.comparison import (
    Inconclusive,
    Sample,
    difference,
    fieller,
    ratio_of_differences,
    relative_lift,
    sample_ratio,
)

pytestmark = pytest.mark.unit

HILLSTROM = Path(__file__).parents[3] / "shared" / "data" / "hillstrom.csv.gz"


@pytest.fixture(scope="module")
def hillstrom() -> tuple[Sample, Sample]:
    if not HILLSTROM.exists():
        pytest.skip(f"{HILLSTROM} is not here")
    with gzip.open(HILLSTROM, "rt") as file:
        header, *lines = csv.reader(file)
    arm, visit, history = (header.index(name) for name in ("segment", "visit", "history"))

    def side(name: str) -> Sample:
        rows = [line for line in lines if line[arm] == name]
        return Sample.of([float(row[visit]) for row in rows], [float(row[history]) for row in rows])

    return side("Womens E-Mail"), side("No E-Mail")


def test_hillstrom_difference_and_welch_interval(hillstrom):
    found = difference(*hillstrom)
    assert found.estimate == pytest.approx(0.045233106587053, rel=1e-12)
    assert found.estimate / found.standard_error == pytest.approx(13.9847384824106, rel=1e-12)
    assert (found.lower, found.upper) == pytest.approx((0.0388934937620803, 0.0515727194120257), rel=1e-10)


def test_hillstrom_cuped_on_past_spend(hillstrom):
    found = difference(*hillstrom, cuped=True)
    assert found.estimate == pytest.approx(0.0450949423522049, rel=1e-12)
    # the reference divides by n where ours divides by n - 1: 1 / 21,306 of the variance
    assert found.standard_error == pytest.approx(0.00322790500812447, rel=3e-5)
    assert found.standard_error < difference(*hillstrom).standard_error


def test_hillstrom_relative_lift(hillstrom):
    found = relative_lift(*hillstrom)
    assert found.estimate == pytest.approx(0.42605507026691, rel=1e-12)
    assert (found.lower, found.upper) == pytest.approx((0.35439873690536, 0.497711403628461), rel=2e-6)


def test_hillstrom_sides_are_as_drawn(hillstrom):
    assert sample_ratio([side.n for side in hillstrom], [0.5, 0.5]) == pytest.approx(0.695044464843921, rel=1e-12)


def test_welch_agrees_with_scipy():
    from scipy.stats import ttest_ind

    random = np.random.default_rng(3)
    one, two = random.gamma(1.5, 30, 140), random.gamma(1.1, 45, 60)
    theirs = ttest_ind(one, two, equal_var=False)
    ours = difference(Sample.of(one), Sample.of(two))
    interval = theirs.confidence_interval()
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-10)
    assert ours.degrees == pytest.approx(theirs.df, rel=1e-12)
    assert (ours.lower, ours.upper) == pytest.approx((interval.low, interval.high), rel=1e-10)


numbers = st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=2, max_size=40)


@given(numbers, numbers)
def test_two_samples_put_together_are_the_sample_of_all(one, two):
    def of(rows):
        return Sample.of([y for y, _ in rows], [x for _, x in rows])

    joined, whole = of(one) + of(two), of(one + two)
    assert joined.n == whole.n
    for name in ("mean", "variance", "covariate_mean", "covariate_variance", "covariance"):
        assert getattr(joined, name) == pytest.approx(getattr(whole, name), rel=1e-6, abs=1e-3)


def test_cuped_removes_what_the_covariate_foretold():
    random = np.random.default_rng(5)
    x = random.normal(0, 10, 4000)
    y = 3 * x + random.normal(0, 1, 4000) + np.where(np.arange(4000) < 3000, 0.5, 0)
    sides = Sample.of(y[:3000], x[:3000]), Sample.of(y[3000:], x[3000:])
    plain, cuped = difference(*sides), difference(*sides, cuped=True)
    assert cuped.standard_error < plain.standard_error / 20
    assert abs(cuped.estimate - 0.5) < 3 * cuped.standard_error
    assert cuped.theta == pytest.approx(3, rel=0.01)


def test_a_covariate_that_does_not_vary_changes_nothing():
    sides = Sample.of([1, 2, 3], [7, 7, 7]), Sample.of([2, 2, 5], [7, 7, 7])
    assert difference(*sides, cuped=True) == difference(*sides)


@pytest.mark.parametrize(
    ("treated", "held_out", "reason"),
    [
        ([1.0, 2.0], [], "no_holdout"),
        ([1.0, 2.0], [1.0], "too_few"),
        ([1.0], [1.0, 2.0], "too_few"),
        ([0.0] * 50, [0.0] * 20, "zero_variance"),
    ],
)
def test_what_cannot_be_known_is_said_so(treated, held_out, reason):
    sides = Sample.of(treated), Sample.of(held_out)
    for found in (difference(*sides), difference(*sides, cuped=True), relative_lift(*sides)):
        assert isinstance(found, Inconclusive)
        assert found.reason == reason
        assert found.detail


def test_a_missing_value_is_an_error_and_not_a_number():
    with pytest.raises(ValueError, match="finite"):
        Sample.of([1.0, float("nan")])


def test_a_side_that_lost_customers_is_noticed():
    assert sample_ratio([8000, 2000], [0.8, 0.2]) > 0.99
    assert sample_ratio([8000, 1700], [0.8, 0.2]) < 1e-6
    assert sample_ratio([8, 1], [0.8, 0.2]).reason == "too_few"
    assert sample_ratio([80, 0], [1.0, 0.0]).reason == "no_holdout"


def test_fieller_covers_the_true_ratio_and_knows_when_there_is_none():
    random = np.random.default_rng(11)
    covered = 0
    for _ in range(400):
        top, bottom = random.normal(0, 1, 400), random.normal(0, 1, 400)
        treated = Sample.of(2 + top + bottom, 1 + bottom)
        held_out = Sample.of(random.normal(0, 1, 100), random.normal(0, 1, 100))
        found = ratio_of_differences(treated, held_out)
        covered += found.lower <= 2.0 <= found.upper
    assert 0.92 <= covered / 400 <= 0.98
    assert fieller(5.0, 0.1, 1.0, 1.0, 0.0).reason == "denominator_near_zero"


def test_relative_lift_of_nearly_nothing_is_not_a_number():
    random = np.random.default_rng(2)
    noise = Sample.of(random.normal(0, 1, 100)), Sample.of(random.normal(0, 1, 100))
    assert relative_lift(*noise).reason == "denominator_near_zero"
