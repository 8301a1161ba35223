"""A delivery is taken once, by any of its names: alone, in a group, in a race; and whole or not at all."""

from __future__ import annotations

import asyncio
import threading
from uuid import UUID

import pytest
from sqlalchemy import text

from api.group_commit import Committed, GroupCommitter
from operation_agent.events import intake
from operation_agent.events.event import Event
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import create_shop

pytestmark = pytest.mark.integration


def made(source_id: str, *delivery: str, **changes) -> Event:
    now = SYSTEM.now()
    values = {
        "id": new_id(), "source": "shop", "source_id": source_id, "type": "custom", "occurred_at": now,
        "received_at": now, "identity": {"external": "u1"}, "properties": {}, "delivery": delivery,
    }  # fmt: skip
    return Event(**{**values, **changes})


def store(engine, shop_id, *events) -> intake.IntakeResult:
    with for_shop(engine, shop_id) as session:
        return intake.commit(session, shop_id, events)


def stored(engine, shop_id) -> list[str]:
    with for_shop(engine, shop_id) as session:
        return sorted(session.execute(text("SELECT source_id FROM events")).scalars())


def test_a_delivery_that_came_before_leaves_no_trace_of_what_it_says(engine, shop_id):
    first = store(engine, shop_id, made("1", "e:1", "w:1"), made("2", "e:1", "w:1"))
    assert first == intake.IntakeResult(2, 0, frozenset())
    copy = store(engine, shop_id, made("3", "e:1", "w:2"), made("1", "e:1", "w:2"))
    assert copy == intake.IntakeResult(0, 2, frozenset({0, 1}))
    assert store(engine, shop_id, made("3", "e:2", "w:3")).accepted == 1  # its id was not used up by the copy
    assert store(engine, shop_id, made("4", "e:9", "w:2")).accepted == 0  # the copy's own name is known too
    assert stored(engine, shop_id) == ["1", "2", "3"]


def test_what_was_told_before_is_a_duplicate_in_a_new_delivery_too(engine, shop_id):
    store(engine, shop_id, made("1", "e:1"))
    assert store(engine, shop_id, made("1", "e:2"), made("2", "e:2")) == intake.IntakeResult(1, 1, frozenset({0}))


def test_one_change_told_under_several_topics_is_several_deliveries(engine, shop_id):
    names = (("orders/create:event:7", "orders/create:webhook:a"), ("orders/paid:event:7", "orders/paid:webhook:b"))
    assert store(engine, shop_id, made("1", *names[0]), made("2", *names[1])).accepted == 2


def test_copies_in_one_group_are_dropped_and_other_events_are_not(engine, shop_id):
    events = [
        made("1", "e:1", "w:1"), made("2"), made("3", "e:2", "w:1"), made("4", "e:1", "w:1"), made("2"),
        made("5", "e:3"),
    ]  # fmt: skip
    assert store(engine, shop_id, *events) == intake.IntakeResult(4, 2, frozenset({2, 4}))
    assert stored(engine, shop_id) == ["1", "2", "4", "5"]


def test_another_sources_delivery_may_have_the_same_name(engine, shop_id):
    store(engine, shop_id, made("1", "e:1"))
    assert store(engine, shop_id, made("1", "e:1", source="other")).accepted == 1


@pytest.mark.parametrize("commits", [True, False])
def test_of_two_writers_at_once_one_stores_it(engine, shop_id, commits):
    """The second waits for the first, and takes it only if the first did not."""
    results: list[intake.IntakeResult] = []
    second = threading.Thread(
        target=lambda: results.append(store(engine, shop_id, made("2", "e:1"), made("3", "e:1"))), daemon=True
    )

    class _UndoneError(Exception):
        pass

    def first() -> None:
        with for_shop(engine, shop_id) as session:
            assert intake.commit(session, shop_id, [made("1", "e:1")]).accepted == 1
            second.start()
            second.join(0.5)
            assert second.is_alive()
            if not commits:
                raise _UndoneError

    if commits:
        first()
    else:
        with pytest.raises(_UndoneError):
            first()
    second.join(10)
    assert results == [intake.IntakeResult(*((0, 2, frozenset({0, 1})) if commits else (2, 0, frozenset())))]
    assert stored(engine, shop_id) == (["1"] if commits else ["2", "3"])


def test_many_writers_of_the_same_deliveries_neither_deadlock_nor_store_twice(engine, shop_id):
    deliveries = [[made(f"{n}-{part}", f"e:{n}", f"w:{n}") for part in range(3)] for n in range(40)]
    accepted: list[int] = []

    def write(order: range) -> None:
        for n in order:
            group = [event for delivery in (deliveries[n], deliveries[39 - n]) for event in delivery]
            accepted.append(store(engine, shop_id, *[Event(**_renewed(event)) for event in group]).accepted)

    writers = [threading.Thread(target=write, args=(order,)) for order in (range(40), range(39, -1, -1), range(40))]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert sum(accepted) == 120
    assert len(stored(engine, shop_id)) == 120


def _renewed(event: Event) -> dict:
    return {name: getattr(event, name) for name in Event.__dataclass_fields__} | {"id": new_id()}


def submit_together(engine, *submissions: tuple[UUID, list[Event]]) -> list[Committed | BaseException]:
    """What becomes of submissions that share a group."""

    async def run() -> list[Committed | BaseException]:
        committer = GroupCommitter(engine)
        try:
            waiting = [committer.submit(shop_id, events) for shop_id, events in submissions]
            return await asyncio.gather(*waiting, return_exceptions=True)
        finally:
            await committer.close()

    return asyncio.run(run())


def test_a_group_of_several_shops_keeps_their_deliveries_apart(engine, shop_id):
    other = create_shop(engine, slug=f"s-{new_id().hex[-12:]}", name="Other", currency="USD", seed="o").id
    answers = submit_together(
        engine,
        (shop_id, [made("1", "e:1")]),
        (other, [made("1", "e:1"), made("2", "e:1")]),
        (shop_id, [made("2", "e:1", "w:1")]),
        (shop_id, [made("3")]),
        (other, [made("3", "e:2")]),
    )
    assert [one.duplicates for one in answers] == [set(), set(), {0}, set(), set()]
    assert (stored(engine, shop_id), stored(engine, other)) == (["1", "3"], ["1", "2", "3"])


def test_a_delivery_that_the_database_refuses_in_part_is_refused_whole(engine, shop_id):
    bad = {"text": "\0"}  # no JSON that PostgreSQL can hold; routes find it before
    whole = [made("1", "e:1"), made("2", "e:1", properties=bad), made("3", "e:1")]
    answers = submit_together(
        engine,
        (shop_id, [made("0", "e:0"), made("00", "e:0")]),
        (shop_id, whole),
        (shop_id, [made("4"), made("5", properties=bad), made("6")]),
        (shop_id, [made("7", "e:7"), made("8", "e:7")]),
    )
    assert [sorted(one.refused) for one in answers] == [[], [0, 1, 2], [1], []]
    assert stored(engine, shop_id) == ["0", "00", "4", "6", "7", "8"]
    assert store(engine, shop_id, made("1", "e:1")).accepted == 1  # nothing of it is remembered
