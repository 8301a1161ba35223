"""Filling code pools, one call after the other: make the discount, ask for codes in batches, ask what became of them.

A pool's codes follow from its id and their number, so whoever goes on after a crash asks for the same ones, and what
the shop has already is recognised by the discount it belongs to. `next_step` says what is to be called next, and the
others write down what came of it; the calling is done by `workers/code_pools.py`, outside any transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.store import audit
from operation_agent.store.shops import Shop

from . import budget
from .channel import NewDiscount
from .code_pools import Pool, State, load, wake_waiting
from .rendering import coupon_code

BATCH = 250
"""As many codes as one call takes."""


# -- what is next -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Make:
    """Make the discount, with the first code."""

    wanted: NewDiscount
    number: int


@dataclass(frozen=True, slots=True)
class Add:
    discount_ref: str
    codes: Mapping[str, int]  # code -> its number


@dataclass(frozen=True, slots=True)
class Check:
    """Ask what became of a batch."""

    discount_ref: str
    batch_ref: str
    codes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Deactivate:
    discount_ref: str


Step = Make | Add | Check | Deactivate


def next_step(session: Session, shop: Shop, pool_id: UUID, *, at: datetime) -> Step | None:
    """What is to be called next for a pool, after writing down which codes it needs; None: nothing. `at` is system
    time."""
    pool = load(session, shop.id, pool_id, lock=True)
    if pool.state == "failed":
        return None
    if pool.state == "closed":
        return Deactivate(pool.discount_ref) if pool.discount_ref and pool.deactivated_at is None else None
    _plan(session, shop, pool, at)
    rows = session.execute(
        text(
            "SELECT number, code, batch_ref FROM pool_codes WHERE shop_id = :shop AND pool_id = :pool AND NOT is_made"
            " AND refused IS NULL ORDER BY batch_ref NULLS LAST, number LIMIT :limit"
        ),
        {"shop": shop.id, "pool": pool_id, "limit": BATCH},
    ).all()
    if not rows:
        _rest(session, shop, pool, at)
        return None
    if pool.discount_ref is None:
        title = f"Code pool {pool.name} {pool.id.hex[-6:]}"
        return Make(NewDiscount(title, rows[0].code, pool.terms, pool.starts_at, pool.ends_at), rows[0].number)
    batch = rows[0].batch_ref
    codes = {row.code: row.number for row in rows if row.batch_ref == batch}
    return Add(pool.discount_ref, codes) if batch is None else Check(pool.discount_ref, batch, codes)


_NEEDED = """
SELECT count(*) FILTER (WHERE is_made AND given_at IS NULL) AS free,
  count(*) FILTER (WHERE NOT is_made AND refused IS NULL) AS coming, COALESCE(max(number), -1) AS last
FROM pool_codes WHERE shop_id = :shop AND pool_id = :pool
"""


def _plan(session: Session, shop: Shop, pool: Pool, at: datetime) -> None:
    """Write down the codes that are missing: up to its size at first, and again whenever fewer than low water are
    free."""
    values = {"shop": shop.id, "pool": pool.id}
    known = session.execute(text(_NEEDED), values).one()
    is_over = pool.ends_at is not None and pool.ends_at <= at + shop.clock_offset
    wants = not is_over and (pool.state in ("asked", "filling") or known.free < pool.low_water)
    missing = pool.size - known.free - known.coming if wants else 0
    numbers = list(range(known.last + 1, known.last + 1 + max(missing, 0)))
    if numbers:
        session.execute(
            text(
                "INSERT INTO pool_codes (shop_id, pool_id, number, code) SELECT :shop, :pool, r.number, r.code"
                " FROM unnest(CAST(:numbers AS integer[]), CAST(:codes AS text[])) AS r (number, code)"
            ),
            {**values, "numbers": numbers, "codes": [code_of(shop, pool.id, number) for number in numbers]},
        )
    if wants or known.coming:
        _set(session, shop.id, pool.id, at, state="filling")


def code_of(shop: Shop, pool_id: UUID, number: int) -> str:
    """A pool's code of that number: the same for ever."""
    return coupon_code(shop.seed, "pool", str(pool_id), str(number))


def _rest(session: Session, shop: Shop, pool: Pool, at: datetime) -> None:
    _set(session, shop.id, pool.id, at, state="ready")
    wake_waiting(session, shop, pool, at)


_SET = "UPDATE code_pools SET state = COALESCE(:state, state), discount_ref = COALESCE(:ref, discount_ref),"
_SET += " error = :error, retry_at = :retry, updated_at = :at WHERE shop_id = :shop AND id = :id"


def _set(
    session: Session, shop_id: UUID, pool_id: UUID, at: datetime, *, state: State | None = None,
    ref: str | None = None, error: str | None = None, retry: datetime | None = None,
) -> None:  # fmt: skip
    values = {"shop": shop_id, "id": pool_id, "at": at, "state": state, "ref": ref, "error": error, "retry": retry}
    session.execute(text(_SET), values)


# -- what came of it --------------------------------------------------------------------------------------------------


def made(session: Session, shop: Shop, pool_id: UUID, step: Make, discount_ref: str, *, at: datetime) -> None:
    """The discount is there, and its first code with it."""
    _set(session, shop.id, pool_id, at, ref=discount_ref)
    settled(session, shop, pool_id, made=[step.number], refused={}, at=at)


def added(session: Session, shop: Shop, pool_id: UUID, step: Add, batch_ref: str, *, at: datetime) -> None:
    """The shop has taken the batch."""
    _of_numbers(session, shop.id, pool_id, "batch_ref = :ref", list(step.codes.values()), ref=batch_ref)
    _set(session, shop.id, pool_id, at)


def settled(
    session: Session, shop: Shop, pool_id: UUID, *, made: Sequence[int], refused: Mapping[int, str],
    again: Sequence[int] = (), at: datetime,
) -> None:  # fmt: skip
    """Of these numbers the shop has the codes, or never will (others take their place), or is to be asked again."""
    _of_numbers(session, shop.id, pool_id, "is_made = true", made)
    _of_numbers(session, shop.id, pool_id, "batch_ref = NULL", again)
    for number, reason in refused.items():
        _of_numbers(session, shop.id, pool_id, "refused = :why", [number], why=reason[:300])
    _set(session, shop.id, pool_id, at)
    if made:
        wake_waiting(session, shop, load(session, shop.id, pool_id), at)


def _of_numbers(
    session: Session, shop_id: UUID, pool_id: UUID, change: str, numbers: Sequence[int], **more: Any
) -> None:
    if numbers:
        session.execute(
            text(
                f"UPDATE pool_codes SET {change} WHERE shop_id = :shop AND pool_id = :pool"  # noqa: S608 - of ours
                " AND number = ANY(CAST(:numbers AS integer[])) AND NOT is_made"
            ),
            {"shop": shop_id, "pool": pool_id, "numbers": list(numbers), **more},
        )


_USED = """
UPDATE coupons SET deactivated_at = CASE WHEN redeemed_at IS NULL THEN :now END
WHERE shop_id = :shop AND pool_id = :id AND deactivated_at IS NULL
RETURNING action_id, redeemed_at
"""


def deactivated(session: Session, shop: Shop, pool_id: UUID, *, used: int, at: datetime) -> int:
    """The shop takes none of its codes any more; `used` is how often they were, as the shop told.

    When that is no more than we know of, the others were not used, and what was committed for them may be spent again.
    Returns the minor units of that. `at` is system time.
    """
    pool = load(session, shop.id, pool_id, lock=True)
    values = {"shop": shop.id, "id": pool_id, "now": at + shop.clock_offset}
    given = session.execute(text(_USED), values).all()
    unused = [row.action_id for row in given if row.redeemed_at is None]
    session.execute(
        text(
            "UPDATE code_pools SET deactivated_at = :at, error = NULL, retry_at = NULL, updated_at = :at"
            " WHERE shop_id = :shop AND id = :id"
        ),
        {"shop": shop.id, "id": pool_id, "at": at},
    )
    returned = budget.give_back(session, shop.id, unused, at=at) if used <= len(given) - len(unused) else 0
    audit.record(
        session, shop.id, at=at, actor="agent", verb="code_pool.deactivated", subject=f"code_pool:{pool.name}",
        detail={"id": pool_id, "used": used, "unused": len(unused), "returned_minor": returned},
    )  # fmt: skip
    return returned


def postpone(session: Session, shop_id: UUID, pool_id: UUID, why: str, *, until: datetime, at: datetime) -> None:
    """The shop could not be asked; try again then. Both are system time."""
    _set(session, shop_id, pool_id, at, error=why[:300], retry=until)


def fail(session: Session, shop: Shop, pool_id: UUID, why: str, *, at: datetime) -> None:
    """The shop will never make such a discount: a person must close the pool and ask for another one."""
    pool = load(session, shop.id, pool_id, lock=True)
    state: State | None = "failed" if pool.state != "closed" else None
    until = None if state else at + timedelta(hours=1)
    _set(session, shop.id, pool_id, at, state=state, error=why[:300], retry=until)
    audit.record(
        session, shop.id, at=at, actor="agent", verb="code_pool.failed", subject=f"code_pool:{pool.name}",
        detail={"id": pool_id, "why": why[:300]},
    )  # fmt: skip
