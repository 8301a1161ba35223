"""The rows that conditions are evaluated over: many at once (`Batch`) or one by itself (`Row`).

Columns: `number`, `flag` and `time` are float64 with NaN for missing (a flag is 1 or 0, an instant seconds since 1970,
UTC; whole-number and bool arrays will do); `label`, `list` and `any` are object arrays with None for missing, or
`Labels`. A column that is absent is missing for everybody. `at` holds each row's moment.

Both give the same four things under the same names, as arrays or as plain values, so that one text of a comparison
serves both: `numbers[key]` with where it is missing, `objects[name]`, `among` and `each`. What is converted once is
kept for every condition that is held against the same rows. A key is a field's name, or (name, sort) for those values
of an `any` field that are of one sort.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bounds import sort_of

Columns = Mapping[str, Any]
Key = str | tuple[str, str]
Masks = tuple[Any, Any]
"""Where something is surely true, and where it may be (true or unknown): bool arrays, or two bools for one row. The
second is the first itself where nothing is unknown."""

AT = "at"
LARGE = 4096
"""From so many rows on it pays to look whether all of them are decided already."""
_FEW_MEMBERS = 16
"""So many comparisons of small codes are faster than looking each code up in a table."""
_ROWS_KEPT = 64


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """A column of words (or tuples of words) as whole numbers: row i has `values[codes[i]]`, or nothing where the code
    is -1. Much smaller and faster than objects where few values come often."""

    codes: NDArray[np.integer[Any]]
    values: tuple[Any, ...]

    @classmethod
    def of(cls, values: Iterable[Any]) -> Labels:
        """None is missing."""
        listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
        try:
            index = _Numbering({None: -1})
            codes = np.fromiter(map(index.__getitem__, listed), np.int32, len(listed))
            found = cls(codes, tuple(index)[1:])
        except TypeError:  # lists have no hash: every row then has a number of its own
            found = cls(
                np.fromiter((-1 if one is None else i for i, one in enumerate(listed)), np.int32, len(listed)),
                tuple(listed),
            )
        small = np.int8 if len(found.values) < 127 else np.int16 if len(found.values) < 32767 else np.int32
        return cls(found.codes.astype(small, copy=False), found.values)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: Any) -> Any:
        """One row's value, or of several rows the Labels."""
        if isinstance(rows, int | np.integer):
            code = self.codes[rows]
            return None if code < 0 else self.values[code]  # which a plain index would take for the last
        return Labels(self.codes[rows], self.values)

    def places(self) -> dict[Any, int]:
        """The code of each value; none where values have no hash."""
        try:
            return {value: code for code, value in enumerate(self.values)}
        except TypeError:
            return {}

    def objects(self) -> NDArray[Any]:
        """The same as an object array."""
        table = np.empty(len(self.values) + 1, dtype=object)
        for i, value in enumerate(self.values):
            table[i] = value
        found: NDArray[Any] = table[self.codes]  # -1 is the last, None
        return found


class _Numbering(dict[Any, int]):
    """Numbers what it has not seen yet; the first entry (None) counts as -1."""

    def __missing__(self, value: Any) -> int:
        self[value] = number = len(self) - 1
        return number


# What was converted is kept in these; none knows the batch it belongs to, since a cycle would keep a million rows
# in memory until the garbage collector comes by.


class _Objects(dict[str, Any]):
    """By name, the column as an object array."""

    def __init__(self, columns: Columns, n: int) -> None:
        super().__init__()
        self._columns, self._n = columns, n

    def __missing__(self, name: str) -> NDArray[Any]:
        column = self._columns.get(name)
        if column is None:
            column = np.full(self._n, None, dtype=object)
        self[name] = made = column.objects() if isinstance(column, Labels) else column
        return made


class _Numbers(dict[Key, Any]):
    """By key, the column as float64 and where it is missing (False: nowhere)."""

    def __init__(self, columns: Columns, n: int, objects: _Objects) -> None:
        super().__init__()
        self._columns, self._n, self._objects = columns, n, objects

    def __missing__(self, key: Key) -> tuple[NDArray[np.float64], Any]:
        if isinstance(key, tuple):
            listed = self._objects[key[0]].tolist()
            column = np.fromiter((float(x) if sort_of(x) == key[1] else math.nan for x in listed), np.float64, self._n)
        else:
            found = self._columns.get(key)
            column = np.full(self._n, np.nan) if found is None else np.asarray(found).astype(np.float64, copy=False)
        self[key] = made = (column, _somewhere(np.isnan(column)))
        return made


class _Codes(dict[Key, Any]):
    """By key, the column as Labels, the code of each value, and where it is missing (False: nowhere)."""

    def __init__(self, columns: Columns, objects: _Objects) -> None:
        super().__init__()
        self._columns, self._objects = columns, objects

    def __missing__(self, key: Key) -> tuple[Labels, dict[Any, int], Any]:
        if isinstance(key, tuple):
            labels = Labels.of(x if sort_of(x) == key[1] else None for x in self._objects[key[0]].tolist())
        else:
            column = self._columns.get(key)
            labels = column if isinstance(column, Labels) else Labels.of(self._objects[key])
        self[key] = made = (labels, labels.places(), _somewhere(labels.codes < 0))
        return made


class _Sliced(dict[Any, Any]):
    """Some rows of what another one of these keeps."""

    def __init__(self, whole: Mapping[Any, Any], rows: slice, cut: Callable[[Any, slice], Any]) -> None:
        super().__init__()
        self._whole, self._rows, self._cut = whole, rows, cut

    def __missing__(self, key: Any) -> Any:
        self[key] = made = self._cut(self._whole[key], self._rows)
        return made


def _cut_number(kept: Any, rows: slice) -> tuple[NDArray[np.float64], Any]:
    missing = kept[1] if kept[1] is False else _somewhere(kept[1][rows])
    return kept[0][rows], missing


def _cut_codes(kept: Any, rows: slice) -> tuple[Labels, dict[Any, int], Any]:
    missing = kept[2] if kept[2] is False else _somewhere(kept[2][rows])
    return kept[0][rows], kept[1], missing


def _somewhere(mask: Any) -> Any:
    return mask if mask.any() else False


class Batch:
    """Rows together. Make one for all conditions that look at the same rows: it keeps what it converted, and up to
    `rules.evaluate.BLOCK` rows also every comparison's outcome."""

    def __init__(self, columns: Columns, n: int) -> None:
        self.columns, self.n, self.is_large = columns, n, n >= LARGE
        self.objects: Mapping[str, NDArray[Any]] = (objects := _Objects(columns, n))
        self.numbers: Mapping[Key, tuple[NDArray[np.float64], Any]] = _Numbers(columns, n, objects)
        self.codes: Mapping[Key, tuple[Labels, dict[Any, int], Any]] = _Codes(columns, objects)
        self.outcomes: dict[str, Masks] = {}
        self._rows: dict[int, Row] = {}
        self._nowhere: Any = None

    @property
    def nowhere(self) -> NDArray[np.bool_]:
        """No row; not to be written to."""
        if self._nowhere is None:
            self._nowhere = np.zeros(self.n, np.bool_)
            self._nowhere.setflags(write=False)
        found: NDArray[np.bool_] = self._nowhere
        return found

    def row(self, index: int) -> Row:
        """One of the rows; the ones asked for last are kept."""
        found = self._rows.get(index)
        if found is None:
            if len(self._rows) >= _ROWS_KEPT:
                self._rows.clear()
            found = self._rows[index] = Row(self.columns, index)
        return found

    def block(self, start: int, stop: int) -> Batch:
        """Some of the rows, converted as in this batch."""
        part, rows = Batch({}, stop - start), slice(start, stop)
        part.objects = _Sliced(self.objects, rows, operator.getitem)
        part.numbers = _Sliced(self.numbers, rows, _cut_number)
        part.codes = _Sliced(self.codes, rows, _cut_codes)
        return part

    def among(self, key: Key, members: frozenset[Any]) -> Masks:
        """Where a label is one of `members`."""
        labels, places, missing = self.codes[key]
        codes, wanted = labels.codes, [places[member] for member in members if member in places]
        if len(wanted) > _FEW_MEMBERS or not wanted:
            table = np.zeros(len(labels.values) + 1, np.bool_)
            table[wanted] = True
            true = table.take(codes)
        else:
            true = codes == wanted[0]
            for code in wanted[1:]:
                true = true | (codes == code)
        return (true, true) if missing is False else (true, true | missing)

    def each(self, name: str, kind: str, holds: Callable[[Any], bool | None]) -> Masks:
        """Value by value; what `holds` answers None to is unknown. A label's and a list's values once each."""
        if kind == "any":
            found = [None if value is None else holds(value) for value in self.objects[name].tolist()]
            return self._told(found)
        labels, _, missing = self.codes[name]
        answers = [holds(value) for value in labels.values]
        true = np.array([one is True for one in answers] + [False]).take(labels.codes)
        if missing is False and None not in answers:
            return true, true
        return true, np.array([one is not False for one in answers] + [True]).take(labels.codes)

    def differ(self, name: str, other: str) -> Masks:
        """Where two columns of objects have different values."""
        pairs = zip(self.objects[name].tolist(), self.objects[other].tolist(), strict=True)
        return self._told([differs(one, two) for one, two in pairs])

    def is_missing(self, name: str, kind: str) -> Any:
        """Where nothing is there."""
        if kind == "any":
            nothing: Any = None
            return np.equal(self.objects[name], nothing).astype(np.bool_)
        missing = self.codes[name][2] if kind in ("label", "list") else self.numbers[name][1]
        return np.zeros(self.n, np.bool_) if missing is False else missing

    @staticmethod
    def contrary(mask: Any) -> Any:
        return np.logical_not(mask)

    def _told(self, answers: list[bool | None]) -> Masks:
        true = np.fromiter((one is True for one in answers), np.bool_, self.n)
        return true, np.fromiter((one is not False for one in answers), np.bool_, self.n)


class _RowObjects(dict[Key, Any]):
    """By key, the plain value or None."""

    def __init__(self, columns: Columns, index: int) -> None:
        super().__init__()
        self._columns, self._index = columns, index

    def __missing__(self, key: Key) -> Any:
        if isinstance(key, tuple):
            value = self[key[0]]
            value = value if sort_of(value) == key[1] else None
        else:
            column = self._columns.get(key)
            value = None if column is None else column[self._index]
        self[key] = value
        return value


class _RowNumbers(dict[Key, tuple[float, bool]]):
    """By key, the value as a float and whether it is missing."""

    def __init__(self, objects: _RowObjects) -> None:
        super().__init__()
        self._objects = objects

    def __missing__(self, key: Key) -> tuple[float, bool]:
        value = self._objects[key]
        number = math.nan if value is None else float(value)
        self[key] = made = (number, number != number)
        return made


class Row:
    """One row by itself: plain numbers and bools where a Batch has arrays, which for one row is ten times as fast."""

    __slots__ = ("columns", "index", "numbers", "objects")
    is_large = False

    def __init__(self, columns: Columns, index: int) -> None:
        self.columns, self.index = columns, index
        self.objects = _RowObjects(columns, index)
        self.numbers = _RowNumbers(self.objects)

    def among(self, key: Key, members: frozenset[Any]) -> Masks:
        value = self.objects[key]
        if value is None:
            return False, True
        found = value in members
        return found, found

    def each(self, name: str, kind: str, holds: Callable[[Any], bool | None]) -> Masks:
        value = self.objects[name]
        found = None if value is None else holds(value)
        return found is True, found is not False

    def differ(self, name: str, other: str) -> Masks:
        found = differs(self.objects[name], self.objects[other])
        return found is True, found is not False

    def is_missing(self, name: str, kind: str) -> Any:
        return self.objects[name] is None if kind in ("label", "list", "any") else self.numbers[name][1]

    @staticmethod
    def contrary(mask: Any) -> Any:
        return not mask


View = Batch | Row


def differs(one: Any, two: Any) -> bool | None:
    """Whether two values differ, in themselves or in their sort; None where either is missing."""
    if one is None or two is None:
        return None
    return sort_of(one) != sort_of(two) or bool(one != two)
