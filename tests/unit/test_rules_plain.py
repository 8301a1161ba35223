"""Rules of the plain form (rule_id, conditions, actions) are read unchanged; and the messages that they name."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.customers.definitions import LABEL_NAMES
from operation_agent.strategies.library import messages
from operation_agent.strategies.vocabulary import vocabulary
from rules import message, plain, program, strategy, text
from rules.errors import RuleError
from rules.strategy import Strategy
from rules.tree import LANGUAGES, Node

pytestmark = pytest.mark.unit

RULE: dict[str, Any] = {
    "rule_id": "RULE_001",
    "name": "决策期高敏感客户",
    "conditions": {"purchase_stage": "决策阶段", "price_sensitivity": "高", "engagement_level": "高"},
    "actions": [
        {"type": "send_email", "template": "discount_offer", "delay_minutes": 30},
        {"type": "create_discount", "discount": 0.1, "expiry_days": 7},
    ],
    "priority": 1,
    "enabled": True,
}


def read(**changes: Any) -> Strategy:
    return plain.read({**copy.deepcopy(RULE), **changes}, vocabulary(), messages())[0]


def condition(**conditions: Any) -> list[dict[str, Any]]:
    return read(conditions=conditions).rules[0].condition.to_dict()["all"]


def test_the_plain_form_is_read_unchanged():
    made, enabled = plain.read(RULE, vocabulary(), messages())
    assert enabled is True
    assert (made.key, made.goal, made.name["zh"], made.holdout) == ("rule_001", "conversion", "决策期高敏感客户", 0.2)
    [rule] = made.rules
    assert rule.priority == 1
    assert rule.exit_on == ("order.paid",)
    assert rule.when.to_dict() == {"event": list(plain.WHENEVER), "frequency": "every_time", "cooldown": "P30D"}
    assert rule.condition.to_dict() == {
        "all": [
            {"field": "customer.purchase_stage", "op": "equals", "value": "decision"},
            {"field": "customer.price_sensitivity", "op": "equals", "value": "high"},
            {"field": "customer.engagement_level", "op": "equals", "value": "high"},
        ]
    }
    start = datetime(2026, 3, 1, tzinfo=UTC)
    due = program.walk(rule.arms[0], program.START, start, "UTC", {}).due
    assert [(one.placed.step.action, one.due_at - start, one.after_coupon) for one in due] == [
        ("coupon", timedelta(0), None),
        ("email", timedelta(minutes=30), 0),
    ]
    assert due[0].placed.step.parameters == {"percent": 10, "expires_in": "P7D"}
    assert strategy.parse(made.to_dict(), vocabulary()) == made


@pytest.mark.parametrize("label", sorted(LABEL_NAMES))
def test_labels_are_known_by_their_values_and_their_names_in_both_languages(label):
    for value, names in LABEL_NAMES[label].items():
        for written in (value, value.upper(), f" {value} ", *names.values()):
            assert condition(**{label: written})[0]["value"] == value, written


@pytest.mark.parametrize(
    ("label", "written", "value"),
    [
        ("purchase_stage", "决策期", "decision"), ("purchase_stage", "决策", "decision"),
        ("purchase_stage", "decision_stage", "decision"), ("purchase_stage", "沉睡", "lapsed"),
        ("price_sensitivity", "高", "high"), ("price_sensitivity", "中", "medium"), ("engagement_level", "低", "low"),
        ("购买阶段", "复购", "repeat"), ("customer.engagement_level", "High", "high"),
    ],
)  # fmt: skip
def test_labels_are_known_by_their_short_names(label, written, value):
    assert condition(**{label: written})[0]["value"] == value


def test_several_values_of_one_condition_are_any_of_them():
    assert condition(engagement_level=["中", "high"]) == [
        {"field": "customer.engagement_level", "op": "in", "value": ["medium", "high"]}
    ]
    assert condition(orders=2, open_cart=True)[1] == {"field": "customer.open_cart", "op": "equals", "value": True}


@pytest.mark.parametrize(
    ("conditions", "goal", "source"),
    [
        ({"purchase_stage": "沉睡客户"}, "win_back", "schedule"),
        ({"purchase_stage": "customer"}, "retention", "event"),
        ({"purchase_stage": "repeat"}, "repurchase", "event"),
        ({"purchase_stage": ["repeat", "lapsed"]}, "conversion", "schedule"),
        ({"engagement_level": "无互动"}, "conversion", "schedule"),
        ({"price_sensitivity": "低"}, "conversion", "event"),
    ],
)
def test_what_comes_about_by_time_alone_is_asked_every_morning(conditions, goal, source):
    made = read(conditions=conditions)
    assert (made.goal, next(iter(made.rules[0].when.to_dict()))) == (goal, source)


@pytest.mark.parametrize(
    ("written", "percent"),
    [(10, 10), (0.1, 10), (0.155, 15.5), (1, 1), ("10%", 10), ("10 ％", 10), ("9折", 10), ("8.5折", 15), ("0.2", 20)],
)
def test_a_discount_may_be_written_as_people_do(written, percent):
    actions = [{"type": "create_discount", "discount": written}]
    step = program.actions(read(actions=actions).rules[0].arms[0])[0].step
    assert step.parameters == {"percent": percent, "expires_in": "P14D"}


MAIL = {"type": "send_email", "template": "cart_reminder"}
OFFER = {"type": "send_email", "template": "discount_offer"}
DISCOUNT = {"type": "create_discount", "discount": 10, "expiry_days": 3}


def test_every_delay_counts_from_the_trigger_and_discounts_come_first():
    actions = [
        {**MAIL, "delay_minutes": 90},
        {**OFFER, "delay_minutes": 30},
        {**MAIL, "delay_minutes": 30},
        {**DISCOUNT, "delay_minutes": 30},
    ]
    arm = read(actions=actions).rules[0].arms[0]
    assert [(one.step.action, one.step.delay) for one in program.actions(arm)] == [
        ("coupon", timedelta(minutes=30)), ("email", timedelta(0)), ("email", timedelta(0)),
        ("email", timedelta(hours=1)),
    ]  # fmt: skip


def test_what_is_not_enabled_is_read_all_the_same_and_a_list_is_one_strategy_each():
    other = {**RULE, "rule_id": 7, "enabled": False, "name": {"en": "Seven", "zh": "七"}, "priority": "high"}
    found = plain.read_all([RULE, other], vocabulary(), messages())
    assert [(made.key, enabled, made.rules[0].priority) for made, enabled in found] == [
        ("rule_001", True, 1), ("rule-7", False, 30),
    ]  # fmt: skip
    assert len(plain.read_all(RULE, vocabulary(), messages())) == 1
    with pytest.raises(RuleError, match="second rule") as caught:
        plain.read_all([RULE, RULE], vocabulary(), messages())
    assert caught.value.where == "[1].rule_id"


@given(st.text(min_size=1, max_size=200).filter(lambda one: one.strip() and "\x00" not in one))
def test_whatever_a_rule_is_called_it_gets_a_key(name):
    made = read(rule_id=name)
    assert strategy.parse(made.to_dict(), vocabulary()).key == made.key
    assert read(rule_id=name).key == made.key


@pytest.mark.parametrize(
    ("changes", "where", "reason"),
    [
        ({"rule_id": None}, "rule_id", "missing"),
        ({"when": {}}, "when", "unknown key"),
        ({"conditions": {}}, "conditions", "is empty"),
        ({"conditions": {"mood": "good"}}, "conditions.mood", "there is no condition 'mood'"),
        ({"conditions": {"purchase_stage": "决心"}}, "conditions.purchase_stage", "not one of browsing, customer"),
        ({"conditions": {"purchase_stage": ["new", "new"]}}, "conditions.purchase_stage[1]", "second value"),
        ({"conditions": {"purchase_stage": "new", "购买阶段": "new"}}, "conditions.购买阶段", "twice"),
        ({"actions": []}, "actions", "empty"),
        ({"actions": [{"type": "send_sms"}]}, "actions[0].type", "not one of send_email, create_discount"),
        ({"actions": [MAIL | {"template": "nope"}]}, "actions[0].template", "there are browse_reminder"),
        ({"actions": [MAIL | {"discount": 1}]}, "actions[0].discount", "unknown key"),
        ({"actions": [MAIL | {"delay_minutes": -1}]}, "actions[0].delay_minutes", "between"),
        ({"actions": [MAIL | {"delay_minutes": 1.5}]}, "actions[0].delay_minutes", "whole"),
        ({"actions": [DISCOUNT | {"discount": 0}]}, "actions[0].discount", "between"),
        ({"actions": [DISCOUNT | {"discount": "a lot"}]}, "actions[0].discount", "not a discount"),
        ({"actions": [DISCOUNT | {"discount": "10折"}]}, "actions[0].discount", "between 0 and 10"),
        ({"actions": [DISCOUNT | {"discount": True}]}, "actions[0].discount", "a number"),
        ({"actions": [DISCOUNT | {"expiry_days": 0}]}, "actions[0].expiry_days", "between"),
        ({"actions": [OFFER]}, "actions[0].template", "create_discount"),
        (
            {"actions": [MAIL, DISCOUNT | {"delay_minutes": 60}, OFFER | {"delay_minutes": 30}]},
            "actions[2].template",
            "due no later",
        ),
        ({"priority": "urgent"}, "priority", "a number"),
        ({"enabled": "yes"}, "enabled", "true or false"),
    ],
)
def test_what_cannot_be_read_names_its_path(changes, where, reason):
    with pytest.raises(RuleError) as caught:
        read(**changes)
    assert caught.value.where == where
    assert reason in caught.value.reason


def test_the_plain_form_is_told_from_a_strategy():
    assert plain.is_plain(RULE)
    assert plain.is_plain([RULE])
    assert not plain.is_plain(read().to_dict())
    assert not plain.is_plain([])


# -- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", sorted(messages()))
def test_every_message_renders_in_both_languages_and_is_found_by_its_names(key):
    found = messages()[key]
    context = {
        "customer": {"first_name": None}, "shop": {"name": "Tea & Co"}, "unsubscribe_url": "https://example.com/u",
        "coupon": {"code": "ABC", "percent": 10, "expires_at": "2026-04-01"},
    }  # fmt: skip
    for language in LANGUAGES:
        subject = text.render_line(found.subject[language], context)
        body = text.render_html(found.body[language], context)
        assert subject
        assert "{{" not in subject + body
        assert "https://example.com/u" in body
        assert found.needs_coupon == ("ABC" in body)
    for name in (key, key.upper(), key.replace("_", " "), *found.aliases):
        assert message.find(Node(name), messages()) is found


def test_messages_have_names_of_their_own():
    names = [name for one in messages().values() for name in (one.key, *one.aliases)]
    assert len(names) == len(set(names))
    assert len(messages()) >= 8
