"""Who is in which cluster now: assigned as events come in, and for everybody after a fit.

A customer is assigned by the live model from its features as of a moment. Going live waits, by an advisory lock, for
the transactions that still assign by the old model and holds up those that come after for a few rows' time only; so
no transaction writes a membership of a clustering that had been retired before it read which one is live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import numpy as np
import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.customers import wire
from operation_agent.customers.features import FeatureTable
from operation_agent.customers.groups import Moved, Way

from .model import Model


@dataclass(frozen=True, eq=False)
class Live:
    """The clustering that assigns. `clusters[number]` = {number, lineage_id, label_key, labels}; `as_of` shop time."""

    id: UUID
    version: int
    as_of: datetime
    is_complete: bool
    model: Model
    clusters: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Membership:
    """Row by row of the table given: `clusters`, the cluster as of the row's moment, None while nothing was ever
    fitted; and `before`, where the customer was right before it (empty from `assign`). `moved`: who came under another
    label."""

    clusters: list[dict[str, Any] | None]
    before: list[dict[str, Any] | None] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)


_LIVE = text("""
SELECT g.id, g.version, g.as_of, g.members_at IS NOT NULL AS is_complete, g.model::text AS model,
       (SELECT jsonb_agg(jsonb_build_object('number', c.number, 'lineage_id', c.lineage_id, 'label_key', c.label_key,
                                            'labels', c.labels) ORDER BY c.number)::text
        FROM clusters c WHERE c.shop_id = g.shop_id AND c.clustering_id = g.id) AS clusters
FROM clusterings g WHERE g.shop_id = :shop AND g.state = 'live'
""")

_ASSIGN = """
INSERT INTO cluster_members AS m (shop_id, customer_id, clustering_id, number, lineage_id, distance, since, as_of,
                                  label_key, label_since)
SELECT :shop, r.customer_id, :clustering, r.number, c.lineage_id, r.distance, r.as_of, r.as_of, r.label_key,
       r.label_since
FROM {rows} JOIN clusters c ON c.shop_id = :shop AND c.clustering_id = :clustering AND c.number = r.number
ORDER BY r.customer_id
ON CONFLICT (shop_id, customer_id) DO UPDATE SET
  clustering_id = excluded.clustering_id, number = excluded.number, lineage_id = excluded.lineage_id,
  distance = excluded.distance, as_of = excluded.as_of,
  since = CASE WHEN m.lineage_id = excluded.lineage_id THEN m.since ELSE excluded.since END,
  label_key = COALESCE(excluded.label_key, m.label_key), label_since = COALESCE(excluded.label_since, m.label_since)
WHERE m.clustering_id <> excluded.clustering_id OR m.as_of <= excluded.as_of
"""

_LABEL = text("""
UPDATE cluster_members m SET label_key = r.label_key, label_since = r.label_since
FROM unnest(CAST(:customers AS uuid[]), CAST(:labels AS text[]), CAST(:label_times AS timestamptz[]))
  AS r (customer_id, label_key, label_since)
WHERE m.shop_id = :shop AND m.customer_id = r.customer_id
""")

_ASSIGN_ROWS = text(
    _ASSIGN.format(
        rows="unnest(CAST(:customers AS uuid[]), CAST(:numbers AS smallint[]), CAST(:distances AS float8[]),"
        " CAST(:times AS timestamptz[]), CAST(:labels AS text[]), CAST(:label_times AS timestamptz[]))"
        " AS r (customer_id, number, distance, as_of, label_key, label_since)"
    )
)
# who is assigned by a fit is not told to have moved here: whoever looks next finds that the label has changed
_ASSIGN_COPIED = text(
    _ASSIGN.format(
        rows="(SELECT customer_id, number, distance, CAST(:as_of AS timestamptz) AS as_of,"
        " CAST(NULL AS text) AS label_key, CAST(NULL AS timestamptz) AS label_since FROM assigned) AS r"
    )
)
_ASSIGNED = {"customer_id": "uuid", "number": "int2", "distance": "float8"}
_ASSIGNED_ROW = wire.row_type(_ASSIGNED)


def lock_key(shop_id: UUID) -> str:
    return f"clusters:{shop_id}"


def live_model(session: Session, shop_id: UUID) -> Live | None:
    """The shop's live clustering, or None before the first fit."""
    row = session.execute(_LIVE, {"shop": shop_id}).one_or_none()
    if row is None:
        return None
    return Live(row.id, row.version, row.as_of, row.is_complete, _model(row.model), _clusters(row.clusters))


@lru_cache(maxsize=256)
def _model(written: str) -> Model:
    return Model.from_json(orjson.loads(written))


@lru_cache(maxsize=256)
def _clusters(written: str) -> tuple[dict[str, Any], ...]:
    """Shared between calls: callers read these dictionaries and do not change them."""
    return tuple({**one, "lineage_id": UUID(one["lineage_id"])} for one in orjson.loads(written))


def assign(session: Session, shop_id: UUID, table: FeatureTable) -> Membership:
    """The cluster of each row of `table` by the live model; nothing is remembered."""
    live = live_model(session, shop_id)
    if live is None:
        return Membership([None] * len(table.customer_ids))
    numbers, _ = live.model.assign(table.columns)
    return Membership([live.clusters[number] for number in numbers.tolist()])


def update(session: Session, shop_id: UUID, table: FeatureTable, *, is_told: bool = True) -> Membership:
    """Assign each row of `table` and remember the newest one of each customer.

    Several rows may be of one customer at different moments; each is answered as of its own. A row older than what is
    remembered is answered and not remembered. Unless `is_told`, nobody is said to have moved: whoever comes next and
    tells finds that they did.
    """
    if not len(table.customer_ids):
        return Membership([])
    session.execute(text("SELECT pg_advisory_xact_lock_shared(hashtextextended(:key, 0))"), {"key": lock_key(shop_id)})
    # a statement of its own: its snapshot must be newer than the lock
    live = live_model(session, shop_id)
    if live is None:
        return Membership([None] * len(table.customer_ids))
    numbers, distances = live.model.assign(table.columns)
    clusters: list[dict[str, Any] | None] = [live.clusters[number] for number in numbers.tolist()]
    stored = _stored(session, shop_id, table)
    walk = _walk(table, clusters, stored, live.id, is_told=is_told)
    newest = _newest(table)
    rows = list(newest.values())
    late = [one for one, row in newest.items() if one in stored and table.as_of[row] < stored[one].as_of]
    labels = [walk.labels.get(customer_id, (None, None)) for customer_id in newest]
    session.execute(
        _ASSIGN_ROWS,
        {
            "shop": shop_id, "clustering": live.id, "customers": list(newest), "numbers": numbers[rows].tolist(),
            "distances": distances[rows].tolist(), "times": [table.as_of[row] for row in rows],
            "labels": [label for label, _ in labels], "label_times": [since for _, since in labels],
        },
    )  # fmt: skip
    _keep_labels(session, shop_id, [one for one in late if stored[one].told != walk.labels[one][0]], walk)
    return Membership(clusters, walk.before, walk.moved)


def _keep_labels(session: Session, shop_id: UUID, customers: Sequence[UUID], walk: _Walk) -> None:
    """Of those whose rows are too old to be assigned by, and who were told to have moved."""
    if customers:
        labels, times = zip(*(walk.labels[one] for one in customers), strict=True)
        values = {"shop": shop_id, "customers": list(customers), "labels": list(labels), "label_times": list(times)}
        session.execute(_LABEL, values)


def _newest(table: FeatureTable) -> dict[UUID, int]:
    """Each customer's newest row."""
    times = list(table.as_of)
    newest: dict[UUID, int] = {}
    for row, customer_id in enumerate(table.customer_ids):
        known = newest.get(customer_id)
        if known is None or times[row] >= times[known]:
            newest[customer_id] = row
    return newest


# -- who came under another label -----------------------------------------------------------------------------------

_STORED = text("""
SELECT m.customer_id, m.clustering_id, m.as_of, m.since, m.label_key AS told, m.label_since, c.label_key, c.lineage_id
FROM cluster_members m
JOIN clusters c ON c.shop_id = m.shop_id AND c.clustering_id = m.clustering_id AND c.number = m.number
WHERE m.shop_id = :shop AND m.customer_id = ANY(CAST(:customers AS uuid[]))
""")


@dataclass(slots=True)
class _Walk:
    """Through a table's rows in the order of time: where each row's customer was before, who moved, and under which
    label each customer now is, since when."""

    before: list[dict[str, Any] | None]
    moved: list[Moved] = field(default_factory=list)
    labels: dict[UUID, tuple[str | None, datetime | None]] = field(default_factory=dict)

    def move(self, table: FeatureTable, row: int, customer_id: UUID, group: str | None, way: Way) -> None:
        if group is not None:
            moved = Moved(customer_id, table.random_keys[row], f"cluster.{group}", way, table.as_of[row], row)
            self.moved.append(moved)


def _stored(session: Session, shop_id: UUID, table: FeatureTable) -> dict[UUID, Any]:
    values = {"shop": shop_id, "customers": list(dict.fromkeys(table.customer_ids))}
    return {row.customer_id: row for row in session.execute(_STORED, values)}


def _walk(
    table: FeatureTable, clusters: list[dict[str, Any] | None], stored: dict[UUID, Any], live: UUID, *, is_told: bool
) -> _Walk:
    ids, times = list(table.customer_ids), list(table.as_of)
    walk = _Walk([None] * len(ids))
    here: dict[UUID, dict[str, Any] | None] = {}
    for customer_id, known in stored.items():
        here[customer_id] = {"label_key": known.label_key, "lineage_id": known.lineage_id}
        walk.labels[customer_id] = (known.told, known.label_since)
    for row in sorted(range(len(ids)), key=times.__getitem__):
        customer_id, cluster, known = ids[row], clusters[row], stored.get(ids[row])
        walk.before[row] = here.get(customer_id)
        if known is not None and times[row] < known.as_of and known.clustering_id == live:
            cluster = here[customer_id]  # answered, and not remembered: a fit may have moved it since somebody looked
        here[customer_id] = cluster
        if is_told and cluster is not None:
            _tell(walk, table, row, known, cluster["label_key"])
    return walk


def _tell(walk: _Walk, table: FeatureTable, row: int, known: Any, label: str) -> None:
    customer_id, at = table.customer_ids[row], table.as_of[row]
    told, _ = walk.labels.get(customer_id, (None, None))
    if told == label:
        return
    if told is None and known is not None:
        # there before anybody looked: it has not entered now. Since when is only known of where it still is
        walk.labels[customer_id] = (label, known.since if known.label_key == label else at)
        return
    walk.move(table, row, customer_id, told, "left")
    walk.move(table, row, customer_id, label, "entered")
    walk.labels[customer_id] = (label, at)


SETTLED_AT_ONCE = 10_000

_SETTLE = text("""
WITH due AS (
  SELECT m.customer_id, c.label_key FROM cluster_members m
  JOIN clusters c ON c.shop_id = m.shop_id AND c.clustering_id = m.clustering_id AND c.number = m.number
  WHERE m.shop_id = :shop AND m.label_key IS DISTINCT FROM c.label_key
    AND (m.label_key IS NULL OR NOT (m.label_key = ANY(:watched) OR c.label_key = ANY(:watched)))
  ORDER BY m.customer_id LIMIT :most FOR UPDATE OF m
)
UPDATE cluster_members m SET label_key = due.label_key,
       label_since = CASE WHEN m.label_key IS NULL THEN m.since ELSE greatest(m.since, m.label_since) END
FROM due WHERE m.shop_id = :shop AND m.customer_id = due.customer_id
RETURNING 1
""")

_ELSEWHERE = text("""
SELECT m.customer_id FROM cluster_members m
JOIN clusters c ON c.shop_id = m.shop_id AND c.clustering_id = m.clustering_id AND c.number = m.number
JOIN customers p ON p.shop_id = m.shop_id AND p.id = m.customer_id
WHERE m.shop_id = :shop AND m.label_key <> c.label_key AND p.merged_into IS NULL
  AND (m.label_key = ANY(:watched) OR c.label_key = ANY(:watched))
ORDER BY p.random_key
""")


def settle(session: Session, shop_id: UUID, watched: frozenset[str]) -> bool:
    """Take note of labels that a fit changed and nobody waits for, and of those that were never looked at; at most
    SETTLED_AT_ONCE. True when there may be more: then once more, in another transaction."""
    values = {"shop": shop_id, "watched": sorted(watched), "most": SETTLED_AT_ONCE}
    return len(session.execute(_SETTLE, values).all()) == SETTLED_AT_ONCE


def elsewhere(session: Session, shop_id: UUID, watched: frozenset[str]) -> list[UUID]:
    """Customers whom a fit moved to, or from, one of the labels that somebody waits for, by random key."""
    if not watched:
        return []
    return list(session.execute(_ELSEWHERE, {"shop": shop_id, "watched": sorted(watched)}).scalars())


def assign_part(
    session: Session,
    shop_id: UUID,
    clustering_id: UUID,
    ids: np.ndarray,
    numbers: np.ndarray,
    distances: np.ndarray,
    as_of: datetime,
) -> None:
    """Write the memberships of many customers, by binary COPY. `ids`: dtype V16, the bytes of each customer's id.

    Every one of `numbers` belongs to the clustering and `as_of` (shop time) is that of the features.
    """
    columns = ", ".join(f"{name} {kind}" for name, kind in _ASSIGNED.items())
    session.execute(text(f"CREATE TEMPORARY TABLE assigned ({columns}) ON COMMIT DROP"))
    rows = wire.blank(_ASSIGNED_ROW, len(ids))
    rows["customer_id"], rows["number"], rows["distance"] = ids, numbers, distances
    wire.copy_in(session, "assigned", rows)
    session.execute(_ASSIGN_COPIED, {"shop": shop_id, "clustering": clustering_id, "as_of": as_of})
    session.execute(text("DROP TABLE assigned"))
