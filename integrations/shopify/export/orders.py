"""Orders as a bulk query gives them: the same facts as by webhook, so that either tells of the same events."""

from __future__ import annotations

from datetime import datetime

from integrations.shopify import facts
from integrations.shopify.facts import PAID, Customer, Line, Order, Refund
from integrations.shopify.reading import fields
from operation_agent.kit.errors import Rejected
from operation_agent.storefront.protocol import Exported
from operation_agent.storefront.records import Record

from . import nodes
from .nodes import Node
from .objects import Piece

_FULFILLMENT = {"FULFILLED": "fulfilled", "PARTIALLY_FULFILLED": "partial", "RESTOCKED": "restocked"}
"""REST's words; every other state is none there: nothing was fulfilled yet."""
_SHIPMENT = frozenset({
    "attempted_delivery", "confirmed", "delivered", "failure", "in_transit", "label_printed", "label_purchased",
    "out_for_delivery", "ready_for_pickup",
})  # fmt: skip
_MOST_PIECES = 2**31 - 1
_CALLED_BACK = frozenset({"CANCELLED", "ERROR", "FAILURE"})


def exported(piece: Piece, currency: str, received_at: datetime) -> Exported:
    """Its events, and its parcels. Raises Rejected."""
    if not (piece.is_first and piece.is_last):
        raise Rejected("an order with more lines than an order can have")
    found = order(piece.node, piece.children, currency)
    return Exported(
        key=found.order_id,
        updated_at=found.updated_at,
        end=piece.end,
        events=facts.order_events(found, received_at=received_at, is_update=True),
        tellings=[_parcel(one, found.order_id) for one in fields.objects(piece.node, "fulfillments")],
    )


def order(node: Node, lines: list[Node], currency: str) -> Order:
    said = node.get("currencyCode")
    if said != currency:
        raise fields.mixed_currency(said, currency, "currencyCode")
    order_id = nodes.number_of(node, "Order")
    status, is_test = nodes.word(node, "displayFinancialStatus"), fields.flag(node, "test")
    shipped = _FULFILLMENT.get(str(node.get("displayFulfillmentStatus")))
    updated_at = fields.instant(node, "updatedAt")
    return Order(
        order_id=order_id,
        updated_at=updated_at,
        ordered_at=fields.instant(node, "processedAt", "createdAt"),
        created_at=fields.optional_instant(node, "createdAt"),
        total_minor=_total(node, currency),
        discount_minor=nodes.money(node, "totalDiscountsSet", currency),
        tax_minor=nodes.money(node, "totalTaxSet", currency),
        shipping_minor=nodes.money(node, "totalShippingPriceSet", currency),
        currency=currency,
        presentment_currency=fields.text(node, "presentmentCurrencyCode"),
        paid=status in PAID and not is_test,
        customer=_customer(node),
        name=fields.text(node, "name"),
        financial_status=status,
        fulfillment_status=shipped,
        test=is_test,
        cancelled_at=fields.optional_instant(node, "cancelledAt"),
        fulfilled_at=_fulfilled_at(node, updated_at) if shipped == "fulfilled" else None,
        cart_token=fields.token(node, "cartToken"),
        checkout_token=fields.token(node, "checkoutToken"),
        source_name=fields.text(node, "sourceName"),
        discount_codes=_codes(node),
        lines=_lines(lines, currency),
        refunds=[_refund(one, order_id, currency) for one in fields.objects(node, "refunds")],
    )


def _total(node: Node, currency: str) -> int:
    if node.get("totalPriceSet") is None:
        raise Rejected("`totalPriceSet` is missing", code="field_missing", where="totalPriceSet")
    return nodes.money(node, "totalPriceSet", currency)


def _customer(node: Node) -> Customer | None:
    found = fields.optional_object(node, "customer")
    if found is None:
        return None
    email = fields.optional_object(found, "defaultEmailAddress") or {}
    phone = fields.optional_object(found, "defaultPhoneNumber") or {}
    return Customer(
        nodes.number_of(found, "Customer"),
        email=fields.email(email.get("emailAddress")),
        phone=fields.phone(phone.get("phoneNumber")),
    )


def _codes(node: Node) -> tuple[str, ...]:
    listed = node.get("discountCodes") or []
    if not isinstance(listed, list):
        raise Rejected("`discountCodes` is a list of texts", code="field_type", where="discountCodes")
    return tuple(dict.fromkeys(code[: fields.LONGEST_ID] for code in listed if isinstance(code, str) and code))


def _lines(nodes_: list[Node], currency: str) -> list[Line]:
    found = [_line(one, currency) for one in nodes_]
    if sum(line.quantity for line in found) > _MOST_PIECES:
        raise Rejected(f"an order has at most {_MOST_PIECES} pieces", code="quantity", where="lineItems")
    return found


def _line(node: Node, currency: str) -> Line:
    """`product_id` is None for a product that was deleted since, or never was one."""
    allocated = fields.objects(node, "discountAllocations")
    return Line(
        line_id=nodes.number_of(node, "LineItem"),
        quantity=fields.whole(node, "quantity"),
        product_id=nodes.of_nested(node, "product", "Product"),
        variant_id=nodes.of_nested(node, "variant", "ProductVariant"),
        sku=fields.text(node, "sku"),
        title=fields.text(node, "title"),
        current_quantity=fields.optional_whole(node, "currentQuantity"),
        price_minor=nodes.money(node, "originalUnitPriceSet", currency),
        discount_minor=sum(nodes.money(one, "allocatedAmountSet", currency) for one in allocated),
    )


def _refund(node: Node, order_id: str, currency: str) -> Refund:
    return Refund(
        refund_id=nodes.number_of(node, "Refund"),
        order_id=order_id,
        amount_minor=nodes.money(node, "totalRefundedSet", currency),
        refunded_at=fields.instant(node, "processedAt"),
    )


def _fulfilled_at(node: Node, updated_at: datetime) -> datetime:
    """When the last of its parcels that were not called back was made."""
    made = [
        at
        for one in fields.objects(node, "fulfillments")
        if one.get("status") not in _CALLED_BACK and (at := fields.optional_instant(one, "createdAt"))
    ]
    return max(made, default=None) or updated_at


def _parcel(node: Node, order_id: str) -> Record:
    tracked = fields.objects(node, "trackingInfo")
    shipment = nodes.word(node, "displayStatus")
    values = {
        "source_order_id": order_id,
        "status": nodes.word(node, "status"),
        "shipment_status": shipment if shipment in _SHIPMENT else None,
        "tracking_company": next((company for one in tracked if (company := fields.text(one, "company"))), None),
        "tracking_numbers": [number for one in tracked if (number := fields.text(one, "number"))],
    }
    at = fields.instant(node, "updatedAt", "createdAt")
    return Record("fulfillment", (nodes.number_of(node, "Fulfillment"),), at, values)
