"""A JSON body: unpacked within limits, parsed strictly; impossible numbers and half characters left to their item."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

import orjson
from starlette.requests import Request

from api.limits import limit_of, too_large
from operation_agent.events.storable import NotJson
from operation_agent.kit.errors import Rejected

UNPACKED_FACTOR = 8
"""An unpacked body may be this many times the limit of a packed one; beyond that it is a bomb."""


async def read(request: Request) -> bytes:
    """The body, unpacked. Raises Rejected for another encoding than gzip, a damaged body, or one too large."""
    raw = await request.body()
    encoding = request.headers.get("content-encoding")
    if encoding is None or encoding == "identity":
        return raw
    if encoding.lower() not in ("gzip", "x-gzip"):
        raise Rejected("Content-Encoding is gzip or nothing", code="encoding", status=415)
    return _unpack(raw, limit_of(request.url.path) * UNPACKED_FACTOR)


def _unpack(raw: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(raw, limit + 1)
    except zlib.error:
        raise Rejected("the body is not gzip, as Content-Encoding says", code="encoding") from None
    if len(unpacked) > limit:
        raise too_large(limit)
    if not unpacker.eof:
        raise Rejected("the gzip body ends early", code="encoding")
    return unpacked


def parse(raw: bytes) -> dict[str, Any]:
    """The body as an object. Raises Rejected for malformed JSON, saying where, and for another kind of value."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        value = _parse_leniently(raw, error)
    if not isinstance(value, dict):
        raise Rejected(f"the body is a JSON object, not {type(value).__name__}", code="malformed_json")
    return value


def _parse_leniently(raw: bytes, error: orjson.JSONDecodeError) -> Any:
    """Python's parser lets half surrogate pairs and huge numbers through, so that only their items are refused."""
    try:
        return json.loads(raw.decode(), parse_constant=NotJson, parse_float=_finite)
    except (ValueError, RecursionError):
        raise Rejected(
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}", code="malformed_json"
        ) from None


def _finite(text: str) -> float | NotJson:
    number = float(text)
    return number if math.isfinite(number) else NotJson(text)
