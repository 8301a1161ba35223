"""A shop's strategies as they are stored: reading them, and holding one while it is changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.kit.errors import Conflict, NotFound, Rejected
from rules.errors import RuleError
from rules.strategy import Strategy, parse

from .vocabulary import vocabulary


@dataclass(frozen=True, slots=True)
class StrategyRow:
    """A strategy of a shop. `definition`: canonical, of the live version, or of the draft of one that was never
    published. `revision` counts every change; `version` is the one that counts, `draft` the one being edited, None
    where there is none. `started_at` is shop time."""

    id: UUID
    key: str
    name: dict[str, str]
    goal: str
    state: str
    definition: dict[str, Any]
    holdout: float
    budget_id: UUID | None
    revision: int
    started_at: datetime | None
    created_at: datetime
    updated_at: datetime
    version: int | None
    draft: int | None


_SELECT = """
SELECT s.id, s.key, s.name, s.goal, s.state, s.definition, s.holdout, s.budget_id, s.revision, s.started_at,
       s.created_at, s.updated_at, live.version, draft.version AS draft
FROM strategies AS s
LEFT JOIN strategy_versions AS live ON live.shop_id = s.shop_id AND live.strategy_id = s.id AND live.state = 'live'
LEFT JOIN strategy_versions AS draft ON draft.shop_id = s.shop_id AND draft.strategy_id = s.id AND draft.state = 'draft'
WHERE s.shop_id = :shop
"""
_ALL = text(_SELECT + " ORDER BY s.key")
_ONE = text(_SELECT + " AND (s.key = :key OR s.id::text = :key)")
_HELD = text("SELECT revision FROM strategies WHERE shop_id = :shop AND (key = :key OR id::text = :key) FOR UPDATE")


def _row(row: Row[Any]) -> StrategyRow:
    return StrategyRow(**row._mapping)


def list_strategies(session: Session, shop_id: UUID) -> list[StrategyRow]:
    """Every strategy of a shop, archived ones too, by key."""
    return [_row(row) for row in session.execute(_ALL, {"shop": shop_id})]


def find(session: Session, shop_id: UUID, key: str) -> StrategyRow:
    """By key or id. Raises NotFound."""
    row = session.execute(_ONE, {"shop": shop_id, "key": key}).one_or_none()
    if row is None:
        raise NotFound(f"there is no strategy {key!r}; `opagent strategy list` shows them")
    return _row(row)


def hold(session: Session, shop_id: UUID, key: str, *, expected_revision: int | None = None) -> StrategyRow:
    """As `find`, and nobody else changes it until this transaction ends.

    Raises NotFound, or Conflict (code 'revision') when it has changed since its `expected_revision` was read.
    """
    held = session.execute(_HELD, {"shop": shop_id, "key": key}).scalar()
    row = find(session, shop_id, key)  # after the lock: with what another transaction has just committed
    if expected_revision is not None and held != expected_revision:
        raise Conflict(
            f"strategy {row.key!r} has changed since you read it: it is at revision {row.revision}, not"
            f" {expected_revision}; read it again, then decide",
            code="revision",
            where="revision",
        )
    return row


def read(raw: Any) -> Strategy:
    """A definition in plain dicts as a Strategy. Raises Rejected (code 'strategy') with the path at fault."""
    try:
        return parse(raw, vocabulary())
    except RuleError as error:
        raise Rejected(error.reason, code="strategy", where=error.where) from None
