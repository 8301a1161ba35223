"""The one evaluator: a condition over columns, for one customer or a million.

Three-valued (Kleene's strong logic): a comparison with something missing is *unknown*; `all` is false when any member
is false, else unknown when any is unknown; `any` the other way round; `none` is not `any`. A rule takes a customer
only when its condition is true. Inside, each node is a pair of masks: where it is surely true, where surely false.

Columns: `number`, `flag` and `time` are float64 with NaN for missing (a flag is 1 or 0, an instant seconds since 1970,
UTC; whole-number and bool arrays will do); `label`, `list` and `any` are object arrays with None for missing. A column
that is absent is missing for everybody. `at` holds each row's moment, for `within` on instants.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .condition import Condition, Group, History, Leaf, Reference, columns_of, fields_of, histories_of

Mask = NDArray[np.bool_]
Masks = tuple[Mask, Mask]
Columns = Mapping[str, NDArray[Any]]

AT = "at"

_ORDER: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "lt": (operator.lt, operator.ge),
    "lte": (operator.le, operator.gt),
    "gt": (operator.gt, operator.le),
    "gte": (operator.ge, operator.lt),
}
"""Each comparison with its contrary: NaN makes both false, and so the row unknown."""

_NEGATED = {"not_equals": "equals", "not_in": "in", "not_exists": "exists"}


class LeafResult(NamedTuple):
    """How one comparison came out for one row. `holds` is None when it is unknown; `against` is the value that a
    reference had."""

    path: str
    field: str
    op: str
    value: Any
    seen: Any
    holds: bool | None
    against: Any = None

    def to_dict(self) -> dict[str, Any]:
        written = {"path": self.path, "field": self.field, "op": self.op, "seen": self.seen, "holds": self.holds}
        if self.value is not None:
            written["value"] = self.value
        return written if self.against is None else {**written, "against": self.against}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Which rows matched, and which cannot be told. Row order is the columns'."""

    matched: Mask
    unknown: Mask
    columns: Columns
    leaves: tuple[tuple[_CompiledLeaf, Masks], ...]

    def explain(self, row: int) -> list[LeafResult]:
        """Every comparison for one row, with the value seen: from the masks that decided."""
        return [leaf.result(self.columns, row, masks) for leaf, masks in self.leaves]


@dataclass(frozen=True, slots=True)
class CompiledCondition:
    """A condition ready to evaluate. `needs`: every column it looks at; of these `fields` are what it names, and
    `histories` what it asks of past events, by column; the others are `<field>.since` and `before:<field>`."""

    condition: Condition
    fields: frozenset[str]
    needs: frozenset[str]
    histories: Mapping[str, History]
    _root: _Node

    def evaluate(self, columns: Columns, n: int) -> Evaluation:
        """Evaluate over `n` rows. Raises nothing for missing values or missing columns."""
        seen: list[tuple[_CompiledLeaf, Masks]] = []
        true, false = self._root.masks(columns, n, seen)
        return Evaluation(true, ~(true | false), columns, tuple(seen))

    def explain(self, columns: Columns, row: int) -> list[LeafResult]:
        """As Evaluation.explain, for one row of columns that are not evaluated yet."""
        single = {name: column[row : row + 1] for name, column in columns.items()}
        return self.evaluate(single, 1).explain(0)


def compile(condition: Condition) -> CompiledCondition:
    """Bind each comparison to its column kind, once per rule version."""
    needs, fields = frozenset(columns_of(condition)), frozenset(fields_of(condition))
    return CompiledCondition(condition, fields, needs, histories_of(condition), _bind(condition, "if"))


def _bind(condition: Condition, path: str) -> _Node:
    if isinstance(condition, Leaf):
        return _CompiledLeaf(condition, path, condition.to_dict().get("value"), _test(condition))
    children = [_bind(child, f"{path}.{condition.kind}[{i}]") for i, child in enumerate(condition.children)]
    return _CompiledGroup(condition, tuple(children))


class _Node:
    __slots__ = ()

    def masks(self, columns: Columns, n: int, seen: list[tuple[_CompiledLeaf, Masks]]) -> Masks:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class _CompiledGroup(_Node):
    group: Group
    children: tuple[_Node, ...]

    def masks(self, columns: Columns, n: int, seen: list[tuple[_CompiledLeaf, Masks]]) -> Masks:
        true, false = self.children[0].masks(columns, n, seen)
        for child in self.children[1:]:
            child_true, child_false = child.masks(columns, n, seen)
            if self.group.kind == "all":
                true, false = true & child_true, false | child_false
            else:
                true, false = true | child_true, false & child_false
        return (false, true) if self.group.kind == "none" else (true, false)


@dataclass(frozen=True, slots=True)
class _CompiledLeaf(_Node):
    leaf: Leaf
    path: str
    written: Any
    test: Callable[[Columns, int], Masks]

    def masks(self, columns: Columns, n: int, seen: list[tuple[_CompiledLeaf, Masks]]) -> Masks:
        result = self.test(columns, n)
        seen.append((self, result))
        return result

    def result(self, columns: Columns, row: int, masks: Masks) -> LeafResult:
        holds = True if masks[0][row] else False if masks[1][row] else None
        value = _seen(columns, self.leaf.field, self.leaf.kind, row)
        return LeafResult(
            self.path, self.leaf.field, self.leaf.op, self.written, value, holds, _against(columns, self.leaf, row)
        )


def _test(leaf: Leaf) -> Callable[[Columns, int], Masks]:
    if leaf.op in _NEGATED:
        positive = _test(Leaf(leaf.field, _NEGATED[leaf.op], leaf.value, leaf.kind))
        return lambda columns, n: positive(columns, n)[::-1]
    if leaf.op == "exists":
        return _exists(leaf)
    if leaf.kind == "any":
        return _each(leaf.field, lambda value: _holds(leaf.op, value, leaf.value))
    if leaf.kind == "list":
        return _each(leaf.field, lambda value: leaf.value in value)
    if leaf.kind == "label":
        return _label_test(leaf)
    return _number_test(leaf)


def _exists(leaf: Leaf) -> Callable[[Columns, int], Masks]:
    def test(columns: Columns, n: int) -> Masks:
        if leaf.kind in ("label", "list", "any"):
            there = _present(_objects(columns, leaf.field, n))
        else:
            there = ~np.isnan(_numbers(columns, leaf.field, n))
        return there, ~there

    return test


def _label_test(leaf: Leaf) -> Callable[[Columns, int], Masks]:
    value: Any = leaf.value
    if leaf.op == "contains":
        return _each(leaf.field, lambda seen: isinstance(seen, str) and value in seen)
    if leaf.op == "in":
        members = frozenset(value) if isinstance(value, tuple) else frozenset()
        return _each(leaf.field, lambda seen: seen in members)

    def equals(columns: Columns, n: int) -> Masks:
        column = _objects(columns, leaf.field, n)
        there, same = _present(column), np.equal(column, value).astype(np.bool_)
        return there & same, there & ~same

    return equals


def _number_test(leaf: Leaf) -> Callable[[Columns, int], Masks]:
    name, op, value = leaf.field, leaf.op, leaf.value
    if op == "within":
        assert isinstance(value, timedelta)
        return _within(name, leaf.kind, value)
    if op == "in":
        members = np.array([_plain(item) for item in value]) if isinstance(value, tuple) else np.array([])

        def among(columns: Columns, n: int) -> Masks:
            column = _numbers(columns, name, n)
            found = np.isin(column, members)
            return found, ~found & ~np.isnan(column)

        return among
    if op == "between":
        assert isinstance(value, tuple)
        low, high = value
        return _both(_compare(name, "gte", low), _compare(name, "lte", high))
    return _compare(name, op, value)


def _compare(name: str, op: str, value: Any) -> Callable[[Columns, int], Masks]:
    holds, contrary = (operator.eq, _differ) if op == "equals" else _ORDER[op]

    def test(columns: Columns, n: int) -> Masks:
        column, other = _numbers(columns, name, n), _operand(columns, value, n)
        return holds(column, other), contrary(column, other)

    return test


def _differ(column: Any, other: Any) -> Any:
    # unlike the orders, NaN != x holds: missing on either side has to be taken out
    return (column < other) | (column > other)


def _both(
    one: Callable[[Columns, int], Masks], two: Callable[[Columns, int], Masks]
) -> Callable[[Columns, int], Masks]:
    def test(columns: Columns, n: int) -> Masks:
        (true, false), (other_true, other_false) = one(columns, n), two(columns, n)
        return true & other_true, false | other_false

    return test


def _within(name: str, kind: str, span: timedelta) -> Callable[[Columns, int], Masks]:
    """Not in the future, and at most `span` ago."""
    seconds = span.total_seconds()

    def test(columns: Columns, n: int) -> Masks:
        column = _numbers(columns, name, n)
        age = column * 86400.0 if kind == "number" else _numbers(columns, AT, n) - column
        return (age >= 0) & (age <= seconds), (age < 0) | (age > seconds)

    return test


def _each(name: str, holds: Callable[[Any], bool | None]) -> Callable[[Columns, int], Masks]:
    """Value by value, for columns of objects. None, or a value of another type, is unknown."""

    def test(columns: Columns, n: int) -> Masks:
        found = [None if value is None else holds(value) for value in _objects(columns, name, n)]
        true = np.fromiter((item is True for item in found), np.bool_, n)
        false = np.fromiter((item is False for item in found), np.bool_, n)
        return true, false

    return test


def _holds(op: str, seen: Any, wanted: Any) -> bool | None:
    """A property whose type is known only now: a value of another type than the wanted one is not comparable."""
    if op == "contains":
        if isinstance(seen, list | tuple):
            return wanted in seen
        return wanted in seen if isinstance(seen, str) and isinstance(wanted, str) else None
    if op == "in":
        known = [_holds("equals", seen, item) for item in wanted]
        return True if True in known else None if all(item is None for item in known) else False
    if op == "between":
        low, high = _holds("gte", seen, wanted[0]), _holds("lte", seen, wanted[1])
        return None if low is None or high is None else low and high
    if _sort(seen) is None or _sort(seen) != _sort(wanted):
        return None
    return bool(seen == wanted if op == "equals" else _ORDER[op][0](seen, wanted))


def _sort(value: Any) -> str | None:
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, str):
        return "text"
    return "number" if isinstance(value, int | float) and not math.isnan(value) else None


def _plain(value: Any) -> Any:
    return value.timestamp() if isinstance(value, datetime) else value


def _operand(columns: Columns, value: Any, n: int) -> Any:
    if not isinstance(value, Reference):
        return float(_plain(value))
    column = _numbers(columns, value.field, n)
    return column * value.times + value.plus


def _numbers(columns: Columns, name: str, n: int) -> NDArray[np.float64]:
    column = columns.get(name)
    return np.full(n, np.nan) if column is None else column.astype(np.float64, copy=False)


def _objects(columns: Columns, name: str, n: int) -> NDArray[Any]:
    column = columns.get(name)
    return np.full(n, None, dtype=object) if column is None else column


def _present(column: NDArray[Any]) -> Mask:
    nothing: Any = None
    there: Mask = np.not_equal(column, nothing).astype(np.bool_)
    return there


def _seen(columns: Columns, name: str, kind: str, row: int) -> Any:
    column = columns.get(name)
    if column is None:
        return None
    value = column[row]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    if kind == "flag":
        return bool(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _against(columns: Columns, leaf: Leaf, row: int) -> Any:
    if isinstance(leaf.value, Reference):
        return _resolved(columns, leaf.value, row)
    if isinstance(leaf.value, tuple) and leaf.op == "between" and Reference in map(type, leaf.value):
        return [_resolved(columns, operand, row) for operand in leaf.value]
    return None


def _resolved(columns: Columns, operand: Any, row: int) -> Any:
    if not isinstance(operand, Reference):
        return operand
    seen = _seen(columns, operand.field, "number", row)
    return None if seen is None else round(seen * operand.times + operand.plus, 6)
