"""Leaving a journey: by a person, by a new version; and where everybody stands before that."""

from __future__ import annotations

from datetime import timedelta

import pytest

from operation_agent.journeys import leaving
from operation_agent.journeys.standing import standing
from operation_agent.kit.errors import Conflict, NotFound
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop

from .journeying import DAY, HOUR, T0, mail, rule, strategy, wait, walks

pytestmark = pytest.mark.integration

ARM = [mail("hello", delay="PT1H"), wait("order.paid", "P2D", otherwise=[mail("nudge")]), mail("after", delay="P1D")]


def rule_id(here):
    return here.run("SELECT id FROM rules WHERE shop_id = :shop")[0].id


def test_one_customer_can_be_taken_out_once(engine, shop_id):
    here = walks(engine, shop_id, strategy([rule(ARM)]), "ann", "bob")
    for who in ("ann", "bob"):
        here.does(who, "cart.added", T0)
    run_id = here.run("SELECT id FROM runs WHERE shop_id = :shop AND customer_id = :who", who=here.people["ann"])[0].id
    with for_shop(engine, shop_id) as session:
        assert leaving.exit_run(session, here.shop, run_id, actor="user:me", at=T0) == 1
    with for_shop(engine, shop_id) as session, pytest.raises(Conflict):
        leaving.exit_run(session, here.shop, run_id, actor="user:me", at=T0)
    with for_shop(engine, shop_id) as session, pytest.raises(NotFound):
        leaving.exit_run(session, here.shop, new_id(), actor="user:me", at=T0)
    assert here.actions("ann", states=["cancelled"]) == [("hello", HOUR)]
    assert here.advance(T0 + 9 * DAY).runs == 1
    assert [subject for subject, _ in here.actions("bob")] == ["hello", "nudge", "after"]


def test_where_everybody_stands_is_told_by_step(engine, shop_id):
    here = walks(engine, shop_id, strategy([rule(ARM)]), "ann", "bob", "eve")
    for who in ("ann", "bob", "eve"):
        here.does(who, "cart.added", T0)
    here.does("eve", "order.paid", T0 + DAY, order_id="o", total_minor=100, total=1)
    with for_shop(engine, shop_id) as session:
        found = standing(session, here.shop, rule_id(here))
    assert [tuple(place) for place in found] == [
        (1, "arm", "0", "hello", 3, True), (1, "arm", "1", "1", 2, False), (1, "arm", "2", "after", 1, True),
    ]  # fmt: skip


def test_publishing_may_take_everybody_out_of_older_versions_with_what_they_planned(engine, shop_id):
    linear = {**rule([mail("one"), mail("two", delay="P1D")]), "key": "linear"}
    here = walks(engine, shop_id, strategy([rule(ARM)], key="first"), "ann")
    here.bring_live(strategy([linear], key="second"))
    here.does("ann", "cart.added", T0)
    ids = {row.key: row.id for row in here.run("SELECT key, id FROM rules WHERE shop_id = :shop")}
    with for_shop(engine, shop_id) as session:
        assert leaving.exit_runs(session, here.shop, ids["first/rule"], 1, "in_flight_exit", T0) == (0, 0)
        assert leaving.exit_runs(session, here.shop, ids["first/rule"], 2, "in_flight_exit", T0) == (1, 1)
        assert leaving.exit_runs(session, here.shop, ids["second/linear"], 2, "in_flight_exit", T0) == (0, 2)
    assert here.actions() == []
    assert here.one_run().exit_reason == "in_flight_exit"
    assert here.actions(states=["cancelled"]) == [("one", timedelta(0)), ("hello", HOUR), ("two", DAY)]


def test_a_strategy_that_ended_leads_nobody_on(engine, shop_id):
    here = walks(engine, shop_id, strategy([rule(ARM)]), "ann")
    here.does("ann", "cart.added", T0)
    here.run("UPDATE strategies SET state = 'archived' WHERE shop_id = :shop")
    here.advance(T0 + 9 * DAY)
    run = here.one_run()
    assert (run.state, run.exit_reason) == ("exited", "strategy_ended")


def test_a_decision_without_money_begins_no_run(engine, shop_id):
    budget = {"limit": "0"}
    here = walks(engine, shop_id, strategy([rule(ARM)], budget=budget), "ann")
    here.does("ann", "cart.added", T0)
    assert here.run("SELECT 1 FROM runs WHERE shop_id = :shop") == []
