"""What is known of a customer at a moment, as numbers and labels: one SQL text for a batch of moments or for everyone.

`compute` answers for (customer, as_of) pairs and counts only what had happened by each pair's own moment; a refund or
cancellation that came later does not count. `compute_all` answers for every live customer at one moment,
`compute_range` for those of a range of ids. They differ in where their rows come from (the heads of `features_sql`)
and in nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import text
from sqlalchemy.orm import Session

from . import wire
from .definitions import FEATURES, LABELS
from .features_sql import BATCH, BODY, EVERYONE, RANGE
from .wire import Instants, Uuids

__all__ = ["FEATURES", "LABELS", "FeatureTable", "compute", "compute_all", "compute_range", "load_all", "store"]

_ID_FIELDS = {"n": "int4", "customer_id": "uuid", "random_key": "uuid", "as_of": "timestamptz"}
_TYPES = {name: feature.sql_type for name, feature in FEATURES.items()}
_ROW = wire.row_type({**_ID_FIELDS, **_TYPES})
_STORED_TYPES = {"customer_id": "uuid", "as_of": "timestamptz", **_TYPES}
_STORED = wire.row_type(_STORED_TYPES)
_BULK_ROWS = 5_000
"""From here on a temporary table filled by COPY is faster than arrays as parameters."""


@dataclass(frozen=True)
class FeatureTable:
    """Row i is customer `customer_ids[i]` at `as_of[i]` (shop time, UTC).

    `columns` holds one array per name of FEATURES: numbers and flags are float64 with NaN for missing, labels are
    object arrays with None for missing. Ids and instants are sequences over arrays (`.raw`), made into UUID and
    datetime when looked at: cheap to hand on by the million.
    """

    customer_ids: Sequence[UUID]
    random_keys: Sequence[UUID]
    as_of: Sequence[datetime]
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.customer_ids)

    def part(self, start: int, stop: int) -> FeatureTable:
        """Rows `start` to `stop`, sharing their data with this table."""
        columns = {name: column[start:stop] for name, column in self.columns.items()}
        return FeatureTable(
            self.customer_ids[start:stop], self.random_keys[start:stop], self.as_of[start:stop], columns
        )

    def take(self, rows: Sequence[int]) -> FeatureTable:
        """Some rows in another order; a row may be taken more than once."""
        index = np.asarray(rows, np.int64)
        ids, keys = (
            part if isinstance(part, Uuids) else Uuids.of(part) for part in (self.customer_ids, self.random_keys)
        )
        times = self.as_of if isinstance(self.as_of, Instants) else Instants.of(self.as_of)
        columns = {name: column[index] for name, column in self.columns.items()}
        return FeatureTable(Uuids(ids.raw[index]), Uuids(keys.raw[index]), Instants(times.raw[index]), columns)


def compute(session: Session, shop_id: UUID, targets: Sequence[tuple[UUID, datetime]]) -> FeatureTable:
    """Features of each (customer, as_of): row i answers target i. as_of is shop time.

    A customer that does not exist or was merged away has the features of somebody who did nothing; one that does
    not exist has the nil UUID as random key.
    """
    values = {
        "shop": shop_id,
        "customers": [customer_id for customer_id, _ in targets],
        "times": [as_of for _, as_of in targets],
    }
    rows = wire.copy_out(session, BATCH + BODY, values, _ROW)
    return _table(rows, np.argsort(rows["n"], kind="stable"))


def compute_all(session: Session, shop_id: UUID, as_of: datetime) -> FeatureTable:
    """Features of every live customer there was at one moment (shop time), in the order of random keys."""
    rows = wire.copy_out(session, EVERYONE + BODY, _moment(shop_id, as_of), _ROW, bulk=True)
    return _table(rows, wire.order_of(rows["random_key"]))


def compute_range(session: Session, shop_id: UUID, as_of: datetime, low: UUID, high: UUID) -> FeatureTable:
    """As `compute_all`, of the customers with low < id <= high only: reads their rows and nobody else's."""
    values = {**_moment(shop_id, as_of), "low": low, "high": high}
    rows = wire.copy_out(session, RANGE + BODY, values, _ROW, bulk=True, workers=0)
    return _table(rows, wire.order_of(rows["random_key"]))


def _moment(shop_id: UUID, as_of: datetime) -> dict[str, Any]:
    return {
        "shop": shop_id,
        "at": as_of,
        "week": as_of - timedelta(hours=168),
        "month": as_of - timedelta(hours=720),
    }


def _read(name: str) -> str:
    feature = FEATURES[name]
    if feature.kind == "label":
        codes = " ".join(f"WHEN '{value}' THEN {code}" for code, value in enumerate(LABELS[name]))
        return f"CASE f.{name} {codes} ELSE -1 END::int2"
    return f"COALESCE(f.{name}, 'NaN')" if feature.nullable else f"f.{name}"


_LOAD = f"""
SELECT 0, f.customer_id, c.random_key, f.as_of, {", ".join(_read(name) for name in FEATURES)}
FROM customer_features f JOIN customers c ON c.shop_id = f.shop_id AND c.id = f.customer_id
WHERE f.shop_id = %(shop)s AND c.merged_into IS NULL
"""  # noqa: S608


def load_all(session: Session, shop_id: UUID) -> FeatureTable:
    """The stored features of every live customer, each as of its own last refresh, in the order of random keys."""
    rows = wire.copy_out(session, _LOAD, {"shop": shop_id}, _ROW, bulk=True)
    return _table(rows, wire.order_of(rows["random_key"]))


def _table(rows: np.ndarray, order: np.ndarray) -> FeatureTable:
    rows = wire.take(rows, order)
    columns = {name: _column(name, rows[name]) for name in FEATURES}
    ids, keys = Uuids(rows["customer_id"]), Uuids(rows["random_key"])
    return FeatureTable(ids, keys, Instants.of_wire(rows["as_of"]), columns)


def _column(name: str, raw: np.ndarray) -> np.ndarray:
    if FEATURES[name].kind != "label":
        return raw.astype(np.float64)
    return np.array([*LABELS[name], None], object)[raw.astype(np.int64)]


# -- writing ------------------------------------------------------------------------------------------------------


def _write(name: str) -> str:
    feature = FEATURES[name]
    if feature.kind == "label":
        values = ", ".join(f"'{value}'" for value in LABELS[name])
        return f"(ARRAY[{values}])[r.{name} + 1]"
    return f"NULLIF(r.{name}, 'NaN')" if feature.nullable else f"r.{name}"


_UPSERT = f"""
INSERT INTO customer_features AS f (shop_id, customer_id, as_of, {", ".join(FEATURES)})
SELECT :shop_id, r.customer_id, r.as_of, {", ".join(_write(name) for name in FEATURES)}
FROM :source ORDER BY r.customer_id
ON CONFLICT (shop_id, customer_id) DO UPDATE SET as_of = EXCLUDED.as_of,
  {", ".join(f"{name} = EXCLUDED.{name}" for name in FEATURES)}
WHERE f.as_of <= EXCLUDED.as_of
"""  # noqa: S608

_FROM_ARRAYS = (
    f"unnest({', '.join(f'CAST(:{name} AS {kind}[])' for name, kind in _STORED_TYPES.items())})"
    f" AS r ({', '.join(_STORED_TYPES)})"
)


def store(session: Session, shop_id: UUID, table: FeatureTable) -> None:
    """Keep the table's rows; of each customer the one with the newest as_of stands, in it and in the database."""
    if not len(table):
        return
    rows = _stored_rows(table)
    if len(rows) < _BULK_ROWS:
        values = {name: _plain(name, rows) for name in _STORED_TYPES}
        session.execute(text(_UPSERT.replace(":source", _FROM_ARRAYS)), {"shop_id": shop_id, **values})
        return
    columns = ", ".join(f"{name} {kind}" for name, kind in _STORED_TYPES.items())
    session.execute(text(f"CREATE TEMPORARY TABLE incoming_features ({columns}) ON COMMIT DROP"))
    wire.copy_in(session, "incoming_features", rows)
    session.execute(text(_UPSERT.replace(":source", "incoming_features AS r")), {"shop_id": shop_id})
    session.execute(text("DROP TABLE incoming_features"))


def stored_at(session: Session, shop_id: UUID, customer_ids: Sequence[UUID]) -> dict[UUID, datetime]:
    """As of when (shop time) the stored features of these customers are; who has none is not in it."""
    rows = session.execute(
        text(
            "SELECT customer_id, as_of FROM customer_features"
            " WHERE shop_id = :shop AND customer_id = ANY(CAST(:ids AS uuid[]))"
        ),
        {"shop": shop_id, "ids": list(customer_ids)},
    )
    return {row.customer_id: row.as_of for row in rows}


def _plain(name: str, rows: np.ndarray) -> list[Any]:
    if name == "customer_id":
        return list(Uuids(rows[name]))
    if name == "as_of":
        return list(Instants.of_wire(rows[name]))
    values = rows[name]
    return (values.astype(bool) if _STORED_TYPES[name] == "bool" else values).tolist()


def _stored_rows(table: FeatureTable) -> np.ndarray:
    ids = table.customer_ids if isinstance(table.customer_ids, Uuids) else Uuids.of(table.customer_ids)
    times = table.as_of if isinstance(table.as_of, Instants) else Instants.of(table.as_of)
    newest = _newest(ids.raw, times.raw)
    rows = wire.blank(_STORED, len(newest))
    rows["customer_id"], rows["as_of"] = ids.raw[newest], times.to_wire()[newest]
    for name, column in table.columns.items():
        rows[name] = _codes(name, column[newest]) if FEATURES[name].kind == "label" else column[newest]
    return rows


def _codes(name: str, values: np.ndarray) -> np.ndarray:
    codes: Mapping[object, int] = {value: code for code, value in enumerate(LABELS[name])}
    return np.fromiter((codes.get(value, -1) for value in values), np.int16, len(values))


def _newest(ids: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Indexes of each customer's newest row, in the order of ids."""
    halves = np.ascontiguousarray(ids).view(">u8").reshape(-1, 2).astype(np.uint64)
    order = np.lexsort((times, halves[:, 1], halves[:, 0]))
    ordered = halves[order]
    is_last = np.ones(len(order), bool)
    is_last[:-1] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return order[is_last]
