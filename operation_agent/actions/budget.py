"""Money that may be committed: reserved when an action is planned, committed or released once when it ends.

The budget row's CHECK refuses to overspend and `budget_entries` allows one end per action, so a repeated or late
call changes nothing. Amounts are minor units of the budget's currency; `at` is system time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class Wanted:
    """One action's claim on a budget; the actions of a `group` are granted together or not at all."""

    budget_id: UUID
    action_id: UUID
    amount_minor: int
    group: UUID


def reserve(session: Session, shop_id: UUID, wanted: Sequence[Wanted], *, at: datetime) -> set[UUID]:
    """Reserve for each group in order while it fits; returns the groups that did not.

    A group claims one budget. Locks the budget rows in id order until the transaction ends: call it late.
    """
    groups: dict[UUID, list[Wanted]] = {}
    for one in wanted:
        if one.amount_minor > 0:
            groups.setdefault(one.group, []).append(one)
    if not groups:
        return set()
    left = _available(session, shop_id, sorted({one.budget_id for one in wanted}))
    granted: list[Wanted] = []
    refused: set[UUID] = set()
    for group, members in groups.items():
        total, budget_id = sum(one.amount_minor for one in members), members[0].budget_id
        if total <= left.get(budget_id, 0):
            left[budget_id] -= total
            granted += members
        else:
            refused.add(group)
    if granted:
        _write_reservations(session, shop_id, granted, at)
    return refused


def _available(session: Session, shop_id: UUID, budget_ids: Sequence[UUID]) -> dict[UUID, int]:
    rows = session.execute(
        text(
            "SELECT id, limit_minor - reserved_minor - spent_minor AS available FROM budgets"
            " WHERE shop_id = :shop AND id = ANY(:ids) ORDER BY id FOR UPDATE"
        ),
        {"shop": shop_id, "ids": list(budget_ids)},
    )
    return {row.id: row.available for row in rows}


def _write_reservations(session: Session, shop_id: UUID, granted: Sequence[Wanted], at: datetime) -> None:
    session.execute(
        text(
            """
            WITH r AS (
              SELECT * FROM unnest(CAST(:budgets AS uuid[]), CAST(:actions AS uuid[]), CAST(:amounts AS bigint[]))
                AS r (budget_id, action_id, amount_minor)
            ), entries AS (
              INSERT INTO budget_entries (shop_id, budget_id, action_id, kind, amount_minor, at)
              SELECT :shop, budget_id, action_id, 'reserve', amount_minor, :at FROM r
            )
            UPDATE budgets b SET reserved_minor = b.reserved_minor + t.total
            FROM (SELECT budget_id, sum(amount_minor) AS total FROM r GROUP BY budget_id) t
            WHERE b.shop_id = :shop AND b.id = t.budget_id
            """
        ),
        {
            "shop": shop_id,
            "at": at,
            "budgets": [one.budget_id for one in granted],
            "actions": [one.action_id for one in granted],
            "amounts": [one.amount_minor for one in granted],
        },
    )


_FINISH = """
WITH entries AS (
  INSERT INTO budget_entries (shop_id, budget_id, action_id, kind, amount_minor, at)
  SELECT r.shop_id, r.budget_id, r.action_id, :kind, r.amount_minor, :at
  FROM budget_entries r WHERE r.shop_id = :shop AND r.action_id = ANY(:actions) AND r.kind = 'reserve'
  ON CONFLICT DO NOTHING
  RETURNING budget_id, amount_minor
), totals AS (
  SELECT budget_id, sum(amount_minor) AS total FROM entries GROUP BY budget_id
), locked AS (
  SELECT b.id, t.total FROM budgets b JOIN totals t ON t.budget_id = b.id
  WHERE b.shop_id = :shop ORDER BY b.id FOR UPDATE OF b
)
UPDATE budgets b SET reserved_minor = b.reserved_minor - locked.total,
  spent_minor = b.spent_minor + locked.total * :spends
FROM locked WHERE b.shop_id = :shop AND b.id = locked.id
"""


def finish(
    session: Session, shop_id: UUID, action_ids: Sequence[UUID], kind: Literal["commit", "release"], *, at: datetime
) -> None:
    """End these actions' reservations, once; those that have none, or ended before, are left alone."""
    if action_ids:
        session.execute(
            text(_FINISH),
            {"shop": shop_id, "actions": list(action_ids), "kind": kind, "at": at, "spends": int(kind == "commit")},
        )
