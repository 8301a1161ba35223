"""What a person may do to one action: call it off, or say what became of it when nobody else can tell."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.kit.errors import Conflict, NotFound
from operation_agent.store import audit, outbox
from operation_agent.store.shops import Shop
from rules import offer

from . import budget
from .claiming import TOPIC, wake_followers
from .marking import Proof
from .recording import settle_sent
from .situations import moment_of
from .states import Core, after, money

Finding = Literal["sent", "not_sent"]
_UNSETTLED = ("unknown", "parked")


def cancel(session: Session, shop: Shop, action_id: UUID, *, actor: str, at: datetime) -> str:
    """Call an action off; returns its state then: `parked` when an earlier attempt may have reached somebody.

    `at` is system time. Raises NotFound, or Conflict when it is too late.
    """
    row = _locked(session, shop.id, action_id)
    target = after(_core(row), "cancelled").state
    session.execute(
        text(
            "UPDATE actions SET state = :state, reason = :reason, retry_at = NULL, lease_until = NULL"
            " WHERE shop_id = :shop AND id = :id"
        ),
        {"state": target, "reason": f"called off by {actor}", "shop": shop.id, "id": action_id},
    )
    if money(target) is not None:
        budget.finish(session, shop.id, release=[action_id], at=at)
        wake_followers(session, shop.id, [action_id], at=at)
    _record(session, shop.id, row, "action.cancelled", target, actor=actor, at=at)
    return target


def resolve(
    session: Session, shop: Shop, action_id: UUID, finding: Finding, result: dict[str, Any], *, actor: str, at: datetime
) -> str:
    """Settle an action whose outcome is unknown by what a person found out; returns its new state.

    `sent`: it was done, and everything that follows from that happens; `result` adds what the provider made of it (a
    coupon's `code` and `expires_at`, and `percent` where it is another than asked for). `not_sent`: it was not, and it
    will be tried again. `at` is system time. Raises NotFound, or Conflict when its outcome is known or, for a coupon,
    not complete.
    """
    row = _locked(session, shop.id, action_id)
    if row.state not in _UNSETTLED:
        raise Conflict(f"this action is {row.state}: only one that is unknown or parked can be resolved", code="state")
    if finding == "sent":
        known = {**row.result, **result}
        if row.channel == "coupon":
            known = _coupon(row.parameters, known)
        sent_at = row.claimed_at or moment_of(shop, row.due_at, at + shop.clock_offset)
        proof = Proof(action_id, None, row.provider_ref, known, sent_at, row.called_at)
        settle_sent(session, shop, row.provider or "person", "found", [proof], at=at)
    else:
        _try_again(session, shop.id, row, at)
    target = after(_core(row), "found" if finding == "sent" else "absent").state
    _record(session, shop.id, row, "action.resolved", target, actor=actor, at=at)
    return target


def _coupon(parameters: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """What the coupon that a person found is worth: as it was asked for, or in the percent that they name."""
    if not {"code", "expires_at"} <= known.keys():
        raise Conflict("say which coupon it became: code and expires_at", where="coupon")
    terms = offer.terms_of(parameters)
    percent = known.get("percent", terms.get("percent"))
    if percent is None:
        return {**known, "terms": terms}
    percent = float(percent)
    return {**known, "percent": percent, "terms": {**terms, "percent": percent} if "percent" in terms else terms}


def _locked(session: Session, shop_id: UUID, action_id: UUID) -> Row[Any]:
    row = session.execute(
        text("SELECT * FROM actions WHERE shop_id = :shop AND id = :id FOR UPDATE"), {"shop": shop_id, "id": action_id}
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no action {action_id}")
    return row


def _core(row: Row[Any]) -> Core:
    return Core(row.state, row.fence, row.attempt, row.maybe_sent)


def _try_again(session: Session, shop_id: UUID, row: Row[Any], at: datetime) -> None:
    """A new fence too: a late answer to the old claim is not the answer to the next one."""
    session.execute(
        text(
            "UPDATE actions SET state = 'ready', maybe_sent = false, fence = fence + 1, retry_at = NULL, reason = NULL"
            " WHERE shop_id = :shop AND id = :id"
        ),
        {"shop": shop_id, "id": row.id},
    )
    outbox.ring(session, shop_id, [(TOPIC, row.channel)], at=at)


def _record(session: Session, shop_id: UUID, row: Row[Any], verb: str, to: str, *, actor: str, at: datetime) -> None:
    audit.record(
        session,
        shop_id,
        at=at,
        actor=actor,
        verb=verb,
        subject=f"action:{row.id}",
        detail={"from": row.state, "to": to},
    )
