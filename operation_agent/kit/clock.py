"""The only place that reads the time.

Business time is a shop's time: the system's, plus the offset of a sandbox shop. Leases, latencies and
time-outs are system time. Both are passed as arguments from the edge inwards.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The instant, aware, in UTC."""
        ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class OffsetClock:
    """A sandbox shop's clock: another clock, moved by `offset`."""

    base: Clock
    offset: timedelta

    def now(self) -> datetime:
        return self.base.now() + self.offset


@dataclass(slots=True)
class FixedClock:
    """For tests and replays: stands still until moved."""

    at: datetime

    def now(self) -> datetime:
        return self.at

    def advance(self, by: timedelta) -> None:
        self.at += by


SYSTEM = SystemClock()


def monotonic() -> float:
    """Seconds on a clock that never jumps; for durations within one process."""
    return time.monotonic()
