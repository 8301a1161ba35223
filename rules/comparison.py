"""One comparison, bound to the columns it looks at: a function from rows (`columns.View`) to where it holds.

Each is written once, in operators that mean the same for arrays and for plain values (`<`, `&`, `|`), so that one
customer alone comes out as in a batch of a million.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from .bounds import CONTRARY, sort_of
from .columns import AT, Key, Masks, View
from .condition import Change, Leaf, Reference, Relative, before_column, since_column

Test = Callable[[View], Masks]

_ORDER: dict[str, Callable[[Any, Any], Any]] = {
    "equals": operator.eq, "lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge,
}  # fmt: skip
MANY = 8
_NEGATED = ("not_equals", "not_in", "not_exists")


def bind(leaf: Leaf) -> Test:
    """The test of a comparison, once per rule version."""
    negated = leaf.op in _NEGATED
    test = contrary(_positive(leaf, CONTRARY[leaf.op])) if negated else _positive(leaf, leaf.op)
    return test if leaf.held is None else both(test, _long_enough(leaf.field, leaf.held))


def is_slow(leaf: Leaf) -> bool:
    """Whether it has to look at rows one by one."""
    return leaf.kind == "any" or leaf.op == "changed"


def both(one: Test, two: Test) -> Test:
    """Kleene's strong conjunction."""

    def test(view: View) -> Masks:
        (true, maybe), (other, other_maybe) = one(view), two(view)
        found = true & other
        return found, found if maybe is true and other_maybe is other else maybe & other_maybe

    return test


def contrary(test: Test) -> Test:
    """Not: true becomes false, unknown stays."""

    def negated(view: View) -> Masks:
        true, maybe = test(view)
        found = view.contrary(maybe)
        return found, found if maybe is true else view.contrary(true)

    return negated


def _positive(leaf: Leaf, op: str) -> Test:
    if op == "exists":
        return _exists(leaf)
    if op == "changed":
        return _changed(leaf)
    if op == "contains":
        return _contains(leaf)
    if leaf.kind == "any":
        return _loose(leaf.field, op, leaf.value)
    if leaf.kind == "label":
        return _among(leaf.field, leaf.value)
    return _number(leaf, op)


def _exists(leaf: Leaf) -> Test:
    name, kind = leaf.field, leaf.kind

    def test(view: View) -> Masks:
        there = view.contrary(view.is_missing(name, kind))
        return there, there

    return test


def _contains(leaf: Leaf) -> Test:
    name, kind, wanted = leaf.field, leaf.kind, leaf.value

    def holds(seen: Any) -> bool | None:
        if isinstance(seen, list | tuple):
            return any(sort_of(item) == sort_of(wanted) and item == wanted for item in seen)
        return wanted in seen if isinstance(seen, str) and isinstance(wanted, str) else None

    return lambda view: view.each(name, kind, holds)


def _among(key: Key, value: Any) -> Test:
    members = frozenset(value) if isinstance(value, tuple) else frozenset((value,))
    return lambda view: view.among(key, members)


def _number(leaf: Leaf, op: str) -> Test:
    name, value = leaf.field, leaf.value
    if op == "within":
        assert isinstance(value, timedelta)
        return _within(name, leaf.kind, value)
    if op == "in":
        assert isinstance(value, tuple)
        return _one_of(name, [float(_plain(item)) for item in value])
    if op == "between":
        assert isinstance(value, tuple)
        return both(compare(name, "gte", value[0]), compare(name, "lte", value[1]))
    return compare(name, op, value)


def compare(key: Key, op: str, value: Any) -> Test:
    """A number with a number, a reference, or an instant that may move along."""
    holds = _ORDER[op]
    if isinstance(value, Reference | Relative):
        return _compare_moving(key, holds, value)
    other = float(_plain(value))

    def test(view: View) -> Masks:
        column, missing = view.numbers[key]
        true = holds(column, other)
        return true, true if missing is False else true | missing

    return test


def _compare_moving(key: Key, holds: Callable[[Any, Any], Any], value: Reference | Relative) -> Test:
    if isinstance(value, Reference):
        name, times, plus = value.field, value.times, value.plus
    else:
        name, times, plus = AT, 1.0, value.after.total_seconds()

    def test(view: View) -> Masks:
        (column, missing), (other, other_missing) = view.numbers[key], view.numbers[name]
        true = holds(column, other * times + plus)
        missing = missing | other_missing
        return true, true if missing is False else true | missing

    return test


def _one_of(key: Key, members: list[float]) -> Test:
    def test(view: View) -> Masks:
        column, missing = view.numbers[key]
        if len(members) > MANY and isinstance(column, np.ndarray):
            true: Any = np.isin(column, members)
        else:
            true = column == members[0]
            for member in members[1:]:
                true = true | (column == member)
        return true, true if missing is False else true | missing

    return test


def _within(name: str, kind: str, span: timedelta) -> Test:
    """Not in the future, and at most `span` ago."""
    seconds = span.total_seconds()

    def test(view: View) -> Masks:
        column, missing = view.numbers[name]
        if kind == "number":
            age = column * 86400.0
        else:
            at, at_missing = view.numbers[AT]
            age, missing = at - column, missing | at_missing
        true = (age >= 0) & (age <= seconds)
        return true, true if missing is False else true | missing

    return test


def _long_enough(name: str, span: timedelta) -> Test:
    since, seconds = since_column(name), span.total_seconds()

    def test(view: View) -> Masks:
        (begin, missing), (at, at_missing) = view.numbers[since], view.numbers[AT]
        true, missing = at - begin >= seconds, missing | at_missing
        return true, true if missing is False else true | missing

    return test


def _changed(leaf: Leaf) -> Test:
    """Unknown where either value is missing; else whether they differ, and are what is asked for."""
    name, before, kind = leaf.field, before_column(leaf.field), leaf.kind
    asked = leaf.value if isinstance(leaf.value, Change) else Change()
    pairs = ((before, asked.before), (name, asked.after))
    wanted = [_positive(Leaf(field, "equals", value, kind), "equals") for field, value in pairs if value is not None]
    is_number = kind in ("number", "flag", "time")

    def test(view: View) -> Masks:
        true = _differ(view, name, before) if is_number else view.differ(name, before)[0]
        for one in wanted:
            true = true & one(view)[0]
        return true, true | view.is_missing(name, kind) | view.is_missing(before, kind)

    return test


def _differ(view: View, name: str, before: str) -> Any:
    one, two = view.numbers[name][0], view.numbers[before][0]
    # unlike the orders, NaN != x holds: missing on either side has to be taken out
    return (one < two) | (one > two)


# -- properties whose type is known only when they come: a value of another sort than the wanted is not comparable -----


def _loose(name: str, op: str, value: Any) -> Test:
    if op == "in":
        return _loose_among(name, value)
    if op == "between":
        return both(_loose(name, "gte", value[0]), _loose(name, "lte", value[1]))
    sort = sort_of(value) or "number"
    return _among((name, sort), value) if sort == "text" else compare((name, sort), op, value)


def _loose_among(name: str, members: tuple[Any, ...]) -> Test:
    """True where equal to one of them, false where only comparable with one."""
    tests = [_loose(name, "equals", member) for member in members]

    def test(view: View) -> Masks:
        true, maybe = tests[0](view)
        for one in tests[1:]:
            other, other_maybe = one(view)
            true, maybe = true | other, maybe & other_maybe
        return true, true | maybe

    return test


def _plain(value: Any) -> Any:
    return value.timestamp() if isinstance(value, datetime) else value
