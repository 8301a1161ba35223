"""What the keys of a strategy are called, and how their values are said, in English and Chinese."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import offer, phrases
from .phrases import NONE, Words

Say = Callable[[Any, str], str]


def plain(value: Any, language: str) -> str:
    if value is None or value == {}:
        return NONE[language]
    if isinstance(value, bool):
        return {"en": ("no", "yes"), "zh": ("否", "是")}[language][value]
    if isinstance(value, list):
        return phrases.listed(value, language)
    if isinstance(value, dict):
        parts = [(STRATEGY.get(key, label(key, key)), one) for key, one in value.items()]
        return phrases.listed((f"{words[language]} {say(one, language)}" for (words, say), one in parts), language)
    return phrases.shortened(value)


def _span(value: Any, language: str) -> str:
    return NONE[language] if value is None else phrases.span(value, language)


def _share(value: Any, language: str) -> str:
    return NONE[language] if value is None else {"en": f"{value:.4g} %", "zh": f"{value:.4g}%"}[language]


def _of_one(value: Any, language: str) -> str:
    return _share(value * 100 if value is not None else None, language)


def quoted(value: Any, language: str) -> str:
    return NONE[language] if value is None else {"en": "“{}”", "zh": "“{}”"}[language].format(phrases.shortened(value))


def _bxgy(value: Any, language: str) -> str:
    return NONE[language] if value is None else offer.short({"buy_x_get_y": value}, language)


def _delay(value: Any, language: str) -> str:
    return NONE[language] if value is None else phrases.pause(value, language)


Labels = Mapping[str, tuple[Words, Say]]


def label(en: str, zh: str, say: Say = plain) -> tuple[Words, Say]:
    return {"en": en, "zh": zh}, say


IN_LANGUAGE: dict[str, Words] = {
    "en": {"en": "{} (English)", "zh": "{}（英文）"},
    "zh": {"en": "{} (Chinese)", "zh": "{}（中文）"},
}
STRATEGY: Labels = {
    "key": label("key", "标识"),
    "name": label("name", "名称"),
    "goal": label("goal", "目标"),
    "why": label("reason", "理由"),
    "effect": label("expected effect", "预期效果"),
    "holdout": label("holdout", "对照组比例", _of_one),
    "policy": label("policy", "选择方式"),
    "kind": label("kind", "类型"),
    "attribution": label("attribution", "归因"),
    "window": label("window", "时间窗", _span),
    "capping": label("capping", "频控方式"),
    "held_back": label("held back by caps", "受频次上限约束"),
    "counted": label("counted by caps", "计入频次上限"),
    "quiet_hours": label("quiet hours", "免打扰时段"),
    "start": label("from", "开始"),
    "end": label("to", "结束"),
    "otherwise": label("then", "处理方式"),
    "budget": label("budget", "预算"),
    "limit": label("in total", "总额"),
    "currency": label("currency", "币种"),
    "daily": label("a day", "每日"),
    "per_customer": label("per customer", "每位顾客"),
    "coupons": label("coupon limits", "优惠券限制"),
    "count": label("at most", "最多"),
    "stacking": label("stacking", "可叠加"),
    "approval": label("approval", "审批"),
    "types": label("for actions", "动作类型"),
    "audience_above": label("above an audience of", "人数超过"),
    "percent_above": label("above a discount of", "折扣超过", _share),
    "cost_above": label("above a cost of", "费用超过"),
    "approvers": label("approvers", "审批人数"),
    "expires_in": label("expires in", "有效期", _span),
    "exclusive": label("exclusive group", "互斥组"),
    "exclusive_for": label("exclusive for", "互斥时长", _span),
    "executions_per_day": label("executions a day", "每日执行上限"),
    "complaint_cooldown": label("pause after a complaint", "投诉后停发", _span),
    "stale_after": label("dropped when late by", "过期丢弃", _span),
    "tags": label("tags", "标签"),
}
CAP: Labels = {"count": label("at most", "最多"), "window": label("within", "时间窗", _span)}
RULE: Labels = {
    "name": label("name", "名称"),
    "exit_on": label("ends early on", "提前结束于"),
    "priority": label("priority", "优先级"),
}
WHEN: Labels = {
    "frequency": label("frequency", "频率", lambda value, language: phrases.frequency(value, language)),
    "key": label("once per", "去重字段"),
    "cooldown": label("cool-down", "冷却期", _span),
}
ARM: Labels = {
    "weight": label("weight", "权重", lambda value, language: f"{value:g}"),
    "prior": label("expectation", "预期"),
    "increment": label("more orders", "下单提升", _of_one),
    "redemption": label("coupons redeemed", "用券率", _of_one),
}
STEP: Labels = {
    "action": label("action", "动作"),
    "percent": label("discount", "折扣", _share),
    "amount": label("amount off", "立减金额"),
    "free_shipping": label("free shipping", "免运费"),
    "buy_x_get_y": label("buy X get Y", "买赠", _bxgy),
    "minimum_subtotal": label("for orders of at least", "最低消费"),
    "minimum_quantity": label("for at least so many items", "最少件数"),
    "products": label("products", "适用商品"),
    "collections": label("collections", "适用系列"),
    "maximum_shipping": label("for shipping of up to", "运费上限"),
    "usage_limit": label("uses of a code", "每码可用次数"),
    "once_per_customer": label("once per customer", "每位顾客限用一次"),
    "combines_with": label("combines with discounts on", "可叠加的折扣"),
    "eligible": label("for whom", "适用顾客"),
    "customer_segments": label("customer segments of the shop", "店铺顾客分组"),
    "expires_in": label("valid for", "有效期", _span),
    "offer": label("offer", "优惠名称"),
    "pool": label("code pool", "优惠码池"),
    "worth": label("expected cost", "预计成本"),
    "subject": label("subject", "主题"),
    "body": label("text", "正文"),
    "topic": label("topic", "类别"),
    "delay": label("when", "时间", _delay),
    "key": label("key", "标识"),
    "tags": label("tags", "标签"),
    "event": label("event", "事件"),
    "within": label("at most", "最长", _span),
    "name": label("event name", "事件名"),
    "where": label("of which", "其中"),
}
WHOLE = ("delay", "buy_x_get_y")
"""Keys whose mappings are said as one."""
