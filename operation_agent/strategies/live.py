"""What is live in a shop, parsed and compiled once per change: the rules every event is held against."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.kit.stamped import Stamped
from operation_agent.store.session import once
from rules import rule as rule_form
from rules.evaluate import CompiledCondition, compile
from rules.rule import Rule
from rules.strategy import Strategy
from rules.tree import Node

from .records import read
from .vocabulary import vocabulary

SHOPS_KEPT = 256


@dataclass(frozen=True, slots=True)
class LiveRule:
    """A live version of a rule, with its strategy. `key` is '<strategy>/<rule>', unique in the shop."""

    strategy_id: UUID
    rule_id: UUID
    key: str
    version: int
    rule: Rule
    strategy: Strategy
    condition: CompiledCondition
    budget_id: UUID | None
    started_at: datetime


Stamp = tuple[tuple[UUID, int, datetime], ...]
_kept: Stamped[tuple[LiveRule, ...]] = Stamped(SHOPS_KEPT)


def live_rules(session: Session, shop_id: UUID) -> tuple[LiveRule, ...]:
    """Every rule of a live strategy that is not switched off, by key. One small query when nothing changed since."""
    return once(session, ("live_rules", shop_id), lambda: _live_rules(session, shop_id))


def _live_rules(session: Session, shop_id: UUID) -> tuple[LiveRule, ...]:
    stamp = _stamp(session, shop_id)
    return _kept.get(shop_id, stamp, lambda: _load(session, shop_id) if stamp else ())


def triggering_types(session: Session, shop_id: UUID) -> frozenset[str]:
    """The event types that some live rule waits for."""
    return frozenset(name for live in live_rules(session, shop_id) for name in live.rule.when.events)


def watched_groups(session: Session, shop_id: UUID) -> frozenset[tuple[str, str]]:
    """The groups that some live rule waits for to be entered or left, as ("segment.vip", "entered")."""
    found = [(live.rule.when.entered, live.rule.when.left) for live in live_rules(session, shop_id)]
    entered = {(group, "entered") for group, _ in found if group is not None}
    return frozenset(entered | {(group, "left") for _, group in found if group is not None})


def _stamp(session: Session, shop_id: UUID) -> Stamp:
    # the time too: a revision may be rolled back, and its number come again with another content
    rows = session.execute(
        text(
            "SELECT id, live_revision, updated_at FROM strategies WHERE shop_id = :shop AND state = 'live' ORDER BY id"
        ),
        {"shop": shop_id},
    )
    return tuple((row.id, row.live_revision, row.updated_at) for row in rows)


def _load(session: Session, shop_id: UUID) -> tuple[LiveRule, ...]:
    rows = session.execute(
        text(
            "SELECT s.id AS strategy_id, s.definition AS strategy, s.budget_id, s.started_at, r.id AS rule_id, r.key,"
            " r.version, r.definition AS rule FROM strategies s"
            " JOIN rules r ON r.shop_id = s.shop_id AND r.strategy_id = s.id AND r.state = 'live'"
            " WHERE s.shop_id = :shop AND s.state = 'live' ORDER BY r.key"
        ),
        {"shop": shop_id},
    ).all()
    strategies = {row.strategy_id: read(row.strategy) for row in rows}
    return tuple(_live(row, strategies[row.strategy_id]) for row in rows)


def _live(row: Row[Any], strategy: Strategy) -> LiveRule:
    rule = rule_form.parse(Node(row.rule, row.key), vocabulary())
    return LiveRule(
        strategy_id=row.strategy_id, rule_id=row.rule_id, key=row.key, version=row.version, rule=rule,
        strategy=strategy, condition=compile(rule.condition), budget_id=row.budget_id, started_at=row.started_at,
    )  # fmt: skip
