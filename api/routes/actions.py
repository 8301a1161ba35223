"""Actions: what was done, what is planned, how fast, and what a person may still change about one."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.orm import Session

from api.dependencies import Database, Requires
from api.errors import Problem
from api.fields import Instant, Text
from api.idempotency import Idempotent
from api.pagination import Page, Paged
from operation_agent.access.principal import Principal
from operation_agent.actions import manual, recalling
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import NotFound
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop

router = APIRouter(prefix="/api/actions", tags=["actions"])

Reader = Annotated[Principal, Depends(Requires("actions:read"))]
Writer = Annotated[Principal, Depends(Requires("actions:write"))]
State = Literal[
    "waiting_approval", "ready", "sending", "sent", "unknown", "suppressed", "over_budget", "failed", "cancelled",
    "parked",
]  # fmt: skip


class ActionSummary(BaseModel):
    """One unit of doing. `decided_at`, `due_at`, `sent_at` are shop time, `created_at` is system time."""

    id: UUID
    customer_id: UUID
    strategy_id: UUID
    rule_id: UUID
    decision_id: UUID
    arm: str
    step: int
    type: str
    channel: str
    held_out: bool = Field(description="Of a customer left alone: walks the same path, and no provider is called")
    state: State
    reason: str | None
    decided_at: datetime
    due_at: datetime
    sent_at: datetime | None
    created_at: datetime


class Attempt(BaseModel):
    """One call to a provider, in system time. `outcome` null: no answer was recorded."""

    number: int
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    detail: str | None


class Action(ActionSummary):
    topic: str
    parameters: dict[str, Any]
    after_action: UUID | None
    dedupe_key: str
    attempt: int
    maybe_sent: bool = Field(description="An earlier attempt may have reached somebody")
    provider: str | None
    provider_ref: str | None
    result: dict[str, Any]
    cost_minor: int
    reserved_minor: int
    approved_by: str | None
    event_received_at: datetime | None
    called_at: datetime | None
    attempts: list[Attempt]


class StateCount(BaseModel):
    channel: str
    state: State
    held_out: bool
    number: int


class Latency(BaseModel):
    """From the receipt of an event to the first call of a provider, in milliseconds; actions without a delay only."""

    channel: str
    number: int
    p50_ms: float
    p99_ms: float
    longest_ms: float


class ActionsSummary(BaseModel):
    states: list[StateCount]
    latencies: list[Latency]
    without_person: float | None = Field(description="Share of settled actions that needed no person; null: none yet")


class Coupon(BaseModel):
    code: Text = Field(min_length=1, max_length=200)
    percent: Decimal | None = Field(None, gt=0, le=100, decimal_places=2, description="Where it gives a percentage")
    expires_at: Instant


class Resolution(BaseModel):
    outcome: Literal["sent", "not_sent"] = Field(description="What a person found out at the provider")
    coupon: Coupon | None = Field(None, description="The coupon that exists there, when a coupon was `sent`")

    def found(self) -> dict[str, Any]:
        """As the provider's answer would have said it."""
        return self.coupon.model_dump(mode="json", exclude_none=True) if self.coupon else {}


_LIST = text("""
SELECT id, customer_id, strategy_id, rule_id, decision_id, arm, step, type, channel, held_out, state, reason,
       decided_at, due_at, sent_at, created_at
FROM actions
WHERE shop_id = :shop AND (CAST(:before AS uuid) IS NULL OR id < CAST(:before AS uuid))
  AND (CAST(:state AS text) IS NULL OR state = CAST(:state AS text))
  AND (CAST(:channel AS text) IS NULL OR channel = CAST(:channel AS text))
  AND (CAST(:customer AS uuid) IS NULL OR customer_id = CAST(:customer AS uuid))
  AND (CAST(:strategy AS uuid) IS NULL OR strategy_id = CAST(:strategy AS uuid))
  AND (CAST(:decision AS uuid) IS NULL OR decision_id = CAST(:decision AS uuid))
  AND (CAST(:held_out AS boolean) IS NULL OR held_out = CAST(:held_out AS boolean))
ORDER BY id DESC LIMIT :limit
""")


@router.get("", operation_id="list_actions", summary="Actions, newest first", response_model=Page[ActionSummary])
def list_all(
    caller: Reader,
    database: Database,
    paging: Paged,
    state: State | None = None,
    channel: Annotated[str | None, Query(pattern=r"^[a-z_]{1,40}$")] = None,
    customer: UUID | None = None,
    strategy: UUID | None = None,
    decision: UUID | None = None,
    held_out: bool | None = None,
) -> Any:
    (before,) = paging.after(UUID)
    values = {
        "shop": caller.shop.id, "before": before, "state": state, "channel": channel, "customer": customer,
        "strategy": strategy, "decision": decision, "held_out": held_out, "limit": paging.limit + 1,
    }  # fmt: skip
    with for_shop(database, caller.shop.id) as session:
        rows = session.execute(_LIST, values).all()
    return paging.page(rows, lambda row: ActionSummary(**row._mapping), lambda row: (row.id,))


_STATES = text("""
SELECT channel, state, held_out, count(*) AS number FROM actions WHERE shop_id = :shop
GROUP BY channel, state, held_out ORDER BY channel, held_out, state
""")

# Of actions that were due when they were planned. A delay is the rule's wish, not our slowness.
_LATENCIES = text("""
SELECT channel, count(*) AS number, percentile_cont(0.5) WITHIN GROUP (ORDER BY ms) AS p50_ms,
       percentile_cont(0.99) WITHIN GROUP (ORDER BY ms) AS p99_ms, max(ms) AS longest_ms
FROM (SELECT channel, extract(epoch FROM called_at - event_received_at)::double precision * 1000 AS ms FROM actions
      WHERE shop_id = :shop AND NOT held_out AND called_at IS NOT NULL AND event_received_at IS NOT NULL) AS calls
GROUP BY channel ORDER BY channel
""")

_WITHOUT_PERSON = text("""
SELECT avg(CAST(approved_by IS NULL AND state <> 'parked' AS integer))::double precision FROM actions
WHERE shop_id = :shop AND NOT held_out AND state IN ('sent', 'failed', 'cancelled', 'parked', 'waiting_approval')
""")


@router.get(
    "/summary",
    operation_id="summarise_actions",
    summary="Actions by state, latencies, and how many needed a person",
    response_model=ActionsSummary,
)
def summarise(caller: Reader, database: Database) -> ActionsSummary:
    values = {"shop": caller.shop.id}
    with for_shop(database, caller.shop.id) as session:
        return ActionsSummary(
            states=[StateCount(**row._mapping) for row in session.execute(_STATES, values)],
            latencies=[Latency(**row._mapping) for row in session.execute(_LATENCIES, values)],
            without_person=session.execute(_WITHOUT_PERSON, values).scalar(),
        )


_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No such action in this shop"}}
_ONE = text("SELECT * FROM actions WHERE shop_id = :shop AND id = :id")
_ATTEMPTS = text(
    "SELECT number, started_at, finished_at, outcome, detail FROM attempts"
    " WHERE shop_id = :shop AND action_id = :id ORDER BY number"
)


def _load(session: Session, shop_id: UUID, action_id: UUID) -> Action:
    values = {"shop": shop_id, "id": action_id}
    row = session.execute(_ONE, values).one_or_none()
    if row is None:
        raise NotFound(f"there is no action {action_id}")
    attempts = [Attempt(**one._mapping) for one in session.execute(_ATTEMPTS, values)]
    return Action(**row._mapping, attempts=attempts)


@router.get(
    "/{action_id}",
    operation_id="get_action",
    summary="One action with its attempts",
    response_model=Action,
    responses=_MISSING,
)
def get(action_id: UUID, caller: Reader, database: Database) -> Action:
    with for_shop(database, caller.shop.id) as session:
        return _load(session, caller.shop.id, action_id)


_CHANGES: dict[int | str, dict[str, Any]] = {
    **_MISSING,
    409: {"model": Problem, "description": "Its state forbids it, or the Idempotency-Key was used otherwise"},
}


@router.post(
    "/{action_id}/cancel",
    operation_id="cancel_action",
    summary="Call an action off",
    response_model=Action,
    responses=_CHANGES,
)
def cancel(action_id: UUID, caller: Writer, database: Database, once: Idempotent) -> Response:
    """One that may have reached somebody already is parked and not cancelled: resolve it then."""

    def work(session: Session) -> Action:
        shop = load_shop(session, caller.shop.id)
        manual.cancel(session, shop, action_id, actor=caller.actor, at=SYSTEM.now())
        return _load(session, shop.id, action_id)

    return once.run(database, caller.shop.id, work, status=200)


@router.post(
    "/{action_id}/resolve",
    operation_id="resolve_action",
    summary="Say what became of an action whose outcome is unknown",
    response_model=Action,
    responses=_CHANGES,
)
def resolve(action_id: UUID, body: Resolution, caller: Writer, database: Database, once: Idempotent) -> Response:
    """`sent` settles it; `not_sent` lets it be tried again."""

    def work(session: Session) -> Action:
        shop = load_shop(session, caller.shop.id)
        manual.resolve(session, shop, action_id, body.outcome, body.found(), actor=caller.actor, at=SYSTEM.now())
        return _load(session, shop.id, action_id)

    return once.run(database, caller.shop.id, work, status=200)


class GivenCoupon(BaseModel):
    """A code as a customer has it. Instants are shop time, but for `recalled_at`, which is system time."""

    action_id: UUID = Field(description="The action that gave it; later ones of the same offer told of it again")
    customer_id: UUID
    code: str
    offer: str | None
    pool_id: UUID | None
    discount_ref: str | None = Field(description="The shop's id of the discount")
    issued_at: datetime
    expires_at: datetime
    redeemed_at: datetime | None
    recalled_by: str | None = Field(description="Who asked to take it back")
    recalled_at: datetime | None
    recall_error: str | None = Field(description="What the shop said when it could not be done")
    deactivated_at: datetime | None = Field(description="Since when the shop does not take it any more")


_NO_COUPON: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "No such action in this shop, or one that gave no coupon"},
}


@router.get(
    "/{action_id}/coupon", operation_id="get_action_coupon", summary="The coupon that an action gave",
    response_model=GivenCoupon, responses=_NO_COUPON,
)  # fmt: skip
def get_coupon(action_id: UUID, caller: Reader, database: Database) -> GivenCoupon:
    with for_shop(database, caller.shop.id) as session:
        return GivenCoupon(**asdict(recalling.coupon_of(session, caller.shop.id, action_id)))


@router.post(
    "/{action_id}/undo", operation_id="undo_action", summary="Take back the coupon that an action gave",
    response_model=GivenCoupon, status_code=202,
    responses={
        **_NO_COUPON,
        409: {"model": Problem, "description": "It was used, has expired, or the Idempotency-Key was used otherwise"},
    },
)  # fmt: skip
def undo(action_id: UUID, caller: Writer, database: Database, once: Idempotent) -> Response:
    """The code is deactivated at the shop, and messages that would tell of it are called off; `deactivated_at` says
    when it was done. What a budget committed for it may be spent again, unless it was used. A message that has gone out
    cannot be undone."""

    def work(session: Session) -> GivenCoupon:
        shop = load_shop(session, caller.shop.id)
        return GivenCoupon(**asdict(recalling.ask(session, shop, action_id, actor=caller.actor, at=SYSTEM.now())))

    return once.run(database, caller.shop.id, work, status=202)
