"""What an arm does, step after step: actions, delays, waits and branches; and where in it a customer stands.

A *path* names a place in the tree of steps: "2" is the third step, "2.then.0" the first one of its `then`. Pure: the
agent keeps the place and the time, this says what comes next.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Literal

from .condition import Condition
from .step import Step


@dataclass(frozen=True, slots=True)
class Delay:
    """Exactly one of: `span`; `until` (the next such time of day, of the customer's zone where it is known, else the
    shop's); `date` (a property of the trigger that holds an instant) plus `plus`, which may be negative."""

    span: timedelta | None = None
    until: time | None = None
    date: str | None = None
    plus: timedelta = timedelta(0)
    key: str = ""


@dataclass(frozen=True, slots=True)
class Wait:
    """Until one of `events` (that meets `where`, over event.*) comes: `then`; when `within` has passed: `otherwise`.
    Both go on after this step. `name` is a custom event's."""

    events: tuple[str, ...]
    within: timedelta
    then: tuple[AnyStep, ...] = ()
    otherwise: tuple[AnyStep, ...] = ()
    where: Condition | None = None
    name: str | None = None
    key: str = ""


@dataclass(frozen=True, slots=True)
class Branch:
    """`condition` true at that moment: `then`; false or unknown: `otherwise`. Both go on after this step."""

    condition: Condition
    then: tuple[AnyStep, ...]
    otherwise: tuple[AnyStep, ...] = ()
    key: str = ""


@dataclass(frozen=True, slots=True)
class Exit:
    """The customer leaves the arm here."""

    key: str = ""


AnyStep = Step | Delay | Wait | Branch | Exit


@dataclass(frozen=True, slots=True)
class Placed:
    """An action step with its place. `number` counts the actions of the arm in reading order, from 0."""

    number: int
    path: str
    step: Step


@dataclass(frozen=True, slots=True)
class Due:
    """An action and when it is due (UTC, shop time). `after_coupon`: the number of the coupon step before it on the
    way, whose code it may carry."""

    placed: Placed
    due_at: datetime
    after_coupon: int | None = None


@dataclass(frozen=True, slots=True)
class Parked:
    """Where a customer stands until something is known. A `branch` is looked at from `at` on; a `wait` listens from
    `at` until `deadline`."""

    path: str
    kind: Literal["wait", "branch"]
    at: datetime
    deadline: datetime | None = None


@dataclass(frozen=True, slots=True)
class Walked:
    """What comes before the next place to stop; `parked` None: the arm ends, or was left by an `exit`."""

    due: tuple[Due, ...]
    parked: Parked | None
