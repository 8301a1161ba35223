"""Durations in ISO 8601 form: P7D, PT1H, P1DT12H, P2W. No years and months: they have no fixed length."""

from __future__ import annotations

import re
from datetime import timedelta

_FORM = re.compile(r"P(?:(\d+)W)?(?:(\d+)D)?(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?", re.ASCII)

LONGEST = timedelta(days=3660)
"""Ten years: a longer one is a slip of the pen."""


def parse(value: str) -> timedelta:
    """Raises ValueError, saying what a duration looks like."""
    found = _FORM.fullmatch(value)
    if found is None or not any(found.groups()):
        raise ValueError(f"{value[:40]!r} is not an ISO 8601 duration such as P7D, PT1H or P1DT12H")
    weeks, days, hours, minutes, seconds = (min(int(part or 0), 10**9) for part in found.groups())
    if ((weeks * 7 + days) * 24 + hours) * 3600 + minutes * 60 + seconds > LONGEST.total_seconds():
        raise ValueError(f"{value[:40]!r} is longer than ten years")
    return timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)


def write(value: timedelta) -> str:
    """The canonical form; `parse(write(d)) == d` for whole seconds that are not negative."""
    seconds = int(value.total_seconds())
    days, seconds = divmod(seconds, 86400)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    date = f"{days}D" if days else ""
    time = "".join(f"{count}{unit}" for count, unit in ((hours, "H"), (minutes, "M"), (seconds, "S")) if count)
    return f"P{date}{'T' + time if time else ''}" if date or time else "PT0S"
