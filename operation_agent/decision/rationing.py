"""Money and capacity: what the candidates of one strategy may take, the most valuable first.

Whoever is held out takes nothing, but had to be affordable all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from operation_agent.strategies.live import LiveRule
from rules.moments import zone

from .facts import Trigger
from .guardrails import Given
from .history import History, Purse


class Claim(NamedTuple):
    """What one candidate would need (the dearest arm), and what it takes with the arm that it drew; `acts`: counts as
    one execution. Minor units."""

    trigger: Trigger
    score: float
    needed: int
    takes: int
    acts: bool

    @property
    def order(self) -> tuple[Any, ...]:
        """Best first; the same in every run."""
        return (-self.score, self.trigger.random_key.int, self.trigger.key)


class Cutoff(NamedTuple):
    """Where the line of a campaign ends: the last that is served has this score and (at it, by order) random key."""

    score: float
    last: str


@dataclass(frozen=True, slots=True)
class Ration:
    """Of one strategy in one call; `most`: executions a day."""

    strategy_id: UUID
    budget_id: UUID | None
    purse: Purse | None
    most: int | None
    cutoff: Cutoff | None
    time_zone: str
    history: History

    def given(self, claim: Claim) -> dict[str, Given]:
        """What the two guardrails are given for this claim, as things stand."""
        cut = self._cut(claim)
        found: dict[str, Given] = {}
        if self.most is not None:
            day = self._day(claim)
            taken = self.history.taken.get((self.strategy_id, day), 0)
            alone = cut if self.purse is None else {}
            found["executions"] = {"most": self.most, "taken": taken, "day": day.isoformat(), **alone}
        if self.purse is not None or (self.cutoff is not None and self.most is None):
            found["budget"] = {"needed": claim.needed, **self._left(claim), **cut}
        return found

    def _cut(self, claim: Claim) -> dict[str, Given]:
        if self.cutoff is None:
            return {}
        found: dict[str, Given] = {"score": claim.score, "cutoff": self.cutoff.score}
        if claim.score == self.cutoff.score:
            found |= {"who": str(claim.trigger.random_key), "last": self.cutoff.last}
        return found

    def _left(self, claim: Claim) -> dict[str, int]:
        purse = self.purse
        if purse is None or self.budget_id is None:
            return {}
        found = {"left": purse.left}
        if purse.daily is not None:
            found["daily_left"] = purse.daily - purse.days.get(self._day(claim), 0)
        if purse.per_customer is not None:
            past = self.history.past.get(claim.trigger.customer_id)
            found["customer_left"] = purse.per_customer - (past.spent.get(self.budget_id, 0) if past else 0)
        return found

    def take(self, claim: Claim) -> None:
        """Count what a claim takes that was let through."""
        if claim.acts and self.most is not None:
            slot = self.strategy_id, self._day(claim)
            self.history.taken[slot] = self.history.taken.get(slot, 0) + 1
        if self.purse is None or self.budget_id is None or not claim.takes:
            return
        self.purse.left -= claim.takes
        if self.purse.daily is not None:
            day = self._day(claim)
            self.purse.days[day] = self.purse.days.get(day, 0) + claim.takes
        if self.purse.per_customer is not None:
            spent = self.history.past_of(claim.trigger.customer_id).spent
            spent[self.budget_id] = spent.get(self.budget_id, 0) + claim.takes

    def _day(self, claim: Claim) -> date:
        return day_of(claim.trigger.at, self.time_zone)


def day_of(at: datetime, time_zone: str) -> date:
    """The day of the shop's calendar in which an instant lies."""
    return at.astimezone(zone(time_zone)).date()


def ration(live: LiveRule, history: History, cutoffs: Mapping[UUID, Cutoff] | None, time_zone: str) -> Ration | None:
    """None where nothing is short by its nature: no budget, no daily limit, no cutoff."""
    purse = history.purses.get(live.budget_id) if live.budget_id is not None else None
    most, cutoff = live.strategy.limits.executions_per_day, (cutoffs or {}).get(live.strategy_id)
    if purse is None and most is None and cutoff is None:
        return None
    return Ration(live.strategy_id, live.budget_id, purse, most, cutoff, time_zone, history)
