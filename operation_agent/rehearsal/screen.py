"""Who cannot be taken, told before anything expensive is read of them: by what is in memory, then by features alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from operation_agent.customers.features import FeatureTable
from operation_agent.customers.wire import Instants
from operation_agent.decision import candidates
from operation_agent.decision.facts import Trigger
from operation_agent.strategies.live import LiveRule
from rules.condition import Leaf
from rules.evaluate import AT, CompiledCondition, compile

from .assuming import weakest
from .index import TOLD, Index, Ints

Mask = NDArray[np.bool_]
_NOBODY, _EVER = UUID(int=0), datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Source:
    """A kind of trigger, as of decision.facts.Trigger; `has_event`: an event stands behind it."""

    type: str
    rule_ids: frozenset[UUID] = frozenset()
    group: str | None = None
    has_event: bool = True

    def asks(self, live: LiveRule) -> bool:
        probe = Trigger(_NOBODY, _NOBODY, self.type, None, _EVER, rule_ids=self.rule_ids, group=self.group)
        return candidates.is_asked(live, probe)


def names_told(rules: Sequence[LiveRule]) -> frozenset[str]:
    """The columns of these rules that an Index could know."""
    return frozenset(name for live in rules for name in live.condition.needs) & TOLD


class Screen:
    """Of some rules. A rule of which nothing can be told lets everybody through."""

    def __init__(self, rules: Sequence[LiveRule], index: Index | None):
        self.index = index
        known = index.names if index is not None else frozenset()
        self._rules = rules
        self._by_index = {live.rule_id: _part(live, lambda leaf: set(leaf.columns) <= known) for live in rules}
        self._by_features = {live.rule_id: _part(live, _is_of_features) for live in rules}
        self._asked: dict[Source, list[LiveRule]] = {}

    def asked(self, source: Source) -> list[LiveRule]:
        found = self._asked.get(source)
        if found is None:
            found = self._asked[source] = [live for live in self._rules if source.asks(live)]
        return found

    def may_tell(self, source: Source) -> bool:
        """Whether memory can tell of anybody that no rule takes it."""
        return all(self._by_index[live.rule_id] is not None for live in self.asked(source))

    def by_index(self, source: Source, numbers: Ints, at: Ints) -> Mask:
        """Of customers by number at moments (microseconds since 1970): whom some rule may take."""
        if self.index is None or not self.may_tell(source):
            return np.ones(len(numbers), np.bool_)
        columns, unknown = self.index.columns(numbers, at)
        return self._held(source, self._by_index, columns, at, len(numbers)) | unknown

    def by_features(self, source: Source, table: FeatureTable) -> Mask:
        columns = {f"customer.{name}": column for name, column in table.columns.items()}
        times = table.as_of
        assert isinstance(times, Instants)
        return self._held(source, self._by_features, columns, times.raw, len(table))

    def _held(
        self, source: Source, parts: Mapping[UUID, CompiledCondition | None], columns: Mapping[str, Any], at: Ints,
        n: int,
    ) -> Mask:  # fmt: skip
        found = np.zeros(n, np.bool_)
        seen = {**columns, AT: at / 1e6}
        for live in self.asked(source):
            condition = parts[live.rule_id]
            if condition is None:
                return np.ones(n, np.bool_)
            found |= condition.evaluate(seen, n).matched
        return found


def _part(live: LiveRule, is_known: Any) -> CompiledCondition | None:
    weaker = weakest(live.rule.condition, is_known)
    return None if weaker is None else compile(weaker)


def _is_of_features(leaf: Leaf) -> bool:
    return all(name.startswith("customer.") for name in leaf.columns)
