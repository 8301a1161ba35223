"""The one evaluator: a condition over columns, for one customer or a million.

Three-valued (Kleene's strong logic): a comparison with something missing is *unknown*; `all` is false when any member
is false, else unknown when any is unknown; `any` the other way round; `none` is not `any`. A rule takes a customer
only when its condition is true. Inside, each node gives where it is surely true and where it may be (`columns.Masks`).

Many rows are taken in blocks that fit the processor's cache, and a few rows one by one as plain values; it is the same
text of each comparison (`comparison`) that runs either way. What the columns are, `columns` says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import comparison, duration
from .columns import AT as AT
from .columns import Batch as Batch
from .columns import Columns as Columns
from .columns import Labels as Labels
from .columns import Masks, Row, View
from .comparison import Test
from .condition import (
    Condition,
    History,
    Leaf,
    Reference,
    Relative,
    before_column,
    columns_of,
    fields_of,
    histories_of,
    leaves,
    since_column,
)

Mask = NDArray[np.bool_]

BLOCK = 65_536
"""Rows taken together: the blocks of the columns stay in the processor's cache over all rules (bench/rules.py)."""
FEW = 8
"""Up to so many rows are faster as plain values, one by one (bench/rules.py)."""

_ALONE = {False: np.zeros(1, np.bool_), True: np.ones(1, np.bool_)}
for _mask in _ALONE.values():
    _mask.setflags(write=False)


class LeafResult(NamedTuple):
    """How one comparison came out for one row. `holds` is None when it is unknown; `against`: what a reference or an
    instant that moves along was; `before`: what a changed value was; `since`: how long a held one has been there."""

    path: str
    field: str
    op: str
    value: Any
    seen: Any
    holds: bool | None
    against: Any = None
    history: Mapping[str, Any] | None = None
    before: Any = None
    held: str | None = None
    since: str | None = None

    def to_dict(self) -> dict[str, Any]:
        written = {"path": self.path, "field": self.field, "op": self.op, "seen": self.seen, "holds": self.holds}
        also = {
            "value": self.value, "against": self.against, "history": self.history, "before": self.before,
            "for": self.held, "since": self.since,
        }  # fmt: skip
        return written | {key: value for key, value in also.items() if value is not None}


class Evaluation(NamedTuple):
    """Which rows matched, and which cannot be told. Row order is the columns'. The masks may be shared: read only."""

    matched: Mask
    unknown: Mask
    condition: CompiledCondition
    batch: Batch

    def explain(self, row: int) -> list[LeafResult]:
        """Every comparison for one row, in reading order, with the value seen."""
        return self.condition.explain(self.batch, row)


@dataclass(frozen=True, slots=True)
class CompiledCondition:
    """A condition ready to evaluate. `needs`: every column it looks at; of these `fields` are what it names, and
    `histories` what it asks of past events, by column; the others are `<field>.since` and `before:<field>`."""

    condition: Condition
    fields: frozenset[str]
    needs: frozenset[str]
    histories: Mapping[str, History]
    _together: Test
    _alone: Test
    _leaves: tuple[_CompiledLeaf, ...]

    def evaluate(self, columns: Columns | Batch, n: int) -> Evaluation:
        """Evaluate over the first `n` rows. Raises nothing for missing values or missing columns. Several conditions
        over the same rows are held against one Batch."""
        if n == 1:
            return _one_by_one(self, columns if isinstance(columns, Batch) else Batch(columns, n), n)
        return evaluate_all([self], columns, n)[0]

    def explain(self, columns: Columns | Batch, row: int) -> list[LeafResult]:
        """As Evaluation.explain, also for columns that are not evaluated."""
        seen = columns.row(row) if isinstance(columns, Batch) else Row(columns, row)
        return [leaf.result(seen) for leaf in self._leaves]

    def outcome(self, row: Row) -> bool | None:
        """Whether it holds for one row; None: unknown."""
        true, maybe = self._alone(row)
        return True if true else None if maybe else False


def compile(condition: Condition) -> CompiledCondition:
    """Bind each comparison to its columns, once per rule version."""
    found = {id(leaf): comparison.bind(leaf) for leaf in leaves(condition)}
    return CompiledCondition(
        condition, frozenset(fields_of(condition)), frozenset(columns_of(condition)), histories_of(condition),
        _bind(condition, lambda leaf: _kept(found[id(leaf)], leaf)), _bind(condition, lambda leaf: found[id(leaf)]),
        tuple(_CompiledLeaf(leaf, path, leaf.to_dict(), found[id(leaf)]) for path, leaf in _placed(condition, "if")),
    )  # fmt: skip


def evaluate_all(conditions: Sequence[CompiledCondition], columns: Columns | Batch, n: int) -> list[Evaluation]:
    """Each condition over the same `n` rows; block by block, so that what one has converted serves all."""
    batch = columns if isinstance(columns, Batch) else Batch(columns, n)
    if n <= FEW:
        return [_one_by_one(one, batch, n) for one in conditions]
    if n <= BLOCK:
        return [Evaluation(*_told(one._together(batch), batch), one, batch) for one in conditions]
    matched = [np.empty(n, np.bool_) for _ in conditions]
    unknown = [np.empty(n, np.bool_) for _ in conditions]
    for start in range(0, n, BLOCK):
        part = batch.block(start, min(start + BLOCK, n))
        rows = slice(start, start + part.n)
        for one, true, unsure in zip(conditions, matched, unknown, strict=True):
            true[rows], unsure[rows] = _told(one._together(part), part)
    return [Evaluation(*masks, batch) for masks in zip(matched, unknown, conditions, strict=True)]


def _told(masks: Masks, batch: Batch) -> tuple[Any, Any]:
    true, maybe = masks
    return true, batch.nowhere if maybe is true else maybe ^ true


def _one_by_one(condition: CompiledCondition, batch: Batch, n: int) -> Evaluation:
    if n == 1:
        true, maybe = condition._alone(batch.row(0))
        return Evaluation(_ALONE[true], _ALONE[maybe and not true], condition, batch)
    found = [condition._alone(batch.row(row)) for row in range(n)]
    matched = np.array([true for true, _ in found], np.bool_)
    return Evaluation(matched, np.array([maybe for _, maybe in found], np.bool_) ^ matched, condition, batch)


def _placed(condition: Condition, path: str) -> Iterator[tuple[str, Leaf]]:
    if isinstance(condition, Leaf):
        yield path, condition
    else:
        for i, child in enumerate(condition.children):
            yield from _placed(child, f"{path}.{condition.kind}[{i}]")


def _bind(condition: Condition, test_of: Callable[[Leaf], Test]) -> Test:
    """The test of a node. Comparisons are made in the order of their cost, which changes no outcome."""
    if isinstance(condition, Leaf):
        return test_of(condition)
    tests = [_bind(child, test_of) for child in sorted(condition.children, key=_cost)]
    if condition.kind == "all":
        return _every(tests)
    return _some(tests) if condition.kind == "any" else comparison.contrary(_some(tests))


def _cost(condition: Condition) -> int:
    return sum(1 + 1000 * comparison.is_slow(leaf) for leaf in leaves(condition))


def _kept(test: Test, leaf: Leaf) -> Test:
    """The same comparison in another rule looks no second time."""
    key = leaf.kind + json.dumps(leaf.to_dict(), ensure_ascii=False)

    def kept(view: Any) -> Masks:
        masks: Masks | None = view.outcomes.get(key)
        if masks is None:
            masks = view.outcomes[key] = test(view)
        return masks

    return kept


def _every(tests: Sequence[Test]) -> Test:
    first, others = tests[0], tests[1:]

    def test(view: View) -> Masks:
        true, maybe = first(view)
        for one in others:
            if maybe is False or (view.is_large and not maybe.any()):
                break  # false already, whatever comes
            other, other_maybe = one(view)
            is_sure = maybe is true and other_maybe is other
            true = true & other
            maybe = true if is_sure else maybe & other_maybe
        return true, maybe

    return test


def _some(tests: Sequence[Test]) -> Test:
    first, others = tests[0], tests[1:]

    def test(view: View) -> Masks:
        true, maybe = first(view)
        for one in others:
            if true is True or (view.is_large and true.all()):
                break  # true already, whatever comes
            other, other_maybe = one(view)
            is_sure = maybe is true and other_maybe is other
            true = true | other
            maybe = true if is_sure else maybe | other_maybe
        return true, maybe

    return test


@dataclass(frozen=True, slots=True)
class _CompiledLeaf:
    leaf: Leaf
    path: str
    written: Mapping[str, Any]
    test: Test

    def result(self, row: Row) -> LeafResult:
        leaf = self.leaf
        true, maybe = self.test(row)
        held = leaf.held is not None
        return LeafResult(
            path=self.path, field=leaf.field, op=leaf.op, value=self.written.get("value"),
            seen=_seen(row, leaf.field, leaf.kind), holds=True if true else None if maybe else False,
            against=_against(row, leaf), history=self.written.get("history"),
            before=_seen(row, before_column(leaf.field), leaf.kind) if leaf.op == "changed" else None,
            held=duration.write(leaf.held) if leaf.held is not None else None,
            since=_seen(row, since_column(leaf.field), "time") if held else None,
        )  # fmt: skip


def _seen(row: Row, name: str, kind: str) -> Any:
    value = row.objects[name]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and value != value):
        return None
    if kind == "flag":
        return bool(value)
    if kind == "time":
        return datetime.fromtimestamp(value, UTC).isoformat()
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _against(row: Row, leaf: Leaf) -> Any:
    if isinstance(leaf.value, Reference | Relative):
        return _resolved(row, leaf.value)
    if isinstance(leaf.value, tuple) and any(isinstance(one, Reference | Relative) for one in leaf.value):
        return [_resolved(row, operand) for operand in leaf.value]
    return None


def _resolved(row: Row, operand: Any) -> Any:
    if isinstance(operand, Relative):
        at = row.objects[AT]
        return (
            None if at is None else datetime.fromtimestamp(float(at) + operand.after.total_seconds(), UTC).isoformat()
        )
    if isinstance(operand, datetime):
        return operand.isoformat()
    if not isinstance(operand, Reference):
        return operand
    seen = _seen(row, operand.field, "number")
    return None if seen is None else round(seen * operand.times + operand.plus, 6)
