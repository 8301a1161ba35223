"""Draft orders: made, their invoice sent if asked for, deleted as the undo unless they became an order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID

from integrations.shopify.client import Shopify
from integrations.shopify.errors import UserErrors
from operation_agent.kit.errors import NotFound

from .creations import Creation
from .ids import gid, number_of
from .values import Parameters, Values


def mark_of(key: str) -> str:
    """The tag by which a draft order is known as this change's; tags have at most 40 characters."""
    return f"opagent-{UUID(key).hex}"


class DraftOrders(Creation):
    newest: ClassVar[str] = "draft_order_newest"
    listed: ClassVar[str] = "draftOrders"
    why_no_undo: ClassVar[str | None] = "an invoice that was sent by e-mail cannot be taken back; the draft order can"

    def describe(self, shop: Shopify, parameters: Parameters) -> tuple[Values, list[str]]:
        variants = [line["variant_id"] for line in parameters["lines"] if line["variant_id"]]
        found = {number_of(node["id"]): node for node in self._variants(shop, variants)}
        missing = [one for one in variants if one not in found]
        if missing:
            raise NotFound(f"there is no variant {missing[0]}", where="lines")
        lines = [_described(line, found.get(line["variant_id"])) for line in parameters["lines"]]
        return {**{name: value for name, value in parameters.items() if value}, "lines": lines}, []

    def _variants(self, shop: Shopify, variants: list[str]) -> list[Mapping[str, Any]]:
        if not variants:
            return []
        ids = [gid("ProductVariant", one) for one in dict.fromkeys(variants)]
        return [node for node in shop.query("variant_offers", {"ids": ids})["nodes"] if node]

    def is_marked(self, node: Mapping[str, Any], key: str) -> bool:
        return mark_of(key) in node["tags"]

    def create(self, shop: Shopify, parameters: Parameters, key: str) -> str:
        currency = shop.query("shop_currency")["shop"]["currencyCode"]
        given = {**_input(parameters, currency), "tags": [*parameters["tags"], mark_of(key)]}
        return str(shop.mutate("draft_order_create", {"input": given})["draftOrder"]["id"])

    def finish(self, shop: Shopify, parameters: Parameters, found: str) -> list[str]:
        invoice = parameters.get("invoice")
        if invoice is None or self.is_finished(shop, parameters, found):
            return []
        email = {"subject": invoice["subject"], "customMessage": invoice["message"], "to": parameters["email"]}
        given = {name: value for name, value in email.items() if value}
        try:
            shop.mutate("draft_order_invoice_send", {"id": found, "email": given or None})
        except UserErrors as error:
            return [f"the draft order stands, but its invoice was refused: {error.detail}"]
        return []

    def is_finished(self, shop: Shopify, parameters: Parameters, found: str) -> bool:
        if parameters.get("invoice") is None:
            return True
        draft = shop.query("draft_order", {"id": found})["draftOrder"]
        return draft is None or draft["invoiceSentAt"] is not None or draft["status"] != "OPEN"

    def look(self, shop: Shopify, found: str) -> Values | None:
        draft = shop.query("draft_order", {"id": found})["draftOrder"]
        return _told(draft) if draft is not None else None

    def is_same(self, now: Values, made: Values) -> bool:
        own = {"status", "invoice_sent_at"}  # a customer who looks at the invoice changes nothing
        return {name: now[name] for name in now if name not in own} == {
            name: made[name] for name in made if name not in own
        }

    def why_it_stays(self, now: Values) -> str | None:
        if now["order_id"] is None and now["status"] != "completed":
            return None
        return f"it became order {now['order_id']}, and stays"

    def delete(self, shop: Shopify, found: str) -> None:
        shop.mutate("draft_order_delete", {"input": {"id": found}})


def _described(line: Mapping[str, Any], variant: Mapping[str, Any] | None) -> dict[str, Any]:
    told = {name: value for name, value in line.items() if value is not None}
    return told | ({"price": variant["price"]} if variant is not None else {})


def _input(parameters: Parameters, currency: str) -> dict[str, Any]:
    discount = parameters["discount"]
    given = {
        "purchasingEntity": _customer(parameters["customer_id"]), "email": parameters["email"],
        "note": parameters["note"], "appliedDiscount": _discount(discount) if discount is not None else None,
    }  # fmt: skip
    lines = [_line(line, currency) for line in parameters["lines"]]
    return {**{name: value for name, value in given.items() if value is not None}, "lineItems": lines}


def _customer(number: str | None) -> dict[str, str] | None:
    return {"customerId": gid("Customer", number)} if number else None


def _discount(discount: Mapping[str, Any]) -> dict[str, Any]:
    kind = {"percentage": "PERCENTAGE", "amount": "FIXED_AMOUNT"}[discount["kind"]]
    return {"title": discount["title"], "value": float(discount["value"]), "valueType": kind}


def _line(line: Mapping[str, Any], currency: str) -> dict[str, Any]:
    if line["variant_id"]:
        return {"variantId": gid("ProductVariant", line["variant_id"]), "quantity": line["quantity"]}
    price = {"amount": line["price"], "currencyCode": currency}
    return {"title": line["title"], "quantity": line["quantity"], "originalUnitPriceWithCurrency": price}


def _told(draft: Mapping[str, Any]) -> Values:
    return {
        "status": draft["status"].lower(),
        "invoice_sent_at": draft["invoiceSentAt"],
        "order_id": number_of(draft["order"]["id"]) if draft["order"] else None,
        "customer_id": number_of(draft["customer"]["id"]) if draft["customer"] else None,
        "note": draft["note2"],
        "tags": sorted(draft["tags"]),
        "discount": dict(draft["appliedDiscount"]) if draft["appliedDiscount"] else None,
        "lines": [_line_of(line) for line in draft["lineItems"]["nodes"]],
    }


def _line_of(line: Mapping[str, Any]) -> dict[str, Any]:
    variant = number_of(line["variant"]["id"]) if line["variant"] else None
    return {"variant_id": variant, "title": line["title"], "quantity": line["quantity"]}
