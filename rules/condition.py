"""Conditions: a tree of `all` / `any` / `none` groups over typed comparisons.

    all:
      - {field: customer.days_since_order, op: gt, value: 90}
      - {history: {event: product.viewed, within: P7D}, op: gte, value: 3}
      - {field: cluster.label, op: equals, value: at_risk, for: P3D}
      - any:
          - {field: customer.interpurchase_days, op: not_exists}
          - {field: customer.days_since_order, op: gt, value: {field: customer.interpurchase_days, times: 2}}

A group is never empty: an empty one would silently mean "everybody" or "nobody". Comparing something missing gives
*unknown*, not false (`evaluate`). What cannot be true for anybody (x > 10 and x < 5) is an error on load. Synonyms
and aliases are read, and the canonical form is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from . import bounds, duration, operand
from .fields import Fields, FieldType, Vocabulary, lookup
from .operand import Change as Change
from .operand import Operand as Operand
from .operand import Reference as Reference
from .operand import Relative as Relative
from .operand import Value as Value
from .tree import Node

GroupKind = Literal["all", "any", "none"]
GROUPS: tuple[GroupKind, ...] = ("all", "any", "none")

ORDERED = ("lt", "lte", "gt", "gte")
_EVERY_KIND = frozenset({"number", "flag", "label", "time", "list", "any"})
OPERATORS: dict[str, frozenset[str]] = {
    "equals": frozenset({"number", "flag", "label", "any"}),
    "not_equals": frozenset({"number", "flag", "label", "any"}),
    "in": frozenset({"number", "label", "any"}),
    "not_in": frozenset({"number", "label", "any"}),
    "lt": frozenset({"number", "time", "any"}),
    "lte": frozenset({"number", "time", "any"}),
    "gt": frozenset({"number", "time", "any"}),
    "gte": frozenset({"number", "time", "any"}),
    "between": frozenset({"number", "time", "any"}),
    "contains": frozenset({"list", "label", "any"}),
    "exists": _EVERY_KIND,
    "not_exists": _EVERY_KIND,
    "within": frozenset({"number", "time"}),
    "changed": _EVERY_KIND,
}
"""Each operator with the kinds of field it compares. `between` includes both ends; `within` looks back from the
moment of the decision, at an instant or at a number of days; `changed` looks at the value before the trigger."""

WITHOUT_BEFORE = ("event", "random", "history")
"""Rooms whose fields have no value before the trigger."""

DEEPEST = 12
MOST_LEAVES = 200

Measure = Literal["count", "sum", "distinct", "days_since_last", "days_since_first"]
MEASURES: tuple[Measure, ...] = ("count", "sum", "distinct", "days_since_last", "days_since_first")
AMOUNT = "amount_minor"
"""What `of` calls the money of any event that has some (an order's total_minor, say)."""


@dataclass(frozen=True, slots=True)
class History:
    """A number told of a customer's past events: how many, how long ago. `of`: the property that `sum` adds up or
    `distinct` counts. `where` looks at each event's own properties; `name` is a custom event's. Events count up to the
    moment of the decision, the triggering one included, and back to `within` before it. Of no event at all, `count`,
    `sum` and `distinct` are 0 and the days are missing."""

    event: str
    measure: Measure = "count"
    within: timedelta | None = None
    of: str | None = None
    name: str | None = None
    where: Condition | None = None

    def to_dict(self) -> dict[str, Any]:
        written: dict[str, Any] = {"event": self.event, "measure": self.measure}
        if self.within is not None:
            written["within"] = duration.write(self.within)
        written |= {key: value for key, value in (("of", self.of), ("name", self.name)) if value is not None}
        return written | ({"where": self.where.to_dict()} if self.where is not None else {})

    @property
    def column(self) -> str:
        """The name of its column: two histories that ask the same share it."""
        return "history:" + json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))

    @property
    def type(self) -> FieldType:
        """Days may be compared with a duration by `within`."""
        return FieldType("number", unit="days" if self.measure.startswith("days_") else None)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One comparison. `kind` is the field's, fixed when the condition was read. With `history`, `field` is its column.
    `held`: the comparison must have held for so long; the column `<field>.since` (an instant) says since when."""

    field: str
    op: str
    value: Value
    kind: str
    history: History | None = None
    held: timedelta | None = None

    def to_dict(self) -> dict[str, Any]:
        asked = {"history": self.history.to_dict()} if self.history is not None else {"field": self.field}
        written: dict[str, Any] = {**asked, "op": self.op}
        if self.value is not None:
            written["value"] = operand.write(self.value)
        return written if self.held is None else {**written, "for": duration.write(self.held)}

    @property
    def references(self) -> tuple[str, ...]:
        """The other fields it is compared with."""
        operands = self.value if isinstance(self.value, tuple) else (self.value,)
        return tuple(one.field for one in operands if isinstance(one, Reference))

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column it looks at."""
        since = (since_column(self.field),) if self.held is not None else ()
        before = (before_column(self.field),) if self.op == "changed" else ()
        return (self.field, *self.references, *since, *before)


def since_column(field: str) -> str:
    """The instant since when the field has had its present value."""
    return f"{field}.since"


def before_column(field: str) -> str:
    """The field's value before the trigger."""
    return f"before:{field}"


@dataclass(frozen=True, slots=True)
class Group:
    kind: GroupKind
    children: tuple[Condition, ...]

    def to_dict(self) -> dict[str, Any]:
        return {self.kind: [child.to_dict() for child in self.children]}


Condition = Leaf | Group


def parse(node: Node, known: Vocabulary | Fields) -> Condition:
    """Read a condition. Raises RuleError, naming the path at fault. With mere fields nothing can be asked of past
    events."""
    vocabulary = known if isinstance(known, Vocabulary) else Vocabulary(known, {})
    condition, count = _condition(node, vocabulary, depth=0)
    if count > MOST_LEAVES:
        raise node.fail(f"{count} comparisons; at most {MOST_LEAVES} can be read by a person")
    return condition


def leaves(condition: Condition) -> list[Leaf]:
    """Every comparison of the tree, in reading order."""
    if isinstance(condition, Leaf):
        return [condition]
    return [leaf for child in condition.children for leaf in leaves(child)]


def fields_of(condition: Condition) -> set[str]:
    """Every field the condition names, references included; not what it asks of past events."""
    named = (({leaf.field} if leaf.history is None else set()).union(leaf.references) for leaf in leaves(condition))
    return set().union(*named)


def histories_of(condition: Condition) -> dict[str, History]:
    """What the condition asks of past events, by column."""
    return {leaf.field: leaf.history for leaf in leaves(condition) if leaf.history is not None}


def columns_of(condition: Condition) -> set[str]:
    """Every column the condition looks at: fields, histories, `<field>.since` and `before:<field>`."""
    return {name for leaf in leaves(condition) for name in leaf.columns}


# -- reading ----------------------------------------------------------------------------------------------------------


def _condition(node: Node, known: Vocabulary, depth: int) -> tuple[Condition, int]:
    if depth > DEEPEST:
        raise node.fail(f"groups nest deeper than {DEEPEST}")
    children = node.mapping("field", "history", "op", "value", "for", *GROUPS)
    named: list[GroupKind] = [kind for kind in GROUPS if kind in children]
    if not named:
        return _leaf(node, known)
    if len(children) > 1:
        raise node.fail(f"a group has one key, not {', '.join(children)}")
    kind = named[0]
    read = [_condition(child, known, depth + 1) for child in children[kind].items("conditions")]
    group = Group(kind, tuple(child for child, _ in read))
    if kind != "any":
        _refuse_contradictions(node, group, known)
    return group, sum(count for _, count in read)


def _leaf(node: Node, known: Vocabulary) -> tuple[Leaf, int]:
    children = node.mapping("field", "history", "op", "value", "for")
    history, count = None, 1
    if "history" in children:
        if "field" in children:
            raise node.fail("give either `field` or `history`")
        history, inner = _history(node.need("history"), known)
        name, field, count = history.column, history.type, 1 + inner
    else:
        name, field = operand.find_field(node.need("field"), known)
    op = _operator(node, name if history is None else f"`{history.measure}`", field)
    leaf = Leaf(name, op, _value(node, op, field, known), field.kind, history, _held(node, op, name, field))
    _refuse_contradictions(node, leaf, known)
    return leaf, count


def _operator(node: Node, name: str, field: FieldType) -> str:
    chosen = node.need("op")
    op = chosen.choice(OPERATORS)
    if field.kind not in OPERATORS[op] or (op == "within" and field.kind == "number" and field.unit != "days"):
        fitting = [known for known, kinds in OPERATORS.items() if field.kind in kinds and known != "within"]
        raise chosen.fail(f"{name} is a {field.kind}; it takes {', '.join(fitting)}, not {op}")
    if op == "changed" and (node.get("history") or name.partition(".")[0] in WITHOUT_BEFORE):
        raise chosen.fail(f"{name} has no value before the trigger that it could have changed from")
    return op


def _value(node: Node, op: str, field: FieldType, known: Vocabulary) -> Value:
    if op in ("exists", "not_exists"):
        if node.get("value") is not None:
            raise node.need("value").fail(f"{op} takes no value")
        return None
    if op == "changed" and node.get("value") is None:
        return None
    wanted = node.need("value")
    if op == "changed":
        return operand.change(wanted, field)
    if op == "within":
        return wanted.duration()
    if op in ("in", "not_in"):
        return operand.several(wanted, field)
    if op == "between":
        return operand.between(wanted, field, known)
    if op == "contains" and field.kind != "any":
        return wanted.text(longest=500)
    return operand.operand(wanted, field, known, ordered=op in ORDERED)


def _held(node: Node, op: str, name: str, field: FieldType) -> timedelta | None:
    given = node.get("for")
    if given is None:
        return None
    if not field.has_since:
        raise given.fail(f"since when {name} has its value is not known; `for` goes with groups and memberships")
    if op != "equals" and not (op == "not_equals" and field.kind == "flag"):
        raise given.fail(f"`for` says how long the present value has been there; it goes with equals, not {op}")
    span = given.duration()
    if not span:
        raise given.fail("a time longer than nothing is wanted; leave `for` out otherwise")
    return span


def _history(node: Node, known: Vocabulary) -> tuple[History, int]:
    if not known.events:
        raise node.fail("past events cannot be asked for here")
    node.mapping("event", "measure", "within", "of", "name", "where")
    event = node.need("event").choice(known.events)
    given, name, where = node.get("measure"), node.get("name"), node.get("where")
    measure: Measure = given.choice(MEASURES) if given else "count"  # type: ignore[assignment]
    own = {f"event.{one}" for one in known.events[event]}
    if name is not None and "event.*" not in own:
        raise name.fail(f"only a custom event has a name of its own, {event} has none")
    condition, count = _condition(where, _properties(event, known), depth=1) if where else (None, 0)
    return History(
        event=event, measure=measure, within=_window(node), of=_of(node, event, measure, known),
        name=name.text(longest=120) if name else None, where=condition,
    ), count  # fmt: skip


def _window(node: Node) -> timedelta | None:
    within = node.get("within")
    span = within.duration() if within else None
    if within is not None and not span:
        raise within.fail("a time longer than nothing is wanted; leave `within` out to look at all of it")
    return span


def _of(node: Node, event: str, measure: Measure, known: Vocabulary) -> str | None:
    of = node.get("of")
    if measure not in ("sum", "distinct"):
        if of is not None:
            raise of.fail(f"{measure} looks at events, not at a property; `of` goes with sum and distinct")
        return None
    if of is None:
        raise node.fail(f"`of` is missing: the property that {measure} looks at")
    name, properties = of.text(longest=120), known.events[event]
    if name == AMOUNT and any(one.endswith("_minor") for one in properties):
        return name
    if name not in properties and "*" not in properties:
        raise of.fail(f"{event} has no property {name!r}; it has {', '.join(sorted(properties)) or 'none'}")
    field = lookup(known.fields, f"event.{name}")
    if measure == "sum" and (field is None or field.kind not in ("number", "any")):
        raise of.fail(f"{name} is no number, so there is no sum of it")
    return name


def _properties(event: str, known: Vocabulary) -> Vocabulary:
    """What may be asked of one event of a type: its own properties."""
    names = {f"event.{one}" for one in known.events[event]}
    found = {name: lookup(known.fields, name) for name in names}
    fields: dict[str, FieldType] = {name: field or FieldType("any") for name, field in found.items()}
    if "event.*" in names:
        fields = {name: field for name, field in known.fields.items() if name.startswith("event.")} | fields
    return Vocabulary(fields, {}, {alias: name for alias, name in known.aliases.items() if name in fields})


# -- contradictions ---------------------------------------------------------------------------------------------------


def _refuse_contradictions(node: Node, condition: Condition, known: Vocabulary) -> None:
    possible: dict[str, bounds.Possible] = {}
    for at, leaf, holds in _demanded(node, condition, True):
        asked = bounds.demands(leaf.field, leaf.op, leaf.value, leaf.kind, holds=holds, held=leaf.held is not None)
        for field, op, value in asked:
            before = possible.get(field) or _at_first(field, leaf, known)
            possible[field] = after = bounds.narrow(before, op, value)
            if after.is_empty():
                about = leaf.field if leaf.history is None else f"the {leaf.history.measure} of {leaf.history.event}"
                raise at.fail(f"contradicts what is asked of {about} beside it, or what it can be: nobody can meet it")


def _demanded(node: Node, condition: Condition, holds: bool) -> Iterator[tuple[Node, Leaf, bool]]:
    """The comparisons that must come out true (`holds`) or false for the condition to; none of which that is unsure.
    `all` asks it of each child, `none` asks the contrary, `any` of each child when it must be false."""
    if isinstance(condition, Leaf):
        yield node, condition, holds
        return
    wanted = holds != (condition.kind == "none")
    if len(condition.children) == 1 or wanted == (condition.kind == "all"):
        for child, inner in zip(node.need(condition.kind).items("conditions"), condition.children, strict=True):
            yield from _demanded(child, inner, wanted)


def _at_first(field: str, leaf: Leaf, known: Vocabulary) -> bounds.Possible:
    """What the field may be before anything is asked of it."""
    if leaf.history is not None:
        is_counted = leaf.history.measure in ("count", "distinct")
        return bounds.Possible(low=0.0, present=True) if is_counted else bounds.Possible()
    named: Mapping[str, FieldType] = known.fields
    declared = lookup(named, field.removeprefix("before:").removesuffix(bounds.RELATIVE))
    if leaf.kind == "flag":
        return bounds.Possible(among=bounds.tagged((True, False)))
    return bounds.Possible(among=bounds.tagged(declared.values) if declared is not None and declared.values else None)
