"""What the tests of deciding share: a shop with live strategies, customers who can be reached, triggers, features."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Engine, text

from operation_agent.customers.features import FEATURES
from operation_agent.decision import batch
from operation_agent.decision.facts import Trigger
from operation_agent.events.event import Event
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import digest_id, new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop, update_settings
from operation_agent.strategies import lifecycle

AT = datetime(2026, 3, 2, 12, tzinfo=UTC)


@dataclass
class Table:
    columns: dict[str, Any]


def table(n: int, **values: Any) -> Table:
    """Features of `n` customers who did nothing, but for `values`."""
    columns: dict[str, Any] = {}
    for name, feature in FEATURES.items():
        if feature.kind == "label":
            columns[name] = np.full(n, None, dtype=object)
        else:
            columns[name] = np.full(n, np.nan if feature.nullable else 0.0)
    for name, value in values.items():
        columns[name] = np.broadcast_to(np.asarray(value, columns[name].dtype), n).copy()
    return Table(columns)


@dataclass
class Somebody:
    id: UUID
    random_key: UUID
    email: str | None


def make_people(
    engine: Engine,
    shop_id: UUID,
    n: int,
    *,
    consent: str | None = "subscribed",
    email: bool = True,
    key: str = "somebody",
) -> list[Somebody]:
    """`n` customers, the same random keys in every shop."""
    made = [Somebody(new_id(), digest_id(key, str(i)), f"c{i}@example.com" if email else None) for i in range(n)]
    with for_shop(engine, shop_id) as session:
        session.execute(
            text(
                "INSERT INTO customers (shop_id, id, random_key, email, first_seen_at, last_seen_at, created_at)"
                " SELECT :shop, r.id, r.key, r.email, :at, :at, :at FROM unnest(CAST(:ids AS uuid[]),"
                " CAST(:keys AS uuid[]), CAST(:emails AS text[])) AS r (id, key, email)"
            ),
            {
                "shop": shop_id, "at": AT - timedelta(days=400), "ids": [one.id for one in made],
                "keys": [one.random_key for one in made], "emails": [one.email for one in made],
            },
        )  # fmt: skip
        if consent:
            session.execute(
                text(
                    "INSERT INTO consents (shop_id, customer_id, channel, topic, state, changed_at, event_id)"
                    " SELECT :shop, id, 'email', 'marketing', :state, :at, id"
                    " FROM unnest(CAST(:ids AS uuid[])) AS id"
                ),
                {"shop": shop_id, "state": consent, "at": AT, "ids": [one.id for one in made]},
            )
    return made


def started(engine, shop_id, *templates: str, settings: dict[str, Any] | None = None, **options: Any):
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        if settings:
            shop = update_settings(session, shop, settings)
        for template in templates:
            lifecycle.start(session, shop, template, at=SYSTEM.now(), actor="test", **options)
    return shop


def carts(people: list[Somebody], at: datetime = AT, number: int = 0) -> list[Trigger]:
    """Each of them puts something into the cart."""
    return [
        Trigger(
            one.id, one.random_key, "cart.added",
            Event(
                new_id(), "test", f"cart-{one.random_key}-{number}", "cart.added", at, at, {},
                {"product_id": "p1", "quantity": 1},
            ),
            at, at,
        )
        for one in people
    ]  # fmt: skip


def decide(engine, shop_id, triggers, facts=None):
    facts = facts or table(len(triggers), open_cart=1.0, average_order_minor=3000.0)
    with for_shop(engine, shop_id) as session:
        return batch.decide(session, load_shop(session, shop_id), triggers, facts, recorded_at=SYSTEM.now())
