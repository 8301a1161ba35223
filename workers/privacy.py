"""Carrying out requests to see one's data or to be forgotten, and the nightly look after what is left of them."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import as_uuid
from operation_agent.kit.logging import logger
from operation_agent.kit.secrets import Vault, secret_key
from operation_agent.kit.settings import settings
from operation_agent.privacy import requests
from operation_agent.store import ticks
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop

log = logger(__name__)


def settle(engine: Engine, shop_id: UUID, key: str) -> int:
    """The request of that id; without one all that are open, and old exports go. Returns how many were settled."""
    one = as_uuid(key)
    if one is not None:
        return int(_settle(engine, shop_id, one))
    with for_shop(engine, shop_id) as session:
        shop, found, at = load_shop(session, shop_id), requests.open_requests(session, shop_id), SYSTEM.now()
        requests.drop_old_exports(session, shop_id, at=at)
    settled = sum(_settle(engine, shop_id, request_id) for request_id in found)
    with for_shop(engine, shop_id) as session:
        ticks.finish(session, shop_id, ticks.PRIVACY, up_to=at + shop.clock_offset, at=SYSTEM.now())
    return settled


def _settle(engine: Engine, shop_id: UUID, request_id: UUID) -> bool:
    vault = Vault(secret_key(settings()))
    try:
        with for_shop(engine, shop_id) as session:
            return requests.settle(session, load_shop(session, shop_id), request_id, vault.seal, at=SYSTEM.now())
    except OperationalError:
        raise  # the database is away or found a deadlock: the sweep rings again
    except Exception as error:
        log.error("privacy_request_failed", request=str(request_id), exc_info=error)
        with for_shop(engine, shop_id) as session:
            requests.failed(session, shop_id, request_id, f"{type(error).__name__}: {error}")
        return False
