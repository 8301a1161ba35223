"""Changes made at the shop, and taken back."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from api.dependencies import Database, Requires
from api.errors import Problem
from api.fields import Text
from api.idempotency import Idempotent
from api.pagination import Page, Paged
from operation_agent.access.principal import Principal
from operation_agent.kit.clock import SYSTEM
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from operation_agent.storefront import changes, kinds

router = APIRouter(prefix="/api/storefront/changes", tags=["storefront"])

Reader = Annotated[Principal, Depends(Requires("storefront:read"))]
Writer = Annotated[Principal, Depends(Requires("storefront:write"))]
State = Literal[
    "asked", "previewed", "applying", "applied", "undoing", "undone", "refused", "unknown", "cancelled"
]  # fmt: skip
MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No such change of this shop"}}
MOVES: dict[int | str, dict[str, Any]] = {
    **MISSING,
    409: {"model": Problem, "description": "Its state forbids it (`state`), or it cannot be taken back (`no_undo`)"},
}


class ChangeKind(BaseModel):
    kind: str
    labels: dict[str, str] = Field(description="By language: en, zh")
    parameters: dict[str, Any] = Field(description="JSON Schema of what it takes, with an example")
    undoable: bool
    why_no_undo: dict[str, str] | None = Field(description="By language: what of it cannot be taken back, and why")
    scopes: list[str] = Field(description="What the shop must have granted, by Shopify's names")


class Change(BaseModel):
    """Values are as the kind has them; instants are system time."""

    id: UUID
    kind: str
    subject: str = Field(description="What it changes, such as `product:5001`")
    parameters: dict[str, Any]
    state: State
    apply_asked: bool = Field(description="Whether it goes on after its preview by itself, or a person said so")
    before: dict[str, Any] | None = Field(description="The values at the shop when it was previewed")
    after: dict[str, Any] | None = Field(description="The values it leads to; once made, as the shop tells them")
    warnings: list[str]
    ref: str | None = Field(description="The shop's id of what was made new")
    can_undo: bool
    why_no_undo: str | None
    reason: str | None = Field(description="Why it was refused, why it waits, or why it could not be taken back")
    reason_code: str | None
    errors: list[dict[str, Any]] = Field(description="What the shop said: field, code, message")
    attempts: int
    retry_at: datetime | None
    actor: str = Field(description="Who asked for it")
    asked_at: datetime
    applied_at: datetime | None
    undone_at: datetime | None
    updated_at: datetime


class NewChange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Text = Field(max_length=60, examples=["product.price"])
    parameters: dict[str, Any] = Field(examples=[dict(kinds.KINDS["product.price"].example)])
    apply: bool = Field(
        False,
        description="Make it once it was previewed, without a look at it. A price that moves by more than half of the"
        " shop's price_bound waits for a person all the same",
    )


class Undoing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    force: bool = Field(False, description="Even if somebody else changed the values at the shop since")


def _shown(change: changes.Change) -> Change:
    values = {name: getattr(change, name) for name in Change.model_fields if name != "can_undo"}
    return Change(**values, can_undo=change.state == "applied" and change.undo is not None)


@router.get(
    "/kinds",
    operation_id="list_change_kinds",
    summary="What can be changed at the shop, what each change takes, and whether it can be taken back",
    response_model=list[ChangeKind],
)
def list_kinds(_caller: Reader) -> list[ChangeKind]:
    return [
        ChangeKind(
            kind=kind.name, labels=dict(kind.labels), parameters=dict(kind.described("shopify").schema),
            undoable=kind.undoable, why_no_undo=dict(kind.why_no_undo) or None, scopes=list(kind.scopes["shopify"]),
        )
        for kind in kinds.KINDS.values()
    ]  # fmt: skip


@router.post(
    "",
    operation_id="ask_change",
    summary="Have a change at the shop previewed, and made too with `apply`",
    status_code=201,
    response_model=Change,
    responses={
        409: {"model": Problem, "description": "No shop is connected (`not_connected`)"},
        422: {"model": Problem, "description": "The parameters are not of this kind; `errors` names every field"},
    },
)
def ask(body: NewChange, caller: Writer, database: Database, once: Idempotent) -> Response:
    """It is answered before anything is called: look at the change again to see its preview."""

    def work(session: Any) -> Change:
        shop = load_shop(session, caller.shop.id)
        made = changes.ask(
            session, shop, body.kind, body.parameters, apply=body.apply, at=SYSTEM.now(), actor=caller.actor
        )
        return _shown(made)

    return once.run(database, caller.shop.id, work, status=201)


@router.get("", operation_id="list_changes", summary="Changes, the newest first", response_model=Page[Change])
def list_all(
    caller: Reader,
    database: Database,
    paging: Paged,
    kind: Annotated[str | None, Query(max_length=60)] = None,
    state: Annotated[State | None, Query()] = None,
    subject: Annotated[str | None, Query(max_length=100, examples=["product:5001"])] = None,
) -> dict[str, Any]:
    (before,) = paging.after(UUID)
    with for_shop(database, caller.shop.id) as session:
        rows = changes.list_changes(
            session, caller.shop.id, kind=kind, state=state, subject=subject, before=before, limit=paging.limit + 1
        )
    return paging.page(rows, _shown, lambda row: (row.id,))


@router.get(
    "/{change_id}", operation_id="get_change", summary="One change", response_model=Change, responses={**MISSING}
)
def get(change_id: UUID, caller: Reader, database: Database) -> Change:
    with for_shop(database, caller.shop.id) as session:
        return _shown(changes.get(session, caller.shop.id, change_id))


@router.post(
    "/{change_id}/apply",
    operation_id="apply_change",
    summary="Make a change that was previewed",
    status_code=202,
    response_model=Change,
    responses=MOVES,
)
def apply(change_id: UUID, caller: Writer, database: Database, once: Idempotent) -> Response:
    """It is made only if the values at the shop are still those of the preview."""

    def work(session: Any) -> Change:
        shop = load_shop(session, caller.shop.id)
        return _shown(changes.apply(session, shop, change_id, at=SYSTEM.now(), actor=caller.actor))

    return once.run(database, caller.shop.id, work, status=202)


@router.post(
    "/{change_id}/undo",
    operation_id="undo_change",
    summary="Take back a change that was made",
    status_code=202,
    response_model=Change,
    responses=MOVES,
)
def undo(
    change_id: UUID, caller: Writer, database: Database, once: Idempotent, body: Undoing | None = None
) -> Response:
    """When somebody else changed the values since, it stays applied and `reason` says so, unless forced."""

    def work(session: Any) -> Change:
        shop = load_shop(session, caller.shop.id)
        force = body is not None and body.force
        return _shown(changes.undo(session, shop, change_id, force=force, at=SYSTEM.now(), actor=caller.actor))

    return once.run(database, caller.shop.id, work, status=202)


@router.post(
    "/{change_id}/cancel",
    operation_id="cancel_change",
    summary="Drop a change of which nothing was done",
    response_model=Change,
    responses=MOVES,
)
def cancel(change_id: UUID, caller: Writer, database: Database, once: Idempotent) -> Response:
    """One whose state is `unknown` may be dropped too, by who has looked at the shop."""

    def work(session: Any) -> Change:
        shop = load_shop(session, caller.shop.id)
        return _shown(changes.cancel(session, shop, change_id, at=SYSTEM.now(), actor=caller.actor))

    return once.run(database, caller.shop.id, work, status=200)
