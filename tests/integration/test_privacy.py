"""To see one's data, or to be forgotten: all of it, provably, and without changing what was measured."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import text

from operation_agent.access.keys import create_key
from operation_agent.events import intake
from operation_agent.events.event import Event
from operation_agent.events.intake import PARTITIONS
from operation_agent.feedback import effects
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.privacy import requests
from operation_agent.privacy.holdings import HOLDINGS, KEPT_APART
from operation_agent.store import audit
from operation_agent.store.session import for_shop
from operation_agent.store.shops import create_shop, load_shop
from workers.privacy import settle
from workers.processing import drain

pytestmark = pytest.mark.integration

START = datetime(2026, 3, 2, 8, tzinfo=UTC)
PEOPLE = 40
WHO = 7
SECRETS = ("person-00007", "seventh@example.org", "+4915112345007", "7770000000007")
"""How the one who is forgotten is known: by our id, address, number, and the shop system's id."""


class Shop:
    """A sandbox with every shipped strategy live, people who agreed to mail, carts, orders and refunds."""

    def __init__(self, engine, client: httpx.Client):
        self.engine, self.client = engine, client
        made = create_shop(
            engine, slug=f"p-{new_id().hex[-12:]}", name="P", currency="USD", sandbox=True, seed="s", starts_at=START
        )
        self.id = made.id
        with for_shop(engine, made.id) as session:
            token, _ = create_key(session, made.id, "test", ["*"], SYSTEM.now())
        self.headers = {"Authorization": f"Bearer {token}"}
        for template in ("conversion", "retention", "repurchase", "win_back"):
            assert self.post("strategies", {"template": template, "budget": 500}).status_code == 201
        self._live()

    def get(self, path: str, **query: Any) -> httpx.Response:
        return self.client.get(f"/api/{path}", params=query, headers=self.headers)

    def post(self, path: str, body: object = None) -> httpx.Response:
        return self.client.post(f"/api/{path}", json=body, headers=self.headers)

    def run(self, statement: str, **values: Any) -> list[Any]:
        with for_shop(self.engine, self.id) as session:
            return list(session.execute(text(statement), {"shop": self.id, **values}))

    def send(self, batch: list[dict]) -> None:
        answer = self.client.post("/v1/batch", json={"batch": batch}, headers=self.headers)
        assert answer.json()["accepted"] == len(batch), answer.text
        self.process()

    def process(self) -> None:
        for partition in range(PARTITIONS):
            drain(self.engine, self.id, partition)

    def settle(self) -> int:
        return settle(self.engine, self.id, "")

    def _live(self) -> None:
        with for_shop(self.engine, self.id) as session:
            now = load_shop(session, self.id).now()
        first, later = [], []
        for n in range(PEOPLE):
            who = {"userId": f"person-{n:05}", "anonymousId": f"device-{n:05}"}
            email = SECRETS[1] if n == WHO else f"c{n}@example.com"
            traits = {"email": email, "phone": f"+49151123450{n:02}", "firstName": f"First{n:05}"}
            told = {"properties": {"channel": "email", "topic": "marketing", "state": "subscribed"}}
            first += [
                {"type": "identify", "messageId": f"i{n}", "traits": traits, "timestamp": now.isoformat(), **who,
                 "context": {"externalIds": [{"type": "shopify_customer_id", "id": f"77700000000{n:02}"}]}},
                {"type": "track", "messageId": f"k{n}", "event": "Consent Changed", "timestamp": now.isoformat(),
                 **told, **who},
                {"type": "track", "messageId": f"a{n}", "event": "Product Added", "timestamp": now.isoformat(), **who,
                 "properties": {"product_id": "p1", "price": 30, "quantity": 1, "note": f"for {email}"}},
            ]  # fmt: skip
            if n % 2:
                order = {"order_id": f"order-{n}", "total": 30, "products": [{"product_id": "p1", "price": 30}]}
                at = (now + timedelta(minutes=5)).isoformat()
                later.append({"type": "track", "messageId": f"o{n}", "event": "Order Completed", "timestamp": at,
                              "properties": order, **who})  # fmt: skip
        self.send(first)
        with for_shop(self.engine, self.id) as session:
            session.execute(
                text("UPDATE shops SET clock_offset = clock_offset + interval '2 hours' WHERE id = :shop"),
                {"shop": self.id},
            )
        self.send(later)

    def effects(self) -> list[tuple]:
        with for_shop(self.engine, self.id) as session:
            shop = load_shop(session, self.id)
            effects.compare(session, shop, as_of=START + timedelta(days=2), computed_at=SYSTEM.now())
            rows = session.execute(
                text(
                    "SELECT strategy_id, metric, treated, held_out, estimate, lower, upper FROM effects"
                    " WHERE shop_id = :shop AND computed_at = (SELECT max(computed_at) FROM effects"
                    " WHERE shop_id = :shop) ORDER BY 1, 2"
                ),
                {"shop": self.id},
            )
            return [tuple(row) for row in rows]

    def dump(self) -> str:
        """Everything that is stored about the shop, as text, but for what nobody can read (digests and seals)."""
        tables = self.run(
            "SELECT table_name AS name FROM information_schema.columns c JOIN information_schema.tables t"
            " USING (table_schema, table_name) WHERE table_schema = current_schema() AND column_name = 'shop_id'"
            " AND table_type = 'BASE TABLE' ORDER BY 1"
        )
        parts = []
        for table in tables:
            rows = self.run(f"SELECT to_jsonb(t) AS row FROM {table.name} t WHERE shop_id = :shop")  # noqa: S608
            parts += [orjson.dumps({table.name: row.row}).decode() for row in rows]
        return "\n".join(parts)


@pytest.fixture
def shop(engine, client) -> Shop:
    return Shop(engine, client)


def test_every_table_about_people_says_what_becomes_of_it(engine, shop_id):
    with for_shop(engine, shop_id) as session:
        rows = session.execute(
            text(
                "SELECT DISTINCT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
                " WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attname IN ('customer_id', 'event_id',"
                " 'identity', 'address', 'email', 'source_customer_id', 'from_customer_id', 'source_order_id',"
                " 'action_id', 'cart_token') AND EXISTS (SELECT 1 FROM pg_attribute s WHERE s.attrelid = c.oid"
                " AND s.attname = 'shop_id')"
            )
        )
        about_people = set(rows.scalars())
    assert about_people - {one.table for one in HOLDINGS} - set(KEPT_APART) == set()
    for one in HOLDINGS:
        assert one.erase or one.blank or one.why, f"{one.table} neither goes nor says why it stays"


def test_the_forgotten_are_nowhere_and_nothing_measured_changes(shop):
    before, dumped = shop.effects(), shop.dump()
    assert any(row[2] and row[3] for row in before), "nothing was measured"
    for secret in SECRETS:
        assert secret in dumped
    others = shop.run("SELECT count(*) AS n FROM customers")[0].n
    asked = shop.post("privacy/requests", {"kind": "erase", "subject": {"external": SECRETS[0]}})
    assert asked.status_code == 202, asked.text
    assert shop.settle() == 1
    dumped = shop.dump()
    for secret in (*SECRETS, "First00007", "device-00007"):
        assert secret not in dumped, [line[:300] for line in dumped.splitlines() if secret in line]
    assert "c8@example.com" in dumped
    assert shop.run("SELECT count(*) AS n FROM customers")[0].n == others - 1
    assert shop.effects() == before
    told = shop.get(f"privacy/requests/{asked.json()['id']}").json()
    assert told["state"] == "done"
    assert told["proof"]["rows"]["customers"] == 1
    assert told["proof"]["rows"]["events"] >= 4
    (entry,) = shop.run("SELECT detail FROM audit_log WHERE shop_id = :shop AND verb = 'privacy.done'")
    assert entry.detail["rows"] == told["proof"]["rows"]
    with for_shop(shop.engine, shop.id) as session:
        assert audit.verify(session, shop.id) is None


def test_planned_actions_of_the_forgotten_are_called_off_and_their_money_comes_back(shop):
    held = shop.run(
        "SELECT a.customer_id, sum(a.reserved_minor) AS reserved, count(*) AS n FROM actions a"
        " WHERE a.state = 'ready' AND NOT a.held_out GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 1"
    )[0]
    assert held.reserved
    budget = shop.run("SELECT sum(reserved_minor) AS n FROM budgets")[0].n
    shop.post("privacy/requests", {"kind": "erase", "subject": {"customer_id": str(held.customer_id)}})
    shop.settle()
    states = shop.run("SELECT DISTINCT state FROM actions WHERE customer_id = :who", who=held.customer_id)
    assert [row.state for row in states] == ["cancelled"]
    assert shop.run("SELECT sum(reserved_minor) AS n FROM budgets")[0].n == budget - held.reserved
    decision = shop.run("SELECT id FROM decisions WHERE customer_id = :who LIMIT 1", who=held.customer_id)[0].id
    answer = shop.get(f"decisions/{decision}")
    assert (answer.status_code, answer.json()["code"]) == (404, "erased")


def test_an_export_has_everything_once_and_goes_with_its_owner(shop):
    asked = shop.post("privacy/requests", {"kind": "export", "subject": {"email": "SEVENTH@example.org "}}).json()
    assert shop.get(f"privacy/requests/{asked['id']}/export").status_code == 409
    shop.settle()
    answer = shop.get(f"privacy/requests/{asked['id']}/export")
    assert answer.status_code == 200
    told = answer.json()
    for secret in SECRETS:
        assert secret in answer.text
    assert "person-00008" not in answer.text
    assert {"customers", "identities", "events", "timeline", "orders", "order_lines", "decisions"} <= told[
        "data"
    ].keys()
    assert len(told["data"]["orders"]) == 1
    shop.post("privacy/requests", {"kind": "erase", "subject": {"shopify": SECRETS[3]}})
    shop.settle()
    assert shop.get(f"privacy/requests/{asked['id']}/export").status_code == 409


def test_a_request_that_comes_by_webhook_is_done_once_and_names_nobody_afterwards(shop):
    at = SYSTEM.now()
    said = {"kind": "erase", "subject": {"shopify": SECRETS[3], "email": SECRETS[1], "orders": ["order-7"]}}
    for _ in range(2):
        event = Event(new_id(), "shopify", "privacy:erase:991", "privacy.requested", at, at, {}, said)
        with for_shop(shop.engine, shop.id) as session:
            intake.commit(session, shop.id, [event])
        shop.process()
    assert shop.settle() == 1
    assert shop.settle() == 0
    dumped = shop.dump()
    for secret in SECRETS:
        assert secret not in dumped
    (order,) = shop.run("SELECT total_minor, name FROM orders WHERE source_order_id = 'order-7'")
    assert tuple(order) == (3000, None)


def test_nobody_known_is_forgotten_already(shop):
    shop.post("privacy/requests", {"kind": "erase", "subject": {"email": "nobody@example.net"}})
    assert shop.settle() == 1
    assert shop.run("SELECT proof FROM privacy_requests")[0].proof["rows"] == {}


def test_a_shop_that_is_redacted_leaves_its_proof_and_nothing_else(shop, engine):
    other = Shop(engine, shop.client)
    before = other.dump()
    with for_shop(engine, shop.id) as session:
        requests.ask(
            session, load_shop(session, shop.id), "erase_shop", {}, source="shopify", source_id="privacy:erase_shop:1",
            actor="shopify", at=SYSTEM.now(),
        )  # fmt: skip
    shop.settle()
    left = {next(iter(orjson.loads(line))) for line in shop.dump().splitlines()}
    assert left <= {"audit_log", "privacy_requests", "schedule_ticks"}
    assert shop.run("SELECT count(*) AS n FROM privacy_requests WHERE state = 'done'")[0].n == 1
    assert other.dump() == before


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "erase", "subject": {}},
        {"kind": "erase"},
        {"kind": "forget", "subject": {"email": "a@b.c"}},
        {"kind": "erase", "subject": {"customer_id": "x"}},
        {"kind": "erase", "subject": {"email": 1}},
        {"kind": "erase", "subject": {"name": "Ann"}},
    ],
)
def test_a_request_about_nobody_is_refused_with_the_field(shop_id, client, engine, body):
    with for_shop(engine, shop_id) as session:
        token, _ = create_key(session, shop_id, "test", ["privacy:write"], SYSTEM.now())
    answer = client.post("/api/privacy/requests", json=body, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 400, answer.text
