"""What happened can be one of these: the event types, and the normal form of each type's properties.

A form takes a source's properties and the shop, and returns ours on top of them: everything the source sent is kept
under its own name, and the fields below are added, checked and in one unit. Money is `..._minor`, an integer of the
shop's currency. A property that is wrong raises Rejected and names itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from operation_agent.kit.errors import Rejected
from operation_agent.kit.money import MAXIMUM_MINOR, minor_digits, to_minor
from operation_agent.store.shops import Shop

Properties = dict[str, Any]
Form = Callable[[Properties, Shop], Properties]

LONGEST_ID = 512
_WHOLE = MAXIMUM_MINOR // 10**4
MOST_PIECES = 1_000_000
"""Of one line of an order: above this a quantity is a mistake."""


def identifier(value: object, where: str) -> str | None:
    """An id as text, or None when absent or empty. Raises Rejected for what cannot be an id."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Rejected(f"{where} is a string, not {type(value).__name__}", code="id", where=where)
    found = str(value).strip()
    if len(found) > LONGEST_ID:
        raise Rejected(f"{where} is longer than {LONGEST_ID} characters", code="id_too_long", where=where)
    return found or None


def required(properties: Properties, name: str) -> str:
    found = identifier(properties.get(name), f"properties.{name}")
    if found is None:
        raise Rejected(f"properties.{name} is missing", code="property_missing", where=f"properties.{name}")
    return found


def amount(properties: Properties, shop: Shop, *names: str) -> int | None:
    """Minor units of the first of `names` that is there (decimal), or of a ready `<name>_minor`; None without any."""
    for name in names:
        ready = properties.get(name + "_minor")
        value, where = (properties.get(name), f"properties.{name}")
        if ready is not None:
            value, where = ready, f"properties.{name}_minor"
        if value is None or value == "":
            continue
        return _ready(ready, where) if ready is not None else _decimal(value, shop.currency, where)
    return None


def _ready(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAXIMUM_MINOR:
        raise Rejected(f"{where} is a non-negative integer of minor units", code="amount", where=where)
    return value


def _decimal(value: object, currency: str, where: str) -> int:
    if type(value) is int and 0 <= value <= _WHOLE:  # the common case, five times faster than by Decimal
        return value * 10 ** minor_digits(currency)
    try:
        minor = to_minor(value, currency)
    except Rejected as error:
        raise Rejected(error.detail, code=error.code, where=where) from None
    if minor < 0:
        raise Rejected(f"{where} is negative; a refund is an event of its own", code="negative_amount", where=where)
    return minor


def same_currency(properties: Properties, shop: Shop, where: str = "properties.currency") -> None:
    """Raises Rejected when the amounts are said to be of another currency than the shop's."""
    said = properties.get("currency")
    if said is None or said == "" or said == shop.currency:
        return
    if not isinstance(said, str) or said.strip().upper() != shop.currency:
        raise Rejected(
            f"the currency is {str(said)[:20]!r} and the shop's is {shop.currency}; convert the amounts before"
            f" sending, or send them to a shop that trades in that currency",
            code="mixed_currency",
            where=where,
        )


def quantity(value: object, where: str) -> int:
    """Pieces, one when not said. Raises Rejected for what is not a whole number from 1 to MOST_PIECES."""
    if value is None or value == "":
        return 1
    try:
        pieces = int(value) if not isinstance(value, bool | float) or value == int(value) else 0  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        pieces = 0
    if isinstance(value, bool) or not 1 <= pieces <= MOST_PIECES:
        raise Rejected(f"{where} is a whole number from 1 to {MOST_PIECES}", code="quantity", where=where)
    return pieces


# -- the forms ----------------------------------------------------------------------------------------------------


def _as_sent(properties: Properties, _shop: Shop) -> Properties:
    return properties


def _with_amount(properties: Properties, shop: Shop, field: str, *names: str) -> Properties:
    same_currency(properties, shop)
    minor = amount(properties, shop, *names)
    return {**properties, field: minor} if minor is not None else properties


def _product(properties: Properties, shop: Shop) -> Properties:
    product = identifier(properties.get("product_id"), "properties.product_id") or required(properties, "sku")
    same_currency(properties, shop)
    made = {**properties, "product_id": product}
    minor = amount(properties, shop, "price")
    if minor is not None:
        made["price_minor"] = minor
    return made


def _cart_line(properties: Properties, shop: Shop) -> Properties:
    pieces = quantity(properties.get("quantity"), "properties.quantity")
    return {**_product(properties, shop), "quantity": pieces}


def _search(properties: Properties, _shop: Shop) -> Properties:
    query = properties.get("query")
    if not isinstance(query, str):
        raise Rejected("properties.query is the text searched for", code="property_missing", where="properties.query")
    return properties


def _checkout(properties: Properties, shop: Shop) -> Properties:
    made = _with_amount(properties, shop, "value_minor", "value", "total", "revenue")
    checkout = identifier(properties.get("checkout_id"), "properties.checkout_id")
    return {**made, "checkout_id": checkout} if checkout else made


def _lines(properties: Properties, shop: Shop) -> list[Properties]:
    products = properties.get("products")
    if products is None:
        return []
    if not isinstance(products, list) or not all(isinstance(one, dict) for one in products):
        raise Rejected("properties.products is a list of objects", code="products", where="properties.products")
    return [_line(one, shop, f"properties.products[{index}]") for index, one in enumerate(products)]


def _line(product: Properties, shop: Shop, where: str) -> Properties:
    same_currency(product, shop, f"{where}.currency")
    try:
        minor = amount(product, shop, "price")
    except Rejected as error:
        raise Rejected(error.detail, code=error.code, where=f"{where}.price") from None
    made = {**product, "quantity": quantity(product.get("quantity"), f"{where}.quantity")}
    made.pop("current_quantity", None)  # the storefront's to say
    if made.get("discount_minor") is not None:
        made["discount_minor"] = _ready(made["discount_minor"], f"{where}.discount_minor")
    product_id = identifier(product.get("product_id", product.get("sku")), f"{where}.product_id")
    if product_id is not None:
        made["product_id"] = product_id
    if minor is not None:
        made["price_minor"] = minor
    return made


def _codes(properties: Properties) -> list[str]:
    """Every discount code once, in the order they were given."""
    given = properties.get("discount_codes")
    candidates = list(given) if isinstance(given, list) else []
    candidates += [properties.get("coupon"), *(line.get("coupon") for line in properties.get("products") or [])]
    found = (identifier(code, "properties.coupon") for code in candidates)
    return list(dict.fromkeys(code for code in found if code))


_SNAPSHOT = frozenset({
    "updated_at", "ordered_at", "cancelled_at", "paid", "test", "financial_status", "fulfillment_status",
    "presentment_currency",
})  # fmt: skip
"""What only the storefront itself can say of an order: a tracked one that says so must not outlast it."""


def _order(properties: Properties, shop: Shop) -> Properties:
    order = required(properties, "order_id")
    same_currency(properties, shop)
    lines = _lines(properties, shop)
    total = amount(properties, shop, "total", "revenue", "subtotal")
    if total is None:
        raise Rejected(
            "properties.total is missing: what the customer paid, after discounts",
            code="property_missing",
            where="properties.total",
        )
    pieces = sum(line["quantity"] for line in lines)
    return {
        **{name: value for name, value in properties.items() if name not in _SNAPSHOT},
        "order_id": order,
        "name": identifier(properties.get("name"), "properties.name"),
        "total_minor": total,
        "discount_minor": amount(properties, shop, "discount") or 0,
        "tax_minor": amount(properties, shop, "tax") or 0,
        "shipping_minor": amount(properties, shop, "shipping") or 0,
        "currency": shop.currency,
        "quantity": pieces or quantity(properties.get("quantity"), "properties.quantity"),
        "discount_codes": _codes(properties),
        "products": lines,
    }


def _refund(properties: Properties, shop: Shop) -> Properties:
    order = required(properties, "order_id")
    same_currency(properties, shop)
    refunded = amount(properties, shop, "amount", "total", "revenue")
    if refunded is None:
        raise Rejected(
            "properties.total is missing: what was paid back", code="property_missing", where="properties.total"
        )
    made = {**properties, "order_id": order, "amount_minor": refunded, "currency": shop.currency}
    refund = identifier(properties.get("refund_id"), "properties.refund_id")
    return {**made, "refund_id": refund} if refund else made


def _cancellation(properties: Properties, _shop: Shop) -> Properties:
    return {**properties, "order_id": required(properties, "order_id")}


def _consent(properties: Properties, _shop: Shop) -> Properties:
    state = properties.get("state")
    if state not in ("subscribed", "unsubscribed"):
        raise Rejected(
            "properties.state is 'subscribed' or 'unsubscribed'", code="consent_state", where="properties.state"
        )
    topic = identifier(properties.get("topic"), "properties.topic") or "marketing"
    return {**properties, "channel": required(properties, "channel"), "topic": topic, "state": state}


def _tags(properties: Properties, _shop: Shop) -> Properties:
    for name in ("added", "removed"):
        tags = properties.get(name, [])
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise Rejected(f"properties.{name} is a list of texts", code="tags", where=f"properties.{name}")
    return properties


TYPES: dict[str, Form] = {
    "customer.identified": _as_sent,  # {traits}
    "customer.aliased": _as_sent,
    "page.viewed": _as_sent,  # {url?, path?, title?, name?}
    "product.viewed": _product,  # {product_id, price_minor?, category?}
    "product.searched": _search,  # {query}
    "cart.added": _cart_line,  # {product_id, quantity, price_minor?, cart_id?}
    "cart.removed": _cart_line,
    "checkout.started": _checkout,  # {checkout_id?, value_minor?}
    "order.paid": _order,  # {order_id, total_minor, discount_minor, currency, quantity, discount_codes, products}
    "order.refunded": _refund,  # {order_id, refund_id?, amount_minor}
    "order.cancelled": _cancellation,  # {order_id}
    "email.delivered": _as_sent,  # {address, action_id?, provider_ref?, reason?, permanent?}: providers' webhooks only
    "email.opened": _as_sent,
    "email.clicked": _as_sent,
    "email.bounced": _as_sent,
    "email.dropped": _as_sent,
    "email.complained": _as_sent,
    "email.unsubscribed": _as_sent,
    "consent.changed": _consent,  # {channel, topic, state}
    # a storefront's own, by its signed webhooks and by sync only
    "order.created": _order,  # as order.paid, `paid` false or true
    "order.updated": _order,  # as order.paid with `paid` and `updated_at`: the newest stands
    "order.fulfilled": _cancellation,  # {order_id}
    "order.deleted": _cancellation,  # {order_id}
    "customer.deleted": _as_sent,
    "customer.tagged": _tags,  # {added: [...], removed: [...]}
    "storefront.changed": _as_sent,  # {tellings}: storefront.records
    "shop.changed": _as_sent,  # {name?, currency?, time_zone?, email?, domain?}
    "app.uninstalled": _as_sent,  # {vendor}
    "app.scopes_changed": _as_sent,  # {vendor, scopes}
    "privacy.requested": _as_sent,  # {kind: export | erase | erase_shop, subject, due_at}
    "webhook.kept": _as_sent,  # {topic, version, body}: nothing we read yet
    "custom": _as_sent,  # anything else, under the source's own `name`
}
"""Type -> the form of its properties."""

SIGNED_ONLY = frozenset(
    name
    for name in TYPES
    if name.startswith(("email.", "storefront.", "shop.", "app.", "privacy.", "webhook."))
    or name in ("order.created", "order.updated", "order.fulfilled", "order.deleted", "customer.deleted",
                "customer.tagged")
)  # fmt: skip
"""Types that nobody may claim with a tracking key."""

BY_TRACK_NAME: dict[str, str] = {
    "product viewed": "product.viewed",
    "products searched": "product.searched",
    "product added": "cart.added",
    "product removed": "cart.removed",
    "checkout started": "checkout.started",
    "order completed": "order.paid",
    "order refunded": "order.refunded",
    "order cancelled": "order.cancelled",
    "consent changed": "consent.changed",
    **{name: name for name in TYPES if name not in SIGNED_ONLY and name != "custom"},
}
"""Segment's names of e-commerce events, in lower case, and our own.

Not SIGNED_ONLY, what a provider says of a message or a storefront of itself: a tracking key stands in every visitor's
browser, and a bounce or complaint suppresses an address and settles an action. Tracked, they are custom events.
"""


def type_of(name: str) -> str:
    """The type of a tracked event's name; a name nobody knows is a custom event."""
    return BY_TRACK_NAME.get(name) or BY_TRACK_NAME.get(name.strip().lower(), "custom")
