"""Cron expressions in their usual meaning, computed by APScheduler in a time zone.

APScheduler counts weekdays from Monday = 0 and wants day-of-month *and* day-of-week; cron counts from Sunday = 0 (and
7) and means *or*. So weekdays are handed over by name, and an expression that restricts both days is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")


def check(expression: str) -> None:
    """Raises ValueError, saying what is wrong with a cron expression."""
    _trigger(expression, "UTC")


def fire_times(expression: str, time_zone: str, since: datetime, until: datetime) -> Iterator[datetime]:
    """Every due time t with since < t <= until, as UTC. Both bounds are aware. Raises ValueError."""
    from datetime import UTC, timedelta

    trigger = _trigger(expression, time_zone)
    previous, after = None, since + timedelta(microseconds=1)
    while True:
        due = trigger.get_next_fire_time(previous, after)
        if due is None or due > until:
            return
        yield due.astimezone(UTC)
        previous, after = due, due + timedelta(microseconds=1)


@lru_cache(maxsize=512)
def _trigger(expression: str, time_zone: str) -> Any:
    from apscheduler.triggers.cron import CronTrigger

    parts = expression.split()
    if len(parts) != 5:
        raise ValueError(f"{expression[:60]!r} has {len(parts)} parts; cron has minute hour day month weekday")
    minute, hour, day, month, weekday = (part.lower() for part in parts)
    if day != "*" and weekday != "*":
        raise ValueError("a day of the month and a weekday together mean 'either' in cron; give one of them as *")
    try:
        return CronTrigger(
            minute=minute, hour=hour, day=day, month=month, day_of_week=_weekdays(weekday), timezone=time_zone
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"{expression[:60]!r} is not a cron expression: {error}") from None


def _weekdays(field: str) -> str:
    """'1-5' as 'mon,tue,…,fri'. Ranges are written out, since a week starts on Sunday there and on Monday here."""
    if field == "*":
        return field
    return ",".join(name for part in field.split(",") for name in _weekday_part(part))


def _weekday_part(part: str) -> list[str]:
    found = re.fullmatch(r"(\*|[a-z]{3}|[0-7])(?:-([a-z]{3}|[0-7]))?(?:/([1-7]))?", part, re.ASCII)
    if found is None:
        raise ValueError(f"{part[:20]!r} is not a weekday: 0-7 (0 and 7 are Sunday) or sun … sat")
    first, last, step = found.groups()
    low = 0 if first == "*" else _weekday(first)
    high = 6 if first == "*" or (step and not last) else _weekday(last) if last else low
    if high < low:
        high += 7
    return list(dict.fromkeys(_DAYS[number % 7] for number in range(low, high + 1, int(step or 1))))


def _weekday(name: str) -> int:
    if name.isdigit():
        return int(name)
    if name not in _DAYS:
        raise ValueError(f"{name!r} is not a weekday: sun mon tue wed thu fri sat")
    return _DAYS.index(name)
