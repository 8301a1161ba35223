"""What a storefront tells of its own things, in one form whichever vendor, webhook or export it came from.

Money is minor units of the shop's currency, instants are UTC in shop time, ids are text (they may exceed 2^53). How
sayings add up to what stands is `standing`'s matter, and `mirror` writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from operation_agent.events.storable import faults
from operation_agent.kit.errors import Rejected


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of thing: its table, the columns of its key, and those of its values with their SQL types.

    `parent` is the column by which a `Complete` lists its things, and `of` the kind of that parent: when it is deleted,
    they are gone with it. `returns`: its key is not used up by a deletion (a product goes back into a collection).
    """

    name: str
    table: str
    key: tuple[str, ...]
    columns: Mapping[str, str]
    parent: str | None = None
    of: str | None = None
    returns: bool = False


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
            parent="product_id", of="product",
        ),
        Kind(
            "inventory_level", "inventory_levels", ("inventory_item_id", "location_id"), {"available": _INT},
            parent="inventory_item_id", returns=True,
        ),
        Kind(
            "collection", "collections", ("collection_id",),
            {"title": _TEXT, "handle": _TEXT, "sort_order": _TEXT, "is_automatic": _BOOL, "published_at": _AT},
        ),
        Kind(
            "collection_product", "collection_products", ("collection_id", "product_id"), {},
            parent="collection_id", of="collection", returns=True,
        ),
        Kind(
            "discount", "discounts", ("discount_id",),
            {
                "title": _TEXT, "status": _TEXT, "method": _TEXT, "kind": _TEXT, "starts_at": _AT, "ends_at": _AT,
                "usage_limit": _INT, "used": _INT,
            },
        ),
        Kind(
            "discount_code", "discount_codes", ("discount_id", "code"), {},
            parent="discount_id", of="discount", returns=True,
        ),
        Kind(
            "fulfillment", "fulfillments", ("fulfillment_id",),
            {
                "source_order_id": _TEXT, "status": _TEXT, "shipment_status": _TEXT, "tracking_company": _TEXT,
                "tracking_numbers": _TEXTS,
            },
            parent="source_order_id",
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

    `parent` is the kind's parent column with its value: ("product_id", "632910392").
    """

    kind: str
    parent: tuple[str, str]
    keys: Sequence[tuple[str, ...]]
    updated_at: datetime


Telling = Record | Complete


def check(one: Telling) -> None:
    """Raises Rejected, naming the part, for a telling that `mirror.write` could not store as it is."""
    kind = kind_of(one)
    if one.updated_at.tzinfo is None:
        raise _wrong(one, "has an instant without a time zone")
    if isinstance(one, Complete):
        if one.parent[0] != kind.parent:
            raise _wrong(one, f"is listed by {kind.parent or 'no parent'}, not by {one.parent[0]!r}")
        _check_key((one.parent[1],), 1, one)
        for key in one.keys:
            _check_key(key, len(kind.key), one)
    else:
        _check_key(one.key, len(kind.key), one)
        checked_values(one)


def _check_key(key: tuple[str, ...], parts: int, one: Telling) -> None:
    if len(key) != parts or not all(isinstance(part, str) and part and is_storable(part) for part in key):
        raise _wrong(one, f"has the key {str(key)[:80]}; it is {parts} texts that are not empty")


def kind_of(one: Telling) -> Kind:
    """Raises Rejected for a kind that nobody knows."""
    kind = KINDS.get(one.kind)
    if kind is None:
        raise Rejected(f"there is no kind of thing {one.kind!r}; there are {', '.join(KINDS)}", where="kind")
    return kind


def checked_values(one: Record) -> dict[str, Any]:
    """A record's values as PostgreSQL takes them, instants in UTC. Raises Rejected for another column or type."""
    columns = KINDS[one.kind].columns
    made = {}
    for name, value in one.values.items():
        sql_type = columns.get(name)
        if sql_type is None:
            raise _wrong(one, f"has no column {name!r}; its columns are {', '.join(columns)}")
        try:
            made[name] = None if value is None else _READERS[sql_type](value)
        except (TypeError, ValueError):
            raise _wrong(one, f"has a {name} that is no {sql_type}: {str(value)[:80]!r}") from None
    return made


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can hold it: no NUL, no half of a surrogate pair."""
    if text.isascii():
        return "\0" not in text
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _wrong(one: Telling, what: str) -> Rejected:
    return Rejected(f"a {one.kind} {what}", code="telling", where=one.kind)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not is_storable(value):
        raise TypeError
    return value


def _texts(value: Any) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError
    return [_text(one) for one in value]


def _whole(bits: int) -> Callable[[Any], int]:
    limit = 2 ** (bits - 1)

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not -limit <= value < limit:
            raise TypeError
        return value

    return read


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _instant(value: Any) -> datetime:
    at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    if at.tzinfo is None:
        raise ValueError
    return at.astimezone(UTC)


def _document(value: Any) -> Any:
    if next(faults(value), None) is not None:
        raise ValueError
    return value


_READERS: dict[str, Callable[[Any], Any]] = {
    _MONEY: _whole(64),
    _INT: _whole(32),
    _TEXT: _text,
    _TEXTS: _texts,
    _AT: _instant,
    _JSON: _document,
    _BOOL: _flag,
}


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
