"""When a schedule comes due: a cron expression, or a recurrence rule (RRULE, RFC 5545), in a time zone.

    0 9 * * 1-5
    RRULE:FREQ=WEEKLY;BYDAY=MO,TH;BYHOUR=9
    DTSTART:20260105T090000 RRULE:FREQ=WEEKLY;INTERVAL=2;UNTIL=20261231

A rule speaks of local times; DTSTART too, unless it ends in Z. Without DTSTART a rule counts from Monday 2001-01-01,
00:00: so weeks are counted from a Monday, months and years from their first day, and COUNT needs a DTSTART. UNTIL with
a date takes that day in. A local time that a change of clocks leaves out is reckoned by the offset before it, one that
comes twice means the first.

The rules themselves are worked out by dateutil, whose search for the next date ends only in the year 9999. Since the
calendar repeats every 400 years, weekdays included, it is set to work in the years before that: a rule that can never
come due is found out at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from . import cron

FREQUENCIES = ("HOURLY", "DAILY", "WEEKLY", "MONTHLY", "YEARLY")
START = datetime(2001, 1, 1)  # noqa: DTZ001 - a local time, of whatever zone
MOST_OCCURRENCES = 5_000
"""Of a rule with COUNT."""
MOST_PER_HOUR = 4
MOST_POSITIONS = 12

_PARTS = (
    "FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST", "BYSETPOS", "BYMONTH", "BYMONTHDAY", "BYYEARDAY", "BYWEEKNO",
    "BYDAY", "BYHOUR", "BYMINUTE", "BYSECOND",
)  # fmt: skip
_DAY_PARTS = ("BYWEEKNO", "BYYEARDAY", "BYMONTHDAY", "BYDAY")
_WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A rule as read. `start` is a local time, or an instant where DTSTART ended in Z; so is `until`, inclusive.
    `parts`: the rest, by name; `interval` counts `frequency`."""

    frequency: str
    interval: int
    start: datetime
    until: datetime | None
    count: int | None
    parts: tuple[tuple[str, str], ...]


def is_rule(expression: str) -> bool:
    """Whether it is written as a recurrence rule, and not as cron."""
    return expression.lstrip().upper().startswith(("RRULE", "DTSTART", "FREQ="))


def check(expression: str) -> None:
    """Raises ValueError, saying what is wrong with a cron expression or a recurrence rule."""
    if not is_rule(expression):
        cron.check(expression)
        return
    rule = read(expression)
    start = _local(rule.start, ZoneInfo("UTC"))
    if rule.until is not None and _local(rule.until, ZoneInfo("UTC")) < start:
        raise ValueError("UNTIL lies before DTSTART")
    if next(iter(_rule(rule, start)), None) is None:
        raise ValueError(f"{expression[:80]!r} never comes due")


def fire_times(expression: str, time_zone: str, since: datetime, until: datetime) -> Iterator[datetime]:
    """Every due time t with since < t <= until, as UTC, in order. Both bounds are aware. Raises ValueError."""
    if not is_rule(expression):
        yield from cron.fire_times(expression, time_zone, since, until)
        return
    rule, zone = read(expression), ZoneInfo(time_zone)
    last = until if rule.until is None else min(until, _instant(rule.until, zone))
    if last <= since:
        return
    # a day more on either side: local times differ from instants by less
    low, high = (bound.astimezone(zone).replace(tzinfo=None) for bound in (since, last))
    local = _occurrences(rule, _local(rule.start, zone), low - timedelta(days=1), high + timedelta(days=1))
    # two local times may be one instant, or change places, where clocks are put forward
    yield from sorted({due for one in local if since < (due := _instant(one, zone)) <= last})


def _local(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment if moment.tzinfo is None else moment.astimezone(zone).replace(tzinfo=None)


def _instant(moment: datetime, zone: ZoneInfo) -> datetime:
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)


# -- reading ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def read(expression: str) -> Recurrence:
    """Raises ValueError, saying what is wrong."""
    start, line = START, ""
    for word in expression.upper().split():
        name, _, rest = word.partition(":")
        if name == "DTSTART" and rest and start is START:
            start = _moment(rest)
        elif not line and (name == "RRULE" or word.startswith("FREQ=")):
            line = rest if name == "RRULE" else word
        else:
            raise ValueError(f"{word[:60]!r}: a schedule is one RRULE, and before it a DTSTART where one is needed")
    if not line:
        raise ValueError(f"{expression[:80]!r} has no RRULE")
    parts = _parts(line)
    if "COUNT" in parts and start is START:
        raise ValueError("COUNT counts from a start: write DTSTART:20260105T090000 before the RRULE")
    if "COUNT" in parts and "UNTIL" in parts:
        raise ValueError("COUNT and UNTIL exclude each other")
    until = parts.pop("UNTIL", None)
    return _recurrence(parts, start, _end(until) if until else None)


def _parts(line: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    for part in line.rstrip(";").split(";"):
        name, _, value = part.partition("=")
        if name not in _PARTS or not value:
            raise ValueError(f"{part[:40]!r} is not a part of a recurrence rule; there are {', '.join(_PARTS)}")
        if name in parts:
            raise ValueError(f"{name} is there twice")
        parts[name] = value
    frequency = parts.get("FREQ", "")
    if frequency not in FREQUENCIES:
        raise ValueError(f"FREQ={frequency[:20]} is not one of {', '.join(FREQUENCIES)}")
    if "BYSETPOS" in parts and (
        frequency not in ("MONTHLY", "YEARLY") or parts["BYSETPOS"].count(",") >= MOST_POSITIONS
    ):
        raise ValueError(f"BYSETPOS goes with MONTHLY and YEARLY, and has at most {MOST_POSITIONS} values")
    # four messages an hour are more than anybody wants to decide about; every second is a slip of the pen
    if parts.get("BYSECOND", "").count(",") or len(parts.get("BYMINUTE", "").split(",")) > MOST_PER_HOUR:
        raise ValueError(f"at most {MOST_PER_HOUR} times an hour: fewer of BYMINUTE, and one BYSECOND")
    return parts


def _recurrence(parts: dict[str, str], start: datetime, until: datetime | None) -> Recurrence:
    frequency, interval = parts.pop("FREQ"), _whole(parts.pop("INTERVAL", "1"), "INTERVAL", 1000)
    count = parts.pop("COUNT", None)
    found = Recurrence(
        frequency=frequency,
        interval=interval,
        start=start,
        until=until,
        count=_whole(count, "COUNT", MOST_OCCURRENCES) if count else None,
        parts=tuple(sorted(parts.items())),
    )
    return _by_day(found) if frequency == "HOURLY" else found


def _by_day(rule: Recurrence) -> Recurrence:
    """Every so many hours, as hours of a day."""
    if 24 % rule.interval:
        raise ValueError(f"INTERVAL={rule.interval} hours do not divide a day; take 1, 2, 3, 4, 6, 8 or 12, or DAILY")
    if rule.start.tzinfo is not None and rule.interval > 1:
        raise ValueError("hours are counted in local time: write DTSTART without Z")
    parts = dict(rule.parts)
    hours = {hour for hour in range(24) if (hour - rule.start.hour) % rule.interval == 0}
    if "BYHOUR" in parts:
        hours &= {_whole(hour, "BYHOUR", 23, least=0) for hour in parts["BYHOUR"].split(",")}
    if not hours:
        raise ValueError("none of BYHOUR is an hour that INTERVAL meets")
    parts["BYHOUR"] = ",".join(map(str, sorted(hours)))
    return Recurrence("DAILY", 1, rule.start, rule.until, rule.count, tuple(sorted(parts.items())))


def _whole(value: str, name: str, most: int, *, least: int = 1) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 9 and least <= int(value) <= most):
        raise ValueError(f"{name}={value[:20]} is not a whole number from {least} to {most}")
    return int(value)


def _moment(value: str) -> datetime:
    for form in ("%Y%m%dT%H%M%S", "%Y%m%dT%H%M%SZ", "%Y%m%d"):
        try:
            found = datetime.strptime(value, form)  # noqa: DTZ007 - a local time, unless it ends in Z
        except ValueError:
            continue
        if not 1970 <= found.year <= 2200:
            raise ValueError(f"{value} is not a date between 1970 and 2200")
        return found.replace(tzinfo=UTC) if form.endswith("Z") else found
    raise ValueError(f"{value[:40]!r} is not a time such as 20260105T090000")


def _end(value: str) -> datetime:
    found = _moment(value)
    return datetime.combine(found, time.max) if "T" not in value else found


# -- working out ------------------------------------------------------------------------------------------------------

_CYCLE = 400
_CYCLES = 19
"""Times 400 years from the years of today to the last ones before 9999 that leave room for a cycle."""


def _occurrences(rule: Recurrence, start: datetime, low: datetime, high: datetime) -> list[datetime]:
    """Local times of the rule, low <= t <= high."""
    if rule.count is not None:
        return [one for one in _counted(rule, start) if low <= one <= high]
    if high < start:
        return []
    found = []
    for one in _rule(rule, start, _advanced(rule, start, low)):
        if one > high:
            break
        if one >= max(low, start):
            found.append(one)
    return found


@lru_cache(maxsize=128)
def _counted(rule: Recurrence, start: datetime) -> tuple[datetime, ...]:
    return tuple(islice(_rule(rule, start), rule.count))


def _rule(rule: Recurrence, start: datetime, since: datetime | None = None) -> Iterator[datetime]:
    """The local times of a rule that starts at `start`, without an end; `since`: as `_advanced` gives it."""
    from dateutil.rrule import rrulestr

    parts = _explicit(rule, start) | {"FREQ": rule.frequency, "INTERVAL": str(rule.interval)}
    line = ";".join(f"{name}={value}" for name, value in parts.items())
    cycles = _CYCLES if (since or start).year < 2200 else _CYCLES - 1
    try:
        made: Any = rrulestr(line, dtstart=_shifted(since or start, cycles))
    except (ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
        raise ValueError(f"{line[:80]!r} is not a recurrence rule: {error}") from None
    return (_shifted(one, -cycles) for one in made)


def _shifted(moment: datetime, cycles: int) -> datetime:
    return moment.replace(year=moment.year + cycles * _CYCLE)


def _explicit(rule: Recurrence, start: datetime) -> dict[str, str]:
    """The rule's parts, with those that it leaves to its start (RFC 5545, 3.3.10) said aloud."""
    parts = dict(rule.parts)
    if any(name in parts for name in _DAY_PARTS):
        return parts
    if rule.frequency == "YEARLY":
        parts.setdefault("BYMONTH", str(start.month))
    if rule.frequency in ("MONTHLY", "YEARLY"):
        parts["BYMONTHDAY"] = str(start.day)
    if rule.frequency == "WEEKLY":
        parts["BYDAY"] = _WEEKDAYS[start.weekday()]
    return parts


def _advanced(rule: Recurrence, start: datetime, low: datetime) -> datetime:
    """A start as good as the rule's own for what comes from `low` on: whole intervals later, and before `low`."""
    days = (low - start).days - 366
    if days <= 0:
        return start
    if rule.frequency in ("DAILY", "WEEKLY"):
        length = rule.interval * (7 if rule.frequency == "WEEKLY" else 1)
        return start + timedelta(days=days // length * length)
    months = (low.year - start.year - 1) * 12 + low.month - start.month
    length = rule.interval * (12 if rule.frequency == "YEARLY" else 1)
    count = start.month - 1 + months // length * length
    return start.replace(year=start.year + count // 12, month=count % 12 + 1, day=1)
