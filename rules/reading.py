"""Reading an arm's steps: what is written as a list of mappings becomes the values of `program`.

    - {action: coupon, percent: 10}
    - {wait: {event: [email.clicked], within: P3D}, then: [{exit: true}], else: [{action: email, …}]}
    - {delay: {until: "09:00"}}
    - {if: {all: […]}, then: […], else: […]}

What a text needs must be there on every way that leads to it: `coupon.*` wants a coupon step before it, whichever
branches were taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from . import condition as conditions
from . import step as steps_form
from .condition import Condition
from .fields import Vocabulary
from .moments import read_clock
from .program import AnyStep, Branch, Delay, Exit, Wait
from .step import Step
from .tree import Node
from .trigger import When, check_event_fields, check_property, read_events

KINDS = ("action", "delay", "wait", "if", "exit")
DEEPEST = 8
MOST_STEPS = 100

Provided = frozenset[str] | None
"""The actions that every way to a place has passed; None where no way leads to it."""


@dataclass(slots=True)
class _Reader:
    """What reading an arm needs to know, and the keys it has met."""

    when: When
    vocabulary: Vocabulary
    keys: set[str] = field(default_factory=set)
    count: int = 0


def arm_steps(node: Node, when: When, vocabulary: Vocabulary) -> tuple[AnyStep, ...]:
    """Read the steps of an arm; an empty list says out loud that it does nothing. Raises RuleError."""
    if node.value == []:
        return ()
    return _steps(node, "", frozenset(), _Reader(when, vocabulary), 0)[0]


def _steps(
    node: Node, prefix: str, provided: frozenset[str], reader: _Reader, depth: int
) -> tuple[tuple[AnyStep, ...], Provided]:
    if depth > DEEPEST:
        raise node.fail(f"steps nest deeper than {DEEPEST}")
    found: list[AnyStep] = []
    known: Provided = provided
    for index, one in enumerate(node.items("steps")):
        if known is None:
            raise one.fail("is never reached: every way before it leaves the arm")
        reader.count += 1
        if reader.count > MOST_STEPS:
            raise one.fail(f"an arm has at most {MOST_STEPS} steps")
        step, known = _step(one, f"{prefix}{index}", known, reader, depth)
        found.append(step)
    return tuple(found), known


def _step(node: Node, path: str, provided: frozenset[str], reader: _Reader, depth: int) -> tuple[AnyStep, Provided]:
    children = node.mapping()
    if "action" in children:  # an action has a `delay` of its own
        return _action(node, path, provided, reader)
    named = [kind for kind in KINDS if kind in children]
    if len(named) != 1:
        raise node.fail(f"a step is one of {', '.join(KINDS)}" + (f", not {' and '.join(named)}" if named else ""))
    key = _key(node, path, reader)
    if named[0] == "delay":
        node.mapping("delay", "key")
        return _delay(node.need("delay"), key, reader), provided
    if named[0] == "exit":
        node.mapping("exit", "key")
        if not node.need("exit").flag():
            raise node.need("exit").fail("`exit: true` leaves the arm; to stay, leave the step out")
        return Exit(key), None
    return _fork(node, named[0], key, path, provided, reader, depth)


def _action(node: Node, path: str, provided: frozenset[str], reader: _Reader) -> tuple[Step, frozenset[str]]:
    step = steps_form.parse(node, provided, key=_key(node, path, reader))
    if "product.id" in steps_form.text_variables(step) and not _has_product(reader):
        raise node.fail("uses product.id, but the trigger names no product")
    return step, steps_form.provides(step, provided)


def _has_product(reader: _Reader) -> bool:
    types = reader.when.event_types
    return bool(types) and all("product_id" in reader.vocabulary.events[one] for one in types)


def _key(node: Node, path: str, reader: _Reader) -> str:
    """The key that was given, or the path: neither is there twice."""
    given = node.get("key")
    key = given.key() if given else path
    if key in reader.keys and given:
        raise given.fail(f"a second step named {key!r}")
    reader.keys.add(key)
    return key


def _fork(
    node: Node, kind: str, key: str, path: str, provided: frozenset[str], reader: _Reader, depth: int
) -> tuple[Wait | Branch, Provided]:
    node.mapping(kind, "then", "else", "key")
    if kind == "if" and node.get("then") is None:
        raise node.need("then").fail("is missing")
    ways: list[tuple[tuple[AnyStep, ...], Provided]] = []
    for way in ("then", "else"):
        listed = node.get(way)
        if listed is None or listed.value == []:
            ways.append(((), provided))
        else:
            ways.append(_steps(listed, f"{path}.{way}.", provided, reader, depth + 1))
    if kind == "if" and not ways[0][0] and not ways[1][0]:
        raise node.fail("a branch with no steps on either way does nothing")
    ends = [known for _, known in ways if known is not None]
    after: Provided = frozenset.intersection(*ends) if ends else None
    if kind == "wait":
        return _wait(node.need("wait"), key, ways[0][0], ways[1][0], reader), after
    return Branch(_branch_condition(node.need("if"), reader), ways[0][0], ways[1][0], key), after


def _branch_condition(node: Node, reader: _Reader) -> Condition:
    found = conditions.parse(node, reader.vocabulary)
    check_event_fields(node, found, reader.when, reader.vocabulary)
    if any(leaf.op == "changed" for leaf in conditions.leaves(found)):
        raise node.fail("`changed` compares with the value before the trigger; a branch comes later, and has none")
    return found


def _wait(node: Node, key: str, then: tuple[AnyStep, ...], otherwise: tuple[AnyStep, ...], reader: _Reader) -> Wait:
    node.mapping("event", "within", "where", "name")
    events = read_events(node.need("event"), reader.vocabulary)
    where, name, within = node.get("where"), node.get("name"), node.need("within").duration()
    if not within:
        raise node.need("within").fail("a wait of no length waits for nothing")
    if name is not None and events != ("custom",):
        raise name.fail("only a custom event has a name: event: [custom]")
    return Wait(
        events=events,
        within=within,
        then=then,
        otherwise=otherwise,
        where=_event_condition(where, events, reader) if where else None,
        name=name.text(longest=200) if name else None,
        key=key,
    )


def _event_condition(node: Node, events: tuple[str, ...], reader: _Reader) -> Condition:
    known = reader.vocabulary
    found = conditions.parse(node, Vocabulary(known.fields, {}, known.aliases))  # the event itself, and no history
    for name in sorted(conditions.fields_of(found)):
        if not name.startswith("event."):
            raise node.fail(f"asks for {name}; of the event waited for, only event.* is known")
        check_property(node, name, events, reader.vocabulary)
    return found


# -- delays -----------------------------------------------------------------------------------------------------------


def _delay(node: Node, key: str, reader: _Reader) -> Delay:
    if not isinstance(node.value, dict):
        return Delay(span=node.duration(), key=key)
    children = node.mapping("until", "date", "plus")
    if ("until" in children) == ("date" in children):
        raise node.fail("give a duration, `until` or `date`")
    plus = node.get("plus")
    if "until" in children:
        if plus is not None:
            raise plus.fail("`plus` goes with `date`")
        return Delay(until=read_clock(node.need("until")), key=key)
    return Delay(date=_date(node.need("date"), reader), plus=signed(plus) if plus else timedelta(0), key=key)


def _date(node: Node, reader: _Reader) -> str:
    name = node.text(longest=120)
    if not reader.when.event_types or not name.startswith("event."):
        raise node.fail("a date is a property of the triggering event, such as event.starts_at")
    check_property(node, name, reader.when.event_types, reader.vocabulary)
    return name


def signed(node: Node) -> timedelta:
    """A duration that may be negative: -P1D. Raises RuleError."""
    written = node.text(longest=60)
    return -Node(written[1:], node.path).duration() if written.startswith("-") else node.duration()


def messages(steps: tuple[AnyStep, ...]) -> Iterator[Step]:
    """Every message among `steps`, those within waits and branches too."""
    for step in steps:
        if isinstance(step, Step):
            if step.is_message:
                yield step
        elif isinstance(step, Wait | Branch):
            yield from messages(step.then)
            yield from messages(step.otherwise)
