"""What sets a rule off, and how often it may take the same customer.

{event: [order.paid], frequency: once_per_key, key: event.order_id}
{schedule: "0 9 * * *", time_zone: customer, frequency: every_time, cooldown: P30D}
{entered: segment.vip}   {left: cluster.at_risk}
{missed: {event: checkout.started, goal: order.paid, within: P1D}}
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from . import condition as conditions
from . import duration, recurrence
from .condition import Condition
from .fields import Vocabulary, lookup
from .tree import Node, unique

Frequency = Literal["once", "every_time", "once_per_key"]
FREQUENCIES: tuple[Frequency, ...] = ("once", "every_time", "once_per_key")
TimeZone = Literal["shop", "customer"]
KINDS = ("event", "schedule", "entered", "left", "missed")


@dataclass(frozen=True, slots=True)
class Missed:
    """One of `events` came, and none of `goals` within `within` after it."""

    events: tuple[str, ...]
    goals: tuple[str, ...]
    within: timedelta

    def to_dict(self) -> dict[str, Any]:
        return {"event": list(self.events), "goal": list(self.goals), "within": duration.write(self.within)}


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
    time_zone: TimeZone = "shop"
    entered: str | None = None
    left: str | None = None
    missed: Missed | None = None

    @property
    def event_types(self) -> tuple[str, ...]:
        """The types of the event that comes with the trigger, whose properties a rule may use; none for the others."""
        return self.missed.events if self.missed else self.events

    def to_dict(self) -> dict[str, Any]:
        written = self._source()
        if self.time_zone != "shop":
            written["time_zone"] = self.time_zone
        written["frequency"] = self.frequency
        if self.key:
            written["key"] = self.key
        if self.cooldown:
            written["cooldown"] = duration.write(self.cooldown)
        return written

    def _source(self) -> dict[str, Any]:
        if self.missed is not None:
            return {"missed": self.missed.to_dict()}
        for name, value in (("entered", self.entered), ("left", self.left), ("schedule", self.schedule)):
            if value is not None:
                return {name: value}
        return {"event": list(self.events)}


def parse(node: Node, vocabulary: Vocabulary) -> When:
    """Read a rule's `when`. Raises RuleError, naming the path at fault."""
    children = node.mapping(*KINDS, "frequency", "key", "cooldown", "time_zone")
    named = [kind for kind in KINDS if kind in children]
    if len(named) != 1:
        raise node.fail(f"give either {', '.join(f'`{kind}`' for kind in KINDS[:-1])} or `{KINDS[-1]}`")
    frequency, cooldown, key, zone = (node.get(name) for name in ("frequency", "cooldown", "key", "time_zone"))
    chosen: Frequency = frequency.choice(FREQUENCIES) if frequency else "once"  # type: ignore[assignment]
    if (chosen == "once_per_key") != (key is not None):
        raise node.fail("`frequency: once_per_key` and `key` go together")
    if zone is not None and named[0] != "schedule":
        raise zone.fail("only a schedule has an hour, and so a time zone")
    source = node.need(named[0])
    when = When(
        events=read_events(source, vocabulary) if named[0] == "event" else (),
        schedule=_schedule(source) if named[0] == "schedule" else None,
        frequency=chosen,
        key=key.text(longest=120) if key else None,
        cooldown=cooldown.duration() if cooldown else None,
        time_zone=zone.choice(("shop", "customer")) if zone else "shop",  # type: ignore[arg-type]
        entered=_group(source, vocabulary) if named[0] == "entered" else None,
        left=_group(source, vocabulary) if named[0] == "left" else None,
        missed=_missed(source, vocabulary) if named[0] == "missed" else None,
    )
    if key is not None:
        _check_key(key, when.event_types, vocabulary)
    return when


def read_events(node: Node, vocabulary: Vocabulary) -> tuple[str, ...]:
    """One event type, or a list of them without repeats. Raises RuleError."""
    listed = [node] if isinstance(node.value, str) else node.items("event types")
    names = [one.choice(vocabulary.events) for one in listed]
    unique(zip(listed, names, strict=True), "event type")
    return tuple(names)


def _schedule(node: Node) -> str:
    expression = node.text(longest=500)
    try:
        recurrence.check(expression)
    except ValueError as error:
        raise node.fail(str(error)) from None
    return " ".join(expression.split())


def _group(node: Node, vocabulary: Vocabulary) -> str:
    """A saved segment by its key, or a cluster by its label (or a synonym of it)."""
    name = node.text(longest=120)
    family, _, key = name.partition(".")
    if family not in ("segment", "cluster") or not key:
        raise node.fail(f"{name!r} is not a group: segment.<key> or cluster.<label>")
    if family == "segment" and lookup(vocabulary.fields, name) is None:
        raise node.fail(f"there is no segment {key!r}")
    label = vocabulary.fields.get("cluster.label")
    if family == "cluster" and label is not None:
        key = label.synonyms.get(key, key)
        if label.values is not None and key not in label.values:
            raise node.fail(f"no cluster can have the label {key!r}; there are {', '.join(sorted(label.values))}")
    Node(key, node.path).key()
    return f"{family}.{key}"


def _missed(node: Node, vocabulary: Vocabulary) -> Missed:
    node.mapping("event", "goal", "within")
    events, goals = (read_events(node.need(name), vocabulary) for name in ("event", "goal"))
    within = node.need("within")
    if not within.duration():
        raise within.fail("a goal needs some time to be reached in")
    both = sorted(set(events) & set(goals))
    if both:
        raise node.need("goal").fail(f"{both[0]} is what starts the wait; it cannot also end it")
    return Missed(events, goals, within.duration())


def _check_key(node: Node, events: tuple[str, ...], vocabulary: Vocabulary) -> None:
    name = node.text(longest=120)
    if not events or not name.startswith("event."):
        raise node.fail("a key is a property of the triggering event, such as event.order_id")
    check_property(node, name, events, vocabulary, every=True)


def check_property(
    node: Node, name: str, events: tuple[str, ...], vocabulary: Vocabulary, *, every: bool = False
) -> None:
    """Raises RuleError where none (with `every`: not each) of the event types has the property `event.…`."""
    wanted = name.removeprefix("event.")
    having = [one for one in events if wanted in vocabulary.events[one] or "*" in vocabulary.events[one]]
    if not having or (every and len(having) < len(events)):
        lacking = next(one for one in events if one not in having)
        known = ", ".join(sorted(vocabulary.events[lacking])) or "none"
        raise node.fail(f"{lacking} has no property {wanted!r}; it has {known}")


def check_event_fields(node: Node, condition: Condition, when: When, vocabulary: Vocabulary) -> None:
    """Raises RuleError where a condition asks for a property that the trigger's event does not have."""
    for name in sorted(conditions.fields_of(condition)):
        if name.startswith("event."):
            if not when.event_types:
                kind = next(iter(when.to_dict()))
                raise node.fail(f"asks for {name}, but `{kind}` comes without an event")
            check_property(node, name, when.event_types, vocabulary)
