"""Where money or a day cannot serve everybody, the line ends after the best that fit."""

from __future__ import annotations

from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.campaigns.shortage import CLAIM, Room, in_order, line

pytestmark = pytest.mark.unit

claim = st.tuples(
    st.sampled_from([0.0, 1.0, 2.5, 7.0]),
    st.integers(0, 2**128 - 1),
    st.integers(0, 50),
    st.integers(0, 50),
    st.booleans(),
).map(lambda one: (one[0], UUID(int=one[1]), max(one[2], one[3]), one[3] if one[4] else 0, one[4]))
lists = st.lists(claim, max_size=40, unique_by=lambda one: one[1])


def packed(claims):
    return np.array([(score, key.bytes, needed, takes, acts) for score, key, needed, takes, acts in claims], CLAIM)


def served(claims, room):
    """By a loop: the best first, until one cannot be served, whatever the others before it do at the same time."""
    taken, spare, acting, done = 0, 0, 0, []
    for one in sorted(claims, key=lambda one: (-one[0], one[1].int)):
        _, key, needed, takes, acts = one
        taken, spare = taken + takes, max(spare, needed - takes)
        if room.money_minor is not None and taken + spare > room.money_minor:
            break
        if room.executions is not None and acting >= room.executions:
            break
        acting += acts
        done.append(one)
    return done


@given(lists, st.none() | st.integers(0, 400), st.none() | st.integers(0, 20))
def test_the_line_ends_where_a_loop_ends_it(claims, money, executions):
    room = Room(money_minor=money, executions=executions)
    wanted, found = served(claims, room), line(packed(claims), room)
    if len(wanted) == len(claims):
        assert found is None
        return
    assert (found.served, found.claims) == (len(wanted), len(claims))
    if wanted:
        assert (found.score, found.last) == (wanted[-1][0], wanted[-1][1])
    passed = [
        one for one in claims if one[0] > found.score or (one[0] == found.score and str(one[1]) <= str(found.last))
    ]
    assert sorted(one[1] for one in passed) == sorted(one[1] for one in wanted)


@given(lists, st.integers(0, 400))
def test_nobody_of_those_served_can_be_refused_whoever_comes_last(claims, money):
    found = line(packed(claims), Room(money_minor=money))
    ordered = in_order(packed(claims))[: found.served if found else None]
    for last in range(len(ordered)):
        assert int(ordered["takes"].sum()) - int(ordered["takes"][last]) + int(ordered["needed"][last]) <= money


@given(lists)
def test_without_limits_there_is_no_line(claims):
    assert line(packed(claims), Room()) is None
    assert Room().holds(cost_minor=10**12, executions=10**9)
