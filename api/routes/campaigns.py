"""Campaigns: strategies run by the calendar or by hand over an audience; their progress, pause, resume, cancel."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from api.dependencies import Database, Requires
from api.errors import Problem
from api.fields import Instant, Text
from api.idempotency import Idempotent
from api.pagination import Page, Paged
from operation_agent.access.principal import Principal
from operation_agent.campaigns import progress, records, steering
from operation_agent.campaigns.progress import Progress
from operation_agent.kit.clock import SYSTEM
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, load_shop

router = APIRouter(prefix="/api/campaigns", tags=["campaigns"])

Reader = Annotated[Principal, Depends(Requires("campaigns:read"))]
Writer = Annotated[Principal, Depends(Requires("campaigns:write"))]
CampaignId = Annotated[UUID, Path(description="The campaign's id")]
State = Literal["preparing", "waiting_approval", "running", "paused", "finished", "cancelled", "failed"]
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No such campaign in this shop"}}
_CHANGES: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "No such campaign or strategy"},
    409: {"model": Problem, "description": "Its state forbids it, or the Idempotency-Key was used otherwise"},
}


class CampaignRule(BaseModel):
    """A rule that the campaign runs."""

    rule_id: UUID
    key: str | None
    strategy_id: UUID | None
    version: int | None = Field(description="That it decides by; null until it is prepared")
    zones: list[str] | None = Field(description="Asked only of customers in these time zones; null: of everybody")


class CampaignProgress(BaseModel):
    """Sums over the chunks that are done."""

    chunks: int
    chunks_done: int
    customers: int = Field(description="Looked at so far")
    decided: int = Field(description="Decisions made so far")
    acting: int = Field(description="Decisions to act")
    held_out: int = Field(description="Customers left alone, so that the effect can be measured")
    actions: int = Field(description="Actions planned, those of the held-out customers included")
    cost_minor: int = Field(description="What the planned actions may cost at most, in the shop's currency")
    verdicts: dict[str, int] = Field(description="Number of decisions by verdict")


class CampaignSummary(BaseModel):
    """One run of one or more rules. `as_of` and `due_at` are shop time, the other instants system time."""

    id: UUID
    kind: str = Field(description="`cron` or `manual`")
    state: State
    reason: str | None = Field(description="Why it is paused, cancelled or failed")
    rules: list[CampaignRule]
    audience: dict[str, Any]
    as_of: datetime
    due_at: datetime
    created_at: datetime
    created_by: str
    started_at: datetime | None
    finished_at: datetime | None
    progress: CampaignProgress


class CampaignChunk(BaseModel):
    number: int
    state: str = Field(description="`open` or `done`")
    customers: int
    decided: int
    actions: int
    cost_minor: int
    verdicts: dict[str, int]
    attempts: int = Field(description="Failed attempts since it was last resumed")
    error: str | None
    finished_at: datetime | None


class Campaign(CampaignSummary):
    estimate: dict[str, Any] = Field(description="What was found before it ran; {}: nothing had to be found out")
    cutoffs: dict[str, Any] = Field(
        description="By strategy, where the best end that its budget or day has room for; {}: there is room for all"
    )
    chunks: list[CampaignChunk]


class Audience(BaseModel):
    """Whom it is for; without either field, everybody."""

    model_config = ConfigDict(extra="forbid")

    segment: Text | None = Field(None, max_length=63, description="A segment's key")
    condition: dict[str, Any] | None = Field(None, description="A condition, as in a rule's `if`")

    def written(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class NewCampaign(BaseModel):
    model_config = ConfigDict(extra="forbid")

    strategy: Text = Field(
        min_length=1, max_length=63, description="A live strategy's id or key", examples=["win-back"]
    )
    audience: Audience = Field(default_factory=Audience)
    as_of: Instant | None = Field(None, description="Shop time as of which everybody is looked at; null: now")


def _summary(campaign: records.Campaign, done: Progress) -> dict[str, Any]:
    names = ("id", "kind", "state", "reason", "audience", "as_of", "due_at", "created_at", "created_by", "started_at",
             "finished_at")  # fmt: skip
    return {
        **{name: getattr(campaign, name) for name in names},
        "rules": [CampaignRule(rule_id=one.rule_id, key=one.key, strategy_id=one.strategy_id, version=one.version,
                               zones=list(one.zones) if one.zones is not None else None)
                  for one in campaign.rules],
        "progress": CampaignProgress(
            **{name: getattr(done, name) for name in CampaignProgress.model_fields if name != "verdicts"},
            verdicts=dict(done.verdicts or {}),
        ),
    }  # fmt: skip


def _whole(session: Session, shop_id: UUID, campaign: records.Campaign) -> Campaign:
    parts = progress.chunks_of(session, shop_id, [campaign.id]).get(campaign.id, [])
    chunks = [CampaignChunk(**{name: getattr(one, name) for name in CampaignChunk.model_fields}) for one in parts]
    return Campaign(
        **_summary(campaign, progress.total(parts)), estimate=campaign.estimate, cutoffs=campaign.cutoffs, chunks=chunks
    )


@router.get(
    "",
    operation_id="list_campaigns",
    summary="Campaigns, the latest due first, with their progress",
    response_model=Page[CampaignSummary],
)
def list_campaigns(
    caller: Reader,
    database: Database,
    paging: Paged,
    state: Annotated[State | None, Query()] = None,
    strategy: Annotated[UUID | None, Query(description="That run a rule of this strategy")] = None,
) -> dict[str, Any]:
    after = paging.after(datetime, UUID)
    with for_shop(database, caller.shop.id) as session:
        rows = progress.listed(
            session, caller.shop.id, state=state, strategy=strategy, after=(after[0], after[1]), limit=paging.limit + 1
        )
    return paging.page(rows, lambda row: CampaignSummary(**_summary(*row)), lambda row: (row[0].due_at, row[0].id))


@router.get(
    "/{campaign}",
    operation_id="get_campaign",
    summary="One campaign: progress, counts by verdict, cost so far, chunks",
    response_model=Campaign,
    responses=_MISSING,
)
def get_campaign(campaign: CampaignId, caller: Reader, database: Database) -> Campaign:
    with for_shop(database, caller.shop.id) as session:
        return _whole(session, caller.shop.id, records.find(session, caller.shop.id, campaign))


@router.post(
    "",
    operation_id="start_campaign",
    summary="Run a live strategy by hand over an audience",
    status_code=201,
    response_model=Campaign,
    responses=_CHANGES,
)
def start_campaign(body: NewCampaign, caller: Writer, database: Database, once: Idempotent) -> Response:
    """Its rules that need no event are asked of everybody in the audience, within all their limits. Where an approval
    is needed, people are asked first."""

    def work(session: Session) -> Campaign:
        shop = load_shop(session, caller.shop.id)
        made = steering.start(
            session, shop, body.strategy, audience=body.audience.written(), as_of=body.as_of, by=caller.actor,
            at=SYSTEM.now(),
        )  # fmt: skip
        return _whole(session, shop.id, made)

    return once.run(database, caller.shop.id, work, status=201)


_Move = Callable[..., records.Campaign]


def _moved(move: _Move, campaign: UUID, caller: Principal, database: Any, once: Any) -> Response:
    def work(session: Session) -> Campaign:
        shop: Shop = load_shop(session, caller.shop.id)
        found = move(session, shop, campaign, by=caller.actor, at=SYSTEM.now())
        return _whole(session, shop.id, found)

    answer: Response = once.run(database, caller.shop.id, work, status=200)
    return answer


@router.post(
    "/{campaign}/pause",
    operation_id="pause_campaign",
    summary="Stop at the next chunk",
    response_model=Campaign,
    responses=_CHANGES,
)
def pause_campaign(campaign: CampaignId, caller: Writer, database: Database, once: Idempotent) -> Response:
    return _moved(steering.pause, campaign, caller, database, once)


@router.post(
    "/{campaign}/resume",
    operation_id="resume_campaign",
    summary="Go on after a pause or a failure; what is done stays done",
    response_model=Campaign,
    responses=_CHANGES,
)
def resume_campaign(campaign: CampaignId, caller: Writer, database: Database, once: Idempotent) -> Response:
    return _moved(steering.resume, campaign, caller, database, once)


@router.post(
    "/{campaign}/cancel",
    operation_id="cancel_campaign",
    summary="End it; what it planned and nobody sent is taken back",
    response_model=Campaign,
    responses=_CHANGES,
)
def cancel_campaign(campaign: CampaignId, caller: Writer, database: Database, once: Idempotent) -> Response:
    return _moved(steering.cancel, campaign, caller, database, once)
