"""The pure parts of deciding: guardrails, draws, values, and the words in which a receipt is explained."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.decision import guardrails, scoring, words
from operation_agent.decision.demands import demands, may_skip
from operation_agent.decision.explain import explain
from operation_agent.decision.guardrails import STOPS_AS
from operation_agent.decision.receipt import VERDICTS
from operation_agent.experiments import assignment
from operation_agent.kit.ids import drawer, new_id, uniform
from operation_agent.strategies.library import library, template
from operation_agent.strategies.live import LiveRule
from operation_agent.strategies.vocabulary import vocabulary
from rules.condition import OPERATORS
from rules.evaluate import compile
from rules.limits import ShopLimits
from rules.strategy import parse

pytestmark = pytest.mark.unit

AT = datetime(2026, 3, 1, tzinfo=UTC)
NOW = AT.timestamp()
DAY = 86400.0
WEEK = {"channel": "email", "count": 2, "window": 7 * DAY}


def message(due: float, channel: str = "email", tags: tuple[str, ...] = (), own: bool = True) -> list[Any]:
    return [due, channel, list(tags), own]


def capped(planned: list[Any], first: float = 0.0, limit: dict[str, Any] = WEEK) -> bool:
    listed = [one if isinstance(one, list) else message(one) for one in planned]
    return guardrails.cap({"caps": [limit], "first": [message(first)], "messages": listed}) is not None


def test_a_window_rolls_and_looks_both_ways():
    assert not capped([-7 * DAY, -6 * DAY])  # exactly a week ago is out of the window
    assert capped([-6.9 * DAY, -6 * DAY])
    assert capped([5 * DAY, 6 * DAY])  # what is planned for later counts too
    assert capped([-3 * DAY, 3 * DAY])
    assert not capped([-5 * DAY, 5 * DAY])  # no seven days hold all three


def test_a_cap_counts_what_it_names_only():
    sms, both = {**WEEK, "channel": "sms"}, {"count": 2, "window": 7 * DAY}
    assert not capped([0.0, 0.0, 0.0], limit=sms)
    assert capped([message(0.0), message(0.0, "sms")], limit=both)
    tagged = {**both, "tag": "sale"}
    assert not capped([message(0.0, tags=("sale",)), message(0.0, tags=("sale",))], limit=tagged)
    listed = [message(0.0, tags=("sale",)) for _ in range(2)]
    first = message(0.0, tags=("sale", "new"))
    found = guardrails.cap({"caps": [tagged], "first": [first], "messages": listed})
    assert found == {"tag": "sale", "count": 2, "window_days": 7.0, "planned": 2}
    own = {**both, "own": True}
    assert not capped([message(0.0, own=False), message(0.0, own=False)], limit=own)
    assert capped([message(0.0), message(0.0)], limit=own)


@pytest.mark.parametrize(("left", "stops"), [((499,), "total"), ((500,), None), ((500, 499), "daily"),
                                             ((500, 500, 499), "per_customer"), ((500, 500, 500), None)])  # fmt: skip
def test_the_dearest_arm_must_fit_into_every_limit_of_a_budget(left, stops):
    named = dict(zip(("left", "daily_left", "customer_left"), left, strict=False))
    found = guardrails.budget({"needed": 500, **named})
    assert (found["limit"] if found else None) == stops


def test_below_a_cutoff_money_and_days_are_left_to_better_ones():
    assert guardrails.budget({"needed": 1, "left": 9, "score": 4.9, "cutoff": 5}) == {"score": 4.9, "cutoff": 5}
    assert guardrails.budget({"needed": 1, "left": 9, "score": 5.0, "cutoff": 5}) is None
    given = {"most": 3, "taken": 2, "day": "2026-03-01"}
    assert guardrails.executions(given) is None
    assert guardrails.executions({**given, "taken": 3}) == {**given, "taken": 3}
    assert guardrails.executions({**given, "score": 1.0, "cutoff": 2.0}) == {"score": 1.0, "cutoff": 2.0}


def test_a_coupon_waits_for_the_last_one_to_be_used_or_over():
    def stopped(*coupons: list[Any], stacking: bool = False, **limit: Any) -> Any:
        limits = [{"count": 2, "window": 30 * DAY, **limit}]
        return guardrails.coupon({"limits": limits, "stacking": stacking, "due": [NOW], "coupons": list(coupons)})

    assert stopped([NOW - DAY, NOW + DAY]) == {"outstanding_until": (AT + timedelta(days=1)).isoformat()}
    assert stopped([NOW - DAY, NOW]) is None
    assert stopped([NOW - DAY, None]) is None  # redeemed
    assert stopped([NOW - DAY, NOW + DAY], stacking=True) is None
    tired = stopped([NOW - DAY, None], [NOW - 29 * DAY, None])
    assert tired == {"count": 2, "window_days": 30.0, "planned": 2}
    assert stopped([NOW - DAY, None], [NOW - 30 * DAY, None]) is None


def test_a_group_lets_a_customer_go_once_its_time_is_over():
    def stopped(until: float | None) -> Any:
        return guardrails.exclusive({"group": "g", "at": NOW, "belongs": [["other", until]]})

    assert stopped(NOW) is None
    assert stopped(NOW + 1)["taken_by"] == "other"
    assert stopped(None) == {"group": "g", "taken_by": "other", "until": None}


def test_a_complaint_counts_for_as_long_as_it_says():
    given = {"at": NOW, "cooldown": 90 * DAY}
    assert guardrails.complaint({**given, "complained_at": NOW - 89 * DAY}) is not None
    assert guardrails.complaint({**given, "complained_at": NOW - 90 * DAY}) is None


def test_verdicts_come_in_the_order_of_the_list():
    assert guardrails.verdict_of(["budget", "consent"]) == "no_consent"
    assert guardrails.verdict_of([]) is None


@given(
    st.lists(st.integers(-20, 20).map(float), max_size=8),
    st.lists(st.integers(-20, 20).map(float), min_size=1, max_size=3),
    st.integers(1, 12).map(float),
)
def test_the_fullest_window_is_the_fullest_of_all(planned, added, span):
    times = [*planned, *added]
    # every half-open window (end - span, end] on a fine enough grid
    grid = [tick / 2 for tick in range(-80, 120)]
    slow = max(
        sum(end - span < one <= end for one in times) for end in grid if any(end - span < one <= end for one in added)
    )
    assert guardrails.fullest_window(times, added, span) == slow


@pytest.mark.parametrize(
    ("frequency", "cooldown", "key", "entries", "passes"),
    [
        ("once", None, "", {"": -900}, False),
        ("every_time", None, "", {"": 0}, True),
        ("every_time", 2, "", {"": -1}, False),
        ("every_time", 2, "", {"": -2}, True),
        ("every_time", 2, "", {"": 1}, False),
        ("once_per_key", None, "k", {"j": 0}, True),
        ("once_per_key", None, "k", {"k": -99}, False),
        ("once_per_key", 2, "k", {"j": -1}, False),
    ],
)
def test_a_rule_takes_a_customer_as_often_as_it_says(frequency, cooldown, key, entries, passes):
    times = {name: NOW + days * DAY for name, days in entries.items()}
    given = {"frequency": frequency, "at": NOW, "first": min(times.values()), "last": max(times.values())}
    given |= {"cooldown": cooldown * DAY} if cooldown else {}
    given |= {"key": times[key]} if key in times else {}
    assert (guardrails.enrolment(given) is None) is passes


@pytest.mark.parametrize(
    ("state", "topic", "allowed"),
    [
        (None, "marketing", False), ("subscribed", "marketing", True), ("unsubscribed", "marketing", False),
        (None, "transactional", True), ("subscribed", "transactional", True), ("unsubscribed", "transactional", False),
    ],
)  # fmt: skip
def test_marketing_needs_a_yes_and_the_rest_no_no(state, topic, allowed):
    assert guardrails.is_consented(state, topic) is allowed


def live_of(strategy) -> LiveRule:
    rule = strategy.rules[0]
    return LiveRule(
        new_id(), new_id(), f"{strategy.key}/{rule.key}", 1, rule, strategy, compile(rule.condition), None, AT
    )


def test_demands_are_those_of_all_arms_together():
    wanted = demands(live_of(template("conversion")), ShopLimits(), {}, 2)
    assert wanted.channels == ("email",)
    assert wanted.topics == (("email", "marketing"),)
    assert [[(one.offset, channel) for one, channel, _ in arm] for arm in wanted.messages] == [[(3600.0, "email")]] * 2


def test_later_messages_that_caps_may_hold_back_are_named():
    definition = template("conversion").to_dict()
    steps = definition["rules"][0]["then"]["arms"][0]["steps"]
    definition["rules"][0]["then"]["arms"][0]["steps"] = [
        *steps,
        {**steps[0], "delay": "P1D"},
        {**steps[0], "delay": "P9D"},
    ]
    definition["caps"] = [{"channel": "email", "count": 1, "window": "P7D"}]
    wanted = demands(live_of(parse(definition, vocabulary())), ShopLimits(), {}, 2)
    assert may_skip(wanted, 0, NOW, ()) == [1]
    assert may_skip(wanted, 0, NOW, [message(NOW + 12 * DAY)]) == [1, 2]
    assert may_skip(wanted, 1, NOW, ()) == []


# -- draws ------------------------------------------------------------------------------------------------------------


def test_sides_and_arms_come_in_their_shares_and_independently():
    n = 20_000
    sides = [assignment.side("s", "win-back", str(i), holdout=0.2, global_holdout=0.1) for i in range(n)]
    share = assignment.held_out_share(0.2, 0.1)
    assert share == pytest.approx(0.28)
    held_out = [one.held_out for one in sides]
    assert abs(sum(held_out) / n - share) < 0.015
    assert {one.propensity for one in sides} == {share, 1 - share}
    arms = [assignment.arm("s", "win-back", "lapsed", str(i), [0.5, 0.25, 0.25])[0] for i in range(n)]
    for index, expected in enumerate([0.5, 0.25, 0.25]):
        treated = [arm == index for arm, out in zip(arms, held_out, strict=True) if not out]
        assert abs(sum(treated) / len(treated) - expected) < 0.02
    other = [assignment.side("s", "retention", str(i), holdout=0.2, global_holdout=0.0).held_out for i in range(n)]
    both = sum(one and two for one, two in zip(other, held_out, strict=True)) / n
    assert abs(both - share * 0.2) < 0.01


@given(st.lists(st.text(), max_size=4), st.text())
def test_a_drawer_draws_what_uniform_draws(first, last):
    assert drawer(*first)(last) == uniform(*first, last)


def test_a_draw_depends_on_the_customer_and_not_on_the_moment():
    first = assignment.arm("s", "a", "r", "k", [0.5, 0.5])
    assert first == assignment.arm("s", "a", "r", "k", [0.5, 0.5])
    assert len({assignment.arm(seed, "a", "r", "k", [0.5, 0.5])[1] for seed in "abcdef"}) == 6


@given(st.lists(st.floats(0, 10), min_size=1, max_size=6).filter(lambda weights: sum(weights) > 0.01), st.floats(0, 1))
def test_an_arm_without_weight_is_never_picked(weights, draw):
    shares = assignment.shares(weights)
    assert sum(shares) == pytest.approx(1)
    assert weights[assignment.pick(shares, min(draw, 0.9999999999999999))] > 0


def test_no_weight_at_all_is_an_error():
    with pytest.raises(ValueError, match="nothing"):
        assignment.shares([0, 0])


# -- values -----------------------------------------------------------------------------------------------------------


def test_a_coupon_is_worth_its_increment_less_what_it_gives_away():
    orders = scoring.order_value(np.array([3000.0, np.nan, 0.0]), {}, 2)
    assert orders.tolist() == [3000, 5000, 5000]
    reminder, coupon = template("conversion").rules[0].arms
    assert scoring.step_cost(coupon.steps[0], orders, {}).tolist() == [300, 500, 500]
    assert scoring.step_cost(reminder.steps[0], orders, {"costs": {"email": 7}}).tolist() == [7, 7, 7]
    costs = scoring.step_costs(coupon, orders, {})
    value = scoring.arm_value(coupon, orders, margin_rate=0.4, costs=costs)[0]
    assert value == pytest.approx(0.04 * 3000 * 0.4 - 0.06 * 300 - 1)
    assert scoring.order_value(np.array([np.nan]), {"typical_order_minor": 900}, 2).tolist() == [900]


# -- words ------------------------------------------------------------------------------------------------------------


def test_every_word_is_there_in_both_languages():
    tables = [words.VERDICTS, words.GUARDRAILS, words.STOPPED, words.OPERATORS, words.MARKS, words.SIDES]
    assert set(words.VERDICTS) == set(VERDICTS)
    assert set(words.GUARDRAILS) == {name.partition(".")[0] for name in words.STOPPED} == set(STOPS_AS)
    assert set(words.OPERATORS) == set(OPERATORS)
    for table in tables:
        for sentences in table.values():
            assert set(sentences) == {"en", "zh"}
            assert all(sentences.values())


STOPPED_RECEIPT = {
    "v": 1,
    "strategy": "win-back",
    "rule": {"key": "win-back/lapsed", "version": 3},
    "cause": {"trigger": "schedule", "key": "k", "at": AT.isoformat()},
    "seen": [
        {"path": "if", "field": "customer.days_since_order", "op": "gt", "value": 90, "seen": 120.5, "holds": True},
        {"path": "if", "field": "customer.interpurchase_days", "op": "not_exists", "seen": None, "holds": True},
        {
            "path": "if", "field": "customer.purchase_stage", "op": "in", "value": ["lapsed", "repeat"],
            "seen": "lapsed", "holds": True,
        },
    ],
    "arms": [{"key": "a", "share": 0.5, "score": 12.5}, {"key": "b", "share": 0.5, "score": None}],
    "others": ["retention/next-purchase"],
    "score": 6.25,
    "estimator": scoring.PRIOR,
    "guardrails": {
        "one_rule": {"taken_by": "win-back/other"},
        "enrolment": {"frequency": "once", "entered_at": AT.isoformat()},
        "address": {"channel": "email"},
        "suppression": {"channel": "email", "reason": "bounced"},
        "consent": {"channel": "email", "topic": "marketing", "state": None},
        "cap": {"channel": "email", "count": 2, "window_days": 7.0, "planned": 2},
        "budget": {"needed_minor": 500, "available_minor": 3},
    },
    "arm": None,
    "propensity": None,
    "verdict": "no_consent",
}  # fmt: skip


def test_a_refusal_is_explained_in_english():
    said = "\n".join(explain(STOPPED_RECEIPT, "en_GB"))
    for wanted in (
        "version 3", "there is no consent", "never said", "(bounced)", "at most 2 on email in 7.0 days",
        "Days since last order was 120.5; asked: above 90", "Purchase stage was Lapsed",
        "is one of Lapsed, Repeat customer", "Days between orders was missing; asked: is not known",
        "retention/next-purchase", "500 may be needed and 3 is left",
    ):  # fmt: skip
        assert wanted in said


def test_a_refusal_is_explained_in_chinese():
    said = "\n".join(explain(STOPPED_RECEIPT, "zh-Hans-CN"))
    for wanted in (
        "没有获得同意",
        "未表态",
        "距上次下单天数 为 120.5；条件：大于 90",
        "购买阶段 为 沉睡客户",
        "属于 沉睡客户、复购客户",
    ):
        assert wanted in said
    assert "None" not in said


def test_templates_use_only_arms_whose_value_is_known():
    kinds = Counter(arm.prior is None for one in library().values() for rule in one.rules for arm in rule.arms)
    assert kinds[True] == 0
