"""Discount codes made ahead: pools that coupon steps take their codes from, one for each customer."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from api.dependencies import Database, Requires
from api.errors import Problem
from api.fields import Instant, JsonObject, Text
from api.idempotency import Idempotent
from api.pagination import Page, Paged
from operation_agent.access.principal import Principal
from operation_agent.actions import code_pools
from operation_agent.kit.clock import SYSTEM
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop

router = APIRouter(prefix="/api/storefront/code-pools", tags=["storefront"])

Reader = Annotated[Principal, Depends(Requires("storefront:read"))]
Writer = Annotated[Principal, Depends(Requires("storefront:write"))]
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No such code pool in this shop"}}
_CHANGES: dict[int | str, dict[str, Any]] = {
    409: {
        "model": Problem,
        "description": "The name is in use, no shop system is connected, or the Idempotency-Key was used otherwise",
    },
}


class NewCodePool(BaseModel):
    """`terms` are what a coupon step says of the discount: one of percent, amount, free_shipping, buy_x_get_y, and its
    conditions. A step that names the pool says the same terms."""

    name: Text = Field(max_length=63, examples=["spring"], description="By which coupon steps name it")
    terms: JsonObject = Field(examples=[{"percent": 10, "minimum_subtotal": "40"}])
    size: int = Field(ge=1, le=code_pools.LARGEST, description="Free codes to have after a filling")
    low_water: int = Field(0, ge=0, description="It is filled up again when fewer than these are free")
    ends_at: Instant | None = Field(None, description="Shop time; null: the codes do not end by themselves")


class CodePool(BaseModel):
    id: UUID
    name: str
    vendor: str
    terms: dict[str, Any]
    size: int
    low_water: int
    state: Literal["asked", "filling", "ready", "failed", "closed"]
    problem: Literal["failed", "empty", "low"] | None = Field(description="What somebody should look at")
    error: str | None = Field(description="What the shop said last when it could not be done")
    starts_at: datetime
    ends_at: datetime | None
    deactivated_at: datetime | None = Field(description="Since when the shop takes none of its codes (system time)")
    discount_ref: str | None
    made: int = Field(description="Codes that the shop has")
    given: int = Field(description="Of these, codes that customers were given")
    free: int
    coming: int = Field(description="Codes that are being made")
    refused: int = Field(description="Codes that the shop did not take; others stand in for them")
    waiting: int = Field(description="Coupon steps that wait for a code; their messages wait with them")
    created_by: str
    created_at: datetime
    updated_at: datetime


def _shown(session: Session, shop_id: UUID, pools: list[code_pools.Pool]) -> list[CodePool]:
    stocks = code_pools.stocks(session, shop_id, [pool.id for pool in pools])
    return [
        CodePool(
            **asdict(pool),
            **asdict(stocks[pool.id]),
            problem=code_pools.problem_of(pool, stocks[pool.id]),
            created_by=pool.actor,
        )
        for pool in pools
    ]


@router.get(
    "", operation_id="list_code_pools", summary="Code pools with their stock, newest first",
    response_model=Page[CodePool],
)  # fmt: skip
def list_all(caller: Reader, database: Database, paging: Paged) -> Any:
    (before,) = paging.after(UUID)
    with for_shop(database, caller.shop.id) as session:
        pools = code_pools.listed(session, caller.shop.id, before=before, limit=paging.limit + 1)
        shown = _shown(session, caller.shop.id, pools)
    return paging.page(shown, lambda one: one, lambda one: (one.id,))


@router.post(
    "", operation_id="create_code_pool", summary="Have codes made ahead", response_model=CodePool, status_code=201,
    responses=_CHANGES,
)  # fmt: skip
def create(body: NewCodePool, caller: Writer, database: Database, once: Idempotent) -> Response:
    """A worker makes one discount at the shop and adds its codes in batches; the pool is `ready` when all are there.
    Codes are given as soon as they are made."""

    def work(session: Session) -> CodePool:
        shop = load_shop(session, caller.shop.id)
        pool = code_pools.create(
            session, shop, name=body.name, terms=body.terms, size=body.size, low_water=body.low_water,
            ends_at=body.ends_at, actor=caller.actor, at=SYSTEM.now(),
        )  # fmt: skip
        return _shown(session, shop.id, [pool])[0]

    return once.run(database, caller.shop.id, work)


@router.get(
    "/{pool_id}", operation_id="get_code_pool", summary="One code pool with its stock", response_model=CodePool,
    responses=_MISSING,
)  # fmt: skip
def get(pool_id: UUID, caller: Reader, database: Database) -> CodePool:
    with for_shop(database, caller.shop.id) as session:
        return _shown(session, caller.shop.id, [code_pools.load(session, caller.shop.id, pool_id)])[0]


@router.post(
    "/{pool_id}/close", operation_id="close_code_pool", summary="End a code pool and all of its codes",
    response_model=CodePool, responses={**_MISSING, **_CHANGES},
)  # fmt: skip
def close(pool_id: UUID, caller: Writer, database: Database, once: Idempotent) -> Response:
    """The discount is deactivated at the shop: codes that customers have cannot be used any more."""

    def work(session: Session) -> CodePool:
        shop = load_shop(session, caller.shop.id)
        pool = code_pools.close(session, shop, pool_id, actor=caller.actor, at=SYSTEM.now())
        return _shown(session, shop.id, [pool])[0]

    return once.run(database, caller.shop.id, work, status=200)
