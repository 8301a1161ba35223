"""Lines of a bulk export as Shopify writes them; changes are of GraphQL's names."""

from __future__ import annotations

from typing import Any


def money(amount: str, currency: str = "USD") -> dict[str, Any]:
    return {"shopMoney": {"amount": amount, "currencyCode": currency}}


def order_node(number: int, **changes: Any) -> dict[str, Any]:
    """The line of a paid order as Shopify writes it; `changes` are of GraphQL's names."""
    return {
        "id": f"gid://shopify/Order/{number}", "name": f"#{number}", "test": False,
        "createdAt": "2026-03-01T10:00:00Z", "processedAt": "2026-03-01T10:00:00Z", "updatedAt": "2026-03-02T10:00:00Z",
        "cancelledAt": None, "currencyCode": "USD", "presentmentCurrencyCode": "USD", "displayFinancialStatus": "PAID",
        "displayFulfillmentStatus": "UNFULFILLED", "cartToken": None, "checkoutToken": None, "sourceName": "web",
        "discountCodes": [], "totalPriceSet": money("30.00"), "totalDiscountsSet": money("0.00"),
        "totalTaxSet": money("0.00"), "totalShippingPriceSet": money("0.00"),
        "customer": {"id": f"gid://shopify/Customer/{7000 + number % 5}", "defaultEmailAddress": None,
                     "defaultPhoneNumber": None},
        "refunds": [], "fulfillments": [], **changes,
    }  # fmt: skip


def line_node(order: int, number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"gid://shopify/LineItem/{number}", "title": "Tea", "sku": "T", "quantity": 2, "currentQuantity": 2,
        "product": {"id": "gid://shopify/Product/5"}, "variant": {"id": "gid://shopify/ProductVariant/6"},
        "originalUnitPriceSet": money("15.00"), "discountAllocations": [],
        "__parentId": f"gid://shopify/Order/{order}", **changes,
    }  # fmt: skip


def orders(count: int, first: int = 1, **changes: Any) -> list[dict[str, Any]]:
    """`count` orders, each with a line."""
    return [
        node
        for number in range(first, first + count)
        for node in (order_node(number, **changes), line_node(number, 10_000 + number))
    ]
