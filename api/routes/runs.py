"""Runs: where each customer stands in an arm that waits or branches, and taking one out."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.orm import Session

from api.dependencies import Database, Requires
from api.errors import Problem
from api.idempotency import Idempotent
from api.pagination import Page, Paged
from operation_agent.access.principal import Principal
from operation_agent.journeys import leaving
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import NotFound
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop

router = APIRouter(prefix="/api/runs", tags=["runs"])

Reader = Annotated[Principal, Depends(Requires("decisions:read"))]
Writer = Annotated[Principal, Depends(Requires("actions:write"))]
State = Literal["waiting", "finished", "exited"]
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No such run in this shop"}}


class RunSummary(BaseModel):
    """Times are shop time, `updated_at` system time. A held-out customer walks the same way, and gets nothing."""

    id: UUID
    strategy_id: UUID
    rule_id: UUID
    rule_version: int = Field(description="The version it entered, and finishes on")
    customer_id: UUID
    decision_id: UUID
    campaign_id: UUID | None
    arm: str
    held_out: bool
    state: State
    path: str = Field(description="Where in the arm's steps it stands, or stood last: 2.then.0")
    kind: Literal["wait", "branch"] | None
    listens_from: datetime | None = Field(description="From when on the events it waits for count")
    due_at: datetime | None = Field(description="When the wait is over, or the branch is looked at; null: it is over")
    events: list[str] = Field(description="The event types it waits for")
    exit_on: list[str] = Field(description="The event types that end it")
    exit_reason: str | None = Field(description="Why it was left early: an event type, or who took it out")
    entered_at: datetime
    left_at: datetime | None
    updated_at: datetime


class RunAction(BaseModel):
    """An action that came of a run."""

    id: UUID
    step: int
    type: str
    state: str
    reason: str | None
    due_at: datetime
    sent_at: datetime | None


class Run(RunSummary):
    enrolment_key: str = Field(description="What the customer entered by, such as an order's id; empty: once")
    zone: str = Field(description="The time zone by whose clocks it waits")
    trigger: dict[str, Any] = Field(description="What of the triggering event later steps can use")
    actions: list[RunAction]


_LIST = text("""
SELECT * FROM runs
WHERE shop_id = :shop AND (CAST(:before AS uuid) IS NULL OR id < CAST(:before AS uuid))
  AND (CAST(:customer AS uuid) IS NULL OR customer_id = CAST(:customer AS uuid))
  AND (CAST(:strategy AS uuid) IS NULL OR strategy_id = CAST(:strategy AS uuid))
  AND (CAST(:rule AS uuid) IS NULL OR rule_id = CAST(:rule AS uuid))
  AND (CAST(:state AS text) IS NULL OR state = CAST(:state AS text))
ORDER BY id DESC LIMIT :limit
""")


@router.get("", operation_id="list_runs", summary="Runs, newest first", response_model=Page[RunSummary])
def list_all(
    caller: Reader,
    database: Database,
    paging: Paged,
    customer: UUID | None = None,
    strategy: UUID | None = None,
    rule: UUID | None = None,
    state: Annotated[State | None, Query(description="waiting: still on the way")] = None,
) -> Any:
    (before,) = paging.after(UUID)
    values = {
        "shop": caller.shop.id, "before": before, "customer": customer, "strategy": strategy, "rule": rule,
        "state": state, "limit": paging.limit + 1,
    }  # fmt: skip
    with for_shop(database, caller.shop.id) as session:
        rows = session.execute(_LIST, values).all()
    return paging.page(rows, lambda row: RunSummary(**row._mapping), lambda row: (row.id,))


_ONE = text("SELECT * FROM runs WHERE shop_id = :shop AND id = :id")
_ACTIONS = text("""
SELECT id, step, type, state, reason, due_at, sent_at FROM actions WHERE shop_id = :shop AND run_id = :id
ORDER BY due_at, step
""")


def _load(session: Session, shop_id: UUID, run_id: UUID) -> Run:
    values = {"shop": shop_id, "id": run_id}
    row = session.execute(_ONE, values).one_or_none()
    if row is None:
        raise NotFound(f"there is no run {run_id}")
    actions = [RunAction(**one._mapping) for one in session.execute(_ACTIONS, values)]
    return Run(**row._mapping, actions=actions)


@router.get(
    "/{run_id}",
    operation_id="get_run",
    summary="One run with the actions that came of it",
    response_model=Run,
    responses=_MISSING,
)
def get(run_id: UUID, caller: Reader, database: Database) -> Run:
    with for_shop(database, caller.shop.id) as session:
        return _load(session, caller.shop.id, run_id)


@router.post(
    "/{run_id}/exit",
    operation_id="exit_run",
    summary="Take the customer out",
    response_model=Run,
    responses={
        **_MISSING,
        409: {"model": Problem, "description": "It is over already, or the Idempotency-Key was used otherwise"},
    },
)
def leave(run_id: UUID, caller: Writer, database: Database, once: Idempotent) -> Response:
    """What is planned for the run and not sent yet is called off, and its money let go."""

    def work(session: Session) -> Run:
        shop = load_shop(session, caller.shop.id)
        leaving.exit_run(session, shop, run_id, actor=caller.actor, at=SYSTEM.now())
        return _load(session, shop.id, run_id)

    return once.run(database, caller.shop.id, work, status=200)
