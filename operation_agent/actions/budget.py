"""Money that may be committed: reserved when an action is planned, committed or released once when it ends.

Three limits at once: in all, a day of the shop's calendar, one customer ever. CHECKs of the database refuse to
overspend any of them (`budgets`; `budget_days` and `budget_customers` by a copy of the limit), and `budget_entries`
allows one end per action, so a repeated or late call changes nothing. Money is coupon liability and message cost, in
minor units of the budget's currency; `at` is system time.

Locks: budget rows in id order; the days and customers of a budget are touched under its row's lock only. Everything
that plans or settles takes its locks in this order, so that nobody waits in a circle: approvals, actions, executions,
budgets, outbox, audit. Reserve once per transaction, late: the row is held until it ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

Short = Literal["total", "daily", "per_customer"]
"""Which limit a refused group would have broken."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One action's claim on a budget; the actions of a `group` are granted together or not at all.

    `day`: of the decision, in the shop's calendar (`executions.day_of`). Day and customer are None in what an earlier
    release reserved, and then count in no such limit.
    """

    budget_id: UUID
    action_id: UUID
    amount_minor: int
    group: UUID
    customer_id: UUID | None
    day: date | None


@dataclass(slots=True)
class _Left:
    """What may still be reserved, of the budgets that are locked. Without an entry a limit does not exist."""

    total: dict[UUID, int]
    daily: dict[tuple[UUID, date], int] = field(default_factory=dict)
    customers: dict[tuple[UUID, UUID], int] = field(default_factory=dict)

    def take(self, members: Sequence[Wanted]) -> Short | None:
        """Take the whole group, or nothing and say which limit stands against it."""
        total, daily, customers = _sums(members)
        if any(amount > self.total.get(key, 0) for key, amount in total.items()):
            return "total"
        if any(amount > self.daily.get(key, amount) for key, amount in daily.items()):
            return "daily"
        if any(amount > self.customers.get(key, amount) for key, amount in customers.items()):
            return "per_customer"
        _subtract(self.total, total)
        _subtract(self.daily, daily)
        _subtract(self.customers, customers)
        return None


def _subtract(left: dict[Any, int], taken: dict[Any, int]) -> None:
    for key, amount in taken.items():
        if key in left:
            left[key] -= amount


Sums = tuple[dict[UUID, int], dict[tuple[UUID, date], int], dict[tuple[UUID, UUID], int]]


def _sums(members: Iterable[Wanted]) -> Sums:
    total: dict[UUID, int] = {}
    daily: dict[tuple[UUID, date], int] = {}
    customers: dict[tuple[UUID, UUID], int] = {}
    for one in members:
        total[one.budget_id] = total.get(one.budget_id, 0) + one.amount_minor
        if one.day is not None:
            on = one.budget_id, one.day
            daily[on] = daily.get(on, 0) + one.amount_minor
        if one.customer_id is not None:
            whose = one.budget_id, one.customer_id
            customers[whose] = customers.get(whose, 0) + one.amount_minor
    return total, daily, customers


def reserve(session: Session, shop_id: UUID, wanted: Sequence[Wanted], *, at: datetime) -> dict[UUID, Short]:
    """Reserve for each group, in the order of `wanted` while it fits; returns the groups that did not, and why.

    Locks the budgets until the transaction ends: call it late, after `executions.take`.
    """
    groups: dict[UUID, list[Wanted]] = {}
    for one in wanted:
        if one.amount_minor > 0:
            groups.setdefault(one.group, []).append(one)
    if not groups:
        return {}
    left = _lock(session, shop_id, [one for members in groups.values() for one in members])
    granted: list[Wanted] = []
    refused: dict[UUID, Short] = {}
    for group, members in groups.items():
        short = left.take(members)
        if short is None:
            granted += members
        else:
            refused[group] = short
    if granted:
        _write_reservations(session, shop_id, granted, at)
    return refused


# -- what is left -------------------------------------------------------------------------------------------------

_LOCK = """
SELECT id, limit_minor - reserved_minor - spent_minor AS available, daily_minor, per_customer_minor FROM budgets
WHERE shop_id = :shop AND id = ANY(:ids) ORDER BY id FOR UPDATE
"""

_DAYS = """
SELECT w.budget_id, w.day, COALESCE(d.committed_minor, 0) AS committed
FROM unnest(CAST(:budgets AS uuid[]), CAST(:days AS date[])) AS w (budget_id, day)
LEFT JOIN budget_days d ON d.shop_id = :shop AND d.budget_id = w.budget_id AND d.day = w.day
"""

# somebody's money is also what was committed to those who were merged into them
_CUSTOMERS = """
SELECT w.budget_id, w.customer_id, COALESCE(sum(b.committed_minor), 0)::bigint AS committed
FROM unnest(CAST(:budgets AS uuid[]), CAST(:customers AS uuid[])) AS w (budget_id, customer_id)
LEFT JOIN LATERAL (
  SELECT w.customer_id AS id
  UNION ALL SELECT c.id FROM customers c WHERE c.shop_id = :shop AND c.merged_into = w.customer_id) known ON true
LEFT JOIN budget_customers b ON b.shop_id = :shop AND b.budget_id = w.budget_id AND b.customer_id = known.id
GROUP BY 1, 2
"""


def _lock(session: Session, shop_id: UUID, wanted: Sequence[Wanted]) -> _Left:
    total, daily, customers = _sums(wanted)
    rows = {row.id: row for row in session.execute(text(_LOCK), {"shop": shop_id, "ids": sorted(total)})}
    left = _Left({id_: row.available for id_, row in rows.items()})
    paced = [key for key in daily if key[0] in rows and rows[key[0]].daily_minor is not None]
    if paced:
        values = {"shop": shop_id, "budgets": [key[0] for key in paced], "days": [key[1] for key in paced]}
        for row in session.execute(text(_DAYS), values):
            left.daily[row.budget_id, row.day] = rows[row.budget_id].daily_minor - row.committed
    limited = [key for key in customers if key[0] in rows and rows[key[0]].per_customer_minor is not None]
    if limited:
        values = {"shop": shop_id, "budgets": [key[0] for key in limited], "customers": [key[1] for key in limited]}
        for row in session.execute(text(_CUSTOMERS), values):
            most = rows[row.budget_id].per_customer_minor
            left.customers[row.budget_id, row.customer_id] = most - row.committed
    return left


# -- what is written ----------------------------------------------------------------------------------------------

_RESERVE = """
WITH r AS (
  SELECT * FROM unnest(CAST(:budgets AS uuid[]), CAST(:actions AS uuid[]), CAST(:amounts AS bigint[]),
    CAST(:customers AS uuid[]), CAST(:days AS date[])) AS r (budget_id, action_id, amount_minor, customer_id, day)
), entries AS (
  INSERT INTO budget_entries (shop_id, budget_id, action_id, kind, amount_minor, at, day, customer_id)
  SELECT :shop, budget_id, action_id, 'reserve', amount_minor, :at, day, customer_id FROM r
), days AS (
  INSERT INTO budget_days AS d (shop_id, budget_id, day, committed_minor, limit_minor)
  SELECT :shop, r.budget_id, r.day, sum(r.amount_minor), b.daily_minor
  FROM r JOIN budgets b ON b.shop_id = :shop AND b.id = r.budget_id WHERE r.day IS NOT NULL
  GROUP BY r.budget_id, r.day, b.daily_minor
  ON CONFLICT (shop_id, budget_id, day) DO UPDATE
  SET committed_minor = d.committed_minor + EXCLUDED.committed_minor, limit_minor = EXCLUDED.limit_minor
), customers AS (
  INSERT INTO budget_customers AS c (shop_id, budget_id, customer_id, committed_minor, limit_minor)
  SELECT :shop, r.budget_id, r.customer_id, sum(r.amount_minor), b.per_customer_minor
  FROM r JOIN budgets b ON b.shop_id = :shop AND b.id = r.budget_id AND b.per_customer_minor IS NOT NULL
  WHERE r.customer_id IS NOT NULL GROUP BY r.budget_id, r.customer_id, b.per_customer_minor
  ON CONFLICT (shop_id, budget_id, customer_id) DO UPDATE
  SET committed_minor = c.committed_minor + EXCLUDED.committed_minor, limit_minor = EXCLUDED.limit_minor
)
UPDATE budgets b SET reserved_minor = b.reserved_minor + t.total
FROM (SELECT budget_id, sum(amount_minor) AS total FROM r GROUP BY budget_id) t
WHERE b.shop_id = :shop AND b.id = t.budget_id
"""


def _write_reservations(session: Session, shop_id: UUID, granted: Sequence[Wanted], at: datetime) -> None:
    session.execute(
        text(_RESERVE),
        {
            "shop": shop_id,
            "at": at,
            "budgets": [one.budget_id for one in granted],
            "actions": [one.action_id for one in granted],
            "amounts": [one.amount_minor for one in granted],
            "customers": [one.customer_id for one in granted],
            "days": [one.day for one in granted],
        },
    )


_END = """
INSERT INTO budget_entries (shop_id, budget_id, action_id, kind, amount_minor, at, day, customer_id)
SELECT r.shop_id, r.budget_id, r.action_id, e.kind, r.amount_minor, :at, r.day, r.customer_id
FROM unnest(CAST(:actions AS uuid[]), CAST(:kinds AS text[])) AS e (action_id, kind)
JOIN budget_entries r ON r.shop_id = :shop AND r.action_id = e.action_id AND r.kind = 'reserve'
ORDER BY r.action_id
ON CONFLICT DO NOTHING
RETURNING kind, budget_id, action_id, amount_minor, day, customer_id
"""

_SETTLE = """
WITH locked AS (
  SELECT b.id, t.total, t.spent
  FROM unnest(CAST(:budgets AS uuid[]), CAST(:totals AS bigint[]), CAST(:spent AS bigint[])) AS t (id, total, spent)
  JOIN budgets b ON b.shop_id = :shop AND b.id = t.id ORDER BY b.id FOR UPDATE OF b
)
UPDATE budgets b SET reserved_minor = b.reserved_minor - locked.total, spent_minor = b.spent_minor + locked.spent
FROM locked WHERE b.shop_id = :shop AND b.id = locked.id
"""

# after _SETTLE, whose locks they stand under
_GIVE_BACK_DAYS = """
UPDATE budget_days d SET committed_minor = d.committed_minor - r.amount
FROM unnest(CAST(:budgets AS uuid[]), CAST(:days AS date[]), CAST(:amounts AS bigint[])) AS r (budget_id, day, amount)
WHERE d.shop_id = :shop AND d.budget_id = r.budget_id AND d.day = r.day
"""

_GIVE_BACK_CUSTOMERS = """
UPDATE budget_customers c SET committed_minor = c.committed_minor - r.amount
FROM unnest(CAST(:budgets AS uuid[]), CAST(:customers AS uuid[]), CAST(:amounts AS bigint[]))
  AS r (budget_id, customer_id, amount)
JOIN budgets b ON b.shop_id = :shop AND b.id = r.budget_id AND b.per_customer_minor IS NOT NULL
WHERE c.shop_id = :shop AND c.budget_id = r.budget_id AND c.customer_id = r.customer_id
"""


def finish(
    session: Session, shop_id: UUID, *, commit: Sequence[UUID] = (), release: Sequence[UUID] = (), at: datetime
) -> None:
    """End these actions' reservations, once; those that have none, or ended before, are left alone.

    A release gives the money back to all three limits: to the day and the customer it was reserved for. Call it once
    in a transaction, for what is committed and released together: two calls would lock budgets out of their order.
    """
    if not commit and not release:
        return
    kinds = ["commit"] * len(commit) + ["release"] * len(release)
    rows = session.execute(
        text(_END), {"shop": shop_id, "actions": [*commit, *release], "kinds": kinds, "at": at}
    ).all()
    if not rows:
        return
    total, _, _ = _sums(map(_ended, rows))
    spent, _, _ = _sums(_ended(row) for row in rows if row.kind == "commit")
    _, daily, customers = _sums(_ended(row) for row in rows if row.kind == "release")
    budgets = list(total)
    session.execute(
        text(_SETTLE),
        {
            "shop": shop_id,
            "budgets": budgets,
            "totals": list(total.values()),
            "spent": [spent.get(one, 0) for one in budgets],
        },
    )
    _give_back(session, shop_id, "days", _GIVE_BACK_DAYS, daily)
    _give_back(session, shop_id, "customers", _GIVE_BACK_CUSTOMERS, customers)


_RETURN = """
INSERT INTO budget_entries (shop_id, budget_id, action_id, kind, amount_minor, at, day, customer_id)
SELECT e.shop_id, e.budget_id, e.action_id, 'return', e.amount_minor, :at, e.day, e.customer_id
FROM budget_entries e WHERE e.shop_id = :shop AND e.action_id = ANY(:actions) AND e.kind = 'commit'
ORDER BY e.action_id
ON CONFLICT DO NOTHING
RETURNING kind, budget_id, action_id, amount_minor, day, customer_id
"""

_UNSPEND = """
WITH locked AS (
  SELECT b.id, t.total FROM unnest(CAST(:budgets AS uuid[]), CAST(:totals AS bigint[])) AS t (id, total)
  JOIN budgets b ON b.shop_id = :shop AND b.id = t.id ORDER BY b.id FOR UPDATE OF b
)
UPDATE budgets b SET spent_minor = b.spent_minor - locked.total FROM locked WHERE b.shop_id = :shop AND b.id = locked.id
"""


def give_back(session: Session, shop_id: UUID, action_ids: Sequence[UUID], *, at: datetime) -> int:
    """What was committed for these can never be asked for any more (a coupon that was taken back): it is there again,
    in all three limits. Once for each; returns the minor units. Locks as `finish`: one of the two in a transaction."""
    rows = session.execute(text(_RETURN), {"shop": shop_id, "actions": list(action_ids), "at": at}).all()
    if not rows:
        return 0
    total, daily, customers = _sums(map(_ended, rows))
    values = {"shop": shop_id, "budgets": list(total), "totals": list(total.values())}
    session.execute(text(_UNSPEND), values)
    _give_back(session, shop_id, "days", _GIVE_BACK_DAYS, daily)
    _give_back(session, shop_id, "customers", _GIVE_BACK_CUSTOMERS, customers)
    return sum(total.values())


def _ended(row: Row[Any]) -> Wanted:
    return Wanted(row.budget_id, row.action_id, row.amount_minor, row.action_id, row.customer_id, row.day)


def _give_back(
    session: Session, shop_id: UUID, name: str, statement: str, amounts: dict[tuple[UUID, Any], int]
) -> None:
    if amounts:
        values = {"budgets": [key[0] for key in amounts], name: [key[1] for key in amounts]}
        session.execute(text(statement), {"shop": shop_id, **values, "amounts": list(amounts.values())})
