"""What a backtest counts, day by day of the shop's calendar. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Any


@dataclass(slots=True)
class Day:
    """`verdicts`: decisions by verdict. `sends`: actions that would have gone out, by type; `moved`: messages that
    quiet hours would have put off, `ended`: actions that a goal reached before made pointless, `may_skip`: later
    messages that a cap might have skipped. `spend_minor`: what the sends commit (messages, and coupons as if all were
    redeemed). `overlap`: acting decisions for customers to whom another strategy really wrote within seven days."""

    verdicts: Counter[str] = field(default_factory=Counter)
    sends: Counter[str] = field(default_factory=Counter)
    moved: int = 0
    ended: int = 0
    may_skip: int = 0
    spend_minor: int = 0
    expected_minor: float = 0.0
    overlap: int = 0

    def add(self, other: Day) -> None:
        self.verdicts += other.verdicts
        self.sends += other.sends
        for name in ("moved", "ended", "may_skip", "spend_minor", "expected_minor", "overlap"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def to_dict(self) -> dict[str, Any]:
        return {
            "decisions": self.verdicts.total(), "verdicts": dict(sorted(self.verdicts.items())),
            "sends": dict(sorted(self.sends.items())), "moved": self.moved, "ended": self.ended,
            "may_skip": self.may_skip, "spend_minor": self.spend_minor,
            "expected_minor": round(self.expected_minor), "overlap": self.overlap,
        }  # fmt: skip


@dataclass(slots=True)
class Tally:
    """`under_way`: customers who would still have been waiting at the end. `customers`: different ones acted on."""

    days: dict[date, Day] = field(default_factory=dict)
    under_way: int = 0
    customers: set[bytes] = field(default_factory=set)

    def day(self, when: date) -> Day:
        found = self.days.get(when)
        if found is None:
            found = self.days[when] = Day()
        return found

    def total(self) -> Day:
        total = Day()
        for one in self.days.values():
            total.add(one)
        return total

    def to_dict(self, days: Iterable[date]) -> dict[str, Any]:
        """Every one of `days`, the empty ones too, and the sum."""
        return {
            "total": {**self.total().to_dict(), "customers": len(self.customers), "under_way": self.under_way},
            "days": [{"day": one.isoformat(), **self.days.get(one, Day()).to_dict()} for one in days],
        }


def difference(draft: dict[str, Any], live: dict[str, Any]) -> dict[str, Any]:
    """Draft minus live, of two totals, number by number; what is the same on both sides is left out."""
    found: dict[str, Any] = {}
    for name in sorted(draft.keys() | live.keys()):
        one, two = draft.get(name, 0), live.get(name, 0)
        if isinstance(one, dict) or isinstance(two, dict):
            inner = difference(one or {}, two or {})
            if inner:
                found[name] = inner
        elif one != two:
            found[name] = one - two
    return found
