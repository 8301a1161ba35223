"""How many decisions to act a strategy takes on a day of its shop's calendar: exact under any number of workers.

The row of a strategy's day is locked while it is counted, and its CHECK refuses more than the limit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import text
from sqlalchemy.orm import Session


class Execution(NamedTuple):
    """One decision to act. `limit`: the strategy's `executions_per_day`; `group`: the decision's id."""

    strategy_id: UUID
    day: date
    limit: int
    group: UUID


def day_of(time_zone: str, at: datetime) -> date:
    """The day of the shop's calendar in which `at` (shop time, UTC) lies."""
    return at.astimezone(ZoneInfo(time_zone)).date()


# makes the rows and locks them, in one order for everybody
_LOCK = """
INSERT INTO execution_days AS e (shop_id, strategy_id, day, taken, most)
SELECT :shop, r.strategy_id, r.day, 0, 0 FROM unnest(CAST(:strategies AS uuid[]), CAST(:days AS date[]))
  AS r (strategy_id, day)
ORDER BY r.strategy_id, r.day
ON CONFLICT (shop_id, strategy_id, day) DO UPDATE SET taken = e.taken
RETURNING strategy_id, day, taken
"""

_TAKE = """
UPDATE execution_days e SET taken = e.taken + r.number, most = r.most
FROM unnest(CAST(:strategies AS uuid[]), CAST(:days AS date[]), CAST(:numbers AS int[]), CAST(:most AS int[]))
  AS r (strategy_id, day, number, most)
WHERE e.shop_id = :shop AND e.strategy_id = r.strategy_id AND e.day = r.day
"""

_GIVE_BACK = """
UPDATE execution_days e SET taken = e.taken - r.number
FROM unnest(CAST(:strategies AS uuid[]), CAST(:days AS date[]), CAST(:numbers AS int[])) AS r (strategy_id, day, number)
WHERE e.shop_id = :shop AND e.strategy_id = r.strategy_id AND e.day = r.day
"""


def take(session: Session, shop_id: UUID, wanted: Sequence[Execution | tuple[UUID, date, int, UUID]]) -> set[UUID]:
    """Take one execution for each, in order while the limit allows; returns the groups that came too late.

    Locks the strategies' days until the transaction ends: call it late, once, and before `budget.reserve`.
    """
    if not wanted:
        return set()
    asked = [Execution(*one) for one in wanted]
    keys = sorted({(one.strategy_id, one.day) for one in asked})
    values = {"shop": shop_id, "strategies": [key[0] for key in keys], "days": [key[1] for key in keys]}
    taken = {(row.strategy_id, row.day): row.taken for row in session.execute(text(_LOCK), values)}
    refused: set[UUID] = set()
    granted: Counter[tuple[UUID, date]] = Counter()
    most: dict[tuple[UUID, date], int] = {}
    for one in asked:
        key = one.strategy_id, one.day
        if taken[key] + granted[key] < one.limit:
            granted[key] += 1
            most[key] = max(one.limit, most.get(key, 0))
        else:
            refused.add(one.group)
    if granted:
        session.execute(
            text(_TAKE), {"shop": shop_id, **_columns(granted), "most": [most[key] for key in granted if granted[key]]}
        )
    return refused


def give_back(session: Session, shop_id: UUID, taken: Iterable[tuple[UUID, date]]) -> None:
    """Undo what this transaction took for decisions that then did not happen (no money): (strategy, day) of each."""
    numbers = Counter(taken)
    if numbers:
        session.execute(text(_GIVE_BACK), {"shop": shop_id, **_columns(numbers)})


def _columns(numbers: Counter[tuple[UUID, date]]) -> dict[str, list]:
    counted = [(key, number) for key, number in numbers.items() if number]
    return {
        "strategies": [key[0] for key, _ in counted],
        "days": [key[1] for key, _ in counted],
        "numbers": [number for _, number in counted],
    }
