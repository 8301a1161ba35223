"""Strategies of a shop: made from a template or a definition, started, paused, and what of them is live.

    draft -> live <-> paused -> archived

Each change counts the strategy's `revision`, by which workers know that what they cached is old.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from operation_agent.kit.errors import Conflict, NotFound, Rejected
from operation_agent.kit.ids import new_id
from operation_agent.kit.money import to_minor
from operation_agent.store import audit
from operation_agent.store.shops import Shop
from rules.errors import RuleError
from rules.strategy import Budget, Strategy, parse

from .library import template
from .vocabulary import vocabulary

FOLLOWS: dict[str, frozenset[str]] = {
    "live": frozenset({"draft", "paused"}),
    "paused": frozenset({"live"}),
    "archived": frozenset({"draft", "live", "paused"}),
}
"""Each state with those it may be reached from."""


@dataclass(frozen=True, slots=True)
class StrategyRow:
    """A strategy of a shop. `definition` is the canonical form of rules.strategy; `started_at` is shop time."""

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


_COLUMNS = "id, key, name, goal, state, definition, holdout, budget_id, revision, started_at, created_at, updated_at"


def _row(row: Row[Any]) -> StrategyRow:
    return StrategyRow(**row._mapping)


def read(raw: Any) -> Strategy:
    """A definition in plain dicts as a Strategy. Raises Rejected (code 'strategy') with the path at fault."""
    try:
        return parse(raw, vocabulary())
    except RuleError as error:
        raise Rejected(error.reason, code="strategy", where=error.where) from None


def list_strategies(session: Session, shop_id: UUID) -> list[StrategyRow]:
    """Every strategy of a shop, archived ones too, by key."""
    rows = session.execute(
        text(f"SELECT {_COLUMNS} FROM strategies WHERE shop_id = :shop ORDER BY key"),  # noqa: S608
        {"shop": shop_id},
    )
    return [_row(row) for row in rows]


def find(session: Session, shop_id: UUID, key: str) -> StrategyRow:
    """By key or id. Raises NotFound."""
    row = session.execute(
        text(f"SELECT {_COLUMNS} FROM strategies WHERE shop_id = :shop AND (key = :key OR id::text = :key)"),  # noqa: S608
        {"shop": shop_id, "key": key},
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no strategy {key!r}; `opagent strategy list` shows them")
    return _row(row)


def start(
    session: Session, shop: Shop, template_key: str, *, at: datetime, actor: str, holdout: float | None = None,
    budget: Decimal | None = None,
) -> StrategyRow:  # fmt: skip
    """Make a strategy from a template and put it live; one that was paused or is a draft goes live as it stands.

    `at` is system time. `holdout` and `budget` (units of the shop's currency) replace the template's when the
    strategy is made. Raises NotFound for an unknown template, Conflict when the strategy is live already.
    """
    strategy = template(template_key)
    existing = session.execute(
        text("SELECT 1 FROM strategies WHERE shop_id = :shop AND key = :key"), {"shop": shop.id, "key": strategy.key}
    ).scalar()
    if existing:
        return move(session, shop, strategy.key, "live", at=at, actor=actor)
    if holdout is not None:
        strategy = replace(strategy, holdout=holdout)
    if budget is not None:
        strategy = strategy.limited(budget=Budget(budget))
    create(session, shop, strategy, at=at, actor=actor)
    return move(session, shop, strategy.key, "live", at=at, actor=actor)


def create(session: Session, shop: Shop, strategy: Strategy, *, at: datetime, actor: str) -> StrategyRow:
    """Write a strategy as a draft, with version 1 of its rules and its budget. `at` is system time.

    Raises Rejected when the definition does not read, or its budget is in another currency than the shop's; Conflict
    when the key is taken.
    """
    definition = strategy.to_dict()
    strategy = read(definition)  # whoever built the value: what is stored is what can be read
    strategy_id = new_id()
    budget_id = _create_budget(session, shop, strategy) if strategy.budget else None
    try:
        session.execute(
            text(
                "INSERT INTO strategies"
                " (shop_id, id, key, name, goal, state, definition, holdout, budget_id, created_at, updated_at)"
                " VALUES (:shop, :id, :key, CAST(:name AS jsonb), :goal, 'draft', CAST(:definition AS jsonb), :holdout,"
                " :budget, :at, :at)"
            ),
            {
                "shop": shop.id, "id": strategy_id, "key": strategy.key, "name": orjson.dumps(strategy.name).decode(),
                "goal": strategy.goal, "definition": orjson.dumps(definition).decode(), "holdout": strategy.holdout,
                "budget": budget_id, "at": at,
            },
        )  # fmt: skip
    except IntegrityError:
        raise Conflict(f"the shop has a strategy {strategy.key!r} already", where="key") from None
    _write_rules(session, shop, strategy_id, strategy, at=at, actor=actor)
    _audit(session, shop, "strategy.created", strategy.key, at, actor, {"definition": definition})
    return find(session, shop.id, strategy.key)


def pause(session: Session, shop: Shop, key: str, *, at: datetime, actor: str) -> StrategyRow:
    """Decide nothing more for it; what is planned already is the executor's to cancel. Raises NotFound, Conflict."""
    return move(session, shop, key, "paused", at=at, actor=actor)


def move(session: Session, shop: Shop, key: str, state: str, *, at: datetime, actor: str) -> StrategyRow:
    """Bring a strategy into another state. `at` is system time. Raises NotFound, or Conflict where FOLLOWS forbids."""
    before = find(session, shop.id, key)
    moved = session.execute(
        text(
            "UPDATE strategies SET state = :state, revision = revision + 1, updated_at = :at,"
            " started_at = CASE WHEN :state = 'live' THEN COALESCE(started_at, :started) ELSE started_at END"
            " WHERE shop_id = :shop AND id = :id AND state = ANY(:sources) RETURNING 1"
        ),
        {
            "shop": shop.id, "id": before.id, "state": state, "at": at, "started": at + shop.clock_offset,
            "sources": sorted(FOLLOWS[state]),
        },
    ).scalar()  # fmt: skip
    if not moved:
        raise Conflict(f"strategy {key!r} is {before.state}; it cannot become {state}", code="state")
    # a rule's state says which version counts; whether it acts is the strategy's. A pause leaves rules as they are
    for source, target in _RULES_FOLLOW.get((before.state, state), ()):
        session.execute(
            text("UPDATE rules SET state = :target WHERE shop_id = :shop AND strategy_id = :id AND state = :source"),
            {"shop": shop.id, "id": before.id, "source": source, "target": target},
        )
    _audit(session, shop, f"strategy.{state}", before.key, at, actor, {"from": before.state})
    return find(session, shop.id, before.key)


_RULES_FOLLOW = {
    ("draft", "live"): (("draft", "live"),),
    ("draft", "archived"): (("draft", "retired"),),
    ("live", "archived"): (("live", "retired"),),
    ("paused", "archived"): (("live", "retired"),),
}


def _create_budget(session: Session, shop: Shop, strategy: Strategy) -> UUID:
    budget = strategy.budget
    assert budget is not None
    if budget.currency not in (None, shop.currency):
        raise Rejected(
            f"the budget is in {budget.currency} and the shop trades in {shop.currency}", where="budget.currency"
        )
    budget_id = new_id()
    session.execute(
        text(
            "INSERT INTO budgets (shop_id, id, name, currency, limit_minor)"
            " VALUES (:shop, :id, :name, :currency, :limit)"
        ),
        {
            "shop": shop.id, "id": budget_id, "name": strategy.key, "currency": shop.currency,
            "limit": to_minor(budget.limit, shop.currency),
        },
    )  # fmt: skip
    return budget_id


def _write_rules(
    session: Session, shop: Shop, strategy_id: UUID, strategy: Strategy, *, at: datetime, actor: str
) -> None:
    session.execute(
        text(
            "INSERT INTO rules (shop_id, id, strategy_id, key, version, definition, state, created_at, created_by)"
            " VALUES (:shop, :id, :strategy, :key, 1, CAST(:definition AS jsonb), 'draft', :at, :actor)"
        ),
        [
            {
                "shop": shop.id, "id": new_id(), "strategy": strategy_id, "key": f"{strategy.key}/{rule.key}",
                "definition": orjson.dumps(rule.to_dict()).decode(), "at": at, "actor": actor,
            }
            for rule in strategy.rules
        ],
    )  # fmt: skip


def _audit(session: Session, shop: Shop, verb: str, key: str, at: datetime, actor: str, detail: dict[str, Any]) -> None:
    audit.record(session, shop.id, at=at, actor=actor, verb=verb, subject=f"strategy:{key}", detail=detail)
