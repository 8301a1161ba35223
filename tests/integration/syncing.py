"""What the tests of syncs share: a real shop connected to a Shopify of the tests, and workers' tasks run by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Engine, text

from operation_agent.kit.clock import FixedClock
from operation_agent.kit.ids import new_id
from operation_agent.kit.secrets import Vault, secret_key
from operation_agent.kit.settings import settings
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, create_shop, load_shop
from operation_agent.storefront import sync
from operation_agent.storefront.sync import Mode, Sync
from workers.processing import drain
from workers.storefront import sync_kind

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@dataclass
class Stage:
    """A real shop, its integration, and the clock by which syncs are due."""

    engine: Engine
    shop: Shop
    base_url: str
    clock: FixedClock = field(default_factory=lambda: FixedClock(NOW))

    def run(self, sql: str, **values: Any) -> list[Any]:
        with for_shop(self.engine, self.shop.id) as session:
            result = session.execute(text(sql), {"shop": self.shop.id, **values})
            return list(result.all()) if result.returns_rows else []

    def scalar(self, sql: str, **values: Any) -> Any:
        return self.run(sql, **values)[0][0]

    def ask(self, kind: str = "orders", mode: Mode = "first") -> Sync:
        with for_shop(self.engine, self.shop.id) as session:
            (made,) = sync.ask(session, self.shop, "shopify", [kind], mode, at=self.clock.now(), actor="test")  # type: ignore[list-item]
        return made

    def get(self, sync_id: UUID) -> Sync:
        with for_shop(self.engine, self.shop.id) as session:
            return sync.get(session, self.shop.id, sync_id)

    def task(self, kind: str = "orders", **options: Any) -> bool:
        """One task of a worker, as soon as the sync is due."""
        due_at = self.scalar(
            "SELECT max(wake_at) FROM storefront_syncs WHERE shop_id = :shop AND kind = :kind", kind=kind
        )
        if due_at is not None and due_at > self.clock.at:
            self.clock.at = due_at
        return sync_kind(self.engine, self.shop.id, kind, clock=self.clock, **options)

    def finish(self, kind: str = "orders", *, most: int = 60, **options: Any) -> Sync:
        """Tasks until the sync has ended."""
        open_ = self.scalar(
            "SELECT id FROM storefront_syncs WHERE shop_id = :shop AND kind = :kind"
            " AND state IN ('asked', 'running', 'loading')",
            kind=kind,
        )
        for _ in range(most):
            self.task(kind, **options)
            found = self.get(open_)
            if found.state not in sync.OPEN:
                return found
        raise AssertionError(f"still {found.state} after {most} tasks: {found.error}")

    def sync(self, kind: str = "orders", mode: Mode = "first", **options: Any) -> Sync:
        self.ask(kind, mode)
        return self.finish(kind, **options)

    def process(self) -> int:
        """What the pipeline does of the events that came in."""
        return sum(drain(self.engine, self.shop.id, partition, seconds=60) for partition in range(8))

    def sources(self, type_: str | None = None) -> list[str]:
        rows = self.run(
            "SELECT source_id FROM events WHERE shop_id = :shop AND (CAST(:type AS text) IS NULL OR type = :type)"
            " ORDER BY source_id",
            type=type_,
        )
        return [row.source_id for row in rows]

    def later(self, by: timedelta) -> None:
        self.clock.advance(by)


def stage(engine: Engine, base_url: str, *, currency: str = "USD", token: str = "shpat_peer") -> Stage:
    made = create_shop(engine, slug=f"y-{new_id().hex[-12:]}", name="Synced", currency=currency, seed="sync")
    vault = Vault(secret_key(settings()))
    secrets = vault.seal(orjson.dumps({"access_token": token, "webhook_secret": "w", "client_secret": "w"}))
    with for_shop(engine, made.id) as session:
        session.execute(
            text(
                "INSERT INTO integrations (shop_id, vendor, channel, base_url, config, secrets, enabled, updated_at)"
                " VALUES (:shop, 'shopify', 'coupon', :url, '{}', :secrets, true, :at)"
            ),
            {"shop": made.id, "url": base_url, "secrets": secrets, "at": NOW},
        )
        return Stage(engine, load_shop(session, made.id), base_url)
