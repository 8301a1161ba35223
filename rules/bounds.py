"""Whether comparisons of one field, all asked for at once, can be met by any value."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any


@dataclass(frozen=True, slots=True)
class Possible:
    """What a field may still be: an interval (each end open or closed), a set of values, present or missing."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    among: frozenset[Any] | None = None
    present: bool | None = None
    clashes: bool = False

    def is_empty(self) -> bool:
        if self.clashes or self.low > self.high or (self.low == self.high and (self.low_open or self.high_open)):
            return True
        return self.among is not None and not any(self._holds(value) for value in self.among)

    def _holds(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        above = value > self.low or (value == self.low and not self.low_open)
        return above and (value < self.high or (value == self.high and not self.high_open))


def narrow(possible: Possible, op: str, value: Any) -> Possible:
    """`possible` after one more comparison. One with another field says only that the field is present."""
    if op in ("exists", "not_exists"):
        return _presence(possible, op == "exists")
    possible = _presence(possible, True)
    if op in ("equals", "in"):
        values = frozenset(value) if op == "in" else frozenset([value])
        if any(not isinstance(item, str | int | float | bool) for item in values):
            return possible
        return replace(possible, among=values if possible.among is None else possible.among & values)
    if op in ("not_equals", "not_in") and possible.among is not None:
        return replace(possible, among=possible.among - (frozenset(value) if op == "not_in" else {value}))
    if op == "between":
        return narrow(narrow(possible, "gte", value[0]), "lte", value[1])
    if op == "within":
        return narrow(narrow(possible, "gte", 0.0), "lte", value.total_seconds() / 86400)
    return _order(possible, op, value)


def _presence(possible: Possible, present: bool) -> Possible:
    clashes = possible.present is not None and possible.present != present
    return replace(possible, present=present, clashes=possible.clashes or clashes)


def _order(possible: Possible, op: str, value: Any) -> Possible:
    if isinstance(value, datetime):
        value = value.timestamp()
    if op not in ("lt", "lte", "gt", "gte") or isinstance(value, bool | str | timedelta) or not _is_number(value):
        return possible
    is_open = op in ("lt", "gt")
    if op in ("gt", "gte"):
        if value > possible.low or (value == possible.low and is_open):
            return replace(possible, low=value, low_open=is_open)
    elif value < possible.high or (value == possible.high and is_open):
        return replace(possible, high=value, high_open=is_open)
    return possible


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
