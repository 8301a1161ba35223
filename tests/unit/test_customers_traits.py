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


_TAGS = st.lists(st.sampled_from("xyz"), max_size=3)
_TAGGINGS = st.lists(st.tuples(st.one_of(_TAGS, st.tuples(_TAGS, _TAGS)), st.integers(0, 4)), max_size=8)


def tagged(sayings) -> Profile:
    """A list: all tags; a pair: those given and those taken away."""
    profile = Profile()
    for said, minute in sayings:
        if isinstance(said, list):
            profile.say({"tags": said}, START + timedelta(minutes=minute))
        else:
            profile.tag(*said, START + timedelta(minutes=minute))
    return profile


@given(_TAGGINGS, st.randoms())
def test_tags_do_not_depend_on_the_order_of_arrival(sayings, random):
    shuffled = [*sayings, *sayings[:2]]
    random.shuffle(shuffled)
    assert tagged(shuffled) == tagged(sayings)


@given(_TAGGINGS, _TAGGINGS)
def test_absorbing_tags_is_hearing_all_that_was_heard(mine, theirs):
    profile = tagged(mine)
    profile.absorb(tagged(theirs))
    assert profile == tagged(mine + theirs)


def test_a_list_of_all_tags_says_of_the_others_that_they_are_not_there():
    profile = tagged([((["a", "b"], []), 1), (["b", "c"], 3), ((["d"], ["b"]), 2), (([], ["c"]), 4)])
    assert profile.traits == {"tags": ["b"], "tag:a": False, "tag:b": True, "tag:c": False, "tag:d": False}


def test_a_list_of_tags_from_before_is_taken_for_all_tags():
    moment = "2026-01-01T00:02:00.000000+00:00"
    profile = Profile({"tags": "vip, new"}, {"tags": moment})
    profile.tag(["late"], [], START + timedelta(minutes=1))
    profile.tag(["more"], ["new"], START + timedelta(minutes=3))
    assert profile.traits["tags"] == ["more", "vip"]


def test_who_was_deleted_stays_so():
    profile = Profile()
    profile.delete(START + timedelta(minutes=5))
    profile.say({"deleted_at": None, "plan": "paid"}, START)
    profile.delete(START)
    assert profile.traits == {"deleted_at": "2026-01-01T00:05:00.000000+00:00", "plan": "paid"}
