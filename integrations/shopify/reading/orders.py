"""Orders and refunds. Amounts are the shop's money; what the buyer was shown is only noted."""

from __future__ import annotations

from datetime import datetime

from integrations.shopify import facts
from integrations.shopify.facts import PAID, Line, Order, Refund
from operation_agent.events.event import Event
from operation_agent.kit.errors import Rejected

from . import customers
from .fields import (
    LONGEST_ID,
    Body,
    flag,
    identifier,
    instant,
    mixed_currency,
    money,
    objects,
    optional_identifier,
    optional_instant,
    optional_money,
    optional_whole,
    positive,
    text,
    token,
    whole,
)
from .telling import Webhook

_MOST_PIECES = 2**31 - 1


def created(body: Body, webhook: Webhook) -> list[Event]:
    """The oldest snapshot: of an order that is not paid there is nothing more to say than that it was made."""
    found = order(body, webhook.currency)
    return webhook.order_events(found, is_update=found.paid)


def changed(body: Body, webhook: Webhook) -> list[Event]:
    return webhook.order_events(order(body, webhook.currency), is_update=True)


def deleted(body: Body, webhook: Webhook) -> list[Event]:
    gone = deleted_id(body)
    return [webhook.event(f"order.deleted:{gone}", "order.deleted", webhook.at, {"order_id": gone})]


def refunded(body: Body, webhook: Webhook) -> list[Event]:
    """None when goods came back and no money went."""
    found = refund(body, webhook.currency)
    if found.amount_minor == 0:
        return []
    return [facts.refund_event(found, webhook.currency, received_at=webhook.received_at, delivery=webhook.delivery)]


def deleted_id(body: Body) -> str:
    """The id in a deletion. The topic is not signed: whatever else is said must not pass for a deletion."""
    for name in ("created_at", "updated_at", "line_items", "variants"):
        if body.get(name) is not None:
            raise Rejected(f"this tells of something that exists: `{name}` is there", code="not_deleted", where=name)
    return identifier(body, "id")


def order(body: Body, currency: str) -> Order:
    """The order that `body` describes. Raises Rejected, naming the field."""
    said = body.get("currency")
    if said is not None and said != currency:
        raise mixed_currency(said, currency, "currency")
    order_id = identifier(body, "id")
    status, shipped = text(body, "financial_status"), text(body, "fulfillment_status")
    is_test = flag(body, "test")
    created_at = optional_instant(body, "created_at")
    ordered_at = instant(body, "processed_at", "created_at")
    return Order(
        order_id=order_id,
        updated_at=optional_instant(body, "updated_at") or created_at or ordered_at,
        ordered_at=ordered_at,
        created_at=created_at,
        total_minor=_total(body, currency),
        discount_minor=_amount(body, "total_discounts", currency),
        tax_minor=_amount(body, "total_tax", currency),
        shipping_minor=_amount(body, "total_shipping_price", currency),
        currency=currency,
        presentment_currency=_presentment(body),
        paid=status in PAID and not is_test,
        customer=customers.of_order(body),
        name=text(body, "name"),
        financial_status=status,
        fulfillment_status=shipped,
        test=is_test,
        cancelled_at=optional_instant(body, "cancelled_at"),
        fulfilled_at=_fulfilled_at(body) if shipped == "fulfilled" else None,
        cart_token=token(body, "cart_token"),
        checkout_token=token(body, "checkout_token"),
        source_name=text(body, "source_name"),
        discount_codes=_codes(body),
        lines=_lines(body, currency),
        refunds=[refund(one, currency, order_id) for one in objects(body, "refunds")],
    )


def refund(body: Body, currency: str, order_id: str | None = None) -> Refund:
    return Refund(
        refund_id=identifier(body, "id"),
        order_id=order_id or identifier(body, "order_id"),
        amount_minor=_refund_amount(body, currency),
        refunded_at=instant(body, "processed_at", "created_at"),
    )


def _refund_amount(body: Body, currency: str) -> int:
    """What went back to the buyer: the successful refund transactions. Those in the buyer's currency are told by the
    returned lines, their taxes and the adjustments, which carry the shop's money as well. A test moves nothing."""
    amounts = [
        (one, positive(money(one, "amount", currency), "transactions.amount")) for one in objects(body, "transactions")
    ]
    moved = [
        (one, amount)
        for one, amount in amounts
        if one.get("kind") == "refund" and one.get("status", "success") == "success"
    ]
    if any(flag(one, "test") for one, _ in moved):
        return 0
    if all(one.get("currency") == currency for one, _ in moved):
        return sum(amount for _, amount in moved)
    lines = objects(body, "refund_line_items")
    returned = sum(money(line, "subtotal", currency) + money(line, "total_tax", currency) for line in lines)
    # an adjustment is negative when more went back than the lines say
    adjusted = sum(
        money(one, "amount", currency) + money(one, "tax_amount", currency)
        for one in objects(body, "order_adjustments")
    )
    return max(0, returned - adjusted)


def _total(body: Body, currency: str) -> int:
    found = optional_money(body, "total_price", currency)
    if found is None:
        raise Rejected("`total_price` is missing", code="field_missing", where="total_price")
    return positive(found, "total_price")


def _amount(body: Body, name: str, currency: str) -> int:
    return positive(money(body, name, currency), name)


def _presentment(body: Body) -> str | None:
    said = text(body, "presentment_currency")
    return said if said is not None and len(said) == 3 and said.isascii() and said.isupper() else None


def _fulfilled_at(body: Body) -> datetime | None:
    """When the last of its parcels that were not called back was made."""
    made = [
        at
        for one in objects(body, "fulfillments")
        if one.get("status") not in ("cancelled", "error", "failure") and (at := optional_instant(one, "created_at"))
    ]
    return max(made, default=None) or optional_instant(body, "updated_at")


def _codes(body: Body) -> tuple[str, ...]:
    codes = (one.get("code") for one in objects(body, "discount_codes"))
    return tuple(dict.fromkeys(code[:LONGEST_ID] for code in codes if isinstance(code, str) and code))


def _lines(body: Body, currency: str) -> list[Line]:
    found: dict[str, Line] = {}
    for index, line in enumerate(objects(body, "line_items")):
        line_id = optional_identifier(line, "id") or str(index)
        if line_id in found:
            line_id = f"{line_id}#{index}"
        found[line_id] = _line(line, line_id, currency)
    if sum(line.quantity for line in found.values()) > _MOST_PIECES:
        raise Rejected(f"an order has at most {_MOST_PIECES} pieces", code="quantity", where="line_items")
    return list(found.values())


def _line(line: Body, line_id: str, currency: str) -> Line:
    """`product_id` is None for a product that was deleted since, or never was one."""
    allocated = objects(line, "discount_allocations")
    return Line(
        line_id=line_id,
        quantity=whole(line, "quantity"),
        product_id=optional_identifier(line, "product_id"),
        variant_id=optional_identifier(line, "variant_id"),
        sku=text(line, "sku"),
        title=text(line, "title"),
        current_quantity=optional_whole(line, "current_quantity"),
        price_minor=_amount(line, "price", currency),
        discount_minor=sum(_amount(one, "amount", currency) for one in allocated),
    )
