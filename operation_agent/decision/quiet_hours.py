"""Quiet hours: from one time of day to another, on the clocks of the customer's own time zone, no message goes out.

Pure. `zone` is the customer's where it is known, else the shop's (an IANA name; one that is none counts as UTC).
Instants are aware; what comes back is UTC. Changes of the clocks count as the clocks show them: an hour that comes
twice is quiet twice, and where the end of the quiet falls into an hour that is left out, the quiet ends with the jump.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from rules import moments
from rules.limits import QuietHours


def is_quiet(at: datetime, zone: str, quiet: QuietHours) -> bool:
    """Whether `at` lies in the quiet hours: `start` is quiet, `end` no longer is. From a time to itself: never."""
    return _covers(at.astimezone(moments.zone(zone)), quiet)


def next_allowed(at: datetime, zone: str, quiet: QuietHours) -> datetime:
    """The first instant from `at` on that is not quiet: `at` itself where it is not."""
    where, found = moments.zone(zone), at.astimezone(UTC)
    while _covers(found.astimezone(where), quiet):
        found = _next_end(found, where, quiet)
    return found


def _covers(local: datetime, quiet: QuietHours) -> bool:
    clock = local.time()
    if quiet.start <= quiet.end:
        return quiet.start <= clock < quiet.end
    return clock >= quiet.start or clock < quiet.end


def _next_end(at: datetime, where: ZoneInfo, quiet: QuietHours) -> datetime:
    """The next instant after `at` at which clocks show `end`, or jump over it."""
    found = moments.next_time(quiet.end, at + timedelta(microseconds=1), where)
    if found.astimezone(where).time() == quiet.end:
        return found
    jump = _jump(max(at, found - timedelta(hours=6)), found, where)
    return jump if jump is not None and jump > at else found


def _jump(low: datetime, high: datetime, where: ZoneInfo) -> datetime | None:
    """The instant between the two (to the second) from which clocks run by another offset; None: there is none."""
    before = low.astimezone(where).utcoffset()
    if high.astimezone(where).utcoffset() == before:
        return None
    low = low.replace(microsecond=0)  # a change of clocks falls on a whole second
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low).total_seconds() // 2)
        low, high = (middle, high) if middle.astimezone(where).utcoffset() == before else (low, middle)
    return high.replace(microsecond=0)
