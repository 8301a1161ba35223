"""Strategies, rules, steps and texts: what is read, what is refused and where, and the shipped templates."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from liquid.exceptions import LiquidError

from operation_agent.strategies.library import library, template
from operation_agent.strategies.vocabulary import vocabulary
from rules import cron, duration, limits, program, reading, text
from rules.errors import RuleError
from rules.strategy import HOLDOUT, Strategy, parse, parse_yaml

pytestmark = pytest.mark.unit

EMAIL = {
    "action": "email",
    "subject": {"en": "Hello", "zh": "您好"},
    "body": {"en": "<p>{{ unsubscribe_url }}</p>", "zh": "<p>{{ unsubscribe_url }}</p>"},
}
COUPON = {"action": "coupon", "percent": 10}
RULE: dict[str, Any] = {
    "key": "one",
    "when": {"event": ["cart.added"]},
    "if": {"all": [{"field": "customer.orders", "op": "gte", "value": 1}]},
    "then": {"arms": [{"key": "a", "steps": [EMAIL]}]},
}
STRATEGY: dict[str, Any] = {
    "key": "test",
    "name": {"en": "Test", "zh": "测试"},
    "goal": "conversion",
    "why": {"en": "Because", "zh": "因为"},
    "rules": [RULE],
}


def read(raw: Any) -> Strategy:
    return parse(raw, vocabulary())


def changed(path: str, value: Any) -> dict[str, Any]:
    """STRATEGY with the value at `path` replaced ('rules.0.when')."""
    raw = copy.deepcopy(STRATEGY)
    node: Any = raw
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        node = node[part]
    node[last] = value
    return raw


def email(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(EMAIL) | changes


BODY = {"en": "{{ unsubscribe_url }}", "zh": "{{ unsubscribe_url }}"}


@pytest.mark.parametrize(
    ("path", "value", "where", "reason"),
    [
        ("key", "Not A Key", "key", "not a key"),
        ("goal", "growth", "goal", "not one of"),
        ("name", {"en": "x"}, "name.zh", "missing"),
        ("name", "x", "name", "mapping"),
        ("holdout", 1, "holdout", "leaves nobody"),
        ("holdout", -0.1, "holdout", "between"),
        ("rules", [], "rules", "empty"),
        ("rules", [RULE, RULE], "rules[1].key", "second rule"),
        ("surprise", 1, "surprise", "unknown key"),
        ("caps", [{"channel": "fax", "count": 1, "window": "P1D"}], "caps[0].channel", "not one of"),
        ("caps", [{"channel": "email", "count": 0, "window": "P1D"}], "caps[0].count", "between"),
        ("caps", [{"channel": "email", "count": 1.5, "window": "P1D"}], "caps[0].count", "whole"),
        ("caps", [{"channel": "email", "count": 1, "window": "PT0S"}], "caps[0].window", "no length"),
        ("caps", [{"channel": "email", "count": 1, "window": "P1M"}], "caps[0].window", "ISO 8601"),
        ("budget", {"limit": "lots"}, "budget.limit", "not an amount"),
        ("budget", {"limit": -1}, "budget.limit", "between"),
        ("budget", {"limit": 1, "currency": "usd"}, "budget.currency", "ISO 4217"),
        ("policy", {"kind": "best"}, "policy.kind", "not one of"),
        ("attribution", {"window": 7}, "attribution.window", "a text"),
        ("rules.0.when", {}, "rules[0].when", "either"),
        ("rules.0.when", {"event": ["cart.added"], "schedule": "0 9 * * *"}, "rules[0].when", "either"),
        ("rules.0.when", {"event": ["cart.stolen"]}, "rules[0].when.event[0]", "not one of"),
        ("rules.0.when", {"event": ["cart.added", "cart.added"]}, "rules[0].when.event[1]", "second"),
        ("rules.0.when", {"event": []}, "rules[0].when.event", "empty"),
        ("rules.0.when", {"schedule": "9 o'clock"}, "rules[0].when.schedule", "parts"),
        ("rules.0.when", {"event": "cart.added", "frequency": "daily"}, "rules[0].when.frequency", "not one of"),
        ("rules.0.when", {"event": "cart.added", "frequency": "once_per_key"}, "rules[0].when", "go together"),
        ("rules.0.when", {"event": "cart.added", "key": "event.product_id"}, "rules[0].when", "go together"),
        (
            "rules.0.when",
            {"event": "cart.added", "frequency": "once_per_key", "key": "event.order_id"},
            "rules[0].when.key",
            "no property 'order_id'",
        ),
        ("rules.0.when", {"event": "cart.added", "cooldown": "soon"}, "rules[0].when.cooldown", "ISO 8601"),
        ("rules.0.if", {"all": []}, "rules[0].if.all", "empty"),
        (
            "rules.0.if",
            {"all": [{"field": "event.order_id", "op": "exists"}]},
            "rules[0].if",
            "no property 'order_id'",
        ),
        (
            "rules.0.if",
            {"all": [{"field": "customer.purchase_stage", "op": "equals", "value": "decison"}]},
            "rules[0].if.all[0].value",
            "not one of browsing",
        ),
        ("rules.0.exit_on", ["gone"], "rules[0].exit_on[0]", "not one of"),
        ("rules.0.priority", 0.5, "rules[0].priority", "whole"),
        ("rules.0.then", {"arms": []}, "rules[0].then.arms", "empty"),
        ("rules.0.then.arms.0.weight", 0, "rules[0].then.arms", "add up to nothing"),
        ("rules.0.then.arms.0.steps", None, "rules[0].then.arms[0].steps", "missing"),
        ("rules.0.then.arms.0.steps", [{"action": "fax"}], "rules[0].then.arms[0].steps[0].action", "not one of"),
        ("rules.0.then.arms.0.steps", [COUPON | {"percent": 101}], "rules[0].then.arms[0].steps[0].percent", "between"),
        ("rules.0.then.arms.0.steps", [COUPON | {"body": "x"}], "rules[0].then.arms[0].steps[0].body", "unknown key"),
        (
            "rules.0.then.arms.0.steps",
            [email(subject={"en": "{{ coupon.code }}", "zh": "x"})],
            "rules[0].then.arms[0].steps[0].subject.en",
            "no coupon step",
        ),
        (
            "rules.0.then.arms.0.steps",
            [email(subject={"en": "{{ customer.password }}", "zh": "x"})],
            "rules[0].then.arms[0].steps[0].subject.en",
            "no variable 'customer.password'",
        ),
        (
            "rules.0.then.arms.0.steps",
            [email(body={"en": "Hello", "zh": "{{ unsubscribe_url }}"})],
            "rules[0].then.arms[0].steps[0].body.en",
            "way out",
        ),
        (
            "rules.0.then.arms.0.steps",
            [email(body=BODY | {"zh": "{{ unsubscribe_url"})],
            "rules[0].then.arms[0].steps[0].body.zh",
            "does not compile",
        ),
        (
            "rules.0.then.arms.0.steps",
            [email(body=BODY | {"zh": "{{ unsubscribe_url | shout }}"})],
            "rules[0].then.arms[0].steps[0].body.zh",
            "no filter 'shout'",
        ),
        (
            "rules.0.then.arms.0.steps",
            [email(body=BODY | {"zh": "{% include 'secrets' %}"})],
            "rules[0].then.arms[0].steps[0].body.zh",
            "does not compile",
        ),
    ],
)
def test_an_error_names_the_path_and_the_reason(path, value, where, reason):
    with pytest.raises(RuleError) as caught:
        read(changed(path, value))
    assert caught.value.where == where
    assert reason in caught.value.reason


def test_a_schedule_has_no_event_to_ask_about():
    raw = changed("rules.0.when", {"schedule": "0 9 * * *"})
    raw["rules"][0]["if"] = {"all": [{"field": "event.product_id", "op": "exists"}]}
    with pytest.raises(RuleError, match="without an event"):
        read(raw)
    raw["rules"][0]["if"] = RULE["if"]
    raw["rules"][0]["then"]["arms"][0]["steps"] = [email(subject={"en": "{{ product.id }}", "zh": "x"})]
    with pytest.raises(RuleError, match="names no product"):
        read(raw)


def test_what_is_not_said_has_a_safe_default():
    strategy = read(STRATEGY)
    assert strategy.holdout == HOLDOUT == 0.2
    assert strategy.rules[0].when.frequency == "once"
    assert strategy.attribution == timedelta(days=7)
    assert strategy.budget is None


def test_a_transactional_mail_needs_no_way_out_and_an_arm_may_do_nothing():
    raw = changed("rules.0.then.arms.0.steps", [email(topic="transactional", body={"en": "x", "zh": "x"})])
    raw["rules"][0]["then"]["arms"].append({"key": "nothing", "steps": []})
    assert read(raw).rules[0].arms[1].steps == ()


def test_steps_are_due_one_after_the_other():
    raw = changed("rules.0.then.arms.0.steps", [COUPON | {"delay": "PT1H"}, EMAIL, email(delay="P2D")])
    hour = timedelta(hours=1)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    due = program.walk(read(raw).rules[0].arms[0], program.START, start, "UTC", {}).due
    assert [one.due_at - start for one in due] == [hour, hour, hour + timedelta(days=2)]
    assert [one.after_coupon for one in due] == [None, 0, 0]


def test_yaml_that_is_none_names_its_line():
    with pytest.raises(RuleError) as caught:
        parse_yaml("key: a\nname: [", vocabulary())
    assert caught.value.where.startswith("line ")
    with pytest.raises(RuleError, match="mapping"):
        parse_yaml("- just a list", vocabulary())


@settings(max_examples=300)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "key",
                        "rules",
                        "when",
                        "if",
                        "then",
                        "arms",
                        "steps",
                        "all",
                        "field",
                        "wait",
                        "delay",
                        "else",
                        "exit",
                        "until",
                        "date",
                        "plus",
                        "within",
                        "event",
                        "goal",
                        "missed",
                        "entered",
                        "count",
                        "window",
                        "start",
                        "end",
                        "limit",
                        "types",
                        "action",
                        "op",
                        "value",
                        "history",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    ),
    st.sampled_from(
        [
            "rules",
            "rules.0",
            "rules.0.when",
            "rules.0.if",
            "rules.0.then",
            "rules.0.then.arms.0.steps",
            "holdout",
            "rules.0.when.missed",
            "rules.0.then.arms.0.steps.0",
            *limits.KEYS,
        ]
    ),
)
def test_whatever_is_handed_in_is_read_or_refused_with_a_path(value, path):
    try:
        read(changed(path, value))
    except RuleError as error:
        assert error.reason


# -- limits -----------------------------------------------------------------------------------------------------------

EVERY_LIMIT: dict[str, Any] = {
    "caps": [
        {"channel": "email", "count": 2, "window": "P7D"},
        {"tag": "sale", "count": 1, "window": "P1D", "scope": "strategy"},
    ],
    "capping": {"held_back": True, "counted": False},
    "quiet_hours": {"start": "21:00", "end": "08:00", "otherwise": "skip"},
    "budget": {"limit": "500.50", "currency": "EUR", "daily": "50", "per_customer": "5"},
    "coupons": {"count": 2, "window": "P60D", "stacking": True},
    "approval": {
        "types": ["coupon"], "audience_above": 1000, "percent_above": 15.0, "cost_above": "200", "approvers": 2,
        "expires_in": "P1D",
    },
    "exclusive": "cart",
    "exclusive_for": "P3D",
    "executions_per_day": 500,
    "complaint_cooldown": "P30D",
    "stale_after": "PT12H",
    "tags": ["sale", "spring"],
}  # fmt: skip


def test_every_limit_is_written_as_it_is_read():
    strategy = read(STRATEGY | EVERY_LIMIT)
    written = strategy.to_dict()
    assert {key: written[key] for key in EVERY_LIMIT} == EVERY_LIMIT
    assert set(EVERY_LIMIT) == set(limits.KEYS)
    assert read(written) == strategy
    assert strategy.limits.quiet_hours == limits.QuietHours(time(21), time(8), "skip")
    assert strategy.caps[1] == limits.Cap(None, 1, timedelta(days=1), "sale", own=True)
    assert strategy.limited(budget=None).budget is None


def test_a_strategy_without_limits_says_nothing_of_them():
    assert set(read(STRATEGY).to_dict()) & set(limits.KEYS) == {"caps"}
    assert read(STRATEGY).limits == limits.UNLIMITED


@pytest.mark.parametrize(
    ("key", "value", "where", "reason"),
    [
        ("caps", [{"count": 1}], "caps[0].window", "missing"),
        ("caps", [{"count": 1, "window": "P1D", "scope": "town"}], "caps[0].scope", "not one of"),
        ("capping", {"counted": "no"}, "capping.counted", "true or false"),
        ("quiet_hours", {"start": "21:00"}, "quiet_hours.end", "missing"),
        ("quiet_hours", {"start": "9pm", "end": "08:00"}, "quiet_hours.start", "time of day"),
        ("quiet_hours", {"start": 1260, "end": "08:00"}, "quiet_hours.start", "in quotes"),
        ("quiet_hours", {"start": "08:00", "end": "08:00"}, "quiet_hours.end", "all day"),
        ("quiet_hours", {"start": "21:00", "end": "08:00", "otherwise": "drop"}, "quiet_hours.otherwise", "not one of"),
        ("budget", {"limit": 10, "daily": 11}, "budget.daily", "more than the whole"),
        ("budget", {"limit": 10, "per_customer": "x"}, "budget.per_customer", "not an amount"),
        ("coupons", {"window": "P7D"}, "coupons.window", "goes with `count`"),
        ("coupons", {"count": 0}, "coupons.count", "between"),
        ("approval", {"approvers": 2}, "approval", "say when"),
        ("approval", {"types": ["fax"]}, "approval.types[0]", "not one of"),
        ("approval", {"percent_above": 101}, "approval.percent_above", "between"),
        ("approval", {"above_minor": 1}, "approval.above_minor", "unknown key"),
        ("exclusive", "Cart", "exclusive", "not a key"),
        ("exclusive_for", "P1D", "exclusive_for", "goes with `exclusive`"),
        ("executions_per_day", 0, "executions_per_day", "between"),
        ("stale_after", "PT0S", "stale_after", "no length"),
        ("tags", ["a", "a"], "tags[1]", "second tag"),
        ("effect", {"en": "x"}, "effect.zh", "missing"),
    ],
)
def test_a_limit_that_cannot_be_taken_names_its_path(key, value, where, reason):
    with pytest.raises(RuleError) as caught:
        read(STRATEGY | {key: value})
    assert caught.value.where == where
    assert reason in caught.value.reason


def test_a_shop_writes_its_limits_in_the_same_form():
    settings = {key: EVERY_LIMIT[key] for key in ("caps", "quiet_hours", "coupons", "approval", "complaint_cooldown")}
    of_shop, own = limits.parse_shop({**settings, "language": "zh"}), read(STRATEGY | EVERY_LIMIT).limits
    for name in settings:
        assert getattr(of_shop, name) == getattr(own, name)
    assert limits.parse_shop({}) == limits.ShopLimits()
    older = limits.parse_shop({"approval": {"types": [], "above_minor": 500}}).approval
    assert older == limits.Approval()
    with pytest.raises(RuleError) as caught:
        limits.parse_shop({"quiet_hours": {"start": "21:00", "end": "25:00"}})
    assert caught.value.where == "quiet_hours.end"


# -- templates --------------------------------------------------------------------------------------------------------


GOALS = ("conversion", "retention", "repurchase", "win_back")


def test_every_template_reads_and_round_trips():
    assert len(library()) >= 12
    assert {one.goal for one in library().values()} == set(GOALS)
    assert all(template(goal).goal == goal for goal in GOALS)
    assert len({one.key for one in library().values()}) == len(library())
    for strategy in library().values():
        assert read(strategy.to_dict()) == strategy
        assert strategy.holdout > 0
        assert set(strategy.why) == set(strategy.effect) == {"en", "zh"}
        for rule in strategy.rules:
            assert len(rule.arms) >= 2
            assert all(arm.prior is not None for arm in rule.arms)
            assert "order.paid" in rule.exit_on


@pytest.mark.parametrize("key", sorted(library()))
def test_every_way_through_a_template_comes_to_an_end(key):
    start = datetime(2026, 3, 1, 22, tzinfo=UTC)
    for rule in template(key).rules:
        for arm in rule.arms:
            for outcome in (True, False):
                path, at, messages = program.START, start, 0
                while (walked := program.walk(arm, path, at, "Asia/Shanghai", {})).parked is not None:
                    messages += sum(one.placed.step.is_message for one in walked.due)
                    parked = walked.parked
                    path, at = program.resume(arm, parked.path, outcome), parked.deadline or parked.at
                messages += sum(one.placed.step.is_message for one in walked.due)
                assert messages <= 3
                assert at - start < timedelta(days=60)
                assert bool(messages) == bool(arm.steps)


def test_the_templates_show_what_the_language_can_do():
    written = str([one.to_dict() for one in library().values()])
    forms = ["'missed'", "'entered'", "'wait'", "'until'", "'history'", "RRULE", "'for'", "once_per_key"]
    forms += ["took-a-discount", "'quiet_hours'", "'tag'", "'exclusive'", "'approval'", "'daily'", "'time_zone'"]
    for form in forms:
        assert form in written, form


CONTEXT = {
    "customer": {"first_name": "<b>Ana</b>"},
    "shop": {"name": "Tea & Co"},
    "coupon": {"code": "ABC", "percent": 10, "expires_at": "2026-04-01"},
    "product": {"id": "p1"},
    "unsubscribe_url": "https://example.com/u",
}


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("key", sorted(library()))
def test_every_template_renders_in_both_languages(key, language):
    messages = [step for rule in template(key).rules for arm in rule.arms for step in reading.messages(arm.steps)]
    assert messages
    for step in messages:
        subject = text.render_line(step.parameters["subject"][language], CONTEXT)
        body = text.render_html(step.parameters["body"][language], CONTEXT)
        assert subject
        assert "{{" not in subject + body
        assert "https://example.com/u" in body
        assert "&lt;b&gt;Ana" in body
        assert "<b>" not in body
        nameless = text.render_html(step.parameters["body"][language], CONTEXT | {"customer": {"first_name": None}})
        assert ("there" if language == "en" else "您好") in nameless


# -- texts ------------------------------------------------------------------------------------------------------------


def test_a_subject_stays_on_one_line():
    assert text.render_line("a {{ shop.name }}", {"shop": {"name": "x\r\nBcc: everybody@example.com"}}).count("\n") == 0


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in (1..100000) %}x{% endfor %}",
        "{% for i in (1..900) %}{% for j in (1..900) %}" + "x" * 500 + "{% endfor %}{% endfor %}",
    ],
)
def test_a_text_that_would_not_end_is_stopped(source):
    with pytest.raises(LiquidError):
        text.render_html(source, {})


@pytest.mark.parametrize(
    ("locale", "found"),
    [("zh-CN", "您"), ("zh_TW", "您"), ("ZH", "您"), ("en-GB", "hi"), ("fr", "hi"), (None, "hi"), ("", "hi")],
)
def test_a_locale_finds_its_language_or_the_fallback(locale, found):
    assert text.in_language({"en": "hi", "zh": "您"}, locale) == found


# -- times ------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 3000 * 86400).map(lambda seconds: timedelta(seconds=seconds)))
def test_a_duration_is_written_as_it_is_read(value):
    assert duration.parse(duration.write(value)) == value


@pytest.mark.parametrize("wrong", ["", "P", "PT", "7D", "P1M", "P1Y", "-P1D", "P1.5D", "P1DT", "P99999D", "P٣D"])
def test_what_is_no_duration_is_refused(wrong):
    with pytest.raises(ValueError, match="duration|longer"):
        duration.parse(wrong)


def fires(expression: str, days: int = 14, zone: str = "UTC") -> list[datetime]:
    start = datetime(2026, 3, 1, tzinfo=UTC)  # a Sunday
    return list(cron.fire_times(expression, zone, start, start + timedelta(days=days)))


@pytest.mark.parametrize(
    ("weekday", "days"),
    [
        ("0", {6}), ("7", {6}), ("1", {0}), ("1-5", {0, 1, 2, 3, 4}), ("5-7", {4, 5, 6}), ("sat-sun", {5, 6}),
        ("0,3", {6, 2}), ("*", set(range(7))), ("mon", {0}), ("SUN", {6}), ("1-5/2", {0, 2, 4}),
    ],
)  # fmt: skip
def test_weekdays_mean_what_cron_means(weekday, days):
    assert {one.weekday() for one in fires(f"0 9 * * {weekday}")} == days


def test_due_times_follow_the_time_zone_and_the_bounds():
    start = datetime(2026, 3, 1, 1, tzinfo=UTC)  # 09:00 in Shanghai
    times = list(cron.fire_times("0 9 * * *", "Asia/Shanghai", start, start + timedelta(days=2)))
    assert times == [start + timedelta(days=1), start + timedelta(days=2)]
    assert all(one.utcoffset() == timedelta(0) for one in times)


@pytest.mark.parametrize("wrong", ["* * * *", "61 * * * *", "0 9 1 * mon", "0 9 * * 8", "0 9 * * funday", "a b c d e"])
def test_what_is_no_cron_expression_is_refused(wrong):
    with pytest.raises(ValueError, match="."):
        cron.check(wrong)
