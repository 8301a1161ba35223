"""What the tests of changes at a shop share: a shop connected to the Shopify of the tests, and a person at it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Engine, text

from integrations.shopify.changes.storefront import ShopifyChanges
from integrations.shopify.client import Access, Shopify
from operation_agent.kit.clock import SYSTEM, FixedClock
from operation_agent.kit.secrets import Vault, secret_key
from operation_agent.kit.settings import settings
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, load_shop
from operation_agent.storefront import changes
from operation_agent.storefront.change_steps import Maker
from operation_agent.storefront.changes import Change
from tests.shopify_peer.peer import Peer

ACTOR = "user:li@example.com"


@dataclass
class Desk:
    """A person at a shop whose clock stands still; `later` moves it on."""

    engine: Engine
    shop: Shop
    peer: Peer
    client: Shopify
    clock: FixedClock = field(default_factory=lambda: FixedClock(SYSTEM.now()))
    at_step: Any = None

    def ask(self, kind: str, parameters: Mapping[str, Any], *, apply: bool = False) -> UUID:
        with for_shop(self.engine, self.shop.id) as session:
            return changes.ask(
                session, self.shop, kind, parameters, apply=apply, at=self.clock.now(), actor=ACTOR
            ).id  # fmt: skip

    def work_once(self) -> int:
        """One step of one change."""
        return self.work(seconds=0)

    def work(self, *, seconds: float = 30) -> int:
        with for_shop(self.engine, self.shop.id) as session:
            self.shop = load_shop(session, self.shop.id)
        step = self.at_step or (lambda step: None)
        maker = Maker(
            self.engine, self.shop, "shopify", ShopifyChanges(self.client), sealed(), clock=self.clock, at_step=step
        )
        return maker.drain(seconds=seconds)

    def settled(self, change_id: UUID, *, minutes: int = 30) -> Change:
        """Work until it rests, time passing in between."""
        for _ in range(minutes):
            self.work()
            change = self.change(change_id)
            if change.state not in changes.OPEN or change.retry_at is None:
                return change
            self.later()
        return change

    def later(self, by: timedelta = timedelta(minutes=1)) -> None:
        self.clock.advance(by)

    def change(self, change_id: UUID) -> Change:
        with for_shop(self.engine, self.shop.id) as session:
            return changes.get(session, self.shop.id, change_id)

    def apply(self, change_id: UUID) -> Change:
        with for_shop(self.engine, self.shop.id) as session:
            changes.apply(session, self.shop, change_id, at=self.clock.now(), actor=ACTOR)
        return self.settled(change_id)

    def undo(self, change_id: UUID, *, force: bool = False) -> Change:
        with for_shop(self.engine, self.shop.id) as session:
            changes.undo(session, self.shop, change_id, force=force, at=self.clock.now(), actor=ACTOR)
        return self.settled(change_id)

    def made(self, kind: str, parameters: Mapping[str, Any]) -> Change:
        """Previewed and applied."""
        change_id = self.ask(kind, parameters)
        previewed = self.settled(change_id)
        assert previewed.state == "previewed", (previewed.state, previewed.reason)
        return self.apply(change_id)

    def run(self, sql: str, **values: Any) -> list[Any]:
        with for_shop(self.engine, self.shop.id) as session:
            result = session.execute(text(sql), {"shop": self.shop.id, **values})
            return list(result.all()) if result.returns_rows else []

    def verbs(self) -> list[str]:
        rows = self.run("SELECT verb FROM audit_log WHERE shop_id = :shop AND verb LIKE 'shop_change.%' ORDER BY seq")
        return [row.verb.removeprefix("shop_change.") for row in rows]


def sealed() -> bytes:
    """The secrets under which the shop is connected."""
    secrets = {"access_token": "shpat_peer", "webhook_secret": "hook"}
    return _SEALED.setdefault("secrets", Vault(secret_key(settings())).seal(orjson.dumps(secrets)))


_SEALED: dict[str, bytes] = {}


def connect(engine: Engine, shop_id: UUID, base_url: str) -> Shop:
    """The shop's row, connected to a Shopify at `base_url`."""
    with for_shop(engine, shop_id) as session:
        session.execute(
            text(
                "INSERT INTO integrations (shop_id, vendor, channel, base_url, config, secrets, enabled, updated_at)"
                " VALUES (:shop, 'shopify', 'coupon', :url, '{}', :secrets, true, :at)"
            ),
            {"shop": shop_id, "url": base_url, "secrets": sealed(), "at": SYSTEM.now()},
        )
        return load_shop(session, shop_id)


@contextmanager
def desk(engine: Engine, shop_id: UUID, peer: Peer) -> Iterator[Desk]:
    shop = connect(engine, shop_id, peer.base_url)
    client = Shopify(Access(peer.base_url, peer.token), sleep=lambda seconds: None)
    try:
        yield Desk(engine, shop, peer, client)
    finally:
        client.close()
