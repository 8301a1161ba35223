"""Sending a shop's due actions of one channel, and settling its unknown ones, with the integration it has set up."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from uuid import UUID

from sqlalchemy import Engine

from integrations.registry import Configured, channel_for, load
from operation_agent.actions import reconciler
from operation_agent.actions.channel import Channel
from operation_agent.actions.executor import IN_FLIGHT, Breaker, Executor
from operation_agent.actions.unsubscribe import Links
from operation_agent.kit.logging import logger
from operation_agent.kit.secrets import Vault, secret_key
from operation_agent.kit.settings import settings
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from operation_agent.storefront import connection

from .connections import redis

log = logger(__name__)


@dataclass
class _Kept:
    """A channel with its connections, for as long as its configuration stays the same."""

    configured: Configured
    channel: Channel
    breaker: Breaker = field(default_factory=Breaker)


@dataclass
class Senders:
    """What one process keeps between two tasks: threads, connections, breakers."""

    pool: ThreadPoolExecutor
    vault: Vault
    links: Links
    kept: dict[tuple[UUID, str], _Kept] = field(default_factory=dict)

    def get(self, shop_id: UUID, is_sandbox: bool, configured: Configured) -> _Kept:
        key = (shop_id, configured.vendor)
        found = self.kept.get(key)
        if found is None or found.configured != configured:
            if found is not None:
                found.channel.close()
            channel = channel_for(configured, self.vault, sandbox=is_sandbox, redis=redis())
            found = self.kept[key] = _Kept(configured, channel)
        return found


def senders() -> Senders:
    return _senders_of(os.getpid())


@cache
def _senders_of(_pid: int) -> Senders:
    secret = secret_key(settings())
    return Senders(ThreadPoolExecutor(IN_FLIGHT, "send"), Vault(secret), Links.of(settings()))


def deliver(engine: Engine, shop_id: UUID, channel: str) -> int:
    """Send what is due; without an integration for the channel, or while it refuses everything, actions stay ready."""
    ours = senders()
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        configured = load(session, shop_id, channel)
        problem = connection.problem_of(session, shop_id, configured.vendor) if configured else None
    if configured is None:
        log.warning("no_integration", shop=shop.slug, channel=channel)
        return 0
    if problem is not None:
        log.warning("integration_stopped", shop=shop.slug, channel=channel, problem=problem)
        return 0
    kept = ours.get(shop_id, shop.sandbox, configured)
    executor = Executor(
        engine, shop, channel, kept.channel, ours.links, ours.pool, breaker=kept.breaker, credentials=configured.secrets
    )
    return executor.deliver()


def reconcile(engine: Engine, shop_id: UUID) -> int:
    """Settle the unknown actions of every channel that are due."""
    ours = senders()
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        found = [load(session, shop_id, channel) for channel in reconciler.CHANNELS]
        asked = [one for one in found if one and not connection.problem_of(session, shop_id, one.vendor)]
    looked_at = 0
    for configured in asked:
        if configured.channel is not None:
            kept = ours.get(shop_id, shop.sandbox, configured)
            looked_at += reconciler.reconcile(engine, shop, configured.channel, kept.channel, ours.links, ours.pool)
    return looked_at
