"""Goals that were not reached in time set a rule off; those that were do not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from .journeying import DAY, HOUR, T0, mail, rule, strategy, walks

pytestmark = pytest.mark.integration

MISSED = {"missed": {"event": ["checkout.started"], "goal": ["order.paid"], "within": "P1D"}, "frequency": "every_time"}
BIG = {"field": "event.value_minor", "op": "gte", "value": 1000}


def shop(engine, shop_id, *names, **when):
    return walks(engine, shop_id, strategy([rule([mail("again")], when={**MISSED, **when}, **{"if": BIG})]), *names)


def starts(here, who, at, number=1, value=5000):
    here.does(who, "checkout.started", at, checkout_id=f"c{number}", value_minor=value)


def pays(here, who, at, *, told=None):
    here.observe(here.event(who, "order.paid", at, order_id=f"o{at}", total_minor=100, total=1), at=told or at)


def test_a_goal_missed_is_decided_about_as_of_the_moment_its_time_was_up(engine, shop_id):
    here = shop(engine, shop_id, "ann", "bob", "eve")
    starts(here, "ann", T0)
    starts(here, "bob", T0)
    starts(here, "eve", T0, value=10)  # the rule asks for more
    pays(here, "bob", T0 + 5 * HOUR)
    assert here.advance(T0 + DAY - HOUR).watches == 0
    done = here.advance(T0 + 6 * DAY)
    assert (done.watches, done.decisions) == (2, 1)
    assert here.actions() == [("again", DAY)]
    (decision,) = here.run("SELECT trigger, decided_at, event_id FROM decisions WHERE shop_id = :shop")
    assert (decision.trigger, decision.decided_at) == ("goal.missed", T0 + DAY)
    (action,) = here.run("SELECT dedupe_key FROM actions WHERE shop_id = :shop")
    assert ":missed/test/" in action.dedupe_key
    assert here.advance(T0 + 6 * DAY).watches == 0


def test_a_goal_at_the_last_moment_told_before_the_time_was_noticed_counts(engine, shop_id):
    here = shop(engine, shop_id, "ann")
    starts(here, "ann", T0)
    pays(here, "ann", T0 + DAY, told=T0 + 3 * DAY)
    assert here.advance(T0 + 3 * DAY).decisions == 0
    assert here.run("SELECT 1 FROM watches WHERE shop_id = :shop") == []


def test_a_goal_before_the_event_or_after_its_time_does_not_count(engine, shop_id):
    here = shop(engine, shop_id, "ann")
    pays(here, "ann", T0 - HOUR)
    starts(here, "ann", T0)
    pays(here, "ann", T0 + DAY + timedelta(seconds=1))
    assert here.advance(T0 + 2 * DAY).decisions == 1


def test_a_key_of_the_event_keeps_goals_apart(engine, shop_id):
    here = shop(engine, shop_id, "ann", frequency="once_per_key", key="event.checkout_id")
    for number, at in ((1, T0), (1, T0 + HOUR), (2, T0 + 2 * HOUR)):
        starts(here, "ann", at, number)
    here.advance(T0 + 2 * DAY)
    assert here.actions() == [("again", DAY), ("again", DAY + 2 * HOUR)]


def test_an_event_that_is_taken_in_too_late_begins_no_watch(engine, shop_id):
    here = shop(engine, shop_id, "ann")
    here.observe(here.event("ann", "checkout.started", T0, checkout_id="c", value_minor=5000), at=T0 + 2 * DAY)
    assert here.advance(T0 + 3 * DAY).watches == 0


def test_a_rule_that_is_not_live_any_more_asks_nothing(engine, shop_id):
    here = shop(engine, shop_id, "ann")
    starts(here, "ann", T0)
    here.run("UPDATE strategies SET state = 'paused', updated_at = :at WHERE shop_id = :shop", at=T0)
    done = here.advance(T0 + 2 * DAY)
    assert (done.watches, done.decisions) == (1, 0)
