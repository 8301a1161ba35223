"""Parts of a strategy in words, in English and Chinese: conditions, triggers, steps, spans of time.

They work on the written form (plain dicts), so that they can tell of one that is no longer there. `names` hands in what
the agent calls its fields ({"customer.orders": {"en": "Orders", "zh": "订单数"}}); without it a field is its own name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from . import duration, offer

Words = dict[str, str]
Names = Mapping[str, Mapping[str, str]]

LANGUAGES = ("en", "zh")
NONE: Words = {"en": "none", "zh": "无"}

_UNITS = (
    (86400, {"en": ("day", "days"), "zh": ("天", "天")}),
    (3600, {"en": ("hour", "hours"), "zh": ("小时", "小时")}),
    (60, {"en": ("minute", "minutes"), "zh": ("分钟", "分钟")}),
    (1, {"en": ("second", "seconds"), "zh": ("秒", "秒")}),
)
_GAP = {"en": " ", "zh": " "}

_OPERATORS: dict[str, Words] = {
    "equals": {"en": "=", "zh": "="},
    "not_equals": {"en": "≠", "zh": "≠"},
    "in": {"en": "in", "zh": "属于"},
    "not_in": {"en": "not in", "zh": "不属于"},
    "lt": {"en": "<", "zh": "<"},
    "lte": {"en": "≤", "zh": "≤"},
    "gt": {"en": ">", "zh": ">"},
    "gte": {"en": "≥", "zh": "≥"},
    "between": {"en": "between", "zh": "介于"},
    "contains": {"en": "contains", "zh": "包含"},
    "exists": {"en": "is known", "zh": "有值"},
    "not_exists": {"en": "is not known", "zh": "无值"},
    "within": {"en": "within the last", "zh": "在最近"},
    "changed": {"en": "changed", "zh": "发生变化"},
}
_MEASURES: dict[str, Words] = {
    "count": {"en": "number of {event}", "zh": "{event} 次数"},
    "sum": {"en": "sum of {of} of {event}", "zh": "{event} 的 {of} 合计"},
    "distinct": {"en": "different {of} of {event}", "zh": "{event} 的不同 {of} 数"},
    "days_since_last": {"en": "days since the last {event}", "zh": "距上次 {event} 天数"},
    "days_since_first": {"en": "days since the first {event}", "zh": "距首次 {event} 天数"},
}
_GROUPS: dict[str, Words] = {
    "all": {"en": " and ", "zh": " 且 "},
    "any": {"en": " or ", "zh": " 或 "},
    "none": {"en": " nor ", "zh": " 或 "},
}
_FREQUENCIES: dict[str, Words] = {
    "once": {"en": "once per customer", "zh": "每位顾客一次"},
    "every_time": {"en": "every time", "zh": "每次"},
    "once_per_key": {"en": "once per key", "zh": "每个键值一次"},
}


def both(say: Callable[[str], str]) -> Words:
    """One sentence in every language."""
    return {language: say(language) for language in LANGUAGES}


def listed(values: Any, language: str) -> str:
    """Several values in a row; "none" when there are no."""
    parts = [str(value) for value in values]
    return ({"en": ", ", "zh": "、"}[language]).join(parts) or NONE[language]


def span(written: str, language: str) -> str:
    """P1DT12H as "1 day 12 hours", -P1D as "-1 day"."""
    sign = "-" if written.startswith("-") else ""
    try:
        left = int(duration.parse(written.removeprefix("-")) / timedelta(seconds=1))
    except ValueError:
        return written
    parts = []
    for seconds, unit in _UNITS:
        count, left = divmod(left, seconds)
        if count:
            parts.append(f"{count} {unit[language][count != 1]}")
    return sign + (_GAP[language].join(parts) or f"0 {_UNITS[2][1][language][1]}")


def shortened(text: Any, longest: int = 60) -> str:
    """A text on one line, cut where it is long."""
    line = " ".join(str(text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


# -- conditions -------------------------------------------------------------------------------------------------------


def condition(written: Mapping[str, Any], language: str, names: Names) -> str:
    """A whole condition on one line."""
    for kind, joint in _GROUPS.items():
        if kind in written:
            parts = [condition(one, language, names) for one in written[kind]]
            inner = joint[language].join(f"({part})" if _is_group(one) else part
                                         for one, part in zip(written[kind], parts, strict=True))  # fmt: skip
            return {"en": f"neither {inner}", "zh": f"非（{inner}）"}[language] if kind == "none" else inner
    return leaf(written, language, names)


def _is_group(written: Mapping[str, Any]) -> bool:
    return any(kind in written for kind in _GROUPS)


def leaf(written: Mapping[str, Any], language: str, names: Names) -> str:
    """One comparison: `orders ≥ 2`."""
    op, value = written["op"], written.get("value")
    asked = (
        _history(written["history"], language, names)
        if "history" in written
        else _field(written["field"], names, language)
    )
    said = f"{asked} {_OPERATORS[op][language]}"
    if value is not None:
        said += f" {_value(value, op, language, names)}"
    if "for" in written:
        held = span(written["for"], language)
        said += {"en": f" for {held}", "zh": f"，已持续 {held}"}[language]
    return said


def _field(name: str, names: Names, language: str) -> str:
    known = names.get(name)
    return known[language] if known else name.removeprefix("customer.")


def _history(asked: Mapping[str, Any], language: str, names: Names) -> str:
    event = asked.get("name") or asked["event"]
    said = _MEASURES[asked["measure"]][language].format(event=event, of=asked.get("of", ""))
    if "within" in asked:
        within = span(asked["within"], language)
        said = {"en": f"{said} in {within}", "zh": f"{within} 内{said}"}[language]
    if "where" in asked:
        where = condition(asked["where"], language, names)
        said += {"en": f" where {where}", "zh": f"（{where}）"}[language]
    return said


def _value(value: Any, op: str, language: str, names: Names) -> str:
    if isinstance(value, list):
        parts = [_value(one, op, language, names) for one in value]
        if op == "between":
            return {"en": " and ", "zh": " 与 "}[language].join(parts)
        return listed(parts, language)
    if isinstance(value, dict):
        return _operand(value, op, language, names)
    if isinstance(value, bool):
        return {"en": ("no", "yes"), "zh": ("否", "是")}[language][value]
    return span(value, language) if op == "within" else str(value)


def _operand(value: Mapping[str, Any], op: str, language: str, names: Names) -> str:
    if "field" in value:
        times = f"{value['times']:g} × " if "times" in value else ""
        plus = f" {'+' if value['plus'] >= 0 else '-'} {abs(value['plus']):g}" if "plus" in value else ""
        return f"{times}{_field(value['field'], names, language)}{plus}"
    if "ago" in value:
        return {"en": "{} ago", "zh": "{}前"}[language].format(span(value["ago"], language))
    if "ahead" in value:
        return {"en": "{} ahead", "zh": "{}后"}[language].format(span(value["ahead"], language))
    before, after = (str(value.get(end, "…")) for end in ("from", "to"))
    return {"en": f"from {before} to {after}", "zh": f"从 {before} 变为 {after}"}[language]


# -- triggers ---------------------------------------------------------------------------------------------------------


def source(when: Mapping[str, Any], language: str) -> str:
    """What sets a rule off, without how often."""
    if "event" in when:
        return listed(when["event"], language)
    if "schedule" in when:
        zone = {"en": " (the customer's time)", "zh": "（顾客当地时间）"}[language] if "time_zone" in when else ""
        return f"{when['schedule']}{zone}"
    if "missed" in when:
        missed = when["missed"]
        parts = (listed(missed["event"], language), listed(missed["goal"], language), span(missed["within"], language))
        return {"en": "{0} without {1} within {2}", "zh": "{0} 后 {2} 内没有 {1}"}[language].format(*parts)
    if "entered" in when:
        return {"en": "entering {}", "zh": "进入 {}"}[language].format(when["entered"])
    return {"en": "leaving {}", "zh": "离开 {}"}[language].format(when["left"])


def frequency(written: str, language: str) -> str:
    return _FREQUENCIES[written][language]


# -- steps ------------------------------------------------------------------------------------------------------------


def step(written: Mapping[str, Any], language: str, names: Names) -> str:
    """A step in a few words: what an operator would call it."""
    if "action" in written:
        return _action(written, language)
    if "wait" in written:
        wait = written["wait"]
        parts = (wait.get("name") or listed(wait["event"], language), span(wait["within"], language))
        return {"en": "wait for {0}, at most {1}", "zh": "等待 {0}，最多 {1}"}[language].format(*parts)
    if "if" in written:
        return {"en": "if {}", "zh": "如果 {}"}[language].format(shortened(condition(written["if"], language, names)))
    if "delay" in written:
        return pause(written["delay"], language)
    return {"en": "leave", "zh": "退出"}[language]


def _action(written: Mapping[str, Any], language: str) -> str:
    if written["action"] == "email":
        subject = shortened(written["subject"].get(language, ""), 40)
        return {"en": f"e-mail “{subject}”", "zh": f"邮件“{subject}”"}[language]
    if written["action"] == "coupon":
        return {"en": "coupon {}", "zh": "优惠券 {}"}[language].format(offer.short(written, language))
    return str(written["action"])


def pause(written: Any, language: str) -> str:
    """A delay's own form, or a duration."""
    if isinstance(written, str):
        return {"en": "{} later", "zh": "{}后"}[language].format(span(written, language))
    if "until" in written:
        return {"en": "at {}", "zh": "等到 {}"}[language].format(written["until"])
    plus = written.get("plus")
    if plus is None:
        return {"en": "on {}", "zh": "在 {} 当时"}[language].format(written["date"])
    sides = {"en": ("{0} after {1}", "{0} before {1}"), "zh": ("{1} 之后 {0}", "{1} 之前 {0}")}
    return sides[language][plus.startswith("-")].format(span(plus.removeprefix("-"), language), written["date"])
