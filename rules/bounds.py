"""Whether comparisons of one field, all asked for at once, can be met by any value.

Conservative: what is refused can be met by nobody; what gets through may still be. Instants are looked at on two
scales, absolute and counted from the moment of the decision (`RELATIVE`), which cannot be compared with each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from .operand import Change, Reference, Relative

RELATIVE = "@relative"
CONTRARY = {
    "equals": "not_equals", "in": "not_in", "exists": "not_exists", "lt": "gte", "lte": "gt",
    "between": "not_between", "contains": "not_contains", "within": "not_within",
}  # fmt: skip
CONTRARY |= {contrary: op for op, contrary in CONTRARY.items()}

Tagged = frozenset[tuple[str, Any]]
Demand = tuple[str, str, Any]
"""Of which field (or its relative scale), which operator, with what."""


def sort_of(value: Any) -> str | None:
    """What a value can be compared with: its like. 1 and true are of different sorts, NaN of none."""
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, str):
        return "text"
    return "number" if isinstance(value, int | float) and not math.isnan(value) else None


def tagged(values: Iterable[Any]) -> Tagged:
    """Values that 1 and true do not fall together in."""
    return frozenset((sort_of(value) or "", value) for value in values)


@dataclass(frozen=True, slots=True)
class Possible:
    """What a field may still be: an interval (each end open or closed) without some `gaps` (closed), a set of values
    without others, of which sorts, containing what; present or missing."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    gaps: tuple[tuple[float, float], ...] = ()
    among: Tagged | None = None
    without: Tagged = frozenset()
    sorts: frozenset[str] | None = None
    parts: frozenset[Any] = frozenset()
    parts_not: frozenset[Any] = frozenset()
    present: bool | None = None
    clashes: bool = False

    def is_empty(self) -> bool:
        if self.clashes or (self.sorts is not None and not self.sorts) or self.parts & self.parts_not:
            return True
        if self.among is not None:
            return not any(self._holds(sort, value) for sort, value in self.among)
        if self.low > self.high or (self.low == self.high and (self.low_open or self.high_open)):
            return True
        if self.low == self.high and ("number", self.low) in self.without:
            return True
        return any(low <= self.low and self.high <= high for low, high in self.gaps)

    def _holds(self, sort: str, value: Any) -> bool:
        if (sort, value) in self.without or (self.sorts is not None and sort not in self.sorts):
            return False
        if sort == "text":
            return all(_contains(value, part) for part in self.parts) and not any(
                _contains(value, part) for part in self.parts_not
            )
        return sort != "number" or self._has(value)

    def _has(self, value: float) -> bool:
        above = value > self.low or (value == self.low and not self.low_open)
        below = value < self.high or (value == self.high and not self.high_open)
        return above and below and not any(low <= value <= high for low, high in self.gaps)


def _contains(value: Any, part: Any) -> bool:
    return isinstance(part, str) and part in value


def demands(field: str, op: str, value: Any, kind: str, *, holds: bool, held: bool) -> list[Demand]:
    """What a comparison that surely holds (or surely does not) asks of its field. Each says at least that the field
    is there, since comparing something missing is neither."""
    if op == "changed":
        return _change(field, value, holds)
    if not holds and (held or op not in CONTRARY):
        return [(field, "exists", None)]
    op = op if holds else CONTRARY[op]
    if kind != "time" or op in ("exists", "not_exists"):
        return [(field, op, value)]
    return [(field, "exists", None), *_instants(field, op, value)]


def _change(field: str, value: Change | None, holds: bool) -> list[Demand]:
    before = f"before:{field}"
    both: list[Demand] = [(field, "exists", None), (before, "exists", None)]
    if not holds or value is None:
        return both
    if value.before is not None:
        both += [
            (before, "equals", value.before),
            *([(field, "not_equals", value.before)] if value.after is None else []),
        ]
    if value.after is not None:
        both += [(field, "equals", value.after)]
    return both


def _instants(field: str, op: str, value: Any) -> list[Demand]:
    relative = field + RELATIVE
    if op in ("within", "not_within"):
        ends = (-value.total_seconds(), 0.0)
        return [(relative, "between" if op == "within" else "not_between", ends)]
    if op == "not_between":
        first, last = value
        scales = {isinstance(end, Relative) for end in value}
        return [(_scale(field, first), op, (_seconds(first), _seconds(last)))] if len(scales) == 1 else []
    if op == "between":
        return [(_scale(field, end), one, _seconds(end)) for one, end in zip(("gte", "lte"), value, strict=True)]
    return [(_scale(field, value), op, _seconds(value))]


def _scale(field: str, value: Any) -> str:
    return field + RELATIVE if isinstance(value, Relative) else field


def _seconds(value: Any) -> float:
    found: float = value.after.total_seconds() if isinstance(value, Relative) else value.timestamp()
    return found


def narrow(possible: Possible, op: str, value: Any) -> Possible:
    """`possible` after one more demand. One that names another field says only that this field is there."""
    if op in ("exists", "not_exists"):
        return _presence(possible, op == "exists")
    possible = _presence(possible, True)
    if isinstance(value, Reference):
        return possible
    if op in ("equals", "in", "not_equals", "not_in"):
        return _values(possible, tagged(value if op in ("in", "not_in") else (value,)), op in ("equals", "in"))
    if op in ("contains", "not_contains"):
        return _part(possible, value, op == "contains")
    return _interval(possible, op, value)


def _presence(possible: Possible, present: bool) -> Possible:
    clashes = possible.present is not None and possible.present != present
    return replace(possible, present=present, clashes=possible.clashes or clashes)


def _values(possible: Possible, values: Tagged, are: bool) -> Possible:
    possible = _sorts(possible, frozenset(sort for sort, _ in values))
    if not are:
        return replace(possible, without=possible.without | values)
    return replace(possible, among=values if possible.among is None else possible.among & values)


def _sorts(possible: Possible, sorts: frozenset[str]) -> Possible:
    return replace(possible, sorts=sorts if possible.sorts is None else possible.sorts & sorts)


def _part(possible: Possible, value: Any, is_part: bool) -> Possible:
    possible = _sorts(possible, frozenset({"list", "text"}) if isinstance(value, str) else frozenset({"list"}))
    # 1 and true would fall together in a set
    part = frozenset({value} if isinstance(value, str) else {(sort_of(value), value)})
    if is_part:
        return replace(possible, parts=possible.parts | part)
    return replace(possible, parts_not=possible.parts_not | part)


def _interval(possible: Possible, op: str, value: Any) -> Possible:
    possible = _sorts(possible, frozenset({"number"}))
    if op in ("within", "not_within"):
        op, value = ("between" if op == "within" else "not_between"), (0.0, value.total_seconds() / 86400)
    if op == "between":
        return _order(_order(possible, "gte", value[0]), "lte", value[1])
    if op == "not_between":
        is_plain = all(isinstance(end, int | float) for end in value)
        return replace(possible, gaps=(*possible.gaps, tuple(value))) if is_plain else possible
    return _order(possible, op, value)


def _order(possible: Possible, op: str, value: Any) -> Possible:
    if not isinstance(value, int | float):
        return possible
    is_open = op in ("lt", "gt")
    if op in ("gt", "gte"):
        if value > possible.low or (value == possible.low and is_open):
            return replace(possible, low=value, low_open=is_open)
    elif value < possible.high or (value == possible.high and is_open):
        return replace(possible, high=value, high_open=is_open)
    return possible
