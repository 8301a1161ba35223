"""What rules may speak of in this agent: features, clusters, consent, and the properties of events.

`rules/` knows no field; this table, made from the rooms that own them, is handed to it whenever a rule is read.
"""

from __future__ import annotations

from functools import cache

from operation_agent.customers.definitions import FEATURES, LABELS
from operation_agent.events.catalogue import TYPES
from rules.fields import FieldType, Vocabulary

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
    "state": FieldType("label", frozenset({"subscribed", "unsubscribed"})),
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

CONSENT_CHANNELS = ("email",)


def _fields() -> dict[str, FieldType]:
    fields = {f"customer.{name}": _feature(name) for name in FEATURES}
    fields |= {
        "cluster.label": FieldType("label"),
        "cluster.lineage": FieldType("label"),
        "event.type": FieldType("label", frozenset(TYPES)),
        "event.name": FieldType("label"),
        "event.*": FieldType("any"),
    }
    fields |= {f"event.{name}": kind for name, kind in _EVENT_PROPERTIES.items()}
    return fields | {
        f"consent.{channel}": FieldType("label", frozenset({"subscribed", "unsubscribed"}))
        for channel in CONSENT_CHANNELS
    }


def _feature(name: str) -> FieldType:
    kind = FEATURES[name].kind
    if kind == "label":
        return FieldType("label", frozenset(LABELS[name]))
    return FieldType(kind, unit="days" if name.startswith("days_") or name.endswith("_days") else None)


@cache
def vocabulary() -> Vocabulary:
    """Fields and event types, as `rules` wants them."""
    common = frozenset({"type", "name"})
    events = {
        name: common | (_EMAIL if name.startswith("email.") else _PROPERTIES_OF.get(name, frozenset()))
        for name in TYPES
    }
    return Vocabulary(_fields(), events)
