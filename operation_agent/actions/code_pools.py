"""Code pools: codes made ahead, all of one discount at the shop system, given out one to a customer (`coupon_codes`).

Here is what a person does with them and sees of them; `pool_filling` says what is to be called at the shop system.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import orjson
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.kit.errors import Conflict, NotFound, Rejected
from operation_agent.kit.ids import new_id
from operation_agent.store import audit, outbox
from operation_agent.store.shops import Shop
from rules import offer
from rules.errors import RuleError
from rules.tree import Node

from .claiming import TOPIC
from .coupon_codes import FILL

LARGEST = 100_000
PATIENCE = timedelta(seconds=30)
"""How long whoever fills a pool may be silent before somebody else is woken."""

State = Literal["asked", "filling", "ready", "failed", "closed"]


@dataclass(frozen=True, slots=True)
class Pool:
    """`starts_at`, `ends_at` are shop time; `terms` as `rules.offer.read_terms` gives them."""

    id: UUID
    name: str
    vendor: str
    terms: Mapping[str, Any]
    discount_ref: str | None
    size: int
    low_water: int
    state: State
    error: str | None
    starts_at: datetime
    ends_at: datetime | None
    closed_by: str | None
    deactivated_at: datetime | None
    actor: str
    created_at: datetime
    updated_at: datetime


_COLUMNS = ", ".join(Pool.__dataclass_fields__)


# -- what a person does -----------------------------------------------------------------------------------------------


def create(
    session: Session, shop: Shop, *, name: str, terms: Mapping[str, Any], size: int, low_water: int,
    ends_at: datetime | None, actor: str, at: datetime,
) -> Pool:  # fmt: skip
    """Ask for a pool; its codes are made from now on. `ends_at` is shop time, `at` system time.

    Raises Rejected with the path of a term that does not read, Conflict for a name that is in use, or while no shop
    system is connected.
    """
    read, key = _terms(terms), _key(name)
    starts_at = at + shop.clock_offset
    if ends_at is not None and ends_at <= starts_at:
        raise Rejected("lies in the past; the codes could never be used", where="ends_at")
    if not 1 <= size <= LARGEST or not 0 <= low_water <= size:
        raise Rejected(f"a pool holds 1 to {LARGEST} codes, and is filled up below at most its size", where="size")
    vendor = session.execute(
        text("SELECT vendor FROM integrations WHERE shop_id = :shop AND channel = 'coupon' AND enabled"),
        {"shop": shop.id},
    ).scalar()
    if vendor is None:
        raise Conflict("no shop system is connected that could make codes; connect one first", code="no_integration")
    pool_id = new_id()
    values = {
        "shop": shop.id, "id": pool_id, "name": key, "vendor": vendor, "terms": orjson.dumps(read).decode(),
        "size": size, "low": low_water, "starts": starts_at, "ends": ends_at, "actor": actor, "at": at,
    }  # fmt: skip
    made = session.execute(text(_CREATE), values).one_or_none()
    if made is None:
        raise Conflict(f"there is a code pool {key!r} already; close it first", where="name")
    audit.record(
        session, shop.id, at=at, actor=actor, verb="code_pool.created", subject=f"code_pool:{key}",
        detail={"id": pool_id, "terms": read, "size": size, "low_water": low_water, "ends_at": ends_at},
    )  # fmt: skip
    outbox.ring(session, shop.id, [(FILL, str(pool_id))], at=at)
    return load(session, shop.id, pool_id)


_CREATE = """
INSERT INTO code_pools (shop_id, id, name, vendor, terms, size, low_water, state, starts_at, ends_at, actor, created_at,
  updated_at)
VALUES (:shop, :id, :name, :vendor, CAST(:terms AS jsonb), :size, :low, 'asked', :starts, :ends, :actor, :at, :at)
ON CONFLICT DO NOTHING RETURNING id
"""


def _terms(given: Mapping[str, Any]) -> dict[str, Any]:
    node = Node(dict(given), "terms")
    try:
        node.mapping(*offer.TERMS)
        found = offer.read_terms(node)
        if "eligible" in found:
            raise node.need("eligible").fail("the codes are made before anybody is known who gets one")
    except RuleError as error:
        raise Rejected(error.reason, where=error.where) from None
    return found


def _key(name: str) -> str:
    try:
        return Node(name, "name").key()
    except RuleError as error:
        raise Rejected(error.reason, where=error.where) from None


def close(session: Session, shop: Shop, pool_id: UUID, *, actor: str, at: datetime) -> Pool:
    """No code of it is given any more, and those that were cannot be used once the shop has been told. Again: nothing.

    `at` is system time. Raises NotFound.
    """
    pool = load(session, shop.id, pool_id, lock=True)
    if pool.state != "closed":
        session.execute(
            text(
                "UPDATE code_pools SET state = 'closed', closed_by = :actor, error = NULL, retry_at = NULL,"
                " updated_at = :at WHERE shop_id = :shop AND id = :id"
            ),
            {"shop": shop.id, "id": pool_id, "actor": actor, "at": at},
        )
        audit.record(
            session, shop.id, at=at, actor=actor, verb="code_pool.closed", subject=f"code_pool:{pool.name}",
            detail={"id": pool_id},
        )  # fmt: skip
        wake_waiting(session, shop, pool, at)
        outbox.ring(session, shop.id, [(FILL, str(pool_id))], at=at)
    return load(session, shop.id, pool_id)


def load(session: Session, shop_id: UUID, pool_id: UUID, *, lock: bool = False) -> Pool:
    """Raises NotFound."""
    row = session.execute(
        text(
            f"SELECT {_COLUMNS} FROM code_pools WHERE shop_id = :shop AND id = :id"  # noqa: S608
            + (" FOR UPDATE" if lock else "")
        ),
        {"shop": shop_id, "id": pool_id},
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no code pool {pool_id}")
    return _pool(row)


def _pool(row: Row[Any]) -> Pool:
    return Pool(**{name: getattr(row, name) for name in Pool.__dataclass_fields__})


# -- what is looked at ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stock:
    """Codes of a pool: made at the shop, given to customers, free; being made; refused by the shop. `waiting`: coupon
    steps that there is no code for."""

    made: int
    given: int
    free: int
    coming: int
    refused: int
    waiting: int


_STOCK = """
SELECT p.id, s.made, s.given, s.made - s.given AS free, s.coming, s.refused,
  (SELECT count(*) FROM actions a WHERE a.shop_id = :shop AND a.type = 'coupon' AND a.state = 'ready'
     AND a.retry_at IS NOT NULL AND a.parameters ->> 'pool' = p.name AND p.state <> 'closed') AS waiting
FROM code_pools p CROSS JOIN LATERAL (
  SELECT count(*) FILTER (WHERE is_made) AS made, count(*) FILTER (WHERE given_at IS NOT NULL) AS given,
    count(*) FILTER (WHERE NOT is_made AND refused IS NULL) AS coming, count(refused) AS refused
  FROM pool_codes k WHERE k.shop_id = :shop AND k.pool_id = p.id) s
WHERE p.shop_id = :shop AND (CAST(:ids AS uuid[]) IS NULL OR p.id = ANY(CAST(:ids AS uuid[])))
"""


def stocks(session: Session, shop_id: UUID, pool_ids: Sequence[UUID] | None = None) -> dict[UUID, Stock]:
    """By pool; None: of every pool."""
    ids = list(pool_ids) if pool_ids is not None else None
    names = Stock.__dataclass_fields__
    rows = session.execute(text(_STOCK), {"shop": shop_id, "ids": ids})
    return {row.id: Stock(**{name: getattr(row, name) for name in names}) for row in rows}


def open_stocks(session: Session, shop_id: UUID) -> dict[str, Stock]:
    """Of every pool that is not closed, by its name."""
    rows = session.execute(
        text("SELECT id, name FROM code_pools WHERE shop_id = :shop AND state <> 'closed'"), {"shop": shop_id}
    )
    names = {row.id: row.name for row in rows}
    return {names[one]: stock for one, stock in stocks(session, shop_id, list(names)).items()} if names else {}


def problem_of(pool: Pool, stock: Stock) -> Literal["failed", "empty", "low"] | None:
    """What an operator should look at."""
    if pool.state == "failed":
        return "failed"
    if pool.state == "closed" or pool.state == "asked":
        return None
    if stock.waiting or (stock.free == 0 and pool.state == "ready"):
        return "empty"
    return "low" if pool.state == "ready" and stock.free < pool.low_water else None


_LIST = f"""
SELECT {_COLUMNS} FROM code_pools
WHERE shop_id = :shop AND (CAST(:before AS uuid) IS NULL OR id < CAST(:before AS uuid)) ORDER BY id DESC LIMIT :limit
"""  # noqa: S608


def listed(session: Session, shop_id: UUID, *, before: UUID | None, limit: int) -> list[Pool]:
    """Newest first, after the pool `before`."""
    rows = session.execute(text(_LIST), {"shop": shop_id, "before": before, "limit": limit})
    return [_pool(row) for row in rows]


_DUE = """
SELECT p.id FROM code_pools p
WHERE p.shop_id = :shop AND (p.retry_at IS NULL OR p.retry_at <= :at) AND (
  (p.state IN ('asked', 'filling') AND p.updated_at <= :before)
  OR (p.state = 'closed' AND p.discount_ref IS NOT NULL AND p.deactivated_at IS NULL AND p.updated_at <= :before)
  OR (p.state = 'ready' AND (p.ends_at IS NULL OR p.ends_at > :now) AND (SELECT count(*) FROM (
        SELECT 1 FROM pool_codes k WHERE k.shop_id = p.shop_id AND k.pool_id = p.id AND k.is_made AND k.given_at IS NULL
        LIMIT p.low_water) AS free) < p.low_water))
"""


def due(session: Session, shop: Shop, *, at: datetime) -> list[tuple[str, str]]:
    """Wake-ups of pools that somebody should be filling or closing, and is not. `at` is system time."""
    values = {"shop": shop.id, "at": at, "before": at - PATIENCE, "now": at + shop.clock_offset}
    return [(FILL, str(found)) for found in session.execute(text(_DUE), values).scalars()]


def wake_waiting(session: Session, shop: Shop, pool: Pool, at: datetime) -> None:
    """Let the steps that there was no code for look again now."""
    woken = session.execute(
        text(
            "UPDATE actions SET retry_at = NULL WHERE shop_id = :shop AND type = 'coupon' AND state = 'ready'"
            " AND retry_at IS NOT NULL AND parameters ->> 'pool' = :name RETURNING 1"
        ),
        {"shop": shop.id, "name": pool.name},
    ).all()
    if woken:
        outbox.ring(session, shop.id, [(TOPIC, "coupon")], at=at)
