"""Whom each rule of the templates would take over the horizon, judged by what is known now.

A scheduled rule takes whoever meets its condition now. A rule set off by events takes, of those who did such a thing
within the last horizon, whoever meets the condition now or cannot be told to miss it (what it asks of the event is not
known yet). One that waits for somebody to enter a cluster takes those who entered it within the last horizon. These are
estimates for choosing among strategies; what a definition would really have done, a backtest says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.clustering import membership
from operation_agent.customers import features
from operation_agent.customers.features import FeatureTable
from operation_agent.decision import reading
from operation_agent.decision.facts import SCHEDULE, Trigger
from operation_agent.store.shops import Shop
from rules.evaluate import compile
from rules.strategy import Strategy
from rules.trigger import When

Mask = NDArray[np.bool_]

PART = 20_000


class Reach:
    """Masks over the customers of one moment: who may be written to, who is in which cluster, whom which rule takes."""

    def __init__(self, reachable: Mask, lineages: NDArray[np.object_], taken: Mapping[tuple[str, str], Mask]):
        self._reachable, self._lineages, self._taken = reachable, lineages, taken

    def customers(self, template: str, rule: str, lineage: UUID) -> int:
        """How many of a cluster a template's rule reaches over the horizon, the held out included."""
        return int((self._taken[template, rule] & (self._lineages == lineage) & self._reachable).sum())


def measure(
    session: Session, shop: Shop, templates: Mapping[str, Strategy], *, as_of: datetime, horizon: timedelta
) -> Reach:
    """As of `as_of` (shop time)."""
    table = features.compute_all(session, shop.id, as_of)
    rules = [(template, rule) for template, strategy in templates.items() for rule in strategy.rules]
    conditions = [compile(rule.condition) for _, rule in rules]
    taken: dict[tuple[str, str], list[Mask]] = {(template, rule.key): [] for template, rule in rules}
    lineages: list[UUID | None] = []
    for start in range(0, len(table), PART):
        part = table.part(start, start + PART)
        clusters = membership.assign(session, shop.id, part).clusters
        lineages += [None if one is None else one["lineage_id"] for one in clusters]
        triggers = _looks(part, as_of)
        columns = reading.load_for(session, shop, triggers, part, clusters, conditions)
        for (template, rule), condition in zip(rules, conditions, strict=True):
            found = condition.evaluate(columns, len(part))
            taken[template, rule.key].append(found.matched | found.unknown if rule.when.event_types else found.matched)
    people = _Index(table.customer_ids)
    acted = {when: people.mask(_set_off(session, shop, when, as_of, horizon)) for when in {r.when for _, r in rules}}
    everyone: Mask = np.ones(len(table), np.bool_)
    return Reach(
        people.mask(_reachable(session, shop)),
        np.array(lineages, object),
        {
            (template, rule.key): np.concatenate(taken[template, rule.key] or [everyone]) & acted[rule.when]
            for template, rule in rules
        },
    )


def _looks(table: FeatureTable, at: datetime) -> list[Trigger]:
    people = zip(table.customer_ids, table.random_keys, strict=True)
    return [Trigger(one, random_key, SCHEDULE, None, at) for one, random_key in people]


class _Index:
    def __init__(self, customer_ids: Sequence[UUID]):
        self._rows = {one: row for row, one in enumerate(customer_ids)}

    def mask(self, customer_ids: Iterable[UUID] | None) -> Mask:
        """True for these customers; for everybody when it is None."""
        if customer_ids is None:
            return np.ones(len(self._rows), np.bool_)
        mask = np.zeros(len(self._rows), np.bool_)
        mask[[self._rows[one] for one in customer_ids if one in self._rows]] = True
        return mask


_REACHABLE = text("""
SELECT p.id FROM customers p
JOIN consents s ON s.shop_id = p.shop_id AND s.customer_id = p.id AND s.channel = 'email' AND s.topic = 'marketing'
WHERE p.shop_id = :shop AND p.merged_into IS NULL AND p.email IS NOT NULL AND s.state = 'subscribed'
  AND NOT EXISTS (SELECT 1 FROM suppressions x
                  WHERE x.shop_id = :shop AND x.channel = 'email' AND x.address = p.email)
""")

_DID = text("""
SELECT DISTINCT t.customer_id FROM timeline t
WHERE t.shop_id = :shop AND t.type = ANY(:types) AND t.occurred_at > :since AND t.occurred_at <= :until
  AND NOT EXISTS (SELECT 1 FROM timeline g
                  WHERE g.shop_id = :shop AND g.customer_id = t.customer_id AND g.type = ANY(:goals)
                    AND g.occurred_at > t.occurred_at AND g.occurred_at <= t.occurred_at + CAST(:within AS interval))
""")

_CAME_UNDER = text("""
SELECT customer_id FROM cluster_members WHERE shop_id = :shop AND label_key = :label AND label_since > :since
""")

_CAME_INTO = text("""
SELECT m.customer_id FROM segment_members m JOIN segments s ON s.shop_id = m.shop_id AND s.id = m.segment_id
WHERE m.shop_id = :shop AND s.key = :key AND m.left_at IS NULL AND m.since > :since
""")

_WENT_OUT_OF = text("""
SELECT m.customer_id FROM segment_members m JOIN segments s ON s.shop_id = m.shop_id AND s.id = m.segment_id
WHERE m.shop_id = :shop AND s.key = :key AND m.left_at > :since
""")


def _reachable(session: Session, shop: Shop) -> list[UUID]:
    return list(session.execute(_REACHABLE, {"shop": shop.id}).scalars())


def _set_off(session: Session, shop: Shop, when: When, as_of: datetime, horizon: timedelta) -> list[UUID] | None:
    """Who did what sets the rule off within the last horizon; None: it looks at everybody."""
    since = as_of - horizon
    if when.schedule is not None:
        return None
    if when.events or when.missed is not None:
        missed = when.missed
        values = {
            "shop": shop.id, "since": since, "types": list(missed.events if missed else when.events),
            "goals": list(missed.goals) if missed else [], "within": missed.within if missed else timedelta(0),
            "until": as_of - missed.within if missed else as_of,
        }  # fmt: skip
        return list(session.execute(_DID, values).scalars())
    room, _, key = (when.entered or when.left or "").partition(".")
    if room == "cluster":
        # whom a label lost is not kept: those it gained stand for them
        return list(session.execute(_CAME_UNDER, {"shop": shop.id, "label": key, "since": since}).scalars())
    moved = _CAME_INTO if when.entered else _WENT_OUT_OF
    return list(session.execute(moved, {"shop": shop.id, "key": key, "since": since}).scalars())
