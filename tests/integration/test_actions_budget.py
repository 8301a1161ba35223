"""Budgets by day and by customer, executions by day: reserved together or not at all, given back, never overspent."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from operation_agent.actions import budget, budget_limits, executions
from operation_agent.actions.budget import Wanted
from operation_agent.actions.executions import Execution, day_of
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Conflict, NotFound, Rejected
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import create_shop
from tests.integration.sending import Stage, stage

pytestmark = pytest.mark.integration

NOW = SYSTEM.now()
TODAY, TOMORROW = date(2026, 3, 2), date(2026, 3, 3)


@pytest.fixture
def here(engine, shop_id) -> Stage:
    return stage(engine, shop_id, limit=1000)


def limits(here: Stage, **given: int | None) -> budget_limits.Standing:
    with for_shop(here.engine, here.shop.id) as session:
        return budget_limits.change(session, here.shop, here.budget_id, given, at=NOW, actor="user:ann")


def want(here: Stage, amount: int, customer: UUID | None = None, day: date | None = TODAY, **changes: Any) -> Wanted:
    values = {"budget_id": here.budget_id, "action_id": new_id(), "group": new_id()} | changes
    return Wanted(amount_minor=amount, customer_id=customer or new_id(), day=day, **values)


def reserve(here: Stage, *wanted: Wanted) -> list[str | None]:
    """What came of each: None, or the limit in the way."""
    with for_shop(here.engine, here.shop.id) as session:
        refused = budget.reserve(session, here.shop.id, wanted, at=NOW)
    return [refused.get(one.group) for one in wanted]


def finish(here: Stage, kind: Any, *wanted: Wanted) -> None:
    with for_shop(here.engine, here.shop.id) as session:
        budget.finish(session, here.shop.id, **{kind: [one.action_id for one in wanted]}, at=NOW)


def days(here: Stage) -> dict[date, int]:
    rows = here.run("SELECT day, committed_minor FROM budget_days WHERE shop_id = :shop")
    return {row.day: row.committed_minor for row in rows}


def customers(here: Stage) -> dict[UUID, int]:
    rows = here.run("SELECT customer_id, committed_minor FROM budget_customers WHERE shop_id = :shop")
    return {row.customer_id: row.committed_minor for row in rows}


def test_a_day_paces_and_another_day_has_its_own(here):
    limits(here, daily_minor=100)
    assert reserve(here, want(here, 60), want(here, 50), want(here, 40), want(here, 1)) == [
        None,
        "daily",
        None,
        "daily",
    ]
    assert reserve(here, want(here, 100, day=TOMORROW), want(here, 1, day=TOMORROW)) == [None, "daily"]
    assert (days(here), here.budget()) == ({TODAY: 100, TOMORROW: 100}, (200, 0))


def test_one_customer_has_a_limit_of_their_own_for_ever(here):
    limits(here, per_customer_minor=30)
    ann, bob = new_id(), new_id()
    asked = [want(here, 20, ann), want(here, 20, ann, TOMORROW), want(here, 10, ann, TOMORROW), want(here, 30, bob)]
    assert reserve(here, *asked) == [None, "per_customer", None, None]
    assert customers(here) == {ann: 30, bob: 30}


def test_a_group_is_granted_in_all_its_limits_or_in_none(here):
    limits(here, daily_minor=100, per_customer_minor=50)
    ann, group = new_id(), new_id()
    coupon, message = want(here, 45, ann, group=group), want(here, 10, ann, group=group)
    assert reserve(here, coupon, message) == ["per_customer", "per_customer"]
    assert (days(here), customers(here), here.budget()) == ({}, {}, (0, 0))
    assert reserve(here, want(here, 90)) == ["per_customer"]
    assert reserve(here, coupon) == [None]


def test_what_is_released_comes_back_everywhere_and_what_is_spent_does_not(here):
    limits(here, daily_minor=100, per_customer_minor=60)
    ann = new_id()
    one, two = want(here, 40, ann), want(here, 20, ann, TOMORROW)
    assert reserve(here, one, two) == [None, None]
    finish(here, "commit", one)
    finish(here, "release", one, two)
    finish(here, "release", two)
    assert (days(here), customers(here), here.budget()) == ({TODAY: 40, TOMORROW: 0}, {ann: 40}, (0, 40))
    assert reserve(here, want(here, 20, ann), want(here, 1, ann)) == [None, "per_customer"]


def test_what_is_spent_and_given_back_together_locks_budgets_in_one_order(here, engine):
    """Others lock the first before the second: whoever held the second while waiting for the first would deadlock."""
    second = new_id()
    here.run(
        "INSERT INTO budgets (shop_id, id, name, currency, limit_minor) SELECT shop_id, :second, 'second', currency,"
        " limit_minor FROM budgets WHERE shop_id = :shop",
        second=second,
    )
    assert second > here.budget_id
    spent, given_back = want(here, 40, budget_id=second), want(here, 30)
    assert reserve(here, spent, given_back) == [None, None]

    def end() -> None:
        with for_shop(engine, here.shop.id) as session:
            budget.finish(session, here.shop.id, commit=[spent.action_id], release=[given_back.action_id], at=NOW)

    lock = "SELECT 1 FROM budgets WHERE shop_id = :shop AND id = :id FOR UPDATE NOWAIT"
    with ThreadPoolExecutor(1) as pool:
        with for_shop(engine, here.shop.id) as session:
            session.execute(text(lock), {"shop": here.shop.id, "id": here.budget_id})
            ending = pool.submit(end)
            _wait_until_blocked(engine, session)
            session.execute(text(lock), {"shop": here.shop.id, "id": second})
        ending.result(timeout=10)
    assert here.budget() == (0, 0)
    (row,) = here.run("SELECT reserved_minor, spent_minor FROM budgets WHERE id = :second", second=second)
    assert tuple(row) == (0, 40)


def _wait_until_blocked(engine: Any, session: Any) -> None:
    mine = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
    asked = "SELECT count(*) FROM pg_stat_activity WHERE :mine = ANY(pg_blocking_pids(pid))"
    for _ in range(200):
        with engine.connect() as connection:
            if connection.execute(text(asked), {"mine": mine}).scalar_one():
                return
        time.sleep(0.02)
    raise AssertionError("nobody waits for us")


def test_a_limit_set_later_counts_what_was_committed_before(here):
    ann = new_id()
    spent, gone = want(here, 40, ann), want(here, 5, ann)
    reserve(here, spent, gone)
    finish(here, "commit", spent)
    finish(here, "release", gone)
    assert customers(here) == {}  # nobody asked for it yet
    limits(here, per_customer_minor=50, daily_minor=100)
    assert customers(here) == {ann: 40}
    assert reserve(here, want(here, 11, ann), want(here, 10, ann)) == ["per_customer", None]
    limits(here, per_customer_minor=None)
    reserve(here, want(here, 25, ann))
    limits(here, per_customer_minor=80)
    assert reserve(here, want(here, 6, ann), want(here, 5, ann)) == ["per_customer", None]


def test_those_who_were_merged_share_one_limit(here):
    limits(here, per_customer_minor=30)
    ann, anonymous = here.customer(), here.customer()
    reserve(here, want(here, 20, anonymous))
    here.run("UPDATE customers SET merged_into = :into WHERE shop_id = :shop AND id = :id", into=ann, id=anonymous)
    assert reserve(here, want(here, 11, ann), want(here, 10, ann)) == ["per_customer", None]


def test_a_limit_below_what_is_committed(here):
    reserve(here, want(here, 60))
    with pytest.raises(Conflict, match=r"0\.60 USD") as raised:
        limits(here, limit_minor=59)
    assert (raised.value.where, raised.value.extra) == ("limit_minor", {"committed_minor": 60})
    assert limits(here, limit_minor=60).left_minor == 0
    limits(here, limit_minor=1000, daily_minor=50, per_customer_minor=10)  # takes nothing back, lets nothing more in
    assert reserve(here, want(here, 1)) == ["daily"]
    with pytest.raises(Rejected, match="more than the whole"):
        limits(here, daily_minor=1001)
    with pytest.raises(Rejected, match="limit_minor"):
        limits(here, limit_minor=None)
    with for_shop(here.engine, here.shop.id) as session, pytest.raises(NotFound):
        budget_limits.change(session, here.shop, new_id(), {}, at=NOW, actor="user:ann")
    told = here.run(
        "SELECT actor, detail FROM audit_log WHERE shop_id = :shop AND verb = 'budget.changed' ORDER BY seq"
    )
    assert [row.detail["after"]["limit_minor"] for row in told] == [60, 1000]
    assert {row.actor for row in told} == {"user:ann"}


def test_the_database_refuses_what_the_code_would_never_do(here):
    limits(here, daily_minor=50, per_customer_minor=10)
    reserve(here, want(here, 10))
    with for_shop(here.engine, here.shop.id) as session:
        executions.take(session, here.shop.id, [(here.strategy_id, TODAY, 1, new_id())])
    for statement, named in (
        ("UPDATE budget_days SET committed_minor = 51 WHERE shop_id = :shop", "budget_days_limit"),
        ("UPDATE budget_customers SET committed_minor = 11 WHERE shop_id = :shop", "budget_customers_limit"),
        ("UPDATE execution_days SET taken = 2 WHERE shop_id = :shop", "execution_days_limit"),
    ):
        with pytest.raises(IntegrityError, match=named), for_shop(here.engine, here.shop.id) as session:
            session.execute(text(statement), {"shop": here.shop.id})


def test_many_at_once_overspend_no_day_and_no_customer(here):
    limits(here, daily_minor=100, per_customer_minor=9)
    people = [new_id() for _ in range(20)]

    def ask(worker: int) -> int:
        granted = 0
        for turn in range(12):
            customer, group = people[(worker * 5 + turn) % 20], new_id()
            pair = [want(here, 1, customer, group=group), want(here, 2, customer, group=group)]
            granted += reserve(here, *pair) == [None, None]
        return granted

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 33
    assert (days(here), here.budget()) == ({TODAY: 99}, (99, 0))
    assert max(customers(here).values()) <= 9 and sum(customers(here).values()) == 99


def test_reserving_and_releasing_many_budgets_at_once_never_waits_in_a_circle(engine, shop_id):
    here = stage(engine, shop_id)
    budgets = [here.budget_id, *(new_id() for _ in range(5))]
    for one in budgets[1:]:
        here.run("INSERT INTO budgets (shop_id, id, name, currency, limit_minor) VALUES (:shop, :id, 'b', 'USD', 9999)",
                 id=one)  # fmt: skip

    def work(worker: int) -> None:
        for turn in range(15):
            order = budgets[worker % 6 :] + budgets[: worker % 6]
            asked = [want(here, 1, budget_id=one) for one in (order if turn % 2 else order[::-1])]
            taken = [Execution(one.budget_id, TODAY, 10**6, new_id()) for one in asked]
            with for_shop(engine, shop_id) as session:
                executions.take(session, shop_id, taken)
                budget.reserve(session, shop_id, asked, at=NOW)
            finish(here, "release", *asked)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert here.run("SELECT 1 FROM budgets WHERE shop_id = :shop AND reserved_minor <> 0") == []


# -- executions ---------------------------------------------------------------------------------------------------


def test_a_day_has_so_many_executions_and_no_more_under_any_number_of_workers(here):
    def ask(_: int) -> int:
        taken = 0
        for _ in range(10):
            groups = [new_id() for _ in range(2)]
            wanted = [(here.strategy_id, TODAY, 25, group) for group in groups]
            with for_shop(here.engine, here.shop.id) as session:
                taken += 2 - len(executions.take(session, here.shop.id, wanted))
        return taken

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 25
    with for_shop(here.engine, here.shop.id) as session:
        assert executions.take(session, here.shop.id, [(here.strategy_id, TOMORROW, 1, new_id())]) == set()
        executions.give_back(session, here.shop.id, [(here.strategy_id, TODAY)])
        assert executions.take(session, here.shop.id, [(here.strategy_id, TODAY, 25, new_id())]) == set()


def test_a_limit_that_was_lowered_takes_nothing_back(here):
    late = new_id()
    with for_shop(here.engine, here.shop.id) as session:
        assert (
            executions.take(session, here.shop.id, [(here.strategy_id, TODAY, 5, new_id()) for _ in range(4)]) == set()
        )
        assert executions.take(session, here.shop.id, [(here.strategy_id, TODAY, 2, late)]) == {late}
        executions.give_back(session, here.shop.id, [(here.strategy_id, TODAY)] * 3)
        assert executions.take(session, here.shop.id, [(here.strategy_id, TODAY, 2, new_id())]) == set()
        assert executions.take(session, here.shop.id, [(here.strategy_id, TODAY, 2, late)]) == {late}


def test_the_day_is_the_shops():
    evening = datetime(2026, 3, 1, 16, 30, tzinfo=UTC)
    assert day_of("Asia/Shanghai", evening) == date(2026, 3, 2)
    assert day_of("America/New_York", evening) == date(2026, 3, 1)


# -- an upgrade of a database in use ------------------------------------------------------------------------------


def test_what_the_last_release_reserved_is_settled_by_this_one_and_down_brings_it_back(postgres):
    from migrations.run import downgrade, upgrade

    name = f"t{new_id().hex}"
    url = postgres.url.replace("/opagent?", f"/{name}?")
    with psycopg.connect(postgres.superuser_url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} OWNER opagent")
    from operation_agent.store.engine import connect

    engine = None
    try:
        upgrade(url, "0001")
        engine = connect(url)
        shop = create_shop(engine, slug="old", name="Old", currency="USD", sandbox=True, seed="t")
        here = stage(engine, shop.id, limit=100)
        customer = here.customer()
        action = here.action(customer, reserve=40)
        settings = '{"approval": {"types": ["coupon", "carrier_pigeon"], "above_minor": null}, "language": "zh"}'
        here.run("UPDATE shops SET settings = CAST(:settings AS jsonb) WHERE id = :shop", settings=settings)
        upgrade(url)
        (kept,) = here.run("SELECT settings FROM shops WHERE id = :shop")
        assert kept.settings == {"approval": {"types": ["coupon"]}, "language": "zh"}
        limits(here, per_customer_minor=50)
        assert customers(here) == {customer: 40}
        assert reserve(here, want(here, 11, customer), want(here, 10, customer)) == ["per_customer", None]
        with for_shop(engine, shop.id) as session:
            budget.finish(session, shop.id, release=[action], at=NOW)
        assert (here.budget(), customers(here)) == ((10, 0), {customer: 10})
        engine.dispose()
        downgrade(url, "0001")
        assert here.budget() == (10, 0)
        engine.dispose()
        upgrade(url)
        assert here.budget() == (10, 0)
    finally:
        if engine is not None:
            engine.dispose()
        with psycopg.connect(postgres.superuser_url(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_budget_says_what_is_left_of_today(here):
    at = SYSTEM.now()
    today = day_of(here.shop.time_zone, at)
    limits(here, daily_minor=100)
    spent = want(here, 30, day=today)
    reserve(here, spent, want(here, 20, day=today), want(here, 50, day=today - timedelta(days=1)))
    finish(here, "commit", spent)
    with for_shop(here.engine, here.shop.id) as session:
        (found,) = budget_limits.standings(session, here.shop, at=at)
    assert (found.reserved_minor, found.spent_minor, found.left_minor) == (70, 30, 900)
    assert (found.committed_today_minor, found.left_today_minor) == (50, 50)
