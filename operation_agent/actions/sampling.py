"""What an approval is about, for whoever has to decide: how many actions, what they may cost, and some receipts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.approvals.approval import Approval
from operation_agent.decision.explain import explain
from operation_agent.kit.ids import as_uuid

MOST_SAMPLES = 20


@dataclass(frozen=True, slots=True)
class Extent:
    """The planned actions behind an approval; money in minor units of the shop's currency."""

    actions: int
    customers: int
    reserved_minor: int
    by_type: dict[str, int]
    by_state: dict[str, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """One decision behind an approval, explained."""

    decision_id: UUID
    customer_id: UUID
    arm: str | None
    sentences: list[str]


_OF = {"action": "approval_id", "campaign": "campaign_id"}
"""By kind, the column of `actions` that leads to the approval."""

_EXTENT = """
SELECT type, state, count(*) AS number, sum(reserved_minor)::bigint AS reserved,
  GROUPING(type) AS over_types, GROUPING(state) AS over_states
FROM actions WHERE shop_id = :shop AND {column} = :id AND NOT held_out
GROUP BY GROUPING SETS ((), (type), (state))
"""
_CUSTOMERS = "SELECT count(DISTINCT customer_id) FROM actions WHERE shop_id = :shop AND {column} = :id AND NOT held_out"

# in an order that does not change with row ids, and has nothing to do with who came first
_SAMPLES = """
WITH chosen AS (
  SELECT decision_id, min(md5(dedupe_key)) AS place FROM actions
  WHERE shop_id = :shop AND {column} = :id AND NOT held_out GROUP BY decision_id ORDER BY place LIMIT :limit
)
SELECT d.id, d.customer_id, d.arm, d.receipt
FROM chosen c JOIN decisions d ON d.shop_id = :shop AND d.id = c.decision_id ORDER BY c.place
"""


def extent(session: Session, shop_id: UUID, approval: Approval) -> Extent | None:
    """None for an approval that has no actions of its own (a strategy's)."""
    found = _key(approval)
    if found is None:
        return None
    column, values = found[0], {"shop": shop_id, "id": found[1]}
    rows = session.execute(text(_EXTENT.format(column=column)), values).all()
    total = next(row for row in rows if row.over_types and row.over_states)
    return Extent(
        actions=total.number,
        customers=session.execute(text(_CUSTOMERS.format(column=column)), values).scalar_one(),
        reserved_minor=total.reserved or 0,
        by_type={row.type: row.number for row in sorted(rows, key=_name) if not row.over_types},
        by_state={row.state: row.number for row in sorted(rows, key=_name) if not row.over_states},
    )


def _name(row: Any) -> tuple[str, str]:
    return row.type or "", row.state or ""


def samples(
    session: Session, shop_id: UUID, approval: Approval, *, locale: str, limit: int = MOST_SAMPLES
) -> list[Sample]:
    """Up to `limit` decisions that led to its actions: always the same ones, for the same actions."""
    found = _key(approval)
    if found is None:
        return []
    values = {"shop": shop_id, "id": found[1], "limit": min(limit, MOST_SAMPLES)}
    return [
        Sample(row.id, row.customer_id, row.arm, explain(row.receipt, locale))
        for row in session.execute(text(_SAMPLES.format(column=found[0])), values)
    ]


def _key(approval: Approval) -> tuple[str, UUID] | None:
    column = _OF.get(approval.kind)
    key = approval.id if approval.kind == "action" else as_uuid(approval.subject)
    return (column, key) if column is not None and key is not None else None
