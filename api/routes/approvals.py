"""Approvals: what waits for people's yes, why, what it would do, and saying it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from api.dependencies import Database, Requires
from api.errors import Problem
from api.fields import Text
from api.idempotency import Idempotent
from api.pagination import Page, Paged
from api.routes.decisions import Locale, preferred
from operation_agent.access.principal import Principal
from operation_agent.actions import approving, sampling
from operation_agent.approvals import approvals
from operation_agent.campaigns import records as campaigns
from operation_agent.decision.explain import explain
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import NotFound
from operation_agent.kit.ids import as_uuid
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop

router = APIRouter(prefix="/api/approvals", tags=["approvals"])

Reader = Annotated[Principal, Depends(Requires("approvals:read"))]
Writer = Annotated[Principal, Depends(Requires("approvals:write"))]
Kind = Literal["action", "campaign", "strategy"]
State = Literal["pending", "granted", "rejected", "expired", "superseded"]


class Vote(BaseModel):
    """`at` is system time."""

    voter: str
    verdict: Literal["approve", "reject"]
    comment: str
    at: datetime


class ApprovalSummary(BaseModel):
    """A question to people about exactly one content. Times are system time."""

    id: UUID
    kind: Kind
    subject: str = Field(description="A rule's version and the reason, a campaign's id, or a strategy's id")
    fingerprint: str = Field(description="Of what is approved; anything else is another approval")
    state: State = Field(description="`superseded`: it was changed, and asked anew")
    needed: int = Field(description="How many different people must say yes")
    missing: int = Field(description="How many of them have not yet; 0 unless pending")
    why: list[dict[str, Any]] = Field(description="Each rule that asks for it, with its limit and what was found")
    requested_by: str
    authors: list[str] = Field(description="Who else made it, and so may not vote")
    requested_at: datetime
    expires_at: datetime
    settled_at: datetime | None
    granted_at: datetime | None
    votes: list[Vote]


class Extent(BaseModel):
    """The planned actions it is about; money in minor units of the shop's currency."""

    actions: int
    customers: int
    reserved_minor: int = Field(description="What they may cost at most")
    by_type: dict[str, int]
    by_state: dict[str, int]


class Sample(BaseModel):
    """A decision that leads to some of this, in words."""

    decision_id: UUID | None = Field(description="null: of a campaign that has only been tried so far")
    customer_id: UUID
    arm: str | None
    sentences: list[str]


class Approval(ApprovalSummary):
    extent: Extent | None = Field(description="null: it has no actions of its own")
    estimate: dict[str, Any] | None = Field(description="Of a campaign: what trying it found, by strategy")
    locale: Locale
    samples: list[Sample] = Field(description="At most 20; the same ones every time")


class NewVote(BaseModel):
    model_config = ConfigDict(extra="forbid")

    verdict: Literal["approve", "reject"]
    comment: Text = Field("", max_length=2000)


def _shown(found: approvals.Approval) -> dict[str, Any]:
    plain = {name: getattr(found, name) for name in ApprovalSummary.model_fields if name != "votes"}
    votes = [Vote(voter=one.voter, verdict=one.verdict, comment=one.comment, at=one.at) for one in found.votes]
    return {**plain, "authors": list(found.authors), "why": list(found.why), "votes": votes}


@router.get(
    "",
    operation_id="list_approvals",
    summary="The inbox: what waits for a yes, newest first",
    response_model=Page[ApprovalSummary],
)
def list_all(
    caller: Reader,
    database: Database,
    paging: Paged,
    state: Annotated[State | Literal["all"], Query(description="`all`: settled ones too")] = "pending",
    kind: Kind | None = None,
    subject: Annotated[Text | None, Query(max_length=500)] = None,
) -> Any:
    (before,) = paging.after(UUID)
    with for_shop(database, caller.shop.id) as session:
        found = approvals.inbox(
            session, caller.shop.id, state=None if state == "all" else state, kind=kind, subject=subject,
            before=before, limit=paging.limit + 1,
        )  # fmt: skip
    return paging.page(found, lambda one: ApprovalSummary(**_shown(one)), lambda one: (one.id,))


_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No such approval in this shop"}}


@router.get(
    "/{approval_id}",
    operation_id="get_approval",
    summary="One approval: why, who has voted, and sampled receipts of what waits",
    response_model=Approval,
    responses=_MISSING,
)
def get(
    approval_id: UUID,
    caller: Reader,
    database: Database,
    locale: Annotated[Locale | None, Query(description="Of the receipts; otherwise Accept-Language decides")] = None,
    accept_language: Annotated[str | None, Header()] = None,
) -> Approval:
    with for_shop(database, caller.shop.id) as session:
        return _whole(session, caller.shop.id, approval_id, locale or preferred(accept_language))


def _whole(session: Session, shop_id: UUID, approval_id: UUID, locale: Locale) -> Approval:
    found = approvals.find(session, shop_id, approval_id)
    extent = sampling.extent(session, shop_id, found)
    estimate = _estimate(session, shop_id, found)
    planned = sampling.samples(session, shop_id, found, locale=locale)
    tried = estimate.pop("samples", []) if estimate else []
    return Approval(
        **_shown(found),
        extent=Extent(**{name: getattr(extent, name) for name in Extent.model_fields}) if extent else None,
        estimate=estimate,
        locale=locale,
        samples=[Sample(**{name: getattr(one, name) for name in Sample.model_fields}) for one in planned]
        or [_tried(one, locale) for one in tried[: sampling.MOST_SAMPLES]],
    )


def _estimate(session: Session, shop_id: UUID, found: approvals.Approval) -> dict[str, Any] | None:
    campaign_id = as_uuid(found.subject) if found.kind == "campaign" else None
    try:
        return dict(campaigns.find(session, shop_id, campaign_id).estimate) if campaign_id else None
    except NotFound:
        return None


def _tried(sample: dict[str, Any], locale: Locale) -> Sample:
    receipt = sample["receipt"]
    return Sample(
        decision_id=None, customer_id=sample["customer_id"], arm=receipt.get("arm"), sentences=explain(receipt, locale)
    )


@router.post(
    "/{approval_id}/vote",
    operation_id="vote_on_approval",
    summary="Say yes or no to what somebody else made",
    response_model=ApprovalSummary,
    responses={
        **_MISSING,
        403: {"model": Problem, "description": "Your own, or made by a key of yours"},
        409: {"model": Problem, "description": "Settled, expired or voted on already, or the Idempotency-Key was used"},
    },
)
def vote(approval_id: UUID, body: NewVote, caller: Writer, database: Database, once: Idempotent) -> Response:
    """One rejection ends it. With the last yes that was missing, what waited for it goes on at once."""

    def work(session: Session) -> ApprovalSummary:
        shop = load_shop(session, caller.shop.id)
        made = approving.vote(
            session, shop, approval_id, by=caller.actor, verdict=body.verdict, comment=body.comment, at=SYSTEM.now()
        )
        return ApprovalSummary(**_shown(made))

    return once.run(database, caller.shop.id, work, status=200)
