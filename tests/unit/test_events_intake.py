"""Partitions follow the person, and do not move between releases."""

from __future__ import annotations

import pytest

from operation_agent.events.intake import PARTITIONS, partition_of

pytestmark = pytest.mark.unit


def test_the_strongest_identity_decides():
    alone = partition_of({"external": "u7"})
    assert partition_of({"anonymous": "a1", "email": "x@y.example", "external": "u7"}) == alone
    assert partition_of({"anonymous": "a1", "external": "u7"}) == alone


def test_customers_spread_over_all_partitions():
    assert {partition_of({"external": f"u{number}"}) for number in range(200)} == set(range(PARTITIONS))


def test_the_hash_is_the_same_for_ever():
    """A change would let two workers hold one customer's events during a rolling upgrade."""
    assert [partition_of({"external": name}) for name in ("a", "b", "c")] == [4, 6, 0]
    assert partition_of({}) == 0
