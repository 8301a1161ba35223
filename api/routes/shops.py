"""Shops: the tenants, a sandbox's clock, and what a shop's workers still have to do."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, Field
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from api.dependencies import Database, Requires
from api.errors import Problem
from api.fields import Instant, Text
from api.idempotency import Idempotent
from api.shop_settings import SettingsChange
from operation_agent.access.principal import Principal
from operation_agent.actions import wakeups
from operation_agent.campaigns.due import wake
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import NotFound
from operation_agent.store import audit, shops
from operation_agent.store.session import for_shop, for_system
from operation_agent.strategies import calendar

router = APIRouter(prefix="/api/shops", tags=["shops"])

MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No such shop for this caller"}}
Slug = Annotated[
    str, Path(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="The shop's slug or id", examples=["sandbox"])
]
Reader = Annotated[Principal, Depends(Requires("shops:read", shop=False))]
Writer = Annotated[Principal, Depends(Requires("shops:write", shop=False))]


class Shop(BaseModel):
    """A tenant. `now` is its clock: the system's, unless it is a sandbox whose clock was moved."""

    id: str
    slug: str
    name: str
    currency: str
    time_zone: str
    sandbox: bool
    margin_rate: Decimal
    settings: dict[str, Any]
    now: datetime


class NewShop(BaseModel):
    slug: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    name: Text = Field(min_length=1, max_length=200)
    currency: str = Field(pattern=r"^[A-Z]{3}$", examples=["USD", "CNY"])
    time_zone: Text = Field("UTC", max_length=64, examples=["Asia/Shanghai"])
    sandbox: bool = False
    margin_rate: Decimal = Field(Decimal("0.4"), ge=0, le=1, decimal_places=4)
    seed: Text | None = Field(None, min_length=1, max_length=64, description="Fixes holdouts and draws")
    starts_at: Instant | None = Field(None, description="A sandbox's clock")


class ShopChanges(BaseModel):
    settings: SettingsChange


class ClockMove(BaseModel):
    to: Instant = Field(description="Shop time; never before the shop's now")


class ClockMoved(BaseModel):
    now: datetime
    schedules: int = Field(description="Runs of scheduled rules and of jobs that came due")
    actions: int = Field(description="Actions that came due")


class Backlog(BaseModel):
    """What the workers still have to do; all zero: everything that came in has been decided, and done if due."""

    events: int = Field(description="Stored and not yet processed")
    actions_due: int = Field(description="Due and not yet settled: ready, being sent, or unknown")
    outbox: int = Field(description="Wake-ups not yet published")
    running: int = Field(description="Scheduled runs, clusterings and comparisons not yet finished")
    failed_events: int = Field(description="Given up after several attempts; waiting for a person")
    oldest_seconds: float = Field(description="Age of the oldest piece of work, in system time")


def shown(shop: shops.Shop) -> Shop:
    return Shop(
        id=str(shop.id), slug=shop.slug, name=shop.name, currency=shop.currency, time_zone=shop.time_zone,
        sandbox=shop.sandbox, margin_rate=shop.margin_rate, settings=shop.settings, now=shop.now(),
    )  # fmt: skip


def chosen_id(engine: Engine, caller: Principal, slug: str) -> UUID:
    """Of the named shop. Raises NotFound when there is none, or it is not this caller's."""
    if caller.kind == "key":
        own = caller.shop
        if slug not in (own.slug, str(own.id)):
            raise NotFound(f"there is no shop {slug!r} for this key")
        return own.id
    with for_system(engine) as session:
        return shops.find_shop(session, slug).id


def chosen(engine: Engine, caller: Principal, slug: str) -> shops.Shop:
    """The named shop as it is now: a key's own copy may be two seconds old. Raises NotFound."""
    shop_id = chosen_id(engine, caller, slug)
    with for_shop(engine, shop_id) as session:
        return shops.load_shop(session, shop_id)


@router.get("", operation_id="list_shops", summary="The shops this caller may see", response_model=list[Shop])
def list_all(caller: Reader, database: Database) -> list[Shop]:
    if caller.kind == "key":
        return [shown(chosen(database, caller, caller.shop.slug))]
    with for_system(database) as session:
        return [shown(shop) for shop in shops.list_shops(session)]


@router.post(
    "",
    operation_id="create_shop",
    summary="Make a shop",
    status_code=201,
    response_model=Shop,
    responses={409: {"model": Problem, "description": "The slug is taken, or the Idempotency-Key"}},
)
def create(body: NewShop, caller: Writer, database: Database, once: Idempotent) -> Any:
    """The Idempotency-Key is kept with the shop that it made."""
    with for_system(database) as session:
        known = session.execute(text("SELECT id FROM shops WHERE slug = :slug"), {"slug": body.slug}).scalar()
    if known is not None and (kept := once.recall(database, known)) is not None:
        return kept
    made = shops.create_shop(
        database, slug=body.slug, name=body.name, currency=body.currency, time_zone=body.time_zone,
        sandbox=body.sandbox, seed=body.seed, margin_rate=body.margin_rate, starts_at=body.starts_at,
        actor=caller.actor,
    )  # fmt: skip
    return once.run(database, made.id, lambda _: shown(made), status=201)


@router.get("/{shop}", operation_id="get_shop", summary="One shop", response_model=Shop, responses=MISSING)
def get(shop: Slug, caller: Reader, database: Database) -> Shop:
    return shown(chosen(database, caller, shop))


@router.patch("/{shop}", operation_id="change_shop", summary="Change settings", response_model=Shop, responses=MISSING)
def change(shop: Slug, body: ShopChanges, caller: Writer, database: Database) -> Shop:
    found = chosen(database, caller, shop)
    changes = body.settings.changes()
    with for_shop(database, found.id) as session:
        changed = shops.update_settings(session, found, changes)
        audit.record(
            session, found.id, at=SYSTEM.now(), actor=caller.actor, verb="shop.changed", subject=f"shop:{found.slug}",
            detail={"settings": changes},
        )  # fmt: skip
    return shown(changed)


@router.post(
    "/{shop}/clock",
    operation_id="move_clock",
    summary="Set a sandbox's clock forward",
    response_model=ClockMoved,
    responses={**MISSING, 409: {"model": Problem, "description": "The Idempotency-Key was used for another request"}},
)
def move_clock(shop: Slug, body: ClockMove, caller: Writer, database: Database, once: Idempotent) -> Response:
    """Everything that came due in between is woken in the same transaction: scheduled rules and planned actions."""
    found = chosen(database, caller, shop)

    def work(session: Session) -> ClockMoved:
        session.execute(text("SELECT 1 FROM shops WHERE id = :id FOR UPDATE"), {"id": found.id})
        before = shops.load_shop(session, found.id)
        was = before.now()
        moved = shops.move_clock(session, before, body.to)
        at = SYSTEM.now()
        audit.record(
            session, found.id, at=at, actor=caller.actor, verb="shop.clock_moved", subject=f"shop:{found.slug}",
            detail={"from": was.isoformat(), "to": body.to.isoformat()},
        )  # fmt: skip
        return _wake(session, moved, was)

    return once.run(database, found.id, work, status=200)


_DUE = text(
    "SELECT count(*) FROM actions WHERE shop_id = :shop AND state = 'ready' AND due_at > :was AND due_at <= :now"
)


def _wake(session: Session, shop: shops.Shop, was: datetime) -> ClockMoved:
    """Ring for what came due between `was` and the shop's now."""
    now, at = shop.now(), SYSTEM.now()
    due = session.execute(_DUE, {"shop": shop.id, "was": was, "now": now}).scalar_one()
    runs = wake(session, shop, after=was, until=now, at=at)
    runs += calendar.wake_jobs(session, shop, until=now, at=at)
    wakeups.ring_due(session, shop, at=at)
    return ClockMoved(now=now, schedules=runs, actions=due)


# One statement, so one snapshot: an event that leaves the queue and the actions it set off are never both missed.
# Not due, whatever their due time says: actions of a paused strategy, and followers of one that waits for a person or
# for its own time.
_BACKLOG = text("""
WITH due AS (
  SELECT due_at FROM actions WHERE shop_id = :shop AND state = 'sending'
  UNION ALL SELECT due_at FROM actions WHERE shop_id = :shop AND state = 'unknown'
  UNION ALL SELECT a.due_at
  FROM actions AS a JOIN strategies AS s ON s.shop_id = a.shop_id AND s.id = a.strategy_id AND s.state <> 'paused'
  WHERE a.shop_id = :shop AND a.state = 'ready' AND a.due_at <= :now AND NOT EXISTS (
    SELECT 1 FROM actions AS before WHERE before.shop_id = :shop AND before.id = a.after_action
      AND (before.state IN ('waiting_approval', 'parked') OR (before.state = 'ready' AND before.due_at > :now)))
), oldest AS (
  SELECT min(received_at) AS at FROM event_queue WHERE shop_id = :shop
  UNION ALL SELECT min(rung_at) FROM outbox WHERE shop_id = :shop
  UNION ALL SELECT min(taken_at) FROM schedule_ticks WHERE shop_id = :shop AND finished_at IS NULL
  UNION ALL SELECT min(due_at) - CAST(:offset AS interval) FROM due
  UNION ALL SELECT min(due_at) - CAST(:offset AS interval) FROM runs
  WHERE shop_id = :shop AND state = 'waiting' AND due_at <= :now
)
SELECT (SELECT count(*) FROM event_queue WHERE shop_id = :shop) AS events,
       (SELECT count(*) FROM due) AS actions_due,
       (SELECT count(*) FROM outbox WHERE shop_id = :shop) AS outbox,
       (SELECT count(*) FROM schedule_ticks WHERE shop_id = :shop AND finished_at IS NULL)
         + (SELECT count(*) FROM runs WHERE shop_id = :shop AND state = 'waiting' AND due_at <= :now)
         + (SELECT count(*) FROM watches WHERE shop_id = :shop AND due_at <= :now) AS running,
       (SELECT count(*) FROM event_failures WHERE shop_id = :shop) AS failed_events,
       (SELECT min(at) FROM oldest) AS oldest
""")


@router.get(
    "/{shop}/backlog",
    operation_id="get_backlog",
    summary="What is still to be done",
    response_model=Backlog,
    responses=MISSING,
)
def backlog(shop: Slug, caller: Reader, database: Database) -> Backlog:
    shop_id = chosen_id(database, caller, shop)
    at = SYSTEM.now()
    with for_shop(database, shop_id) as session:
        found = shops.load_shop(session, shop_id)
        values = {"shop": shop_id, "now": at + found.clock_offset, "offset": found.clock_offset}
        row = session.execute(_BACKLOG, values).one()
    age = max(0.0, (at - row.oldest).total_seconds()) if row.oldest else 0.0
    return Backlog(
        events=row.events, actions_due=row.actions_due, outbox=row.outbox, running=row.running,
        failed_events=row.failed_events, oldest_seconds=round(age, 3),
    )  # fmt: skip
