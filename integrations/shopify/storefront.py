"""A Shopify shop as `operation_agent.storefront.protocol.Storefront`: what it tells, and what can be changed at it."""

from __future__ import annotations

from .changes.storefront import ShopifyChanges
from .client import Shopify
from .export.exports import ShopifyExports


class ShopifyStorefront(ShopifyExports):
    """One shop's connection, for as long as its client. `currency` is the shop's."""

    vendor = "shopify"

    def __init__(self, client: Shopify, currency: str):
        super().__init__(client, currency)
        self._changes = ShopifyChanges(client)

    def changes(self) -> ShopifyChanges:
        return self._changes

    def close(self) -> None:
        self._client.close()
