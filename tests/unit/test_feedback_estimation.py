"""Totals over strata: one stratum is Welch, several add up, and a customer in two is counted once in the error."""

from __future__ import annotations

import numpy as np
import pytest

from operation_agent.experiments.comparison import Inconclusive, Sample, difference
from operation_agent.feedback import estimation
from operation_agent.feedback.population import METRICS, Population

pytestmark = pytest.mark.unit


def population(
    seed: int, n: int, *, lift: float = 1.0, strategy: int = 0, share: float = 0.2, customers=None
) -> Population:
    random = np.random.default_rng(seed)
    held = random.random(n) < share
    prior = random.gamma(1.0, 50, n)
    values = random.gamma(1.2, 40, n) + 0.4 * prior + np.where(held, 0, lift)
    spend = np.where(held, 0, random.gamma(2.0, 1.0, n))
    return Population(
        names=("a", "b"),
        strategies=np.full(n, strategy),
        customers=np.array(list(customers if customers is not None else range(n)), dtype=int),
        held_out=held,
        share=np.full(n, share),
        metrics=dict.fromkeys(METRICS, values) | {"spend": spend},
        covariates={"prior_orders": prior, "prior_revenue": prior},
    )


def joined(*parts: Population) -> Population:
    def together(pick):
        return np.concatenate([pick(part) for part in parts])

    return Population(
        parts[0].names,
        together(lambda p: p.strategies), together(lambda p: p.customers), together(lambda p: p.held_out),
        together(lambda p: p.share),
        {name: together(lambda p, name=name: p.metrics[name]) for name in METRICS},
        {name: together(lambda p, name=name: p.covariates[name]) for name in parts[0].covariates},
    )  # fmt: skip


def total(found: Population, metric: str = "profit"):
    strata, _ = estimation.comparable(found)
    return estimation.total(estimation.influence(strata, metric))


def test_one_stratum_is_welch_with_cuped():
    found = population(1, 900)
    held, y, x = found.held_out, found.metrics["profit"], found.covariates["prior_revenue"]
    plain = difference(Sample.of(y[~held], x[~held]), Sample.of(y[held], x[held]), cuped=True)
    wanted, made = plain.scaled(float((~held).sum())), total(found)
    for name in ("estimate", "standard_error", "lower", "upper", "p_value", "degrees", "theta"):
        assert getattr(made, name) == pytest.approx(getattr(wanted, name), rel=1e-9), name


def test_strategies_of_different_customers_add_up():
    one, two = population(1, 500), population(2, 700, strategy=1, customers=range(1000, 1700))
    both = total(joined(one, two))
    assert both.estimate == pytest.approx(total(one).estimate + total(two).estimate)
    assert both.standard_error**2 == pytest.approx(total(one).standard_error ** 2 + total(two).standard_error ** 2)


def test_the_same_customers_twice_are_not_twice_the_evidence():
    one = population(1, 500)
    again = population(1, 500, strategy=1)
    assert total(joined(one, again)).standard_error == pytest.approx(2 * total(one).standard_error)


def test_a_share_that_was_changed_does_not_bias():
    """Late customers buy more and were held out more often: put into one heap they would look harmful."""
    early, late = population(3, 4000, share=0.05), population(4, 4000, share=0.5, customers=range(4000, 8000))
    for values in (late.metrics["profit"],):
        values += 100
    heap = joined(early, late)
    held, y = heap.held_out, heap.metrics["profit"]
    assert y[~held].mean() < y[held].mean()
    found = total(heap)
    assert found.lower < (~held).sum() * 1.0 < found.upper


def test_a_stratum_without_a_holdout_is_left_out_and_said():
    everyone = population(5, 50, share=0.0, strategy=1)
    strata, why = estimation.comparable(everyone)
    assert (strata, why.reason) == ([], "no_holdout")
    strata, why = estimation.comparable(joined(population(1, 500), everyone))
    assert [len(stratum) for stratum in strata] == [500]
    assert why is None


def test_sides_that_are_not_as_drawn_are_noticed():
    found = population(1, 2000)
    assert isinstance(estimation.balance(found), float)
    lost = found.where(found.held_out | (np.arange(2000) % 4 > 0))  # a quarter of the treated is gone
    assert estimation.balance(lost).reason == "sample_ratio"
    assert estimation.balance(found.where(np.zeros(2000, dtype=bool))).reason == "too_few"


def test_return_on_spend_has_an_interval_around_the_truth():
    found = population(6, 60_000, lift=4.0)
    strata, _ = estimation.comparable(found)
    ratio = estimation.return_on_spend(*(estimation.influence(strata, metric) for metric in ("profit", "spend")))
    assert ratio.lower < 2.0 < ratio.upper  # 4 gained, 2 spent on average
    assert ratio.upper - ratio.lower < 2
    nothing_spent = population(7, 500)
    nothing_spent.metrics["spend"][:] = 0
    strata, _ = estimation.comparable(nothing_spent)
    refused = estimation.return_on_spend(*(estimation.influence(strata, metric) for metric in ("profit", "spend")))
    assert isinstance(refused, Inconclusive)
