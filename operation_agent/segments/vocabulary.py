"""What conditions may speak of in this agent, made from the rooms that own it: features, clusters, traits, consent,
segments, strategies, and events with their properties. `rules/` knows no field: this is handed to it.

Families whose members a shop makes (segment.*, strategy.*) are open here, since what was stored must be readable
whatever became of them; `strategies.vocabulary.of_shop` closes them where somebody writes.
"""

from __future__ import annotations

from functools import cache

from operation_agent.clustering import phrases
from operation_agent.customers.definitions import FEATURES, LABEL_NAMES, LABELS
from operation_agent.events.catalogue import TYPES
from rules.fields import FieldType, Vocabulary

CHANNELS = ("email", "sms", "push", "in_app", "whatsapp")
"""Channels that customers may consent to; each has topics, `consent.<channel>` being about marketing."""

_SHORT: dict[str, dict[str, str]] = {
    "purchase_stage": {
        "新客": "new", "浏览": "browsing", "研究": "research", "决策": "decision", "首购": "customer",
        "复购": "repeat", "沉睡": "lapsed", "流失": "lapsed",
    },
    "price_sensitivity": {"低": "low", "中": "medium", "中等": "medium", "高": "high", "不敏感": "low", "敏感": "high"},
    "engagement_level": {"无": "none", "低": "low", "中": "medium", "高": "high"},
}  # fmt: skip
"""How people shorten the names of LABEL_NAMES."""

_FLAG_WORDS = {"是": "true", "否": "false", "yes": "true", "no": "false"}
_CONSENT_WORDS = {"已订阅": "subscribed", "订阅": "subscribed", "已退订": "unsubscribed", "退订": "unsubscribed"}

CLUSTER_LABELS = tuple(rule.key for rule in (*phrases.RULES, phrases.FALLBACK))
"""Every label a cluster may be given."""

_CONSENT = FieldType("label", frozenset({"subscribed", "unsubscribed"}), synonyms=_CONSENT_WORDS)
MEMBER = FieldType("flag", synonyms=_FLAG_WORDS, has_since=True)
"""Of a segment, or ever assigned to a strategy."""

_EVENT_PROPERTIES: dict[str, FieldType] = {
    "product_id": FieldType("label"),
    "price_minor": FieldType("number"),
    "category": FieldType("label"),
    "query": FieldType("label"),
    "quantity": FieldType("number"),
    "cart_id": FieldType("label"),
    "checkout_id": FieldType("label"),
    "value_minor": FieldType("number"),
    "order_id": FieldType("label"),
    "refund_id": FieldType("label"),
    "total_minor": FieldType("number"),
    "discount_minor": FieldType("number"),
    "amount_minor": FieldType("number"),
    "discount_codes": FieldType("list"),
    "currency": FieldType("label"),
    "path": FieldType("label"),
    "url": FieldType("label"),
    "address": FieldType("label"),
    "reason": FieldType("label"),
    "channel": FieldType("label"),
    "topic": FieldType("label"),
    "state": _CONSENT,
}
"""The normal form of events.catalogue. A custom event's own properties are of kind "any"."""

_CART_LINE = frozenset({"product_id", "price_minor", "category", "quantity", "cart_id"})
_EMAIL = frozenset({"address", "reason"})
_PROPERTIES_OF: dict[str, frozenset[str]] = {
    "page.viewed": frozenset({"path", "url"}),
    "product.viewed": frozenset({"product_id", "price_minor", "category"}),
    "product.searched": frozenset({"query"}),
    "cart.added": _CART_LINE,
    "cart.removed": _CART_LINE,
    "checkout.started": frozenset({"checkout_id", "value_minor"}),
    "order.paid": frozenset({"order_id", "total_minor", "discount_minor", "currency", "quantity", "discount_codes"}),
    "order.refunded": frozenset({"order_id", "refund_id", "amount_minor"}),
    "order.cancelled": frozenset({"order_id"}),
    "consent.changed": frozenset({"channel", "topic", "state"}),
    "custom": frozenset({"*"}),
}


def _feature(name: str) -> FieldType:
    kind = FEATURES[name].kind
    if kind == "label":
        named = {text: value for value, texts in LABEL_NAMES[name].items() for text in texts.values()}
        return FieldType("label", frozenset(LABELS[name]), synonyms={**_SHORT[name], **named})
    unit = "days" if name.startswith("days_") or name.endswith("_days") else None
    return FieldType(kind, unit=unit, synonyms=_FLAG_WORDS if kind == "flag" else {})


def _cluster_label(values: frozenset[str] | None) -> FieldType:
    named = {text: rule.key for rule in (*phrases.RULES, phrases.FALLBACK) for text in rule.text.values()}
    return FieldType("label", values, synonyms=named, has_since=True)


CLUSTER_LABEL = _cluster_label(frozenset(CLUSTER_LABELS))
"""For who writes: closed. Who reads what was stored takes any label, since releases rename them."""


def _fields() -> dict[str, FieldType]:
    fields = {f"customer.{name}": _feature(name) for name in FEATURES}
    fields |= {
        "cluster.label": _cluster_label(None),
        "cluster.lineage": FieldType("label", has_since=True),
        "trait.*": FieldType("any"),
        "segment.*": MEMBER,
        "strategy.*": MEMBER,
        "random.*": FieldType("number"),
        "event.type": FieldType("label", frozenset(TYPES)),
        "event.name": FieldType("label"),
        "event.*": FieldType("any"),
    }
    fields |= {f"event.{name}": kind for name, kind in _EVENT_PROPERTIES.items()}
    for channel in CHANNELS:
        fields |= {f"consent.{channel}": _CONSENT, f"consent.{channel}.*": _CONSENT}
    return fields


def _aliases() -> dict[str, str]:
    """The Chinese names of features, and the three labels by their bare names."""
    named = {words.name["zh"]: f"customer.{name}" for name, words in phrases.FEATURE_WORDS.items() if name in FEATURES}
    named |= {feature.labels["zh"]: f"customer.{name}" for name, feature in FEATURES.items()}
    named |= {name: f"customer.{name}" for name in LABELS}
    return named | {"分群": "cluster.label", "客户分群": "cluster.label", "群体": "cluster.label"}


@cache
def vocabulary() -> Vocabulary:
    """Everything that may stand in a stored definition."""
    common = frozenset({"type", "name"})
    events = {
        name: common | (_EMAIL if name.startswith("email.") else _PROPERTIES_OF.get(name, frozenset()))
        for name in TYPES
    }
    return Vocabulary(_fields(), events, _aliases())
