"""Writing down what became of a call: compare-and-set on the claim's fence, so a late answer cannot undo a newer claim.

Sent: the budget is committed, the message's cost enters the profit ledger, a coupon becomes a row, and whatever
waited for it is woken. Provably not sent: tried again later, or failed after too many attempts. Lost: `unknown`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.kit.ids import uniform
from operation_agent.store.shops import Shop

from . import budget
from .channel import NotSent, Outcome, Sent, Unknown
from .claimed import Claimed
from .claiming import wake_followers
from .marking import Proof, mark_sent
from .states import Core, Happening, after, sources

MOST_ATTEMPTS = 8
SETTLE = timedelta(seconds=30)
"""How long an unknown outcome rests before the provider is asked: it must have had time to finish what it began."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one call gave. Times are system time; `called_at` is None when nothing left the house."""

    claimed: Claimed
    outcome: Outcome
    called_at: datetime | None
    finished_at: datetime


def back_off(dedupe_key: str, attempt: int) -> timedelta:
    """2, 4, 8 … 300 s after the first, second, third … refusal, less up to half: a reproducible jitter."""
    full = min(2.0**attempt, 300.0)
    return timedelta(seconds=full * (1 - 0.5 * uniform("back-off", dedupe_key, str(attempt))))


def record(
    session: Session, shop: Shop, provider: str, results: Sequence[Result], *, at: datetime, settle: timedelta = SETTLE
) -> int:
    """Write a batch of results; returns how many were still ours. `at` is system time."""
    by_kind: dict[type, list[Result]] = {Sent: [], NotSent: [], Unknown: []}
    for result in results:
        by_kind[type(result.outcome)].append(result)
    sent = mark_sent(session, shop, provider, "sent", _proofs(by_kind[Sent]))
    refused = _mark_refused(session, shop, provider, by_kind[NotSent], at)
    lost = _mark_unknown(session, shop, provider, by_kind[Unknown], at, settle)
    _close_attempts(session, shop.id, results)
    close(session, shop.id, sent=sent, failed=[id_ for id_, state in refused if state == "failed"], at=at)
    return len(sent) + len(refused) + len(lost)


def _proofs(results: Sequence[Result]) -> list[Proof]:
    return [
        Proof(
            result.claimed.id,
            result.claimed.fence,
            result.outcome.provider_ref,
            result.outcome.result,
            result.claimed.moment,
            result.called_at,
        )
        for result in results
        if isinstance(result.outcome, Sent)
    ]


def settle_sent(
    session: Session, shop: Shop, provider: str, happening: Happening, proofs: Sequence[Proof], *, at: datetime
) -> int:
    """These were done, and everything that follows from it; returns how many were not known as sent before."""
    sent = mark_sent(session, shop, provider, happening, proofs)
    close(session, shop.id, sent=sent, failed=(), at=at)
    return len(sent)


def close(session: Session, shop_id: UUID, *, sent: Sequence[UUID], failed: Sequence[UUID], at: datetime) -> None:
    """What the end of actions sets free: money is spent or given back, and who waited for them is woken.

    Once in a transaction, after the actions are marked: that is the order of locks (`budget`).
    """
    budget.finish(session, shop_id, commit=sent, release=failed, at=at)
    wake_followers(session, shop_id, [*sent, *failed], at=at)


_REFUSED = """
UPDATE actions a SET state = r.state, reason = r.reason, provider = :provider, retry_at = r.retry_at,
  lease_until = NULL, maybe_sent = a.maybe_sent OR r.maybe_sent, called_at = COALESCE(a.called_at, r.called_at)
FROM unnest(CAST(:ids AS uuid[]), CAST(:fences AS bigint[]), CAST(:states AS text[]), CAST(:reasons AS text[]),
  CAST(:retries AS timestamptz[]), CAST(:maybe AS boolean[]), CAST(:called AS timestamptz[]))
  AS r (id, fence, state, reason, retry_at, maybe_sent, called_at)
WHERE a.shop_id = :shop AND a.id = r.id AND a.fence = r.fence AND a.state = ANY(:sources)
RETURNING a.id, a.state
"""


def _write(
    session: Session,
    shop: Shop,
    provider: str,
    from_states: Sequence[str],
    results: Sequence[Result],
    plan: Callable[[Result], tuple[str, str, datetime | None, bool]],
) -> list[tuple[UUID, str]]:
    """`plan` gives state, reason, retry_at and maybe_sent of each result; returns (id, state) of those still ours."""
    if not results:
        return []
    states, reasons, retries, maybe = zip(*(plan(result) for result in results), strict=True)
    rows = session.execute(
        text(_REFUSED),
        {
            "shop": shop.id,
            "provider": provider,
            "sources": list(from_states),
            "ids": [result.claimed.id for result in results],
            "fences": [result.claimed.fence for result in results],
            "states": list(states),
            "reasons": list(reasons),
            "retries": list(retries),
            "maybe": list(maybe),
            "called": [result.called_at for result in results],
        },
    )
    return [(row.id, row.state) for row in rows]


def _mark_refused(
    session: Session, shop: Shop, provider: str, results: Sequence[Result], at: datetime
) -> list[tuple[UUID, str]]:
    def plan(result: Result) -> tuple[str, str, datetime | None, bool]:
        refusal, claimed = result.outcome, result.claimed
        assert isinstance(refusal, NotSent)
        core = Core("sending", claimed.fence, claimed.attempt, claimed.maybe_sent)
        if refusal.permanent:
            return after(core, "failed").state, refusal.reason, None, False
        if claimed.attempt >= MOST_ATTEMPTS and not (refusal.is_provider_down or refusal.problem):
            reason = f"gave up after {claimed.attempt} attempts: {refusal.reason}"
            return after(core, "failed").state, reason, None, False
        if refusal.problem is not None:  # no waiting beyond it: nothing is claimed until it is cleared
            return "ready", refusal.reason, at, False
        wait = max(back_off(claimed.dedupe_key, claimed.attempt), refusal.retry_after or timedelta(0))
        return "ready", refusal.reason, at + wait, False

    return _write(session, shop, provider, sources("refused"), results, plan)


def _mark_unknown(
    session: Session, shop: Shop, provider: str, results: Sequence[Result], at: datetime, settle: timedelta
) -> list[tuple[UUID, str]]:
    def plan(result: Result) -> tuple[str, str, datetime | None, bool]:
        assert isinstance(result.outcome, Unknown)
        return "unknown", result.outcome.reason, at + settle, True

    return _write(session, shop, provider, sources("lost"), results, plan)


def _close_attempts(session: Session, shop_id: UUID, results: Sequence[Result]) -> None:
    names: dict[type, str] = {Sent: "sent", NotSent: "not_sent", Unknown: "unknown"}
    details = [getattr(result.outcome, "reason", None) for result in results]
    session.execute(
        text(
            """
            UPDATE attempts t SET finished_at = r.finished_at, outcome = r.outcome, detail = r.detail
            FROM unnest(CAST(:ids AS uuid[]), CAST(:numbers AS smallint[]), CAST(:finished AS timestamptz[]),
              CAST(:outcomes AS text[]), CAST(:details AS text[])) AS r (id, number, finished_at, outcome, detail)
            WHERE t.shop_id = :shop AND t.action_id = r.id AND t.number = r.number AND t.finished_at IS NULL
            """
        ),
        {
            "shop": shop_id,
            "ids": [result.claimed.id for result in results],
            "numbers": [result.claimed.attempt for result in results],
            "finished": [result.finished_at for result in results],
            "outcomes": [names[type(result.outcome)] for result in results],
            "details": details,
        },
    )
