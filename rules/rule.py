"""Rules: when (a trigger) / if (a condition) / then (arms), and what ends it early.

key: cart-left
when: {event: [cart.added], frequency: every_time, cooldown: P14D}
if: {all: [{field: customer.open_cart, op: equals, value: true}]}
then:
  arms:
    - {key: reminder, weight: 1, steps: [{action: email, delay: PT1H, subject: …, body: …}]}
exit_on: [order.paid]
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from . import condition as conditions
from . import cron, duration, step
from .condition import Condition
from .fields import Vocabulary
from .step import Step
from .tree import Node, unique

Frequency = Literal["once", "every_time", "once_per_key"]
FREQUENCIES: tuple[Frequency, ...] = ("once", "every_time", "once_per_key")


@dataclass(frozen=True, slots=True)
class When:
    """Either `events` or a `schedule` (cron, in the shop's time zone, for every customer).

    `frequency`: a customer enters once, every time, or once per value of `key` (such as event.order_id).
    `cooldown`: and not again before that much time has passed.
    """

    events: tuple[str, ...] = ()
    schedule: str | None = None
    frequency: Frequency = "once"
    key: str | None = None
    cooldown: timedelta | None = None

    def to_dict(self) -> dict[str, Any]:
        written: dict[str, Any] = {"event": list(self.events)} if self.events else {"schedule": self.schedule}
        written["frequency"] = self.frequency
        if self.key:
            written["key"] = self.key
        if self.cooldown:
            written["cooldown"] = duration.write(self.cooldown)
        return written


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
    """One of the things a rule may do. No steps: to do nothing, on purpose."""

    key: str
    weight: float
    steps: tuple[Step, ...]
    prior: Prior | None = None

    def offsets(self) -> tuple[timedelta, ...]:
        """How long after the decision each step is due."""
        passed, found = timedelta(0), []
        for one in self.steps:
            passed += one.delay
            found.append(passed)
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        written = {"key": self.key, "weight": self.weight, "steps": [one.to_dict() for one in self.steps]}
        return {**written, "prior": self.prior.to_dict()} if self.prior else written


@dataclass(frozen=True, slots=True)
class Rule:
    key: str
    when: When
    condition: Condition
    arms: tuple[Arm, ...]
    exit_on: tuple[str, ...] = ()
    priority: int = 0
    name: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The canonical form: reading it gives this rule again."""
        name = {"name": self.name} if self.name else {}
        return {
            "key": self.key, **name, "when": self.when.to_dict(), "if": self.condition.to_dict(),
            "then": {"arms": [arm.to_dict() for arm in self.arms]}, "exit_on": list(self.exit_on),
            "priority": self.priority,
        }  # fmt: skip


def parse(node: Node, vocabulary: Vocabulary) -> Rule:
    """Read a rule. Raises RuleError, naming the path at fault."""
    node.mapping("key", "name", "when", "if", "then", "exit_on", "priority")
    name, priority, exit_on = node.get("name"), node.get("priority"), node.get("exit_on")
    when = _when(node.need("when"), vocabulary)
    rule = Rule(
        key=node.need("key").key(),
        name=name.languages(longest=200) if name else {},
        when=when,
        condition=conditions.parse(node.need("if"), vocabulary.fields),
        arms=_arms(node.need("then"), when, vocabulary),
        exit_on=_events(exit_on, vocabulary) if exit_on is not None and exit_on.value != [] else (),
        priority=priority.whole(low=-1000, high=1000) if priority else 0,
    )
    _check_event_fields(node.need("if"), rule, vocabulary)
    return rule


def _when(node: Node, vocabulary: Vocabulary) -> When:
    children = node.mapping("event", "schedule", "frequency", "key", "cooldown")
    if ("event" in children) == ("schedule" in children):
        raise node.fail("give either `event` or `schedule`")
    frequency, cooldown, key = node.get("frequency"), node.get("cooldown"), node.get("key")
    chosen: Frequency = frequency.choice(FREQUENCIES) if frequency else "once"  # type: ignore[assignment]
    if (chosen == "once_per_key") != (key is not None):
        raise node.fail("`frequency: once_per_key` and `key` go together")
    events = _events(node.need("event"), vocabulary) if "event" in children else ()
    if key is not None:
        _check_key(key, events, vocabulary)
    return When(
        events=events,
        schedule=_schedule(node.need("schedule")) if "schedule" in children else None,
        frequency=chosen,
        key=key.text(longest=120) if key else None,
        cooldown=cooldown.duration() if cooldown else None,
    )


def _events(node: Node, vocabulary: Vocabulary) -> tuple[str, ...]:
    listed = [node] if isinstance(node.value, str) else node.items("event types")
    names = [one.choice(vocabulary.events) for one in listed]
    unique(zip(listed, names, strict=True), "event type")
    return tuple(names)


def _schedule(node: Node) -> str:
    expression = node.text(longest=100)
    try:
        cron.check(expression)
    except ValueError as error:
        raise node.fail(str(error)) from None
    return " ".join(expression.split())


def _check_key(node: Node, events: tuple[str, ...], vocabulary: Vocabulary) -> None:
    name = node.text(longest=120)
    if not events or not name.startswith("event."):
        raise node.fail("a key is a property of the triggering event, such as event.order_id")
    _check_property(node, name, events, vocabulary, every=True)


def _check_property(
    node: Node, name: str, events: tuple[str, ...], vocabulary: Vocabulary, *, every: bool = False
) -> None:
    wanted = name.removeprefix("event.")
    having = [one for one in events if wanted in vocabulary.events[one] or "*" in vocabulary.events[one]]
    if not having or (every and len(having) < len(events)):
        lacking = next(one for one in events if one not in having)
        known = ", ".join(sorted(vocabulary.events[lacking])) or "none"
        raise node.fail(f"{lacking} has no property {wanted!r}; it has {known}")


def _check_event_fields(node: Node, rule: Rule, vocabulary: Vocabulary) -> None:
    for name in sorted(conditions.fields_of(rule.condition)):
        if name.startswith("event."):
            if not rule.when.events:
                raise node.fail(f"asks for {name}, but a schedule comes without an event")
            _check_property(node, name, rule.when.events, vocabulary)


def _arms(node: Node, when: When, vocabulary: Vocabulary) -> tuple[Arm, ...]:
    node.mapping("arms")
    nodes = node.need("arms").items("arms")
    arms = [_arm(one, when, vocabulary) for one in nodes]
    unique(((one.need("key"), arm.key) for one, arm in zip(nodes, arms, strict=True)), "arm")
    if sum(arm.weight for arm in arms) <= 0:
        raise node.need("arms").fail("the weights add up to nothing")
    return tuple(arms)


def _arm(node: Node, when: When, vocabulary: Vocabulary) -> Arm:
    node.mapping("key", "weight", "steps", "prior")
    weight, prior, listed = node.get("weight"), node.get("prior"), node.need("steps")
    steps: list[Step] = []
    # an empty list is said out loud: this arm does nothing
    for one in listed.items("steps") if listed.value != [] else []:
        steps.append(step.parse(one, frozenset(before.action for before in steps)))
        if "product.id" in step.text_variables(steps[-1]) and not _has_product(when, vocabulary):
            raise one.fail("uses product.id, but the trigger names no product")
    return Arm(
        key=node.need("key").key(),
        weight=float(weight.number(low=0, high=1e6)) if weight else 1.0,
        steps=tuple(steps),
        prior=_prior(prior) if prior else None,
    )


def _has_product(when: When, vocabulary: Vocabulary) -> bool:
    return bool(when.events) and all("product_id" in vocabulary.events[one] for one in when.events)


def _prior(node: Node) -> Prior:
    node.mapping("increment", "redemption")
    increment = float(node.need("increment").number(low=-1, high=1))
    redemption = node.get("redemption")
    return Prior(increment, float(redemption.number(low=0, high=1)) if redemption else max(increment, 0.0))
