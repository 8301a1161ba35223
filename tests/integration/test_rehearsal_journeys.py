"""A backtest walks customers as the real loop walked them: through waits, branches, delays, held out or not; and asks
schedules by the customers' clocks, missed goals and past complaints as the live strategy does."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from sqlalchemy import text

from operation_agent import agent
from operation_agent.actions import planning
from operation_agent.customers import features
from operation_agent.decision import batch
from operation_agent.decision.facts import SCHEDULE, Trigger
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from operation_agent.strategies import calendar
from tests.integration.test_rehearsal_backtest import (
    CARTS,
    EMAIL,
    START,
    decided,
    event,
    identified,
    live_through,
    rehearsed,
    started,
    stories,
    strategy,
)

pytestmark = pytest.mark.integration

DAYS = 16
UNTIL = START + timedelta(days=DAYS)
STEPS = [
    {"wait": {"event": ["order.paid"], "within": "PT6H"}, "then": [{"exit": True}], "else": [{**EMAIL, "key": "one"}]},
    {"delay": "PT20H"},
    {
        "if": {"field": "customer.orders", "op": "gte", "value": 1},
        "then": [{"action": "coupon", "percent": 10}, {**EMAIL, "key": "two"}],
        "else": [{"wait": {"event": ["cart.added"], "within": "P2D"}, "then": [{**EMAIL, "key": "three"}]}],
    },
]


def lived(engine, shop_id, told):
    """Every event at its own time, and whoever's wait is over led on before it: nothing is late."""
    for one in told:
        if one.occurred_at <= UNTIL:
            with for_shop(engine, shop_id) as session:
                shop = load_shop(session, shop_id)
                agent.advance(session, shop, recorded_at=one.occurred_at)
                agent.observe(session, shop, [one], recorded_at=one.occurred_at)
    with for_shop(engine, shop_id) as session:
        agent.advance(session, load_shop(session, shop_id), recorded_at=UNTIL)


def planned(engine, shop_id) -> Counter:
    """What would have gone out by the end: actions of the treated whose run was not left before they were due."""
    with for_shop(engine, shop_id) as session:
        rows = session.execute(
            text(
                "SELECT (due_at AT TIME ZONE 'UTC')::date AS day, type, count(*) AS n FROM actions"
                " WHERE shop_id = :s AND NOT held_out AND state = 'ready' AND due_at <= :until GROUP BY 1, 2"
            ),
            {"s": shop_id, "until": UNTIL},
        ).all()
    return Counter({(row.day.isoformat(), row.type): row.n for row in rows})


def sends(found) -> Counter:
    return Counter(
        {(day["day"], type_): n for day in found.draft["days"] for type_, n in day["sends"].items()}
    )  # fmt: skip


def verdicts(found) -> dict[str, Counter]:
    return {one["day"]: Counter(one["verdicts"]) for one in found.draft["days"] if one["decisions"]}


@pytest.mark.parametrize("seed", [1, 2])
def test_sends_and_verdicts_are_those_of_the_real_runs(engine, shop_id, seed):
    rule = {**CARTS, "when": {"event": ["cart.added"], "frequency": "every_time", "cooldown": "P2D"},
            "then": {"arms": [{"key": "way", "steps": STEPS, "prior": {"increment": 0.02, "redemption": 0.1}}]},
            "if": {"field": "customer.carts_7d", "op": "gte", "value": 1}, "exit_on": ["order.refunded"]}  # fmt: skip
    tried = strategy(rule, caps=[{"channel": "email", "count": 2, "window": "P6D"}],
                     quiet_hours={"start": "22:00", "end": "07:00"})  # fmt: skip
    identified(engine, shop_id, customers=24)
    told = stories(seed, customers=24)
    live_through(engine, shop_id, [one for one in told if one.occurred_at <= START])
    started(engine, shop_id, tried)
    lived(engine, shop_id, [one for one in told if one.occurred_at > START])
    found = rehearsed(engine, shop_id, tried, until=UNTIL, days=DAYS)
    assert verdicts(found) == decided(engine, shop_id)
    assert sends(found) == planned(engine, shop_id)
    total = found.draft["total"]
    assert {"act", "holdout", "capped", "already_enrolled"} <= total["verdicts"].keys()
    assert total["sends"]["coupon"] and total["moved"] and total["under_way"]


def test_a_missed_goal_counts_from_the_first_day_on_and_is_decided_when_its_time_is_up(engine, shop_id):
    rule = {**CARTS, "when": {"missed": {"event": ["cart.added"], "goal": ["order.paid"], "within": "P1D"},
                              "frequency": "every_time", "cooldown": "P1D"},
            "if": {"field": "customer.carts_7d", "op": "gte", "value": 1}}  # fmt: skip
    tried = strategy(rule)
    identified(engine, shop_id, customers=24)
    told = stories(3, customers=24)
    live_through(engine, shop_id, [one for one in told if one.occurred_at <= START])
    started(engine, shop_id, tried)
    lived(engine, shop_id, [one for one in told if one.occurred_at > START])
    found = rehearsed(engine, shop_id, tried, until=UNTIL, days=DAYS)
    assert verdicts(found) == decided(engine, shop_id)
    assert found.draft["total"]["verdicts"]["already_enrolled"] > 0


def test_a_schedule_by_the_customers_clocks_takes_each_at_its_own_hour(engine, shop_id):
    rule = {**CARTS, "when": {"schedule": "0 9 * * *", "time_zone": "customer", "frequency": "every_time",
                              "cooldown": "P3D"},
            "if": {"field": "customer.carts_7d", "op": "gte", "value": 1}}  # fmt: skip
    tried = strategy(rule)
    identified(engine, shop_id, customers=24)
    zones = ("Asia/Shanghai", "America/New_York", "Europe/Berlin", None, "Nowhere/Land")
    with for_shop(engine, shop_id) as session:
        for number in range(24):
            session.execute(
                text("UPDATE customers SET time_zone = :z WHERE shop_id = :s AND external_id = :e"),
                {"z": zones[number % len(zones)], "s": shop_id, "e": f"c{number}"},
            )
    live_through(engine, shop_id, stories(4, customers=24))
    started(engine, shop_id, tried)
    until = START + timedelta(days=5)
    with for_shop(engine, shop_id) as session:
        runs = sorted(
            calendar.due_runs(session, load_shop(session, shop_id), after=START, until=until),
            key=lambda one: one.due_at,
        )
    assert len({one.due_at.hour for one in runs}) == 4
    for run in runs:
        by_hand(engine, shop_id, run)
    found = rehearsed(engine, shop_id, tried, until=until, days=5)
    assert verdicts(found) == decided(engine, shop_id)
    assert found.draft["total"]["verdicts"]["act"] > 0


def by_hand(engine, shop_id, run):
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        table = features.compute_all(session, shop_id, run.due_at)
        rows = session.execute(text("SELECT id, time_zone FROM customers WHERE shop_id = :s"), {"s": shop_id})
        there = {row.id for row in rows if calendar.zone_of(row.time_zone, shop) in run.zones}
        index = [row for row, one in enumerate(table.customer_ids) if one in there]
        table = table.take(index)
        triggers = [
            Trigger(one, key, SCHEDULE, None, run.due_at, rule_ids=frozenset({run.rule_id}))
            for one, key in zip(table.customer_ids, table.random_keys, strict=True)
        ]
        decisions = batch.decide(session, shop, triggers, table, recorded_at=run.due_at)
        planning.plan(session, shop, decisions, created_at=run.due_at)


def test_a_complaint_stops_what_comes_after_it_and_nothing_before(engine, shop_id):
    rule = {**CARTS, "when": {"event": ["cart.added"], "frequency": "every_time"},
            "if": {"field": "customer.carts_7d", "op": "gte", "value": 1},
            "then": {"arms": [{"key": "mail", "steps": [EMAIL]}]}}  # fmt: skip
    tried = strategy(rule, caps=[], holdout=0.0)
    identified(engine, shop_id, customers=1)
    day = timedelta(days=1)
    told = [event(0, "consent.changed", START - day, channel="email", topic="marketing", state="subscribed")]
    told += [event(0, "cart.added", START + number * day, product_id="p", quantity=1) for number in (2, 4, 6)]
    told.append(event(0, "email.complained", START + 5 * day))
    live_through(engine, shop_id, sorted(told, key=lambda one: one.occurred_at))
    with for_shop(engine, shop_id) as session:
        session.execute(text("UPDATE shops SET settings = '{\"global_holdout\": 0}' WHERE id = :s"), {"s": shop_id})
        # the operator lifted what the complaint had brought
        session.execute(text("DELETE FROM suppressions WHERE shop_id = :s"), {"s": shop_id})
        session.execute(text("UPDATE consents SET state = 'subscribed' WHERE shop_id = :s"), {"s": shop_id})
    found = rehearsed(engine, shop_id, tried, until=START + 7 * day, days=7)
    told = {one["day"][-2:]: one["verdicts"] for one in found.draft["days"] if one["decisions"]}
    assert told == {"03": {"act": 1}, "05": {"act": 1}, "07": {"cooling_down": 1}}


def test_triggers_of_different_kinds_come_in_one_order(engine, shop_id):
    """A missed goal at noon enrols before the cart of the evening does, though both are of one day."""
    missed = {**CARTS, "key": "missed", "when": {"missed": {"event": ["checkout.started"], "goal": ["order.paid"],
                                                             "within": "PT1H"}},
              "if": {"field": "customer.checkouts_7d", "op": "gte", "value": 1}}  # fmt: skip
    carts = {**CARTS, "when": {"event": ["cart.added"]}, "if": {"field": "customer.carts_7d", "op": "gte", "value": 1}}
    tried = strategy(missed, rules=[missed, carts], caps=[{"channel": "email", "count": 1, "window": "P30D"}],
                     holdout=0.0)  # fmt: skip
    identified(engine, shop_id, customers=2)
    hour = timedelta(hours=1)
    told = [event(n, "consent.changed", START - hour, channel="email", topic="marketing", state="subscribed")
            for n in (0, 1)]  # fmt: skip
    told += [event(0, "checkout.started", START + 11 * hour), event(1, "checkout.started", START + 11 * hour),
             event(0, "cart.added", START + 18 * hour, product_id="p"),
             event(1, "cart.added", START + 8 * hour, product_id="p")]  # fmt: skip
    live_through(engine, shop_id, sorted(told, key=lambda one: one.occurred_at))
    with for_shop(engine, shop_id) as session:
        session.execute(text("UPDATE shops SET settings = '{\"global_holdout\": 0}' WHERE id = :s"), {"s": shop_id})
    total = rehearsed(engine, shop_id, tried, until=START + 24 * hour, days=1).draft["total"]
    assert total["verdicts"] == {"act": 2, "capped": 2}
