"""The segments that everybody is held against, parsed and compiled once per change, each after those it refers to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.kit.stamped import Stamped
from operation_agent.store.session import once
from rules.evaluate import CompiledCondition, compile

from .definition import in_order, parse, refers_to
from .vocabulary import vocabulary

SHOPS_KEPT = 256


@dataclass(frozen=True, slots=True)
class Segment:
    """`is_told`: everybody was held against it once, so who enters from now on has entered."""

    id: UUID
    key: str
    condition: CompiledCondition
    is_told: bool


Stamp = tuple[tuple[UUID, int, datetime, bool], ...]
_kept: Stamped[tuple[Segment, ...]] = Stamped(SHOPS_KEPT)

_STAMP = text("""
SELECT id, version, updated_at, refreshed_at IS NOT NULL AS is_told FROM segments
WHERE shop_id = :shop AND state = 'active' ORDER BY id
""")


def segments(session: Session, shop_id: UUID) -> tuple[Segment, ...]:
    """One small query when nothing changed since the last call."""
    return once(session, ("segments", shop_id), lambda: _segments(session, shop_id))


def _segments(session: Session, shop_id: UUID) -> tuple[Segment, ...]:
    # the time too: a version may be rolled back, and its number come again with another definition
    stamp = tuple(
        (row.id, row.version, row.updated_at, row.is_told) for row in session.execute(_STAMP, {"shop": shop_id})
    )
    return _kept.get(shop_id, stamp, lambda: _load(session, shop_id) if stamp else ())


def _load(session: Session, shop_id: UUID) -> tuple[Segment, ...]:
    found = session.execute(
        text(
            "SELECT id, key, definition, refreshed_at IS NOT NULL AS is_told FROM segments"
            " WHERE shop_id = :shop AND state = 'active'"
        ),
        {"shop": shop_id},
    )
    rows: dict[str, Any] = {row.key: row for row in found}
    read = {key: parse(row.definition, vocabulary(), path=f"segment.{key}") for key, row in rows.items()}
    order = in_order({key: refers_to(condition) for key, condition in read.items()})
    return tuple(Segment(rows[key].id, key, compile(read[key]), rows[key].is_told) for key in order)
