"""Strategies that the agent proposes for a shop's clusters: what it chose, what it left out, and why."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field
from sqlalchemy import text

from api.dependencies import Database, Requires
from api.errors import Problem
from api.idempotency import Idempotent
from api.pagination import Page, Paged
from api.routes.clusterings import Asked, ask
from operation_agent.access.principal import Principal
from operation_agent.kit.errors import NotFound
from operation_agent.store import ticks
from operation_agent.store.session import for_shop

router = APIRouter(prefix="/api/proposals", tags=["strategies"])

Reader = Annotated[Principal, Depends(Requires("strategies:read"))]
Writer = Annotated[Principal, Depends(Requires("strategies:write"))]
State = Literal["drafted", "started", "left_out", "dismissed"]


class ProposalRun(BaseModel):
    """`as_of` is shop time, `made_at` system time; money in minor units, expected over `horizon_days`."""

    id: UUID
    as_of: datetime
    made_at: datetime
    made_by: str
    horizon_days: int
    bounds: dict[str, Any] = Field(description="What the choice had to keep within; a budget of null: none")
    options: int
    profit_minor: int
    spend_minor: int


class ProposalSummary(BaseModel):
    id: UUID
    run_id: UUID
    key: str = Field(description="Of the strategy that was drafted, or would have been")
    template: str
    lineage_id: UUID
    cluster: dict[str, Any]
    depth: float | None = Field(description="Discount in percent; null: no coupon")
    hour: int | None = Field(description="Of the shop's day; null: as in the template")
    state: State
    prediction: dict[str, Any] = Field(
        description="Expected over the horizon, with 95 % intervals; money in minor units; `evidence`: customers behind"
        " it, 0: the prior alone"
    )
    left_out: dict[str, Any] | None = Field(description="Why it was not chosen: `why` and what was found")
    strategy_id: UUID | None


class Proposal(ProposalSummary):
    reasons: dict[str, list[str]] = Field(description="By language: en, zh")
    definition: dict[str, Any]


_RUNS = text("""
SELECT id, as_of, made_at, made_by, horizon_days, bounds, options, profit_minor, spend_minor FROM proposal_runs
WHERE shop_id = :shop AND (CAST(:before AS uuid) IS NULL OR id < CAST(:before AS uuid)) ORDER BY id DESC LIMIT :limit
""")

_COLUMNS = "id, run_id, key, template, lineage_id, cluster, depth, hour, state, prediction, left_out, strategy_id"
_LIST = text(
    f"SELECT {_COLUMNS} FROM proposals WHERE shop_id = :shop"  # noqa: S608
    " AND (CAST(:before AS uuid) IS NULL OR id < CAST(:before AS uuid))"
    " AND (CAST(:run AS uuid) IS NULL OR run_id = CAST(:run AS uuid))"
    " AND (CAST(:state AS text) IS NULL OR state = CAST(:state AS text)) ORDER BY id DESC LIMIT :limit"
)
_ONE = text(f"SELECT {_COLUMNS}, reasons, definition FROM proposals WHERE shop_id = :shop AND id = :id")  # noqa: S608


@router.get(
    "/runs",
    operation_id="list_proposal_runs",
    summary="When strategies were proposed",
    response_model=Page[ProposalRun],
)
def list_runs(caller: Reader, database: Database, paging: Paged) -> Any:
    (before,) = paging.after(UUID)
    with for_shop(database, caller.shop.id) as session:
        rows = session.execute(_RUNS, {"shop": caller.shop.id, "before": before, "limit": paging.limit + 1}).all()
    return paging.page(rows, lambda row: ProposalRun(**row._mapping), lambda row: (row.id,))


@router.get("", operation_id="list_proposals", summary="Proposals, newest first", response_model=Page[ProposalSummary])
def list_all(
    caller: Reader,
    database: Database,
    paging: Paged,
    run: Annotated[UUID | None, Query(description="Of this run only")] = None,
    state: State | None = None,
) -> Any:
    (before,) = paging.after(UUID)
    values = {"shop": caller.shop.id, "before": before, "run": run, "state": state, "limit": paging.limit + 1}
    with for_shop(database, caller.shop.id) as session:
        rows = session.execute(_LIST, values).all()
    return paging.page(rows, lambda row: ProposalSummary(**row._mapping), lambda row: (row.id,))


@router.get(
    "/{proposal_id}",
    operation_id="get_proposal",
    summary="One proposal with its reasons",
    response_model=Proposal,
    responses={404: {"model": Problem, "description": "No such proposal in this shop"}},
)
def get(proposal_id: UUID, caller: Reader, database: Database) -> Proposal:
    with for_shop(database, caller.shop.id) as session:
        row = session.execute(_ONE, {"shop": caller.shop.id, "id": proposal_id}).one_or_none()
    if row is None:
        raise NotFound(f"there is no proposal {proposal_id}")
    return Proposal(**row._mapping)


@router.post(
    "",
    operation_id="propose_strategies",
    summary="Ask for strategies to be proposed for the clusters there are now",
    status_code=202,
    response_model=Asked,
    responses={409: {"model": Problem, "description": "The Idempotency-Key was used for another request"}},
)
def propose(caller: Writer, database: Database, once: Idempotent) -> Response:
    """They arrive as drafts in `/api/strategies`; what was left out, and why, stands here."""
    return once.run(
        database,
        caller.shop.id,
        lambda session: ask(session, caller.shop.id, ticks.PROPOSALS, actor=caller.actor),
        status=202,
    )
