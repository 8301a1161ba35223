"""Whom a campaign looks at: the customers of a chunk, with their features as of its moment, and what each is asked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.clustering import membership
from operation_agent.customers import features
from operation_agent.customers.features import FeatureTable
from operation_agent.decision import reading
from operation_agent.decision.facts import SCHEDULE, Clusters, Trigger
from operation_agent.store.shops import Shop
from operation_agent.strategies.calendar import zone_of
from rules.evaluate import CompiledCondition, compile

from . import audience
from .chunks import Chunk
from .records import Asked, Campaign


@dataclass(frozen=True)
class People:
    """Row i of `table` and `clusters` is trigger i."""

    triggers: list[Trigger]
    table: FeatureTable
    clusters: Clusters

    def __len__(self) -> int:
        return len(self.triggers)


def of_chunk(session: Session, shop: Shop, campaign: Campaign, chunk: Chunk) -> People:
    """Everybody of a chunk who is in the campaign's audience, by random key, each with the rules it is asked."""
    table = features.compute_range(session, shop.id, campaign.as_of, chunk.low, chunk.high)
    keep = _not_among(table, _served_before_merging(session, shop, campaign, chunk))
    asked = _asked(session, shop, campaign, chunk, table, keep)
    if not keep.all():
        table = table.take(np.flatnonzero(keep).tolist())
        asked = [rules for rules, kept in zip(asked, keep.tolist(), strict=True) if kept]
    triggers = [
        Trigger(customer_id, random_key, SCHEDULE, None, campaign.as_of, rule_ids=rules)
        for customer_id, random_key, rules in zip(table.customer_ids, table.random_keys, asked, strict=True)
    ]
    found = People(triggers, table, membership.assign(session, shop.id, table).clusters)
    condition = audience.read(session, shop.id, campaign.audience)
    return found if condition is None else _meeting(session, shop, compile(condition), found)


def _meeting(session: Session, shop: Shop, condition: CompiledCondition, people: People) -> People:
    """Those of whom the audience's condition is true; nobody of whom it is unknown."""
    columns = reading.load_for(session, shop, people.triggers, people.table, people.clusters, [condition])
    matched = condition.evaluate(columns, len(people)).matched
    rows = np.flatnonzero(matched).tolist()
    triggers, clusters = [people.triggers[row] for row in rows], [people.clusters[row] for row in rows]
    return People(triggers, people.table.take(rows), clusters)


_SERVED = text("""
SELECT DISTINCT e.customer_id
FROM customers c JOIN enrolments e ON e.shop_id = c.shop_id AND e.customer_id = c.merged_into
WHERE c.shop_id = :shop AND c.merged_into > :low AND c.merged_into <= :high
  AND e.rule_id = ANY(CAST(:rules AS uuid[])) AND e.entered_at = :as_of
""")


def _served_before_merging(session: Session, shop: Shop, campaign: Campaign, chunk: Chunk) -> set[UUID]:
    """Survivors of a merge of whom the campaign has taken the other half: it is one person, and was decided about."""
    rows = session.execute(
        _SERVED,
        {
            "shop": shop.id, "low": chunk.low, "high": chunk.high, "as_of": campaign.as_of,
            "rules": [one.rule_id for one in campaign.rules],
        },
    )  # fmt: skip
    return set(rows.scalars())


def _not_among(table: FeatureTable, customers: Collection[UUID]) -> np.ndarray:
    if not customers:
        return np.ones(len(table), bool)
    return np.fromiter((one not in customers for one in table.customer_ids), bool, len(table))


def _asked(
    session: Session, shop: Shop, campaign: Campaign, chunk: Chunk, table: FeatureTable, keep: np.ndarray
) -> list[frozenset[UUID]]:
    """The rules asked of each row; takes those out of `keep` who are asked none."""
    everywhere = frozenset(one.rule_id for one in campaign.rules if one.zones is None)
    local = [one for one in campaign.rules if one.zones is not None]
    if not local:
        return [everywhere] * len(table)
    by_zone = _rules_by_zone(everywhere, local)
    zones = _zones(session, shop, chunk)
    asked = [by_zone.get(zone_of(zones.get(one), shop), everywhere) for one in table.customer_ids]
    keep &= np.fromiter((bool(rules) for rules in asked), bool, len(table))
    return asked


def _rules_by_zone(everywhere: frozenset[UUID], local: Collection[Asked]) -> dict[str, frozenset[UUID]]:
    found: dict[str, set[UUID]] = {}
    for one in local:
        for zone in one.zones or ():
            found.setdefault(zone, set(everywhere)).add(one.rule_id)
    return {zone: frozenset(rules) for zone, rules in found.items()}


def _zones(session: Session, shop: Shop, chunk: Chunk) -> dict[UUID, str]:
    rows = session.execute(
        text(
            "SELECT id, time_zone FROM customers WHERE shop_id = :shop AND id > :low AND id <= :high"
            " AND time_zone IS NOT NULL"
        ),
        {"shop": shop.id, "low": chunk.low, "high": chunk.high},
    )
    return {row.id: row.time_zone for row in rows}
