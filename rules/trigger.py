"""What sets a rule off, and how often it may take the same customer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

Frequency = Literal["once", "every_time", "once_per_key"]
FREQUENCIES: tuple[Frequency, ...] = ("once", "every_time", "once_per_key")


@dataclass(frozen=True, slots=True)
class Missed:
    """One of `events` came, and none of `goals` within `within` after it."""

    events: tuple[str, ...]
    goals: tuple[str, ...]
    within: timedelta


@dataclass(frozen=True, slots=True)
class When:
    """Exactly one of: `events`; `schedule` (cron, or an RRULE), for every customer; `entered` or `left` (a group such
    as "segment.vip" or "cluster.at_risk"); `missed` (a goal that was not reached in time).

    `frequency`: a customer enters once, every time, or once per value of `key` (such as event.order_id).
    `cooldown`: and not again before that much time has passed. `time_zone`: whose hour a schedule means.
    """

    events: tuple[str, ...] = ()
    schedule: str | None = None
    frequency: Frequency = "once"
    key: str | None = None
    cooldown: timedelta | None = None
    time_zone: Literal["shop", "customer"] = "shop"
    entered: str | None = None
    left: str | None = None
    missed: Missed | None = None
