"""The shop's syncs: loads of everything, or of what changed, from the shop's own system."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from api.dependencies import Database, Requires
from api.errors import Problem
from api.idempotency import Idempotent
from api.pagination import Page, Paged
from operation_agent.access.principal import Principal
from operation_agent.kit.clock import SYSTEM
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from operation_agent.storefront import sync
from operation_agent.storefront.protocol import SYNC_KINDS, SyncKind

router = APIRouter(prefix="/api/storefront", tags=["storefront"])
Reader = Annotated[Principal, Depends(Requires("storefront:read"))]
Writer = Annotated[Principal, Depends(Requires("storefront:write"))]
MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No such sync of this shop"}}


class NewSyncs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kinds: Annotated[list[SyncKind], Field(min_length=1, max_length=len(SYNC_KINDS))] | None = Field(
        None, description="What is loaded; everything when absent"
    )
    mode: Literal["first", "incremental", "reconcile"] = Field(
        "incremental",
        description="`first`: all there is; `incremental`: what changed since the last sync; `reconcile`: what changed"
        " in the last days, to fill what webhooks missed",
    )


class RefusedObject(BaseModel):
    key: str = Field(description="The object's id at the shop, as far as it could be read")
    reason: str


class Progress(BaseModel):
    percent: float | None = Field(description="0 to 100; null while nobody knows how much there is")
    per_second: float | None = Field(description="Objects a second since loading began")
    seconds_left: float | None = Field(description="At that rate; null when nobody can tell")


class Sync(BaseModel):
    id: UUID
    vendor: str
    kind: SyncKind
    mode: Literal["first", "incremental", "reconcile"]
    state: Literal["asked", "running", "loading", "done", "failed", "cancelled"] = Field(
        description="`running`: the shop's system prepares the export; `loading`: it is read and stored"
    )
    progress: Progress
    since: datetime | None = Field(description="Changed since then, shop time; null: everything")
    objects_total: int | None = Field(description="Of the export, as far as the shop's system has counted")
    objects_done: int = Field(description="Read, and stored where they were news")
    bytes_total: int | None
    bytes_done: int
    missing: int = Field(description="Objects that we did not know")
    stale: int = Field(description="Objects of which we knew an older state")
    refused: int = Field(description="Objects that could not be understood; they are left out")
    first_refusals: list[RefusedObject] = Field(description="The first 50 of those, with the reason")
    events: int = Field(description="New events stored")
    tellings: int = Field(description="States of products, stock and so on written")
    summary: str = Field(examples=["missing 12, stale 3"])
    error: str | None = Field(description="Why it failed, or waits, and what to do")
    error_code: str | None
    attempts: int = Field(description="Attempts in a row that came to nothing")
    cancelled_by: str | None
    actor: str
    asked_at: datetime
    started_at: datetime | None
    updated_at: datetime
    finished_at: datetime | None


class Asked(BaseModel):
    syncs: list[Sync] = Field(description="Of each kind the one that is under way; it may have been asked for before")


def _shown(one: sync.Sync) -> Sync:
    share, left, rate = one.share, one.left(), one.per_second()
    progress = Progress(
        percent=round(100 * share, 1) if share is not None else None,
        per_second=round(rate, 1) if rate is not None else None,
        seconds_left=round(left.total_seconds(), 1) if left is not None else None,
    )
    made = {"progress": progress, "summary": one.summary(), "cancelled_by": one.cancel_by}
    return Sync(**{name: getattr(one, name) for name in Sync.model_fields if name not in made}, **made)


@router.post(
    "/syncs",
    operation_id="start_syncs",
    summary="Load from the shop's own system: everything, or what changed",
    status_code=202,
    response_model=Asked,
    responses={
        409: {
            "model": Problem,
            "description": "Not connected (`not_connected`), the connection has a problem (`integration_problem`), or"
            " the Idempotency-Key was used for another request",
        }
    },
)
def start(body: NewSyncs, caller: Writer, database: Database, once: Idempotent) -> Response:
    """One sync of a kind at a time: what is under way already goes on, whatever its mode."""

    def work(session: Session) -> Asked:
        shop = load_shop(session, caller.shop.id)
        vendor = sync.vendor_of(session, shop.id)
        made = sync.ask(
            session, shop, vendor, body.kinds or SYNC_KINDS, body.mode, at=SYSTEM.now(), actor=caller.actor
        )  # fmt: skip
        return Asked(syncs=[_shown(one) for one in made])

    return once.run(database, caller.shop.id, work, status=202)


@router.get("/syncs", operation_id="list_syncs", summary="Syncs, newest first", response_model=Page[Sync])
def list_all(caller: Reader, database: Database, paging: Paged) -> Any:
    (before,) = paging.after(UUID)
    with for_shop(database, caller.shop.id) as session:
        rows = sync.newest(session, caller.shop.id, before=before, limit=paging.limit + 1)
    return paging.page(rows, _shown, lambda one: (one.id,))


@router.get("/syncs/{sync_id}", operation_id="get_sync", summary="One sync", response_model=Sync, responses=MISSING)
def get(sync_id: UUID, caller: Reader, database: Database) -> Sync:
    with for_shop(database, caller.shop.id) as session:
        return _shown(sync.get(session, caller.shop.id, sync_id))


@router.post(
    "/syncs/{sync_id}/cancel",
    operation_id="cancel_sync",
    summary="Stop a sync; what was stored stays",
    status_code=202,
    response_model=Sync,
    responses={**MISSING, 409: {"model": Problem, "description": "It has ended already"}},
)
def cancel(sync_id: UUID, caller: Writer, database: Database, once: Idempotent) -> Response:
    """A worker stops it within seconds, and tells the shop's system."""

    def work(session: Session) -> Sync:
        shop = load_shop(session, caller.shop.id)
        return _shown(sync.cancel(session, shop, sync_id, at=SYSTEM.now(), actor=caller.actor))

    return once.run(database, caller.shop.id, work, status=202)
