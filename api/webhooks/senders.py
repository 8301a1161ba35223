"""Who may report for a shop: its clock and currency, and the secrets its providers sign with.

Remembered for two seconds, as API keys are, so that a stream of webhooks costs one look-up; a changed secret counts
from the next request in this process, and within two seconds in the others.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import orjson
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from operation_agent.kit.clock import monotonic
from operation_agent.kit.errors import Retryable
from operation_agent.kit.secrets import Vault, secret_key
from operation_agent.kit.settings import settings
from operation_agent.store.session import bind_scope, for_system
from operation_agent.store.shops import Shop, find_shop

TIME_TO_LIVE = 2.0
"""Seconds."""
_MOST_ENTRIES = 1_000


@dataclass(frozen=True, slots=True)
class Sender:
    """A shop as it was when looked up, and what one of its integrations is checked by.

    `secrets` are those it may sign with: the current one, and the one before it while that is being replaced.
    """

    shop: Shop
    secrets: tuple[str, ...]
    base_url: str


class Senders:
    """Thread-safe by the atomicity of one dict read or write; two misses at once merely look up twice."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._known: dict[tuple[str, str], tuple[float, Sender]] = {}
        self.running: dict[tuple[str, str], asyncio.Future[Sender]] = {}
        """Look-ups on their way, of the event loop only."""

    def remembered(self, slug: str, vendor: str) -> Sender | None:
        entry = self._known.get((slug, vendor))
        return entry[1] if entry is not None and entry[0] >= monotonic() else None

    def look_up(self, slug: str, vendor: str, secret: str) -> Sender:
        """Ask the database, and remember. Raises NotFound for an unknown shop, Retryable without that secret."""
        with for_system(self._engine) as session:
            shop = find_shop(session, slug)
            bind_scope(session, shop.id)
            found = _sender(session, shop, vendor, secret)
        if len(self._known) >= _MOST_ENTRIES:
            self._known.clear()
        self._known[slug, vendor] = (monotonic() + TIME_TO_LIVE, found)
        return found

    def forget(self) -> None:
        """An integration was changed."""
        self._known.clear()


def _sender(session: Session, shop: Shop, vendor: str, name: str) -> Sender:
    row = session.execute(
        text("SELECT secrets, base_url FROM integrations WHERE shop_id = :shop AND vendor = :vendor"),
        {"shop": shop.id, "vendor": vendor},
    ).one_or_none()
    secrets: dict[str, str] = {}
    if row is not None and row.secrets is not None:
        secrets = orjson.loads(Vault(secret_key(settings())).open(bytes(row.secrets)))
    if row is None or not secrets.get(name):
        raise Retryable(
            f"nothing is accepted from {vendor} until PUT /api/integrations/{vendor} has set secrets.{name}",
            code="webhook_not_configured",
            retry_after=timedelta(minutes=5),
        )
    return Sender(shop, tuple(filter(None, (secrets[name], secrets.get(f"{name}_previous")))), row.base_url)
