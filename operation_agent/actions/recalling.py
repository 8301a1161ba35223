"""Taking a coupon back: its code cannot be used from then on, and what was committed for it may be spent otherwise.

Asked for here, done at the shop system by `workers/code_pools.py`, and written down here. What a budget committed for a
coupon stays spent when it merely expires: nobody knows before whether it will be used. One that was taken back unused,
as far as the shop has counted, cannot cost anything any more, and its money is there again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.kit.errors import Conflict, NotFound
from operation_agent.store import audit, outbox
from operation_agent.store.shops import Shop

from . import budget

RECALL = "coupons.recall"


@dataclass(frozen=True, slots=True)
class Coupon:
    """A code as it was given. `action_id`: of the action that gave it first. Instants are shop time, but for
    `recalled_at`."""

    action_id: UUID
    customer_id: UUID
    code: str
    offer: str | None
    pool_id: UUID | None
    discount_ref: str | None
    issued_at: datetime
    expires_at: datetime
    redeemed_at: datetime | None
    recalled_by: str | None
    recalled_at: datetime | None
    recall_error: str | None
    deactivated_at: datetime | None


_ONE = """
SELECT c.action_id, c.customer_id, c.code, c.offer, c.pool_id, COALESCE(c.discount_ref, f.provider_ref) AS discount_ref,
  c.issued_at, c.expires_at, c.redeemed_at, c.recalled_by, c.recalled_at, c.recall_error, c.deactivated_at
FROM actions a
JOIN coupons c ON c.shop_id = a.shop_id AND c.action_id = COALESCE((a.result ->> 'first_action')::uuid, a.id)
JOIN actions f ON f.shop_id = c.shop_id AND f.id = c.action_id
WHERE a.shop_id = :shop AND a.id = :id
"""


def coupon_of(session: Session, shop_id: UUID, action_id: UUID, *, lock: bool = False) -> Coupon:
    """The coupon that an action gave, or told of again. Raises NotFound."""
    statement = text(_ONE + (" FOR UPDATE OF f, c" if lock else ""))
    row = session.execute(statement, {"shop": shop_id, "id": action_id}).one_or_none()
    if row is None:
        raise NotFound(f"action {action_id} gave no coupon")
    return Coupon(**row._mapping)


def ask(session: Session, shop: Shop, action_id: UUID, *, actor: str, at: datetime) -> Coupon:
    """Take back the coupon that an action gave; messages that would tell of it are called off. `at` is system time.

    Asked for again, it is tried again. Raises NotFound, or Conflict when it was used, or is over.
    """
    coupon = coupon_of(session, shop.id, action_id, lock=True)
    if coupon.redeemed_at is not None:
        raise Conflict("this coupon was used: there is nothing left to take back", code="redeemed")
    if coupon.expires_at <= at + shop.clock_offset:
        raise Conflict("this coupon has expired by itself", code="expired")
    if coupon.discount_ref is None:
        raise Conflict("the shop's id of this coupon is not known; end it there", code="no_discount")
    if coupon.deactivated_at is not None:
        return coupon
    session.execute(
        text(
            "UPDATE coupons SET recalled_by = COALESCE(recalled_by, :actor), recalled_at = COALESCE(recalled_at, :at),"
            " recall_retry_at = :at, recall_error = NULL WHERE shop_id = :shop AND action_id = :id"
        ),
        {"shop": shop.id, "id": coupon.action_id, "actor": actor, "at": at},
    )
    _call_off(session, shop.id, coupon, actor=actor, at=at)
    outbox.ring(session, shop.id, [(RECALL, str(coupon.action_id))], at=at)
    audit.record(
        session, shop.id, at=at, actor=actor, verb="coupon.recall_asked", subject=f"action:{coupon.action_id}",
        detail={"code": coupon.code},
    )  # fmt: skip
    return coupon_of(session, shop.id, coupon.action_id)


_CALL_OFF = """
UPDATE actions m SET state = 'cancelled', reason = :reason, retry_at = NULL
FROM actions a
WHERE m.shop_id = :shop AND m.state IN ('ready', 'waiting_approval') AND NOT m.maybe_sent AND a.shop_id = :shop
  AND a.id = m.after_action AND (a.id = :id OR a.result ->> 'first_action' = CAST(:id AS text))
RETURNING m.id
"""


def _call_off(session: Session, shop_id: UUID, coupon: Coupon, *, actor: str, at: datetime) -> None:
    values = {"shop": shop_id, "id": coupon.action_id, "reason": f"the coupon was taken back by {actor}"}
    ended = list(session.execute(text(_CALL_OFF), values).scalars())
    budget.finish(session, shop_id, release=ended, at=at)


_DUE = """
SELECT action_id FROM coupons WHERE shop_id = :shop AND recalled_at IS NOT NULL AND deactivated_at IS NULL
  AND recall_retry_at <= :at
"""


def due(session: Session, shop_id: UUID, *, at: datetime) -> list[tuple[str, str]]:
    """Wake-ups of coupons that are to be taken back, and are not yet. `at` is system time."""
    return [(RECALL, str(found)) for found in session.execute(text(_DUE), {"shop": shop_id, "at": at}).scalars()]


def postpone(session: Session, shop_id: UUID, action_id: UUID, why: str, *, until: datetime | None) -> None:
    """The shop could not be asked, and will be then (system time); None: it refuses, and a person must look."""
    session.execute(
        text(
            "UPDATE coupons SET recall_error = :why, recall_retry_at = :until"
            " WHERE shop_id = :shop AND action_id = :id AND deactivated_at IS NULL"
        ),
        {"shop": shop_id, "id": action_id, "why": why[:300], "until": until},
    )


def done(session: Session, shop: Shop, action_id: UUID, *, used: int, at: datetime) -> int:
    """The shop takes the code no more; `used` is how often it was, as the shop told. Returns the minor units that may
    be spent again. `at` is system time."""
    coupon = coupon_of(session, shop.id, action_id, lock=True)
    if coupon.deactivated_at is not None:
        return 0
    session.execute(
        text(
            "UPDATE coupons SET deactivated_at = :now, recall_error = NULL, recall_retry_at = NULL"
            " WHERE shop_id = :shop AND action_id = :id"
        ),
        {"shop": shop.id, "id": action_id, "now": at + shop.clock_offset},
    )
    returned = 0 if used or coupon.redeemed_at else budget.give_back(session, shop.id, [action_id], at=at)
    audit.record(
        session, shop.id, at=at, actor="agent", verb="coupon.recalled", subject=f"action:{action_id}",
        detail={"code": coupon.code, "asked_by": coupon.recalled_by, "used": used, "returned_minor": returned},
    )  # fmt: skip
    return returned
