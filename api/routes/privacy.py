"""Requests to see one's data or to be forgotten: made by the shop system's webhooks, or here by a person."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy.orm import Session

from api.dependencies import Database, Requires
from api.errors import Problem
from api.fields import Text
from api.idempotency import Idempotent
from api.pagination import Page, Paged
from operation_agent.access.principal import Principal
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.kit.secrets import Vault, secret_key
from operation_agent.kit.settings import settings
from operation_agent.privacy import requests
from operation_agent.store import audit
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop

router = APIRouter(prefix="/api/privacy/requests", tags=["privacy"])

Reader = Annotated[Principal, Depends(Requires("privacy:read"))]
Writer = Annotated[Principal, Depends(Requires("privacy:write"))]
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No such request in this shop"}}


class Subject(BaseModel):
    """Who it is about: at least one of these. An id says it alone; an address counts only without one."""

    model_config = ConfigDict(extra="forbid")

    customer_id: UUID | None = None
    external: Text | None = Field(None, min_length=1, max_length=512, description="Your own id of the customer")
    shopify: Text | None = Field(None, min_length=1, max_length=64)
    email: Text | None = Field(None, min_length=3, max_length=320)
    phone: Text | None = Field(None, min_length=3, max_length=40)

    @model_validator(mode="after")
    def _somebody(self) -> Subject:
        if not self.model_dump(exclude_none=True):
            raise ValueError("say who it is about: customer_id, external, shopify, email or phone")
        return self


class NewRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["export", "erase"]
    subject: Subject


class PrivacyRequest(BaseModel):
    """Times are system time. `proof` counts rows by table and holds no personal data; the audit log has it too."""

    id: UUID
    kind: Literal["export", "erase", "erase_shop"]
    source: str = Field(description="Who asked: `shopify`, or `operator`")
    state: Literal["asked", "done", "failed"]
    due_at: datetime = Field(description="By when the law wants it done")
    asked_at: datetime
    done_at: datetime | None
    proof: dict[str, Any] | None
    error: str | None
    has_result: bool = Field(description="Whether GET …/export answers")


def _shown(found: requests.Request) -> PrivacyRequest:
    return PrivacyRequest(**{name: getattr(found, name) for name in PrivacyRequest.model_fields})


@router.get(
    "", operation_id="list_privacy_requests", summary="Requests, newest first", response_model=Page[PrivacyRequest]
)
def list_requests(caller: Reader, database: Database, paging: Paged) -> Any:
    (before,) = paging.after(UUID)
    with for_shop(database, caller.shop.id) as session:
        rows = requests.listed(session, caller.shop.id, before=before, limit=paging.limit + 1)
    return paging.page(rows, _shown, lambda row: (row.id,))


@router.post(
    "",
    operation_id="make_privacy_request",
    summary="Ask for a customer's data, or for their erasure",
    status_code=202,
    response_model=PrivacyRequest,
    responses={409: {"model": Problem, "description": "The Idempotency-Key was used for another request"}},
)
def make_request(body: NewRequest, caller: Writer, database: Database, once: Idempotent) -> Response:
    """A worker carries it out within minutes. Erasure cannot be taken back."""

    def work(session: Session) -> PrivacyRequest:
        shop, at = load_shop(session, caller.shop.id), SYSTEM.now()
        subject = body.subject.model_dump(mode="json", exclude_none=True)
        if "email" in subject:
            subject["email"] = subject["email"].strip().lower()
        made = requests.ask(
            session, shop, body.kind, subject, source="operator", source_id=str(new_id()), actor=caller.actor, at=at
        )
        assert made is not None
        return _shown(requests.find(session, shop.id, made))

    return once.run(database, caller.shop.id, work, status=202)


@router.get(
    "/{request_id}",
    operation_id="get_privacy_request",
    summary="One request with its proof",
    response_model=PrivacyRequest,
    responses=_MISSING,
)
def get_request(request_id: UUID, caller: Reader, database: Database) -> PrivacyRequest:
    with for_shop(database, caller.shop.id) as session:
        return _shown(requests.find(session, caller.shop.id, request_id))


@router.get(
    "/{request_id}/export",
    operation_id="get_privacy_export",
    summary="Everything that is held about the person, as JSON",
    response_class=Response,
    responses={
        200: {"content": {"application/json": {}}, "description": "{customers, identities, data: {table: [rows]}}"},
        **_MISSING,
        409: {"model": Problem, "description": "Not made yet, or not kept any more"},
    },
)
def get_export(request_id: UUID, caller: Reader, database: Database) -> Response:
    """Who fetched it stands in the audit log."""
    with for_shop(database, caller.shop.id) as session:
        sealed = requests.result(session, caller.shop.id, request_id)
        audit.record(
            session, caller.shop.id, at=SYSTEM.now(), actor=caller.actor, verb="privacy.fetched",
            subject=f"privacy_request:{request_id}",
        )  # fmt: skip
    document = Vault(secret_key(settings())).open(sealed)
    headers = {"Content-Disposition": f'attachment; filename="{request_id}.json"', "Cache-Control": "no-store"}
    return Response(document, media_type="application/json", headers=headers)
