"""What an arm does, step after step: actions, delays, waits and branches; and where in it a customer stands.

A *path* names a place in the tree of steps: "2" is the third step, "2.then.0" the first one of its `then`, and the
place after the last step is the end. Pure: the agent keeps the place and the time, this says what comes next.
`reading` makes these values from what is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import Any, Literal

from . import duration, moments
from .condition import Condition
from .step import Step

START = "0"
"""The path of an arm's first step."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Exactly one of: `span`; `until` (the next such time of day, of the customer's zone where it is known, else the
    shop's); `date` (a property of the trigger that holds an instant) plus `plus`, which may be negative."""

    span: timedelta | None = None
    until: time | None = None
    date: str | None = None
    plus: timedelta = timedelta(0)
    key: str = ""

    def to_dict(self) -> dict[str, Any]:
        if self.span is not None:
            return {"delay": duration.write(self.span), **_key(self.key)}
        if self.until is not None:
            return {"delay": {"until": f"{self.until:%H:%M}"}, **_key(self.key)}
        plus = {"plus": write_signed(self.plus)} if self.plus else {}
        return {"delay": {"date": self.date, **plus}, **_key(self.key)}


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

    def to_dict(self) -> dict[str, Any]:
        wait: dict[str, Any] = {"event": list(self.events), "within": duration.write(self.within)}
        if self.where is not None:
            wait["where"] = self.where.to_dict()
        if self.name is not None:
            wait["name"] = self.name
        return {"wait": wait, **_ways(self), **_key(self.key)}


@dataclass(frozen=True, slots=True)
class Branch:
    """`condition` true at that moment: `then`; false or unknown: `otherwise`. Both go on after this step."""

    condition: Condition
    then: tuple[AnyStep, ...]
    otherwise: tuple[AnyStep, ...] = ()
    key: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {"if": self.condition.to_dict(), **_ways(self), **_key(self.key)}


@dataclass(frozen=True, slots=True)
class Exit:
    """The customer leaves the arm here."""

    key: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {"exit": True, **_key(self.key)}


AnyStep = Step | Delay | Wait | Branch | Exit


def _ways(step: Wait | Branch) -> dict[str, Any]:
    ways = (("then", step.then), ("else", step.otherwise))
    return {name: [one.to_dict() for one in steps] for name, steps in ways if steps}


def _key(key: str) -> dict[str, str]:
    """A key that was given; one that starts with a digit is the path, and follows from where the step stands."""
    return {"key": key} if key and not key[0].isdigit() else {}


def write_signed(value: timedelta) -> str:
    """A duration that may be negative: -P1D."""
    return f"-{duration.write(-value)}" if value < timedelta(0) else duration.write(value)


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
    """What comes before the next place to stop; `parked` None: the arm ends, or was left by an `exit`. `coupon`: the
    number of the latest coupon step on the way, to be handed to the next `walk`."""

    due: tuple[Due, ...]
    parked: Parked | None
    coupon: int | None = None


@dataclass(frozen=True, slots=True)
class Prior:
    """What an arm is thought to do before anything was measured: by how much it raises the chance of an order, and
    the chance that its coupon is redeemed."""

    increment: float
    redemption: float

    def to_dict(self) -> dict[str, Any]:
        return {"increment": self.increment, "redemption": self.redemption}


@dataclass(frozen=True, slots=True)
class Arm:
    """One of the things a rule may do. No steps: to do nothing, on purpose. `places`: its actions by path, in reading
    order (made from the steps; not part of what the arm is)."""

    key: str
    weight: float
    steps: tuple[AnyStep, ...]
    prior: Prior | None = None
    places: Mapping[str, Placed] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = (entry for entry in walk_tree(self.steps) if isinstance(entry[1], Step))
        places = {path: Placed(number, path, step) for number, (path, step) in enumerate(found)}  # type: ignore[arg-type]
        object.__setattr__(self, "places", places)

    def to_dict(self) -> dict[str, Any]:
        written = {"key": self.key, "weight": self.weight, "steps": [one.to_dict() for one in self.steps]}
        return {**written, "prior": self.prior.to_dict()} if self.prior else written


def walk_tree(steps: Sequence[AnyStep], prefix: str = "") -> Iterator[tuple[str, AnyStep]]:
    """Every step with its path, in reading order: a step, then its `then`, then its `else`."""
    for index, step in enumerate(steps):
        path = f"{prefix}{index}"
        yield path, step
        if isinstance(step, Wait | Branch):
            yield from walk_tree(step.then, f"{path}.then.")
            yield from walk_tree(step.otherwise, f"{path}.else.")


def actions(arm: Arm) -> tuple[Placed, ...]:
    """Every action of the arm in reading order; the numbers of one without waits and branches are its indices."""
    return tuple(arm.places.values())


def at_path(arm: Arm, path: str) -> AnyStep | None:
    """The step at a path; None at an end, or where there is no such place (in another version of the arm)."""
    frames = _frames(arm, path)
    if not frames or frames[-1].index >= len(frames[-1].steps):
        return None
    return frames[-1].steps[frames[-1].index]


def walk(
    arm: Arm, path: str, at: datetime, zone: str, properties: Mapping[str, Any], *, coupon: int | None = None
) -> Walked:
    """From the place `path` on, at the instant `at`, everything up to the first wait or branch.

    `zone`: the customer's time zone where it is known, else the shop's (an unknown name counts as UTC); `properties`:
    of the triggering event. `coupon`: as the walk before returned it; without it, the coupon step that the tree alone
    tells to lie before `path`. Delays add up; a date in the past, missing or unreadable makes the step due at once.
    """
    frames = _frames(arm, path)
    due: list[Due] = []
    if coupon is None and path != START:
        coupon = _coupon_before(arm, frames)
    while (here := _settle(frames)) is not None:
        place, step = here
        if isinstance(step, Exit):
            break
        if isinstance(step, Wait):
            return Walked(tuple(due), Parked(place, "wait", at, at + step.within), coupon)
        if isinstance(step, Branch):
            return Walked(tuple(due), Parked(place, "branch", at), coupon)
        if isinstance(step, Delay):
            at = delayed(step, at, zone, properties)
        else:
            at += step.delay
            due.append(Due(arm.places[place], at, coupon))
            coupon = arm.places[place].number if step.action == "coupon" else coupon
        frames[-1].index += 1
    return Walked(tuple(due), None, coupon)


def resume(arm: Arm, parked_path: str, outcome: bool) -> str:
    """Where to go on from a wait or a branch: into `then` when it came true, into `else` otherwise; past the step
    where that way is empty. At the end of the arm, the path after its last step; so too from an unknown place."""
    frames = _frames(arm, parked_path)
    here = _settle(frames)
    if here is None:
        return str(len(arm.steps))
    place, step = here
    if isinstance(step, Wait | Branch) and (step.then if outcome else step.otherwise):
        return f"{place}.{'then' if outcome else 'else'}.0"
    frames[-1].index += 1
    further = _settle(frames)
    return further[0] if further else str(len(arm.steps))


def costliest(arm: Arm, costs: Sequence[Any], larger: Callable[[Any, Any], Any] = max) -> Any:
    """What the dearest way through the arm costs. `costs`: of each action by its number, none negative; numbers, or
    arrays of numbers with `larger` their maximum (numpy.maximum)."""
    left, passed = _dearest(arm.steps, "", arm, costs, larger)
    found = [one for one in (left, passed) if one is not None]
    return found[0] if len(found) == 1 else larger(found[0], found[1])


def _dearest(
    steps: Sequence[AnyStep], prefix: str, arm: Arm, costs: Sequence[Any], larger: Callable[[Any, Any], Any]
) -> tuple[Any, Any]:
    """(dearest way that leaves the arm within `steps`, dearest that comes out at their end); None: there is none."""

    def most(one: Any, other: Any) -> Any:
        return other if one is None else one if other is None else larger(one, other)

    left, passed = None, 0.0
    for index, step in enumerate(steps):
        path = f"{prefix}{index}"
        if isinstance(step, Step):
            passed = passed + costs[arm.places[path].number]
        elif isinstance(step, Exit):
            return most(left, passed), None
        elif isinstance(step, Wait | Branch):
            ways = [
                _dearest(step.then, f"{path}.then.", arm, costs, larger),
                _dearest(step.otherwise, f"{path}.else.", arm, costs, larger),
            ]
            for gone, _ in ways:
                left = most(left, None if gone is None else passed + gone)
            through = most(ways[0][1], ways[1][1])
            if through is None:
                return left, None
            passed = passed + through
    return left, passed


# -- places -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Frame:
    """A place in one list of steps; `prefix` is the path of the list."""

    prefix: str
    steps: Sequence[AnyStep]
    index: int


def _frames(arm: Arm, path: str) -> list[_Frame]:
    """The lists from the arm's own down to the one that holds `path`; empty when there is no such place."""
    frames: list[_Frame] = []
    steps: Sequence[AnyStep] = arm.steps
    prefix = ""
    parts = path.split(".")
    for depth in range(0, len(parts), 2):
        if not (parts[depth].isascii() and parts[depth].isdigit()) or int(parts[depth]) > len(steps):
            return []
        frames.append(_Frame(prefix, steps, int(parts[depth])))
        if depth + 1 == len(parts):
            return frames
        step = steps[int(parts[depth])] if int(parts[depth]) < len(steps) else None
        way = parts[depth + 1]
        if not isinstance(step, Wait | Branch) or way not in ("then", "else"):
            return []
        prefix += f"{parts[depth]}.{way}."
        steps = step.then if way == "then" else step.otherwise
    return []


def _settle(frames: list[_Frame]) -> tuple[str, AnyStep] | None:
    """The step to do next: from the end of a list up to what follows in the list around it. None at the end."""
    while frames:
        here = frames[-1]
        if here.index < len(here.steps):
            return f"{here.prefix}{here.index}", here.steps[here.index]
        frames.pop()
        if frames:
            frames[-1].index += 1
    return None


def _coupon_before(arm: Arm, frames: Sequence[_Frame]) -> int | None:
    """The last coupon step that every way to this place has passed; where ways differ, the last one written."""
    for frame in reversed(frames):
        for index in range(min(frame.index, len(frame.steps)) - 1, -1, -1):
            found = _last_coupon(arm, frame.steps[index], f"{frame.prefix}{index}")
            if found is not None:
                return found
    return None


def _last_coupon(arm: Arm, step: AnyStep, path: str) -> int | None:
    """A coupon that whoever passes `step` has got: of both ways of a fork, unless one leaves the arm."""
    if isinstance(step, Step):
        return arm.places[path].number if step.action == "coupon" else None
    if not isinstance(step, Wait | Branch):
        return None
    found: int | None = None
    for steps, way in ((step.then, "then"), (step.otherwise, "else")):
        if always_leaves(steps):
            continue
        listed = [(one, f"{path}.{way}.{index}") for index, one in enumerate(steps)]
        own = next((number for one in reversed(listed) if (number := _last_coupon(arm, *one)) is not None), None)
        if own is None:
            return None
        found = own
    return found


def always_leaves(steps: Sequence[AnyStep]) -> bool:
    """Whether every way through `steps` leaves the arm before their end."""
    return any(
        isinstance(step, Exit)
        or (isinstance(step, Wait | Branch) and always_leaves(step.then) and always_leaves(step.otherwise))
        for step in steps
    )


# -- times ------------------------------------------------------------------------------------------------------------


def delayed(step: Delay, at: datetime, zone: str, properties: Mapping[str, Any]) -> datetime:
    """When `step` is over for who comes to it at `at` (aware); never before `at`. UTC."""
    if step.span is not None:
        return at + step.span
    where = moments.zone(zone)
    if step.until is not None:
        return moments.next_time(step.until, at, where)
    found = moments.instant(properties.get((step.date or "").removeprefix("event.")), where)
    try:
        return at if found is None else max(at, found + step.plus)
    except OverflowError:
        return at
