"""Decide for a batch of triggers: read, hold every live rule against all of them at once, write what was decided.

An event is a batch of one, a scheduled rule a batch of every customer: the same path.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from operation_agent.segments.before import Remembered
from operation_agent.store.shops import Shop
from operation_agent.strategies.live import live_rules

from . import engine, estimators, reading, store, writing
from .candidates import prepare
from .engine import Decision
from .facts import Clusters, Table, Trigger
from .rationing import Cutoff


def decide(
    session: Session, shop: Shop, triggers: Sequence[Trigger], table: Table, clusters: Clusters | None = None, *,
    recorded_at: datetime, remembered: Remembered | None = None, cutoffs: Mapping[UUID, Cutoff] | None = None,
    campaign_id: UUID | None = None,
) -> list[Decision]:  # fmt: skip
    """Decide, and write decisions, assignments and enrolments. Row i of `table` and `clusters` is trigger i as of its
    `at`; rows beyond the triggers are left alone. `recorded_at` is system time. `remembered`: what was known before the
    triggers' facts were stored; None: they are not stored yet. `cutoffs` as engine.decide, of the campaign
    `campaign_id`.

    Returns one Decision per trigger and strategy, in the order in which they were made; those that acted or were held
    out carry an arm to plan. A trigger that no rule matches leaves no trace.
    """
    kinds = {(one.type, one.rule_ids, one.group): one for one in triggers}.values()
    rules = [rule for rule in live_rules(session, shop.id) if any(engine.is_asked(rule, one) for one in kinds)]
    if not rules:
        return []
    circumstances = estimators.circumstances(session, shop, rules, campaign_id=campaign_id)
    columns = reading.load(session, shop, triggers, table, clusters, rules, remembered=remembered)
    features = {name: column[: len(triggers)] for name, column in table.columns.items()}
    prepared = prepare(rules, triggers, columns, features, circumstances)
    if not prepared:
        return []
    with _uncollected():
        matched = {one.live.rule_id: [triggers[row] for row in one.rows] for one in prepared}
        reached = [triggers[row] for row in sorted({row for one in prepared for row in one.rows})]
        history = store.load(session, shop, [one.live for one in prepared], reached, matched=matched)
        decisions = engine.settle(
            circumstances, prepared, triggers, features, history, cutoffs=cutoffs, clusters=clusters
        )
        writing.write(session, shop.id, decisions, recorded_at=recorded_at)
    return decisions


@contextmanager
def _uncollected() -> Iterator[None]:
    """Nothing here makes cycles, everything is kept until the end: looking for garbage took a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
