"""Where money or a day's executions cannot serve everybody: who goes first. Pure.

Everybody whom a campaign would act on claims something of a strategy's budget and day. Claims are served by value, the
dearest (most valuable) first, at equal value by random key, over the whole audience; the first that there is no room
for ends the line. The line's end is handed to each chunk, so that it does not matter which chunk comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

CLAIM = np.dtype([("score", "<f8"), ("key", "V16"), ("needed", "<i8"), ("takes", "<i8"), ("acts", "?")])
"""A claim: its value, whose (random key), what the dearest arm may cost, what the drawn arm takes (0: held out), and
whether it counts as an execution. Minor units."""

Claims = NDArray[Any]

NOBODY = 1e15
"""More than any score: a line that ends before its first. Finite, since receipts are JSON."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a strategy has left on the campaign's day; None: no such limit. `audience`: above so many customers, people
    have to say yes."""

    money_minor: int | None = None
    executions: int | None = None
    audience: int | None = None

    def holds(self, *, cost_minor: int, executions: int) -> bool:
        """Whether so much can be served without anybody being left out."""
        money, day = self.money_minor, self.executions
        return (money is None or cost_minor <= money) and (day is None or executions <= day)


@dataclass(frozen=True, slots=True)
class Line:
    """Where the line ends: `last` is the random key of the last one served, at `score`. `served` of `claims`."""

    score: float
    last: UUID
    served: int
    claims: int

    def to_dict(self) -> dict[str, Any]:
        return {"score": self.score, "last": str(self.last), "served": self.served, "claims": self.claims}


def in_order(claims: Claims) -> Claims:
    """The most valuable first, at equal value by random key."""
    halves = np.ascontiguousarray(claims["key"]).view(">u8").reshape(-1, 2).astype(np.uint64)
    return claims[np.lexsort((halves[:, 1], halves[:, 0], -claims["score"]))]


def line(claims: Claims, room: Room) -> Line | None:
    """Where the line ends; None when there is room for all.

    Served is who is before the first claim for which, after all before it, the dearest arm could not be paid or no
    execution is left. Of those served each could still be paid whoever of them comes last, since chunks run side by
    side.
    """
    ordered = in_order(claims)
    fits = np.ones(len(ordered), bool)
    if room.money_minor is not None:
        spare = np.maximum.accumulate(ordered["needed"] - ordered["takes"])
        fits &= np.cumsum(ordered["takes"]) + spare <= room.money_minor
    if room.executions is not None:
        before = np.cumsum(ordered["acts"]) - ordered["acts"]
        fits &= before < room.executions
    if fits.all():
        return None
    served = int(np.argmin(fits))
    if served == 0:
        return Line(NOBODY, UUID(int=0), 0, len(ordered))
    last = ordered[served - 1]
    return Line(float(last["score"]), UUID(bytes=last["key"].tobytes()), served, len(ordered))
