"""Schedules: what a recurrence rule means, in time zones that change their clocks, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest
from dateutil.rrule import rrulestr
from hypothesis import assume, given
from hypothesis import strategies as st

from rules import cron, recurrence

pytestmark = pytest.mark.unit

NEW_YORK, SHANGHAI = "America/New_York", "Asia/Shanghai"


def fires(expression: str, since: datetime, days: float, zone: str = "UTC") -> list[datetime]:
    return list(recurrence.fire_times(expression, zone, since, since + timedelta(days=days)))


def local(expression: str, since: datetime, days: float, zone: str) -> list[str]:
    return [f"{one.astimezone(ZoneInfo(zone)):%m-%d %H:%M}" for one in fires(expression, since, days, zone)]


MARCH = datetime(2026, 3, 1, tzinfo=UTC)  # a Sunday


def test_a_rule_speaks_of_the_hour_of_its_zone():
    assert fires("RRULE:FREQ=WEEKLY;BYDAY=MO;BYHOUR=9", MARCH, 9, SHANGHAI) == [
        datetime(2026, 3, 2, 1, tzinfo=UTC),
        datetime(2026, 3, 9, 1, tzinfo=UTC),
    ]
    assert local("freq=monthly;byday=-1fr;byhour=18;byminute=30", MARCH, 62, NEW_YORK) == ["03-27 18:30", "04-24 18:30"]


def test_a_rule_without_a_start_counts_from_a_monday_and_the_first_of_the_year():
    assert local("RRULE:FREQ=WEEKLY", MARCH, 9, "UTC") == ["03-02 00:00", "03-09 00:00"]
    assert local("RRULE:FREQ=MONTHLY;BYHOUR=8", MARCH, 40, "UTC") == ["03-01 08:00", "04-01 08:00"]
    assert local("RRULE:FREQ=YEARLY", MARCH, 365, "UTC") == ["01-01 00:00"]
    assert local("RRULE:FREQ=HOURLY;INTERVAL=8;BYMINUTE=15", MARCH, 1, "UTC") == [
        "03-01 00:15", "03-01 08:15", "03-01 16:15",
    ]  # fmt: skip


def test_a_start_says_from_when_at_what_time_and_which_of_two_weeks():
    rule = "DTSTART:20260305T093000 RRULE:FREQ=WEEKLY;INTERVAL=2"  # a Thursday
    assert local(rule, MARCH, 40, SHANGHAI) == ["03-05 09:30", "03-19 09:30", "04-02 09:30"]
    assert local(rule, MARCH + timedelta(days=365 * 8), 15, "UTC") == ["03-09 09:30"]
    assert fires("DTSTART:20260305T093000Z RRULE:FREQ=DAILY;COUNT=1", MARCH, 40, SHANGHAI) == [
        datetime(2026, 3, 5, 9, 30, tzinfo=UTC)
    ]


def test_a_rule_ends_after_its_count_or_with_its_last_day():
    counted = "DTSTART:20260227T090000 RRULE:FREQ=DAILY;COUNT=4"
    assert local(counted, MARCH, 30, "UTC") == ["03-01 09:00", "03-02 09:00"]
    assert local("RRULE:FREQ=DAILY;BYHOUR=9;UNTIL=20260303", MARCH, 30, "UTC") == [
        "03-01 09:00", "03-02 09:00", "03-03 09:00",
    ]  # fmt: skip
    assert len(fires("RRULE:FREQ=DAILY;BYHOUR=9;UNTIL=20260303T090000", MARCH, 30)) == 3
    assert len(fires("RRULE:FREQ=DAILY;BYHOUR=9;UNTIL=20260303T010000Z", MARCH, 30, SHANGHAI)) == 3
    assert fires("RRULE:FREQ=DAILY;UNTIL=20200101", MARCH, 30) == []


def test_both_bounds_of_a_step_mean_what_they_mean_for_cron():
    nine = MARCH.replace(hour=9)
    for expression in ("0 9 * * *", "RRULE:FREQ=DAILY;BYHOUR=9"):
        assert fires(expression, nine, 1) == [nine + timedelta(days=1)]


def test_an_hour_that_spring_leaves_out_comes_an_hour_later_and_never_twice():
    # clocks in New York go from 02:00 to 03:00 on 2026-03-08
    since = datetime(2026, 3, 7, 12, tzinfo=UTC)
    assert local("RRULE:FREQ=DAILY;BYHOUR=2;BYMINUTE=30", since, 3, NEW_YORK) == [
        "03-08 03:30", "03-09 02:30", "03-10 02:30",
    ]  # fmt: skip
    hourly = fires("RRULE:FREQ=HOURLY", datetime(2026, 3, 8, 4, tzinfo=UTC), 0.25, NEW_YORK)
    assert hourly == [datetime(2026, 3, 8, hour, tzinfo=UTC) for hour in (5, 6, 7, 8, 9, 10)]


def test_an_hour_that_autumn_repeats_comes_once():
    # clocks in New York go back from 02:00 to 01:00 on 2026-11-01
    since = datetime(2026, 10, 31, 12, tzinfo=UTC)
    assert fires("RRULE:FREQ=DAILY;BYHOUR=1;BYMINUTE=30", since, 2, NEW_YORK) == [
        datetime(2026, 11, 1, 5, 30, tzinfo=UTC),
        datetime(2026, 11, 2, 6, 30, tzinfo=UTC),
    ]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("RRULE:FREQ=SECONDLY", "not one of HOURLY"),
        ("RRULE:FREQ=MINUTELY;INTERVAL=5", "not one of HOURLY"),
        ("RRULE:FREQ=HOURLY;BYMINUTE=0,10,20,30,40,50", "times an hour"),
        ("RRULE:FREQ=DAILY;BYSECOND=0,30", "times an hour"),
        ("RRULE:FREQ=HOURLY;INTERVAL=5", "divide a day"),
        ("RRULE:FREQ=HOURLY;INTERVAL=6;BYHOUR=5", "none of BYHOUR"),
        ("RRULE:FREQ=DAILY;COUNT=3", "COUNT counts from a start"),
        ("DTSTART:20260101 RRULE:FREQ=DAILY;COUNT=3;UNTIL=20260105", "exclude"),
        ("DTSTART:20260101 RRULE:FREQ=DAILY;UNTIL=20250105", "before DTSTART"),
        ("DTSTART:20260101 RRULE:FREQ=DAILY;COUNT=100000", "COUNT=100000"),
        ("RRULE:FREQ=DAILY;INTERVAL=0", "INTERVAL=0"),
        ("RRULE:FREQ=DAILY;FREQ=DAILY", "twice"),
        ("RRULE:FREQ=DAILY;BYEASTER=1", "not a part"),
        ("RRULE:FREQ=DAILY;BYSETPOS=200", "BYSETPOS goes with"),
        ("RRULE:FREQ=MONTHLY;BYDAY=MO;BYSETPOS=1,2,3,4,5,6,7,8,9,10,11,12,13", "BYSETPOS goes with"),
        ("RRULE:FREQ=DAILY;BYHOUR=25", "hour"),
        ("RRULE:FREQ=WEEKLY;BYDAY=XX", "BYDAY"),
        ("RRULE:FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", "never comes due"),
        ("RRULE:FREQ=DAILY;INTERVAL=7;BYDAY=TU", "never comes due"),
        ("DTSTART:20260101T090000", "no RRULE"),
        ("DTSTART:soon RRULE:FREQ=DAILY", "not a time"),
        ("DTSTART;TZID=Asia/Shanghai:20260101T090000 RRULE:FREQ=DAILY", "DTSTART"),
        ("RRULE:FREQ=DAILY EXDATE:20260101", "one RRULE"),
        ("RRULE:FREQ=DAILY RRULE:FREQ=DAILY", "one RRULE"),
    ],
)
def test_what_is_no_recurrence_rule_is_refused_with_the_reason(wrong, why):
    with pytest.raises(ValueError, match=why):
        recurrence.check(wrong)


@given(st.text(alphabet="FREQDAILYWKHOU=;:,0123456789 BYMONTHSCUDTRL-", max_size=40))
def test_whatever_is_written_is_read_or_refused(source):
    try:
        recurrence.check("RRULE:FREQ=DAILY;" + source)
    except ValueError as error:
        assert str(error)


PARTS = st.one_of(
    st.builds(
        "FREQ=DAILY;INTERVAL={};BYHOUR={}".format, st.integers(1, 40), st.sampled_from(["0", "9", "9,18", "23"])
    ),
    st.builds(
        "FREQ=WEEKLY;INTERVAL={};BYDAY={};WKST={}".format, st.integers(1, 9), st.sampled_from(["MO", "SU,WE", "TH"]),
        st.sampled_from(["MO", "SU"]),
    ),
    st.builds("FREQ=WEEKLY;INTERVAL={}".format, st.integers(1, 9)),
    st.builds("FREQ=MONTHLY;INTERVAL={}".format, st.integers(1, 13)),
    st.builds("FREQ=MONTHLY;INTERVAL={};BYDAY={}".format, st.integers(1, 13), st.sampled_from(["1MO", "-1FR", "2TU"])),
    st.builds("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS={};INTERVAL={}".format, st.just(-1), st.integers(1, 5)),
    st.builds("FREQ=YEARLY;INTERVAL={}".format, st.integers(1, 5)),
    st.builds("FREQ=YEARLY;INTERVAL={};BYMONTH={}".format, st.integers(1, 5), st.sampled_from(["1", "2,11"])),
    st.builds("FREQ=YEARLY;INTERVAL={};BYYEARDAY={}".format, st.integers(1, 3), st.sampled_from(["1", "-1", "200"])),
    st.builds("FREQ=YEARLY;INTERVAL={};BYWEEKNO={}".format, st.integers(1, 3), st.sampled_from(["1", "20", "52"])),
)  # fmt: skip


@given(PARTS, st.datetimes(datetime(2000, 1, 1), datetime(2030, 12, 31)), st.integers(0, 9000), st.integers(1, 500))
def test_years_after_its_start_a_rule_comes_due_as_reckoned_from_the_start(parts, start, later, days):
    start = start.replace(microsecond=0)
    since = start.replace(tzinfo=UTC) + timedelta(days=later)
    until = since + timedelta(days=days)
    plain = rrulestr(parts, dtstart=start)
    expected = [
        one.replace(tzinfo=UTC)
        for one in takewhile(lambda one: one.replace(tzinfo=UTC) <= until, plain)
        if one.replace(tzinfo=UTC) > since
    ]
    found = fires(f"DTSTART:{start:%Y%m%dT%H%M%S} RRULE:{parts}", since, days)
    assert found == expected


ZONES = st.sampled_from([NEW_YORK, SHANGHAI, "Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia", "UTC"])


@given(
    st.sampled_from(["0 2 * * *", "RRULE:FREQ=DAILY;BYHOUR=2;BYMINUTE=30", "RRULE:FREQ=HOURLY", "RRULE:FREQ=WEEKLY"]),
    ZONES,
    st.datetimes(datetime(2010, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
    st.lists(st.integers(0, 40 * 24), min_size=1, max_size=5),
)
def test_however_time_is_cut_into_steps_nothing_comes_due_twice_or_never(expression, zone, since, steps):
    bounds = [since + timedelta(hours=hours) for hours in [0, *sorted(steps)]]
    whole = list(recurrence.fire_times(expression, zone, bounds[0], bounds[-1]))
    pieces = [
        one
        for low, high in zip(bounds, bounds[1:], strict=False)
        for one in recurrence.fire_times(expression, zone, low, high)
    ]
    assert pieces == whole == sorted(set(whole))


@given(ZONES, st.datetimes(datetime(2010, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)))
def test_a_daily_rule_is_due_once_a_day_at_its_hour(zone, since):
    assume(not (zone == "Pacific/Apia" and abs((since - datetime(2011, 12, 30, tzinfo=UTC)).days) < 40))  # a lost day
    found = fires("RRULE:FREQ=DAILY;BYHOUR=9", since, 30, zone)
    days = (since.astimezone(ZoneInfo(zone)).date() + timedelta(days=number) for number in range(-2, 33))
    nines = [datetime(day.year, day.month, day.day, 9, tzinfo=ZoneInfo(zone)).astimezone(UTC) for day in days]
    assert found == [at for at in nines if since < at <= since + timedelta(days=30)]
    assert {one.astimezone(ZoneInfo(zone)).hour for one in found} == {9}


def test_cron_goes_on_meaning_what_it_meant():
    since, until = MARCH, MARCH + timedelta(days=20)
    for expression in ("0 9 * * 1-5", "15 3 1 * *", "*/30 8 * * *"):
        recurrence.check(expression)
        assert list(recurrence.fire_times(expression, NEW_YORK, since, until)) == list(
            cron.fire_times(expression, NEW_YORK, since, until)
        )
