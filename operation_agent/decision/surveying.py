"""What would be decided for everybody if nothing were short: as `batch.decide`, and nothing is written.

For campaigns, which find out over a whole audience who goes first before the first of it is decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from operation_agent.store.shops import Shop
from operation_agent.strategies.live import live_rules

from . import engine, estimators, reading, store
from .candidates import Circumstances, Prepared, prepare
from .engine import Decision
from .facts import Clusters, Table, Trigger
from .history import History
from .rationing import day_of

PLENTY = 10**15
"""Minor units, or executions: more than anybody has."""


@dataclass(frozen=True)
class Held:
    """Rules held against triggers: whom each of them takes."""

    shop: Circumstances
    triggers: Sequence[Trigger]
    table: Table
    prepared: list[Prepared]


def hold(
    session: Session, shop: Shop, triggers: Sequence[Trigger], table: Table, clusters: Clusters | None, *,
    campaign_id: UUID | None = None,
) -> Held:  # fmt: skip
    """Evaluate and score every live rule that the triggers ask. Row i of `table` and `clusters` is trigger i."""
    kinds = {(one.type, one.rule_ids): one for one in triggers}.values()
    rules = [rule for rule in live_rules(session, shop.id) if any(engine.is_asked(rule, one) for one in kinds)]
    circumstances = estimators.circumstances(session, shop, rules, campaign_id=campaign_id)
    if not rules:
        return Held(circumstances, triggers, table, [])
    columns = reading.load(session, shop, triggers, table, clusters, rules)
    return Held(circumstances, triggers, table, prepare(rules, triggers, columns, table.columns, circumstances))


def rehearse(session: Session, shop: Shop, held: Held) -> list[Decision]:
    """Every decision as it would be made with money and a day's executions for all: guardrails, draws, receipts."""
    if not held.prepared:
        return []
    matched = {one.live.rule_id: [held.triggers[row] for row in one.rows] for one in held.prepared}
    reached = [held.triggers[row] for row in sorted({row for one in held.prepared for row in one.rows})]
    history = store.load(session, shop, [one.live for one in held.prepared], reached, matched=matched)
    _lift_limits(held, history, shop)
    return engine.settle(held.shop, held.prepared, held.triggers, held.table.columns, history)


def _lift_limits(held: Held, history: History, shop: Shop) -> None:
    """What one customer may get at most stays: it does not depend on who else is there."""
    for purse in history.purses.values():
        purse.left, purse.daily = PLENTY, None
    days = {day_of(trigger.at, shop.time_zone) for trigger in held.triggers[:1]}
    for one in held.prepared:
        for day in days:
            history.taken[one.live.strategy_id, day] = -PLENTY
