"""Schedules by the shop's clocks and by the customers' own, through changes of the clocks."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from operation_agent.store.session import for_shop
from operation_agent.strategies import calendar

from .journeying import DAY, mail, rule, strategy, walks

pytestmark = pytest.mark.integration

PLACES = {
    "ann": "America/New_York", "bob": "Asia/Shanghai", "cy": None, "dan": "Not/A_Zone", "eve": "America/Toronto",
    "fay": "Australia/Lord_Howe",
}  # fmt: skip


def shop(engine, shop_id, **when):
    scheduled = rule([mail("hello")], when={"frequency": "every_time", **when})
    here = walks(engine, shop_id, strategy([scheduled]), *PLACES)
    for who, zone in PLACES.items():
        here.run(
            "UPDATE customers SET time_zone = :zone WHERE shop_id = :shop AND external_id = :who", zone=zone, who=who
        )
    here.run("UPDATE strategies SET started_at = NULL WHERE shop_id = :shop")
    return here


def due(here, after, until):
    with for_shop(here.engine, here.shop.id) as session:
        return list(calendar.due_runs(session, here.shop, after=after, until=until))


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_rule_by_the_shops_clocks_takes_everybody(engine, shop_id):
    here = shop(engine, shop_id, schedule="0 9 * * *")
    (run,) = due(here, at("2026-03-02"), at("2026-03-03"))
    assert (run.due_at, run.zones) == (at("2026-03-02T09:00"), None)


def test_a_rule_by_the_customers_clocks_comes_due_once_in_each_zone(engine, shop_id):
    here = shop(engine, shop_id, schedule="RRULE:FREQ=DAILY;BYHOUR=9;BYMINUTE=0", time_zone="customer")
    runs = due(here, at("2026-01-10T00:30"), at("2026-01-11T00:30"))
    assert [(run.due_at, run.zones) for run in runs] == [
        (at("2026-01-10T01:00"), frozenset({"Asia/Shanghai"})),
        (at("2026-01-10T09:00"), frozenset({"UTC"})),  # of the shop: who has no zone, or one that is none
        (at("2026-01-10T14:00"), frozenset({"America/New_York", "America/Toronto"})),
        (at("2026-01-10T22:00"), frozenset({"Australia/Lord_Howe"})),
    ]
    assert calendar.zone_of(PLACES["dan"], here.shop) == calendar.zone_of(None, here.shop) == "UTC"


@pytest.mark.parametrize("schedule", ["30 2 * * *", "RRULE:FREQ=DAILY;BYHOUR=2;BYMINUTE=30"])
@pytest.mark.parametrize("start", ["2026-03-06", "2026-10-30"])  # clocks change in New York on 8 March and 1 November
def test_a_year_of_small_steps_takes_every_zone_once_a_day_through_changes_of_clocks(engine, shop_id, schedule, start):
    here = shop(engine, shop_id, schedule=schedule, time_zone="customer")
    first, step = at(start), timedelta(hours=5, minutes=7)
    days: Counter[tuple[str, object]] = Counter()
    found, now = [], first
    while now < first + 6 * DAY:
        found += due(here, now, now + step)
        now += step
    assert [(run.due_at, run.zones) for run in found] == [(run.due_at, run.zones) for run in due(here, first, now)]
    for run in found:
        days.update((zone, run.due_at.date()) for zone in run.zones)
    by_zone = Counter(zone for zone, _ in days.elements())
    length = (now - first).days
    assert set(by_zone) == {"America/New_York", "America/Toronto", "Asia/Shanghai", "Australia/Lord_Howe", "UTC"}
    assert all(length <= count <= length + 1 for count in by_zone.values())
    for zone in by_zone:
        times = sorted(run.due_at for run in found if zone in run.zones)
        gaps = {later - earlier for earlier, later in zip(times, times[1:], strict=False)}
        assert all(timedelta(hours=22, minutes=59) <= gap <= timedelta(hours=25) for gap in gaps)


def test_a_strategy_comes_due_after_it_started_only(engine, shop_id):
    here = shop(engine, shop_id, schedule="0 9 * * *", time_zone="customer")
    here.run("UPDATE strategies SET started_at = :at WHERE shop_id = :shop", at=at("2026-01-10T14:00"))
    runs = due(here, at("2026-01-10"), at("2026-01-11"))
    assert [run.zones for run in runs] == [frozenset({"Australia/Lord_Howe"})]
