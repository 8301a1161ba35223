"""Identifiers: UUIDv7 (RFC 9562), so that new rows go to the end of an index."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    return uuid7()


def as_uuid(value: object) -> UUID | None:
    """The id that a text from outside is, or None when it is none."""
    try:
        return UUID(str(value)) if value is not None else None
    except ValueError:
        return None


def digest(*parts: str) -> bytes:
    """128 bits of SHA-256 over the parts (length-prefixed, so ('a','bc') is not ('ab','c'))."""
    pieces: list[bytes] = []
    for part in parts:
        raw = part.encode()
        pieces += (len(raw).to_bytes(4, "big"), raw)
    return hashlib.sha256(b"".join(pieces)).digest()[:16]


def drawer(*first: str) -> Callable[[str], float]:
    """`uniform(*first, last)` as a function of `last`, for many draws that begin alike: three times as fast."""
    begun = hashlib.sha256(b"".join(_framed(part) for part in first))

    def draw(last: str) -> float:
        hashed = begun.copy()
        hashed.update(_framed(last))
        return (int.from_bytes(hashed.digest()[:8], "big") >> 11) / (1 << 53)

    return draw


def _framed(part: str) -> bytes:
    raw = part.encode()
    return len(raw).to_bytes(4, "big") + raw


def digest_id(*parts: str) -> UUID:
    """`digest` as an id."""
    return UUID(bytes=digest(*parts))


def uniform(*parts: str) -> float:
    """A reproducible draw in [0, 1) from the parts: the same parts give the same draw for ever.

    53 bits of SHA-256. Used for holdouts and arms, so an assignment can be recomputed from its receipt.
    """
    return (int.from_bytes(digest(*parts)) >> 75) / (1 << 53)
