"""What a field is compared with: a plain value, another number of the same customer, an instant that moves along."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from . import duration
from .fields import FieldType, Vocabulary, lookup, near
from .tree import Node

FARTHEST = 1e12
"""Of factors and summands of a reference: beyond it a float column could overflow."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Another number of the same customer: `times` × field + `plus`."""

    field: str
    times: float = 1.0
    plus: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        extra = {"times": self.times} if self.times != 1 else {}
        return {"field": self.field, **extra, **({"plus": self.plus} if self.plus else {})}


@dataclass(frozen=True, slots=True)
class Relative:
    """An instant counted from the moment of the decision: `after` it, or before it when negative."""

    after: timedelta

    def to_dict(self) -> dict[str, Any]:
        if self.after > timedelta(0):
            return {"ahead": duration.write(self.after)}
        return {"ago": duration.write(-self.after)}


@dataclass(frozen=True, slots=True)
class Change:
    """What a value was before the trigger and is now; None: whatever."""

    before: str | float | bool | None = None
    after: str | float | bool | None = None

    def to_dict(self) -> dict[str, Any]:
        named = (("from", self.before), ("to", self.after))
        return {key: write(value) for key, value in named if value is not None}


Scalar = str | float | bool
Operand = Scalar | Reference | Relative | datetime | timedelta
Value = Operand | Change | tuple[Operand, ...] | None


def find_field(node: Node, known: Vocabulary) -> tuple[str, FieldType]:
    """The canonical name and the type of the field that `node` names."""
    written = node.text(longest=120).strip()
    name = known.aliases.get(written, written)
    found = lookup(known.fields, name)
    if found is None:
        raise node.fail(f"there is no field {written!r}{_suggestion(name, known)}")
    return name, found


def _suggestion(name: str, known: Vocabulary) -> str:
    close = near(known.fields, name)
    if close:
        return f"; {', '.join(close)} {'is' if len(close) == 1 else 'are'} near"
    room = name.partition(".")[0] + "."
    listed = sorted(one for one in known.fields if one.startswith(room)) or sorted(known.fields)
    return f"; there are {', '.join(listed[:40])}" if listed else "; there are none here"


def operand(node: Node, field: FieldType, known: Vocabulary, *, ordered: bool) -> Operand:
    """One side of a comparison. `ordered`: it must be something of which there is more and less."""
    if isinstance(node.value, dict):
        return _relative(node) if field.kind == "time" else _reference(node, field, known)
    value: Scalar | datetime = scalar(node, field)
    if ordered and isinstance(value, str | bool):
        raise node.fail("only numbers have an order; a number is wanted")
    return value


def _relative(node: Node) -> Relative:
    children = node.mapping("ago", "ahead")
    if len(children) != 1:
        raise node.fail("give either `ago` or `ahead`, such as {ago: P30D}")
    span = next(iter(children.values())).duration()
    return Relative(-span if "ago" in children else span)


def _reference(node: Node, field: FieldType, known: Vocabulary) -> Reference:
    node.mapping("field", "times", "plus")
    name, other = find_field(node.need("field"), known)
    if field.kind != "number" or other.kind != "number":
        raise node.fail("only a number can be compared with another field, and only with a number")
    times, plus = node.get("times"), node.get("plus")
    return Reference(name, _bounded(times) if times else 1.0, _bounded(plus) if plus else 0.0)


def _bounded(node: Node) -> float:
    return float(node.number(low=-FARTHEST, high=FARTHEST))


def between(node: Node, field: FieldType, known: Vocabulary) -> tuple[Operand, ...]:
    """Two ends, in order where that can be told."""
    ends = node.items("two bounds")
    if len(ends) != 2:
        raise node.fail(f"two bounds are wanted, not {len(ends)}")
    low, high = (operand(end, field, known, ordered=True) for end in ends)
    if _is_above(low, high):
        raise node.fail(f"the bounds contradict each other: {ends[0].value} is above {ends[1].value}")
    return (low, high)


def _is_above(low: Operand, high: Operand) -> bool:
    if isinstance(low, Relative) and isinstance(high, Relative):
        return low.after > high.after
    if isinstance(low, datetime) and isinstance(high, datetime):
        return low > high
    return isinstance(low, int | float) and isinstance(high, int | float) and low > high


def several(node: Node, field: FieldType) -> tuple[Operand, ...]:
    """A list of different values."""
    values = [scalar(child, field) for child in node.items("values")]
    if len({(type(value), value) for value in values}) < len(values):
        raise node.fail("the same value twice")
    return tuple(values)


def change(node: Node, field: FieldType) -> Change:
    """{from?, to?}, at least one of them."""
    children = node.mapping("from", "to")
    if not children:
        raise node.fail("give `from`, `to` or both; leave the value out where any change will do")
    read = {key: _changed(child, field) for key, child in children.items()}
    found = Change(read.get("from"), read.get("to"))
    if len(read) == 2 and (type(found.before), found.before) == (type(found.after), found.after):
        raise node.fail("`from` and `to` are the same, which contradicts a change")
    return found


def _changed(node: Node, field: FieldType) -> Scalar:
    if field.kind not in ("number", "flag", "label", "any"):
        raise node.fail(f"the values of a {field.kind} cannot be named here; leave them out")
    found: Scalar = scalar(node, field)
    return found


def scalar(node: Node, field: FieldType) -> Any:
    """A plain value of the field's kind, in its canonical form."""
    value = _canonical(node, field)
    if field.kind == "number":
        return float(value.number())
    if field.kind == "flag":
        return value.flag()
    if field.kind == "time":
        return _instant(value)
    if field.kind == "label":
        return value.choice(sorted(field.values)) if field.values is not None else value.text(longest=500)
    if isinstance(value.value, bool):
        return value.value
    return value.text(longest=500) if isinstance(value.value, str) else float(value.number())


def _canonical(node: Node, field: FieldType) -> Node:
    meant = field.synonyms.get(node.value) if isinstance(node.value, str) else None
    if meant is None:
        return node
    return Node(meant == "true" if field.kind == "flag" else meant, node.path)


def _instant(node: Node) -> datetime:
    try:
        # YAML reads an unquoted instant by itself
        found = node.value if isinstance(node.value, datetime) else datetime.fromisoformat(node.text(longest=40))
    except ValueError:
        raise node.fail("an instant is wanted, such as 2026-11-20T09:00:00+08:00, or {ago: P30D}") from None
    if found.tzinfo is None:
        raise node.fail("an instant needs its offset from UTC, such as +08:00 or Z")
    return found


def write(value: Any) -> Any:
    """As JSON has it; reading it gives the value again."""
    if isinstance(value, tuple):
        return [write(item) for item in value]
    if isinstance(value, Reference | Relative | Change):
        return value.to_dict()
    if isinstance(value, timedelta):
        return duration.write(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
