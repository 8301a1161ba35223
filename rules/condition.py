"""Conditions: a tree of `all` / `any` / `none` groups over typed comparisons.

    all:
      - {field: customer.days_since_order, op: gt, value: 90}
      - any:
          - {field: customer.interpurchase_days, op: not_exists}
          - {field: customer.days_since_order, op: gt, value: {field: customer.interpurchase_days, times: 2}}

A group is never empty: an empty one would silently mean "everybody" or "nobody". Comparing something missing gives
*unknown*, not false (`evaluate`). What cannot be true for anybody (x > 10 and x < 5) is an error on load.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from . import bounds, duration
from .fields import Fields, FieldType, lookup
from .tree import Node

GroupKind = Literal["all", "any", "none"]
GROUPS: tuple[GroupKind, ...] = ("all", "any", "none")

ORDERED = ("lt", "lte", "gt", "gte")
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
    "exists": frozenset({"number", "flag", "label", "time", "list", "any"}),
    "not_exists": frozenset({"number", "flag", "label", "time", "list", "any"}),
    "within": frozenset({"number", "time"}),
}
"""Each operator with the kinds of field it compares. `between` includes both ends; `within` looks back from the
moment of the decision, at an instant or at a number of days."""

DEEPEST = 12
MOST_LEAVES = 200


@dataclass(frozen=True, slots=True)
class Reference:
    """Another number of the same customer: `times` × field + `plus`."""

    field: str
    times: float = 1.0
    plus: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        extra = {"times": self.times} if self.times != 1 else {}
        return {"field": self.field, **extra, **({"plus": self.plus} if self.plus else {})}


Scalar = str | float | bool
Operand = Scalar | Reference | datetime | timedelta
Value = Operand | tuple[Operand, ...] | None


Measure = Literal["count", "sum", "distinct", "days_since_last", "days_since_first"]
MEASURES: tuple[Measure, ...] = ("count", "sum", "distinct", "days_since_last", "days_since_first")


@dataclass(frozen=True, slots=True)
class History:
    """A number told of a customer's past events: how many, how long ago. `of`: the property that `sum` adds up or
    `distinct` counts. `where` looks at each event's own properties; `name` is a custom event's. Events count up to the
    moment of the decision, the triggering one included, and back to `within` before it."""

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
            written["value"] = _write(self.value)
        return written if self.held is None else {**written, "for": duration.write(self.held)}


@dataclass(frozen=True, slots=True)
class Group:
    kind: GroupKind
    children: tuple[Condition, ...]

    def to_dict(self) -> dict[str, Any]:
        return {self.kind: [child.to_dict() for child in self.children]}


Condition = Leaf | Group


def parse(node: Node, fields: Fields) -> Condition:
    """Read a condition. Raises RuleError, naming the path at fault."""
    condition, leaves = _condition(node, fields, depth=0)
    if leaves > MOST_LEAVES:
        raise node.fail(f"{leaves} comparisons; at most {MOST_LEAVES} can be read by a person")
    return condition


def leaves(condition: Condition) -> list[Leaf]:
    """Every comparison of the tree, in reading order."""
    if isinstance(condition, Leaf):
        return [condition]
    return [leaf for child in condition.children for leaf in leaves(child)]


def fields_of(condition: Condition) -> set[str]:
    """Every field the condition looks at, references included."""
    found = set()
    for leaf in leaves(condition):
        operands = leaf.value if isinstance(leaf.value, tuple) else (leaf.value,)
        found |= {leaf.field} | {operand.field for operand in operands if isinstance(operand, Reference)}
    return found


def _condition(node: Node, fields: Fields, depth: int) -> tuple[Condition, int]:
    if depth > DEEPEST:
        raise node.fail(f"groups nest deeper than {DEEPEST}")
    children = node.mapping("field", "op", "value", *GROUPS)
    named: list[GroupKind] = [kind for kind in GROUPS if kind in children]
    if not named:
        return _leaf(node, fields), 1
    if len(children) > 1:
        raise node.fail(f"a group has one key, not {', '.join(children)}")
    kind = named[0]
    read = [_condition(child, fields, depth + 1) for child in children[kind].items("conditions")]
    group = Group(kind, tuple(child for child, _ in read))
    if kind == "all":
        _refuse_contradictions(children[kind], group)
    return group, sum(count for _, count in read)


def _refuse_contradictions(node: Node, group: Group) -> None:
    """`all` groups within the `all` group count as its own members."""
    pending = list(zip(node.items("conditions"), group.children, strict=True))
    possible: dict[str, bounds.Possible] = {}
    while pending:
        child, condition = pending.pop(0)
        if isinstance(condition, Leaf):
            before = possible.get(condition.field, bounds.Possible())
            # an instant within the last week bounds no number
            op = "exists" if condition.op == "within" and condition.kind == "time" else condition.op
            after = bounds.narrow(before, op, condition.value)
            if after.is_empty():
                raise child.fail(f"contradicts what is asked of {condition.field} beside it: nobody can meet both")
            possible[condition.field] = after
        elif condition.kind == "all":
            pending += zip(child.need("all").items("conditions"), condition.children, strict=True)


def _leaf(node: Node, fields: Fields) -> Leaf:
    node.mapping("field", "op", "value")
    name = node.need("field").text(longest=120)
    field = lookup(fields, name)
    if field is None:
        raise node.need("field").fail(f"there is no field {name!r}{_suggestion(name, fields)}")
    op = node.need("op").choice(OPERATORS)
    if field.kind not in OPERATORS[op] or (op == "within" and field.kind == "number" and field.unit != "days"):
        fitting = [known for known, kinds in OPERATORS.items() if field.kind in kinds and known != "within"]
        raise node.need("op").fail(f"{name} is a {field.kind}; it takes {', '.join(fitting)}, not {op}")
    if op in ("exists", "not_exists"):
        if node.get("value") is not None:
            raise node.need("value").fail(f"{op} takes no value")
        return Leaf(name, op, None, field.kind)
    return Leaf(name, op, _value(node.need("value"), op, field, fields), field.kind)


def _value(node: Node, op: str, field: FieldType, fields: Fields) -> Value:
    if op == "within":
        return node.duration()
    if op in ("in", "not_in"):
        values = [_scalar(child, field) for child in node.items("values")]
        if len({(type(value), value) for value in values}) < len(values):
            raise node.fail("the same value twice")
        return tuple(values)
    if op == "between":
        return _between(node, field, fields)
    if op == "contains":
        return node.text(longest=500) if field.kind != "any" else _scalar(node, field)
    return _operand(node, op, field, fields)


def _between(node: Node, field: FieldType, fields: Fields) -> Value:
    ends = node.items("two bounds")
    if len(ends) != 2:
        raise node.fail(f"two bounds are wanted, not {len(ends)}")
    low, high = (_operand(end, "gte", field, fields) for end in ends)
    comparable = isinstance(low, Reference) == isinstance(high, Reference) is False
    if comparable and low > high:  # type: ignore[operator]
        raise node.fail(f"the bounds contradict each other: {ends[0].value} is above {ends[1].value}")
    return (low, high)


def _operand(node: Node, op: str, field: FieldType, fields: Fields) -> Operand:
    if isinstance(node.value, dict):
        return _reference(node, field, fields)
    value: Scalar | datetime = _scalar(node, field)
    if op in ORDERED and isinstance(value, str | bool):
        raise node.fail("only numbers have an order; a number is wanted")
    return value


def _reference(node: Node, field: FieldType, fields: Fields) -> Reference:
    node.mapping("field", "times", "plus")
    name = node.need("field").text(longest=120)
    other = lookup(fields, name)
    if other is None:
        raise node.need("field").fail(f"there is no field {name!r}{_suggestion(name, fields)}")
    if field.kind != "number" or other.kind != "number":
        raise node.fail("only a number can be compared with another field, and only with a number")
    times, plus = node.get("times"), node.get("plus")
    return Reference(name, float(times.number()) if times else 1.0, float(plus.number()) if plus else 0.0)


def _scalar(node: Node, field: FieldType) -> Any:
    if field.kind == "number":
        return float(node.number())
    if field.kind == "flag":
        return node.flag()
    if field.kind == "time":
        return _instant(node)
    if field.kind == "label":
        return node.choice(sorted(field.values)) if field.values is not None else node.text(longest=500)
    if isinstance(node.value, bool):
        return node.value
    return node.text(longest=500) if isinstance(node.value, str) else float(node.number())


def _instant(node: Node) -> datetime:
    try:
        # YAML reads an unquoted instant by itself
        found = node.value if isinstance(node.value, datetime) else datetime.fromisoformat(node.text(longest=40))
    except ValueError:
        raise node.fail("an instant is wanted, such as 2026-11-20T09:00:00+08:00") from None
    if found.tzinfo is None:
        raise node.fail("an instant needs its offset from UTC, such as +08:00 or Z")
    return found


def _suggestion(name: str, fields: Fields) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, list(fields), n=1)
    return f"; {near[0]} is near" if near else f"; there are {', '.join(sorted(fields)[:40])}"


def _write(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_write(item) for item in value]
    if isinstance(value, Reference):
        return value.to_dict()
    if isinstance(value, timedelta):
        return duration.write(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
