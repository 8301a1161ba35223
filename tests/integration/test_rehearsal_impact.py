"""What publishing would mean: counted over everybody, told for everybody under way; nothing is written."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from operation_agent import agent
from operation_agent.customers import features
from operation_agent.decision import batch
from operation_agent.decision.facts import SCHEDULE, Trigger
from operation_agent.rehearsal import impact
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from operation_agent.strategies import authoring, live, records
from tests.integration.test_rehearsal_backtest import (
    CARTS,
    EMAIL,
    START,
    event,
    identified,
    live_through,
    started,
    stories,
    strategy,
)
from tests.integration.test_rehearsal_dry_run import counts

pytestmark = pytest.mark.integration

AT = START + timedelta(days=3)
NIGHTLY = {**CARTS, "when": {"schedule": "0 9 * * *", "frequency": "every_time", "cooldown": "P6D"}}


@pytest.fixture
def shop(engine, shop_id):
    identified(engine, shop_id)
    live_through(engine, shop_id, [one for one in stories(1) if one.occurred_at <= AT])
    return shop_id


def measured(engine, shop_id, definition, **options):
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        real, before = None, authoring.live_strategy(session, shop_id, definition.key)
        if before is not None:
            real = records.find(session, shop_id, definition.key)
        return impact.measure(session, shop, definition, at=AT, real=real, live=before, **options)


def decided(engine, shop_id, at):
    """What the live engine makes of everybody at that moment."""
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        rules = frozenset(one.rule_id for one in live.live_rules(session, shop_id))
        table = features.compute_all(session, shop_id, at)
        triggers = [
            Trigger(one, key, SCHEDULE, None, at, rule_ids=rules)
            for one, key in zip(table.customer_ids, table.random_keys, strict=True)
        ]
        return batch.decide(session, shop, triggers, table, recorded_at=at)


def test_its_counts_are_those_of_the_run_that_follows(engine, shop):
    tried = strategy(NIGHTLY, budget={"limit": "60"})
    started(engine, shop, tried)
    found = measured(engine, shop, tried)
    (told,) = found.rules
    really = decided(engine, shop, AT)
    verdicts = {name: sum(1 for one in really if one.verdict == name) for name in {one.verdict for one in really}}
    assert dict(told.verdicts) == verdicts
    assert {"act", "holdout", "no_consent", "over_budget"} <= verdicts.keys()
    assert told.matching == len(really) and found.customers == 60
    assert told.reachable == len(really) - verdicts["no_consent"]
    acting = [one for one in really if one.verdict == "act"]
    assert told.at_most_minor == sum(sum(one.costs) for one in acting) <= 6_000
    assert 0 < told.expected_minor < told.at_most_minor
    assert told.change == "same"


def test_it_writes_nothing(engine, shop):
    started(engine, shop, strategy(CARTS))
    before = counts(engine, shop)
    measured(engine, shop, strategy(NIGHTLY))
    assert counts(engine, shop) == before


def test_what_only_an_event_tells_is_taken_as_the_rule_needs_it(engine, shop):
    needs = {"all": [*CARTS["if"]["all"], {"field": "event.product_id", "op": "equals", "value": "p9"}]}
    (plain,), (picky,) = (measured(engine, shop, strategy({**CARTS, "if": one})).rules for one in (CARTS["if"], needs))
    assert picky.matching == plain.matching > 0
    per_key = {**CARTS, "when": {"event": ["order.paid"], "frequency": "once_per_key", "key": "event.order_id"}}
    (keyed,) = measured(engine, shop, strategy(per_key)).rules
    assert sum(keyed.verdicts.values()) == keyed.matching > 0


STEPS = [
    {**EMAIL, "key": "first"},
    {"wait": {"event": ["email.clicked"], "within": "P30D"}, "key": "clicked", "else": [{**EMAIL, "key": "again"}]},
]


def waiting(steps):
    return strategy({**CARTS, "then": {"arms": [{"key": "only", "steps": steps}]}}, holdout=0.0)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (STEPS, {}),
        ([STEPS[0]], {"first": "same", "clicked": "gone"}),
        (
            [{**STEPS[0], "tags": ["x"]}, {**STEPS[1], "wait": {"event": ["email.clicked"], "within": "P5D"}}],
            {"first": "changed", "clicked": "changed"},
        ),
    ],
)
def test_who_is_under_way_is_told_where_the_new_version_finds_them(engine, shop, steps, expected):
    started(engine, shop, waiting(STEPS))
    with for_shop(engine, shop) as session:
        events = [event(number, "cart.added", AT, product_id="p1", quantity=1) for number in range(1, 9)]
        agent.observe(session, load_shop(session, shop), events, recorded_at=AT)
        runs = session.execute(
            text("SELECT count(*) FROM runs WHERE shop_id = :s AND state = 'waiting'"), {"s": shop}
        ).scalar_one()
    assert runs > 0
    for in_flight, goes in (("finish", "finishes"), ("exit", "exits")):
        held = measured(engine, shop, waiting(steps), in_flight=in_flight).in_flight
        assert {one.place.step: one.step_is for one in held} == expected
        assert {one.goes for one in held} <= {goes}
        assert {one.place.number for one in held if not one.place.is_planned} <= {runs}


def test_rules_that_want_the_same_customers_are_named_with_the_reason(engine, shop):
    started(engine, shop, strategy(NIGHTLY, key="other", exclusive="cart"))
    found = measured(engine, shop, strategy(CARTS, exclusive="cart")).conflicts
    (one,) = found
    assert (one.rule, one.other) == ("carts", "other/carts")
    reasons = {why["why"] for why in one.why}
    assert reasons == {"messages", "exclusive", "coupons"}
    assert {"why": "messages", "channel": "email", "count": 2, "window": "P10D"} in one.why
    assert one.customers == measured(engine, shop, strategy(CARTS)).rules[0].matching
    nobody = {**CARTS, "if": {"field": "customer.orders", "op": "gt", "value": 10_000}}
    assert measured(engine, shop, strategy(nobody)).conflicts == []


def test_a_variable_that_comes_out_empty_says_for_how_many(engine, shop):
    greeting = {**EMAIL, "subject": {"en": "Dear {{ customer.first_name }}", "zh": "您好"}, "key": "hello"}
    tried = strategy({**CARTS, "then": {"arms": [{"key": "only", "steps": [greeting]}]}})
    with for_shop(engine, shop) as session:
        session.execute(
            text("UPDATE customers SET first_name = 'Ann' WHERE shop_id = :s AND external_id < 'c3'"), {"s": shop}
        )
    found = measured(engine, shop, tried)
    (gap,) = found.gaps
    assert (gap["step"], gap["variable"], gap["languages"]) == ("hello", "customer.first_name", ["en"])
    assert 0 < gap["customers"] < found.rules[0].matching
    assert gap["share"] == round(gap["customers"] / found.rules[0].matching, 4)


def test_a_removed_rule_and_a_new_one_are_told(engine, shop):
    started(engine, shop, strategy(CARTS))
    found = measured(engine, shop, strategy({**NIGHTLY, "key": "nightly"}))
    assert {one.key: one.change for one in found.rules} == {"nightly": "new", "carts": "removed"}
