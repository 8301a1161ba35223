"""The chunks of a campaign: ranges of customer ids, fixed when it is prepared. Each is one transaction, done once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.customers import merging
from operation_agent.decision.engine import Decision
from operation_agent.kit.errors import Retryable

from . import records
from .records import Campaign

MOST = 25_000
"""Customers in a chunk: long enough to be worth a transaction, short enough to pause between two."""

_FIRST = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Customers with low < id <= high."""

    number: int
    low: UUID
    high: UUID
    attempts: int = 0


_COUNT = text("""
SELECT count(*) FROM customers WHERE shop_id = :shop AND merged_into IS NULL AND first_seen_at <= :as_of
""")
_BOUNDS = text("""
SELECT id FROM (
  SELECT id, row_number() OVER (ORDER BY id) AS n FROM customers
  WHERE shop_id = :shop AND merged_into IS NULL AND first_seen_at <= :as_of
) AS people WHERE n % :size = 0 OR n = :total ORDER BY id
""")
_INSERT = text("""
INSERT INTO campaign_chunks (shop_id, campaign_id, number, low, high)
SELECT :shop, :campaign, r.number, r.low, r.high
FROM unnest(CAST(:numbers AS integer[]), CAST(:lows AS uuid[]), CAST(:highs AS uuid[])) AS r (number, low, high)
""")


def split(session: Session, shop_id: UUID, campaign: Campaign) -> tuple[int, list[Chunk]]:
    """Fix the chunks: everybody there was at `as_of`, in ranges of about equally many. Returns how many customers there
    are, and the chunks still to be done.

    A campaign that is prepared again keeps the chunks it has.
    """
    values = {"shop": shop_id, "as_of": campaign.as_of, "campaign": campaign.id}
    total = session.execute(_COUNT, values).scalar_one()
    if campaign.upper_id is None:
        size = -(-total // max(1, -(-total // MOST))) or 1
        highs = list(session.execute(_BOUNDS, {**values, "size": size, "total": total}).scalars())
        lows = [_FIRST, *highs[:-1]][: len(highs)]
        numbers = list(range(len(highs)))
        session.execute(_INSERT, {**values, "numbers": numbers, "lows": lows, "highs": highs})
        return total, [Chunk(*one) for one in zip(numbers, lows, highs, strict=True)]
    return total, to_do(session, shop_id, campaign.id)


def to_do(session: Session, shop_id: UUID, campaign_id: UUID) -> list[Chunk]:
    """The open chunks in their order, those included that somebody is at."""
    rows = session.execute(
        text(
            "SELECT number, low, high, attempts FROM campaign_chunks"
            " WHERE shop_id = :shop AND campaign_id = :campaign AND state = 'open' ORDER BY number"
        ),
        {"shop": shop_id, "campaign": campaign_id},
    )
    return [Chunk(*row) for row in rows]


def forget_survey(session: Session, shop_id: UUID, campaign_id: UUID) -> None:
    """What was found out about chunks that are still open no longer holds."""
    session.execute(
        text(
            "UPDATE campaign_chunks SET surveyed = 0, found = '{}', claims = NULL"
            " WHERE shop_id = :shop AND campaign_id = :campaign AND state = 'open' AND surveyed > 0"
        ),
        {"shop": shop_id, "campaign": campaign_id},
    )


def claim(session: Session, shop_id: UUID, campaign_id: UUID) -> Chunk | None:
    """The next open chunk that nobody else is at: this transaction's until it ends. None: there is none."""
    row = session.execute(
        text(
            "SELECT number, low, high, attempts FROM campaign_chunks"
            " WHERE shop_id = :shop AND campaign_id = :campaign AND state = 'open' ORDER BY number LIMIT 1"
            " FOR UPDATE SKIP LOCKED"
        ),
        {"shop": shop_id, "campaign": campaign_id},
    ).one_or_none()
    return Chunk(*row) if row is not None else None


def claim_unsurveyed(session: Session, shop_id: UUID, campaign_id: UUID, survey: int) -> Chunk | None:
    """As `claim`, the next one that is not surveyed so closely yet."""
    row = session.execute(
        text(
            "SELECT number, low, high, attempts FROM campaign_chunks"
            " WHERE shop_id = :shop AND campaign_id = :campaign AND state = 'open' AND surveyed < :survey"
            " ORDER BY number LIMIT 1 FOR UPDATE SKIP LOCKED"
        ),
        {"shop": shop_id, "campaign": campaign_id, "survey": survey},
    ).one_or_none()
    return Chunk(*row) if row is not None else None


_CLOSE = text("""
UPDATE campaign_chunks SET state = 'done', customers = :customers, decided = :decided, actions = :actions,
  cost_minor = :cost, verdicts = CAST(:verdicts AS jsonb), finished_at = :at, error = NULL, claims = NULL
WHERE shop_id = :shop AND campaign_id = :campaign AND number = :number
""")


def close(
    session: Session, shop_id: UUID, campaign: Campaign, chunk: Chunk, decisions: Sequence[Decision], *,
    customers: int, actions: int, at: datetime,
) -> None:  # fmt: skip
    """Say what became of a chunk, in the transaction of its decisions; with the last one the campaign is finished.

    Call it last: from here to its end the transaction holds the campaign's row. `at` is system time. Raises Cancelled
    when the campaign was cancelled meanwhile: what it planned is being taken back, and nothing may come after that.
    """
    found = records.find(session, shop_id, campaign.id, lock=True)
    if found.state == "cancelled":
        raise Cancelled(f"campaign {campaign.id} was cancelled")
    _refuse_merged(session, shop_id, [decision.customer_id for decision in decisions])
    verdicts = Counter(decision.verdict for decision in decisions)
    session.execute(
        _CLOSE,
        {
            "shop": shop_id, "campaign": campaign.id, "number": chunk.number, "customers": customers,
            "decided": len(decisions), "actions": actions, "verdicts": orjson.dumps(verdicts).decode(), "at": at,
            "cost": sum(sum(one.costs) for one in decisions if one.arm is not None and not one.held_out),
        },
    )  # fmt: skip
    finish_if_done(session, shop_id, campaign.id, at=at)


def _refuse_merged(session: Session, shop_id: UUID, customers: Sequence[UUID]) -> None:
    merging.hold_off(session, shop_id)
    is_merged = session.execute(
        text(
            "SELECT EXISTS (SELECT 1 FROM customers WHERE shop_id = :shop AND merged_into IS NOT NULL"
            " AND id = ANY(CAST(:ids AS uuid[])))"
        ),
        {"shop": shop_id, "ids": list(customers)},
    ).scalar()
    if is_merged:
        raise Retryable("a customer of the chunk was merged away while it was decided; it is done again")


class Cancelled(Exception):
    """The campaign was cancelled while this transaction worked on it."""


def finish_if_done(session: Session, shop_id: UUID, campaign_id: UUID, *, at: datetime) -> bool:
    """Finish a running campaign that has no open chunk. Of two last chunks the second one to come here sees the first:
    it waits for the campaign's row, and looks in a statement of its own."""
    campaign = records.find(session, shop_id, campaign_id, lock=True)
    if campaign.state != "running" or to_do(session, shop_id, campaign_id):
        return False
    records.change(session, shop_id, campaign, at=at, state="finished", finished_at=at)
    return True


def failed(session: Session, shop_id: UUID, campaign_id: UUID, number: int, error: str) -> int:
    """Remember that a chunk failed; how often it has."""
    attempts: int = session.execute(
        text(
            "UPDATE campaign_chunks SET attempts = attempts + 1, error = :error"
            " WHERE shop_id = :shop AND campaign_id = :campaign AND number = :number RETURNING attempts"
        ),
        {"shop": shop_id, "campaign": campaign_id, "number": number, "error": error[:1000]},
    ).scalar_one()
    return attempts


def forgive(session: Session, shop_id: UUID, campaign_id: UUID) -> None:
    """Let chunks that failed be tried afresh."""
    session.execute(
        text(
            "UPDATE campaign_chunks SET attempts = 0 WHERE shop_id = :shop AND campaign_id = :campaign AND attempts > 0"
        ),
        {"shop": shop_id, "campaign": campaign_id},
    )
