"""Predictions start at the prior and move to what was measured, by how much of it there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.strategies.predictor import ArmPlan, Belief, Measured, forecast, predict, prior

pytestmark = pytest.mark.unit

sizes = st.integers(1, 100_000)


def test_without_history_the_prior_speaks_and_reaches_from_nothing_to_twice_the_guess():
    found = predict(0.04, [], None)
    assert found.mean == 0.04 and found.evidence == 0
    assert found.mean - 1.96 * found.variance**0.5 == pytest.approx(0, abs=1e-3)


def test_much_evidence_in_the_cluster_outweighs_prior_and_other_clusters():
    here = Measured(50_000, 5_000, 50_000, 5_000)
    found = predict(0.04, [Measured(500, 60, 500, 20)], here)
    assert abs(found.mean) < 0.004
    assert found.evidence == 101_000


def test_what_happened_elsewhere_moves_the_prior_but_never_settles_it():
    elsewhere = Measured(10**6, 150_000, 10**6, 100_000)
    found = predict(0.01, [elsewhere], None)
    assert 0.01 < found.mean < 0.05
    assert found.variance > 1e-6


def test_one_side_alone_says_nothing():
    assert Measured(100, 10, 0, 0).belief() is None
    assert predict(0.02, [Measured(100, 10, 0, 0)], Measured(0, 0, 50, 1)) == prior(0.02)


@given(sizes, sizes, st.floats(0, 1), st.floats(0, 1), st.floats(-0.2, 0.2))
def test_a_prediction_lies_between_what_is_combined_and_is_surer_than_both(n, m, p, q, guess):
    here = Measured(n, round(n * p), m, round(m * q))
    own, first = here.belief(), prior(guess)
    found = predict(guess, [], here)
    assert min(own.mean, first.mean) - 1e-12 <= found.mean <= max(own.mean, first.mean) + 1e-12
    assert found.variance <= min(own.variance, first.variance) + 1e-15


def test_a_forecast_is_the_money_of_its_arms():
    arms = [
        ArmPlan(0.5, Belief(0.02, 0.01**2), 0.0, 0.0, 1.0),
        ArmPlan(0.5, Belief(0.04, 0.02**2), 0.06, 10.0, 1.0),
    ]
    found = forecast(arms, customers=1_000, order_minor=5_000, margin_rate=0.4)
    assert found.orders == pytest.approx(500 * 0.02 + 500 * 0.04)
    spend = 500 * 1 + 500 * (0.06 * 500 + 1)
    assert found.spend == pytest.approx(spend)
    assert found.liability == pytest.approx(500 * 1 + 500 * (500 + 1))
    assert found.profit == pytest.approx(30 * 5_000 * 0.4 - spend)
    assert found.orders_upper - found.orders == pytest.approx(1.95996 * (500 * 0.01 + 500 * 0.02), rel=1e-4)
    assert found.profit_upper - found.profit == pytest.approx((found.orders_upper - found.orders) * 2_000)
