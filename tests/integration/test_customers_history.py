"""Identity and history on a real PostgreSQL: any order of arrival gives the same rows; merges move everything."""

from __future__ import annotations

import random
import threading
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from operation_agent.customers import consent, history, identity
from operation_agent.events.event import Event
from operation_agent.kit.ids import digest_id, new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import create_shop, load_shop

pytestmark = pytest.mark.integration

START = datetime(2026, 3, 1, tzinfo=UTC)


def event(minute: int, type: str, properties: dict | None = None, **identity: str) -> Event:
    at = START + timedelta(minutes=minute)
    return Event(new_id(), "test", new_id().hex, type, at, at, identity, properties or {})


def paid(minute: int, order: str, total: int = 1000, **identity: str) -> Event:
    said = {"order_id": order, "total_minor": total, "discount_minor": 0, "currency": "USD", "quantity": 1}
    return event(minute, "order.paid", {**said, "discount_codes": ["A"], "products": []}, **identity)


def take(engine, shop_id: UUID, *events: Event) -> dict:
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        people = identity.resolve(session, shop, events)
        history.apply(session, shop, events, people)
    return people


def rows(engine, shop_id: UUID, sql: str) -> list[tuple]:
    with for_shop(engine, shop_id) as session:
        return [tuple(row) for row in session.execute(text(sql), {"s": shop_id})]


STORY = [
    event(1, "page.viewed", anonymous="a"),
    event(2, "product.viewed", {"product_id": "p", "price_minor": 500}, anonymous="a"),
    event(3, "customer.identified", {"traits": {"email": "m@x.com", "plan": "free"}}, anonymous="a", email="m@x.com"),
    event(4, "customer.identified", {"traits": {"plan": "paid"}}, external="7", anonymous="a"),
    paid(5, "o1", 900, external="7"),
    paid(8, "o1", 1100, external="7"),
    event(9, "order.refunded", {"order_id": "o1", "refund_id": "r", "amount_minor": 300}, external="7"),
    event(10, "order.refunded", {"order_id": "o1", "refund_id": "r", "amount_minor": 300}),
    event(11, "order.refunded", {"order_id": "o1", "amount_minor": 50}),
    paid(12, "o2", 400, email="m@x.com"),
    event(13, "order.cancelled", {"order_id": "o2"}),
    event(14, "consent.changed", {"channel": "email", "topic": "marketing", "state": "subscribed"}, external="7"),
    event(20, "email.unsubscribed", {"address": "m@x.com"}, email="m@x.com"),
    event(25, "consent.changed", {"channel": "email", "topic": "marketing", "state": "subscribed"}, external="7"),
    event(26, "consent.changed", {"channel": "sms", "topic": "marketing", "state": "unsubscribed"}, external="7"),
    event(27, "email.bounced", {"address": "b@x.com", "permanent": True}, email="b@x.com"),
    event(28, "email.bounced", {"address": "m@x.com", "permanent": False}, email="m@x.com"),
]


def state(engine, shop_id: UUID) -> dict[str, list[tuple]]:
    queries = {
        "customers": "SELECT random_key, external_id, email, traits, trait_times, first_seen_at, last_seen_at"
        " FROM customers WHERE merged_into IS NULL",
        "identities": "SELECT kind, value, first_seen_at FROM identities ORDER BY 1, 2",
        "orders": "SELECT source_order_id, customer_id IS NULL, ordered_at, total_minor, refunded_minor, quantity,"
        " discount_codes, cancelled_at, updated_at, event_id FROM orders ORDER BY 1",
        "consents": "SELECT channel, topic, state, changed_at, event_id FROM consents ORDER BY 1, 2",
        "changes": "SELECT channel, topic, state, changed_at, event_id FROM consent_changes ORDER BY 1, 2, 4",
        "suppressions": "SELECT address, reason, created_at FROM suppressions ORDER BY 1",
        "timeline": "SELECT occurred_at, event_id, type, product_id, amount_minor FROM timeline ORDER BY 1, 2",
    }
    return {name: rows(engine, shop_id, sql) for name, sql in queries.items()}


def told(engine, story: list[Event], batch: int) -> dict[str, list[tuple]]:
    shop = create_shop(engine, slug=f"h-{new_id().hex[-12:]}", name="h", currency="USD", sandbox=True, seed="test")
    for start in range(0, len(story), batch):
        take(engine, shop.id, *story[start : start + batch])
    return state(engine, shop.id)


def test_the_story_told_in_order(engine):
    found = told(engine, STORY, 5)
    assert found["orders"][0][:5] == ("o1", False, START + timedelta(minutes=5), 1100, 350)
    assert found["orders"][1][7] == START + timedelta(minutes=13)
    assert [row[:3] for row in found["consents"]] == [
        ("email", "marketing", "subscribed"),
        ("sms", "marketing", "unsubscribed"),
    ]
    assert found["suppressions"] == [("b@x.com", "bounced", START + timedelta(minutes=27))]
    assert found["customers"][0][1:4] == ("7", "m@x.com", {"email": "m@x.com", "plan": "paid"})


@pytest.mark.parametrize("seed", range(10))
def test_any_order_of_arrival_gives_the_same_orders_consents_and_timeline(engine, seed):
    """Provider events (which never make a customer) come after the first sign of theirs; all else in any order."""
    shuffled = STORY[4:]
    draw = random.Random(seed)
    draw.shuffle(shuffled)
    story = STORY[:4] + shuffled
    assert told(engine, story, draw.choice([1, 3, 20])) == told(engine, STORY, 20)


def test_the_same_events_again_change_nothing(engine, shop_id):
    take(engine, shop_id, *STORY)
    before = state(engine, shop_id)
    take(engine, shop_id, *STORY)
    assert state(engine, shop_id) == before


def test_a_refund_before_its_order_waits_for_it(engine, shop_id):
    take(engine, shop_id, event(5, "order.refunded", {"order_id": "o", "amount_minor": 70}))
    take(engine, shop_id, event(6, "order.cancelled", {"order_id": "o"}))
    assert rows(engine, shop_id, "SELECT * FROM orders") == []
    take(engine, shop_id, paid(1, "o"))
    assert rows(engine, shop_id, "SELECT refunded_minor, cancelled_at, customer_id FROM orders") == [
        (70, START + timedelta(minutes=6), None)
    ]


def test_a_merge_moves_everything_and_remembers(engine, shop_id):
    people = take(engine, shop_id, *(first := [paid(1, "o1", external="7"), paid(2, "o2", anonymous="a")]))
    older, younger = (people[one.id].customer_id for one in first)
    strategy, rule, both = new_id(), new_id(), new_id()
    with for_shop(engine, shop_id) as session:
        for customer, minute in ((older, 9), (younger, 3)):
            session.execute(
                text(
                    "INSERT INTO assignments (shop_id, strategy_id, customer_id, held_out, propensity, assigned_at,"
                    " decision_id) VALUES (:s, :strategy, :c, :held, 0.5, :at, :d)"
                ),
                {"s": shop_id, "strategy": strategy, "c": customer, "held": customer == younger, "d": new_id(),
                 "at": START + timedelta(minutes=minute)},
            )  # fmt: skip
            session.execute(
                text(
                    "INSERT INTO enrolments (shop_id, rule_id, customer_id, key, entered_at, entries, decision_id)"
                    " VALUES (:s, :rule, :c, '', :at, 2, :d)"
                ),
                {"s": shop_id, "rule": rule, "c": customer, "at": START + timedelta(minutes=minute), "d": both},
            )
    joining = event(30, "page.viewed", external="7", anonymous="a")
    assert take(engine, shop_id, joining)[joining.id].customer_id == older
    assert rows(engine, shop_id, "SELECT id, merged_into FROM customers ORDER BY first_seen_at") == [
        (older, None), (younger, older),
    ]  # fmt: skip
    for table in ("identities", "timeline", "orders", "assignments", "enrolments"):
        owners = rows(engine, shop_id, f"SELECT DISTINCT customer_id FROM {table}")  # noqa: S608 - names from above
        assert owners == [(older,)]
    assert rows(engine, shop_id, "SELECT held_out, assigned_at FROM assignments") == [
        (True, START + timedelta(minutes=3))
    ]
    assert rows(engine, shop_id, "SELECT entries, entered_at FROM enrolments") == [(4, START + timedelta(minutes=9))]
    (merged,) = rows(
        engine, shop_id, "SELECT from_customer_id, into_customer_id, event_id, before FROM customer_merges"
    )
    assert merged[:3] == (younger, older, joining.id)
    assert merged[3]["identities"] == [{"kind": "anonymous", "value": "a"}]
    assert merged[3]["assignments"][0]["strategy_id"] == str(strategy)


def test_a_chain_of_merges_ends_at_one_customer(engine, shop_id):
    take(engine, shop_id, paid(3, "o1", anonymous="a"))
    take(engine, shop_id, paid(2, "o2", anonymous="b"))
    take(engine, shop_id, paid(1, "o3", email="m@x.com"))
    take(engine, shop_id, event(5, "customer.aliased", anonymous="a", previous="b"))
    last = event(6, "page.viewed", anonymous="a", email="m@x.com")
    survivor = take(engine, shop_id, last)[last.id].customer_id
    merged = rows(engine, shop_id, "SELECT DISTINCT merged_into FROM customers WHERE merged_into IS NOT NULL")
    assert merged == [(survivor,)]
    assert rows(engine, shop_id, "SELECT count(*) FROM orders o JOIN customers c ON c.id = o.customer_id"
                                 " WHERE c.merged_into IS NULL") == [(3,)]  # fmt: skip


def test_a_providers_event_belongs_to_the_customer_of_its_action(engine, shop_id):
    bought = paid(1, "o", external="7")
    customer = take(engine, shop_id, bought)[bought.id].customer_id
    action = new_id()
    with for_shop(engine, shop_id) as session:
        session.execute(
            text(
                "INSERT INTO actions (shop_id, id, decision_id, customer_id, strategy_id, rule_id, arm, step, type,"
                " channel, held_out, parameters, dedupe_key, state, decided_at, due_at, created_at) VALUES (:s, :a, :a,"
                " :c, :a, :a, 'x', 0, 'email', 'email', false, '{}', 'k', 'sent', :at, :at, :at)"
            ),
            {"s": shop_id, "a": action, "c": customer, "at": START},
        )
    opened = event(9, "email.opened", {"address": "elsewhere@x.com", "action_id": str(action)}, email="elsewhere@x.com")
    unknown = event(
        9, "email.opened", {"address": "elsewhere@x.com", "action_id": "not an id"}, email="elsewhere@x.com"
    )
    people = take(engine, shop_id, opened, unknown)
    assert people[opened.id].customer_id == customer
    assert people[unknown.id] is None


def test_workers_that_meet_the_same_new_people_at_once_make_each_once(engine, shop_id):
    batches = [
        [event(n, "page.viewed", anonymous=f"a{n % 20}", email=f"m{n % 20}@x.com") for n in range(60)] for _ in range(4)
    ]
    failures: list[BaseException] = []

    def work(batch: list[Event]) -> None:
        try:
            take(engine, shop_id, *batch)
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(batch,)) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert rows(engine, shop_id, "SELECT count(*), count(DISTINCT random_key) FROM customers") == [(20, 20)]
    assert rows(engine, shop_id, "SELECT count(*), count(DISTINCT customer_id) FROM timeline") == [(240, 20)]


def test_consent_and_suppression_are_read_as_written(engine, shop_id):
    people = take(engine, shop_id, *STORY)
    customer = people[STORY[4].id].customer_id
    with for_shop(engine, shop_id) as session:
        assert consent.states(session, shop_id, [customer, new_id()]) == {
            (customer, "email", "marketing"): "subscribed",
            (customer, "sms", "marketing"): "unsubscribed",
        }
        assert consent.suppressed(session, shop_id, "email", ["b@x.com", "m@x.com"]) == {"b@x.com": "bounced"}
        assert consent.suppressed(session, shop_id, "sms", ["b@x.com"]) == {}


def test_the_random_key_comes_from_the_seed_and_the_first_identity(engine, shop_id):
    one = event(1, "page.viewed", external="7", email="m@x.com")
    assert take(engine, shop_id, one)[one.id].random_key == digest_id("test", "external", "7")


def test_an_open_by_a_mail_program_is_no_sign_of_its_reader(engine, shop_id):
    take(engine, shop_id, event(0, "page.viewed", email="m@x.com", external="9"))
    opened = [
        event(1, "email.opened", {"address": "m@x.com", "machine_open": True}, email="m@x.com"),
        event(2, "email.opened", {"address": "m@x.com"}, email="m@x.com"),
    ]
    take(engine, shop_id, *opened)
    assert rows(engine, shop_id, "SELECT event_id FROM timeline WHERE type = 'email.opened'") == [(opened[1].id,)]
