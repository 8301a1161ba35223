"""Events are stored once, in order, for one shop, and wake one worker a partition."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from operation_agent.events import intake, queue
from operation_agent.events.event import Event
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.store.session import HeldConnection, for_shop, for_system
from operation_agent.store.shops import create_shop

pytestmark = pytest.mark.integration


def made(source_id: str, who: str = "u1", **changes) -> Event:
    now = SYSTEM.now()
    values = {
        "id": new_id(), "source": "test", "source_id": source_id, "type": "custom", "name": "Naïve 名",
        "occurred_at": now - timedelta(days=400), "received_at": now, "identity": {"external": who},
        "properties": {"text": 'quote " slash \\ tab \t 名 😀', "n": 2**63, "f": 0.1, "deep": [{"a": None}]},
        "context": {"ip": "192.0.2.1"},
    }  # fmt: skip
    return Event(**{**values, **changes})


def store(engine, shop_id, *events) -> intake.IntakeResult:
    with for_shop(engine, shop_id) as session:
        return intake.commit(session, shop_id, events)


def waiting(engine, shop_id: UUID) -> list[Event]:
    found = []
    with for_shop(engine, shop_id) as session:
        for partition in range(intake.PARTITIONS):
            claimed = queue.claim(session, shop_id, partition, 1000)
            assert claimed is not None
            found += [one.event for one in claimed]
    return found


def test_an_event_comes_back_as_it_went_in(engine, shop_id):
    event = made("1")
    assert store(engine, shop_id, event) == intake.IntakeResult(1, 0, frozenset())
    assert waiting(engine, shop_id) == [event]


def test_the_same_source_id_again_is_counted_and_not_stored(engine, shop_id):
    assert store(engine, shop_id, made("1"), made("2")).accepted == 2
    again = store(engine, shop_id, made("3"), made("2"), made("1"), made("3"), made("4"))
    assert again == intake.IntakeResult(2, 3, frozenset({1, 2, 3}))
    assert {event.source_id for event in waiting(engine, shop_id)} == {"1", "2", "3", "4"}
    assert store(engine, shop_id, made("1", source="other")).accepted == 1


def test_another_shop_may_have_the_same_source_id(engine, shop_id):
    other = create_shop(engine, slug=f"o-{new_id().hex[-12:]}", name="Other", currency="CNY").id
    store(engine, shop_id, made("same"))
    assert store(engine, other, made("same")).accepted == 1
    with for_shop(engine, other) as session:
        for table in ("events", "event_keys", "event_queue"):
            assert session.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 1  # noqa: S608


def test_a_write_for_another_shop_is_refused_by_the_database(engine, shop_id):
    other = create_shop(engine, slug=f"o-{new_id().hex[-12:]}", name="Other", currency="CNY").id
    with pytest.raises(Exception, match="row-level security"), for_shop(engine, shop_id) as session:
        intake.commit(session, other, [made("1")])
    assert waiting(engine, other) == []


def test_a_customers_events_keep_their_order(engine, shop_id):
    for start in (0, 50, 100):
        store(engine, shop_id, *(made(str(start + n), f"u{n % 3}") for n in range(50)))
    for customer in ("u0", "u1", "u2"):
        arrived = [int(event.source_id) for event in waiting(engine, shop_id) if event.identity["external"] == customer]
        assert arrived == sorted(arrived)
        assert len(arrived) == (48 if customer == "u2" else 51)


def test_each_partition_with_events_is_rung_once(engine, shop_id):
    events = [made(str(number), f"u{number}") for number in range(40)]
    store(engine, shop_id, *events)
    store(engine, shop_id, made("more", "u1"))
    with for_system(engine) as session:
        rung = session.execute(text("SELECT topic, key FROM outbox WHERE shop_id = :s"), {"s": shop_id}).all()
    assert {row.key for row in rung} == {str(intake.partition_of(event.identity)) for event in events}
    assert {row.topic for row in rung} == {"events.process"}
    assert len(rung) == len({row.key for row in rung})


def test_nothing_is_stored_when_the_transaction_fails(engine, shop_id):
    with pytest.raises(ZeroDivisionError), for_shop(engine, shop_id) as session:
        intake.commit(session, shop_id, [made("1")])
        raise ZeroDivisionError
    assert waiting(engine, shop_id) == []
    assert store(engine, shop_id, made("1")).accepted == 1


def test_no_events_are_no_work(engine, shop_id):
    assert store(engine, shop_id) == intake.IntakeResult(0, 0, frozenset())


def test_a_partition_has_one_worker(engine, shop_id):
    store(engine, shop_id, made("1"))
    partition = intake.partition_of({"external": "u1"})
    with for_shop(engine, shop_id) as session:
        assert len(queue.claim(session, shop_id, partition, 10) or []) == 1
        with for_shop(engine, shop_id) as another:
            assert queue.claim(another, shop_id, partition, 10) is None
            assert queue.claim(another, shop_id, (partition + 1) % 8, 10) == []
    with for_shop(engine, shop_id) as session:
        assert queue.claim(session, shop_id, partition, 10) is not None


def test_what_is_done_leaves_the_queue(engine, shop_id):
    store(engine, shop_id, *(made(str(n)) for n in range(5)))
    partition = intake.partition_of({"external": "u1"})
    with for_shop(engine, shop_id) as session:
        claimed = queue.claim(session, shop_id, partition, 3)
        assert [one.event.source_id for one in claimed] == ["0", "1", "2"]
        queue.done(session, shop_id, partition, [one.seq for one in claimed])
        assert queue.pending(session, shop_id) == queue.pending(session, shop_id, partition) == 2
        ((where, events, oldest),) = queue.backlog(session, shop_id)
        assert (where, events) == (partition, 2)
        assert oldest <= SYSTEM.now()
    assert [event.source_id for event in waiting(engine, shop_id)] == ["3", "4"]


def test_after_five_failures_an_event_is_set_aside_and_can_be_replayed(engine, shop_id):
    bad, good = made("bad"), made("good")
    store(engine, shop_id, bad, good)
    partition = intake.partition_of({"external": "u1"})
    for attempt in range(1, 6):
        with for_shop(engine, shop_id) as session:
            first = queue.claim(session, shop_id, partition, 1)[0]
            assert first.attempts == attempt - 1
            given_up = queue.failed(session, shop_id, partition, [first.seq], "it\0 broke", at=SYSTEM.now())
            assert given_up == (1 if attempt == 5 else 0)
    assert [event.source_id for event in waiting(engine, shop_id)] == ["good"]
    with for_shop(engine, shop_id) as session:
        assert session.execute(text("SELECT event_id, error FROM event_failures")).one() == (bad.id, "it broke")
        assert queue.replay(session, shop_id, [bad.id, new_id()]) == 1
    assert [event.source_id for event in waiting(engine, shop_id)] == ["good", "bad"]


def test_a_held_connection_sees_one_shop_and_survives_being_cut(engine, shop_id):
    held = HeldConnection(engine)
    with held.for_shop(shop_id) as connection:
        intake.write(connection, shop_id, [made("1")])
        pid = connection.info.backend_pid
    with engine.connect() as other:
        other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    with pytest.raises(Exception, match=r"terminat|closed|connection"), held.for_shop(shop_id) as connection:
        intake.write(connection, shop_id, [made("2")])
    with held.for_shop(shop_id) as connection:
        assert intake.write(connection, shop_id, [made("2"), made("1")]).duplicates == 1
    held.close()
