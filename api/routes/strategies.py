"""Strategies and their rules: what the agent may do, started from the shipped templates."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.orm import Session

from api.dependencies import Database, Requires
from api.errors import Problem
from api.fields import Text
from api.idempotency import Idempotent
from operation_agent.access.principal import Principal
from operation_agent.kit.clock import SYSTEM
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from operation_agent.strategies import library, lifecycle
from rules import strategy as definitions

router = APIRouter(prefix="/api", tags=["strategies"])

Reader = Annotated[Principal, Depends(Requires("strategies:read"))]
Writer = Annotated[Principal, Depends(Requires("strategies:write"))]
Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$", description="The strategy's id or key")]
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No such strategy in this shop"}}
_CHANGES: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "No such strategy or template"},
    409: {"model": Problem, "description": "Its state forbids it, or the Idempotency-Key was used otherwise"},
}


class StrategySummary(BaseModel):
    id: UUID
    key: str
    name: dict[str, str] = Field(description="By language: zh, en")
    goal: str
    state: str = Field(description="`draft`, `live`, `paused` or `archived`")
    holdout: float = Field(description="Share of customers left alone, by which its effect is measured")
    budget_id: UUID | None
    started_at: datetime | None = Field(description="Shop time")
    created_at: datetime
    updated_at: datetime


class Rule(BaseModel):
    """One version of a rule."""

    id: UUID
    strategy_id: UUID
    key: str
    version: int
    state: str = Field(description="`draft`, `live` or `retired`")
    definition: dict[str, Any]
    created_at: datetime
    created_by: str


class Strategy(StrategySummary):
    definition: dict[str, Any]
    rules: list[Rule] = Field(description="Every version, newest first")


class Template(BaseModel):
    key: str
    name: dict[str, str]
    goal: str
    definition: dict[str, Any]


class NewStrategy(BaseModel):
    template: Text = Field(max_length=63, examples=["win_back"])
    holdout: float | None = Field(None, ge=0, lt=1, allow_inf_nan=False, description="Replaces the template's")
    budget: Decimal | None = Field(
        None, gt=0, le=10**12, decimal_places=4, description="In units of the shop's currency; replaces the template's"
    )
    state: Literal["live", "draft"] = "live"


class StrategyChange(BaseModel):
    state: Literal["live", "paused", "archived"]


def _shown(row: lifecycle.StrategyRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in StrategySummary.model_fields}


def _whole(session: Session, shop_id: UUID, row: lifecycle.StrategyRow) -> Strategy:
    rules = session.execute(_RULES, {"shop": shop_id, "strategy": row.id, "state": None})
    return Strategy(**_shown(row), definition=row.definition, rules=[Rule(**rule._mapping) for rule in rules])


def _drafted(body: NewStrategy) -> definitions.Strategy:
    """The template with what the request replaces."""
    made = library.template(body.template)
    if body.holdout is not None:
        made = replace(made, holdout=body.holdout)
    return made if body.budget is None else made.limited(budget=definitions.Budget(body.budget))


_RULES = text("""
SELECT id, strategy_id, key, version, state, definition, created_at, created_by FROM rules
WHERE shop_id = :shop AND (CAST(:strategy AS uuid) IS NULL OR strategy_id = CAST(:strategy AS uuid))
  AND (CAST(:state AS text) IS NULL OR state = CAST(:state AS text))
ORDER BY key, version DESC
""")


@router.get(
    "/strategies", operation_id="list_strategies", summary="Strategies by key", response_model=list[StrategySummary]
)
def list_strategies(caller: Reader, database: Database) -> list[StrategySummary]:
    with for_shop(database, caller.shop.id) as session:
        return [StrategySummary(**_shown(row)) for row in lifecycle.list_strategies(session, caller.shop.id)]


@router.get(
    "/strategies/templates",
    operation_id="list_templates",
    summary="The templates a strategy can be started from",
    response_model=list[Template],
)
def list_templates(_caller: Reader) -> list[Template]:
    return [
        Template(key=key, name=found.name, goal=found.goal, definition=found.to_dict())
        for key, found in library.library().items()
    ]


@router.get(
    "/strategies/{strategy}",
    operation_id="get_strategy",
    summary="One strategy with its rules",
    response_model=Strategy,
    responses=_MISSING,
)
def get_strategy(strategy: Name, caller: Reader, database: Database) -> Strategy:
    with for_shop(database, caller.shop.id) as session:
        return _whole(session, caller.shop.id, lifecycle.find(session, caller.shop.id, strategy))


@router.post(
    "/strategies",
    operation_id="start_strategy",
    summary="Start a strategy from a template, or make a draft of it",
    status_code=201,
    response_model=Strategy,
    responses=_CHANGES,
)
def start_strategy(body: NewStrategy, caller: Writer, database: Database, once: Idempotent) -> Response:
    """With state `live`, a strategy of this template that is a draft or paused goes live as it stands."""

    def work(session: Session) -> Strategy:
        shop = load_shop(session, caller.shop.id)
        at = SYSTEM.now()
        if body.state == "draft":
            return _whole(session, shop.id, lifecycle.create(session, shop, _drafted(body), at=at, actor=caller.actor))
        row = lifecycle.start(
            session, shop, body.template, holdout=body.holdout, budget=body.budget, at=at, actor=caller.actor
        )
        return _whole(session, shop.id, row)

    return once.run(database, caller.shop.id, work, status=201)


@router.patch(
    "/strategies/{strategy}",
    operation_id="change_strategy",
    summary="Pause a strategy, let it go on, or archive it",
    response_model=Strategy,
    responses=_CHANGES,
)
def change_strategy(strategy: Name, body: StrategyChange, caller: Writer, database: Database) -> Strategy:
    with for_shop(database, caller.shop.id) as session:
        shop = load_shop(session, caller.shop.id)
        row = lifecycle.move(session, shop, strategy, body.state, at=SYSTEM.now(), actor=caller.actor)
        return _whole(session, shop.id, row)


@router.get("/rules", operation_id="list_rules", summary="Rules by key, every version", response_model=list[Rule])
def list_rules(
    caller: Reader,
    database: Database,
    strategy: Annotated[UUID | None, Query(description="Of this strategy only")] = None,
    state: Annotated[Literal["draft", "live", "retired"] | None, Query()] = None,
) -> list[Rule]:
    values = {"shop": caller.shop.id, "strategy": strategy, "state": state}
    with for_shop(database, caller.shop.id) as session:
        return [Rule(**row._mapping) for row in session.execute(_RULES, values)]
