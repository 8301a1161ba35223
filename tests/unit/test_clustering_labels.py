"""Names say what the figures say, in both languages, and no two clusters share a text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operation_agent.clustering.labels import label, profiles
from operation_agent.clustering.phrases import FALLBACK, FEATURE_WORDS, RULES, STATISTIC_WORDS

pytestmark = pytest.mark.unit

QUIET = {
    "orders": 1, "revenue_minor": 3_000, "average_order_minor": 3_000, "days_since_order": 200, "discount_share": 0.0,
    "days_since_first_order": 200, "interpurchase_days": np.nan, "views_7d": 0, "views_30d": 0, "repeat_views_7d": 0,
    "searches_7d": 0, "carts_7d": 0, "checkouts_7d": 0, "open_cart": 0, "days_since_view": np.nan,
}  # fmt: skip


def _label(*groups, size=100, **options):
    """Groups of equal customers, each differing from QUIET as told, beside two hundred quiet ones."""
    people = [{**QUIET, **group} for group in groups for _ in range(size)] + [QUIET] * 200
    columns = {name: np.array([one[name] for one in people], float) for name in QUIET}
    numbers = np.array([at for at in range(len(groups)) for _ in range(size)] + [len(groups)] * 200)
    parts, everybody = profiles(columns, numbers, len(groups) + 1)
    return label(parts, everybody, currency="USD", **options)


@pytest.mark.parametrize(
    ("group", "key", "zh"),
    [
        ({"carts_7d": 2, "open_cart": 1}, "decision_stage", "决策阶段"),
        ({"checkouts_7d": 1}, "decision_stage", "决策阶段"),
        ({"views_7d": 12, "views_30d": 20, "repeat_views_7d": 4}, "deep_research", "深度研究"),
        ({"days_since_first_order": 9, "days_since_order": 9}, "new", "新客"),
        ({"orders": 5, "interpurchase_days": 20, "days_since_order": 90}, "at_risk", "流失风险"),
        (
            {"orders": 9, "revenue_minor": 90_000, "days_since_order": 9, "interpurchase_days": 30},
            "high_value",
            "高价值",
        ),
        ({"orders": 4, "discount_share": 0.4}, "price_sensitive", "价格敏感"),
        ({"orders": 4, "days_since_order": 15, "interpurchase_days": 30}, "loyal", "忠诚复购"),
        ({"orders": 0, "views_30d": 6, "views_7d": 1, "revenue_minor": 0}, "browsing_stage", "浏览阶段"),
        ({}, "one_time", "一次性买家"),
        ({"orders": 2, "days_since_order": 25}, "mid_value", "中端价值型"),
        ({"orders": 2, "revenue_minor": 900, "average_order_minor": 450}, "low_value", "低消费"),
        ({"orders": 0, "revenue_minor": 0}, "visitor", "未购访客"),
    ],
)
def test_each_rule_names_the_group_it_is_about(group, key, zh):
    made = _label(group)[0]
    assert made.key == key
    assert made.labels["zh"].startswith(zh)
    assert made.labels["why"]["en"] != made.labels["why"]["zh"]


def test_the_reason_names_the_figures_and_the_money_in_its_currency():
    made = _label({"orders": 9, "revenue_minor": 91_234, "days_since_order": 9, "interpurchase_days": 30})[0]
    assert "median spend 912.34 USD, above 83% of customers" in made.labels["why"]["en"]
    assert "累计消费中位数 912.34 USD" in made.labels["why"]["zh"]
    yen = _label({"orders": 9, "revenue_minor": 91_234, "days_since_order": 9}, currency_digits=0)[0]
    assert "91234 USD" in yen.labels["why"]["en"]


def test_two_groups_of_one_name_are_told_apart_by_what_differs():
    made = _label({"orders": 4, "days_since_order": 15}, {"orders": 4, "days_since_order": 150})
    assert [one.key for one in made[:2]] == ["loyal", "loyal"]
    assert [one.labels["en"] for one in made[:2]] == [
        "Loyal repeat buyers (more recent)",
        "Loyal repeat buyers (longer ago)",
    ]
    assert [one.labels["zh"] for one in made[:2]] == ["忠诚复购（下单较近）", "忠诚复购（下单较早）"]


def test_groups_without_any_difference_are_numbered():
    made = _label({}, {})
    assert len({one.labels["en"] for one in made}) == 3


_GROUP = st.fixed_dictionaries(
    {
        "orders": st.integers(0, 12),
        "revenue_minor": st.integers(0, 100_000),
        "days_since_order": st.one_of(st.just(np.nan), st.floats(0, 500)),
        "carts_7d": st.integers(0, 3),
        "views_30d": st.integers(0, 30),
        "discount_share": st.floats(0, 1),
    }
)


@given(st.lists(_GROUP, min_size=2, max_size=7), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_texts_are_unique_and_renumbering_the_clusters_changes_none(groups, random):
    order = list(range(len(groups)))
    random.shuffle(order)
    plain, moved = _label(*groups, size=20), _label(*[groups[at] for at in order], size=20)
    for language in ("en", "zh"):
        assert len({one.labels[language] for one in plain}) == len(plain)
    assert [one.key for one in moved[:-1]] == [plain[at].key for at in order]
    different = len({tuple(map(str, group.values())) for group in groups}) == len(groups)
    if different:
        assert {(one.key, one.labels["en"]) for one in moved} == {(one.key, one.labels["en"]) for one in plain}


def test_the_tables_are_whole():
    assert len({rule.key for rule in (*RULES, FALLBACK)}) == len(RULES) + 1
    for language in ("en", "zh"):
        assert len({rule.text[language] for rule in (*RULES, FALLBACK)}) == len(RULES) + 1
        for rule in RULES:
            assert "{facts}" in rule.reason[language]
    for rule in RULES:
        for condition in (one for choice in rule.conditions for one in choice):
            assert condition.statistic in STATISTIC_WORDS
            assert condition.feature in FEATURE_WORDS
