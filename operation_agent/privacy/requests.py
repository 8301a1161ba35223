"""Requests to see one's data or to be forgotten: noted as they come, carried out by a worker, proven in the audit log.

A request is a row from the transaction that heard of it; killed anywhere, the worker does it again from the beginning.
Its proof holds counts and no personal data; its subject is emptied when it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import orjson
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.events.event import Event
from operation_agent.kit.errors import Conflict, NotFound
from operation_agent.kit.ids import new_id
from operation_agent.store import audit, outbox
from operation_agent.store.shops import Shop

from . import erasing, exporting, subjects

TOPIC = "privacy.settle"
EVENT = "privacy.requested"
DUE = timedelta(days=30)
"""GDPR art. 12 (3) and Shopify's rule for apps."""
KEPT = timedelta(days=60)
"""How long an export can be fetched after it was made."""
MOST_ATTEMPTS = 10

Kind = Literal["export", "erase", "erase_shop"]


@dataclass(frozen=True, slots=True)
class Request:
    """Times are system time. `result` sealed."""

    id: UUID
    kind: Kind
    source: str
    source_id: str
    state: str
    due_at: datetime
    asked_at: datetime
    done_at: datetime | None
    proof: dict[str, Any] | None
    error: str | None
    has_result: bool


_SHOWN = (
    "SELECT id, kind, source, source_id, state, due_at, asked_at, done_at, proof, error,"
    " result IS NOT NULL AS has_result FROM privacy_requests WHERE shop_id = :shop"
)


def _request(row: Row[Any]) -> Request:
    return Request(**row._mapping)


def note(session: Session, shop: Shop, events: Sequence[Event], *, at: datetime) -> None:
    """Take in requests that came as events (a storefront's compliance webhooks). `at` is system time."""
    for event in events:
        if event.type == EVENT:
            said = event.properties
            ask(
                session, shop, said["kind"], said.get("subject") or {}, source=event.source, source_id=event.source_id,
                actor=event.source, at=at,
            )  # fmt: skip


def ask(
    session: Session, shop: Shop, kind: Kind, subject: Mapping[str, Any], *, source: str, source_id: str, actor: str,
    at: datetime,
) -> UUID | None:  # fmt: skip
    """Write a request down and ring; None when it was heard of before. `subject` as `subjects.find` takes it."""
    made = session.execute(
        text(
            "INSERT INTO privacy_requests (shop_id, id, kind, source, source_id, subject, state, due_at, asked_at)"
            " VALUES (:shop, :id, :kind, :source, :source_id, CAST(:subject AS jsonb), 'asked', :due, :at)"
            " ON CONFLICT (shop_id, source, source_id) DO NOTHING RETURNING id"
        ),
        {
            "shop": shop.id, "id": new_id(), "kind": kind, "source": source, "source_id": source_id,
            "subject": orjson.dumps(dict(subject), default=str).decode(), "due": at + DUE, "at": at,
        },
    ).scalar_one_or_none()  # fmt: skip
    if made is not None:
        outbox.ring(session, shop.id, [(TOPIC, str(made))], at=at)
        audit.record(
            session, shop.id, at=at, actor=actor, verb="privacy.asked", subject=f"privacy_request:{made}",
            detail={"kind": kind, "source": source, "due_at": at + DUE},
        )  # fmt: skip
    return made


def settle(session: Session, shop: Shop, request_id: UUID, seal: Callable[[bytes], bytes], *, at: datetime) -> bool:
    """Carry out one request in this transaction; False when it is done, or not there. `seal` encrypts an export."""
    row = session.execute(
        text("SELECT * FROM privacy_requests WHERE shop_id = :shop AND id = :id AND state = 'asked' FOR UPDATE"),
        {"shop": shop.id, "id": request_id},
    ).one_or_none()
    if row is None:
        return False
    sealed: bytes | None = None
    people: Sequence[UUID] = ()
    if row.kind == "erase_shop":
        counts = erasing.erase_shop(session, shop.id)
    else:
        subject = subjects.find(session, shop.id, row.subject)
        people = subject.customers
        if row.kind == "export":
            document, counts = exporting.export(session, shop, subject, at=at)
            sealed = seal(document)
        else:
            counts = erasing.erase(session, shop, subject, at=at) | _drop_exports(session, shop.id, people)
    proof = {"kind": row.kind, "rows": counts, "done_at": at.isoformat()}
    session.execute(
        text(
            "UPDATE privacy_requests SET state = 'done', subject = '{}', result = :result, done_at = :at, error = NULL,"
            " customers = CAST(:people AS uuid[]), proof = CAST(:proof AS jsonb) WHERE shop_id = :shop AND id = :id"
        ),
        {
            "shop": shop.id,
            "id": row.id,
            "result": sealed,
            "at": at,
            "people": list(people),
            "proof": orjson.dumps(proof).decode(),
        },
    )
    audit.record(
        session, shop.id, at=at, actor="privacy", verb="privacy.done", subject=f"privacy_request:{row.id}",
        detail={**proof, "source": row.source, "source_id": row.source_id},
    )  # fmt: skip
    return True


def _drop_exports(session: Session, shop_id: UUID, people: Sequence[UUID]) -> dict[str, int]:
    """An export that was made for somebody goes with them."""
    gone = session.execute(
        text(
            "UPDATE privacy_requests SET result = NULL WHERE shop_id = :shop AND result IS NOT NULL"
            " AND customers && CAST(:people AS uuid[]) RETURNING 1"
        ),
        {"shop": shop_id, "people": list(people)},
    ).all()
    return {"privacy_requests.blanked": len(gone)} if gone else {}


def failed(session: Session, shop_id: UUID, request_id: UUID, error: str) -> None:
    """An attempt ended with `error`; after MOST_ATTEMPTS a person must look."""
    session.execute(
        text(
            "UPDATE privacy_requests SET error = :error, attempts = attempts + 1,"
            " state = CASE WHEN attempts + 1 >= :most THEN 'failed' ELSE state END"
            " WHERE shop_id = :shop AND id = :id AND state = 'asked'"
        ),
        {"shop": shop_id, "id": request_id, "error": error[:500], "most": MOST_ATTEMPTS},
    )


def drop_old_exports(session: Session, shop_id: UUID, *, at: datetime) -> int:
    """Delete exports that were made more than KEPT ago (`at` is system time); returns how many."""
    rows = session.execute(
        text(
            "UPDATE privacy_requests SET result = NULL WHERE shop_id = :shop AND result IS NOT NULL AND done_at < :old"
            " RETURNING 1"
        ),
        {"shop": shop_id, "old": at - KEPT},
    )
    return len(rows.all())


def open_requests(session: Session, shop_id: UUID) -> list[UUID]:
    rows = session.execute(
        text("SELECT id FROM privacy_requests WHERE shop_id = :shop AND state = 'asked' ORDER BY asked_at, id"),
        {"shop": shop_id},
    )
    return list(rows.scalars())


def ring_open(session: Session, shop_id: UUID, *, before: datetime, at: datetime) -> int:
    """Ring again for what was asked for before an instant and is not done; how many. System time."""
    rows = session.execute(
        text("SELECT id FROM privacy_requests WHERE shop_id = :shop AND state = 'asked' AND asked_at <= :before"),
        {"shop": shop_id, "before": before},
    )
    wake_ups = [(TOPIC, str(one)) for one in rows.scalars()]
    outbox.ring(session, shop_id, wake_ups, at=at)
    return len(wake_ups)


def listed(session: Session, shop_id: UUID, *, before: UUID | None, limit: int) -> list[Request]:
    """Newest first; `before` is the id of the last one of the page before."""
    rows = session.execute(
        text(_SHOWN + " AND (CAST(:before AS uuid) IS NULL OR id < :before) ORDER BY id DESC LIMIT :limit"),
        {"shop": shop_id, "before": before, "limit": limit},
    )
    return [_request(row) for row in rows]


def find(session: Session, shop_id: UUID, request_id: UUID) -> Request:
    """Raises NotFound."""
    row = session.execute(text(_SHOWN + " AND id = :id"), {"shop": shop_id, "id": request_id}).one_or_none()
    if row is None:
        raise NotFound(f"there is no privacy request {request_id}")
    return _request(row)


def result(session: Session, shop_id: UUID, request_id: UUID) -> bytes:
    """An export, sealed. Raises NotFound, or Conflict when it is not made yet or not kept any more."""
    found = find(session, shop_id, request_id)
    if found.kind != "export":
        raise Conflict(f"this is a request to {found.kind}: nothing is exported", code="state")
    row = session.execute(
        text("SELECT result FROM privacy_requests WHERE shop_id = :shop AND id = :id"),
        {"shop": shop_id, "id": request_id},
    ).one()
    if row.result is None:
        why = "is not made yet" if found.state == "asked" else "is not kept any more: ask again"
        raise Conflict(f"the export {why}", code="state")
    return bytes(row.result)
