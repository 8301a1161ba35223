"""Shopify's webhooks: signature and reading.

HMAC-SHA256 over the raw body with the app's client secret, base64. The headers are not signed, so nothing but the
body decides what an event is: a fact's own id makes its source id, and a repeated delivery is the same event.
Amounts are taken in the shop's money, never in what the buyer was shown; ids are text.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from operation_agent.events.event import Event
from operation_agent.kit.errors import Rejected
from operation_agent.kit.ids import new_id
from operation_agent.kit.money import to_minor

SOURCE = "shopify"
SIGNATURE_HEADER = "X-Shopify-Hmac-Sha256"
TOPIC_HEADER = "X-Shopify-Topic"

Body = dict[str, Any]


def verify(headers: Mapping[str, str], raw_body: bytes, secret: str) -> bool:
    """Whether this body was signed with `secret`. Without a secret nothing is ever accepted."""
    given = next((value for name, value in headers.items() if name.lower() == SIGNATURE_HEADER.lower()), "")
    if not secret or not given:
        return False
    wanted = base64.b64encode(hmac.new(secret.encode(), raw_body, hashlib.sha256).digest())
    return hmac.compare_digest(wanted, given.strip().encode())


def parse(topic: str, raw_body: bytes, *, currency: str, received_at: datetime) -> list[Event]:
    """The events of one delivery: none for a topic that is not ours, or an order that is not paid yet.

    `currency` is the shop's; `received_at` system time. Raises Rejected, naming the field, when the body is not what
    Shopify sends, or its money is of another currency.
    """
    reader = _READERS.get(topic.strip().lower())
    if reader is None:
        return []
    try:
        body = orjson.loads(raw_body)
    except orjson.JSONDecodeError as error:
        raise Rejected(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise Rejected("the body is an object")
    event = reader(body, currency, received_at)
    return [event] if event is not None else []


def _paid(body: Body, currency: str, received_at: datetime) -> Event | None:
    order_id = _id(body, "id")
    return Event(
        id=new_id(),
        source=SOURCE,
        source_id=f"order.paid:{order_id}",
        type="order.paid",
        occurred_at=_instant(body, "processed_at", "created_at"),
        received_at=received_at,
        identity=_identity(body),
        properties={
            "order_id": order_id,
            "total_minor": _money(body, "total_price", currency),
            "discount_minor": _money(body, "total_discounts", currency),
            "currency": currency,
            "quantity": max(1, sum(_whole(line.get("quantity")) for line in _objects(body, "line_items"))),
            "discount_codes": [str(one["code"]) for one in _objects(body, "discount_codes") if one.get("code")],
            "products": [_product(line, currency) for line in _objects(body, "line_items")],
        },
        context={"name": body["name"]} if isinstance(body.get("name"), str) else {},
    )


def _created(body: Body, currency: str, received_at: datetime) -> Event | None:
    """An order that was paid at once; otherwise orders/paid will come."""
    return _paid(body, currency, received_at) if body.get("financial_status") == "paid" else None


def _refunded(body: Body, currency: str, received_at: datetime) -> Event | None:
    refund_id, order_id = _id(body, "id"), _id(body, "order_id")
    amount = _refund_amount(body, currency)
    if amount == 0:  # goods came back, no money went
        return None
    return Event(
        id=new_id(),
        source=SOURCE,
        source_id=f"order.refunded:{refund_id}",
        type="order.refunded",
        occurred_at=_instant(body, "processed_at", "created_at"),
        received_at=received_at,
        identity={},
        properties={"order_id": order_id, "refund_id": refund_id, "amount_minor": amount, "currency": currency},
    )


def _refund_amount(body: Body, currency: str) -> int:
    """What went back to the buyer: the successful refund transactions. Those in the buyer's currency are told by the
    returned lines, their taxes and the adjustments, which carry the shop's money as well."""
    moved = [
        one
        for one in _objects(body, "transactions")
        if one.get("kind") == "refund" and one.get("status", "success") == "success"
    ]
    if all(one.get("currency") == currency for one in moved):
        return sum(to_minor(one.get("amount"), currency) for one in moved)
    lines = _objects(body, "refund_line_items")
    returned = sum(_money(line, "subtotal", currency) + _money(line, "total_tax", currency) for line in lines)
    # an adjustment is negative when more went back than the lines say
    adjusted = sum(
        _money(one, "amount", currency) + _money(one, "tax_amount", currency)
        for one in _objects(body, "order_adjustments")
    )
    return max(0, returned - adjusted)


def _cancelled(body: Body, _currency: str, received_at: datetime) -> Event | None:
    order_id = _id(body, "id")
    return Event(
        id=new_id(),
        source=SOURCE,
        source_id=f"order.cancelled:{order_id}",
        type="order.cancelled",
        occurred_at=_instant(body, "cancelled_at", "updated_at"),
        received_at=received_at,
        identity=_identity(body),
        properties={"order_id": order_id},
    )


_READERS: dict[str, Callable[[Body, str, datetime], Event | None]] = {
    "orders/paid": _paid,
    "orders/create": _created,
    "refunds/create": _refunded,
    "orders/cancelled": _cancelled,
}

TOPICS = tuple(_READERS)


# -- the pieces ---------------------------------------------------------------------------------------------------


def _id(body: Body, name: str) -> str:
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise Rejected(f"`{name}` is missing", where=name)
    return str(value)


def _instant(body: Body, *names: str) -> datetime:
    for name in names:
        written = body.get(name)
        if isinstance(written, str) and written:
            try:
                found = datetime.fromisoformat(written)
                return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
            except (ValueError, OverflowError):
                raise Rejected(f"`{name}` is not an ISO 8601 date", where=name) from None
    raise Rejected(f"`{names[0]}` is missing", where=names[0])


def _money(body: Body, name: str, currency: str) -> int:
    """`<name>_set.shop_money`, or the plain amount, which Shopify gives in the shop's currency."""
    both = body.get(f"{name}_set")
    if not isinstance(both, dict) or not isinstance(both.get("shop_money"), dict):
        return to_minor(body.get(name) or 0, currency)
    money = both["shop_money"]
    if money.get("currency_code") != currency:
        raise Rejected(
            f"the amount is in {money.get('currency_code')!r} and the shop's currency is {currency}",
            code="mixed_currency",
            where=f"{name}_set.shop_money",
        )
    return to_minor(money.get("amount"), currency)


def _objects(body: Body, name: str) -> list[Body]:
    listed = body.get(name)
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _product(line: Body, currency: str) -> Body:
    product: Body = {"quantity": _whole(line.get("quantity")), "price_minor": _money(line, "price", currency)}
    if line.get("product_id") is not None:
        product["product_id"] = str(line["product_id"])
    if line.get("sku"):
        product["sku"] = str(line["sku"])
    return product


def _identity(body: Body) -> dict[str, str]:
    """The customer's ids. An order without a customer is a guest's, whatever address stands on it."""
    customer = body.get("customer")
    if not isinstance(customer, dict) or customer.get("id") is None:
        return {}
    identity = {"shopify": str(customer["id"])}
    email, phone = customer.get("email"), customer.get("phone")
    if isinstance(email, str) and "@" in email:
        identity["email"] = email.strip().lower()
    if isinstance(phone, str) and (number := _e164(phone)):
        identity["phone"] = number
    return identity


def _e164(phone: str) -> str | None:
    import phonenumbers

    try:
        number = phonenumbers.parse(phone)
    except phonenumbers.NumberParseException:
        return None
    return (
        phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
        if phonenumbers.is_possible_number(number)
        else None
    )
