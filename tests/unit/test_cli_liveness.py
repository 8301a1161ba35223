"""A part is restarted when the same unfinished work is seen for too long, and never for being busy."""

from __future__ import annotations

import pytest

from cli.liveness import LONGEST_PATIENCE, PATIENCE, Stall

pytestmark = pytest.mark.unit


def test_nothing_to_do_is_no_stall():
    stall = Stall()
    assert not any(stall.is_stalled(frozenset(), float(now)) for now in range(0, 1000, 5))


def test_a_backlog_that_moves_is_no_stall():
    stall = Stall()
    assert not any(stall.is_stalled(frozenset({("shop", now)}), float(now)) for now in range(0, 1000, 5))


def test_the_same_head_for_longer_than_the_patience_is_a_stall():
    stall, head = Stall(), frozenset({("shop", 7)})
    assert not stall.is_stalled(head, 0.0)
    assert not stall.is_stalled(head, PATIENCE - 1)
    assert stall.is_stalled(head, PATIENCE)


def test_each_stall_in_a_row_doubles_the_patience_up_to_a_limit():
    stall, head, now, waits = Stall(), frozenset({("shop", 7)}), 0.0, []
    stall.is_stalled(head, now)
    for _ in range(6):
        start = now
        while not stall.is_stalled(head, now):
            now += 1
        waits.append(now - start)
    assert waits[:3] == [PATIENCE, 2 * PATIENCE, 4 * PATIENCE]
    assert waits[-1] == LONGEST_PATIENCE


def test_an_empty_queue_makes_it_patient_no_longer():
    stall, head = Stall(), frozenset({("shop", 7)})
    stall.is_stalled(head, 0.0)
    assert stall.is_stalled(head, PATIENCE)
    stall.is_stalled(frozenset(), PATIENCE + 1)
    assert stall.patience == PATIENCE
