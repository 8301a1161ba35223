"""Whether PostgreSQL can hold a JSON value exactly as sent. Nothing is repaired silently: it is refused, by path."""

from __future__ import annotations

import math
from collections.abc import Iterator

import orjson

from operation_agent.kit.errors import Rejected

EVENT_LIMIT_BYTES = 32 * 1024
"""Segment's limit of one event."""
DEEPEST = 250
_NUL = b"\\u0000"


class NotJson:
    """Stands for a number that JSON cannot say (NaN, 1e999), so that its item is refused and not its whole batch."""

    def __init__(self, text: str):
        self.text = text


def check(value: object) -> None:
    """Raises Rejected with the path of the first part that cannot be stored as it is, or when it is too large."""
    try:
        raw = orjson.dumps(value)
    except (TypeError, RecursionError):
        raise _first_fault(value) from None
    if len(raw) > EVENT_LIMIT_BYTES:
        raise Rejected(
            f"the event has {len(raw)} bytes; at most {EVENT_LIMIT_BYTES} are stored", code="event_too_large"
        )
    if _NUL in raw:  # may also be an escaped backslash followed by "u0000": the walk tells
        for path, reason in faults(value):
            raise Rejected(f"{reason} at {path}", code="not_storable", where=path)


def _first_fault(value: object) -> Rejected:
    for path, reason in faults(value):
        return Rejected(f"{reason} at {path}", code="not_storable", where=path)
    return Rejected(f"the event is nested deeper than {DEEPEST} levels", code="too_deep")


def is_suspect(value: object) -> bool:
    """Whether there may be `faults` in a value that was JSON: ten times faster than to look at every part of it."""
    try:
        return _NUL in orjson.dumps(value)
    except TypeError:
        return True


def faults(value: object) -> Iterator[tuple[str, str]]:
    """Every part that PostgreSQL could not store as sent: (path, reason)."""
    waiting: list[tuple[str, object, int]] = [("", value, 0)]
    while waiting:
        path, part, depth = waiting.pop()
        if depth > DEEPEST:
            yield path[:200], f"nested deeper than {DEEPEST} levels"
        elif isinstance(part, dict):
            for name, inner in part.items():
                reason = _fault_of(name)
                if reason is not None:
                    yield f"{path}.<key>".lstrip("."), reason
                waiting.append((f"{path}.{_printable(name)}".lstrip("."), inner, depth + 1))
        elif isinstance(part, list):
            waiting.extend((f"{path}[{index}]", inner, depth + 1) for index, inner in enumerate(part))
        else:
            reason = _fault_of(part)
            if reason is not None:
                yield path, reason


def _printable(name: object) -> str:
    return str(name).encode("ascii", "backslashreplace").decode()[:80]


def _fault_of(value: object) -> str | None:
    if isinstance(value, str):
        if "\0" in value:
            return "contains a NUL character, which PostgreSQL cannot store,"
        try:
            value.encode()
        except UnicodeEncodeError:
            return "contains half of a surrogate pair, which is not text,"
        return None
    if isinstance(value, bool | None):
        return None
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**64 else "an integer of more than 64 bits: send it as a string,"
    if isinstance(value, float):
        return None if math.isfinite(value) else "a number that is not finite"
    return "a number that is not finite" if isinstance(value, NotJson) else f"a {type(value).__name__}, not JSON,"
