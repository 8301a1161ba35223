"""What planning writes: quiet hours, staleness, tags, the day's executions, money by the segment."""

from __future__ import annotations

from datetime import timedelta

import pytest

from .journeying import DAY, HOUR, T0, mail, rule, strategy, wait, walks

pytestmark = pytest.mark.integration

QUIET = {"start": "21:00", "end": "09:00"}


def test_a_message_in_quiet_hours_is_delayed_by_the_clocks_of_the_customer(engine, shop_id):
    arm = [mail("now"), mail("receipt", topic="transactional"), {"action": "coupon", "percent": 10}]
    here = walks(engine, shop_id, strategy([rule(arm)], quiet_hours=QUIET), "ann", "bob")
    here.run("UPDATE customers SET time_zone = 'Asia/Shanghai' WHERE shop_id = :shop AND external_id = 'ann'")
    here.does("ann", "cart.added", T0 + 2 * HOUR)  # 22:00 in Shanghai
    here.does("bob", "cart.added", T0 + 2 * HOUR)
    rows = here.run(
        "SELECT type, topic, customer_id, due_at, stale_at FROM actions WHERE shop_id = :shop ORDER BY step"
    )
    of_ann = [(row.type, row.due_at - T0) for row in rows if row.customer_id == here.people["ann"]]
    assert of_ann == [("email", 13 * HOUR), ("email", 2 * HOUR), ("coupon", 2 * HOUR)]
    assert {row.due_at for row in rows if row.customer_id == here.people["bob"]} == {T0 + 2 * HOUR}
    assert [row.stale_at - row.due_at if row.stale_at else None for row in rows[:2]] == [2 * DAY, 2 * DAY]


def test_what_a_step_and_its_strategy_say_stands_in_the_action(engine, shop_id):
    arm = [mail("tagged", tags=["news", "both"]), {"action": "coupon", "percent": 10}]
    definition = strategy(
        [rule(arm)], tags=["both", "winter"], capping={"held_back": False, "counted": False}, stale_after="PT6H"
    )
    here = walks(engine, shop_id, definition, "ann")
    here.does("ann", "cart.added", T0)
    first, second = here.run(
        "SELECT tags, counted, held_back, stale_at - due_at AS stale, run_id, parameters FROM actions"
        " WHERE shop_id = :shop ORDER BY step"
    )
    assert (first.tags, first.counted, first.held_back, first.stale) == (
        ["news", "both", "winter"], False, False, timedelta(hours=6),
    )  # fmt: skip
    assert first.parameters["product"] == {"id": "p1"}
    assert (second.stale, second.parameters) == (None, {"percent": 10, "expires_in": "P14D"})
    assert first.run_id is None


def test_a_decision_replayed_plans_nothing_twice(engine, shop_id):
    here = walks(engine, shop_id, strategy([rule([mail("one"), wait("order.paid", "P1D")])]), "ann")
    cart = here.event("ann", "cart.added", T0)
    here.observe(cart)
    here.run("DELETE FROM events WHERE shop_id = :shop AND id = :id", id=cart.id)
    here.run("DELETE FROM enrolments WHERE shop_id = :shop")
    assert here.observe(cart).actions == 0
    assert len(here.actions()) == 1
    assert here.one_run().state == "waiting"


def test_the_money_of_a_later_segment_is_reserved_when_it_is_planned(engine, shop_id):
    arm = [mail("one"), wait("order.paid", "P1D", otherwise=[mail("two"), mail("three")])]
    here = walks(engine, shop_id, strategy([rule(arm)], budget={"limit": "0.05"}), "ann", "bob", "eve")
    for who in ("ann", "bob", "eve"):
        here.does(who, "cart.added", T0)  # each could be paid to its end by what was left then
    assert here.run("SELECT reserved_minor FROM budgets WHERE shop_id = :shop")[0].reserved_minor == 3
    here.advance(T0 + DAY)  # two more fit once, both or none
    assert sorted(one[0] for one in here.actions()) == ["one", "one", "one", "three", "two"]
    assert sorted(one[0] for one in here.actions(states=["over_budget"])) == ["three", "three", "two", "two"]
    assert here.run("SELECT reserved_minor FROM budgets WHERE shop_id = :shop")[0].reserved_minor == 5
    assert {row.state for row in here.run("SELECT state FROM runs WHERE shop_id = :shop")} == {"finished"}


def test_the_executions_of_a_day_count_openings_and_a_late_one_begins_no_run(engine, shop_id):
    arm = [wait("order.paid", "P3D", otherwise=[mail("two")])]
    here = walks(engine, shop_id, strategy([rule(arm)], executions_per_day=2), "ann", "bob", "eve")
    here.observe(*(here.event(who, "cart.added", T0) for who in ("ann", "bob", "eve")))
    assert len(here.run("SELECT 1 FROM runs WHERE shop_id = :shop")) == 2
    (day,) = here.run("SELECT taken, most FROM execution_days WHERE shop_id = :shop")
    assert (day.taken, day.most) == (2, 2)
    here.advance(T0 + 3 * DAY)
    assert here.run("SELECT taken FROM execution_days WHERE shop_id = :shop")[0].taken == 2


def test_what_needs_a_yes_waits_for_it_whichever_segment_it_is_of(engine, shop_id):
    coupon = {"action": "coupon", "percent": 10}
    arm = [mail("one"), wait("order.paid", "P1D", otherwise=[coupon])]
    here = walks(engine, shop_id, strategy([rule(arm)]), "ann")
    here.change_settings(approval={"types": ["coupon"]})
    here.does("ann", "cart.added", T0)
    here.advance(T0 + DAY)
    rows = here.run(
        "SELECT type, state, approval_id IS NOT NULL AS asks FROM actions WHERE shop_id = :shop ORDER BY step"
    )
    assert [tuple(row) for row in rows] == [("email", "ready", False), ("coupon", "waiting_approval", True)]
