"""Campaigns on real PostgreSQL: everybody once, in order, whatever is killed, paused, cancelled or changed meanwhile."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import Engine, text

from operation_agent.campaigns import chunks, due, records, steering
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Conflict, NotFound, Rejected
from operation_agent.kit.ids import digest_id, new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, load_shop
from operation_agent.strategies import lifecycle
from rules import strategy as definitions
from operation_agent.strategies.vocabulary import vocabulary
from workers import campaigns as lane

pytestmark = pytest.mark.integration

AT = datetime(2026, 3, 2, 12, tzinfo=UTC)
DAY = timedelta(days=1)

MAIL = {
    "action": "email",
    "subject": {"en": "Hello", "zh": "您好"},
    "body": dict.fromkeys(("en", "zh"), "<p>Hello</p><a href='{{ unsubscribe_url }}'>no more</a>"),
}


def written(key: str, *, schedule: str = "0 12 * * *", rules: int = 1, **changes: Any) -> dict[str, Any]:
    """A strategy of cron rules that write to whoever has bought, no more often than once."""
    rule = {
        "when": {"schedule": schedule, "frequency": "once"},
        "if": {"field": "customer.orders", "op": "gte", "value": 1},
        "then": {"arms": [{"key": "mail", "weight": 1, "steps": [MAIL], "prior": {"increment": 0.1, "redemption": 0}}]},
    }
    return {
        "key": key, "name": {"en": key, "zh": key}, "goal": "repurchase", "why": {"en": "to test", "zh": "测试"}, "holdout": 0.2,
        "rules": [{"key": f"r{number}", "priority": -number, **rule} for number in range(rules)], **changes,
    }  # fmt: skip


@dataclass
class Place:
    engine: Engine
    shop_id: UUID

    def run(self, sql: str, **values: Any) -> list[Any]:
        with for_shop(self.engine, self.shop_id) as session:
            result = session.execute(text(sql), {"shop": self.shop_id, **values})
            return list(result.all()) if result.returns_rows else []

    @property
    def shop(self) -> Shop:
        with for_shop(self.engine, self.shop_id) as session:
            return load_shop(session, self.shop_id)

    def strategy(self, key: str, **changes: Any) -> UUID:
        """A live strategy, since long ago."""
        found = definitions.parse(written(key, **changes), vocabulary())
        with for_shop(self.engine, self.shop_id) as session:
            shop = load_shop(session, self.shop_id)
            row = lifecycle.create(session, shop, found, at=SYSTEM.now(), actor="test")
            lifecycle.move(session, shop, key, "live", at=SYSTEM.now(), actor="test")
        self.run("UPDATE strategies SET started_at = :at WHERE shop_id = :shop", at=AT - 100 * DAY)
        return row.id

    def people(self, numbers: range, *, orders: int = 1, prefix: str = "p") -> list[UUID]:
        """Customers who said yes and bought; customer n for 1000 + 100 n cents."""
        made = [(new_id(), digest_id(prefix, str(number)), number) for number in numbers]
        values = {"ids": [one[0] for one in made], "keys": [one[1] for one in made],
                  "numbers": [one[2] for one in made], "at": AT - 30 * DAY}  # fmt: skip
        rows = "unnest(CAST(:ids AS uuid[]), CAST(:keys AS uuid[]), CAST(:numbers AS int[])) AS r (id, key, number)"
        self.run(
            "INSERT INTO customers (shop_id, id, random_key, email, first_seen_at, last_seen_at, created_at)"
            f" SELECT :shop, id, key, key || '@example.com', :at, :at, :at FROM {rows}",  # noqa: S608
            **values,
        )
        self.run(
            "INSERT INTO consents (shop_id, customer_id, channel, topic, state, changed_at, event_id)"
            f" SELECT :shop, id, 'email', 'marketing', 'subscribed', :at, id FROM {rows}",  # noqa: S608
            **values,
        )
        self.run(
            "INSERT INTO orders (shop_id, id, source_order_id, customer_id, ordered_at, currency, total_minor,"
            f" updated_at, event_id) SELECT :shop, gen_random_uuid(), key || '-' || n, id, :at, 'USD',"
            f" 1000 + 100 * number, :at, id FROM {rows}, generate_series(1, :orders) n",  # noqa: S608
            **values, orders=orders,
        )  # fmt: skip
        return values["ids"]

    def wake(self, after: datetime, until: datetime) -> int:
        with for_shop(self.engine, self.shop_id) as session:
            return due.wake(session, load_shop(session, self.shop_id), after=after, until=until, at=SYSTEM.now())

    def work(self, seconds: float = 60) -> int:
        return lane.run(self.engine, self.shop_id, "0", seconds=seconds)

    def campaigns(self) -> list[Any]:
        return self.run("SELECT * FROM campaigns WHERE shop_id = :shop ORDER BY due_at, id")

    def decided(self) -> list[tuple[Any, ...]]:
        """What was decided, in stable terms."""
        rows = self.run(
            "SELECT c.random_key, r.key, d.decided_at, d.verdict, d.arm FROM decisions d"
            " JOIN customers c ON c.shop_id = d.shop_id AND c.id = d.customer_id"
            " JOIN rules r ON r.shop_id = d.shop_id AND r.id = d.rule_id AND r.version = d.rule_version"
            " WHERE d.shop_id = :shop ORDER BY 1, 2, 3, 4"
        )
        return [tuple(row) for row in rows]

    def actions(self) -> Counter:
        return Counter(row.state for row in self.run("SELECT state FROM actions WHERE shop_id = :shop"))

    def open_ticks(self) -> int:
        return self.run("SELECT count(*) FROM schedule_ticks WHERE shop_id = :shop AND finished_at IS NULL")[0][0]


@pytest.fixture
def place(engine, shop_id) -> Place:
    return Place(engine, shop_id)


@pytest.fixture
def small_chunks(monkeypatch) -> None:
    monkeypatch.setattr(chunks, "MOST", 7)


def test_rules_due_at_the_same_instant_are_one_campaign_that_takes_everybody_once(place, small_chunks):
    place.strategy("a", rules=2)
    place.strategy("b")
    place.people(range(40))
    assert place.wake(AT - DAY, AT) == 3
    assert place.wake(AT - DAY, AT) == 0  # a second scheduler
    (campaign,) = place.campaigns()
    assert (campaign.state, campaign.due_at, len(campaign.rules)) == ("preparing", AT, 3)
    place.work()
    (campaign,) = place.campaigns()
    assert campaign.state == "finished"
    assert place.open_ticks() == 0
    done = place.run("SELECT * FROM campaign_chunks WHERE shop_id = :shop ORDER BY number")
    assert [row.state for row in done] == ["done"] * 6
    assert sum(row.customers for row in done) == 40
    taken = Counter((key, rule) for key, rule, *_ in place.decided())
    assert set(taken.values()) == {1}
    assert Counter(rule for _, rule in taken) == Counter({"a/r0": 40, "a/r1": 40, "b/r0": 40}) or len(taken) == 80
    assert sum(row.decided for row in done) == len(place.decided())
    verdicts = Counter(row[3] for row in place.decided())
    assert sum((Counter(row.verdicts) for row in done), Counter()) == verdicts
    assert sum(row.actions for row in done) == place.actions().total()
