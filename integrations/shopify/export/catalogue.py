"""Products with their variants, collections with their products, and stock, as bulk queries give them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from integrations.shopify.reading import fields
from operation_agent.kit.errors import Rejected
from operation_agent.storefront.protocol import Exported
from operation_agent.storefront.records import Complete, Record, Telling

from . import nodes
from .nodes import Node
from .objects import Piece


def product(piece: Piece, currency: str, _received_at: datetime) -> Exported:
    """Raises Rejected."""
    if not (piece.is_first and piece.is_last):
        raise Rejected("a product with more variants than a product can have")
    node = piece.node
    product_id, at = nodes.number_of(node, "Product"), fields.instant(node, "updatedAt")
    seo = fields.optional_object(node, "seo") or {}
    values = {
        "title": fields.text(node, "title"), "handle": fields.text(node, "handle"),
        "vendor": fields.text(node, "vendor"), "product_type": fields.text(node, "productType"),
        "status": nodes.word(node, "status"), "tags": fields.texts(node, "tags"),
        "seo_title": fields.text(seo, "title"), "seo_description": fields.text(seo, "description"),
        "image_url": _image(node), "published_at": fields.optional_instant(node, "publishedAt"),
    }  # fmt: skip
    variants = [_variant(one, product_id, currency, at) for one in piece.children]
    whole = Complete("variant", ("product_id", product_id), sorted({one.key for one in variants}), at)
    tellings: list[Telling] = [Record("product", (product_id,), at, values), *variants, whole]
    return Exported(product_id, at, piece.end, tellings=tellings)


def _image(node: Node) -> str | None:
    for name in ("featuredMedia", "preview", "image"):
        found = fields.optional_object(node, name)
        if found is None:
            return None
        node = found
    return fields.text(node, "url")


def _variant(node: Node, product_id: str, currency: str, at: datetime) -> Record:
    values: dict[str, Any] = {
        "product_id": product_id, "title": fields.text(node, "title"), "sku": fields.text(node, "sku"),
        "barcode": fields.text(node, "barcode"), "price_minor": _price(node, "price", currency),
        "compare_at_minor": _price(node, "compareAtPrice", currency),
        "position": fields.optional_whole(node, "position"),
        "inventory_item_id": nodes.of_nested(node, "inventoryItem", "InventoryItem"),
        "inventory_quantity": fields.optional_whole(node, "inventoryQuantity"),
        "inventory_policy": nodes.word(node, "inventoryPolicy"),
    }  # fmt: skip
    key = (nodes.number_of(node, "ProductVariant"),)
    return Record("variant", key, fields.optional_instant(node, "updatedAt") or at, values)


def _price(node: Node, name: str, currency: str) -> int | None:
    """Of type Money: a decimal in the shop's currency."""
    written = node.get(name)
    return None if written is None else fields.positive(fields.minor(written, currency, name), name)


class Collections:
    """A collection may have more products than fit in memory at ease: of its pieces only the ids are kept."""

    def __init__(self) -> None:
        self._keys: list[tuple[str, str]] = []

    def __call__(self, piece: Piece, _currency: str, _received_at: datetime) -> Exported:
        """Nothing is told of it before its last piece. Raises Rejected."""
        collection_id, at = nodes.number_of(piece.node, "Collection"), fields.instant(piece.node, "updatedAt")
        if piece.is_first:
            self._keys = []
        self._keys += [(collection_id, nodes.number_of(one, "Product")) for one in piece.children]
        if not piece.is_last:
            return Exported(collection_id, at, piece.start, is_whole=False)
        whole = Complete("collection_product", ("collection_id", collection_id), self._keys, at)
        self._keys = []
        return Exported(
            collection_id, at, piece.end,
            tellings=[Record("collection", (collection_id,), at, _collection(piece.node)), whole],
        )  # fmt: skip


def _collection(node: Node) -> dict[str, Any]:
    order = nodes.word(node, "sortOrder")
    return {
        "title": fields.text(node, "title"), "handle": fields.text(node, "handle"),
        "sort_order": order.replace("_", "-") if order else None,
        "is_automatic": any(_is_automatic(one) for one in fields.objects(node, "sources")),
    }  # fmt: skip


def _is_automatic(source: Node) -> bool:
    """Whether its products follow from something, rather than being picked."""
    if source.get("__typename") == "CollectionSubCollectionsSource":
        return True
    return bool(fields.objects(fields.optional_object(source, "inclusion") or {}, "conditions"))


def level(piece: Piece, _currency: str, _received_at: datetime) -> Exported:
    """A line is a location, of which nothing is kept, or what there is of one item at the location above it."""
    node = piece.node
    if "__parentId" not in node:
        return Exported(nodes.number_of(node, "Location"), None, piece.end)
    location = fields.global_id(node, "__parentId", "Location")[1]
    item = nodes.of_nested(node, "item", "InventoryItem")
    if item is None:
        raise Rejected("`item` is missing", code="field_missing", where="item")
    at = fields.instant(node, "updatedAt")
    quantities = {one.get("name"): fields.optional_whole(one, "quantity") for one in fields.objects(node, "quantities")}
    record = Record("inventory_level", (item, location), at, {"available": quantities.get("available")})
    return Exported(f"{item} at {location}", at, piece.end, tellings=[record])
