"""A backtest of a strategy over days it was live says what it did: the same engine, the same facts, nothing written."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from operation_agent import agent
from operation_agent.actions import planning
from operation_agent.customers import features
from operation_agent.decision import batch
from operation_agent.decision.facts import SCHEDULE, Trigger
from operation_agent.events.event import Event
from operation_agent.kit.errors import Rejected
from operation_agent.kit.ids import new_id
from operation_agent.rehearsal import backtest
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from operation_agent.strategies import lifecycle, live, vocabulary
from rules.strategy import parse

pytestmark = pytest.mark.integration

START = datetime(2026, 4, 1, tzinfo=UTC)
DAYS = 30

EMAIL = {
    "action": "email", "topic": "marketing", "subject": {"en": "Hello", "zh": "您好"},
    "body": {"en": "<p>{{ unsubscribe_url }}</p>", "zh": "<p>{{ unsubscribe_url }}</p>"},
}  # fmt: skip


def strategy(rule: dict, **changes):
    definition = {
        "key": "tried", "name": {"en": "Tried", "zh": "试"}, "goal": "conversion", "why": {"en": "why", "zh": "因"},
        "holdout": 0.2, "caps": [{"channel": "email", "count": 2, "window": "P10D"}],
        "rules": [rule],
    } | changes  # fmt: skip
    return parse(definition, vocabulary.vocabulary())


CARTS = {
    "key": "carts", "when": {"event": ["cart.added"], "frequency": "every_time", "cooldown": "P3D"},
    "if": {"all": [{"field": "customer.carts_7d", "op": "gte", "value": 2}]},
    "then": {"arms": [
        {"key": "plain", "steps": [EMAIL], "prior": {"increment": 0.01}},
        {"key": "coupon", "steps": [{"action": "coupon", "percent": 10}, EMAIL],
         "prior": {"increment": 0.03, "redemption": 0.1}},
    ]},
    "exit_on": ["order.paid"],
}  # fmt: skip


def event(number: int, type_: str, at: datetime, **properties) -> Event:
    return Event(
        new_id(), "test", f"{type_}-{number}-{at.isoformat()}", type_, at, at, {"external": f"c{number}"}, properties
    )


def stories(seed: int, customers: int = 60) -> list[Event]:
    """A month of carts and orders."""
    drawn = random.Random(seed)
    told = []
    for number in range(customers):
        at = START - timedelta(days=2)
        told.append(event(number, "consent.changed", at, channel="email", topic="marketing",
                          state="unsubscribed" if number % 10 == 0 else "subscribed"))  # fmt: skip
        while (at := at + timedelta(hours=drawn.expovariate(1 / 40))) < START + timedelta(days=DAYS):
            told.append(event(number, "cart.added", at, product_id="p1", quantity=1))
            if drawn.random() < 0.15:
                bought = at + timedelta(minutes=30)
                told.append(event(number, "order.paid", bought, order_id=f"{number}-{bought.isoformat()}",
                                  total_minor=4_000, discount_minor=0, currency="USD", quantity=1,
                                  discount_codes=[], products=[]))  # fmt: skip
    return sorted(told, key=lambda one: (one.occurred_at, one.source_id))


def started(engine, shop_id, definition):
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        lifecycle.create(session, shop, definition, at=START, actor="t")
        lifecycle.move(session, shop, definition.key, "live", at=START, actor="t")


def identified(engine, shop_id, customers: int = 60):
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        who = [
            Event(new_id(), "test", f"id-{n}", "customer.identified", START - timedelta(days=3), START,
                  {"external": f"c{n}", "email": f"c{n}@example.com"}, {"traits": {}})
            for n in range(customers)
        ]  # fmt: skip
        agent.observe(session, shop, who, recorded_at=START - timedelta(days=3))


def live_through(engine, shop_id, told: list[Event]):
    """Day after day through the real loop. Nothing is sent: planned messages count as any."""
    for day in range(-3, DAYS):
        since, until = START + timedelta(days=day), START + timedelta(days=day + 1)
        todays = [one for one in told if since <= one.occurred_at < until]
        if todays:
            with for_shop(engine, shop_id) as session:
                agent.observe(session, load_shop(session, shop_id), todays, recorded_at=until)


def decided(engine, shop_id) -> dict[str, Counter]:
    with for_shop(engine, shop_id) as session:
        rows = session.execute(
            text(
                "SELECT (decided_at AT TIME ZONE 'UTC')::date AS day, verdict, count(*) AS n FROM decisions"
                " WHERE shop_id = :s AND decided_at > :since GROUP BY 1, 2"
            ),
            {"s": shop_id, "since": START},
        ).all()
    found: dict[str, Counter] = {}
    for row in rows:
        found.setdefault(row.day.isoformat(), Counter())[row.verdict] = row.n
    return found


def rehearsed(engine, shop_id, definition, *, until=START + timedelta(days=DAYS), days=DAYS, **options):
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        real = session.execute(text("SELECT id FROM strategies WHERE shop_id = :s"), {"s": shop_id}).scalar()
        return backtest.run(session, shop, definition, days=days, until=until, real_id=real, **options)


def test_over_days_it_was_live_a_backtest_says_what_the_strategy_decided(engine, shop_id):
    tried = strategy(CARTS)
    identified(engine, shop_id)
    told = stories(1)
    live_through(engine, shop_id, [one for one in told if one.occurred_at <= START])
    started(engine, shop_id, tried)
    live_through(engine, shop_id, [one for one in told if one.occurred_at > START])
    really = decided(engine, shop_id)
    found = rehearsed(engine, shop_id, tried)
    days = {one["day"]: Counter(one["verdicts"]) for one in found.draft["days"] if one["decisions"]}
    assert days == really
    verdicts = found.draft["total"]["verdicts"]
    assert {"act", "holdout", "already_enrolled", "capped", "no_consent"} <= verdicts.keys()
    assert found.draft["total"]["ended"] == 0  # nothing is due later than its decision


def test_it_writes_nothing(engine, shop_id):
    identified(engine, shop_id)
    live_through(engine, shop_id, stories(2))
    before = counts(engine, shop_id)
    assert rehearsed(engine, shop_id, strategy(CARTS)).draft["total"]["decisions"] > 0
    assert counts(engine, shop_id) == before


def counts(engine, shop_id) -> dict[str, int]:
    with for_shop(engine, shop_id) as session:
        return {
            name: session.execute(text(f"SELECT count(*) FROM {name} WHERE shop_id = :s"), {"s": shop_id}).scalar()  # noqa: S608
            for name in ("decisions", "assignments", "enrolments", "actions", "budget_entries", "outbox", "runs")
        }


def test_a_scheduled_strategy_takes_everybody_as_of_each_due_time(engine, shop_id):
    rule = {**CARTS, "when": {"schedule": "0 9 * * 1", "frequency": "every_time", "cooldown": "P6D"},
            "if": {"field": "customer.carts_7d", "op": "gte", "value": 3}}  # fmt: skip
    tried = strategy(rule, budget={"limit": "100"})
    identified(engine, shop_id)
    live_through(engine, shop_id, stories(3))
    started(engine, shop_id, tried)
    mondays = [
        START + timedelta(days=day, hours=9) for day in range(DAYS) if (START + timedelta(days=day)).weekday() == 0
    ]
    for at in mondays:
        run_by_hand(engine, shop_id, at)
    found = rehearsed(engine, shop_id, tried)
    days = {one["day"]: Counter(one["verdicts"]) for one in found.draft["days"] if one["decisions"]}
    assert days == decided(engine, shop_id)
    assert len(days) == len(mondays)
    assert found.draft["total"]["verdicts"]["over_budget"] > 0
    assert found.draft["total"]["spend_minor"] <= 10_000


def test_money_goes_to_who_came_first_hour_by_hour(engine, shop_id):
    identified(engine, shop_id)
    live_through(engine, shop_id, stories(4))
    found = rehearsed(engine, shop_id, strategy(CARTS, budget={"limit": "100", "daily": "20"}))
    total = found.draft["total"]
    assert 0 < total["spend_minor"] <= 10_000
    assert all(one["spend_minor"] <= 2_000 for one in found.draft["days"])
    spent = [one["day"] for one in found.draft["days"] if one["spend_minor"]]
    assert spent[0] == "2026-04-01"
    assert spent[-1] < "2026-04-20"  # the first days use it up


def run_by_hand(engine, shop_id, at):
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        rules = frozenset(one.rule_id for one in live.live_rules(session, shop_id))
        table = features.compute_all(session, shop_id, at)
        triggers = [
            Trigger(customer_id, key, SCHEDULE, None, at, rule_ids=rules)
            for customer_id, key in zip(table.customer_ids, table.random_keys, strict=True)
        ]
        decisions = batch.decide(session, shop, triggers, table, recorded_at=at)
        planning.plan(session, shop, decisions, created_at=at)


def test_waits_and_goals_are_answered_by_what_really_happened(engine, shop_id):
    steps = [
        {"wait": {"event": ["order.paid"], "within": "P2D"}, "then": [{"exit": True}], "else": [EMAIL]},
        {"delay": "P1D"},
        {**EMAIL, "key": "second"},
    ]
    rule = {
        "key": "carts", "when": {"event": ["cart.added"], "frequency": "once"},
        "if": {"field": "customer.carts_7d", "op": "gte", "value": 1},
        "then": {"arms": [{"key": "slow", "steps": steps}]}, "exit_on": ["order.refunded"],
    }  # fmt: skip
    identified(engine, shop_id, customers=3)
    day = timedelta(days=1)
    told = []
    for number in range(3):
        told.append(
            event(number, "consent.changed", START - day, channel="email", topic="marketing", state="subscribed")
        )
        told.append(event(number, "cart.added", START + day, product_id="p", quantity=1))
    order = {"total_minor": 4_000, "discount_minor": 0, "currency": "USD", "quantity": 1, "discount_codes": [],
             "products": []}  # fmt: skip
    told.append(event(0, "order.paid", START + 2 * day, order_id="a", **order))  # in time: leaves
    told.append(event(1, "order.refunded", START + 3.5 * day, order_id="b", refund_id="r", amount_minor=1))  # ends it
    live_through(engine, shop_id, sorted(told, key=lambda one: one.occurred_at))
    tried = strategy(rule, holdout=0.0)
    with for_shop(engine, shop_id) as session:
        session.execute(text("UPDATE shops SET settings = '{\"global_holdout\": 0}' WHERE id = :s"), {"s": shop_id})
    found = rehearsed(engine, shop_id, tried)
    sends = {one["day"]: one["sends"] for one in found.draft["days"] if one["sends"]}
    # customers 1 and 2 get the first message after two days; the refund calls off the second one of customer 1
    assert sends == {"2026-04-04": {"email": 2}, "2026-04-05": {"email": 1}}
    assert found.draft["total"]["ended"] == 1
    assert rehearsed(engine, shop_id, tried, until=START + 2.5 * day, days=2).draft["total"]["under_way"] == 2


def test_against_the_live_version_the_difference_is_what_was_changed(engine, shop_id):
    identified(engine, shop_id)
    live_through(engine, shop_id, stories(5))
    now, wanted = strategy(CARTS), strategy(CARTS, caps=[{"channel": "email", "count": 1, "window": "P30D"}])
    found = rehearsed(engine, shop_id, wanted, live=now)
    assert found.against["total"]["decisions"] == rehearsed(engine, shop_id, now).draft["total"]["decisions"]
    assert found.diff["verdicts"]["capped"] > 0 > found.diff["sends"]["email"]
    same = rehearsed(engine, shop_id, now, live=now)
    assert same.diff == {}


def test_more_days_than_a_year_are_refused(engine, shop_id):
    with pytest.raises(Rejected, match="1 to 366"):
        rehearsed(engine, shop_id, strategy(CARTS), days=1_000)
