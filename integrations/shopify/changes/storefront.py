"""All changes that we can make at a Shopify shop: `operation_agent.storefront.protocol.Changes`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from integrations.shopify.client import Shopify
from integrations.shopify.errors import UserErrors
from operation_agent.kit.errors import Rejected
from operation_agent.storefront.protocol import Applied, Preview

from . import metafields as fields
from .banner import Banner
from .collections import Members, Order
from .consent import Consent
from .draft_orders import DraftOrders
from .metafields import Metafields
from .new_content import NewCollection, NewPage, PageRemoval
from .offers import InventoryPolicy, Prices
from .publications import Publishing
from .tags import Tags
from .texts import CatalogueText, PageText
from .values import Parameters, Values


class Change(Protocol):
    """One kind of change: `values.ValueChange`, `creations.Creation`, or one of its own."""

    def preview(self, shop: Shopify, parameters: Parameters) -> Preview: ...

    def apply(self, shop: Shopify, parameters: Parameters, before: Values, *, key: str) -> Applied: ...

    def is_applied(self, shop: Shopify, parameters: Parameters, before: Values, *, key: str) -> Applied | None: ...

    def undo(self, shop: Shopify, undo: Mapping[str, Any], *, key: str, force: bool) -> Values: ...


CHANGES: dict[str, Change] = {
    "customer.tags": Tags("Customer", "customer_id"),
    "order.tags": Tags("Order", "order_id"),
    "product.tags": Tags("Product", "product_id"),
    "customer.metafields": Metafields("Customer", "customer_id", fields.given),
    "order.metafields": Metafields("Order", "order_id", fields.given),
    "product.metafields": Metafields("Product", "product_id", fields.given),
    "customer.recommendations": Metafields("Customer", "customer_id", fields.recommendations),
    "customer.vip": Metafields("Customer", "customer_id", fields.vip),
    "customer.agent": Metafields("Customer", "customer_id", fields.agent),
    "customer.consent": Consent(),
    "draft_order.create": DraftOrders(),
    "product.text": CatalogueText("Product", "product_text", "product_update", "product"),
    "product.price": Prices(),
    "product.inventory_policy": InventoryPolicy(),
    "collection.create": NewCollection(),
    "collection.update": CatalogueText("Collection", "collection_text", "collection_update", "collection"),
    "collection.products": Members(),
    "collection.order": Order(),
    "page.create": NewPage(),
    "page.update": PageText(),
    "page.delete": PageRemoval(),
    "home.banner": Banner(),
    "publication.set": Publishing(),
}


class ShopifyChanges:
    """The changes of one shop. Keeps nothing itself; as thread-safe as its client."""

    def __init__(self, shop: Shopify):
        self._shop = shop

    def kinds(self) -> Sequence[str]:
        return tuple(CHANGES)

    def preview(self, kind: str, parameters: Mapping[str, Any]) -> Preview:
        with _told():
            return _change(kind).preview(self._shop, parameters)

    def apply(self, kind: str, parameters: Mapping[str, Any], before: Mapping[str, Any], *, key: str) -> Applied:
        with _told():
            return _change(kind).apply(self._shop, parameters, dict(before), key=key)

    def is_applied(
        self, kind: str, parameters: Mapping[str, Any], before: Mapping[str, Any], *, key: str
    ) -> Applied | None:
        with _told():
            return _change(kind).is_applied(self._shop, parameters, dict(before), key=key)

    def undo(self, kind: str, undo: Mapping[str, Any], *, key: str, force: bool = False) -> Mapping[str, Any]:
        with _told():
            return _change(kind).undo(self._shop, undo, key=key, force=force)


def _change(kind: str) -> Change:
    try:
        return CHANGES[kind]
    except KeyError:
        raise Rejected(f"Shopify has no change {kind[:60]!r}", code="kind", where="kind") from None


@contextmanager
def _told() -> Iterator[None]:
    """What Shopify said of each field, in a form that outlives the call."""
    try:
        yield
    except UserErrors as error:
        errors = [{"field": list(one.field), "code": one.code, "message": one.message} for one in error.errors]
        raise Rejected(error.detail, code=error.code, where=error.where, errors=errors) from None
