"""Types of what callers may write into a request, checked before anything reaches the database.

PostgreSQL stores neither NUL nor half a surrogate pair, and jsonb neither NaN nor an integer orjson cannot write.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime

DEEPEST = 8
MOST_NODES = 2_000
LONGEST_TEXT = 10_000
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


def is_storable(value: str) -> bool:
    """Whether PostgreSQL can hold this string."""
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


def _text(value: str) -> str:
    if not is_storable(value):
        raise ValueError("NUL characters and halves of surrogate pairs cannot be stored")
    return value


def _json(value: Any) -> Any:
    left = [(value, 1)]
    seen = 0
    while left:
        node, depth = left.pop()
        seen += 1
        if depth > DEEPEST or seen > MOST_NODES:
            raise ValueError(f"at most {DEEPEST} levels and {MOST_NODES} values")
        if isinstance(node, dict):
            left.extend((piece, depth + 1) for pair in node.items() for piece in pair)
        elif isinstance(node, list):
            left.extend((piece, depth + 1) for piece in node)
        else:
            _leaf(node)
    return value


def _leaf(value: Any) -> None:
    if isinstance(value, str):
        if len(value) > LONGEST_TEXT:
            raise ValueError(f"a text of more than {LONGEST_TEXT} characters")
        _text(value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("NaN and Infinity are not JSON numbers")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("an integer of more than 64 bits")


def _instant(value: datetime) -> datetime:
    if not _EARLIEST <= value < _LATEST:
        raise ValueError("instants lie between 1970 and 2100")
    return value.astimezone(UTC)


Text = Annotated[str, AfterValidator(_text)]
"""A string that can be stored."""
JsonObject = Annotated[dict[str, Any], AfterValidator(_json)]
"""A JSON object that can be stored, of bounded depth and size."""
Instant = Annotated[AwareDatetime, AfterValidator(_instant)]
"""A point in time with its offset; given on in UTC."""
