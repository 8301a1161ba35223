"""Columns as PostgreSQL arrays in binary form, for set-based statements: `unnest(%(ids)s, %(keys)s)`.

Packing a column is one `join`, several times faster than psycopg's list dumper, which quotes every element in Python.
Wire format: PostgreSQL source, src/backend/utils/adt/arrayfuncs.c, array_recv.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.types.array import ListDumper

_HEAD = struct.Struct(">iiiii").pack  # dimensions, has NULLs, element type, length, lower bound
_LENGTH = struct.Struct(">i").pack
_SMALL = struct.Struct(">ih").pack
_INSTANT = _LONG = struct.Struct(">iq").pack
_DOUBLE = struct.Struct(">id").pack
_UUID_LENGTH = _LENGTH(16)
_NULL = _LENGTH(-1)
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class _Packed:
    data: bytes


class _Uuids(_Packed):
    pass


class _Texts(_Packed):
    pass


class _Smallints(_Packed):
    pass


class _Integers(_Packed):
    pass


class _Floats(_Packed):
    pass


class _Instants(_Packed):
    pass


class _Documents(_Packed):
    pass


class _PackedDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: _Packed) -> bytes:
        return obj.data


for _kind, _oid in (
    (_Uuids, 2951), (_Texts, 1009), (_Smallints, 1005), (_Integers, 1016), (_Floats, 1022), (_Instants, 1185),
    (_Documents, 3807),
):  # fmt: skip
    psycopg.adapters.register_dumper(_kind, type(f"{_kind.__name__}Dumper", (_PackedDumper,), {"oid": _oid}))


def _head(element: int, length: int) -> bytes:
    return _HEAD(1, 0, element, length, 1)


def uuids(values: Collection[bytes | None]) -> _Packed:
    """A uuid[] of values of 16 bytes."""
    head = _head(2950, len(values))
    if None in values:
        return _Uuids(head + b"".join([_NULL if value is None else _UUID_LENGTH + value for value in values]))
    return _Uuids(head + (_UUID_LENGTH + _UUID_LENGTH.join(values) if values else b""))  # type: ignore[arg-type]


def texts(values: Collection[str | None]) -> _Packed:
    """A text[]; a value that stands there often is packed once."""
    packed = {value: _text(value) for value in set(values)}
    return _Texts(_head(25, len(values)) + b"".join([packed[value] for value in values]))


def _text(value: str | None) -> bytes:
    if value is None:
        return _NULL
    raw = value.encode()
    return _LENGTH(len(raw)) + raw


def smallints(values: Collection[int]) -> _Packed:
    """A smallint[]."""
    return _Smallints(_head(21, len(values)) + b"".join([_SMALL(2, value) for value in values]))


def integers(values: Collection[int]) -> _Packed:
    """A bigint[]."""
    return _Integers(_head(20, len(values)) + b"".join([_LONG(8, value) for value in values]))


def floats(values: Collection[float | None]) -> _Packed:
    """A float8[]."""
    return _Floats(_head(701, len(values)) + b"".join([_NULL if one is None else _DOUBLE(8, one) for one in values]))


def instants(values: Collection[datetime]) -> _Packed:
    """A timestamptz[]; neighbours that are one object are packed once."""
    pieces, last, packed = [_head(1184, len(values))], None, b""
    for value in values:
        if value is not last:
            last, packed = value, _INSTANT(8, (value - _EPOCH) // _MICROSECOND)
        pieces.append(packed)
    return _Instants(b"".join(pieces))


def documents(values: Collection[bytes]) -> _Packed:
    """JSON texts as a jsonb[]."""
    pieces = [_head(3802, len(values))]
    for raw in values:
        pieces += (_LENGTH(len(raw) + 1), b"\x01", raw)
    return _Documents(b"".join(pieces))


class ColumnDumper(ListDumper):
    """psycopg's list dumper with a short way for a flat list of one type: the columns of every `unnest(...)` here.

    Same text as its parent's, which looks at every element in Python (bench: 5 to 8 times faster for 1,000 elements).
    """

    def dump(self, obj: list[Any]) -> Buffer | None:
        kinds = set(map(type, obj))
        kinds.discard(type(None))
        quick = _QUICK.get(kinds.pop()) if len(kinds) == 1 else None
        return quick(obj) if quick else super().dump(obj)


def _plain(column: list[Any]) -> bytes:
    return f"{{{','.join(['NULL' if one is None else str(one) for one in column])}}}".encode()


def _quoted(column: list[Any]) -> bytes:
    """Always in quotes: then only a quote and a backslash mean something."""
    cells = ["NULL" if one is None else '"' + one.replace("\\", "\\\\").replace('"', '\\"') + '"' for one in column]
    body = ",".join(cells)
    if "\0" in body:
        raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    return f"{{{body}}}".encode()


def _instants(column: list[Any]) -> bytes:
    cells = ["NULL" if one is None else f'"{one.isoformat()}"' for one in column]
    return f"{{{','.join(cells)}}}".encode()


_QUICK: dict[type, Callable[[list[Any]], bytes]] = {
    UUID: _plain,
    int: _plain,
    bool: _plain,
    str: _quoted,
    datetime: _instants,
}

psycopg.adapters.register_dumper(list, ColumnDumper)
