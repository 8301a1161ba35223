"""Who is in which segment: looked at again as events come in (`update`), and for everybody by the hour (`screen`).

Time alone makes people enter and leave ("last order > 45 days ago"), so `screen` holds everybody against every segment
without a lock and names those who stand elsewhere than it is written; they then go through `update` one part after the
other, each under its locks, with facts as of the same instant. A crash between two parts loses nobody: who was not
moved yet is named again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.clustering import membership as clusters_of
from operation_agent.customers import features, wire
from operation_agent.customers.features import FeatureTable
from operation_agent.customers.groups import Moved
from operation_agent.store.shops import Shop
from rules.columns import Batch

from . import columns as people
from .active import Segment, segments
from .columns import SINCE, Clusters, Columns, Rows, Wanted
from .definition import PREFIX

PART = 25_000
"""Customers who are held against the segments at a time."""

Span = tuple[float, float | None]
"""When somebody entered last and left again (None: is in), in microseconds since 1970."""


def update(session: Session, shop: Shop, table: FeatureTable, clusters: Clusters) -> list[Moved]:
    """Hold each row of `table` against every segment as of its moment; write and return who entered or left.

    The customers are locked by the caller. Several rows of one customer are taken in the order of time; rows that came
    late, when newer facts are known, move nobody. Of a segment that was never held against everybody nobody is told to
    have entered. `clusters`: row by row.
    """
    listed = segments(session, shop.id)
    if not listed or not len(table):
        return []
    rows = Rows.of(table)
    columns = _columns(session, shop, rows, table, clusters, listed)
    stored = _stored(session, shop.id, rows.customers)
    order = _in_time(rows, stored)
    batch = Batch(columns, len(table))  # looks a column up when it is first asked for: after it was told below
    moved: list[Moved] = []
    written: dict[tuple[UUID, UUID], tuple[Span, float]] = {}
    for segment in listed:
        matched = segment.condition.evaluate(batch, len(table)).matched
        walk = _walk(segment, rows, matched, order, stored)
        columns[PREFIX + segment.key], columns[PREFIX + segment.key + SINCE] = walk.inside, walk.since / 1e6
        written |= walk.written
        if segment.is_told:
            moved += [_moved(table, segment, row, way) for row, way in walk.moves]
    _write(session, shop.id, written)
    return moved


def evaluate(
    session: Session, shop: Shop, table: FeatureTable, clusters: Clusters, listed: Sequence[Segment]
) -> dict[str, NDArray[np.bool_]]:
    """Who of `table` meets each of `listed` (each after those it refers to), by key; nothing is written."""
    columns = _columns(session, shop, Rows.of(table), table, clusters, listed)
    batch = Batch(columns, len(table))
    found = {}
    for segment in listed:
        found[segment.key] = segment.condition.evaluate(batch, len(table)).matched
        columns[PREFIX + segment.key] = found[segment.key].astype(np.float64)
    return found


def _columns(
    session: Session, shop: Shop, rows: Rows, table: FeatureTable, clusters: Clusters, listed: Sequence[Segment]
) -> Columns:
    """Everything the segments look at but those among them, which are told as they are evaluated."""
    wanted = Wanted.of(one.condition for one in listed)
    # since when somebody has been in a segment is as stored, unless it changes now
    return people.load(session, shop, rows, table.columns, clusters, wanted)


# -- from what is stored to what is true now ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stored:
    """`spans`: (customer, segment) -> span. Of each customer: `moved`, by how new facts it moved last; `seen`, when it
    was seen last."""

    spans: dict[tuple[UUID, UUID], Span]
    moved: dict[UUID, int]
    seen: dict[UUID, int]


_STORED = text("""
SELECT customer_id, segment_id, (extract(epoch FROM since) * 1000000)::int8 AS since,
       (extract(epoch FROM left_at) * 1000000)::int8 AS left_at, (extract(epoch FROM as_of) * 1000000)::int8 AS as_of
FROM segment_members WHERE shop_id = :shop AND customer_id = ANY(CAST(:customers AS uuid[]))
UNION ALL
SELECT id, NULL, NULL, NULL, (extract(epoch FROM last_seen_at) * 1000000)::int8
FROM customers WHERE shop_id = :shop AND id = ANY(CAST(:customers AS uuid[]))
""")


def _stored(session: Session, shop_id: UUID, customer_ids: Sequence[UUID]) -> _Stored:
    found = _Stored({}, {}, {})
    for row in session.execute(_STORED, {"shop": shop_id, "customers": list(customer_ids)}):
        if row.segment_id is None:
            found.seen[row.customer_id] = row.as_of
        else:
            found.moved[row.customer_id] = max(found.moved.get(row.customer_id, row.as_of), row.as_of)
            found.spans[row.customer_id, row.segment_id] = (row.since, row.left_at)
    return found


def _in_time(rows: Rows, stored: _Stored) -> list[int]:
    """The rows that may move their customer, oldest first: none of a customer whose newest facts are not among them,
    and none older than those it moved by."""
    found = []
    for customer_id, places in rows.places.items():
        newest = max(rows.moments[row] for row in places)
        if newest >= stored.seen.get(customer_id, -np.inf):
            least = stored.moved.get(customer_id, -np.inf)
            found += [row for row in places if rows.moments[row] >= least]
    return sorted(found, key=lambda row: rows.moments[row])


@dataclass(slots=True)
class _Walk:
    """What became of one segment: for each row whether the customer is in, and since when it is so; who moved at which
    row; what is to be written of whom, with the moment of the facts."""

    inside: NDArray[np.float64]
    since: NDArray[np.float64]
    moves: list[tuple[int, Any]]
    written: dict[tuple[UUID, UUID], tuple[Span, float]]


def _walk(
    segment: Segment, rows: Rows, matched: NDArray[np.bool_], order: Sequence[int], stored: _Stored
) -> _Walk:  # fmt: skip
    walk = _Walk(np.zeros(len(rows)), rows.blank(), [], {})
    spans = {one: stored.spans[one, segment.id] for one in rows.customers if (one, segment.id) in stored.spans}
    for row, customer_id in enumerate(rows.ids):
        _see(walk, row, spans.get(customer_id), rows.moments[row])
    for row in order:
        customer_id, at = rows.ids[row], float(rows.moments[row])
        span = spans.get(customer_id)
        is_in = span is not None and span[1] is None
        if bool(matched[row]) != is_in:
            entered = at if span is None or not is_in else span[0]
            spans[customer_id] = span = (entered, at if is_in else None)
            walk.moves.append((row, "left" if is_in else "entered"))
            walk.written[customer_id, segment.id] = (span, at)
        _see(walk, row, span, at)
    return walk


def _see(walk: _Walk, row: int, span: Span | None, at: float) -> None:
    if span is None:
        return
    entered, gone = span
    is_gone = gone is not None and gone <= at
    walk.inside[row] = float(entered <= at and not is_gone)
    walk.since[row] = gone if is_gone else entered if entered <= at else np.nan


def _moved(table: FeatureTable, segment: Segment, row: int, way: Any) -> Moved:
    return Moved(table.customer_ids[row], table.random_keys[row], PREFIX + segment.key, way, table.as_of[row], row)


_WRITE = text("""
INSERT INTO segment_members (shop_id, customer_id, segment_id, since, left_at, as_of)
SELECT :shop, r.customer_id, r.segment_id, r.since, r.left_at, r.as_of
FROM unnest(CAST(:customers AS uuid[]), CAST(:segments AS uuid[]), CAST(:since AS timestamptz[]),
            CAST(:left AS timestamptz[]), CAST(:as_of AS timestamptz[]))
  AS r (customer_id, segment_id, since, left_at, as_of)
ORDER BY r.customer_id, r.segment_id
ON CONFLICT (shop_id, customer_id, segment_id) DO UPDATE
SET since = excluded.since, left_at = excluded.left_at, as_of = excluded.as_of
""")


def _write(session: Session, shop_id: UUID, written: dict[tuple[UUID, UUID], tuple[Span, float]]) -> None:
    if not written:
        return
    spans = [span for span, _ in written.values()]
    session.execute(
        _WRITE,
        {
            "shop": shop_id,
            "customers": [customer_id for customer_id, _ in written],
            "segments": [segment_id for _, segment_id in written],
            "since": [_instant(entered) for entered, _ in spans],
            "left": [None if gone is None else _instant(gone) for _, gone in spans],
            "as_of": [_instant(at) for _, at in written.values()],
        },
    )


def _instant(at: float) -> datetime:
    return wire.Instants(np.array([at], np.float64).astype(np.int64))[0]


# -- everybody --------------------------------------------------------------------------------------------------------

_NOW = """
SELECT m.customer_id, (array_position(%(segments)s::uuid[], m.segment_id) - 1)::int4 AS place
FROM segment_members m WHERE m.shop_id = %(shop)s AND m.left_at IS NULL AND m.segment_id = ANY(%(segments)s::uuid[])
"""
_NOW_ROW = wire.row_type({"customer_id": "uuid", "place": "int4"})


def screen(session: Session, shop: Shop, as_of: datetime) -> list[UUID]:
    """Customers who at `as_of` (shop time) should be in a segment and are not, or the other way round, in the order of
    random keys. Takes no lock, so that it may run for as long as it needs."""
    listed = segments(session, shop.id)
    if not listed:
        return []
    everyone = features.compute_all(session, shop.id, as_of)
    members = _members(session, shop.id, listed, everyone)
    found: list[UUID] = []
    for start in range(0, len(everyone), PART):
        table = everyone.part(start, start + PART)
        clusters = clusters_of.assign(session, shop.id, table).clusters
        held = evaluate(session, shop, table, clusters, listed)
        differs = np.zeros(len(table), np.bool_)
        for place, segment in enumerate(listed):
            differs |= held[segment.key] != members[place, start : start + PART]
        found += [table.customer_ids[row] for row in np.flatnonzero(differs).tolist()]
    return found


def _members(session: Session, shop_id: UUID, listed: Sequence[Segment], everyone: FeatureTable) -> NDArray[np.bool_]:
    """Segment by customer: who is in now, as it is written."""
    values = {"shop": shop_id, "segments": [one.id for one in listed]}
    rows = wire.copy_out(session, _NOW, values, _NOW_ROW)
    inside = np.zeros((len(listed), len(everyone)), np.bool_)
    is_known, places = wire.places(rows["customer_id"], everyone.customer_ids)
    inside[rows["place"][is_known], places] = True
    return inside


_REFRESHED = text("""
UPDATE segments s SET refreshed_at = :as_of, size = (
  SELECT count(*) FROM segment_members m WHERE m.shop_id = s.shop_id AND m.segment_id = s.id AND m.left_at IS NULL)
WHERE s.shop_id = :shop AND s.state = 'active' AND s.id = ANY(CAST(:ids AS uuid[]))
""")


def refreshed(session: Session, shop_id: UUID, ids: Sequence[UUID], as_of: datetime) -> None:
    """Write down that everybody was held against these segments as of an instant of shop time, and how many are in."""
    if ids:
        session.execute(_REFRESHED, {"shop": shop_id, "ids": list(ids), "as_of": as_of})
