"""Features against a plain recount in Python, as of any moment, for a batch and for everyone."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import text

from operation_agent.customers import features, history, identity
from operation_agent.customers.definitions import FEATURES, LABEL_NAMES, LABELS
from operation_agent.events.event import Event
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import create_shop, load_shop

pytestmark = pytest.mark.integration

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def event(at: datetime, type: str, who: str, **said) -> Event:
    return Event(new_id(), "test", new_id().hex, type, at, at, {"external": who}, said)


def paid(at: datetime, who: str, order: str, total: int, discount: int = 0, quantity: int = 1) -> Event:
    return event(
        at, "order.paid", who, order_id=order, total_minor=total, discount_minor=discount, currency="USD",
        quantity=quantity, discount_codes=[], products=[],
    )  # fmt: skip


def take(engine, shop_id: UUID, events: list[Event]) -> dict[str, UUID]:
    """External id -> customer."""
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        people = identity.resolve(session, shop, events)
        history.apply(session, shop, events, people)
    return {one.identity["external"]: people[one.id].customer_id for one in events}


def one(engine, shop_id: UUID, customer: UUID, as_of: datetime = NOW) -> dict:
    with for_shop(engine, shop_id) as session:
        table = features.compute(session, shop_id, [(customer, as_of)])
    return {name: column[0] for name, column in table.columns.items()}


def a_history(draw: random.Random, who: str) -> list[Event]:
    made = []
    for number in range(draw.randrange(25)):
        at = NOW - timedelta(minutes=draw.randrange(60 * 24 * 60), microseconds=draw.randrange(1_000_000))
        kind = draw.choice(["paid", "product.viewed", "product.viewed", "product.searched", "cart.added",
                            "checkout.started", "email.opened", "email.clicked", "page.viewed"])  # fmt: skip
        if kind == "paid":
            order = f"{who}-{number}"
            made.append(paid(at, who, order, draw.randrange(5000), draw.choice([0, 0, 300]), draw.randrange(1, 4)))
            if draw.random() < 0.4:
                made.append(
                    event(
                        at + draw.random() * 40 * DAY,
                        "order.refunded",
                        who,
                        order_id=order,
                        amount_minor=draw.randrange(200),
                    )
                )
            if draw.random() < 0.3:
                made.append(event(at + draw.random() * 40 * DAY, "order.cancelled", who, order_id=order))
        else:
            made.append(event(at, kind, who, product_id=draw.choice("abc")))
    return made


def recount(events: list[Event], as_of: datetime) -> dict[str, float]:
    """The same features from the events themselves, the plain way."""
    past = [one for one in events if one.occurred_at <= as_of]
    cancelled = {one.properties["order_id"] for one in past if one.type == "order.cancelled"}
    orders = sorted(
        (one for one in past if one.type == "order.paid" and one.properties["order_id"] not in cancelled),
        key=lambda one: one.occurred_at,
    )
    ids = {one.properties["order_id"] for one in orders}
    refunded = sum(
        one.properties["amount_minor"]
        for one in past
        if one.type == "order.refunded" and one.properties["order_id"] in ids
    )
    paid_sum = sum(one.properties["total_minor"] for one in orders)
    discount = sum(one.properties["discount_minor"] for one in orders)

    def count(kind: str, days: int) -> int:
        return sum(one.type == kind and one.occurred_at > as_of - days * DAY for one in past)

    def since(kind: str) -> float:
        times = [one.occurred_at for one in past if one.type == kind]
        return (as_of - max(times)) / DAY if times else math.nan

    views = Counter(
        one.properties["product_id"]
        for one in past
        if one.type == "product.viewed" and one.occurred_at > as_of - 7 * DAY
    )
    last = orders[-1].occurred_at if orders else datetime.min.replace(tzinfo=UTC)
    n = len(orders)
    return {
        "orders": n,
        "revenue_minor": paid_sum - refunded,
        "average_order_minor": paid_sum / n if n else math.nan,
        "days_since_order": (as_of - last) / DAY if n else math.nan,
        "days_since_first_order": (as_of - orders[0].occurred_at) / DAY if n else math.nan,
        "interpurchase_days": (last - orders[0].occurred_at) / DAY / (n - 1) if n > 1 else math.nan,
        "discount_share": discount / (paid_sum + discount) if paid_sum + discount else math.nan,
        "return_share": refunded / paid_sum if paid_sum else math.nan,
        "quantity": sum(one.properties["quantity"] for one in orders),
        "views_7d": count("product.viewed", 7),
        "views_30d": count("product.viewed", 30),
        "products_viewed_7d": len(views),
        "repeat_views_7d": max(views.values(), default=0),
        "searches_7d": count("product.searched", 7),
        "carts_7d": count("cart.added", 7),
        "checkouts_7d": count("checkout.started", 7),
        "days_since_view": since("product.viewed"),
        "days_since_cart": since("cart.added"),
        "days_since_search": since("product.searched"),
        "open_cart": any(
            one.type == "cart.added" and one.occurred_at > max(as_of - 7 * DAY, last) for one in past
        ),
        "opens_30d": count("email.opened", 30),
        "clicks_30d": count("email.clicked", 30),
    }  # fmt: skip


def test_a_batch_of_moments_and_everyone_agree_with_a_recount(engine):
    shop = create_shop(engine, slug="recount", name="r", currency="USD", sandbox=True, seed="test")
    draw = random.Random(7)
    told = {
        f"c{number}": [event(NOW - 90 * DAY, "page.viewed", f"c{number}"), *a_history(draw, f"c{number}")]
        for number in range(40)
    }
    ids = {}
    for story in told.values():
        ids |= take(engine, shop.id, story[:1])  # an e-mail's event makes no customer, so a visit comes first
        rest = story[1:]
        draw.shuffle(rest)
        take(engine, shop.id, rest)
    moments = [(who, NOW - draw.random() * 50 * DAY) for who in told for _ in range(5)] + [(who, NOW) for who in told]
    with for_shop(engine, shop.id) as session:
        table = features.compute(session, shop.id, [(ids[who], at) for who, at in moments])
        everyone = features.compute_all(session, shop.id, NOW)
    assert list(table.as_of) == [at for _, at in moments]
    for index, (who, at) in enumerate(moments):
        for name, expected in recount(told[who], at).items():
            assert table.columns[name][index] == pytest.approx(float(expected), nan_ok=True), (who, at, name)
    same = {customer: index for index, customer in enumerate(table.customer_ids) if table.as_of[index] == NOW}
    assert everyone.random_keys == sorted(everyone.random_keys)
    for index, customer in enumerate(everyone.customer_ids):
        for name in FEATURES:
            np.testing.assert_equal(everyone.columns[name][index], table.columns[name][same[customer]])
    assert_ranges_are_everyone(engine, shop.id, everyone)


def assert_ranges_are_everyone(engine, shop_id: UUID, everyone) -> None:
    """Three ranges of ids: each customer is in one of them, with the same features."""
    ordered = sorted(everyone.customer_ids)
    bounds = [UUID(int=0), ordered[9], ordered[25], ordered[-1]]
    place = {customer: index for index, customer in enumerate(everyone.customer_ids)}
    seen = []
    with for_shop(engine, shop_id) as session:
        for low, high in itertools.pairwise(bounds):
            part = features.compute_range(session, shop_id, NOW, low, high)
            assert part.random_keys == sorted(part.random_keys)
            seen += part.customer_ids
            for name in FEATURES:
                rows = [place[customer] for customer in part.customer_ids]
                np.testing.assert_equal(part.columns[name], everyone.columns[name][rows])
    assert sorted(seen) == ordered


@pytest.mark.parametrize(
    ("story", "stage"),
    [
        ([], "new"),
        ([("product.viewed", 20, "a")], "browsing"),
        ([("product.viewed", n, "a") for n in (1, 2, 3)], "research"),
        ([("product.viewed", 2, product) for product in "abcde"], "research"),
        ([("cart.added", 1, "a")], "decision"),
        ([("checkout.started", 3, "a")], "decision"),
        ([("checkout.started", 3, "a"), ("order", 2, "")], "customer"),
        ([("cart.added", 8, "a"), ("product.viewed", 8, "a")], "browsing"),
        ([("order", 40, ""), ("order", 50, "")], "repeat"),
        ([("order", 181, ""), ("order", 300, "")], "lapsed"),
        ([("order", 10, ""), ("product.viewed", 5, "a")], "browsing"),
    ],
)
def test_the_purchase_stage_follows_its_rule(engine, shop_id, story, stage):
    events = [event(NOW - 400 * DAY, "page.viewed", "c")]
    for number, (kind, days, product) in enumerate(story):
        at = NOW - days * DAY
        events.append(paid(at, "c", str(number), 100) if kind == "order" else event(at, kind, "c", product_id=product))
    assert one(engine, shop_id, take(engine, shop_id, events)["c"])["purchase_stage"] == stage


@pytest.mark.parametrize(
    ("orders", "level"),
    [
        ([(100, 50)], None),
        ([(100, 0), (100, 0)], "low"),
        ([(90, 10), (90, 10)], "high"),
        ([(97, 3)] + [(100, 0)] * 3, "medium"),
        ([(0, 0), (0, 0)], "low"),
    ],
)
def test_price_sensitivity_is_unknown_before_two_orders(engine, shop_id, orders, level):
    events = [paid(NOW - DAY, "c", str(n), total, discount) for n, (total, discount) in enumerate(orders)]
    assert one(engine, shop_id, take(engine, shop_id, events)["c"])["price_sensitivity"] == level


def test_engagement_counts_clicks_opens_and_views(engine, shop_id):
    stories = {
        "none": [("page.viewed", 1)], "low": [("email.opened", 1)], "medium": [("email.clicked", 1)],
        "high": [("email.clicked", 1), ("email.clicked", 2)],
    }  # fmt: skip
    first = {level: event(NOW - 90 * DAY, "page.viewed", level) for level in stories}
    ids = take(engine, shop_id, list(first.values()))
    take(engine, shop_id, [event(NOW - d * DAY, kind, level) for level, story in stories.items() for kind, d in story])
    for level, customer in ids.items():
        assert one(engine, shop_id, customer)["engagement_level"] == level


def test_only_messages_really_sent_before_the_moment_count(engine, shop_id):
    customer = take(engine, shop_id, [event(NOW - 90 * DAY, "page.viewed", "c")])["c"]
    cases = [
        ("sent", "email", False, 1),  # the one that counts
        ("sent", "email", True, 1),
        ("sent", "coupon", False, 1),
        ("sent", "email", False, 31),
        ("sent", "email", False, -1),
        ("failed", "email", False, 1),
    ]
    with for_shop(engine, shop_id) as session:
        for number, (state, channel, held_out, days) in enumerate(cases):
            session.execute(
                text(
                    "INSERT INTO actions (shop_id, id, decision_id, customer_id, strategy_id, rule_id, arm, step, type,"
                    " channel, held_out, parameters, dedupe_key, state, decided_at, due_at, sent_at, created_at)"
                    " VALUES (:s, :id, :id, :c, :id, :id, 'x', 0, 'email', :channel, :held, '{}', :key, :state,"
                    " :at, :at, :at, :at)"
                ),
                {"s": shop_id, "id": new_id(), "c": customer, "channel": channel, "held": held_out, "key": str(number),
                 "state": state, "at": NOW - days * DAY},
            )  # fmt: skip
    assert one(engine, shop_id, customer)["messages_30d"] == 1


def test_what_is_stored_is_what_is_loaded_and_the_newest_stands(engine):
    shop = create_shop(engine, slug="stored", name="r", currency="USD", sandbox=True, seed="test")
    draw = random.Random(3)
    for number in range(20):
        take(engine, shop.id, [event(NOW - 90 * DAY, "page.viewed", f"c{number}"), *a_history(draw, f"c{number}")])
    with for_shop(engine, shop.id) as session:
        now, before = (features.compute_all(session, shop.id, at) for at in (NOW, NOW - 20 * DAY))
        for table in (before, now, before):
            features.store(session, shop.id, table)
        assert_same(features.load_all(session, shop.id), now)


def test_many_rows_are_stored_as_few_are(engine, monkeypatch):
    monkeypatch.setattr(features, "_BULK_ROWS", 2)
    shop = create_shop(engine, slug="bulk", name="r", currency="USD", sandbox=True, seed="test")
    draw = random.Random(4)
    for number in range(20):
        take(engine, shop.id, [event(NOW - 90 * DAY, "page.viewed", f"c{number}"), *a_history(draw, f"c{number}")])
    with for_shop(engine, shop.id) as session:
        table = features.compute_all(session, shop.id, NOW)
        features.store(session, shop.id, table)
        features.store(session, shop.id, table)
        assert_same(features.load_all(session, shop.id), table)


def test_two_moments_of_one_customer_in_a_table_store_the_later(engine, shop_id):
    customer = take(engine, shop_id, [paid(NOW - 3 * DAY, "c", "1", 100)])["c"]
    with for_shop(engine, shop_id) as session:
        features.store(
            session, shop_id, features.compute(session, shop_id, [(customer, NOW), (customer, NOW - 5 * DAY)])
        )
        (row,) = session.execute(text("SELECT as_of, orders, interpurchase_days FROM customer_features")).all()
    assert tuple(row) == (NOW, 1, None)


def assert_same(one, other) -> None:
    assert one.customer_ids == other.customer_ids
    assert one.random_keys == other.random_keys
    assert one.as_of == other.as_of
    for name in FEATURES:
        np.testing.assert_equal(one.columns[name], other.columns[name])


def test_nobody_asked_about_is_an_empty_table(engine, shop_id):
    with for_shop(engine, shop_id) as session:
        table = features.compute(session, shop_id, [])
        features.store(session, shop_id, table)
        assert (
            len(table)
            == len(features.load_all(session, shop_id))
            == len(features.compute_all(session, shop_id, NOW))
            == 0
        )


def test_a_merged_customer_is_not_among_everyone(engine, shop_id):
    take(engine, shop_id, [paid(NOW - DAY, "c", "1", 100)])
    visitor = Event(new_id(), "test", "v", "page.viewed", NOW - DAY, NOW, {"anonymous": "a"}, {})
    joining = Event(new_id(), "test", "j", "page.viewed", NOW, NOW, {"anonymous": "a", "external": "c"}, {})
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        for batch in ([visitor], [joining]):
            history.apply(session, shop, batch, identity.resolve(session, shop, batch))
        assert features.compute_all(session, shop_id, NOW).columns["orders"].tolist() == [1.0]


def test_the_columns_of_the_table_are_the_features(engine, shop_id):
    with for_shop(engine, shop_id) as session:
        names = session.execute(
            text(
                "SELECT column_name FROM information_schema.columns WHERE table_name = 'customer_features'"
                " ORDER BY ordinal_position"
            )
        )
        columns = [name for (name,) in names]
    assert columns[3:] == list(FEATURES)
    assert {name for name, feature in FEATURES.items() if feature.kind == "label"} == set(LABELS) == set(LABEL_NAMES)
    assert all(set(LABEL_NAMES[name]) == set(values) for name, values in LABELS.items())
