"""What a storefront tells of its own things, in one form whichever vendor, webhook or export it came from.

Money is minor units of the shop's currency, instants are UTC in shop time, ids are text (they may exceed 2^53).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of thing: its table, the columns of its key, and those of its values with their SQL types."""

    name: str
    table: str
    key: tuple[str, ...]
    columns: Mapping[str, str]


_MONEY, _TEXT, _AT, _INT, _TEXTS, _JSON, _BOOL = (
    "bigint",
    "text",
    "timestamptz",
    "integer",
    "text[]",
    "jsonb",
    "boolean",
)

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "product", "products", ("product_id",),
            {
                "title": _TEXT, "handle": _TEXT, "vendor": _TEXT, "product_type": _TEXT, "status": _TEXT,
                "tags": _TEXTS, "seo_title": _TEXT, "seo_description": _TEXT, "image_url": _TEXT, "published_at": _AT,
            },
        ),
        Kind(
            "variant", "variants", ("variant_id",),
            {
                "product_id": _TEXT, "title": _TEXT, "sku": _TEXT, "barcode": _TEXT, "price_minor": _MONEY,
                "compare_at_minor": _MONEY, "position": _INT, "inventory_item_id": _TEXT,
                "inventory_quantity": _INT, "inventory_policy": _TEXT,
            },
        ),
        Kind("inventory_level", "inventory_levels", ("inventory_item_id", "location_id"), {"available": _INT}),
        Kind(
            "collection", "collections", ("collection_id",),
            {"title": _TEXT, "handle": _TEXT, "sort_order": _TEXT, "is_automatic": _BOOL, "published_at": _AT},
        ),
        Kind("collection_product", "collection_products", ("collection_id", "product_id"), {}),
        Kind(
            "discount", "discounts", ("discount_id",),
            {
                "title": _TEXT, "status": _TEXT, "method": _TEXT, "kind": _TEXT, "starts_at": _AT, "ends_at": _AT,
                "usage_limit": _INT, "used": _INT,
            },
        ),
        Kind("discount_code", "discount_codes", ("discount_id", "code"), {}),
        Kind(
            "fulfillment", "fulfillments", ("fulfillment_id",),
            {
                "source_order_id": _TEXT, "status": _TEXT, "shipment_status": _TEXT, "tracking_company": _TEXT,
                "tracking_numbers": _TEXTS,
            },
        ),
        Kind("cart", "carts", ("cart_token",), {"value_minor": _MONEY, "quantity": _INT, "lines": _JSON}),
        Kind(
            "checkout", "checkouts", ("checkout_token",),
            {
                "cart_token": _TEXT, "source_customer_id": _TEXT, "value_minor": _MONEY, "quantity": _INT,
                "lines": _JSON, "recovery_url": _TEXT, "started_at": _AT, "completed_at": _AT,
            },
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Record:
    """One thing as of `updated_at` (by the storefront's clock). `key` is in the order of the kind's key columns.

    `values` may leave columns out: of a thing that is known already those stay as they are. `deleted`: it is gone.
    """

    kind: str
    key: tuple[str, ...]
    updated_at: datetime
    values: Mapping[str, Any] = field(default_factory=dict)
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Complete:
    """These are all the things of `kind` that belong to a parent, as of `updated_at`: others, told of before, are gone.

    `parent` is a column with its value: ("product_id", "632910392").
    """

    kind: str
    parent: tuple[str, str]
    keys: Sequence[tuple[str, ...]]
    updated_at: datetime


Telling = Record | Complete


def to_json(tellings: Sequence[Telling]) -> list[dict[str, Any]]:
    """As they stand in the properties of a `storefront.changed` event, under `tellings`."""
    return [_written(one) for one in tellings]


def _written(one: Telling) -> dict[str, Any]:
    common = {"kind": one.kind, "updated_at": one.updated_at.isoformat()}
    if isinstance(one, Complete):
        return {**common, "parent": list(one.parent), "keys": [list(key) for key in one.keys]}
    values = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in one.values.items()}
    return {**common, "key": list(one.key), "values": values, "deleted": one.deleted}


def from_json(written: Sequence[Mapping[str, Any]]) -> list[Telling]:
    """The inverse of `to_json`; instants among the values stay ISO 8601 text, which PostgreSQL reads."""
    return [_read(one) for one in written]


def _read(one: Mapping[str, Any]) -> Telling:
    at = datetime.fromisoformat(one["updated_at"])
    if "parent" in one:
        column, value = one["parent"]
        return Complete(one["kind"], (column, value), [tuple(key) for key in one["keys"]], at)
    return Record(one["kind"], tuple(one["key"]), at, dict(one["values"]), one["deleted"])
