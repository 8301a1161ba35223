"""Products, variants, stock and collections."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from operation_agent.events.event import Event
from operation_agent.kit.errors import Rejected
from operation_agent.storefront.records import Complete, Record, Telling

from . import keeping
from .fields import (
    Body,
    global_id,
    identifier,
    objects,
    optional_identifier,
    optional_instant,
    optional_money,
    optional_object,
    optional_whole,
    positive,
    text,
    texts,
)
from .orders import deleted_id
from .telling import Webhook

FULL_VARIANTS = 100
"""Of so many a product's webhook tells everything; of the others only the ids, in `variant_gids`."""


def product_changed(body: Body, webhook: Webhook) -> list[Event]:
    product_id = identifier(body, "id")
    at = optional_instant(body, "updated_at") or webhook.at
    image = optional_object(body, "image") or {}
    values = {
        "title": text(body, "title"), "handle": text(body, "handle"), "vendor": text(body, "vendor"),
        "product_type": text(body, "product_type"), "status": _lower(body, "status"), "tags": texts(body, "tags"),
        "image_url": text(image, "src"), "published_at": optional_instant(body, "published_at"),
    }  # fmt: skip
    tellings: list[Telling] = [Record("product", (product_id,), at, values)]
    variants = [_variant(one, product_id, webhook.currency, at) for one in objects(body, "variants")]
    tellings += variants
    known = _variant_ids(body, variants)
    if known is not None:
        tellings.append(Complete("variant", ("product_id", product_id), [(one,) for one in known], at))
    return [webhook.changed(*tellings)]


def product_deleted(body: Body, webhook: Webhook) -> list[Event]:
    """Its variants are gone with it."""
    return [webhook.changed(Record("product", (deleted_id(body),), webhook.at, deleted=True))]


def variant_stocked(body: Body, webhook: Webhook) -> list[Event]:
    """In or out of stock: the variant's own `updated_at` does not move with its stock."""
    product_id = identifier(body, "product_id")
    found = _variant(body, product_id, webhook.currency, webhook.at)
    return [webhook.changed(Record("variant", found.key, max(found.updated_at, webhook.at), found.values))]


def level_changed(body: Body, webhook: Webhook) -> list[Event]:
    at = optional_instant(body, "updated_at") or webhook.at
    return [webhook.changed(Record("inventory_level", _level(body), at, {"available": _available(body)}))]


def level_disconnected(body: Body, webhook: Webhook) -> list[Event]:
    return [webhook.changed(Record("inventory_level", _level(body), webhook.at, deleted=True))]


def item_changed(body: Body, webhook: Webhook) -> list[Event]:
    """Costs and customs' codes, which nothing here asks for; its SKU is told with the product."""
    identifier(body, "id")
    return keeping.keep(body, webhook)


def item_deleted(body: Body, webhook: Webhook) -> list[Event]:
    gone = deleted_id(body)
    return [webhook.changed(Complete("inventory_level", ("inventory_item_id", gone), [], webhook.at))]


def collection_changed(body: Body, webhook: Webhook) -> list[Event]:
    at = optional_instant(body, "updated_at") or webhook.at
    values: dict[str, Any] = {
        "title": text(body, "title"), "handle": text(body, "handle"), "sort_order": text(body, "sort_order"),
        "published_at": optional_instant(body, "published_at"),
    }  # fmt: skip
    if "rules" in body:
        values["is_automatic"] = bool(body["rules"])
    return [webhook.changed(Record("collection", (identifier(body, "id"),), at, values))]


def collection_deleted(body: Body, webhook: Webhook) -> list[Event]:
    return [webhook.changed(Record("collection", (deleted_id(body),), webhook.at, deleted=True))]


def _variant(body: Body, product_id: str, currency: str, at: datetime) -> Record:
    price = optional_money(body, "price", currency)
    before = optional_money(body, "compare_at_price", currency)
    values: dict[str, Any] = {
        "product_id": product_id, "title": text(body, "title"), "sku": text(body, "sku"),
        "barcode": text(body, "barcode"), "price_minor": None if price is None else positive(price, "price"),
        "compare_at_minor": None if before is None else positive(before, "compare_at_price"),
        "position": optional_whole(body, "position"),
        "inventory_quantity": optional_whole(body, "inventory_quantity"),
        "inventory_policy": _lower(body, "inventory_policy"),
    }  # fmt: skip
    if "inventory_item_id" in body:
        values["inventory_item_id"] = optional_identifier(body, "inventory_item_id")
    return Record("variant", (identifier(body, "id"),), optional_instant(body, "updated_at") or at, values)


def _variant_ids(body: Body, variants: list[Record]) -> list[str] | None:
    """All the product has, or None where that is not said."""
    told = [record.key[0] for record in variants]
    if body.get("variant_gids") is not None:
        listed = (global_id(one, "admin_graphql_api_id", "ProductVariant")[1] for one in objects(body, "variant_gids"))
        return sorted({*told, *listed})
    if body.get("variants") is None or len(told) >= FULL_VARIANTS:
        return None
    return sorted(set(told))


def _level(body: Body) -> tuple[str, str]:
    return identifier(body, "inventory_item_id"), identifier(body, "location_id")


def _available(body: Body) -> int | None:
    if "available" not in body:
        raise Rejected("`available` is missing", code="field_missing", where="available")
    return optional_whole(body, "available")


def _lower(body: Body, name: str) -> str | None:
    found = text(body, name)
    return found.lower() if found else None
