"""Decide for a batch of triggers: read, hold every live rule against all of them at once, write what was decided.

An event is a batch of one, a scheduled rule a batch of every customer: the same path.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy.orm import Session

from operation_agent.kit.money import minor_digits
from operation_agent.segments.before import Remembered
from operation_agent.store.shops import Shop
from operation_agent.strategies.live import live_rules

from . import engine, reading, store
from .engine import Circumstances, Decision
from .facts import Clusters, Table, Trigger


def decide(
    session: Session, shop: Shop, triggers: Sequence[Trigger], table: Table, clusters: Clusters | None = None, *,
    recorded_at: datetime, remembered: Remembered | None = None,
) -> list[Decision]:  # fmt: skip
    """Decide, and write decisions, assignments and enrolments. Row i of `table` and `clusters` is trigger i as of its
    `at`; rows beyond the triggers are left alone. `recorded_at` is system time. `remembered`: what was known before the
    triggers' facts were stored; None: they are not stored yet.

    Returns one Decision per trigger and matching rule, in the order in which they were made; those that acted or were
    held out carry an arm to plan. A trigger that no rule matches leaves no trace.
    """
    rules = [rule for rule in live_rules(session, shop.id) if any(engine.is_asked(rule, one) for one in triggers)]
    if not rules:
        return []
    circumstances = Circumstances(shop.seed, minor_digits(shop.currency), float(shop.margin_rate), shop.settings)
    columns = reading.load(session, shop, triggers, table, clusters, rules, remembered=remembered)
    features = {name: column[: len(triggers)] for name, column in table.columns.items()}
    prepared = [engine.prepare(rule, triggers, columns, features, circumstances) for rule in rules]
    candidates = engine.candidates([one for one in prepared if one is not None], triggers)
    if not candidates:
        return []
    reached = [triggers[candidate.row] for candidate in candidates]
    with _uncollected():
        history = store.load(
            session, shop.id, rules, {one.customer_id for one in reached}, since=min(one.at for one in reached)
        )
        decisions = engine.decide_all(circumstances, features, candidates, history)
        store.write(session, shop.id, decisions, recorded_at=recorded_at)
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
