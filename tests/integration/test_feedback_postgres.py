"""Outcomes, ledger and effects in PostgreSQL: the same rows whatever came first, and effects that are what was done."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import text

from operation_agent.customers import history, identity
from operation_agent.events.event import Event
from operation_agent.experiments import assignment
from operation_agent.experiments.comparison import Sample, difference
from operation_agent.feedback import effects, ledger, outcomes
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import digest_id, new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import create_shop, load_shop, update_settings

pytestmark = pytest.mark.integration

NOON = datetime(1998, 7, 3, 12, tzinfo=UTC)
STRATEGY, OTHER = digest_id("strategy"), digest_id("other strategy")


def event(type_: str, at: datetime, source_id: str | None = None, who: str | None = "00001", **properties) -> Event:
    return Event(
        new_id(), "shopify", source_id or str(new_id()), type_, at, SYSTEM.now(),
        {"external": who} if who else {}, properties,
    )  # fmt: skip


def paid(order_id: str, at: datetime, total: int, discount: int = 0, codes=(), who: str | None = "00001") -> Event:
    return event(
        "order.paid", at, f"order:{order_id}", who, order_id=order_id, total_minor=total, discount_minor=discount,
        currency="USD", quantity=1, discount_codes=list(codes), products=[],
    )  # fmt: skip


def take_in(session, shop, *events: Event) -> None:
    """As agent.observe does, up to where deciding begins."""
    people = identity.resolve(session, shop, events)
    history.apply(session, shop, events, people)
    ledger.apply(session, shop, events, people)
    outcomes.apply(session, shop, events, people)


def rows(session, shop, table: str, columns: str) -> list[tuple]:
    statement = f"SELECT {columns} FROM {table} WHERE shop_id = :s ORDER BY 1, 2"  # noqa: S608
    found = session.execute(text(statement), {"s": shop.id})
    return [tuple(row) for row in found]


def customer(session, shop, who: str = "00001") -> UUID:
    return session.execute(
        text("SELECT customer_id FROM identities WHERE shop_id = :s AND kind = 'external' AND value = :who"),
        {"s": shop.id, "who": who},
    ).scalar_one()


def test_the_ledger_does_not_depend_on_what_came_first(engine):
    """A refund, a second refund, a cancellation and the order itself, in every order and each twice."""
    facts = [
        paid("9", NOON, 9000, 1000),
        event("order.refunded", NOON + timedelta(days=1), who=None, order_id="9", refund_id="r1", amount_minor=3000),
        event("order.refunded", NOON + timedelta(days=2), who=None, order_id="9", refund_id="r2", amount_minor=2000),
        event("order.cancelled", NOON + timedelta(days=3), who=None, order_id="9"),
    ]
    seen = set()
    for number, arrival in enumerate(permutations(facts)):
        shop = create_shop(engine, slug=f"ledger-{number}", name="L", currency="USD", sandbox=True)
        for fact in arrival:
            with for_shop(engine, shop.id) as session:
                take_in(session, shop, fact)
                take_in(session, shop, fact)
        with for_shop(engine, shop.id) as session:
            seen.add(tuple(rows(session, shop, "ledger", "kind, source_id, amount_minor, occurred_at")))
    assert len(seen) == 1
    lines = {(kind, source): amount for kind, source, amount, _ in seen.pop()}
    assert lines == {
        ("margin", "9"): 4000,
        ("discount", "9"): -1000,
        ("refund", "9/r1"): -1000,
        ("refund", "9/r2"): -667,
        ("refund", "9/cancelled"): -1333,
    }


def test_a_guests_order_earns_for_nobody(engine, shop_id):
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        take_in(session, shop, paid("77", NOON, 5000, who=None))
        assert rows(session, shop, "ledger", "kind, source_id") == []


def start_strategy(session, shop, strategy_id: UUID = STRATEGY, key: str = "conversion") -> None:
    session.execute(
        text(
            "INSERT INTO strategies (shop_id, id, key, name, goal, state, definition, holdout, started_at, created_at,"
            " updated_at) VALUES (:shop, :id, :key, '{}', 'conversion', 'live', '{}', 0.2, :at, :at, :at)"
        ),
        {"shop": shop.id, "id": strategy_id, "key": key, "at": NOON},
    )


def act(session, shop, customer_id: UUID, at: datetime, *, channel: str = "email", held_out: bool = False, **extra):
    """An action that was done (or trapped) at `at`; returns its id."""
    values = {
        "shop": shop.id, "id": new_id(), "decision": new_id(), "customer": customer_id, "strategy": STRATEGY,
        "type": channel, "held_out": held_out, "at": at, "provider": None, "ref": None, "now": SYSTEM.now(),
    } | extra  # fmt: skip
    session.execute(
        text(
            "INSERT INTO actions (shop_id, id, decision_id, customer_id, strategy_id, rule_id, arm, step, type,"
            " channel, held_out, parameters, dedupe_key, decided_at, state, due_at, sent_at, provider, provider_ref,"
            " created_at)"
            " VALUES (:shop, :id, :decision, :customer, :strategy, :decision, 'a', 0, :type, :type, :held_out, '{}',"
            " CAST(:id AS text), :at, 'sent', :at, :at, :provider, :ref, :now)"
        ),
        values,
    )
    return values["id"]


def issue(session, shop, action_id: UUID, customer_id: UUID, code: str, at: datetime) -> None:
    session.execute(
        text(
            "INSERT INTO coupons (shop_id, action_id, customer_id, code, percent, issued_at, expires_at)"
            " VALUES (:shop, :action, :customer, :code, 10, :at, :until)"
        ),
        {"shop": shop.id, "action": action_id, "customer": customer_id, "code": code, "at": at,
         "until": at + timedelta(days=7)},
    )  # fmt: skip


@pytest.fixture
def session(engine, shop_id):
    with for_shop(engine, shop_id) as session:
        yield session


@pytest.fixture
def shop(session, shop_id):
    shop = load_shop(session, shop_id)
    start_strategy(session, shop)
    take_in(session, shop, paid("1", NOON - timedelta(days=90), 2000))
    return shop


def report(type_: str, hours: float, **properties) -> Event:
    return event(type_, NOON + timedelta(hours=hours), **{"address": "a@example.com"} | properties)


def test_a_providers_reports_belong_to_their_action(session, shop):
    who = customer(session, shop)
    one = act(session, shop, who, NOON)
    two = act(session, shop, who, NOON, provider="shopify", ref="ref-2")
    reports = [
        report("email.delivered", 1, action_id=str(one)),
        report("email.opened", 2, action_id=str(one)),
        report("email.opened", 1, action_id=str(one), machine_open=True),
        report("email.clicked", 3, provider_ref="ref-2"),
        report("email.delivered", 1, action_id=str(new_id())),
        report("email.delivered", 1, action_id="no id at all"),
        report("email.delivered", 1),
    ]
    take_in(session, shop, *reports)
    take_in(session, shop, *reports)
    found = rows(session, shop, "outcomes", "kind, action_id, customer_id, strategy_id")
    assert found == [
        ("clicked", two, who, STRATEGY),
        ("delivered", one, who, STRATEGY),
        ("opened", one, who, STRATEGY),
    ]


def test_an_order_follows_the_last_message_and_redeems_its_coupon(session, shop):
    who = customer(session, shop)
    early, late = act(session, shop, who, NOON), act(session, shop, who, NOON + timedelta(days=2))
    coupon = act(session, shop, who, NOON, channel="coupon")
    issue(session, shop, coupon, who, "SAVE-1", NOON)
    act(session, shop, who, NOON + timedelta(days=30))
    take_in(session, shop, paid("2", NOON + timedelta(days=3), 4000))
    take_in(session, shop, paid("3", NOON + timedelta(days=4), 3600, 400, ["save-1"]))
    take_in(session, shop, paid("4", NOON + timedelta(days=1), 1000))
    take_in(session, shop, paid("5", NOON + timedelta(days=20), 1000))  # outside the window
    assert rows(session, shop, "outcomes", "kind, value_minor, action_id") == [
        ("ordered", 1000, early),
        ("ordered", 3600, coupon),
        ("ordered", 4000, late),
        ("redeemed", 400, coupon),
    ]
    order = session.execute(text("SELECT id FROM orders WHERE source_order_id = '3'")).scalar_one()
    assert rows(session, shop, "coupons", "redeemed_order_id, redeemed_at") == [(order, NOON + timedelta(days=4))]


def test_of_two_orders_with_one_code_the_earlier_keeps_it(session, shop):
    who = customer(session, shop)
    coupon = act(session, shop, who, NOON, channel="coupon")
    issue(session, shop, coupon, who, "SAVE-2", NOON)
    for order_id, days in (("late", 3), ("early", 1), ("later", 4)):
        take_in(session, shop, paid(order_id, NOON + timedelta(days=days), 900, 100, ["SAVE-2"]))
    assert rows(session, shop, "coupons", "redeemed_at, code") == [(NOON + timedelta(days=1), "SAVE-2")]


def edited(order_id: str, at: datetime, total: int, codes=(), discount: int = 0) -> Event:
    return event(
        "order.updated", at, order_id=order_id, total_minor=total, discount_minor=discount, currency="USD", quantity=1,
        discount_codes=list(codes), products=[], paid=False, updated_at=at.isoformat(),
    )  # fmt: skip


def test_outcomes_follow_an_edited_order_whatever_came_first(engine):
    facts = [
        paid("2", NOON + timedelta(days=3), 4000),
        edited("2", NOON + timedelta(days=5), 3500),
        edited("2", NOON + timedelta(days=6), 3300, ["SAVE-9"], 200),
    ]
    seen = set()
    for number, arrival in enumerate(permutations(facts)):
        made = create_shop(engine, slug=f"edited-{number}", name="E", currency="USD", sandbox=True)
        with for_shop(engine, made.id) as session:
            start_strategy(session, made)
            take_in(session, made, paid("1", NOON - timedelta(days=90), 2000))
            who = customer(session, made)
            act(session, made, who, NOON)
            coupon = act(session, made, who, NOON, channel="coupon")
            issue(session, made, coupon, who, "SAVE-9", NOON)
            for fact in arrival:
                take_in(session, made, fact)
            owner = f"kind, value_minor, occurred_at, action_id = '{coupon}', source_order_id"
            seen.add(tuple(rows(session, made, "outcomes", owner)))
    at = NOON + timedelta(days=3)
    assert seen == {(("ordered", 3300, at, True, "2"), ("redeemed", 200, at, True, "2"))}


def test_an_order_that_two_sources_report_paid_counts_once(session, shop):
    who = customer(session, shop)
    act(session, shop, who, NOON)
    first, second = paid("2", NOON + timedelta(days=1), 4000), paid("2", NOON + timedelta(days=2), 4000)
    take_in(session, shop, second)
    take_in(session, shop, first)
    take_in(session, shop, second)
    assert rows(session, shop, "outcomes", "kind, event_id, occurred_at") == [
        ("ordered", first.id, NOON + timedelta(days=1))
    ]


class Crowd:
    """Customers with assignments as the decision room draws them, and orders whose effect is known."""

    def __init__(self, session, shop, count: int, *, lift: float, strategies=(STRATEGY,)):
        self.session, self.shop = session, shop
        self.random = np.random.default_rng(9)
        self.share = float(shop.settings.get("global_holdout", assignment.GLOBAL_HOLDOUT))
        self.sides = []
        customers, assignments, orders, lines = [], [], [], []
        for number in range(count):
            key, customer_id = digest_id("crowd", str(number)), new_id()
            customers.append({"id": customer_id, "key": key})
            prior, treated_by = int(self.random.integers(0, 5)), 0
            for strategy_id in strategies:
                side = assignment.side(shop.seed, str(strategy_id), str(key), holdout=0.2, global_holdout=self.share)
                treated_by += not side.held_out
                assignments.append({"strategy": strategy_id, "customer": customer_id, "held": side.held_out,
                                    "p": side.propensity, "prior": prior})  # fmt: skip
                is_global = side.global_draw < self.share
            bought = int(self.random.random() < 0.1 + 0.05 * prior + lift * treated_by)
            if bought:
                orders.append({"id": new_id(), "customer": customer_id, "source": f"crowd-{number}"})
                lines.append({"kind": "margin", "customer": customer_id, "source": f"crowd-{number}", "amount": 400})
            for nth in range(treated_by):
                lines.append({"kind": "message_cost", "customer": customer_id, "source": f"{number}-{nth}",
                              "amount": -int(self.random.integers(1, 4))})  # fmt: skip
            self.sides.append((is_global, treated_by > 0, bought, prior))
        self._write(customers, assignments, orders, lines)

    def _write(self, customers, assignments, orders, lines) -> None:
        fixed = {"shop": self.shop.id, "at": NOON, "later": NOON + timedelta(days=2), "now": SYSTEM.now()}

        def many(statement: str, found: list[dict]) -> None:
            self.session.execute(text(statement), [row | fixed for row in found])

        many("INSERT INTO customers (shop_id, id, random_key, first_seen_at, last_seen_at, created_at)"
             " VALUES (:shop, :id, :key, :at, :at, :now)", customers)  # fmt: skip
        many("INSERT INTO assignments (shop_id, strategy_id, customer_id, held_out, propensity, assigned_at,"
             " decision_id, prior_orders, prior_revenue_minor)"
             " VALUES (:shop, :strategy, :customer, :held, :p, :at, :customer, :prior, 1000 * :prior)",
             assignments)  # fmt: skip
        many("INSERT INTO orders (shop_id, id, source_order_id, customer_id, ordered_at, currency, total_minor,"
             " updated_at, event_id) VALUES (:shop, :id, :source, :customer, :later, 'USD', 1000, :later, :id)",
             orders)  # fmt: skip
        many("INSERT INTO ledger (shop_id, kind, source_id, customer_id, amount_minor, currency, occurred_at)"
             " VALUES (:shop, :kind, :source, :customer, :amount, 'USD', :at + interval '1 day' *"
             " CASE WHEN :kind = 'margin' THEN 2 ELSE 0 END)", lines)  # fmt: skip

    def compare(self) -> dict[tuple[str, str], effects.Effect]:
        found = effects.compare(self.session, self.shop, as_of=NOON + timedelta(days=20), computed_at=SYSTEM.now())
        return {(effect.strategy, effect.metric): effect for effect in found}


def test_a_strategys_effect_is_its_treated_against_its_own_holdout(session, shop):
    crowd = Crowd(session, shop, 6000, lift=0.1)
    found = crowd.compare()
    effect = found["conversion", "orders"]
    sides = [side for side in crowd.sides if not side[0]]  # the shop-wide holdout is not the strategy's
    treated = [(bought, prior) for _, is_treated, bought, prior in sides if is_treated]
    held = [(bought, prior) for _, is_treated, bought, prior in sides if not is_treated]
    wanted = difference(Sample.of(*zip(*treated, strict=True)), Sample.of(*zip(*held, strict=True)), cuped=True)
    assert (effect.treated, effect.held_out) == (len(treated), len(held))
    assert effect.estimate == pytest.approx(wanted.estimate * len(treated))
    assert (effect.lower, effect.upper) == pytest.approx((wanted.lower * len(treated), wanted.upper * len(treated)))
    assert abs(effect.estimate - 0.1 * len(treated)) < 3 * effect.detail["standard_error"]
    revenue, profit, spend = (found["conversion", name] for name in ("revenue", "profit", "spend"))
    assert revenue.estimate / effect.estimate == pytest.approx(1000, rel=0.05)
    assert spend.estimate == pytest.approx(2 * len(treated), rel=0.1)
    assert profit.estimate == pytest.approx(0.4 * revenue.estimate - spend.estimate, rel=0.02)
    roi = found["conversion", "roi"]
    assert roi.estimate == pytest.approx(profit.estimate / spend.estimate)
    assert roi.lower < roi.estimate < roi.upper
    assert [kept.strategy for kept in effects.latest(session, shop)] == ["conversion"] * 5 + ["programme"] * 5


def test_the_programme_is_the_shop_wide_holdout_against_all_others(session, shop):
    start_strategy(session, shop, OTHER, "other")
    crowd = Crowd(session, shop, 8000, lift=0.1, strategies=(STRATEGY, OTHER))
    effect = crowd.compare()["programme", "orders"]
    is_global = np.array([side[0] for side in crowd.sides])
    assert (effect.treated, effect.held_out) == ((~is_global).sum(), is_global.sum())
    true = 0.1 * sum(not row.held_out for row in session.execute(text("SELECT held_out FROM assignments")))
    assert effect.detail["method"] == "shop_wide_holdout"
    assert effect.lower < true < effect.upper
    beside = effect.detail["sum_of_strategies"]
    assert beside["lower"] < true < beside["upper"]
    assert beside["upper"] - beside["lower"] < effect.upper - effect.lower


def test_without_a_shop_wide_holdout_the_programme_is_the_sum(session, shop):
    quiet = update_settings(session, shop, {"global_holdout": 0})
    start_strategy(session, shop, OTHER, "other")
    found = Crowd(session, quiet, 3000, lift=0.1, strategies=(STRATEGY, OTHER)).compare()
    effect = found["programme", "orders"]
    assert effect.detail["method"] == "sum_of_strategies"
    parts = [found[key, "orders"].estimate for key in ("conversion", "other")]
    assert effect.estimate == pytest.approx(sum(parts))


def test_what_cannot_be_known_is_stored_with_its_reason(session, shop):
    found = effects.compare(session, shop, as_of=NOON, computed_at=SYSTEM.now())
    assert {(effect.estimate, effect.reason) for effect in found} == {(None, "too_few")}
    crowd = Crowd(session, shop, 4000, lift=0.1)
    session.execute(text("DELETE FROM assignments WHERE held_out AND prior_orders > 1"))  # one side loses its best
    found = crowd.compare()
    assert found["conversion", "orders"].reason == "sample_ratio"
    assert found["conversion", "orders"].estimate is None


def test_a_comparison_is_quick_on_tables_that_were_just_filled(session, shop):
    """Nobody has analysed them yet; a plan that multiplies rows took minutes here."""
    crowd = Crowd(session, shop, 3000, lift=0.1)
    session.execute(text("SET LOCAL statement_timeout = '5s'"))
    assert crowd.compare()["conversion", "orders"].treated > 2000


def test_effects_count_only_what_had_happened_by_then(session, shop):
    crowd = Crowd(session, shop, 4000, lift=0.1)
    before = effects.compare(session, shop, as_of=NOON + timedelta(days=1), computed_at=SYSTEM.now())
    assert {e.reason for e in before if e.metric == "orders"} == {"zero_variance"}
    session.execute(
        text(
            "INSERT INTO order_changes (shop_id, source_order_id, kind, change_id, occurred_at, event_id)"
            " SELECT shop_id, source_order_id, 'cancelled', '', :at, id FROM orders"
            " WHERE source_order_id LIKE 'crowd-%'"
        ),
        {"at": NOON + timedelta(days=10)},
    )
    then = effects.compare(session, shop, as_of=NOON + timedelta(days=9), computed_at=SYSTEM.now())
    assert next(e for e in then if e.metric == "revenue").estimate > 0
    assert crowd.compare()["conversion", "revenue"].reason == "zero_variance"
