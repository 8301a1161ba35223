"""Reading an export: its file, line by line, as objects in the form that the core takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

from operation_agent.kit.errors import Rejected
from operation_agent.storefront import records
from operation_agent.storefront.protocol import Exported, SyncKind

from . import catalogue, customers, discounts, objects, orders, stream
from .bulk import ALONE
from .objects import Broken, Piece

Read = Callable[[Piece, str, datetime], Exported]


def read_export(
    kind: SyncKind, url: str, *, offset: int, received_at: datetime, currency: str, secure: bool = True
) -> Iterator[Exported]:
    """The objects of a result from byte `offset` on. `currency` is the shop's; `received_at` system time; `secure`:
    only an address with https will do.

    Raises Unreachable when the file breaks off, ResultExpired when its address is not good any more.
    """
    read = _reader(kind)
    lines = stream.lines(url, offset=offset, secure=secure)
    for one in objects.single(lines, offset) if kind in ALONE else objects.grouped(lines, offset):
        yield _exported(read, one, currency, received_at)


def _reader(kind: SyncKind) -> Read:
    readers: dict[SyncKind, Callable[[], Read]] = {
        "products": lambda: catalogue.product,
        "collections": catalogue.Collections,
        "inventory": lambda: catalogue.level,
        "customers": lambda: customers.exported,
        "orders": lambda: orders.exported,
        "discounts": lambda: discounts.exported,
    }
    return readers[kind]()


def _exported(read: Read, one: Piece | Broken, currency: str, received_at: datetime) -> Exported:
    if isinstance(one, Broken):
        return Exported(key="", updated_at=None, end=one.end, refused=f"a line is not JSON: {one.line}")
    if not one.node:
        return _refused(one, f"its parent {one.orphans[0].get('__parentId')} did not come before it")
    if one.has_nul:
        return _refused(one, "a text in it has a NUL character, which PostgreSQL cannot store")
    try:
        found = read(one, currency, received_at)
        for telling in found.tellings:
            records.check(telling)
    except Rejected as error:
        return _refused(one, error.detail)
    if one.orphans:
        return replace(_refused(one, f"{len(one.orphans)} of its parts belong to something else"), key=found.key)
    return found


def _refused(piece: Piece, reason: str) -> Exported:
    shown = str(piece.node.get("id") or (piece.orphans[0].get("id") if piece.orphans else ""))
    return Exported(key=shown[:200], updated_at=None, end=piece.end, refused=reason)
