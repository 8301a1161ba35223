"""Segments: saved conditions, who meets them, and who would meet one that is still being written."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import text
from sqlalchemy.orm import Session

from api.dependencies import Database, Requires
from api.errors import Problem
from api.fields import Text
from api.idempotency import Idempotent
from api.pagination import Page, Paged
from operation_agent.access.principal import Principal
from operation_agent.kit.clock import SYSTEM
from operation_agent.segments import lifecycle
from operation_agent.segments import preview as previews
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from operation_agent.strategies import document, vocabulary
from rules import querybuilder

router = APIRouter(prefix="/api/segments", tags=["segments"])

Reader = Annotated[Principal, Depends(Requires("segments:read"))]
Writer = Annotated[Principal, Depends(Requires("segments:write"))]
Key = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$", description="The segment's id or key")]
_EXAMPLE = {"all": [{"field": "customer.days_since_order", "op": "gt", "value": 45}]}
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No such segment in this shop"}}
_REUSED = "The Idempotency-Key was used for another request"


class SegmentSummary(BaseModel):
    """`size` and `refreshed_at` are null until everybody was held against it once."""

    id: UUID
    key: str = Field(description="Conditions name it segment.<key>")
    name: dict[str, str] = Field(description="By language: zh, en")
    version: int = Field(description="Of the definition")
    state: str = Field(description="`active` or `archived`")
    size: int | None = Field(description="Members as of `refreshed_at`")
    refreshed_at: datetime | None = Field(description="Shop time")
    created_at: datetime
    created_by: str
    updated_at: datetime


class Segment(SegmentSummary):
    definition: dict[str, Any] = Field(description="A condition in its canonical form")
    used_by: list[str] = Field(description="Strategies that are live or paused, and segments, that ask for it")


Form = Annotated[
    Literal["conditions", "querybuilder"],
    Field(description="What `definition` is: a condition as in a rule's `if`, or react-querybuilder's JSON"),
]


class NewSegment(BaseModel):
    model_config = ConfigDict(extra="forbid")

    key: Text = Field(max_length=63, examples=["lapsing"])
    name: dict[Text, Text] = Field(max_length=2, examples=[{"en": "Lapsing", "zh": "即将流失"}])
    definition: dict[str, Any] = Field(examples=[_EXAMPLE])
    format: Form = "conditions"


class SegmentChange(BaseModel):
    """What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    name: dict[Text, Text] | None = Field(None, max_length=2)
    definition: dict[str, Any] | None = None
    format: Form = "conditions"
    state: Literal["archived"] | None = Field(None, description="Hold nobody against it any more")


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    definition: dict[str, Any] = Field(examples=[_EXAMPLE])
    format: Form = "conditions"


class Comparison(BaseModel):
    """One comparison of the condition: with what was seen, and how it came out (null: unknown)."""

    model_config = ConfigDict(extra="allow")

    path: str
    op: str
    seen: Any
    holds: bool | None


class MetCustomer(BaseModel):
    customer_id: UUID
    external_id: str | None
    seen: list[Comparison]


class PreviewMade(BaseModel):
    as_of: datetime = Field(description="Shop time")
    customers: int = Field(description="Everybody who was held against it")
    size: int = Field(description="Who meets it")
    unknown: int = Field(description="Of whom it cannot be told, because a value is missing; they do not meet it")
    definition: dict[str, Any] = Field(description="The condition in its canonical form")
    sample: list[MetCustomer] = Field(description="At most 20 of those who meet it, chosen at random, always the same")


class Member(BaseModel):
    customer_id: UUID
    external_id: str | None
    since: datetime = Field(description="Shop time it entered")


def _shown(row: lifecycle.SegmentRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in SegmentSummary.model_fields}


def _whole(session: Session, shop_id: UUID, row: lifecycle.SegmentRow) -> Segment:
    users = lifecycle.used_by(session, shop_id, row.key)
    return Segment(**_shown(row), definition=row.definition, used_by=list(users))


@router.get("", operation_id="list_segments", summary="Segments by key", response_model=Page[SegmentSummary])
def list_segments(
    caller: Reader,
    database: Database,
    paging: Paged,
    state: Annotated[Literal["active", "archived"] | None, Query()] = None,
) -> Any:
    (after,) = paging.after(str)
    with for_shop(database, caller.shop.id) as session:
        rows = lifecycle.list_segments(session, caller.shop.id, state=state, after=after, limit=paging.limit + 1)
    return paging.page(rows, lambda row: SegmentSummary(**_shown(row)), lambda row: (row.key,))


@router.post(
    "",
    operation_id="create_segment",
    summary="Make a segment",
    status_code=201,
    response_model=Segment,
    responses={409: {"model": Problem, "description": f"The key is taken. {_REUSED}"}},
)
def create_segment(body: NewSegment, caller: Writer, database: Database, once: Idempotent) -> Response:
    """A worker then holds everybody against it; until then `size` is null. A definition that does not read is answered
    with the path at fault."""
    document.check(body.definition)

    def work(session: Session) -> Segment:
        shop = load_shop(session, caller.shop.id)
        row = lifecycle.create(
            session, shop, key=body.key, name=body.name, definition=body.definition,
            vocabulary=vocabulary.of_shop(session, shop.id), at=SYSTEM.now(), actor=caller.actor,
            form=body.format,
        )  # fmt: skip
        return _whole(session, shop.id, row)

    return once.run(database, caller.shop.id, work, status=201)


@router.post(
    "/preview",
    operation_id="preview_segment",
    summary="Who meets a condition now",
    status_code=200,
    response_model=PreviewMade,
    responses={409: {"model": Problem, "description": _REUSED}},
)
def preview_segment(body: Asked, caller: Reader, database: Database, once: Idempotent) -> Response:
    """Holds every customer against it as of the shop's now. Nothing is written."""
    document.check(body.definition)

    def work(session: Session) -> PreviewMade:
        shop = load_shop(session, caller.shop.id)
        condition = lifecycle.read(body.definition, vocabulary.of_shop(session, shop.id), form=body.format)
        as_of = shop.now()
        made = previews.preview(session, shop, condition, as_of)
        names = _external_ids(session, shop.id, [one.customer_id for one in made.sample])
        return PreviewMade(
            as_of=as_of, customers=made.customers, size=made.size, unknown=made.unknown, definition=condition.to_dict(),
            sample=[MetCustomer(customer_id=one.customer_id, external_id=names.get(one.customer_id),
                                seen=[Comparison(**leaf) for leaf in one.seen]) for one in made.sample],
        )  # fmt: skip

    return once.run(database, caller.shop.id, work, status=200)


@router.get(
    "/{segment}",
    operation_id="get_segment",
    summary="One segment with its definition",
    response_model=Segment,
    responses=_MISSING,
)
def get_segment(
    segment: Key,
    caller: Reader,
    database: Database,
    format: Annotated[
        Literal["conditions", "querybuilder"], Query(description="How `definition` is written")
    ] = "conditions",
) -> Segment:
    with for_shop(database, caller.shop.id) as session:
        found = _whole(session, caller.shop.id, lifecycle.find(session, caller.shop.id, segment))
    if format == "querybuilder":
        found.definition = querybuilder.produce(lifecycle.read(found.definition, vocabulary.vocabulary()))
    return found


@router.patch(
    "/{segment}",
    operation_id="change_segment",
    summary="Rename a segment, change its definition, or archive it",
    response_model=Segment,
    responses={**_MISSING, 409: {"model": Problem, "description": "It is archived, or used by what is live"}},
)
def change_segment(segment: Key, body: SegmentChange, caller: Writer, database: Database) -> Segment:
    """With another definition it has a new version; who comes in or leaves by it is said to have entered or left."""
    document.check(body.definition)
    with for_shop(database, caller.shop.id) as session:
        shop, at = load_shop(session, caller.shop.id), SYSTEM.now()
        row = lifecycle.find(session, shop.id, segment)
        if body.name is not None or body.definition is not None:
            row = lifecycle.change(
                session, shop, segment, name=body.name, definition=body.definition,
                vocabulary=vocabulary.of_shop(session, shop.id), at=at, actor=caller.actor,
                form=body.format,
            )  # fmt: skip
        if body.state is not None:
            row = lifecycle.archive(session, shop, segment, at=at, actor=caller.actor)
        return _whole(session, shop.id, row)


_MEMBERS = text("""
SELECT m.customer_id, c.external_id, m.since FROM segment_members m
JOIN customers c ON c.shop_id = m.shop_id AND c.id = m.customer_id
WHERE m.shop_id = :shop AND m.segment_id = :segment AND m.left_at IS NULL
  AND (CAST(:after AS uuid) IS NULL OR m.customer_id > CAST(:after AS uuid))
ORDER BY m.customer_id LIMIT :limit
""")


@router.get(
    "/{segment}/members",
    operation_id="list_segment_members",
    summary="Who is in a segment",
    response_model=Page[Member],
    responses=_MISSING,
)
def list_members(segment: Key, caller: Reader, database: Database, paging: Paged) -> Any:
    (after,) = paging.after(UUID)
    with for_shop(database, caller.shop.id) as session:
        row = lifecycle.find(session, caller.shop.id, segment)
        values = {"shop": caller.shop.id, "segment": row.id, "after": after, "limit": paging.limit + 1}
        members = session.execute(_MEMBERS, values).all()
    return paging.page(members, lambda one: Member(**one._mapping), lambda one: (one.customer_id,))


def _external_ids(session: Session, shop_id: UUID, customer_ids: list[UUID]) -> dict[UUID, str | None]:
    rows = session.execute(
        text("SELECT id, external_id FROM customers WHERE shop_id = :shop AND id = ANY(CAST(:ids AS uuid[]))"),
        {"shop": shop_id, "ids": customer_ids},
    )
    return {row.id: row.external_id for row in rows}
