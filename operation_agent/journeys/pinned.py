"""The versions of rules that runs have entered: a run ends on the version it began with, whatever is live now.

What a version says is read once and kept; what its strategy allows is as it stands today.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.actions.segments import Manner
from operation_agent.store.shops import Shop
from operation_agent.strategies.vocabulary import vocabulary
from rules import program
from rules import rule as rules
from rules import strategy as strategies
from rules.evaluate import CompiledCondition, compile
from rules.program import Arm, Branch, Wait
from rules.tree import Node

Version = tuple[UUID, int]
"""A rule's id and the number of its version."""


@dataclass(frozen=True, slots=True)
class Way:
    """An arm with what is asked along it: the condition of each branch, the waits, and those of them that do not take
    just any event of their types."""

    arm: Arm
    branches: Mapping[str, CompiledCondition]
    waits: Mapping[str, Wait]
    conditions: Mapping[str, CompiledCondition]

    @property
    def events(self) -> frozenset[str]:
        """Every type that some wait is for."""
        return frozenset(name for wait in self.waits.values() for name in wait.events)

    @property
    def picky(self) -> Mapping[str, Wait]:
        return {path: wait for path, wait in self.waits.items() if wait.where is not None or wait.name is not None}


@dataclass(frozen=True, slots=True)
class Pinned:
    """A version of a rule, and its strategy as it is today. `is_over`: the strategy was ended."""

    rule_key: str
    ways: Mapping[str, Way]
    manner: Manner
    budget_id: UUID | None
    is_over: bool


_SELECT = text("""
SELECT r.id, r.version, r.key, CAST(r.definition AS text) AS definition, s.state,
  s.budget_id, CAST(s.definition AS text) AS strategy
FROM unnest(CAST(:ids AS uuid[]), CAST(:versions AS integer[])) AS w (id, version)
JOIN rules r ON r.shop_id = :shop AND r.id = w.id AND r.version = w.version
JOIN strategies s ON s.shop_id = r.shop_id AND s.id = r.strategy_id
""")


def load(session: Session, shop: Shop, versions: Iterable[Version]) -> dict[Version, Pinned]:
    """The versions asked for; one that does not exist is left out. Raises RuleError for one that no longer reads."""
    wanted = sorted(set(versions))
    if not wanted:
        return {}
    rows = session.execute(
        _SELECT, {"shop": shop.id, "ids": [one[0] for one in wanted], "versions": [one[1] for one in wanted]}
    )
    return {(row.id, row.version): _pinned(row, shop) for row in rows}


def _pinned(row: Row[Any], shop: Shop) -> Pinned:
    strategy = _strategy(row.strategy)
    return Pinned(
        rule_key=row.key,
        ways=_ways(row.definition, row.key),
        manner=Manner.of(strategy.limits, shop),
        budget_id=row.budget_id,
        is_over=row.state == "archived",
    )


@lru_cache(maxsize=1024)
def _ways(definition: str, key: str) -> Mapping[str, Way]:
    rule = rules.parse(Node(orjson.loads(definition), key), vocabulary())
    return {arm.key: _way(arm) for arm in rule.arms}


@lru_cache(maxsize=1024)
def _strategy(definition: str) -> strategies.Strategy:
    return strategies.parse(orjson.loads(definition), vocabulary())


def _way(arm: Arm) -> Way:
    steps = dict(program.walk_tree(arm.steps))
    waits = {path: step for path, step in steps.items() if isinstance(step, Wait)}
    return Way(
        arm=arm,
        branches={path: compile(step.condition) for path, step in steps.items() if isinstance(step, Branch)},
        waits=waits,
        conditions={path: compile(wait.where) for path, wait in waits.items() if wait.where is not None},
    )
