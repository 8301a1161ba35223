"""Who did what: append-only, and each row's hash covers the one before, so a change in the past shows.

hash = SHA-256(previous_hash ‖ canonical JSON of (shop, seq, at, actor, verb, subject, detail)).
A chain detects; it does not prevent. `verify` walks one shop's chain.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

GENESIS = bytes(32)


def _hash(
    previous: bytes, shop_id: UUID, seq: int, at: datetime, actor: str, verb: str, subject: str, detail: Any
) -> bytes:
    body = orjson.dumps([str(shop_id), seq, at.isoformat(), actor, verb, subject, detail], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(previous + body).digest()


def record(
    session: Session,
    shop_id: UUID,
    *,
    at: datetime,
    actor: str,
    verb: str,
    subject: str,
    detail: dict[str, Any] | None = None,
) -> None:
    """Append one entry; writers of one shop queue up behind an advisory lock. `at` is system time (UTC)."""
    session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended('audit:' || :shop, 0))"), {"shop": str(shop_id)}
    )
    last = session.execute(
        text("SELECT seq, hash FROM audit_log WHERE shop_id = :shop ORDER BY seq DESC LIMIT 1"),
        {"shop": shop_id},
    ).one_or_none()
    seq, previous = (last.seq + 1, bytes(last.hash)) if last else (1, GENESIS)
    detail = orjson.loads(orjson.dumps(detail or {}, default=str))
    session.execute(
        text(
            "INSERT INTO audit_log (shop_id, seq, at, actor, verb, subject, detail, previous_hash, hash)"
            " VALUES (:shop, :seq, :at, :actor, :verb, :subject, CAST(:detail AS jsonb), :previous, :hash)"
        ),
        {
            "shop": shop_id, "seq": seq, "at": at, "actor": actor, "verb": verb, "subject": subject,
            "detail": orjson.dumps(detail).decode(), "previous": previous,
            "hash": _hash(previous, shop_id, seq, at, actor, verb, subject, detail),
        },
    )  # fmt: skip


def verify(session: Session, shop_id: UUID) -> int | None:
    """The first `seq` whose row does not fit the chain, or None when the chain is whole."""
    previous, expected = GENESIS, 1
    for row in session.execute(text("SELECT * FROM audit_log WHERE shop_id = :shop ORDER BY seq"), {"shop": shop_id}):
        fits = row.seq == expected and bytes(row.previous_hash) == previous
        made = _hash(previous, shop_id, row.seq, row.at, row.actor, row.verb, row.subject, row.detail)
        if not fits or bytes(row.hash) != made:
            return row.seq
        previous, expected = made, expected + 1
    return None
