"""A partition is worked off in order; one event that cannot be processed is set aside and its neighbours go on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from operation_agent import agent
from operation_agent.events import intake, queue
from operation_agent.events.event import Event
from operation_agent.kit.clock import SYSTEM, FixedClock
from operation_agent.kit.ids import new_id
from operation_agent.store import ticks
from operation_agent.store.session import for_shop, for_system
from operation_agent.store.shops import load_shop, move_clock
from operation_agent.strategies import calendar
from tests.integration.sending import stage
from workers.processing import drain
from workers.sweep import due_ticks, make_partitions, sweep, take_ticks

pytestmark = pytest.mark.integration


def put(engine: Engine, shop_id: UUID, *names: str, customer: str = "c-1") -> int:
    """Events of one customer, so all in one partition; which one."""
    now = SYSTEM.now()
    events = [
        Event(new_id(), "test", name, "product.viewed", now, now, {"external": customer}, {"product_id": name})
        for name in names
    ]
    with for_shop(engine, shop_id) as session:
        intake.commit(session, shop_id, events)
        ((partition, *_),) = queue.backlog(session, shop_id)
    return partition


def topics(engine: Engine, shop_id: UUID) -> set[tuple[str, str]]:
    with for_system(engine) as session:
        rows = session.execute(text("SELECT topic, key FROM outbox WHERE shop_id = :s"), {"s": shop_id})
        return {(row.topic, row.key) for row in rows}


def forget(engine: Engine, shop_id: UUID) -> None:
    with for_shop(engine, shop_id) as session:
        session.execute(text("DELETE FROM outbox WHERE shop_id = :s"), {"s": shop_id})


@pytest.fixture
def seen(monkeypatch) -> list[str]:
    """What was processed, in order; names that begin with 'bad' fail, 'locked' fails once as a deadlock does."""
    done: list[str] = []
    passed: set[str] = set()

    class DeadlockError(Exception):
        sqlstate = "40P01"

    def observe(_session, _shop, events, *, recorded_at):
        for event in events:
            if event.source_id.startswith("bad"):
                raise ValueError(f"cannot read {event.source_id}")
            if event.source_id.startswith("locked") and event.source_id not in passed:
                passed.add(event.source_id)
                raise OperationalError("UPDATE", {}, DeadlockError())
            if event.source_id.startswith("away"):
                raise OperationalError("SELECT", {}, Exception("server closed the connection"))
        done.extend(event.source_id for event in events)

    monkeypatch.setattr(agent, "observe", observe)
    return done


def test_one_bad_event_is_set_aside_and_the_others_keep_their_order(engine, shop_id, seen):
    names = [f"e{number}" for number in range(20)]
    partition = put(engine, shop_id, *names[:11], "bad-1", *names[11:])
    assert drain(engine, shop_id, partition) == 20
    assert seen == names
    with for_shop(engine, shop_id) as session:
        assert queue.pending(session, shop_id) == 0
        failures = session.execute(text("SELECT error FROM event_failures WHERE shop_id = :s"), {"s": shop_id}).all()
    assert [row.error for row in failures] == ["ValueError: cannot read bad-1"]


def test_a_deadlock_is_tried_again_and_counts_against_no_event(engine, shop_id, seen):
    partition = put(engine, shop_id, "e1", "locked-1", "e2")
    assert drain(engine, shop_id, partition) == 3
    assert seen == ["e1", "locked-1", "e2"]


def test_a_database_that_is_away_sets_no_event_aside(engine, shop_id, seen):
    partition = put(engine, shop_id, "away")
    with pytest.raises(OperationalError):
        drain(engine, shop_id, partition)
    with for_shop(engine, shop_id) as session:
        (head,) = queue.claim(session, shop_id, partition, 10) or ()
        assert head.attempts == 0


def test_a_partition_somebody_else_holds_is_left_to_them(engine, shop_id, seen):
    partition = put(engine, shop_id, "e1")
    with for_shop(engine, shop_id) as session:
        assert queue.claim(session, shop_id, partition, 10)
        assert drain(engine, shop_id, partition) == 0
    assert seen == []


def test_when_time_is_up_the_rest_is_rung_for(engine, shop_id, seen):
    partition = put(engine, shop_id, "e1", "e2", "e3")
    forget(engine, shop_id)
    assert drain(engine, shop_id, partition, seconds=0, batch=1) == 1
    assert topics(engine, shop_id) == {("events.process", str(partition))}


# -- the sweep: every wake-up can be made again from the tables ---------------------------------------------------


def test_lost_wake_ups_are_made_again_from_the_tables(engine, shop_id):
    here = stage(engine, shop_id)
    partition = put(engine, shop_id, "e1")
    here.action(here.customer())
    here.action(here.customer(), type="coupon", state="unknown", retry_at=here.start)
    lost = here.action(here.customer(), state="sending", lease_until=here.start)
    here.action(here.customer(), due_at=SYSTEM.now() + timedelta(days=1), type="coupon")
    with for_shop(engine, shop_id) as session:
        ticks.take(session, shop_id, ticks.CLUSTERING, here.start, at=here.start)
        ticks.take(session, shop_id, f"campaign:{new_id()}", here.start, at=here.start)
        ticks.take(session, shop_id, "effects.compare", here.start, at=here.start)
        ticks.finish(session, shop_id, "effects.compare", up_to=here.start, at=here.start)
    forget(engine, shop_id)
    sweep(engine, clock=FixedClock(SYSTEM.now() + timedelta(seconds=2)))
    assert topics(engine, shop_id) == {
        ("events.process", str(partition)), ("actions.deliver", "email"), ("actions.reconcile", ""),
        ("clustering.fit", ""), ("campaigns.run", "0"),
    }  # fmt: skip
    assert (here.one(lost).state, here.one(lost).maybe_sent) == ("unknown", True)


def test_a_wake_up_that_is_on_its_way_is_not_rung_again(engine, shop_id):
    put(engine, shop_id, "e1")
    forget(engine, shop_id)
    sweep(engine)
    assert topics(engine, shop_id) == set()


def test_two_schedulers_take_each_tick_once(engine, shop_id):
    take_ticks(engine)
    at = SYSTEM.now() + timedelta(days=1)
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        first = due_ticks(session, shop, at=at)
        second = due_ticks(session, shop, at=at)
    # each job once, however many hours have passed: a clustering, a comparison, the segments; on some days weekly ones
    assert 3 <= first <= len(calendar.JOBS) and second == 0


def test_a_moved_sandbox_clock_makes_its_own_ticks_due(engine, shop_id):
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        due_ticks(session, shop, at=SYSTEM.now())
        shop = move_clock(session, shop, shop.now() + timedelta(days=40))
        assert 3 <= due_ticks(session, shop, at=SYSTEM.now()) <= len(calendar.JOBS)
        open_ticks = session.execute(
            text("SELECT max(due_at) FROM schedule_ticks WHERE shop_id = :s AND finished_at IS NULL"), {"s": shop_id}
        ).scalar_one()
    assert open_ticks > SYSTEM.now() + timedelta(days=38)


def test_partitions_are_made_ahead(engine):
    make_partitions(engine, clock=FixedClock(datetime(2031, 11, 30, tzinfo=UTC)))
    with for_system(engine) as session:
        for month in ("203111", "203112", "203201"):
            for parent in ("events", "decisions"):
                assert session.execute(text("SELECT to_regclass(:name)"), {"name": f"{parent}_{month}"}).scalar()
