"""Quiet hours: the first allowed instant, in every zone, through every change of clocks."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from operation_agent.decision.quiet_hours import is_quiet, next_allowed
from rules.limits import QuietHours

pytestmark = pytest.mark.unit

NIGHT = QuietHours(time(22), time(8))
ZONES = ("UTC", "Asia/Shanghai", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns")
CHANGES = [
    datetime(2026, month, day, tzinfo=UTC) for month, day in ((3, 8), (3, 29), (4, 4), (10, 3), (10, 25), (11, 1))
]

instants = st.one_of(
    st.builds(lambda day, minutes: day + timedelta(minutes=minutes), st.sampled_from(CHANGES), st.integers(-900, 2880)),
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 12, 31)).map(lambda at: at.replace(tzinfo=UTC)),
)
clocks = st.builds(lambda minutes: time(minutes // 60, minutes % 60), st.integers(0, 1439))


@pytest.mark.parametrize(
    ("at", "zone", "expected"),
    [
        ("2026-01-05T12:00", "UTC", "2026-01-05T12:00"),
        ("2026-01-05T22:00", "UTC", "2026-01-06T08:00"),
        ("2026-01-05T07:59", "UTC", "2026-01-05T08:00"),
        ("2026-01-05T08:00", "UTC", "2026-01-05T08:00"),
        ("2026-01-05T15:00", "Asia/Shanghai", "2026-01-06T00:00"),
        ("2026-03-08T05:00", "America/New_York", "2026-03-08T12:00"),  # the night that loses an hour
        ("2026-11-01T03:00", "America/New_York", "2026-11-01T13:00"),  # and the one that gains it
        ("2026-01-05T23:00", "no such zone", "2026-01-06T08:00"),
    ],
)
def test_a_night_ends_in_the_customers_morning(at, zone, expected):
    found = next_allowed(datetime.fromisoformat(at).replace(tzinfo=UTC), zone, NIGHT)
    assert found == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def test_an_end_that_the_clocks_jump_over_ends_the_quiet_with_the_jump():
    quiet = QuietHours(time(22), time(2, 30))
    found = next_allowed(datetime(2026, 3, 8, 6, 45, tzinfo=UTC), "America/New_York", quiet)
    assert found == datetime(2026, 3, 8, 7, tzinfo=UTC)  # 03:00 by the clocks there


@example(datetime(2026, 11, 1, 5, 45, tzinfo=UTC), "America/New_York", time(22), time(1, 30))
@example(datetime(2026, 3, 8, 6, 59, tzinfo=UTC), "America/New_York", time(3, 5), time(2, 30))
@given(instants, st.sampled_from(ZONES), clocks, clocks)
def test_the_first_allowed_instant_is_allowed_and_nothing_before_it_is(at, zone, start, end):
    quiet = QuietHours(start, end)
    found = next_allowed(at, zone, quiet)
    assert found >= at
    assert not is_quiet(found, zone, quiet)
    assert found - at < timedelta(hours=26)
    passed = at
    while passed < found:
        assert is_quiet(passed, zone, quiet)
        passed += timedelta(minutes=1)
    if found > at:
        assert is_quiet(found - timedelta(microseconds=1), zone, quiet)


@given(instants, st.sampled_from(ZONES), clocks)
def test_from_a_time_to_itself_nothing_is_quiet(at, zone, clock):
    assert next_allowed(at, zone, QuietHours(clock, clock)) == at
