"""Who is in which segment: looked at again as events come in (`update`), and for everybody by the hour (`screen`).

Time alone makes people enter and leave ("last order > 45 days ago"), so `screen` holds everybody against every segment
without a lock and names those who stand elsewhere than it is written; they then go through `update` one part after the
other, each under its locks, with facts as of the same instant. A crash between two parts loses nobody: who was not
moved yet is named again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.clustering import membership as clusters_of
from operation_agent.customers import event_history, features, wire
from operation_agent.customers.features import FeatureTable
from operation_agent.customers.groups import Moved, Way
from operation_agent.store.shops import Shop
from rules.columns import Batch

from . import columns as people
from .active import Segment, segments
from .columns import SINCE, Clusters, Columns, Rows, Spans, Wanted
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
    stored = _stored(session, shop.id, rows.customers, listed)
    fresh = _fresh(rows, stored)
    batch = Batch(columns, len(table))  # looks a column up when it is first asked for: after it was told below
    moved: list[Moved] = []
    written: dict[tuple[UUID, UUID], tuple[Span, float]] = {}
    for segment in listed:
        matched = segment.condition.evaluate(batch, len(table)).matched
        walk = _walk(segment, rows, matched, fresh, stored)
        columns[PREFIX + segment.key], columns[PREFIX + segment.key + SINCE] = walk.inside, walk.since
        written |= walk.written
        if segment.is_told:
            moved += [_moved(table, segment, row, way) for row, way in walk.moves]
    _write(session, shop.id, written)
    return moved


def evaluate(
    session: Session, shop: Shop, table: FeatureTable, clusters: Clusters, listed: Sequence[Segment],
    counted: Mapping[str, NDArray[Any]],
) -> dict[str, NDArray[np.bool_]]:  # fmt: skip
    """Who of `table` meets each of `listed` (each after those it refers to), by key; nothing is written."""
    columns = _columns(session, shop, Rows.of(table), table, clusters, listed, counted)
    batch = Batch(columns, len(table))
    found = {}
    for segment in listed:
        found[segment.key] = segment.condition.evaluate(batch, len(table)).matched
        columns[PREFIX + segment.key] = found[segment.key].astype(np.float64)
    return found


def _columns(
    session: Session, shop: Shop, rows: Rows, table: FeatureTable, clusters: Clusters, listed: Sequence[Segment],
    counted: Mapping[str, NDArray[Any]] | None = None,
) -> Columns:  # fmt: skip
    """Everything the segments look at but those among them, which are told as they are evaluated."""
    wanted = Wanted.of(one.condition for one in listed)
    # since when somebody has been in a segment is as stored, unless it changes now
    return people.load(session, shop, rows, table.columns, clusters, wanted, counted=counted)


# -- from what is stored to what is true now ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stored:
    """By customer, in microseconds: when it was last in each segment, NaN for never; `moved`, by how new facts it moved
    last; `seen`, when it was seen last."""

    spans: dict[UUID, Spans]
    moved: NDArray[np.float64]
    seen: NDArray[np.float64]


_STORED = """
SELECT m.customer_id, (array_position(%(segments)s::uuid[], m.segment_id) - 1)::int4 AS place, m.since,
       COALESCE(m.left_at, 'infinity') AS left_at, m.as_of
FROM segment_members m
WHERE m.shop_id = %(shop)s AND m.customer_id = ANY(%(customers)s::uuid[]) AND m.segment_id = ANY(%(segments)s::uuid[])
UNION ALL
SELECT c.id, -1, 'infinity', 'infinity', c.last_seen_at FROM customers c
WHERE c.shop_id = %(shop)s AND c.id = ANY(%(customers)s::uuid[])
"""
_STORED_ROW = wire.row_type(
    {"customer_id": "uuid", "place": "int4", "since": "timestamptz", "left_at": "timestamptz", "as_of": "timestamptz"}
)
_INFINITY = np.iinfo(np.int64).max


def _stored(session: Session, shop_id: UUID, customer_ids: Sequence[UUID], listed: Sequence[Segment]) -> _Stored:
    values = {"shop": shop_id, "customers": list(customer_ids), "segments": [one.id for one in listed]}
    found = wire.copy_out(session, _STORED, values, _STORED_ROW)
    _, places = wire.places(found["customer_id"], customer_ids)
    n = len(customer_ids)
    moved, seen = np.full(n, -np.inf), np.full(n, -np.inf)
    is_span = found["place"] >= 0
    as_of = _microseconds(found["as_of"])
    seen[places[~is_span]] = as_of[~is_span]
    np.maximum.at(moved, places[is_span], as_of[is_span])
    spans = {}
    for number, segment in enumerate(listed):
        own = found["place"] == number
        spans[segment.id] = Spans(np.full(n, np.nan), np.full(n, np.nan))
        spans[segment.id].entered[places[own]] = _microseconds(found["since"][own])
        spans[segment.id].left[places[own]] = _microseconds(found["left_at"][own])
    return _Stored(spans, moved, seen)


def _microseconds(raw: NDArray[Any]) -> NDArray[np.float64]:
    """NaN for an infinite instant."""
    return np.where(raw == _INFINITY, np.nan, wire.Instants.of_wire(raw).raw.astype(np.float64))


def _fresh(rows: Rows, stored: _Stored) -> NDArray[np.bool_]:
    """The rows that may move their customer: none of a customer whose newest facts are not among them, and none older
    than those it moved by."""
    newest = np.full(len(rows.customers), -np.inf)
    np.maximum.at(newest, rows.who, rows.moments)
    fresh: NDArray[np.bool_] = (newest >= stored.seen)[rows.who] & (rows.moments >= stored.moved[rows.who])
    return fresh


@dataclass(slots=True)
class _Walk:
    """What became of one segment: for each row whether the customer is in, and since when it is so; who moved at which
    row; what is to be written of whom, with the moment of the facts."""

    inside: NDArray[np.float64]
    since: NDArray[np.float64]
    moves: list[tuple[int, Way]]
    written: dict[tuple[UUID, UUID], tuple[Span, float]]


def _walk(
    segment: Segment, rows: Rows, matched: NDArray[np.bool_], fresh: NDArray[np.bool_], stored: _Stored
) -> _Walk:  # fmt: skip
    spans = stored.spans[segment.id]
    here = Spans(spans.entered[rows.who], spans.left[rows.who])
    walk = _Walk(here.at(rows.moments), here.since(rows.moments), [], {})
    is_in = ~np.isnan(here.entered) & np.isnan(here.left)
    # where no row says otherwise than what is written, nobody moves, however many rows a customer has
    for place in dict.fromkeys(rows.who[fresh & (matched != is_in)].tolist()):
        gone = float(spans.left[place])
        entered = float(spans.entered[place])
        span = None if np.isnan(entered) else (entered, None if np.isnan(gone) else gone)
        _move(walk, segment, rows, matched, fresh, rows.customers[place], span)
    return walk


def _move(
    walk: _Walk, segment: Segment, rows: Rows, matched: NDArray[np.bool_], fresh: NDArray[np.bool_], customer_id: UUID,
    span: Span | None,
) -> None:  # fmt: skip
    """Take one customer through its rows, in the order of time."""
    for row in sorted(rows.places[customer_id], key=rows.moments.__getitem__):
        if not fresh[row]:
            continue
        at, is_in = float(rows.moments[row]), span is not None and span[1] is None
        if bool(matched[row]) != is_in:
            span = (span[0], at) if span is not None and is_in else (at, None)
            walk.moves.append((row, "left" if is_in else "entered"))
            walk.written[customer_id, segment.id] = (span, at)
        if span is not None:
            walk.inside[row], walk.since[row] = float(span[1] is None), (span[0] if span[1] is None else span[1]) / 1e6


def _moved(table: FeatureTable, segment: Segment, row: int, way: Way) -> Moved:
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
SELECT m.customer_id, bit_or(1::int8 << (array_position(%(segments)s::uuid[], m.segment_id) - 1))::int8 AS mask
FROM segment_members m
WHERE m.shop_id = %(shop)s AND m.left_at IS NULL AND m.segment_id = ANY(%(segments)s::uuid[]) GROUP BY m.customer_id
"""
_NOW_ROW = wire.row_type({"customer_id": "uuid", "mask": "int8"})
_BITS = 60


def screen(session: Session, shop: Shop, as_of: datetime) -> list[UUID]:
    """Customers who at `as_of` (shop time) should be in a segment and are not, or the other way round, in the order of
    random keys. Takes no lock, so that it may run for as long as it needs."""
    listed = segments(session, shop.id)
    if not listed:
        return []
    everyone = features.compute_all(session, shop.id, as_of)
    members = _members(session, shop.id, listed, everyone)
    asked = Wanted.of(one.condition for one in listed).histories
    counted = {name: one for name, one in asked.items() if event_history.is_counted(one)}
    numbers = event_history.compute_all(session, shop.id, as_of, counted, everyone.customer_ids)
    found: list[UUID] = []
    for start in range(0, len(everyone), PART):
        table = everyone.part(start, start + PART)
        clusters = clusters_of.assign(session, shop.id, table).clusters
        known = {name: column[start : start + PART] for name, column in numbers.items()}
        held = evaluate(session, shop, table, clusters, listed, known)
        differs = np.zeros(len(table), np.bool_)
        for place, segment in enumerate(listed):
            differs |= held[segment.key] != members[place, start : start + PART]
        found += [table.customer_ids[row] for row in np.flatnonzero(differs).tolist()]
    return found


def _members(session: Session, shop_id: UUID, listed: Sequence[Segment], everyone: FeatureTable) -> NDArray[np.bool_]:
    """Segment by customer: who is in now, as it is written."""
    inside = np.zeros((len(listed), len(everyone)), np.bool_)
    for start in range(0, len(listed), _BITS):
        part = listed[start : start + _BITS]
        rows = wire.copy_out(session, _NOW, {"shop": shop_id, "segments": [one.id for one in part]}, _NOW_ROW)
        is_known, places = wire.places(rows["customer_id"], everyone.customer_ids)
        masks = rows["mask"][is_known].astype(np.int64)
        for place in range(len(part)):
            inside[start + place, places] = (masks >> place) & 1
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
