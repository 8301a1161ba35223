"""Who is in which cluster now: assigned as events come in, and for everybody after a fit.

A customer is assigned by the live model from its features as of a moment. Going live waits, by an advisory lock, for
the transactions that still assign by the old model and holds up those that come after for a few rows' time only; so
no transaction writes a membership of a clustering that had been retired before it read which one is live.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    """Row by row of the table given: the cluster as of the row's moment, None while nothing was ever fitted."""

    clusters: list[dict[str, Any] | None]


_LIVE = text("""
SELECT g.id, g.version, g.as_of, g.members_at IS NOT NULL AS is_complete, g.model::text AS model,
       (SELECT jsonb_agg(jsonb_build_object('number', c.number, 'lineage_id', c.lineage_id, 'label_key', c.label_key,
                                            'labels', c.labels) ORDER BY c.number)::text
        FROM clusters c WHERE c.shop_id = g.shop_id AND c.clustering_id = g.id) AS clusters
FROM clusterings g WHERE g.shop_id = :shop AND g.state = 'live'
""")

_ASSIGN = """
INSERT INTO cluster_members AS m (shop_id, customer_id, clustering_id, number, lineage_id, distance, since, as_of)
SELECT :shop, r.customer_id, :clustering, r.number, c.lineage_id, r.distance, r.as_of, r.as_of
FROM {rows} JOIN clusters c ON c.shop_id = :shop AND c.clustering_id = :clustering AND c.number = r.number
ORDER BY r.customer_id
ON CONFLICT (shop_id, customer_id) DO UPDATE SET
  clustering_id = excluded.clustering_id, number = excluded.number, lineage_id = excluded.lineage_id,
  distance = excluded.distance, as_of = excluded.as_of,
  since = CASE WHEN m.lineage_id = excluded.lineage_id THEN m.since ELSE excluded.since END
WHERE m.clustering_id <> excluded.clustering_id OR m.as_of <= excluded.as_of
"""

_ASSIGN_ROWS = text(
    _ASSIGN.format(
        rows="unnest(CAST(:customers AS uuid[]), CAST(:numbers AS smallint[]), CAST(:distances AS float8[]),"
        " CAST(:times AS timestamptz[])) AS r (customer_id, number, distance, as_of)"
    )
)
_ASSIGN_COPIED = text(
    _ASSIGN.format(
        rows="(SELECT customer_id, number, distance, CAST(:as_of AS timestamptz) AS as_of FROM assigned) AS r"
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


def update(session: Session, shop_id: UUID, table: FeatureTable) -> Membership:
    """Assign each row of `table` and remember the newest one of each customer.

    Several rows may be of one customer at different moments; each is answered as of its own. A row older than what is
    remembered is answered and not remembered.
    """
    if not len(table.customer_ids):
        return Membership([])
    session.execute(text("SELECT pg_advisory_xact_lock_shared(hashtextextended(:key, 0))"), {"key": lock_key(shop_id)})
    # a statement of its own: its snapshot must be newer than the lock
    live = live_model(session, shop_id)
    if live is None:
        return Membership([None] * len(table.customer_ids))
    numbers, distances = live.model.assign(table.columns)
    times = list(table.as_of)
    newest: dict[UUID, int] = {}
    for row, customer_id in enumerate(table.customer_ids):
        known = newest.get(customer_id)
        if known is None or times[row] >= times[known]:
            newest[customer_id] = row
    rows = list(newest.values())
    session.execute(
        _ASSIGN_ROWS,
        {
            "shop": shop_id, "clustering": live.id, "customers": list(newest), "numbers": numbers[rows].tolist(),
            "distances": distances[rows].tolist(), "times": [times[row] for row in rows],
        },
    )  # fmt: skip
    return Membership([live.clusters[number] for number in numbers.tolist()])


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
