"""What is still to be processed, partition by partition: one worker at a time, in order of arrival.

The lock is the transaction's, so a worker that dies frees its partition and its events are claimed again.
A consumer works in this order: claim, process, `done`, commit, and again until nothing is left; then it commits
(which frees the lock) and looks at `pending` once more. A worker that finds the partition locked (None) just ends:
the holder's last look finds what arrived meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from .event import Event

MOST_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class QueuedEvent:
    seq: int
    attempts: int
    event: Event


def claim(session: Session, shop_id: UUID, partition: int, limit: int) -> list[QueuedEvent] | None:
    """The oldest events of a partition, at most `limit`; None when another worker holds the partition.

    The partition stays ours until this transaction ends.
    """
    locked = session.execute(
        text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))"),
        {"name": f"events:{shop_id}:{partition}"},
    ).scalar_one()
    if not locked:
        return None
    rows = session.execute(
        text(
            "WITH due AS (SELECT seq, attempts, event_id, received_at FROM event_queue"
            " WHERE shop_id = :shop AND partition = :partition ORDER BY seq LIMIT :limit)"
            " SELECT due.seq, due.attempts, e.* FROM due JOIN events AS e"
            " ON e.id = due.event_id AND e.received_at = due.received_at ORDER BY due.seq"
        ),
        {"shop": shop_id, "partition": partition, "limit": limit},
    )
    return [QueuedEvent(row.seq, row.attempts, event_of(row)) for row in rows]


def event_of(row: Row[Any]) -> Event:
    """An Event from a row with all columns of `events`."""
    return Event(
        row.id, row.source, row.source_id, row.type, row.occurred_at, row.received_at, row.identity,
        row.properties, row.context, row.name,
    )  # fmt: skip


def done(session: Session, shop_id: UUID, partition: int, seqs: Sequence[int]) -> None:
    """These have been processed: they leave the queue with this transaction."""
    session.execute(
        text(
            "DELETE FROM event_queue WHERE shop_id = :shop AND partition = :partition"
            " AND seq = ANY(CAST(:seqs AS bigint[]))"
        ),
        {"shop": shop_id, "partition": partition, "seqs": list(seqs)},
    )


def failed(session: Session, shop_id: UUID, partition: int, seqs: Sequence[int], error: str, *, at: datetime) -> int:
    """These could not be processed: counted, and after MOST_ATTEMPTS moved to `event_failures`, kept and replayable.

    `at` is system time. Returns how many were given up.
    """
    values = {"shop": shop_id, "partition": partition, "seqs": list(seqs)}
    session.execute(
        text(
            "UPDATE event_queue SET attempts = attempts + 1 WHERE shop_id = :shop AND partition = :partition"
            " AND seq = ANY(CAST(:seqs AS bigint[]))"
        ),
        values,
    )
    given_up = session.execute(
        text(
            "WITH given_up AS (DELETE FROM event_queue WHERE shop_id = :shop AND partition = :partition"
            " AND seq = ANY(CAST(:seqs AS bigint[])) AND attempts >= :most"
            " RETURNING event_id, received_at)"
            " INSERT INTO event_failures (shop_id, event_id, received_at, partition, failed_at, error)"
            " SELECT :shop, event_id, received_at, :partition, :at, :error FROM given_up"
            " ON CONFLICT (shop_id, event_id) DO UPDATE SET failed_at = EXCLUDED.failed_at, error = EXCLUDED.error"
        ),
        {**values, "most": MOST_ATTEMPTS, "at": at, "error": error.replace("\0", "")[:2000]},
    )
    return given_up.rowcount  # type: ignore[attr-defined]


def replay(session: Session, shop_id: UUID, event_ids: Sequence[UUID]) -> int:
    """Put failed events back at the end of their partitions; ring `events.process` for them. Returns how many."""
    moved = session.execute(
        text(
            "WITH back AS (DELETE FROM event_failures WHERE shop_id = :shop"
            " AND event_id = ANY(CAST(:ids AS uuid[])) RETURNING event_id, received_at, partition)"
            " INSERT INTO event_queue (shop_id, partition, event_id, received_at)"
            " SELECT :shop, partition, event_id, received_at FROM back ORDER BY received_at, event_id"
        ),
        {"shop": shop_id, "ids": list(event_ids)},
    )
    return moved.rowcount  # type: ignore[attr-defined]


def pending(session: Session, shop_id: UUID, partition: int | None = None) -> int:
    """How many events wait, in one partition or all."""
    return session.execute(
        text(
            "SELECT count(*) FROM event_queue WHERE shop_id = :shop"
            " AND (CAST(:partition AS smallint) IS NULL OR partition = :partition)"
        ),
        {"shop": shop_id, "partition": partition},
    ).scalar_one()


def has_more_than(session: Session, shop_id: UUID, number: int) -> bool:
    """Whether more than `number` events of a shop wait; looks at no more rows than that."""
    return session.execute(
        text("SELECT EXISTS (SELECT 1 FROM event_queue WHERE shop_id = :shop OFFSET :number)"),
        {"shop": shop_id, "number": number},
    ).scalar_one()


def backlog(session: Session, shop_id: UUID) -> list[tuple[int, int, datetime]]:
    """Per partition with something waiting: (partition, events, receipt of the oldest in system time)."""
    rows = session.execute(
        text(
            "SELECT partition, count(*) AS events, min(received_at) AS oldest FROM event_queue"
            " WHERE shop_id = :shop GROUP BY partition ORDER BY partition"
        ),
        {"shop": shop_id},
    )
    return [(row.partition, row.events, row.oldest) for row in rows]
