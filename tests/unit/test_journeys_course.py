"""What happens next to a customer who waits: the order is that of shop time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from operation_agent.journeys.course import Bounds, Happening, Seen, Spot, happening

pytestmark = pytest.mark.unit

T0 = datetime(2026, 3, 2, 12, tzinfo=UTC)
TRIGGER = UUID(int=99)
BOUNDS = Bounds(T0, ("order.paid",), TRIGGER)
NEVER = T0 + timedelta(days=999)


def at(hours: float) -> datetime:
    return T0 + timedelta(hours=hours)


def seen(hours: float, type_: str = "email.clicked", number: int = 1) -> Seen:
    return Seen(at(hours), type_, UUID(int=number))


def wait(since: float = 0, until: float = 48) -> Spot:
    return Spot("1", "wait", at(until), at(since), ("email.clicked",))


def next_(spot: Spot, *known: Seen, until: datetime = NEVER, fits=lambda one: True) -> Happening | None:
    return happening(spot, BOUNDS, sorted(known, key=lambda one: one.at), until, fits)


def test_the_earliest_event_within_the_wait_is_taken_both_ends_included():
    assert next_(wait(), seen(5, number=2), seen(3)) == Happening("event", at(3), seen(3))
    assert next_(wait(until=5), seen(5)) == Happening("event", at(5), seen(5))
    assert next_(wait(since=5), seen(5)) == Happening("event", at(5), seen(5))


def test_what_lies_outside_the_wait_or_does_not_fit_is_passed_over():
    over = Happening("over", at(48))
    assert next_(wait(since=5), seen(4)) == over
    assert next_(wait(), seen(48.1)) == over
    assert next_(wait(), seen(3, "page.viewed")) == over
    assert next_(wait(), seen(3), fits=lambda one: False) == over


def test_the_event_that_set_the_run_off_is_not_waited_for():
    assert next_(wait(), seen(0, number=99)) == Happening("over", at(48))


def test_nothing_happens_before_its_time():
    assert next_(wait(), until=at(47)) is None
    assert next_(wait(), seen(10), until=at(9)) is None
    assert next_(Spot("2", "branch", at(4)), until=at(3)) is None
    assert next_(Spot("2", "branch", at(4)), until=at(4)) == Happening("branch", at(4))


def test_a_goal_wins_over_whatever_comes_later_and_at_the_same_instant():
    goal = seen(3, "order.paid")
    left = Happening("exit", at(3), goal)
    assert next_(wait(), goal, seen(4)) == left
    assert next_(wait(), goal, seen(3, number=2)) == left
    assert next_(wait(until=3), goal) == left
    assert next_(Spot("2", "branch", at(3)), goal) == left
    assert next_(wait(), goal, seen(2)) == Happening("event", at(2), seen(2))


def test_a_goal_that_is_heard_of_late_still_ends_the_run_but_none_from_before_it():
    assert next_(wait(since=20), seen(3, "order.paid")) == Happening("exit", at(3), seen(3, "order.paid"))
    assert next_(wait(), seen(0, "order.paid")) == Happening("over", at(48))
    assert next_(wait(), seen(-1, "order.paid")) == Happening("over", at(48))
