"""What a new version of a strategy means for those who are under way in it.

By default they finish on the version they entered. Whoever publishes may say that they are to leave now: of the rules
that changed or are gone, that is; nobody is disturbed in a rule that stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from operation_agent.store.shops import Shop
from operation_agent.strategies.authoring import Published

from .leaving import exit_runs

REASON = "in_flight_exit"


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """How many customers were taken out, and how many planned actions were called off."""

    runs: int = 0
    actions: int = 0


def lead_out(session: Session, shop: Shop, done: Published, *, at: datetime) -> LeftBehind:
    """Take out who is under way in what `done` replaced, if its publisher said so; in the transaction of the
    publishing. `at` is system time."""
    if done.in_flight != "exit":
        return LeftBehind()
    left = [exit_runs(session, shop, rule, before, REASON, at) for rule, before in sorted(done.superseded)]
    return LeftBehind(sum(runs for runs, _ in left), sum(actions for _, actions in left))
