"""The action types there are: which channel carries each, what it takes, what one costs.

How a step is written in a rule is `rules.step`'s; here stands what the executor must know. Costs are minor units of
the shop's currency; `shop.settings["costs"]` overrides them by type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from operation_agent.kit.errors import Rejected
from rules import duration, offer
from rules.limits import Cap


@dataclass(frozen=True, slots=True)
class ChannelKind:
    """What must be true before something goes out on a channel. `address`: the customer's column, if it needs one."""

    name: str
    address: Literal["email", "phone"] | None
    needs_consent: bool
    is_message: bool  # counts against frequency caps


@dataclass(frozen=True, slots=True)
class ActionType:
    """`schema` is the JSON Schema of its parameters, as they stand in `actions.parameters`."""

    name: str
    channel: str
    labels: Mapping[str, str]
    schema: Mapping[str, Any]
    cost_minor: int


_MONEY = {"type": "string", "description": "A decimal amount in units of the shop's currency"}
_IDS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_SOME = {
    "type": "object",
    "required": ["quantity"],
    "properties": {
        "quantity": {"type": "integer", "minimum": 1},
        "products": _IDS,
        "collections": _IDS,
        "percent": {"type": "number", "exclusiveMinimum": 0, "maximum": 100},
    },
}
_TEXTS = {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}}

CHANNELS: dict[str, ChannelKind] = {
    "email": ChannelKind("email", address="email", needs_consent=True, is_message=True),
    "coupon": ChannelKind("coupon", address=None, needs_consent=False, is_message=False),
}

TYPES: dict[str, ActionType] = {
    "email": ActionType(
        "email",
        channel="email",
        labels={"zh": "电子邮件", "en": "E-mail"},
        schema={
            "type": "object",
            "required": ["subject", "body"],
            "properties": {"subject": _TEXTS, "body": _TEXTS, "product": {"type": "object"}},
        },
        cost_minor=1,
    ),
    "coupon": ActionType(
        "coupon",
        channel="coupon",
        labels={"zh": "优惠券", "en": "Coupon"},
        schema={
            "type": "object",
            "required": [],
            "oneOf": [{"required": [kind]} for kind in offer.KINDS],
            "properties": {
                "percent": {"type": "number", "exclusiveMinimum": 0, "maximum": 100},
                "amount": _MONEY,
                "free_shipping": {"const": True},
                "buy_x_get_y": {
                    "type": "object",
                    "required": ["buy", "get"],
                    "properties": {"buy": _SOME, "get": _SOME},
                },
                "expires_in": {"type": "string", "description": "ISO 8601 duration, P14D by default"},
                "minimum_subtotal": _MONEY,
                "minimum_quantity": {"type": "integer", "minimum": 1},
                "products": _IDS,
                "collections": _IDS,
                "maximum_shipping": _MONEY,
                "usage_limit": {"type": "integer", "minimum": 1, "default": 1},
                "once_per_customer": {"type": "boolean", "default": True},
                "combines_with": {"type": "array", "items": {"enum": list(offer.CLASSES)}},
                "eligible": {"enum": list(offer.ELIGIBLE)},
                "customer_segments": _IDS,
                "offer": {"type": "string", "description": "The same customer has one code for it while it lasts"},
                "pool": {"type": "string", "description": "The code pool that the code is taken from"},
                "worth": {**_MONEY, "description": "What one use is expected to cost, where it is not known"},
                "code": {"type": "string", "description": "Set when it is taken, where it follows from the offer"},
            },
        },
        cost_minor=0,
    ),
}

DEFAULT_CAPS: dict[str, Cap | None] = {"email": Cap("email", 7, timedelta(days=7))}
"""The last line behind the strategies' own caps; `shop.settings["hard_caps"]` changes it."""


def action_type(name: str) -> ActionType:
    """Raises Rejected, naming the types there are."""
    try:
        return TYPES[name]
    except KeyError:
        raise Rejected(f"there is no action type {name!r}; there are {', '.join(TYPES)}", code="action_type") from None


def unit_cost(settings: Mapping[str, Any], name: str) -> int:
    """What doing one of `name` costs, in minor units of the shop's currency."""
    return int(settings.get("costs", {}).get(name, action_type(name).cost_minor))


def shop_caps(settings: Mapping[str, Any], written: Sequence[Cap]) -> tuple[Cap, ...]:
    """Every cap of a shop: the last line of each channel ({"hard_caps": {"email": {"count": 4, "window": "P7D"}}},
    null for none), and what its settings' `caps` say (`written`, as rules.limits reads them)."""
    own = settings.get("hard_caps", {})
    lines = {**DEFAULT_CAPS, **{channel: _hard_cap(channel, one) for channel, one in own.items()}}
    return (*(cap for cap in lines.values() if cap is not None), *written)


def _hard_cap(channel: str, written: Mapping[str, Any] | None) -> Cap | None:
    return Cap(channel, int(written["count"]), duration.parse(written["window"])) if written else None
