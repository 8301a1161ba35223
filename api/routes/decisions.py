"""Decisions: what was chosen for whom, and why; and why nothing was done."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Response
from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.orm import Session

from api.dependencies import Database, Requires
from api.errors import Problem
from api.idempotency import Idempotent
from api.pagination import Page, Paged
from operation_agent.access.principal import Principal
from operation_agent.decision import archive
from operation_agent.decision.explain import explain, tell_actions
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop

router = APIRouter(prefix="/api/decisions", tags=["decisions"])

Reader = Annotated[Principal, Depends(Requires("decisions:read"))]
Locale = Literal["en", "zh"]
LOCALES: tuple[Locale, ...] = ("en", "zh")
Verdict = Literal[
    "act", "holdout", "nothing", "already_enrolled", "excluded", "no_address", "suppressed", "no_consent",
    "cooling_down", "capped", "quiet", "coupon_limit", "daily_limit", "over_budget",
]  # fmt: skip
MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No such decision in this shop"}}


class DecisionSummary(BaseModel):
    """`decided_at` is shop time (the event's own, or the schedule's), `recorded_at` system time."""

    id: UUID
    customer_id: UUID
    strategy_id: UUID
    rule_id: UUID
    rule_version: int
    trigger: str
    event_id: UUID | None
    verdict: str
    arm: str | None
    propensity: float | None = Field(description="Of this arm, or of being left alone, given that it came to the draw")
    decided_at: datetime
    recorded_at: datetime


class Explanation(BaseModel):
    locale: Locale
    sentences: list[str]


class CausedAction(BaseModel):
    """An action that the decision led to. `due_at` and `sent_at` are shop time."""

    id: UUID
    step: int
    type: str
    channel: str
    held_out: bool = Field(description="Walks the same way into the trap, never to a provider")
    state: str
    reason: str | None
    due_at: datetime
    sent_at: datetime | None
    attempt: int
    run_id: UUID | None


class Decision(DecisionSummary):
    receipt: dict[str, Any] = Field(
        description="Everything that led to it, so that it can be recomputed; `cause` and `actions` say what set it off"
        " and what came of it"
    )
    explanation: Explanation
    actions: list[CausedAction]


class Difference(BaseModel):
    what: str = Field(description="`condition`, `score`, `guardrails.<name>`, `side`, `draws`, `arm`, …")
    recorded: Any
    recomputed: Any


class Replay(BaseModel):
    same: bool
    differences: list[Difference]
    verdict: str = Field(description="As it comes out now")
    arm: str | None
    propensity: float | None


class VerdictCount(BaseModel):
    strategy_id: UUID
    strategy: str
    verdict: str
    number: int


_LIST = text("""
SELECT id, customer_id, strategy_id, rule_id, rule_version, trigger, event_id, verdict, arm, propensity, decided_at,
       recorded_at
FROM decisions
WHERE shop_id = :shop AND (CAST(:before AS uuid) IS NULL OR id < CAST(:before AS uuid))
  AND (CAST(:customer AS uuid) IS NULL OR customer_id = CAST(:customer AS uuid))
  AND (CAST(:strategy AS uuid) IS NULL OR strategy_id = CAST(:strategy AS uuid))
  AND (CAST(:verdict AS text) IS NULL OR verdict = CAST(:verdict AS text))
ORDER BY id DESC LIMIT :limit
""")


@router.get("", operation_id="list_decisions", summary="Decisions, newest first", response_model=Page[DecisionSummary])
def list_all(
    caller: Reader,
    database: Database,
    paging: Paged,
    customer: UUID | None = None,
    strategy: UUID | None = None,
    verdict: Verdict | None = None,
) -> Any:
    (before,) = paging.after(UUID)
    values = {
        "shop": caller.shop.id, "before": before, "customer": customer, "strategy": strategy, "verdict": verdict,
        "limit": paging.limit + 1,
    }  # fmt: skip
    with for_shop(database, caller.shop.id) as session:
        rows = session.execute(_LIST, values).all()
    return paging.page(rows, lambda row: DecisionSummary(**row._mapping), lambda row: (row.id,))


_SUMMARY = text("""
SELECT d.strategy_id, s.key AS strategy, d.verdict, count(*) AS number
FROM decisions AS d JOIN strategies AS s ON s.shop_id = d.shop_id AND s.id = d.strategy_id
WHERE d.shop_id = :shop GROUP BY d.strategy_id, s.key, d.verdict ORDER BY s.key, number DESC, d.verdict
""")


@router.get(
    "/summary",
    operation_id="summarise_decisions",
    summary="How many decisions of each verdict, by strategy",
    response_model=list[VerdictCount],
)
def summarise(caller: Reader, database: Database) -> list[VerdictCount]:
    with for_shop(database, caller.shop.id) as session:
        return [VerdictCount(**row._mapping) for row in session.execute(_SUMMARY, {"shop": caller.shop.id})]


def preferred(accepted: str | None) -> Locale:
    """The first of our languages in an Accept-Language header, by weight; English when there is none."""
    ranked = []
    for position, part in enumerate((accepted or "")[:1000].split(",")):
        tag, _, weight = part.partition(";")
        try:
            quality = float(weight.strip().removeprefix("q=") or 1)
        except ValueError:
            quality = 0.0
        ranked.append((-quality, position, tag.strip().lower().split("-")[0]))
    for negative, _, language in sorted(ranked):
        for locale in LOCALES:
            if language == locale and negative < 0:
                return locale
    return "en"


@router.get(
    "/{decision_id}",
    operation_id="get_decision",
    summary="One decision with its receipt, explained",
    response_model=Decision,
    responses=MISSING,
)
def get(
    decision_id: UUID,
    caller: Reader,
    database: Database,
    locale: Annotated[Locale | None, Query(description="Of the explanation; otherwise Accept-Language decides")] = None,
    accept_language: Annotated[str | None, Header()] = None,
) -> Decision:
    with for_shop(database, caller.shop.id) as session:
        found = archive.find(session, caller.shop.id, decision_id)
        actions = archive.actions_of(session, caller.shop.id, decision_id)
    language = locale or preferred(accept_language)
    receipt = found.receipt
    told = [*explain(receipt, language), *tell_actions(actions, language)]
    return Decision(
        **{**found.row, "receipt": receipt},
        explanation=Explanation(locale=language, sentences=told),
        actions=[CausedAction(**one) for one in actions],
    )


@router.post(
    "/{decision_id}/replay",
    operation_id="replay_decision",
    summary="Recompute a decision from its receipt",
    response_model=Replay,
    responses={**MISSING, 409: {"model": Problem, "description": "The Idempotency-Key was used for another request"}},
)
def replay(decision_id: UUID, caller: Reader, database: Database, once: Idempotent) -> Response:
    """The condition over the values seen, the guardrails over what they were given, the draws from the shop's seed:
    says whether the same comes out, and if not, what differs."""

    def work(session: Session) -> Replay:
        found = archive.again(session, load_shop(session, caller.shop.id), decision_id)
        differences = [Difference(what=one.what, recorded=one.recorded, recomputed=one.recomputed)
                       for one in found.differences]  # fmt: skip
        return Replay(
            same=found.is_same, differences=differences, verdict=found.verdict, arm=found.arm,
            propensity=found.propensity,
        )  # fmt: skip

    return once.run(database, caller.shop.id, work, status=200)
