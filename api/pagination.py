"""Keyset pagination: a page is everything after the last row of the page before, so it never skips or repeats.

A list answers `{"items": [...], "next": "…"}`; `next` goes into `?cursor=` of the next request and is null at the end.
The cursor is opaque: the sort key of the last row, as base64url JSON.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

import orjson
from fastapi import Depends, Query
from pydantic import BaseModel, Field

from operation_agent.kit.errors import Rejected

Item = TypeVar("Item")
_LONGEST = 512


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    next: str | None = Field(None, description="Put this into `cursor` to get the next page; null: there is none")


@dataclass(frozen=True, slots=True)
class Paging:
    """What the caller asked for: how many, and after which row."""

    limit: int
    cursor: str | None

    def after(self, *kinds: type) -> tuple[Any, ...]:
        """The sort key to go on after, one value of each kind (`UUID`, `datetime`, `int`, `str`); Nones at the start.

        Raises Rejected for a cursor that this list did not give out.
        """
        return decode(self.cursor, *kinds) if self.cursor is not None else (None,) * len(kinds)

    def page(
        self, rows: Sequence[Any], make: Callable[[Any], Item], key: Callable[[Any], tuple[Any, ...]]
    ) -> dict[str, Any]:
        """A Page from up to `limit + 1` rows: the one too many says that there is a next page."""
        shown = rows[: self.limit]
        following = encode(*key(shown[-1])) if len(rows) > self.limit else None
        return {"items": [make(row) for row in shown], "next": following}


def encode(*values: UUID | datetime | int | str) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(values)).decode().rstrip("=")


def decode(cursor: str, *kinds: type) -> tuple[Any, ...]:
    """The values of a cursor, each of its kind. Raises Rejected for anything that `encode` did not make."""
    try:
        values = orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        if not isinstance(values, list) or len(values) != len(kinds):
            raise ValueError
        return tuple(_READERS[kind](value) for kind, value in zip(kinds, values, strict=True))
    except (ValueError, TypeError, binascii.Error, UnicodeError, OverflowError):
        raise Rejected(
            "this cursor is not of this list; leave it out to start from the beginning", code="cursor", where="cursor"
        ) from None


def _instant(value: Any) -> datetime:
    made = datetime.fromisoformat(_string(value))
    if made.tzinfo is None:
        raise ValueError
    return made


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise ValueError
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError
    return value


_READERS: dict[type, Callable[[Any], Any]] = {
    UUID: lambda value: UUID(_string(value)),
    datetime: _instant,
    int: _integer,
    str: _string,
}


def _paging(
    limit: Annotated[int, Query(ge=1, le=200, description="Most items on the page")] = 50,
    cursor: Annotated[
        str | None, Query(max_length=_LONGEST, description="`next` of the page before; leave it out to start")
    ] = None,
) -> Paging:
    return Paging(limit, cursor)


Paged = Annotated[Paging, Depends(_paging)]
