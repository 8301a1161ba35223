"""The test bench: what a strategy would do for somebody, as the live engine would; nothing is written."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from operation_agent import agent
from operation_agent.kit.errors import Rejected
from operation_agent.rehearsal import dry_run, hypothetical, trial
from operation_agent.rehearsal.hypothetical import Hypothetical
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from operation_agent.strategies import records
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

pytestmark = pytest.mark.integration

AT = START + timedelta(days=3)
CART = trial.read("event", type_="cart.added", properties={"product_id": "p1"})


@pytest.fixture
def shop(engine, shop_id):
    identified(engine, shop_id)
    live_through(engine, shop_id, [one for one in stories(1) if one.occurred_at <= START])
    return shop_id


def customer(session, shop_id, number):
    return session.execute(
        text("SELECT id FROM customers WHERE shop_id = :s AND external_id = :e"), {"s": shop_id, "e": f"c{number}"}
    ).scalar_one()


def tried(engine, shop_id, definition, numbers, asked=CART, **options):
    with for_shop(engine, shop_id) as session:
        ids = [customer(session, shop_id, one) for one in numbers]
        return dry_run.run(session, load_shop(session, shop_id), definition, ids, asked, at=AT, **options)


def imagined(engine, shop_id, definition, asked=CART, **said):
    with for_shop(engine, shop_id) as session:
        return hypothetical.run(session, load_shop(session, shop_id), definition, Hypothetical(**said), asked, at=AT)


def counts(engine, shop_id):
    with for_shop(engine, shop_id) as session:
        tables = session.execute(
            text(
                "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
            )
        ).scalars()
        return {one: session.execute(text(f"SELECT count(*) FROM {one}")).scalar() for one in sorted(tables)}  # noqa: S608


def test_it_says_of_each_customer_what_live_then_decides(engine, shop):
    tried_out = strategy(CARTS)
    started(engine, shop, tried_out)
    with for_shop(engine, shop) as session:
        real = records.find(session, shop, "tried")
    numbers = list(range(30))
    foreseen = tried(engine, shop, tried_out, numbers, real=real)
    live_through_at(engine, shop, [event(number, "cart.added", AT, product_id="p1", quantity=1) for number in numbers])
    with for_shop(engine, shop) as session:
        rows = session.execute(
            text("SELECT customer_id, verdict, arm, propensity FROM decisions WHERE shop_id = :s"), {"s": shop}
        ).all()
    really = {row.customer_id: (row.verdict, row.arm, row.propensity) for row in rows}
    told = {
        one.customer_id: (one.decision["verdict"], one.decision["arm"], one.decision["propensity"])
        for one in foreseen
        if one.decision
    }
    assert told == really
    assert {"act", "holdout", "no_consent"} <= {verdict for verdict, _, _ in told.values()}


def live_through_at(engine, shop_id, events):
    with for_shop(engine, shop_id) as session:
        agent.observe(session, load_shop(session, shop_id), events, recorded_at=AT)


def test_nothing_is_written_and_nobody_is_woken(engine, shop):
    started(engine, shop, strategy(CARTS))
    before = counts(engine, shop)
    asked = [
        CART,
        trial.read("event", type_="order.paid", properties={"order_id": "o1", "total": 30}),
        trial.read("event", type_="consent.changed", properties={"channel": "email", "state": "unsubscribed"}),
        trial.read("event", type_="customer.identified", properties={"traits": {"vip": True}}),
        trial.read("event", type_="email.complained", properties={}),
    ]
    for one in asked:
        tried(engine, shop, strategy(CARTS), range(5), one)
    imagined(engine, shop, strategy(CARTS), fields={"customer.carts_7d": 3, "consent.email": "subscribed"})
    assert counts(engine, shop) == before


def test_the_event_counts_in_what_conditions_see(engine, shop):
    seldom = strategy({**CARTS, "if": {"history": {"event": "cart.added", "within": "PT1M"}, "op": "gte", "value": 1}})
    (one,) = tried(engine, shop, seldom, [1])
    assert one.rules[0]["comparisons"][0]["seen"] == 1
    assert one.rules[0]["holds"] is True


def test_every_guardrail_is_told_also_after_one_has_stopped(engine, shop):
    started(engine, shop, strategy(CARTS))
    live_through_at(engine, shop, [event(0, "cart.added", AT - timedelta(hours=1), product_id="p", quantity=1)])
    capped = strategy(CARTS, caps=[{"channel": "email", "count": 1, "window": "P10D"}], budget={"limit": "0.01"})
    (one,) = tried(engine, shop, capped, [0])  # number 0 has unsubscribed
    guardrails = one.decision["guardrails"]
    stopped = {name for name, told in guardrails.items() if not told["passes"]}
    assert {"consent", "budget"} <= stopped
    assert guardrails["address"] == {"passes": True, "why": None}
    assert one.decision["verdict"] == "no_consent"
    assert any("同意" in line for line in one.decision["explanation"]["zh"])
    assert any("no consent" in line for line in one.decision["explanation"]["en"])


def test_a_rule_that_the_trigger_does_not_ask_is_shown_with_its_comparisons(engine, shop):
    (one,) = tried(engine, shop, strategy(CARTS), [1], trial.read("schedule"))
    assert (one.rules[0]["is_asked"], one.decision) == (False, None)
    assert one.rules[0]["comparisons"][0]["field"] == "customer.carts_7d"


GREETING = {
    **EMAIL,
    "subject": {"en": "Hi {{ customer.first_name | default: 'there' }}", "zh": "您好"},
    "body": {
        "en": "{{ coupon.code }} {{ product.id }} <a href='{{ unsubscribe_url }}'>-</a>",
        "zh": "{{ coupon.percent }} <a href='{{ unsubscribe_url }}'>-</a>",
    },
}


def test_a_hypothetical_customer_sees_the_message_in_every_language(engine, shop):
    wait = {"wait": {"event": ["email.clicked"], "within": "P3D"}, "then": [], "else": [{**EMAIL, "key": "again"}]}
    steps = [{"action": "coupon", "percent": 15}, {"delay": "PT2H"}, GREETING, wait]
    rule = {
        **CARTS,
        "then": {"arms": [{"key": "only", "steps": steps, "prior": {"increment": 0.1, "redemption": 0.2}}]},
    }
    definition = strategy(rule, holdout=0.0, quiet_hours={"start": "00:00", "end": "08:00"},
                          approval={"percent_above": 10})  # fmt: skip
    one = imagined(engine, shop, definition, fields={"customer.carts_7d": 2, "consent.email": "subscribed"},
                   locale="zh-CN", first_name="丽", name="somebody")  # fmt: skip
    decision = one.decision
    assert decision["verdict"] in ("act", "holdout")
    (arm,) = decision["arms"]
    coupon, mail, wait = arm["steps"]
    assert coupon["coupon"]["code"] == "SAMPLE2345" and coupon["waits_for"]
    assert mail["language"] == "zh"
    assert mail["rendered"]["en"]["subject"] == "Hi 丽"
    assert "SAMPLE2345 p1" in mail["rendered"]["en"]["html"] and "sample" in mail["rendered"]["en"]["html"]
    assert mail["rendered"]["zh"]["html"].startswith("15 ")
    assert mail["due_at"] == AT + timedelta(hours=2)
    assert mail["goes_at"] == AT.replace(hour=8)
    assert (wait["kind"], wait["then"], wait["else"][0]["key"]) == ("wait", [], "again")
    assert wait["else"][0]["due_at"] == wait["deadline"] == mail["due_at"] + timedelta(days=3)


def test_what_is_not_said_of_a_hypothetical_customer_is_unknown(engine, shop):
    one = imagined(engine, shop, strategy(CARTS), fields={"consent.email": "subscribed"})
    assert one.rules[0]["holds"] is None
    assert one.rules[0]["comparisons"][0]["seen"] is None
    assert one.decision is None


def test_chinese_names_and_values_are_read(engine, shop):
    rule = {**CARTS, "if": {"field": "customer.purchase_stage", "op": "equals", "value": "decision"}}
    one = imagined(engine, shop, strategy(rule), fields={"customer.purchase_stage": "决策", "consent.email": "已订阅"})
    assert one.rules[0]["holds"] is True
    assert one.decision["guardrails"]["consent"]["passes"]


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"customer.order": 1}, "customer.fields.customer.order"),
        ({"customer.orders": "many"}, "customer.fields.customer.orders"),
        ({"consent.email": "perhaps"}, "customer.fields.consent.email"),
        ({"customer.orders.since": "2026-01-01T00:00:00Z"}, "customer.fields.customer.orders.since"),
        ({"segment.nobody": True}, "customer.fields.segment.nobody"),
        ({"history:{}": 3}, "customer.fields.history:{}"),
    ],
)
def test_a_field_that_is_wrong_is_refused_with_its_path(engine, shop, fields, where):
    with pytest.raises(Rejected) as told:
        imagined(engine, shop, strategy(CARTS), fields=fields)
    assert told.value.where == where


def test_somebody_unknown_is_refused_with_its_place(engine, shop):
    from uuid import UUID

    with for_shop(engine, shop) as session, pytest.raises(Rejected) as told:
        ids = [customer(session, shop, 1), UUID(int=7)]
        dry_run.run(session, load_shop(session, shop), strategy(CARTS), ids, CART, at=AT)
    assert told.value.where == "customers[1]"


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ({"kind": "event"}, "trigger.type"),
        ({"kind": "event", "type_": "cart.emptied"}, "trigger.type"),
        ({"kind": "schedule", "group": "segment.vip"}, "trigger.group"),
        ({"kind": "entered", "group": "vip"}, "trigger.group"),
        ({"kind": "whenever"}, "trigger.kind"),
    ],
)
def test_a_trigger_that_is_wrong_is_refused(said, where):
    with pytest.raises(Rejected) as told:
        trial.read(**said)
    assert told.value.where == where
