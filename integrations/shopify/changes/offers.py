"""How a product's variants are sold: their prices, and whether they go on being sold when there are none left.

One call for all variants of a product, all or none (allowPartialUpdates: false).
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from integrations.shopify.client import Shopify
from operation_agent.kit.errors import NotFound, Rejected
from operation_agent.kit.money import minor_digits

from .ids import gid, number_of
from .values import Parameters, ValueChange, Values


def _variants(shop: Shopify, product: str, named: list[str] | None) -> dict[str, Mapping[str, Any]]:
    """The named variants of a product, or all of them. Raises NotFound for one that is not of it."""
    if named is None:
        return _all_variants(shop, product)
    nodes = shop.query("variant_offers", {"ids": [gid("ProductVariant", one) for one in named]})["nodes"]
    found = {
        number_of(node["id"]): node for node in nodes if node and number_of(node["product"]["id"]) == product
    }  # fmt: skip
    missing = [one for one in named if one not in found]
    if missing:
        raise NotFound(f"product {product} has no variant {missing[0]}", where="variants")
    return found


def _all_variants(shop: Shopify, product: str) -> dict[str, Mapping[str, Any]]:
    told = shop.query("product_offers", {"id": gid("Product", product)})
    if told["product"] is None:
        raise NotFound(f"there is no product {product}", where="product_id")
    variants = told["product"]["variants"]
    if variants["pageInfo"]["hasNextPage"]:
        raise Rejected("the product has more than 250 variants: name those that are to change", where="variants")
    return {number_of(node["id"]): {**node, "currency": told["shop"]["currencyCode"]} for node in variants["nodes"]}


def _write(shop: Shopify, product: str, variants: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
    given = {"productId": gid("Product", product), "variants": variants}
    return shop.mutate("product_variants_bulk_update", given)["productVariants"] or []


class Prices(ValueChange):
    """Values: variant -> {price, compare_at, cost}, decimal text in the shop's currency."""

    def read(self, shop: Shopify, parameters: Parameters) -> Values:
        given = parameters.get("variants")
        named = [one["variant_id"] for one in given] if given is not None else None
        found = _variants(shop, parameters["product_id"], named)
        return {variant: _offer(node) for variant, node in found.items()}

    def target(self, parameters: Parameters, before: Values) -> Values:
        if parameters.get("variants") is not None:
            return {one["variant_id"]: _wanted(one, before[one["variant_id"]]) for one in parameters["variants"]}
        factor = 1 + Decimal(str(parameters["percent"])) / 100
        return {
            variant: {"price": _rounded(Decimal(offer["price"]) * factor, offer["currency"]),
                      "compare_at": offer["compare_at"]}
            for variant, offer in before.items()
        }  # fmt: skip

    def equal(self, name: str, one: Any, other: Any) -> bool:
        return all(_amount(one[field]) == _amount(other[field]) for field in ("price", "compare_at"))

    def write(self, shop: Shopify, parameters: Parameters, now: Values, to: Values) -> Values:
        variants = [
            {"id": gid("ProductVariant", variant), "price": offer["price"], "compareAtPrice": offer["compare_at"]}
            for variant, offer in to.items()
            if not self.equal(variant, now[variant], offer)
        ]
        told = _write(shop, parameters["product_id"], variants)
        return {number_of(node["id"]): {"price": node["price"], "compare_at": node["compareAtPrice"]} for node in told}

    def warnings(self, parameters: Parameters, before: Values, after: Values) -> list[str]:
        return [
            f"variant {variant}: compare_at {offer['compare_at']} is not above the price {offer['price']}"
            for variant, offer in after.items()
            if offer["compare_at"] is not None and Decimal(offer["compare_at"]) <= Decimal(offer["price"])
        ]


def _offer(node: Mapping[str, Any]) -> dict[str, Any]:
    cost = (node.get("inventoryItem") or {}).get("unitCost")
    offer = {
        "price": node["price"], "compare_at": node["compareAtPrice"], "cost": cost["amount"] if cost else None,
    }  # fmt: skip
    return offer | ({"currency": node["currency"]} if "currency" in node else {})


def _wanted(one: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    return {"price": one["price"], "compare_at": one.get("compare_at", before["compare_at"])}


def _rounded(amount: Decimal, currency: str) -> str:
    return str(amount.quantize(Decimal(1).scaleb(-minor_digits(currency)), ROUND_HALF_UP))


def _amount(written: str | None) -> Decimal | None:
    return Decimal(written) if written is not None else None


class InventoryPolicy(ValueChange):
    """Values: variant -> "deny" or "continue"."""

    def read(self, shop: Shopify, parameters: Parameters) -> Values:
        found = _variants(shop, parameters["product_id"], parameters.get("variant_ids"))
        return {variant: node["inventoryPolicy"].lower() for variant, node in found.items()}

    def target(self, parameters: Parameters, before: Values) -> Values:
        return dict.fromkeys(before, parameters["policy"])

    def write(self, shop: Shopify, parameters: Parameters, now: Values, to: Values) -> Values:
        variants = [
            {"id": gid("ProductVariant", variant), "inventoryPolicy": policy.upper()}
            for variant, policy in to.items()
            if now.get(variant) != policy
        ]
        told = _write(shop, parameters["product_id"], variants)
        return {number_of(node["id"]): node["inventoryPolicy"].lower() for node in told}
