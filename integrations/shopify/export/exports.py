"""Exports of one shop: Shopify's bulk operations as `storefront.protocol.Exports` wants them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from integrations.shopify.client import Shopify
from operation_agent.storefront.protocol import Export, Exported, SyncKind

from . import bulk, reader


class ShopifyExports:
    """`currency` is the shop's; whatever is told in another is refused. Thread-safe."""

    def __init__(self, client: Shopify, currency: str):
        self._client, self._currency = client, currency
        # a fake or a proxy at a private address may be spoken to without TLS; its files come from there too
        self._secure = client.access.base_url.startswith("https:")

    def start_export(self, kind: SyncKind, *, since: datetime | None) -> Export:
        return bulk.start_export(self._client, kind, since=since)

    def check_export(self, kind: SyncKind, operation_id: str) -> Export:
        return bulk.check_export(self._client, kind, operation_id)

    def cancel_export(self, operation_id: str) -> None:
        bulk.cancel_export(self._client, operation_id)

    def read_export(self, kind: SyncKind, url: str, *, offset: int, received_at: datetime) -> Iterator[Exported]:
        return reader.read_export(
            kind, url, offset=offset, received_at=received_at, currency=self._currency, secure=self._secure
        )
