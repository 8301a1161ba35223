"""When it happened: reading timestamps, and the rule for clocks that are wrong.

Segment's rule: a device that stamps `timestamp` and `sentAt` with the same wrong clock is corrected by the distance
between `sentAt` and our receipt. Then ours: before 1990 is an error, up to an hour ahead of the shop is "now", further
ahead is an error. How late an event may be and still trigger something is decided where it is processed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from operation_agent.kit.errors import Rejected

EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
FURTHEST_AHEAD = timedelta(hours=1)


def parse(value: object, where: str) -> datetime:
    """An ISO 8601 instant in UTC; one without an offset is taken as UTC. Raises Rejected."""
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value)
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise Rejected(
        f"{where} is not an ISO 8601 time such as 2026-01-31T09:30:00.000Z: {str(value)[:60]!r}",
        code="timestamp",
        where=where,
    )


def occurred(stated: object, sent: object, now: datetime, where: str = "timestamp") -> datetime:
    """When it happened, in shop time. `stated` and `sent` are as received (None when absent), `now` is the shop's."""
    at = now if stated is None else parse(stated, where)
    if sent is not None and stated is not None:
        try:
            at += now - parse(sent, "sentAt")
        except OverflowError:
            raise Rejected("timestamp and sentAt are too far apart", code="timestamp", where=where) from None
    return settled(at, now, where)


def settled(at: datetime, now: datetime, where: str) -> datetime:
    """`at` itself, or the shop's `now` for what is a little ahead of it. Raises Rejected for what cannot be."""
    if at < EARLIEST:
        raise Rejected(f"{where} is before 1990: {at.isoformat()}", code="timestamp_too_old", where=where)
    if at <= now:
        return at
    if at - now > FURTHEST_AHEAD:
        raise Rejected(
            f"{where} is {at - now} ahead of the shop's clock ({now.isoformat()}); at most 1 h is taken as now",
            code="timestamp_in_future",
            where=where,
        )
    return now


def needs_clock(messages: Iterable[object], sent: object, now: datetime) -> bool:
    """Whether the result depends on exactly what time it is: something has no time, was sent, or is ahead of `now`."""
    if sent is not None:
        return True
    for message in messages:
        if isinstance(message, dict):
            stated = message.get("timestamp", message.get("originalTimestamp"))
            if not isinstance(stated, str) or "sentAt" in message:
                return True
            try:
                if parse(stated, "timestamp") > now:
                    return True
            except Rejected:
                continue
    return False
