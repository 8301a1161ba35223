"""Events that came in by file, and events that could not be processed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.orm import Session

from api.dependencies import Database, Requires
from api.errors import Problem
from api.idempotency import Idempotent
from api.pagination import Page, Paged
from operation_agent.access.principal import Principal
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import NotFound
from operation_agent.store import audit, outbox
from operation_agent.store.session import for_shop

router = APIRouter(prefix="/api", tags=["events"])
Reader = Annotated[Principal, Depends(Requires("events:read"))]
Replayer = Annotated[Principal, Depends(Requires("events:replay"))]


class Import(BaseModel):
    id: UUID
    file_name: str
    state: str = Field(description="`running` or `done`")
    position: int = Field(description="Rows read and committed")
    accepted: int
    duplicates: int
    rejected: int
    started_at: datetime
    finished_at: datetime | None


class FailedEvent(BaseModel):
    event_id: UUID
    type: str
    source: str
    occurred_at: datetime
    received_at: datetime
    failed_at: datetime
    error: str
    identity: dict[str, Any]
    properties: dict[str, Any]


class Replayed(BaseModel):
    replayed: int = Field(description="Events put back into the queue")


_IMPORTS = text("""
SELECT id, file_name, state, position, accepted, duplicates, rejected, started_at, finished_at FROM imports
WHERE shop_id = :shop AND (CAST(:before AS uuid) IS NULL OR id < CAST(:before AS uuid))
ORDER BY id DESC LIMIT :limit
""")


@router.get(
    "/imports", operation_id="list_imports", summary="Imported files, newest first", response_model=Page[Import]
)
def list_imports(caller: Reader, database: Database, paging: Paged) -> Any:
    (before,) = paging.after(UUID)
    values = {"shop": caller.shop.id, "before": before, "limit": paging.limit + 1}
    with for_shop(database, caller.shop.id) as session:
        rows = session.execute(_IMPORTS, values).all()
    return paging.page(rows, lambda row: Import(**row._mapping), lambda row: (row.id,))


_FAILURES = text("""
SELECT f.event_id, e.type, e.source, e.occurred_at, f.received_at, f.failed_at, f.error, e.identity, e.properties
FROM event_failures AS f
JOIN events AS e ON e.id = f.event_id AND e.received_at = f.received_at AND e.shop_id = f.shop_id
WHERE f.shop_id = :shop AND (CAST(:before AS uuid) IS NULL OR f.event_id < CAST(:before AS uuid))
ORDER BY f.event_id DESC LIMIT :limit
""")


@router.get(
    "/events/failures",
    operation_id="list_failed_events",
    summary="Events given up after several attempts, newest first",
    response_model=Page[FailedEvent],
)
def list_failures(caller: Reader, database: Database, paging: Paged) -> Any:
    (before,) = paging.after(UUID)
    values = {"shop": caller.shop.id, "before": before, "limit": paging.limit + 1}
    with for_shop(database, caller.shop.id) as session:
        rows = session.execute(_FAILURES, values).all()
    return paging.page(rows, lambda row: FailedEvent(**row._mapping), lambda row: (row.event_id,))


# In order of receipt, so that the queue's order is again the order of arrival.
_REPLAY = text("""
WITH failed AS (
  DELETE FROM event_failures
  WHERE shop_id = :shop AND (CAST(:event AS uuid) IS NULL OR event_id = CAST(:event AS uuid))
  RETURNING partition, event_id, received_at
)
INSERT INTO event_queue (shop_id, partition, event_id, received_at)
SELECT :shop, partition, event_id, received_at FROM failed ORDER BY received_at, event_id
RETURNING partition
""")


def _replay(session: Session, caller: Principal, event_id: UUID | None) -> Replayed:
    shop_id, at = caller.shop.id, SYSTEM.now()
    partitions = session.execute(_REPLAY, {"shop": shop_id, "event": event_id}).scalars().all()
    if event_id is not None and not partitions:
        raise NotFound(f"there is no failed event {event_id}")
    if partitions:
        audit.record(
            session, shop_id, at=at, actor=caller.actor, verb="events.replayed",
            subject=f"event:{event_id}" if event_id else "events:failed", detail={"number": len(partitions)},
        )  # fmt: skip
        outbox.ring(session, shop_id, [("events.process", str(partition)) for partition in partitions], at=at)
    return Replayed(replayed=len(partitions))


_RESPONSES: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "No such failed event in this shop"},
    409: {"model": Problem, "description": "The Idempotency-Key was used for another request"},
}


@router.post(
    "/events/failures/replay",
    operation_id="replay_failed_events",
    summary="Process every failed event again",
    response_model=Replayed,
    responses=_RESPONSES,
)
def replay_all(caller: Replayer, database: Database, once: Idempotent) -> Response:
    return once.run(database, caller.shop.id, lambda session: _replay(session, caller, None), status=200)


@router.post(
    "/events/failures/{event_id}/replay",
    operation_id="replay_failed_event",
    summary="Process one failed event again",
    response_model=Replayed,
    responses=_RESPONSES,
)
def replay_one(event_id: UUID, caller: Replayer, database: Database, once: Idempotent) -> Response:
    return once.run(database, caller.shop.id, lambda session: _replay(session, caller, event_id), status=200)
