"""Making a shop's changes that are due, with the connection it has."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Engine

from integrations.registry import Configured, storefront_for
from operation_agent.kit.clock import SYSTEM, Clock
from operation_agent.kit.errors import Rejected
from operation_agent.kit.logging import logger
from operation_agent.kit.secrets import Vault, secret_key
from operation_agent.kit.settings import settings
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from operation_agent.storefront import changes, connection
from operation_agent.storefront.change_steps import Maker

from .connections import redis

log = logger(__name__)

VENDOR = "shopify"
_PUT_OFF = timedelta(minutes=1)
_SECONDS = 5.0
"""After which a task gives its process back; what is left is rung for."""


def make_changes(engine: Engine, shop_id: UUID, *, clock: Clock = SYSTEM) -> int:
    """Preview, make and take back what is due; how many steps were taken. Without a connection that works they wait."""
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        found = connection.find(session, shop_id, VENDOR)
        is_due = bool(changes.due(session, shop_id, at=clock.now()))
    if found is None or not is_due:
        return 0
    configured = Configured(found.vendor, found.channel, found.base_url, found.config, found.secrets)
    try:
        storefront = storefront_for(
            configured, Vault(secret_key(settings())), sandbox=shop.sandbox, currency=shop.currency, redis=redis()
        )
    except Rejected as error:
        log.warning("changes_wait", shop=shop.slug, detail=error.detail)
        at = clock.now()
        with for_shop(engine, shop_id) as session:
            changes.put_off(session, shop_id, VENDOR, at=at, until=at + _PUT_OFF, reason=error.detail)
        return 0
    with closing(storefront):
        maker = Maker(engine, shop, VENDOR, storefront.changes(), credentials=found.secrets, clock=clock)
        return maker.drain(seconds=_SECONDS)
