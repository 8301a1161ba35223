"""What is kept by a stamp is made anew when the stamp changes, and the least used goes first."""

from __future__ import annotations

import pytest

from operation_agent.kit.stamped import Stamped

pytestmark = pytest.mark.unit


def test_it_is_made_once_for_a_stamp_and_again_for_another():
    made: list[int] = []
    kept: Stamped[int] = Stamped(2)

    def load() -> int:
        made.append(len(made))
        return made[-1]

    assert [kept.get("a", 1, load), kept.get("a", 1, load)] == [0, 0]
    assert [kept.get("a", 2, load), kept.get("a", 1, load)] == [1, 2]  # an older stamp is another one too


def test_the_least_recently_used_goes_first():
    kept: Stamped[str] = Stamped(2)
    kept.get("a", 1, lambda: "a")
    kept.get("b", 1, lambda: "b")
    kept.get("a", 1, lambda: "not again")
    kept.get("c", 1, lambda: "c")
    assert kept.get("a", 1, lambda: "not again") == "a"
    assert kept.get("b", 1, lambda: "again") == "again"
