"""Carts and checkouts: what somebody is about to buy. A cart belongs to `anonymous: cart:<token>` until its buyer is
known; who that is, a checkout or the order says, and then they are one customer."""

from __future__ import annotations

from typing import Any

from integrations.shopify import facts
from integrations.shopify.facts import Customer
from operation_agent.events.event import Event
from operation_agent.storefront.records import Record

from . import customers, keeping
from .fields import (
    Body,
    identifier,
    instant,
    mixed_currency,
    money,
    objects,
    optional_identifier,
    optional_instant,
    optional_money,
    positive,
    text,
    token,
    whole,
)
from .telling import Webhook

LONGEST_ADDRESS = 2_000


def cart_changed(body: Body, webhook: Webhook) -> list[Event]:
    """The cart as it is now, and each line of it as a thing once put there."""
    name = token(body, "token") or identifier(body, "id")
    at = instant(body, "updated_at", "created_at")
    lines = [_line(one, webhook.currency) for one in objects(body, "line_items")]
    values = {"value_minor": _value(lines), "quantity": sum(line["quantity"] for line in lines), "lines": lines}
    events = [webhook.changed(Record("cart", (name,), at, values))]
    for line in {line["line_id"]: line for line in lines if line["product_id"] and line["quantity"]}.values():
        told = {"cart_id": name, **{one: line[one] for one in _ADDED}}
        source_id = f"cart.added:{name}:{line['line_id']}"
        events.append(webhook.event(source_id, "cart.added", at, told, {"anonymous": f"cart:{name}"}))
    return events


_ADDED = ("product_id", "variant_id", "sku", "title", "quantity", "price_minor")


def checkout_changed(body: Body, webhook: Webhook) -> list[Event]:
    said = body.get("currency")
    if said is not None and said != webhook.currency:
        raise mixed_currency(said, webhook.currency, "currency")
    name = identifier(body, "token")
    cart, buyer = token(body, "cart_token"), customers.of_order(body)
    started_at = instant(body, "created_at", "updated_at")
    updated_at = optional_instant(body, "updated_at") or started_at
    lines = [_line(one, webhook.currency) for one in objects(body, "line_items")]
    total = optional_money(body, "total_price", webhook.currency)
    value = _value(lines) if total is None else positive(total, "total_price")
    values = {
        "cart_token": cart, "source_customer_id": buyer.customer_id if buyer else None, "value_minor": value,
        "quantity": sum(line["quantity"] for line in lines), "lines": lines, "recovery_url": _recovery(body),
        "started_at": started_at, "completed_at": optional_instant(body, "completed_at"),
    }  # fmt: skip
    anonymous = {"anonymous": f"cart:{cart}"} if cart else {}
    told = {"checkout_id": name, "cart_token": cart, "value_minor": value, "currency": webhook.currency}
    started = webhook.event(f"checkout.started:{name}", "checkout.started", started_at, told, _buyer(buyer) | anonymous)
    events = [webhook.changed(Record("checkout", (name,), updated_at, values)), started]
    if buyer is not None:
        # most checkouts begin before their buyer is known, and `checkout.started` is told once
        source_id = f"checkout.identified:{name}:{buyer.customer_id}"
        events.append(
            webhook.event(source_id, "customer.identified", started_at, {"traits": {}}, _buyer(buyer) | anonymous)
        )
    return events


def checkout_deleted(body: Body, webhook: Webhook) -> list[Event]:
    """Shopify names a deleted checkout by another id than its token as a rule: then it is kept unread."""
    name = token(body, "token")
    if name is None:
        return keeping.keep(body, webhook)
    return [webhook.changed(Record("checkout", (name,), webhook.at, deleted=True))]


def _buyer(buyer: Customer | None) -> dict[str, str]:
    return facts.customer_identity(buyer) if buyer else {}


def _recovery(body: Body) -> str | None:
    url = body.get("abandoned_checkout_url")
    return url if isinstance(url, str) and url.startswith("https://") and len(url) <= LONGEST_ADDRESS else None


def _value(lines: list[dict[str, Any]]) -> int:
    return sum(line["total_minor"] for line in lines)


def _line(line: Body, currency: str) -> dict[str, Any]:
    quantity = whole(line, "quantity")
    price = positive(money(line, "price", currency), "price")
    total = optional_money(line, "line_price", currency)
    return {
        "line_id": text(line, "key")
        or optional_identifier(line, "id")
        or optional_identifier(line, "variant_id")
        or "",
        "product_id": optional_identifier(line, "product_id"),
        "variant_id": optional_identifier(line, "variant_id"),
        "sku": text(line, "sku"),
        "title": text(line, "title"),
        "quantity": quantity,
        "price_minor": price,
        "total_minor": price * quantity if total is None else positive(total, "line_price"),
    }
