"""Whom a rule that runs by the clock looks at. When it is due, `strategies.calendar` says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from operation_agent.customers import features
from operation_agent.customers.features import FeatureTable
from operation_agent.store.shops import Shop
from operation_agent.strategies.live import live_rules

from .facts import SCHEDULE, Trigger

CHUNK = 10_000


def scheduled_triggers(
    session: Session, shop: Shop, rule_id: UUID, at: datetime, *, chunk: int = CHUNK
) -> Iterator[tuple[list[Trigger], FeatureTable]]:
    """Every customer there was at `at` (shop time), for one rule, and their features as of then.

    In lists of at most `chunk` by random key, row i of the table being trigger i. Nobody, when the rule is no longer
    live.
    """
    if all(live.rule_id != rule_id for live in live_rules(session, shop.id)):
        return
    everyone = features.compute_all(session, shop.id, at)
    for start in range(0, len(everyone), chunk):
        table = everyone.part(start, start + chunk)
        people = zip(table.customer_ids, table.random_keys, strict=True)
        yield (
            [Trigger(one, random_key, SCHEDULE, None, at, rule_ids=frozenset({rule_id})) for one, random_key in people],
            table,
        )
