"""What is asked at the moment of sending, on PostgreSQL: quiet hours, staleness, complaints, caps of every kind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from operation_agent.actions import claiming
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import create_shop, load_shop, update_settings
from tests.integration.sending import Stage, stage

pytestmark = pytest.mark.integration

NIGHT = datetime(2026, 11, 20, 2, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def real(engine) -> Stage:
    """A real shop: what is claimed counts as sent now, not when it was due."""
    shop = create_shop(engine, slug=f"r-{new_id().hex[-12:]}", name="Real", currency="USD", time_zone="UTC")
    return stage(engine, shop.id)


def settings(here: Stage, **changes: Any) -> None:
    with for_shop(here.engine, here.shop.id) as session:
        here.shop = update_settings(session, load_shop(session, here.shop.id), changes)


def limits(here: Stage, definition: str) -> None:
    here.run("UPDATE strategies SET definition = CAST(:d AS jsonb) WHERE shop_id = :shop", d=definition)


def claim(here: Stage, at: datetime, limit: int = 100) -> claiming.Claim:
    with for_shop(here.engine, here.shop.id) as session:
        return claiming.claim(session, here.shop, "email", limit=limit, at=at)


def end(here: Stage, action: UUID) -> tuple[str, str | None]:
    row = here.one(action)
    return row.state, row.reason


def test_a_backlog_that_is_released_at_night_waits_for_the_morning_of_each_customer(real):
    settings(real, quiet_hours={"start": "22:00", "end": "08:00"})
    at_home, in_tokyo, receipt = real.customer(), real.customer(), real.customer()
    real.run("UPDATE customers SET time_zone = 'Asia/Tokyo' WHERE shop_id = :shop AND id = :id", id=in_tokyo)
    real.run(
        "INSERT INTO consents (shop_id, customer_id, channel, topic, state, changed_at, event_id)"
        " VALUES (:shop, :id, 'email', 'transactional', 'subscribed', :at, :id)", id=receipt, at=NIGHT,
    )  # fmt: skip
    due = NIGHT - 5 * HOUR
    late, awake = real.action(at_home, due_at=due), real.action(in_tokyo, due_at=due)
    plain = real.action(receipt, due_at=due, topic="transactional")
    first = claim(real, NIGHT)
    assert {one.id for one in first.claimed} == {awake, plain}
    assert (first.postponed, first.taken) == (1, 3)
    assert (real.one(late).state, real.one(late).due_at) == ("ready", NIGHT.replace(hour=8))
    assert claim(real, NIGHT + 5 * HOUR).taken == 0
    assert [one.id for one in claim(real, NIGHT + 6 * HOUR).claimed] == [late]


def test_quiet_hours_of_the_strategy_and_of_the_shop_both_hold(real):
    settings(real, quiet_hours={"start": "22:00", "end": "08:00"})
    limits(real, '{"quiet_hours": {"start": "07:00", "end": "10:00"}}')
    action = real.action(real.customer(), due_at=NIGHT)
    assert claim(real, NIGHT).postponed == 1
    assert real.one(action).due_at == NIGHT.replace(hour=10)
    limits(real, '{"quiet_hours": {"start": "09:00", "end": "12:00", "otherwise": "skip"}}')
    claim(real, NIGHT.replace(hour=10))
    assert end(real, action) == ("suppressed", "quiet")


def test_what_could_not_go_out_in_time_is_dropped(real):
    stale, fresh = (real.action(real.customer(), due_at=NIGHT, reserve=2, stale_at=NIGHT + n * HOUR) for n in (3, 4))
    assert [one.id for one in claim(real, NIGHT + 3 * HOUR).claimed] == [fresh]
    assert (end(real, stale), real.budget()) == (("suppressed", "stale"), (2, 0))


def complained(here: Stage, customer: UUID, at: datetime) -> None:
    here.run(
        "INSERT INTO timeline (shop_id, customer_id, occurred_at, event_id, type)"
        " VALUES (:shop, :id, :at, :event, 'email.complained')", id=customer, at=at, event=new_id(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("definition", "everywhere", "days", "goes"),
    [
        ("{}", None, 89, False),
        ("{}", None, 91, True),
        ("{}", "P10D", 11, True),  # the strategy says nothing of its own
        ('{"complaint_cooldown": "P20D"}', "P10D", 11, False),
        ('{"complaint_cooldown": "P20D"}', "P30D", 21, False),
        ('{"complaint_cooldown": "PT0S"}', None, 1, True),
    ],
)
def test_who_complained_is_left_in_peace(real, definition, everywhere, days, goes):
    settings(real, complaint_cooldown=everywhere)
    limits(real, definition)
    customer = real.customer()
    complained(real, customer, NIGHT - days * DAY)
    action = real.action(customer, due_at=NIGHT, decided_at=NIGHT)
    assert bool(claim(real, NIGHT).claimed) is goes
    assert goes or end(real, action) == ("suppressed", "complained")


def test_who_complained_since_the_decision_gets_nothing_of_it_however_short_the_cooldown(real):
    limits(real, '{"complaint_cooldown": "PT1H"}')
    customer = real.customer()
    complained(real, customer, NIGHT - 3 * HOUR)
    action = real.action(customer, due_at=NIGHT, decided_at=NIGHT - DAY)
    assert claim(real, NIGHT).claimed == []
    assert end(real, action) == ("suppressed", "complained")


def test_a_late_message_counts_from_when_it_is_tried_and_not_from_when_it_was_due(real):
    """Two of a backlog, ten days late: within a minute they would be two in one week."""
    limits(real, '{"caps": [{"channel": "email", "count": 1, "window": "P7D"}]}')
    customer = real.customer()
    made = [real.action(customer, due_at=NIGHT - days * DAY) for days in (20, 10)]
    first = claim(real, NIGHT, limit=1)
    second = claim(real, NIGHT + HOUR, limit=1)
    assert ([one.id for one in first.claimed], second.claimed, second.ended) == ([made[0]], [], 1)
    assert end(real, made[1]) == ("suppressed", "capped")


def test_caps_hold_back_and_count_what_they_are_told_to(real):
    settings(real, hard_caps={"email": None}, caps=[{"count": 1, "window": "P7D", "tag": "sale"}])
    customer = real.customer()
    silent = real.action(customer, due_at=NIGHT, tags=["sale"], counted=False)
    assert [one.id for one in claim(real, NIGHT).claimed] == [silent]
    first = real.action(customer, due_at=NIGHT, tags=["sale"])
    assert [one.id for one in claim(real, NIGHT).claimed] == [first]
    held = real.action(customer, due_at=NIGHT, tags=["sale", "spring"])
    others = {
        real.action(customer, due_at=NIGHT, tags=["sale"], held_back=False),
        real.action(customer, due_at=NIGHT, tags=["news"]),
    }
    assert {one.id for one in claim(real, NIGHT).claimed} == others
    assert end(real, held) == ("suppressed", "capped")


def test_a_cap_is_exact_under_many_workers(real):
    settings(real, hard_caps={"email": {"count": 3, "window": "P1D"}})
    people = [real.customer() for _ in range(6)]
    for customer in people * 8:
        real.action(customer, due_at=NIGHT)
    with ThreadPoolExecutor(6) as pool:
        claimed = [one for batch in pool.map(lambda _: claim(real, NIGHT, limit=8).claimed, range(6)) for one in batch]
    sent = [sum(one.person.id == customer for one in claimed) for customer in people]
    assert sent == [3] * 6
