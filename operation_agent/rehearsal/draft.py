"""A strategy that is not live, as the engine wants it: with ids of its own, so that nothing of the past is its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from operation_agent.decision import estimators
from operation_agent.decision.candidates import Circumstances
from operation_agent.decision.history import History, Purse
from operation_agent.kit.ids import digest_id
from operation_agent.kit.money import to_minor
from operation_agent.store.shops import Shop
from operation_agent.strategies.live import LiveRule
from rules.condition import fields_of
from rules.evaluate import compile
from rules.program import Branch, Delay, walk_tree
from rules.rule import Rule
from rules.strategy import Strategy


@dataclass(frozen=True, slots=True)
class Cast:
    """A strategy on stage: its rules, and the budget row it would have. `real_id`: the shop's strategy it is a version
    of, None for a new one."""

    strategy: Strategy
    strategy_id: UUID
    budget_id: UUID | None
    rules: tuple[LiveRule, ...]
    real_id: UUID | None

    def history(self, shop: Shop) -> History:
        """Nobody was ever in it, and its budget is whole."""
        history = History(is_lasting=True)
        budget = self.strategy.budget
        if budget is not None and self.budget_id is not None:
            daily, each = budget.daily, budget.per_customer
            history.purses[self.budget_id] = Purse(
                to_minor(budget.limit, shop.currency),
                None if daily is None else to_minor(daily, shop.currency),
                None if each is None else to_minor(each, shop.currency),
            )
        return history


def cast(strategy: Strategy, *, name: str, started_at: datetime, real_id: UUID | None = None) -> Cast:
    """`name` tells two versions of one strategy apart; the strategy's key stays, so the draws are those it would make
    when live. `started_at` is shop time."""
    strategy_id = digest_id("rehearsal", name, strategy.key)
    budget_id = digest_id("rehearsal", name, strategy.key, "budget") if strategy.budget is not None else None
    rules = tuple(
        LiveRule(
            strategy_id=strategy_id,
            rule_id=digest_id("rehearsal", name, strategy.key, rule.key),
            key=f"{strategy.key}/{rule.key}",
            version=0,
            rule=rule,
            strategy=strategy,
            condition=compile(rule.condition),
            budget_id=budget_id,
            started_at=started_at,
        )
        for rule in strategy.rules
        if rule.enabled
    )
    return Cast(strategy, strategy_id, budget_id, rules, real_id)


def asks_of_event(rule: Rule) -> bool:
    """Whether anything but the event's type and time matters: its key, a date, a condition on it."""
    steps = [step for arm in rule.arms for _, step in walk_tree(arm.steps)]
    conditions = [rule.condition, *(step.condition for step in steps if isinstance(step, Branch))]
    return (
        rule.when.key is not None
        or any(isinstance(step, Delay) and step.date is not None for step in steps)
        or any(name.startswith("event.") for condition in conditions for name in fields_of(condition))
    )


def circumstances(session: Session, shop: Shop, casts: Sequence[Cast]) -> Circumstances:
    """Of the shop, with what was learned of the strategies that the casts are versions of."""
    known = [replace(rule, strategy_id=one.real_id) for one in casts if one.real_id for rule in one.rules[:1]]
    found = estimators.circumstances(session, shop, known)
    learned = found.estimators or {}
    return replace(
        found,
        estimators={
            one.strategy_id: learned[one.real_id] for one in casts if one.real_id is not None and one.real_id in learned
        },
    )
