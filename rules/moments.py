"""Times of day and instants in a time zone, through changes of its clocks."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from .tree import Node


def next_time(wanted: time, at: datetime, zone: ZoneInfo) -> datetime:
    """The first instant from `at` on at which clocks in `zone` show `wanted`, as UTC.

    A time that a change of clocks leaves out is reckoned by the offset before the change, as RFC 5545 (3.3.5) has it:
    02:30 in New York on the day spring begins is 03:30. One that comes twice counts both times.
    """
    return min(instant for instant in _shown(wanted, zone, at.astimezone(zone).date()) if instant >= at)


@lru_cache(maxsize=4096)
def _shown(wanted: time, zone: ZoneInfo, today: date) -> tuple[datetime, ...]:
    """When clocks show `wanted` on the days around `today`: yesterday's may come after midnight."""
    found: list[datetime] = []
    for days in (-1, 0, 1, 2):
        naive = datetime.combine(today + timedelta(days=days), wanted)
        first = naive.replace(tzinfo=zone).astimezone(UTC)
        second = naive.replace(tzinfo=zone, fold=1).astimezone(UTC)
        found += [first, second] if second > first else [first]  # in a gap, the second lies before the first
    return tuple(found)


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo:
    """A time zone by its IANA name; UTC for a name that is none: a customer's traits may hold anything."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        return ZoneInfo("UTC")


def instant(value: Any, zone: ZoneInfo) -> datetime | None:
    """An instant as an event's property may hold it: ISO 8601, without an offset in `zone`, a date at its midnight."""
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def read_clock(node: Node) -> time:
    """A time of day, HH:MM. Raises RuleError."""
    hint = 'a time of day is wanted, in quotes, such as "09:00"'
    if not isinstance(node.value, str) or len(node.value) != 5 or node.value[2] != ":":
        raise node.fail(hint)
    hours, minutes = node.value[:2], node.value[3:]
    if not (node.value.isascii() and hours.isdigit() and minutes.isdigit()) or int(hours) > 23 or int(minutes) > 59:
        raise node.fail(hint)
    return time(int(hours), int(minutes))
