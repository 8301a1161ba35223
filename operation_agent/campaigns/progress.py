"""How far campaigns are: what the finished chunks decided, and at what cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from . import records
from .records import Campaign


@dataclass(frozen=True, slots=True)
class Progress:
    """Sums over the chunks that are done. `cost_minor`: what the planned actions may cost at most. `verdicts`: number
    of decisions by verdict; 'act' and 'holdout' among them."""

    chunks: int = 0
    chunks_done: int = 0
    customers: int = 0
    decided: int = 0
    actions: int = 0
    cost_minor: int = 0
    verdicts: Counter[str] | None = None

    @property
    def acting(self) -> int:
        return (self.verdicts or Counter())["act"]

    @property
    def held_out(self) -> int:
        return (self.verdicts or Counter())["holdout"]


@dataclass(frozen=True, slots=True)
class ChunkProgress:
    """One chunk; `error` is of its last attempt that failed, `finished_at` system time."""

    number: int
    state: str
    customers: int
    decided: int
    actions: int
    cost_minor: int
    verdicts: dict[str, int]
    attempts: int
    error: str | None
    finished_at: datetime | None


_CHUNKS = text("""
SELECT campaign_id, number, state, customers, decided, actions, cost_minor, verdicts, attempts, error, finished_at
FROM campaign_chunks WHERE shop_id = :shop AND campaign_id = ANY(CAST(:campaigns AS uuid[]))
ORDER BY campaign_id, number
""")


def chunks_of(session: Session, shop_id: UUID, campaigns: Sequence[UUID]) -> dict[UUID, list[ChunkProgress]]:
    """The chunks of each campaign, in their order."""
    found: dict[UUID, list[ChunkProgress]] = {}
    for row in session.execute(_CHUNKS, {"shop": shop_id, "campaigns": list(campaigns)}):
        campaign_id, *rest = row
        found.setdefault(campaign_id, []).append(ChunkProgress(*rest))
    return found


def total(parts: Sequence[ChunkProgress]) -> Progress:
    """The sums over the chunks of one campaign."""
    verdicts: Counter[str] = Counter()
    for one in parts:
        verdicts.update(one.verdicts)
    return Progress(
        chunks=len(parts),
        chunks_done=sum(one.state == "done" for one in parts),
        customers=sum(one.customers for one in parts),
        decided=sum(one.decided for one in parts),
        actions=sum(one.actions for one in parts),
        cost_minor=sum(one.cost_minor for one in parts),
        verdicts=verdicts,
    )


_LIST = text(f"""
SELECT {records.COLUMNS} FROM campaigns
WHERE shop_id = :shop AND (CAST(:state AS text) IS NULL OR state = :state)
  AND (CAST(:strategy AS text) IS NULL
       OR rules @> jsonb_build_array(jsonb_build_object('strategy_id', CAST(:strategy AS text))))
  AND (CAST(:due AS timestamptz) IS NULL OR (due_at, id) < (CAST(:due AS timestamptz), CAST(:id AS uuid)))
ORDER BY due_at DESC, id DESC LIMIT :limit
""")  # noqa: S608


def listed(
    session: Session, shop_id: UUID, *, state: str | None, strategy: UUID | None, after: tuple[Any, Any], limit: int
) -> list[tuple[Campaign, Progress]]:
    """Campaigns, the latest due first, after (due_at, id) where that is given."""
    values = {"shop": shop_id, "state": state, "strategy": str(strategy) if strategy else None, "limit": limit}
    rows = session.execute(_LIST, {**values, "due": after[0], "id": after[1]}).all()
    found = [records.read(row) for row in rows]
    parts = chunks_of(session, shop_id, [one.id for one in found])
    return [(one, total(parts.get(one.id, ()))) for one in found]
