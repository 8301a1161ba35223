"""Discounts as Shopify takes them: the inputs of its three kinds, and whether one that was found is ours. Pure.

What a coupon's terms mean is `rules.offer`'s; here they become a DiscountCodeBasicInput,
DiscountCodeFreeShippingInput or DiscountCodeBxgyInput (https://shopify.dev/docs/api/admin-graphql/2026-07/mutations/discountCodeBasicCreate).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from operation_agent.actions.channel import NewDiscount

_CLASSES = {"order": "orderDiscounts", "product": "productDiscounts", "shipping": "shippingDiscounts"}
_SHARE_DIGITS = 6
_NEAR = timedelta(seconds=2)
"""Shopify keeps whole seconds."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The operation that makes a discount, with its one variable."""

    operation: str
    discount: dict[str, Any]


def asked(wanted: NewDiscount) -> Asked:
    """What to call for a discount, whatever it gives."""
    terms = wanted.terms
    if "free_shipping" in terms:
        return Asked("coupon_free_shipping_create", {**_common(wanted), **_minimum(terms), **_free_shipping(terms)})
    if "buy_x_get_y" in terms:
        return Asked("coupon_bxgy_create", {**_common(wanted), **_bxgy(terms["buy_x_get_y"])})
    gets = {"value": _value(terms), "items": _items(terms)}
    return Asked("coupon_basic_create", {**_common(wanted), **_minimum(terms), "customerGets": gets})


def _common(wanted: NewDiscount) -> dict[str, Any]:
    terms = wanted.terms
    combines = terms.get("combines_with")
    return {
        "title": wanted.title,
        "code": wanted.code,
        "startsAt": wanted.starts_at.isoformat(),
        "endsAt": wanted.ends_at.isoformat() if wanted.ends_at is not None else None,
        "usageLimit": terms.get("usage_limit", 1),
        "appliesOncePerCustomer": terms.get("once_per_customer", True),
        "context": _context(wanted),
        **({"combinesWith": {name: key in combines for key, name in _CLASSES.items()}} if combines else {}),
    }


def _context(wanted: NewDiscount) -> dict[str, Any]:
    if wanted.customer is not None:
        return {"customers": {"add": [gid("Customer", wanted.customer)]}}
    segments = wanted.terms.get("customer_segments")
    if segments:
        return {"customerSegments": {"add": [gid("Segment", one) for one in segments]}}
    return {"all": "ALL"}


def _minimum(terms: Mapping[str, Any]) -> dict[str, Any]:
    if "minimum_subtotal" in terms:
        return {"minimumRequirement": {"subtotal": {"greaterThanOrEqualToSubtotal": terms["minimum_subtotal"]}}}
    if "minimum_quantity" in terms:
        quantity = str(terms["minimum_quantity"])
        return {"minimumRequirement": {"quantity": {"greaterThanOrEqualToQuantity": quantity}}}
    return {}


def _value(terms: Mapping[str, Any]) -> dict[str, Any]:
    if "amount" in terms:
        return {"discountAmount": {"amount": terms["amount"], "appliesOnEachItem": False}}
    return {"percentage": _share(terms["percent"])}


def _free_shipping(terms: Mapping[str, Any]) -> dict[str, Any]:
    most = terms.get("maximum_shipping")
    return {"destination": {"all": True}, **({"maximumShippingPrice": most} if most is not None else {})}


def _bxgy(given: Mapping[str, Any]) -> dict[str, Any]:
    """Once an order: what it is worth is told of one use."""
    buy, get = given["buy"], given["get"]
    effect = {"quantity": str(get["quantity"]), "effect": {"percentage": _share(get["percent"])}}
    return {
        "customerBuys": {"value": {"quantity": str(buy["quantity"])}, "items": _items(buy)},
        "customerGets": {"value": {"discountOnQuantity": effect}, "items": _items(get)},
        "usesPerOrderLimit": 1,
    }


def _items(given: Mapping[str, Any]) -> dict[str, Any]:
    if given.get("products"):
        return {"products": {"productsToAdd": [gid("Product", one) for one in given["products"]]}}
    if given.get("collections"):
        return {"collections": {"add": [gid("Collection", one) for one in given["collections"]]}}
    return {"all": True}


def _share(percent: float) -> float:
    return round(float(percent) / 100, _SHARE_DIGITS)


def gid(kind: str, given: str) -> str:
    """`632` as gid://shopify/Product/632; what is a global id stays."""
    return given if given.startswith("gid://") else f"gid://shopify/{kind}/{given}"


# -- what was found ---------------------------------------------------------------------------------------------------

_TYPES = {
    "coupon_basic_create": "DiscountCodeBasic",
    "coupon_free_shipping_create": "DiscountCodeFreeShipping",
    "coupon_bxgy_create": "DiscountCodeBxgy",
}


def other_end(found: Mapping[str, Any], wanted: NewDiscount) -> datetime | None:
    """When a discount that was found ends (UTC), if that is another moment than was asked for."""
    ends = _instant(found.get("endsAt"))
    if ends is None or wanted.ends_at is None or abs(ends - wanted.ends_at) <= _NEAR:
        return None
    return ends


def why_not_ours(found: Mapping[str, Any], wanted: NewDiscount) -> str | None:
    """Why the discount behind a code is not the one that was asked for; None: it is. An earlier attempt may have begun
    it at another moment, but it lasts as long."""
    told = asked(wanted)
    if found.get("__typename") != _TYPES[told.operation] or found.get("title") != wanted.title:
        return f"it is {str(found.get('title'))[:80]!r}"
    if found.get("usageLimit") != told.discount["usageLimit"]:
        return f"it may be used {found.get('usageLimit')} times"
    value = (found.get("customerGets") or {}).get("value") or {}
    if told.operation == "coupon_basic_create" and not _is_same_value(value, wanted.terms):
        return "it gives something else"
    if not _lasts_as_long(found, wanted):
        return f"it ends at {found.get('endsAt')}"
    return None


def _is_same_value(value: Mapping[str, Any], terms: Mapping[str, Any]) -> bool:
    try:
        if "percent" in terms:
            return abs(float(value["percentage"]) - _share(terms["percent"])) < 10**-_SHARE_DIGITS
        return Decimal(str(value["amount"]["amount"])) == Decimal(str(terms["amount"]))
    except (KeyError, TypeError, ValueError, InvalidOperation):
        return False


def _lasts_as_long(found: Mapping[str, Any], wanted: NewDiscount) -> bool:
    starts, ends = _instant(found.get("startsAt")), _instant(found.get("endsAt"))
    if wanted.ends_at is None or ends is None or starts is None:
        return wanted.ends_at is None and ends is None
    return abs((ends - starts) - (wanted.ends_at - wanted.starts_at)) <= _NEAR


def _instant(written: Any) -> datetime | None:
    return datetime.fromisoformat(written) if isinstance(written, str) else None
