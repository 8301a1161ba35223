"""What changed between two versions of a strategy, in words: nothing for equal ones, always something for others."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.strategies.library import library, template
from operation_agent.strategies.vocabulary import vocabulary
from rules.diff import Change, diff
from rules.strategy import Strategy, parse

pytestmark = pytest.mark.unit

LINK = {"en": "{{ unsubscribe_url }}", "zh": "{{ unsubscribe_url }}"}


def mail(subject: str, **more: Any) -> dict[str, Any]:
    return {"action": "email", "subject": {"en": subject, "zh": subject}, "body": LINK, **more}


def coupon(percent: float, **more: Any) -> dict[str, Any]:
    return {"action": "coupon", "percent": percent, **more}


def leaf(field: str, op: str, value: Any) -> dict[str, Any]:
    return {"field": f"customer.{field}", "op": op, "value": value}


ORDERS, VIEWS, CART = leaf("orders", "gte", 2), leaf("views_7d", "gt", 3), leaf("open_cart", "equals", True)


def rule(key: str = "one", steps: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    arms = [{"key": "a", "steps": [mail("Hello")] if steps is None else steps}]
    written = {"key": key, "when": {"event": ["custom"]}, "if": ORDERS, "then": {"arms": arms}}
    return {**written, **more}


def strategy(*rules: dict[str, Any], **more: Any) -> Strategy:
    raw = {
        "key": "test", "name": {"en": "Test", "zh": "测试"}, "goal": "conversion", "why": {"en": "x", "zh": "x"},
        "rules": list(rules) or [rule()],
    }  # fmt: skip
    return parse(copy.deepcopy(raw | more), vocabulary())


def said(before: Strategy, after: Strategy, language: str = "en") -> list[str]:
    return [one.words[language] for one in diff(before, after)]


def only(before: Strategy, after: Strategy) -> Change:
    changes = diff(before, after)
    assert len(changes) == 1, [one.words["en"] for one in changes]
    return changes[0]


def test_a_discount_is_said_as_one():
    change = only(strategy(rule(steps=[coupon(10)])), strategy(rule(steps=[coupon(15)])))
    assert (change.kind, change.before, change.after) == ("changed", 10, 15)
    assert change.path == "rules[one].then.arms[a].steps[0].percent"
    assert change.words == {
        "en": "rule `one`: arm `a`: discount 10 % → 15 %",
        "zh": "规则 `one`：方案 `a`：折扣 10% → 15%",
    }


@pytest.mark.parametrize(
    ("before", "after", "kind", "words"),
    [
        (ORDERS, leaf("orders", "gte", 3), "changed", "condition `orders ≥ 2` became `orders ≥ 3`"),
        ({"all": [ORDERS, VIEWS]}, {"all": [VIEWS]}, "removed", "condition `orders ≥ 2` removed"),
        ({"all": [ORDERS]}, {"all": [ORDERS, CART]}, "added", "condition `open_cart = yes` added"),
        (ORDERS, {"all": [ORDERS, CART]}, "added", "condition `open_cart = yes` added"),
        ({"all": [ORDERS, CART]}, CART, "removed", "condition `orders ≥ 2` removed"),
        (ORDERS, {"all": [ORDERS]}, "changed", "condition `orders ≥ 2` became `orders ≥ 2`"),
        (
            {"any": [ORDERS, CART]},
            {"none": [ORDERS, CART]},
            "changed",
            "condition `orders ≥ 2 or open_cart = yes` became `neither orders ≥ 2 nor open_cart = yes`",
        ),
        (
            {"all": [CART, {"any": [ORDERS, VIEWS]}]},
            {"all": [CART, {"any": [leaf("orders", "between", [2, 5]), VIEWS]}]},
            "changed",
            "condition `orders ≥ 2` became `orders between 2 and 5`",
        ),
        ({"all": [ORDERS, CART]}, {"all": [CART, ORDERS]}, "moved", "condition `orders ≥ 2` moved"),
        (
            ORDERS,
            leaf("days_since_order", "gt", {"field": "customer.interpurchase_days", "times": 2}),
            "changed",
            "condition `orders ≥ 2` became `days_since_order > 2 × interpurchase_days`",
        ),
        (
            ORDERS,
            {"history": {"event": "product.viewed", "within": "P7D"}, "op": "gte", "value": 3},
            "changed",
            "condition `orders ≥ 2` became `number of product.viewed in 7 days ≥ 3`",
        ),
    ],
)
def test_a_condition_is_compared_by_what_it_asks(before, after, kind, words):
    change = only(strategy(rule(**{"if": before})), strategy(rule(**{"if": after})))
    assert (change.kind, change.words["en"]) == (kind, f"rule `one`: {words}")


def test_fields_are_called_what_the_agent_calls_them():
    names = {"customer.orders": {"en": "Orders", "zh": "订单数"}}
    before, after = strategy(), strategy(rule(**{"if": leaf("orders", "gte", 3)}))
    assert diff(before, after, names)[0].words["zh"] == "规则 `one`：条件 `订单数 ≥ 2`改为 `订单数 ≥ 3`"


def test_steps_rules_and_arms_are_matched_by_their_key_and_not_by_their_place():
    reminder = mail("Hello", key="reminder")
    before = strategy(rule(steps=[mail("First", key="first"), reminder]), rule("two"))
    assert said(before, strategy(rule(steps=[reminder, mail("First", key="first")]), rule("two"))) == [
        "rule `one`: arm `a`: step `first` moved",
    ]
    after = strategy(rule("three"), rule("two"), rule(steps=[mail("Zero", key="zero"), mail("Bye", key="reminder")]))
    assert said(before, after) == [
        "rule `three` added",
        "rule `one` moved",
        "rule `one`: arm `a`: step `first` removed",
        "rule `one`: arm `a`: step `zero` added",
        "rule `one`: arm `a`: step `reminder`: subject (English) “Hello” → “Bye”",
        "rule `one`: arm `a`: step `reminder`: subject (Chinese) “Hello” → “Bye”",
    ]


def test_a_step_that_went_into_a_branch_moved_and_was_not_lost():
    last = mail("Last", key="last")
    wait = {"wait": {"event": ["email.clicked"], "within": "P3D"}, "key": "clicked"}
    before = strategy(rule(steps=[wait | {"then": [{"exit": True}]}, last]))
    after = strategy(rule(steps=[wait | {"then": [{"exit": True}], "else": [last | {"delay": "P1D"}]}]))
    assert said(before, after) == [
        "rule `one`: arm `a`: step `clicked`: else: step `last` moved",
        "rule `one`: arm `a`: step `clicked`: else: step `last`: when none → 1 day later",
    ]
    assert said(after, before) == [
        "rule `one`: arm `a`: step `last` moved",
        "rule `one`: arm `a`: step `last`: when 1 day later → none",
    ]


def test_limits_and_triggers_are_said_in_words():
    before = strategy(holdout=0.2, caps=[{"channel": "email", "count": 2, "window": "P7D"}])
    after = strategy(
        rule(when={"missed": {"event": "checkout.started", "goal": "order.paid", "within": "P1D"}}),
        holdout=0.1,
        caps=[{"channel": "email", "count": 3, "window": "P7D"}, {"tag": "sale", "count": 1, "window": "P1D"}],
        budget={"limit": 500},
        quiet_hours={"start": "21:00", "end": "08:00"},
    )
    assert said(before, after) == [
        "holdout 20 % → 10 %",
        "quiet hours none → from 21:00, to 08:00, then delay",
        "budget none → in total 500",
        "cap email: at most 2 → 3",
        "cap sale 1 / 1 day added",
        "rule `one`: starts on custom → checkout.started without order.paid within 1 day",
    ]
    assert said(before, after, "zh")[-1] == "规则 `one`：触发于 custom → checkout.started 后 1 天 内没有 order.paid"


def test_a_long_text_that_differs_far_behind_is_reworded():
    long = {"en": "{{ unsubscribe_url }}" + "x" * 100, "zh": LINK["zh"]}
    longer = long | {"en": long["en"] + "y"}
    before, after = (strategy(rule(steps=[mail("Hello", body=body)])) for body in (long, longer))
    assert said(before, after) == ["rule `one`: arm `a`: text (English) reworded"]


def test_of_a_new_strategy_every_rule_is_new():
    found = diff(None, strategy(rule(), rule("two")))
    assert [one.words["en"] for one in found] == ["strategy “Test” is new", "rule `one` added", "rule `two` added"]
    assert all(one.kind == "added" and one.before is None for one in found)


# -- any two ----------------------------------------------------------------------------------------------------------

SPANS = st.sampled_from(["PT1H", "P1D", "P3D"])
KEYS = st.sampled_from([{}, {"key": "k1"}, {"key": "k2"}, {"key": "k3"}])
PLAIN = st.one_of(
    st.builds(lambda subject, key: mail(subject, **key), st.sampled_from("ABC"), KEYS),
    st.builds(lambda percent, key: coupon(percent, **key), st.integers(1, 3), KEYS),
    st.builds(lambda span: {"delay": span}, SPANS),
    st.sampled_from([{"delay": {"until": "09:00"}}, {"delay": {"date": "event.starts_at", "plus": "-P1D"}}]),
)
CONDITIONS = st.recursive(
    st.sampled_from([ORDERS, VIEWS, CART, leaf("orders", "lt", 9), leaf("views_7d", "in", [5, 7])]),
    lambda inner: st.builds(
        lambda kind, children: {kind: children}, st.sampled_from(["all", "any", "none"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=5,
)  # fmt: skip


def forks(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    steps = st.lists(inner, min_size=1, max_size=3)
    waits = st.builds(
        lambda span, key, then, other: {
            "wait": {"event": ["email.clicked"], "within": span}, **key, "then": then, "else": other
        },
        SPANS, KEYS, steps, steps,
    )  # fmt: skip
    return waits | st.builds(lambda condition, then: {"if": condition, "then": then}, CONDITIONS, steps)


STEPS = st.lists(st.recursive(PLAIN, forks, max_leaves=6), max_size=4)
LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "holdout": st.sampled_from([0, 0.1, 0.3]),
        "budget": st.sampled_from([{"limit": 5}, {"limit": 6, "daily": 1}]),
        "caps": st.lists(
            st.sampled_from(
                [{"count": 1, "window": "P1D"}, {"channel": "email", "count": 2, "window": "P7D"},
                 {"channel": "email", "count": 1, "window": "P1D"}, {"tag": "x", "count": 1, "window": "P1D"}]
            ),
            max_size=3,
        ),
        "quiet_hours": st.sampled_from([{"start": "21:00", "end": "08:00"}, {"start": "22:00", "end": "08:00"}]),
        "approval": st.sampled_from([{"types": ["coupon"]}, {"audience_above": 5, "approvers": 2}]),
        "coupons": st.sampled_from([{"stacking": True}, {"count": 2}]),
        "tags": st.sampled_from([["a"], ["a", "b"]]),
        "exclusive": st.just("group"),
        "effect": st.just({"en": "More", "zh": "更多"}),
    },
)  # fmt: skip
RULES = st.builds(
    lambda key, steps, condition, priority, event: rule(
        key, steps, priority=priority, when={"event": event}, **{"if": condition}
    ),
    st.sampled_from(["one", "two", "three"]), STEPS, CONDITIONS, st.integers(0, 1),
    st.sampled_from([["custom"], ["custom", "custom"][:1]]),
)  # fmt: skip


@st.composite
def strategies(draw: st.DrawFn) -> Strategy:
    from hypothesis import assume

    from rules.errors import RuleError

    rules = draw(st.lists(RULES, min_size=1, max_size=3, unique_by=lambda one: one["key"]))
    try:
        return strategy(*rules, **draw(LIMITS))
    except RuleError:  # a key twice, a contradiction
        assume(False)
        raise


@given(strategies(), strategies())
def test_any_two_that_differ_are_told_apart_and_none_from_itself(one, other):
    assert diff(one, one) == []
    changes = diff(one, other)
    assert bool(changes) == (one != other)
    for change in changes:
        assert set(change.words) == {"en", "zh"}
        assert all(words and "None" not in words for words in change.words.values())
        assert change.path


@given(strategies())
def test_a_single_edit_is_a_single_change(one):
    raw = one.to_dict()
    raw["rules"][0]["priority"] += 5
    assert [change.path for change in diff(one, parse(raw, vocabulary()))] == [
        f"rules[{raw['rules'][0]['key']}].priority"
    ]


@pytest.mark.parametrize("key", sorted(library()))
def test_templates_differ_from_one_another_and_not_from_themselves(key):
    assert diff(template(key), template(key)) == []
    for other in library():
        assert bool(diff(template(key), template(other))) == (key != other)
