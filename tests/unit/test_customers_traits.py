"""Profiles: the newest saying of each trait wins, in whatever order sayings come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.customers.traits import Profile

pytestmark = pytest.mark.unit

START = datetime(2026, 1, 1, tzinfo=UTC)
SAYINGS = st.lists(
    st.tuples(st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), max_size=3), st.integers(0, 4)), max_size=8
)


def told(sayings) -> Profile:
    profile = Profile()
    for traits, minute in sayings:
        profile.say(traits, START + timedelta(minutes=minute))
    return profile


@given(SAYINGS, st.randoms())
def test_the_order_of_arrival_does_not_matter(sayings, random):
    shuffled = list(sayings)
    random.shuffle(shuffled)
    assert told(shuffled) == told(sayings)


@given(SAYINGS, SAYINGS)
def test_absorbing_a_profile_is_hearing_all_it_heard(mine, theirs):
    profile = told(mine)
    profile.absorb(told(theirs))
    assert profile == told(mine + theirs)


def test_segments_names_become_columns():
    profile = Profile()
    profile.say({"firstName": "Ann", "address": {"country": "CN"}, "timezone": "Asia/Shanghai"}, START)
    assert [profile.column(name) for name in ("first_name", "country", "time_zone")] == ["Ann", "CN", "Asia/Shanghai"]
