"""What a customer did and what befell them, as one timeline."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, BaseModel, Field

from api.dependencies import Database, Requires
from api.errors import Problem
from api.fields import Text
from api.pagination import Page, Paged
from operation_agent.access.principal import Principal
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from operation_agent.storefront import behavior
from operation_agent.storefront.words import LABELS

router = APIRouter(prefix="/api/customers", tags=["customers"])
Reader = Annotated[Principal, Depends(Requires("customers:read"))]


class BehaviorEntry(BaseModel):
    """Something that happened: what the customer did, or what became of their orders."""

    at: datetime = Field(description="In the shop's time")
    kind: str = Field(description="An event's type, or one of " + ", ".join(k for k in LABELS if "." not in k))
    ref: str = Field(description="Names it within its kind: the event, order, refund, checkout")
    labels: dict[str, str] = Field(description="The kind's names")
    amount_minor: int | None = Field(description="In minor units of `currency`, the shop's")
    currency: str
    details: dict[str, Any] = Field(description="By kind: an event's properties; an order's amounts, state and lines")


@router.get(
    "/{customer_id}/behavior",
    operation_id="get_customer_behavior",
    summary="Events, messages, carts, checkouts, orders and what became of them, newest first",
    response_model=Page[BehaviorEntry],
    responses={
        400: {"model": Problem, "description": "No such kind, or a cursor of another list"},
        404: {"model": Problem, "description": "No such customer in this shop"},
    },
)
def get(
    customer_id: UUID,
    caller: Reader,
    database: Database,
    paging: Paged,
    since: Annotated[AwareDatetime | None, Query(description="Not older than this, in the shop's time")] = None,
    kinds: Annotated[
        list[Text] | None, Query(alias="kind", max_length=len(LABELS), description="These kinds only; may be repeated")
    ] = None,
) -> Any:
    at, kind, ref = paging.after(datetime, str, str)
    with for_shop(database, caller.shop.id) as session:
        entries = behavior.get_customer_behavior(
            session, load_shop(session, caller.shop.id), customer_id,
            before=behavior.Position(at, kind, ref) if at is not None else None,
            since=since, kinds=kinds, limit=paging.limit + 1,
        )  # fmt: skip
    return paging.page(entries, _shown, lambda entry: entry.position)


def _shown(entry: behavior.Entry) -> BehaviorEntry:
    return BehaviorEntry(
        at=entry.at, kind=entry.kind, ref=entry.ref, labels=dict(entry.labels), amount_minor=entry.amount_minor,
        currency=entry.currency, details=dict(entry.details),
    )  # fmt: skip
