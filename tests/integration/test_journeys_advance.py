"""Journeys on real PostgreSQL: waits, branches and exits, whenever the time that passed is noticed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from .journeying import DAY, HOUR, T0, mail, rule, strategy, wait, walks

pytestmark = pytest.mark.integration

NUDGE = wait("order.paid", "P2D", then=[mail("thanks")], otherwise=[mail("nudge", delay="PT1H")])
ARM = [mail("hello"), NUDGE, mail("after", delay="P1D")]


def paid(here, who, at, number=1):
    return here.event(who, "order.paid", at, order_id=f"o{number}", total_minor=1000, total=10)


def test_an_event_waited_for_leads_on_at_its_own_time(engine, shop_id):
    here = walks(engine, shop_id, strategy([rule(ARM)]), "ann")
    here.does("ann", "cart.added", T0)
    assert here.actions() == [("hello", timedelta(0))]
    run = here.one_run()
    assert (run.state, run.path, run.kind, run.due_at) == ("waiting", "1", "wait", T0 + 2 * DAY)
    here.observe(paid(here, "ann", T0 + 5 * HOUR))
    assert here.actions() == [("hello", timedelta(0)), ("thanks", 5 * HOUR), ("after", 29 * HOUR)]
    assert here.one_run().state == "finished"


def test_a_wait_that_is_over_goes_the_other_way_at_its_deadline(engine, shop_id):
    here = walks(engine, shop_id, strategy([rule(ARM)]), "ann")
    here.does("ann", "cart.added", T0)
    assert here.advance(T0 + 2 * DAY - HOUR).runs == 0
    done = here.advance(T0 + 10 * DAY)  # the clock jumped
    assert (done.runs, done.latest) == (1, 8 * DAY)
    assert here.actions() == [("hello", timedelta(0)), ("nudge", 49 * HOUR), ("after", 73 * HOUR)]
    assert here.advance(T0 + 10 * DAY).runs == 0


def test_an_event_before_the_deadline_counts_when_it_was_taken_in_before_the_time_was_noticed(engine, shop_id):
    here = walks(
        engine, shop_id, strategy([rule([*ARM, wait("email.clicked", "P1D", otherwise=[mail("last")])])]), "ann"
    )
    here.does("ann", "cart.added", T0)
    here.observe(paid(here, "ann", T0 + 2 * DAY), at=T0 + 9 * DAY)  # at the very deadline, told a week later
    here.advance(T0 + 9 * DAY)
    assert [subject for subject, _ in here.actions()] == ["hello", "thanks", "after", "last"]
    assert here.actions()[-1] == ("last", 4 * DAY)


def test_an_event_heard_of_after_the_run_went_on_rewrites_nothing(engine, shop_id):
    here = walks(engine, shop_id, strategy([rule(ARM)]), "ann")
    here.does("ann", "cart.added", T0)
    here.advance(T0 + 3 * DAY)
    here.observe(paid(here, "ann", T0 + DAY), at=T0 + 3 * DAY)
    assert [subject for subject, _ in here.actions()] == ["hello", "nudge", "after"]


def test_what_came_before_the_trigger_in_the_same_batch_or_earlier_is_known(engine, shop_id):
    here = walks(engine, shop_id, strategy([rule(ARM)]), "ann", "bob")
    cart = here.event("ann", "cart.added", T0)
    here.observe(cart, paid(here, "ann", T0 + HOUR))
    here.observe(paid(here, "bob", T0 + HOUR, 2))
    here.does("bob", "cart.added", T0)  # arrives late
    here.observe(here.event("bob", "page.viewed", T0 + 2 * HOUR))
    assert [subject for subject, _ in here.actions("ann")] == ["hello", "thanks", "after"]
    here.advance(T0 + 2 * DAY)
    assert here.actions("bob") == [("hello", timedelta(0)), ("thanks", HOUR), ("after", 25 * HOUR)]


def test_a_goal_ends_the_run_and_calls_off_what_was_still_to_come(engine, shop_id):
    arm = [mail("hello"), mail("soon", delay="P1D"), wait("email.clicked", "P5D", otherwise=[mail("late")])]
    here = walks(engine, shop_id, strategy([rule(arm, exit_on=["order.paid"])]), "ann")
    here.does("ann", "cart.added", T0)
    here.observe(paid(here, "ann", T0 + HOUR))
    run = here.one_run()
    assert (run.state, run.exit_reason, run.left_at) == ("exited", "order.paid", T0 + HOUR)
    assert here.actions() == [("hello", timedelta(0))]
    assert here.actions(states=["cancelled"]) == [("soon", DAY)]
    assert here.advance(T0 + 20 * DAY).runs == 0


def test_a_goal_known_late_keeps_what_was_due_before_it(engine, shop_id):
    first = wait("email.clicked", "P1D", otherwise=[mail("one"), mail("two", delay="P2D")])
    arm = [first, wait("email.clicked", "P5D", otherwise=[mail("three")])]
    here = walks(engine, shop_id, strategy([rule(arm, exit_on=["order.paid"])]), "ann")
    here.does("ann", "cart.added", T0)
    here.observe(paid(here, "ann", T0 + 2 * DAY), at=T0 + 9 * DAY)
    here.advance(T0 + 9 * DAY)
    assert here.actions() == [("one", DAY)]
    assert here.one_run().exit_reason == "order.paid"


def test_a_branch_is_looked_at_as_of_its_own_moment(engine, shop_id):
    fork = {
        "if": {"field": "customer.orders", "op": "gte", "value": 1},
        "then": [mail("buyer")], "else": [mail("visitor")],
    }  # fmt: skip
    here = walks(engine, shop_id, strategy([rule([{"delay": "P1D"}, fork])]), "ann", "bob")
    here.does("ann", "cart.added", T0)
    here.does("bob", "cart.added", T0)
    here.observe(paid(here, "ann", T0 + HOUR))
    here.observe(paid(here, "bob", T0 + 30 * HOUR, 2))  # after the branch
    assert here.advance(T0 + 5 * DAY).runs == 2
    assert here.actions("ann") == [("buyer", DAY)]
    assert here.actions("bob") == [("visitor", DAY)]


def test_a_branch_at_the_start_is_taken_at_once(engine, shop_id):
    fork = {"if": {"field": "event.product_id", "op": "equals", "value": "p1"}, "then": [mail("this")]}
    here = walks(engine, shop_id, strategy([rule([fork, mail("then", delay="PT1H")])]), "ann")
    here.does("ann", "cart.added", T0)
    assert here.actions() == [("this", timedelta(0)), ("then", HOUR)]


def test_a_wait_takes_only_the_event_it_describes(engine, shop_id):
    where = {"all": [{"field": "event.total_minor", "op": "gte", "value": 5000}]}
    arm = [wait("order.paid", "P3D", then=[mail("big")], otherwise=[mail("small")], where=where)]
    here = walks(engine, shop_id, strategy([rule(arm)]), "ann")
    here.does("ann", "cart.added", T0)
    here.observe(paid(here, "ann", T0 + HOUR))
    assert here.actions() == []
    here.observe(here.event("ann", "order.paid", T0 + DAY, order_id="o2", total_minor=9000, total=90))
    assert here.actions() == [("big", DAY)]


def test_a_named_wait_takes_only_that_custom_event(engine, shop_id):
    named = [wait("custom", "P3D", then=[mail("quiz")], otherwise=[mail("none")], name="Quiz done")]
    here = walks(engine, shop_id, strategy([rule(named)]), "ann")
    here.does("ann", "cart.added", T0)
    here.does("ann", "custom", T0 + HOUR, name="Quiz begun")
    assert here.actions() == []
    here.does("ann", "custom", T0 + 2 * HOUR, name="Quiz done")
    assert here.actions() == [("quiz", 2 * HOUR)]


def test_the_held_out_walk_the_same_way_into_the_trap(engine, shop_id):
    here = walks(engine, shop_id, strategy([rule(ARM)], holdout=0.999999), "ann")
    here.does("ann", "cart.added", T0)
    here.advance(T0 + 5 * DAY)
    rows = here.run("SELECT held_out, cost_minor, reserved_minor FROM actions WHERE shop_id = :shop")
    assert [tuple(row) for row in rows] == [(True, 0, 0)] * 3
    assert here.one_run().held_out


def test_a_later_message_carries_the_coupon_of_an_earlier_segment(engine, shop_id):
    coupon = {"action": "coupon", "percent": 10}
    body = dict.fromkeys(("en", "zh"), "<p>{{ coupon.code }}</p> {{ unsubscribe_url }}")
    arm = [coupon, wait("order.paid", "P1D", otherwise=[{**mail("code"), "body": body}])]
    here = walks(engine, shop_id, strategy([rule(arm)]), "ann")
    here.does("ann", "cart.added", T0)
    here.advance(T0 + DAY)
    first, second = here.run("SELECT id, after_action, run_id FROM actions WHERE shop_id = :shop ORDER BY step")
    assert second.after_action == first.id
    assert second.run_id == first.run_id == here.one_run().id
