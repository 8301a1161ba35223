"""Budgets: what may be committed, what is, and what is left of today."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from api.dependencies import Database, Requires
from api.errors import Problem
from operation_agent.access.principal import Principal
from operation_agent.actions import budget_limits
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.money import MAXIMUM_MINOR
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop

router = APIRouter(prefix="/api/budgets", tags=["budgets"])

Reader = Annotated[Principal, Depends(Requires("actions:read"))]
Writer = Annotated[Principal, Depends(Requires("actions:write"))]
Minor = Annotated[int, Field(ge=0, le=MAXIMUM_MINOR)]


class Budget(BaseModel):
    """Amounts in minor units of `currency`; reserved + spent never exceed the limit. Money is what coupons may cost
    and messages do: reserved when they are planned, spent when they go out, given back when they do not."""

    id: UUID
    name: str
    currency: str
    limit_minor: int
    daily_minor: int | None = Field(description="Most for the decisions of one day of the shop's calendar; null: none")
    per_customer_minor: int | None = Field(description="Most for one customer, ever; null: none")
    reserved_minor: int
    spent_minor: int
    left_minor: int
    day: date = Field(description="Today in the shop's calendar")
    committed_today_minor: int = Field(description="Reserved and spent by today's decisions")
    left_today_minor: int | None = Field(description="null: no daily limit")
    strategies: list[str] = Field(description="Keys of the strategies that spend from it")


class BudgetChange(BaseModel):
    """What is left out stays; null takes a daily or per-customer limit away."""

    model_config = ConfigDict(extra="forbid")

    limit_minor: Minor | None = Field(None, description="Not below what is reserved and spent")
    daily_minor: Minor | None = None
    per_customer_minor: Minor | None = None


def _shown(found: budget_limits.Standing) -> Budget:
    return Budget(**{name: getattr(found, name) for name in Budget.model_fields})


_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No such budget in this shop"}}


@router.get("", operation_id="list_budgets", summary="Budgets by name", response_model=list[Budget])
def list_all(caller: Reader, database: Database) -> list[Budget]:
    with for_shop(database, caller.shop.id) as session:
        shop = load_shop(session, caller.shop.id)
        return [_shown(one) for one in budget_limits.standings(session, shop, at=SYSTEM.now())]


@router.get(
    "/{budget_id}", operation_id="get_budget", summary="One budget", response_model=Budget, responses={**_MISSING}
)
def get(budget_id: UUID, caller: Reader, database: Database) -> Budget:
    with for_shop(database, caller.shop.id) as session:
        shop = load_shop(session, caller.shop.id)
        return _shown(budget_limits.standing(session, shop, budget_id, at=SYSTEM.now()))


@router.patch(
    "/{budget_id}",
    operation_id="change_budget",
    summary="Change what may be committed",
    response_model=Budget,
    responses={**_MISSING, 409: {"model": Problem, "description": "More than that is committed already"}},
)
def change(budget_id: UUID, body: BudgetChange, caller: Writer, database: Database) -> Budget:
    """A daily or per-customer limit below what is committed takes nothing back: nothing more fits until there is room.
    Publishing a version of the strategy that states its budget sets these limits anew."""
    limits = body.model_dump(exclude_unset=True)
    with for_shop(database, caller.shop.id) as session:
        shop = load_shop(session, caller.shop.id)
        return _shown(budget_limits.change(session, shop, budget_id, limits, at=SYSTEM.now(), actor=caller.actor))
