"""What happens next to a customer who stands at a wait or a branch. Pure.

The order, for one run, is the order of shop time, whenever anything is processed:

1. An event that ends the run (`exit_on`, after the entry) counts from its own time, even when it is noticed later: it
   wins over whatever happens after it and, at the same instant, over the event waited for and over the time-out.
2. An event waited for counts from `listens_from` to `due_at`, both included; the earliest one is taken. The event that
   set the run off is not one of them.
3. At `due_at` the wait is over, or the branch is looked at.

So a clock that jumps by days gives the same course as one that creeps, if the same events are known. What has been
decided stands: an event of before a deadline that is heard of only after the run went on from there changes nothing
(unless it ends the run).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Seen:
    """Something a customer did. `at` is shop time."""

    at: datetime
    type: str
    event_id: UUID


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a run stands. `listens_from` and `events` are a wait's; `due_at`: when it is over, or the branch is looked
    at. Times are shop time."""

    path: str
    kind: Literal["wait", "branch"]
    due_at: datetime
    listens_from: datetime | None = None
    events: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bounds:
    """What of a run stays the same all the way. `begun_by`: the event that set it off."""

    entered_at: datetime
    exit_on: tuple[str, ...]
    begun_by: UUID | None


Kind = Literal["exit", "event", "over", "branch"]


@dataclass(frozen=True, slots=True)
class Happening:
    """`seen`: the event, of an exit or of a wait that it ended."""

    kind: Kind
    at: datetime
    seen: Seen | None = None


def happening(
    spot: Spot, bounds: Bounds, known: Sequence[Seen], until: datetime, fits: Callable[[Seen], bool]
) -> Happening | None:
    """The next thing that happens to the run by `until` (shop time); None: it goes on standing there.

    `known`: events of the customer, by time. `fits`: whether an event of a type that is waited for meets the wait's
    conditions.
    """
    then = _then(spot, bounds, known, until, fits)
    left = next((one for one in known if _ends(one, bounds, until)), None)
    if left is not None and (then is None or left.at <= then.at):
        return Happening("exit", left.at, left)
    return then


def _ends(seen: Seen, bounds: Bounds, until: datetime) -> bool:
    return seen.type in bounds.exit_on and bounds.entered_at < seen.at <= until


def _then(
    spot: Spot, bounds: Bounds, known: Sequence[Seen], until: datetime, fits: Callable[[Seen], bool]
) -> Happening | None:
    if spot.kind == "branch":
        return Happening("branch", spot.due_at) if spot.due_at <= until else None
    last = min(spot.due_at, until)
    for one in known:
        if one.type in spot.events and one.event_id != bounds.begun_by and _hears(spot, one.at, last) and fits(one):
            return Happening("event", one.at, one)
    return Happening("over", spot.due_at) if spot.due_at <= until else None


def _hears(spot: Spot, at: datetime, last: datetime) -> bool:
    return (spot.listens_from is None or spot.listens_from <= at) and at <= last
