"""What the tests of journeys share: a live strategy made of one arm, customers who do things, a clock of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from operation_agent import agent
from operation_agent.events.event import Event
from operation_agent.kit.ids import digest_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, load_shop, update_settings
from operation_agent.strategies import lifecycle
from operation_agent.strategies.vocabulary import vocabulary
from rules.strategy import parse

T0 = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BODY = {"en": "<p>Hello</p> {{ unsubscribe_url }}", "zh": "<p>你好</p> {{ unsubscribe_url }}"}


def mail(key: str, **more: Any) -> dict[str, Any]:
    return {"action": "email", "key": key, "subject": {"en": key, "zh": key}, "body": BODY, **more}


def wait(event: str, within: str, *, then: Sequence[Any] = (), otherwise: Sequence[Any] = (), **more: Any) -> Any:
    return {"wait": {"event": [event], "within": within, **more}, "then": list(then), "else": list(otherwise)}


def rule(steps: Sequence[Any], **more: Any) -> dict[str, Any]:
    return {
        "key": "rule", "when": {"event": ["cart.added"], "frequency": "every_time"},
        "if": {"field": "customer.orders", "op": "gte", "value": 0},
        "then": {"arms": [{"key": "arm", "weight": 1, "steps": list(steps)}]}, **more,
    }  # fmt: skip


def strategy(rules: Iterable[dict[str, Any]], **more: Any) -> dict[str, Any]:
    words = {"en": "Test", "zh": "试"}
    return {
        "key": "strategy", "name": words, "goal": "conversion", "why": words, "holdout": 0, "caps": [],
        "rules": list(rules), **more,
    }  # fmt: skip


@dataclass
class Walks:
    """A shop with one live strategy. Times are the shop's, which is the system's here."""

    engine: Engine
    shop: Shop
    people: dict[str, UUID] = field(default_factory=dict)
    told: int = 0

    def run(self, sql: str, **values: Any) -> list[Any]:
        with for_shop(self.engine, self.shop.id) as session:
            result = session.execute(text(sql), {"shop": self.shop.id, **values})
            return list(result.all()) if result.returns_rows else []

    def bring_live(self, definition: dict[str, Any]) -> None:
        with for_shop(self.engine, self.shop.id) as session:
            lifecycle.bring_live(session, self.shop, parse(definition, vocabulary()), at=T0 - DAY, actor="test")

    def change_settings(self, **settings: Any) -> None:
        with for_shop(self.engine, self.shop.id) as session:
            self.shop = update_settings(session, self.shop, settings)

    def event(self, who: str, type_: str, at: datetime, **properties: Any) -> Event:
        self.told += 1
        name = properties.pop("name", None)
        given = {"product_id": "p1", "quantity": 1} if type_.startswith("cart.") else {}
        return Event(
            digest_id("event", self.shop.slug, str(self.told)), "test", f"e{self.told}", type_, at, at,
            {"external": who}, {**given, **properties}, {}, name,
        )  # fmt: skip

    def observe(self, *events: Event, at: datetime | None = None) -> agent.Observed:
        """Take events in as the worker does: they stand in `events` first."""
        recorded_at = at or max(one.occurred_at for one in events)
        with for_shop(self.engine, self.shop.id) as session:
            for one in events:
                session.execute(
                    text(
                        "INSERT INTO events (shop_id, id, source, source_id, type, name, occurred_at, received_at,"
                        " identity, properties, context) VALUES (:shop, :id, :source, :source_id, :type, :name, :at,"
                        " :received, CAST(:identity AS jsonb), CAST(:properties AS jsonb), '{}')"
                    ),
                    {
                        "shop": self.shop.id, "id": one.id, "source": one.source, "source_id": one.source_id,
                        "type": one.type, "name": one.name, "at": one.occurred_at, "received": one.received_at,
                        "identity": _json(one.identity), "properties": _json(one.properties),
                    },
                )  # fmt: skip
            return agent.observe(session, self.shop, events, recorded_at=recorded_at)

    def does(self, who: str, type_: str, at: datetime, **properties: Any) -> agent.Observed:
        return self.observe(self.event(who, type_, at, **properties))

    def advance(self, at: datetime, *, limit: int = 1000) -> agent.Advanced:
        with for_shop(self.engine, self.shop.id) as session:
            return agent.advance(session, self.shop, recorded_at=at, limit=limit)

    def introduce(self, *names: str, time_zone: str | None = None) -> None:
        """Customers with an address who want to hear from the shop."""
        for name in names:
            traits = {"email": f"{name}@example.com", **({"timezone": time_zone} if time_zone else {})}
            self.observe(
                self.event(name, "customer.identified", T0 - DAY, traits=traits),
                self.event(name, "consent.changed", T0 - DAY, channel="email", topic="marketing", state="subscribed"),
            )
        for row in self.run("SELECT external_id, id FROM customers WHERE shop_id = :shop"):
            self.people[row.external_id] = row.id

    def actions(self, who: str | None = None, *, states: Sequence[str] = ("ready",)) -> list[tuple[str, timedelta]]:
        """What is planned: (subject, how long after T0), by time."""
        rows = self.run(
            "SELECT parameters -> 'subject' ->> 'en' AS subject, due_at FROM actions WHERE shop_id = :shop"
            " AND state = ANY(:states) AND (CAST(:who AS uuid) IS NULL OR customer_id = :who) ORDER BY due_at, step",
            states=list(states), who=self.people[who] if who else None,
        )  # fmt: skip
        return [(row.subject, row.due_at - T0) for row in rows]

    def one_run(self) -> Any:
        (row,) = self.run("SELECT * FROM runs WHERE shop_id = :shop")
        return row


def _json(value: Any) -> str:
    import orjson

    return orjson.dumps(value).decode()


def walks(engine: Engine, shop_id: UUID, definition: dict[str, Any], *names: str, **settings: Any) -> Walks:
    """A shop in which `definition` is live and `names` are customers."""
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        shop = update_settings(session, shop, {"global_holdout": 0, **settings})
    made = Walks(engine, shop)
    made.introduce(*names)
    made.bring_live(definition)
    return made
