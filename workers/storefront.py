"""Syncing a shop with its own system: one task gets one kind a step on, and the sweep finds what is due next.

Nothing sleeps: a sync that waits for the storefront, for a repair or for the queue says until when in its row.
"""

from __future__ import annotations

from contextlib import closing
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from integrations.registry import Configured, storefront_for
from operation_agent.kit.clock import SYSTEM, Clock
from operation_agent.kit.errors import AgentError, Conflict
from operation_agent.kit.logging import logger
from operation_agent.kit.secrets import Vault, secret_key
from operation_agent.kit.settings import settings
from operation_agent.store import outbox, ticks
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, load_shop
from operation_agent.storefront import connection, loading, sync
from operation_agent.storefront.connection import Connection, Problem
from operation_agent.storefront.loading import Loader
from operation_agent.storefront.protocol import SYNC_KINDS
from operation_agent.storefront.sync import Mode

from .connections import redis

log = logger(__name__)

PROBLEMS: dict[str, Problem] = {
    "unauthorized": "unauthorized",
    "shop_unavailable": "unavailable",
}
"""What an error of a call, by its code, says of the whole connection. That one kind may not be read does not."""


def sync_kind(
    engine: Engine,
    shop_id: UUID,
    kind: str,
    *,
    clock: Clock = SYSTEM,
    seconds: float = loading.SECONDS,
    most_queued: int | None = loading.MOST_QUEUED,
) -> bool:
    """Get on with the open sync of a kind; True when there is more to do at once, which has been rung for."""
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        opened = [one for one in sync.under_way(session, shop_id) if one.kind == kind]
        row = connection.find(session, shop_id, opened[0].vendor) if opened else None
    if not opened:
        return False
    if row is None or not row.enabled or row.problem is not None:
        _stopped(engine, shop, kind, clock)
        return False
    try:
        storefront = storefront_for(
            _configured(row), _vault(), sandbox=shop.sandbox, currency=shop.currency, redis=redis()
        )  # fmt: skip
    except AgentError as error:
        loading.put_off(engine, shop, opened[0], error, clock)
        return False
    with closing(storefront):
        loader = Loader(
            engine, shop, storefront, kind, clock, seconds=seconds, most_queued=most_queued,
            told=lambda error: _note(engine, shop, row, error, clock),
        )  # fmt: skip
        goes_on = loader.run()
    if goes_on:
        with for_shop(engine, shop_id) as session:
            outbox.ring(session, shop_id, [(sync.TOPIC, kind)], at=clock.now())
    return goes_on


def _configured(row: Connection) -> Configured:
    return Configured(row.vendor, row.channel, row.base_url, row.config, row.secrets)


def _vault() -> Vault:
    return Vault(secret_key(settings()))


def _stopped(engine: Engine, shop: Shop, kind: str, clock: Clock) -> None:
    """Nobody may be called: what is to end ends all the same, everything else waits for the connection."""
    with for_shop(engine, shop.id) as session:
        loading.end_cancelled(session, shop, kind, at=clock.now())


def _note(engine: Engine, shop: Shop, row: Connection, error: AgentError, clock: Clock) -> None:
    """An error that is the whole connection's stops all that goes out to it, and tells the operator."""
    problem = PROBLEMS.get(error.code)
    if problem is not None:
        with for_shop(engine, shop.id) as session:
            connection.note_problem(
                session, shop, row.vendor, problem, error.detail, at=clock.now(), credentials=row.secrets
            )  # fmt: skip


def ask_by_schedule(engine: Engine, shop_id: UUID, topic: str, mode: Mode, *, clock: Clock = SYSTEM) -> int:
    """Ask for a sync of every kind, of a real shop that is connected and has no problem; how many are open then."""
    with for_shop(engine, shop_id) as session:
        shop, at = load_shop(session, shop_id), clock.now()
        asked = _asked(session, shop, mode, clock)
        if mode == "reconcile":
            sync.forget_old(session, shop_id, at=at)
        ticks.finish(session, shop_id, topic, up_to=at + shop.clock_offset, at=clock.now())
    return asked


def _asked(session: Session, shop: Shop, mode: Mode, clock: Clock) -> int:
    if shop.sandbox:  # its providers are fakes, with no shop behind them that could differ from what was told
        return 0
    try:
        vendor = sync.vendor_of(session, shop.id)
    except Conflict:  # not connected, or it has a problem, which the operator was told of
        return 0
    return len(sync.ask(session, shop, vendor, SYNC_KINDS, mode, at=clock.now(), actor="schedule"))
