"""A strategy that is not live, as the engine wants it: with ids of its own, so that nothing of the past is its own
(`cast`), or with those that it has in the shop, so that all of it is (`as_it_stands`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.decision import estimators
from operation_agent.decision.candidates import Circumstances
from operation_agent.decision.history import History, Purse
from operation_agent.kit.ids import digest_id
from operation_agent.kit.money import to_minor
from operation_agent.store.shops import Shop
from operation_agent.strategies import records
from operation_agent.strategies.live import LiveRule
from operation_agent.strategies.records import StrategyRow
from rules.condition import fields_of
from rules.evaluate import compile
from rules.program import Branch, Delay, walk_tree
from rules.rule import Rule
from rules.strategy import Strategy


@dataclass(frozen=True, slots=True)
class Cast:
    """A strategy on stage: its rules, and the budget row it would have. `real_id`: the shop's strategy it is a version
    of, None for a new one. `keeps_budget`: what it says of money is what the live version says."""

    strategy: Strategy
    strategy_id: UUID
    budget_id: UUID | None
    rules: tuple[LiveRule, ...]
    real_id: UUID | None
    keeps_budget: bool = False

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


def as_it_stands(session: Session, shop: Shop, strategy: Strategy, real: StrategyRow | None) -> Cast:
    """As it would be this moment, were it live: who is enrolled, held out or paid for in the strategy `real`, of which
    it is a version, is so here. A rule that is new has nobody. `real` None: nothing of it is in the shop."""
    if real is None:
        return cast(strategy, name="unsaved", started_at=_EVER)
    keys = [f"{real.key}/{rule.key}" for rule in strategy.rules]
    rows = session.execute(_RULE_IDS, {"shop": shop.id, "strategy": real.id, "keys": keys}).all()
    known = {row.key: row for row in rows}
    made = cast(strategy, name="unsaved", started_at=real.started_at or _EVER, real_id=real.id)
    budget_id = (real.budget_id or made.budget_id) if strategy.budget is not None else None
    rules = tuple(
        replace(
            live,
            strategy_id=real.id,
            rule_id=known[live.key].id if live.key in known else live.rule_id,
            version=known[live.key].version if live.key in known else 0,
            budget_id=budget_id,
        )
        for live in made.rules
    )
    keeps = real.version is not None and records.read(real.definition).budget == strategy.budget
    return Cast(strategy, real.id, budget_id, rules, real.id, keeps_budget=keeps)


def fill_purse(session: Session, shop: Shop, one: Cast, history: History) -> None:
    """The budget of `history` as this version writes it: less what was committed of it already. What somebody set at
    the budget itself stays where the version does not change it, as in publishing."""
    if one.keeps_budget:
        return
    fresh = one.history(shop).purses
    for budget_id, purse in fresh.items():
        committed = session.execute(_COMMITTED, {"shop": shop.id, "budget": budget_id}).scalar() or 0
        known = history.purses.get(budget_id)
        history.purses[budget_id] = replace(
            purse, left=purse.left - committed, days=dict(known.days) if known is not None else {}
        )


_EVER = datetime(1970, 1, 1, tzinfo=UTC)

_RULE_IDS = text("""
SELECT DISTINCT ON (key) id, key, version FROM rules
WHERE shop_id = :shop AND strategy_id = :strategy AND key = ANY(CAST(:keys AS text[])) ORDER BY key, version DESC
""")

_COMMITTED = text("SELECT reserved_minor + spent_minor FROM budgets WHERE shop_id = :shop AND id = :budget")


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
