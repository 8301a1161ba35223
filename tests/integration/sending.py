"""What the tests of sending share: a shop with a live strategy, customers who said yes, due actions, real providers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import orjson
from sqlalchemy import Engine, text

from integrations.registry import Configured, channel_for
from operation_agent.actions.channel import Channel
from operation_agent.actions.executor import Executor
from operation_agent.actions.unsubscribe import Links
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.kit.secrets import Vault
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, load_shop

ROOT = Path(__file__).parents[2]
SECRET = "0123456789abcdef" * 4
LINKS = Links("https://agent.example", SECRET)
TEXTS = {"subject": {"en": "Hello"}, "body": {"en": "<p>{{ coupon.code }}</p>"}}
CONFIG = {"from_email": "shop@example.com", "settle_seconds": 0.2}


@dataclass
class Providers:
    """The simulator's SendGrid and Shopify in a process of their own."""

    url: str
    process: subprocess.Popen[str]

    def get(self, what: str) -> Any:
        return httpx.get(f"{self.url}/control/{what}", timeout=10).json()

    def fault(self, *faults: dict[str, Any]) -> None:
        httpx.post(f"{self.url}/control/faults", json=list(faults), timeout=10).raise_for_status()

    def reset(self) -> None:
        httpx.post(f"{self.url}/control/reset", timeout=10).raise_for_status()

    def keys(self) -> list[str]:
        """The dedupe key of every message that was accepted, in order."""
        return [message["custom_args"]["dedupe_key"] for message in self.get("messages")]


@contextmanager
def providers() -> Iterator[Providers]:
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator.providers", "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield Providers(json.loads(process.stdout.readline())["url"], process)
    finally:
        process.terminate()
        process.wait(timeout=10)
        process.stdout.close()


def configured(vendor: str, url: str, **config: Any) -> Configured:
    secrets = {"api_key": "k", "webhook_public_key": "", "access_token": "t", "webhook_secret": "s"}
    sealed = Vault(SECRET).seal(orjson.dumps(secrets))
    channel = {"sendgrid": "email", "shopify": "coupon"}[vendor]
    return Configured(vendor, channel, url, {**CONFIG, **config}, sealed)


def channel(vendor: str, url: str, **config: Any) -> Channel:
    return channel_for(configured(vendor, url, **config), Vault(SECRET), sandbox=True)


@contextmanager
def executor(engine: Engine, shop: Shop, vendor: str, url: str, **options: Any) -> Iterator[Executor]:
    made = channel(vendor, url, **options.pop("config", {}))
    name = {"sendgrid": "email", "shopify": "coupon"}[vendor]
    with ThreadPoolExecutor(16) as pool:
        try:
            yield Executor(engine, shop, name, made, LINKS, pool, **options)
        finally:
            made.close()


@dataclass
class Stage:
    """A shop with one live strategy and one budget; times are the shop's, which is the system's here."""

    engine: Engine
    shop: Shop
    strategy_id: UUID
    budget_id: UUID
    start: datetime

    def run(self, sql: str, **values: Any) -> list[Any]:
        with for_shop(self.engine, self.shop.id) as session:
            result = session.execute(text(sql), {"shop": self.shop.id, **values})
            return list(result.all()) if result.returns_rows else []

    def customer(self, *, consent: str | None = "subscribed", email: str | None = "") -> UUID:
        customer_id = new_id()
        address = f"{customer_id.hex}@example.com" if email == "" else email
        self.run(
            "INSERT INTO customers (shop_id, id, random_key, external_id, email, first_seen_at, last_seen_at,"
            " created_at) VALUES (:shop, :id, :id, :external, :email, :at, :at, :at)",
            id=customer_id, external=customer_id.hex, email=address, at=self.start,
        )  # fmt: skip
        if consent:
            self.consent(customer_id, consent)
        return customer_id

    def consent(self, customer_id: UUID, state: str) -> None:
        self.run(
            "INSERT INTO consents (shop_id, customer_id, channel, topic, state, changed_at, event_id)"
            " VALUES (:shop, :id, 'email', 'marketing', :state, :at, :id)"
            " ON CONFLICT (shop_id, customer_id, channel, topic) DO UPDATE SET state = EXCLUDED.state",
            id=customer_id, state=state, at=self.start,
        )  # fmt: skip

    def action(self, customer_id: UUID, *, reserve: int = 0, **changes: Any) -> UUID:
        action_id = new_id()
        type_ = changes.get("type", "email")
        values = {
            "shop_id": self.shop.id, "id": action_id, "decision_id": new_id(), "customer_id": customer_id,
            "strategy_id": self.strategy_id, "rule_id": self.strategy_id, "arm": "a", "step": 0, "type": type_,
            "channel": type_, "held_out": False, "parameters": orjson.dumps(
                TEXTS if type_ == "email" else {"percent": 10, "expires_in": "P7D"}).decode(),
            "dedupe_key": f"k:{action_id.hex}", "decided_at": self.start, "exit_on": [], "state": "ready",
            "due_at": self.start + timedelta(minutes=1), "cost_minor": 2 if type_ == "email" else 0,
            "budget_id": self.budget_id if reserve else None, "reserved_minor": reserve, "created_at": self.start,
        } | changes  # fmt: skip
        columns = ", ".join(values)
        marks = ", ".join(f"CAST(:{name} AS jsonb)" if name == "parameters" else f":{name}" for name in values)
        self.run(f"INSERT INTO actions ({columns}) VALUES ({marks})", **values)  # noqa: S608 - column names of ours
        if reserve:
            self.run(
                "WITH e AS (INSERT INTO budget_entries (shop_id, budget_id, action_id, kind, amount_minor, at)"
                " VALUES (:shop, :budget, :id, 'reserve', :amount, :at))"
                " UPDATE budgets SET reserved_minor = reserved_minor + :amount WHERE shop_id = :shop AND id = :budget",
                budget=self.budget_id, id=action_id, amount=reserve, at=self.start,
            )  # fmt: skip
        return action_id

    def states(self) -> dict[str, int]:
        rows = self.run("SELECT state, count(*) FROM actions WHERE shop_id = :shop GROUP BY state")
        return {row.state: row.count for row in rows}

    def one(self, action_id: UUID) -> Any:
        return self.run("SELECT * FROM actions WHERE shop_id = :shop AND id = :id", id=action_id)[0]

    def budget(self) -> tuple[int, int]:
        row = self.run("SELECT reserved_minor, spent_minor FROM budgets WHERE shop_id = :shop")[0]
        return row.reserved_minor, row.spent_minor


def stage(engine: Engine, shop_id: UUID, *, limit: int = 1_000_000, definition: dict[str, Any] | None = None) -> Stage:
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
    made = Stage(engine, shop, new_id(), new_id(), SYSTEM.now() - timedelta(hours=1))
    made.run(
        "INSERT INTO strategies (shop_id, id, key, name, goal, state, definition, holdout, started_at, created_at,"
        " updated_at) VALUES (:shop, :id, 'test', '{}', 'conversion', 'live', CAST(:definition AS jsonb), 0.1, :at,"
        " :at, :at)",
        id=made.strategy_id, at=made.start, definition=orjson.dumps(definition or {}).decode(),
    )  # fmt: skip
    made.run(
        "INSERT INTO budgets (shop_id, id, name, currency, limit_minor) VALUES (:shop, :id, 'test', 'USD', :limit)",
        id=made.budget_id, limit=limit,
    )  # fmt: skip
    return made
