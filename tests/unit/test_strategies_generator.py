"""Strategies made for a cluster: bound to it, as deep as it needs, readable as any other strategy."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from operation_agent.strategies.generator import ClusterView, drafts
from operation_agent.strategies.library import library
from operation_agent.strategies.vocabulary import vocabulary
from rules.program import actions
from rules.strategy import parse

pytestmark = pytest.mark.unit

LINEAGE = UUID("01900000-0000-7000-8000-0000000000ab")
VIEW = ClusterView(
    lineage=LINEAGE, label_key="at_risk", labels={"en": "At risk", "zh": "流失风险"}, size=1_000, reachable=600,
    sensitivity={"low": 100, "medium": 0, "high": 900}, answers=[0] * 24, order_minor=5_000.0,
)  # fmt: skip
EVENING = [0] * 19 + [50, 80, 30] + [0] * 2


def made(template, **changes):
    return drafts(template, library()[template], replace(VIEW, **changes))


def percents(draft):
    return {
        one.step.parameters["percent"]
        for rule in draft.strategy.rules
        for arm in rule.arms
        for one in actions(arm)
        if one.step.action == "coupon"
    }


@pytest.mark.parametrize("template", sorted(library()))
def test_every_draft_is_a_strategy_that_reads_and_looks_at_its_cluster_alone(template):
    for draft in made(template):
        assert parse(draft.strategy.to_dict(), vocabulary()) == draft.strategy
        for rule in draft.strategy.rules:
            assert rule.condition.to_dict()["all"][0] == {
                "field": "cluster.lineage", "op": "equals", "value": str(LINEAGE),
            }  # fmt: skip


def test_keys_differ_over_templates_clusters_and_depths_and_are_the_same_again():
    other = UUID("01900000-0000-7000-8000-0000000000cd")
    keys = [
        draft.strategy.key
        for lineage in (LINEAGE, other)
        for template in library()
        for draft in made(template, lineage=lineage)
    ]
    assert len(keys) == len(set(keys))
    again = [draft.strategy.key for template in library() for draft in made(template)]
    assert again == keys[: len(again)]


def test_the_offer_is_as_deep_as_the_cluster_is_sensitive_to_price():
    assert [draft.depth for draft in made("win_back")] == [10.0, 15.0, 20.0]
    assert [percents(draft) for draft in made("win_back")] == [{10.0}, {15.0}, {20.0}]
    full_price = made("win_back", sensitivity={"low": 90, "medium": 10, "high": 0})
    assert [(draft.depth, percents(draft)) for draft in full_price] == [(None, set()), (5.0, {5.0})]
    assert made("win_back", sensitivity={"low": 0, "medium": 0, "high": 0})[-1].depth == 10.0


def test_a_deeper_coupon_is_expected_to_do_more_and_cost_more():
    shallow, _, deep = made("conversion")
    priors = [
        next(arm.prior for arm in draft.strategy.rules[0].arms if "coupon" in arm.key) for draft in (shallow, deep)
    ]
    assert priors[0].increment < priors[1].increment and priors[0].redemption < priors[1].redemption


def test_a_schedule_moves_to_the_hour_the_cluster_answers_at():
    (first, *_) = made("repurchase", answers=EVENING)
    assert first.hour == 20
    assert [rule.when.schedule for rule in first.strategy.rules] == ["0 20 * * *"]
    assert made("repurchase", answers=[1] * 24)[0].strategy.rules[0].when.schedule == "0 9 * * *"


def test_a_cluster_nobody_of_whom_may_be_written_to_gets_no_strategy():
    assert made("win_back", reachable=0) == []


def test_the_reasons_say_whom_why_and_how_much_in_both_languages():
    (first, *_) = made("repurchase", answers=EVENING)
    english, chinese = " ".join(first.reasons["en"]), "".join(first.reasons["zh"])
    assert "At risk: 1000 customers, 600 of whom" in english
    assert "sensitive to price, so 10 %" in english and "20:00" in english
    assert "流失风险" in chinese and "10%" in chinese and "20:00" in chinese
