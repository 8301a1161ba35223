"""Properties of events as columns that conditions are evaluated over: what rules.evaluate wants of each kind.

A value of another type than the field's is missing, never guessed at: "12" is no number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray


def column(kind: str, values: Iterable[Any]) -> NDArray[Any]:
    """`values` as JSON gives them (None: missing) in the form of a field of `kind`.

    Instants become seconds since 1970, UTC; one without an offset is missing, since nobody can say when it was.
    """
    if kind == "number":
        return np.fromiter(map(_number, values), np.float64)
    if kind == "flag":
        return np.fromiter((float(one) if isinstance(one, bool) else math.nan for one in values), np.float64)
    if kind == "time":
        return np.fromiter(map(_instant, values), np.float64)
    if kind == "label":
        return objects(one if isinstance(one, str) else None for one in values)
    if kind == "list":
        return objects(tuple(one) if isinstance(one, list | tuple) else None for one in values)
    return objects(values)


def objects(values: Iterable[Any]) -> NDArray[Any]:
    # fromiter, since a plain assignment would take tuples of one length for a second dimension
    return np.fromiter(values, dtype=object)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _instant(value: Any) -> float:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return math.nan
    if not isinstance(value, datetime) or value.tzinfo is None:
        return math.nan
    return value.astimezone(UTC).timestamp()
