"""Looking at budgets, and changing what may be committed.

The whole limit cannot be set below what is committed: that is a Conflict. A daily or per-customer limit can: it counts
for what is reserved from then on, and takes back nothing. Amounts are minor units of the budget's currency.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.kit.errors import Conflict, NotFound, Rejected
from operation_agent.kit.money import Money
from operation_agent.store import audit
from operation_agent.store.shops import Shop

from .executions import day_of

LIMITS = ("limit_minor", "daily_minor", "per_customer_minor")


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget as it stands on `day` of the shop's calendar. Left today: None without a daily limit."""

    id: UUID
    name: str
    currency: str
    limit_minor: int
    daily_minor: int | None
    per_customer_minor: int | None
    reserved_minor: int
    spent_minor: int
    day: date
    committed_today_minor: int
    strategies: Sequence[str]

    @property
    def left_minor(self) -> int:
        return self.limit_minor - self.reserved_minor - self.spent_minor

    @property
    def left_today_minor(self) -> int | None:
        if self.daily_minor is None:
            return None
        return max(0, min(self.left_minor, self.daily_minor - self.committed_today_minor))


_SELECT = """
SELECT b.id, b.name, b.currency, b.limit_minor, b.daily_minor, b.per_customer_minor, b.reserved_minor, b.spent_minor,
  CAST(:day AS date) AS day, COALESCE(d.committed_minor, 0) AS committed_today_minor,
  ARRAY(SELECT s.key FROM strategies AS s WHERE s.shop_id = b.shop_id AND s.budget_id = b.id ORDER BY s.key)
    AS strategies
FROM budgets AS b
LEFT JOIN budget_days AS d ON d.shop_id = b.shop_id AND d.budget_id = b.id AND d.day = CAST(:day AS date)
WHERE b.shop_id = :shop AND (CAST(:id AS uuid) IS NULL OR b.id = CAST(:id AS uuid))
ORDER BY b.name, b.id
"""


def standings(session: Session, shop: Shop, *, at: datetime) -> list[Standing]:
    """Every budget of a shop by name; `at` is system time."""
    return [_standing(row) for row in _read(session, shop, None, at)]


def standing(session: Session, shop: Shop, budget_id: UUID, *, at: datetime) -> Standing:
    """Raises NotFound."""
    for row in _read(session, shop, budget_id, at):
        return _standing(row)
    raise NotFound(f"there is no budget {budget_id}")


def _read(session: Session, shop: Shop, budget_id: UUID | None, at: datetime) -> Sequence[Row[Any]]:
    day = day_of(shop.time_zone, at + shop.clock_offset)
    return session.execute(text(_SELECT), {"shop": shop.id, "id": budget_id, "day": day}).all()


def _standing(row: Row[Any]) -> Standing:
    return Standing(**row._mapping)


def change(
    session: Session, shop: Shop, budget_id: UUID, limits: Mapping[str, int | None], *, at: datetime, actor: str
) -> Standing:
    """Set those of LIMITS that are given; None takes a daily or per-customer limit away. `at` is system time.

    Raises NotFound, Rejected for a part that is more than the whole, Conflict for a limit below what is committed.
    """
    locked = session.execute(
        text("SELECT * FROM budgets WHERE shop_id = :shop AND id = :id FOR UPDATE"), {"shop": shop.id, "id": budget_id}
    ).one_or_none()
    if locked is None:
        raise NotFound(f"there is no budget {budget_id}")
    before = {name: getattr(locked, name) for name in LIMITS}
    after = before | {name: value for name, value in limits.items() if name in LIMITS}
    _check(locked, limits, after)
    if after != before:
        session.execute(
            text(
                "UPDATE budgets SET limit_minor = :limit_minor, daily_minor = :daily_minor,"
                " per_customer_minor = :per_customer_minor WHERE shop_id = :shop AND id = :id"
            ),
            {"shop": shop.id, "id": budget_id, **after},
        )
        audit.record(
            session, shop.id, at=at, actor=actor, verb="budget.changed", subject=f"budget:{budget_id}",
            detail={"before": before, "after": after},
        )  # fmt: skip
    return standing(session, shop, budget_id, at=at)


def _check(locked: Row[Any], limits: Mapping[str, int | None], after: Mapping[str, int | None]) -> None:
    whole, committed = after["limit_minor"], locked.reserved_minor + locked.spent_minor
    if whole is None:
        raise Rejected("a budget has a limit; leave limit_minor out to keep it", where="limit_minor")
    if whole < committed:
        raise Conflict(
            f"{Money(committed, locked.currency)} of this budget is spent or reserved already; the limit cannot be"
            " lower. Pause its strategies, or call planned actions off, to let go of what is reserved",
            code="budget", where="limit_minor", committed_minor=committed,
        )  # fmt: skip
    for name in ("daily_minor", "per_customer_minor"):
        part = limits.get(name)
        if part is not None and part > whole:
            raise Rejected(f"{name} is {part}, more than the whole limit of {whole}", where=name)
