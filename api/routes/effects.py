"""What the agent changed, measured against customers it left alone."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field
from sqlalchemy import text

from api.dependencies import Database, Requires
from api.errors import Problem
from api.idempotency import Idempotent
from api.routes.clusterings import Asked, ask
from operation_agent.access.principal import Principal
from operation_agent.store import ticks
from operation_agent.store.session import for_shop

router = APIRouter(prefix="/api", tags=["effects"])


class Effect(BaseModel):
    """Treated customers against the holdout. `estimate` is null where there is a `reason` for none."""

    strategy_id: UUID | None = Field(description="null: the whole programme")
    strategy: str | None = Field(description="The strategy's key")
    metric: str = Field(description="`orders`, `revenue`, `profit`, `spend` or `roi` (profit per unit spent)")
    as_of: datetime = Field(description="Shop time")
    computed_at: datetime = Field(description="System time")
    treated: int
    held_out: int
    estimate: float | None = Field(description="Total increment over the treated; money in minor units")
    lower: float | None
    upper: float | None
    reason: str | None
    detail: dict[str, Any]


_EFFECTS = text("""
SELECT DISTINCT ON (e.strategy_id, e.metric)
       e.strategy_id, s.key AS strategy, e.metric, e.as_of, e.computed_at, e.treated, e.held_out, e.estimate, e.lower,
       e.upper, e.reason, e.detail
FROM effects AS e LEFT JOIN strategies AS s ON s.shop_id = e.shop_id AND s.id = e.strategy_id
WHERE e.shop_id = :shop AND (CAST(:strategy AS uuid) IS NULL OR e.strategy_id = CAST(:strategy AS uuid))
ORDER BY e.strategy_id NULLS FIRST, e.metric, e.as_of DESC, e.computed_at DESC, e.id DESC
""")


@router.get(
    "/effects",
    operation_id="list_effects",
    summary="The latest comparison of each strategy and metric; the whole programme first",
    response_model=list[Effect],
)
def list_effects(
    caller: Annotated[Principal, Depends(Requires("effects:read"))],
    database: Database,
    strategy: Annotated[UUID | None, Query(description="Of this strategy only")] = None,
) -> list[Effect]:
    values = {"shop": caller.shop.id, "strategy": strategy}
    with for_shop(database, caller.shop.id) as session:
        return [Effect(**row._mapping) for row in session.execute(_EFFECTS, values)]


@router.post(
    "/effects",
    operation_id="compare_effects",
    summary="Ask for a new comparison as of now",
    status_code=202,
    response_model=Asked,
    responses={409: {"model": Problem, "description": "The Idempotency-Key was used for another request"}},
)
def compare(
    caller: Annotated[Principal, Depends(Requires("effects:write"))], database: Database, once: Idempotent
) -> Response:
    return once.run(
        database,
        caller.shop.id,
        lambda session: ask(session, caller.shop.id, ticks.COMPARISON, actor=caller.actor),
        status=202,
    )
