"""What customers did in the past, as numbers: `History` of rules.condition, for moments or for everyone.

`compute` answers for (customer, as_of) pairs, as of each pair's own moment: events count up to it, it included, and
back to `within` before it, that instant not included - as in `features`. A customer that was merged away did nothing:
its events are the survivor's. Most histories are counted by the database from `timeline` alone; one that looks at
other properties of its events reads those events and holds `where` against them with rules.evaluate, the only
evaluator there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.events import columns as event_columns
from rules import evaluate
from rules.condition import History, Reference, leaves

from . import wire
from .history import amount_property
from .wire import Instants

Floats = NDArray[np.float64]
Answers = dict[str, Floats]

PART = 20_000
"""Customers of whom events are read at a time: what of a million customers is in memory."""

_MICROSECOND = timedelta(microseconds=1)
_DAY = 86_400_000_000
_SHOPPING = frozenset(
    {"product.viewed", "cart.added", "cart.removed", "order.paid", "order.refunded", "checkout.started"}
)
"""Types whose amount and product the catalogue has checked: `timeline` holds what the event says."""


def compute(
    session: Session, shop_id: UUID, targets: Sequence[tuple[UUID, datetime]], histories: Mapping[str, History]
) -> Answers:
    """Each history (by its name in `histories`) for each (customer, as_of): row i answers target i. Shop time.

    Counts, sums and numbers of different values are 0 where nothing happened; `days_since_*` is NaN there.
    """
    counted = {name: one for name, one in histories.items() if is_counted(one)}
    read = {name: one for name, one in histories.items() if name not in counted}
    found = _count(session, shop_id, targets, counted) if counted and targets else {}
    if read and targets:
        for start in range(0, len(targets), PART):
            part = targets[start : start + PART]
            for name, column in _read(session, shop_id, part, read).items():
                found.setdefault(name, np.empty(len(targets)))[start : start + len(part)] = column
    return {name: found.get(name, np.empty(0)) for name in histories}


def compute_all(
    session: Session, shop_id: UUID, as_of: datetime, histories: Mapping[str, History], customer_ids: Sequence[UUID]
) -> Answers:
    """Each history as of one moment (shop time) for many customers, row i being `customer_ids[i]`.

    One pass over everybody's timeline, which is what to do for most of a shop; for a few customers `compute` is.
    """
    counted = {name: one for name, one in histories.items() if is_counted(one)}
    found = _count_all(session, shop_id, as_of, counted, customer_ids) if counted else {}
    read = {name: one for name, one in histories.items() if name not in counted}
    if read:
        found |= compute(session, shop_id, [(customer_id, as_of) for customer_id in customer_ids], read)
    return {name: found[name] for name in histories}


# -- counted by the database --------------------------------------------------------------------------------------


def is_counted(history: History) -> bool:
    """Whether `timeline` alone answers it, without a look at the events' other properties."""
    if history.where is not None or history.name is not None:
        return False
    if history.measure == "sum":
        return history.event in _SHOPPING and history.of in ("amount_minor", amount_property(history.event))
    if history.measure == "distinct":
        return history.event in _SHOPPING and history.of == "product_id"
    return True


_MEASURES = {
    "count": "count(*) FILTER (WHERE {those})::float8",
    "sum": "COALESCE(sum(t.amount_minor::float8) FILTER (WHERE {those}), 0)",
    "distinct": "count(DISTINCT t.product_id) FILTER (WHERE {those})::float8",
    "days_since_last": "COALESCE(date_part('epoch', {at} - max(t.occurred_at) FILTER (WHERE {those})) / 86400, 'NaN')",
    "days_since_first": "COALESCE(date_part('epoch', {at} - min(t.occurred_at) FILTER (WHERE {those})) / 86400, 'NaN')",
}


@dataclass(frozen=True, slots=True)
class _Counts:
    """The aggregates of some histories, and what every row they look at has in common."""

    names: tuple[str, ...]
    aggregates: str
    common: str
    values: dict[str, Any]

    @classmethod
    def of(cls, histories: Mapping[str, History], at: str) -> _Counts:
        """`at`: the SQL of the moment. The texts are ours; what the histories say goes in as parameters."""
        values: dict[str, Any] = {"types": sorted({one.event for one in histories.values()})}
        aggregates = []
        for number, one in enumerate(histories.values()):
            those = f"t.type = %(type{number})s"
            values[f"type{number}"] = one.event
            if one.within is not None:
                those += f" AND t.occurred_at > {at} - make_interval(secs => %(within{number})s)"
                values[f"within{number}"] = one.within.total_seconds()
            aggregates.append(f"{_MEASURES[one.measure].format(those=those, at=at)} AS h{number}")
        common = f"t.shop_id = %(shop)s AND t.occurred_at <= {at} AND t.type = ANY(%(types)s)"
        longest = _longest(histories)
        if longest is not None:
            common += f" AND t.occurred_at > {at} - make_interval(secs => %(longest)s)"
            values["longest"] = longest.total_seconds()
        return cls(tuple(histories), ", ".join(aggregates), common, values)

    @property
    def row(self) -> dict[str, str]:
        return {f"h{number}": "float8" for number in range(len(self.names))}


def _longest(histories: Mapping[str, History]) -> timedelta | None:
    """The longest look back; None when one of them looks back for ever."""
    spans = [one.within for one in histories.values()]
    return None if None in spans else max(span for span in spans if span is not None)


def _count(
    session: Session, shop_id: UUID, targets: Sequence[tuple[UUID, datetime]], histories: Mapping[str, History]
) -> Answers:
    counts = _Counts.of(histories, "a.as_of")
    query = f"""
SELECT a.n::int4, {", ".join(f"h.h{number}" for number in range(len(counts.names)))}
FROM unnest(%(customers)s::uuid[], %(times)s::timestamptz[]) WITH ORDINALITY AS a (customer_id, as_of, n)
CROSS JOIN LATERAL (
  SELECT {counts.aggregates} FROM timeline t WHERE t.customer_id = a.customer_id AND {counts.common}) AS h
"""  # noqa: S608
    values = {
        **counts.values,
        "shop": shop_id,
        "customers": [customer_id for customer_id, _ in targets],
        "times": [as_of for _, as_of in targets],
    }
    rows = wire.copy_out(session, query, values, wire.row_type({"n": "int4", **counts.row}))
    places = rows["n"].astype(np.int64) - 1
    return {name: _spread(rows[f"h{number}"], places, len(targets), 0.0) for number, name in enumerate(counts.names)}


def _count_all(
    session: Session, shop_id: UUID, as_of: datetime, histories: Mapping[str, History], customer_ids: Sequence[UUID]
) -> Answers:
    counts = _Counts.of(histories, "%(at)s::timestamptz")
    query = f"SELECT t.customer_id, {counts.aggregates} FROM timeline t WHERE {counts.common} GROUP BY t.customer_id"  # noqa: S608
    kind = wire.row_type({"customer_id": "uuid", **counts.row})
    rows = wire.copy_out(session, query, {**counts.values, "shop": shop_id, "at": as_of}, kind, bulk=True)
    is_there, places = wire.places(rows["customer_id"], customer_ids)
    found = {}
    for number, (name, history) in enumerate(histories.items()):
        nothing = np.nan if history.measure.startswith("days_") else 0.0
        found[name] = _spread(rows[f"h{number}"][is_there], places, len(customer_ids), nothing)
    return found


def _spread(values: NDArray[Any], places: NDArray[np.int64], n: int, nothing: float) -> Floats:
    column = np.full(n, nothing)
    column[places] = values
    return column


# -- read, and held against `where` -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rows:
    """Past events of some targets: of whom (`n`, a row of the targets), of what type, how old in microseconds, and
    the properties that were asked for."""

    n: NDArray[np.int64]
    types: NDArray[Any]
    ages: NDArray[np.int64]
    names: NDArray[Any]
    properties: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.n)


_READ = """
SELECT (a.n - 1)::int4 AS n, t.type, (extract(epoch FROM a.as_of - t.occurred_at) * 1000000)::int8 AS age, e.name,
       {properties} AS said
FROM unnest(CAST(:customers AS uuid[]), CAST(:times AS timestamptz[])) WITH ORDINALITY AS a (customer_id, as_of, n)
CROSS JOIN LATERAL (
  SELECT t.type, t.occurred_at, t.event_id FROM timeline t
  WHERE t.shop_id = :shop AND t.customer_id = a.customer_id AND t.type = ANY(:types) AND t.occurred_at <= a.as_of
    {longest} OFFSET 0) AS t
CROSS JOIN LATERAL (
  SELECT e.name, e.properties FROM events e WHERE e.shop_id = :shop AND e.id = t.event_id
    AND (CAST(:names AS text[]) IS NULL OR e.name = ANY(CAST(:names AS text[]))) OFFSET 0) AS e
"""


def _read(
    session: Session, shop_id: UUID, targets: Sequence[tuple[UUID, datetime]], histories: Mapping[str, History]
) -> Answers:
    wanted = sorted({name for one in histories.values() for name in _properties(one)})
    longest = _longest(histories)
    names = {one.name for one in histories.values()}
    values: dict[str, Any] = {f"p{number}": name for number, name in enumerate(wanted)} | {
        "shop": shop_id,
        "customers": [customer_id for customer_id, _ in targets],
        "times": [as_of for _, as_of in targets],
        "types": sorted({one.event for one in histories.values()}),
        "names": None if None in names else sorted(name for name in names if name is not None),
    }
    if longest is not None:
        values["longest"] = longest.total_seconds()
    picked = ", ".join(f"e.properties -> CAST(:p{number} AS text)" for number in range(len(wanted)))
    query = _READ.format(
        properties=f"jsonb_build_array({picked})::text",
        longest="AND t.occurred_at > a.as_of - make_interval(secs => :longest)" if longest is not None else "",
    )
    rows = _rows(session.execute(text(query), values).all(), wanted)
    return {name: _measure(one, rows, targets) for name, one in histories.items()}


def _rows(found: Sequence[Any], wanted: Sequence[str]) -> _Rows:
    said = [orjson.loads(row[4]) for row in found]
    return _Rows(
        n=np.fromiter((row[0] for row in found), np.int64, len(found)),
        types=event_columns.objects(row[1] for row in found),
        ages=np.fromiter((row[2] for row in found), np.int64, len(found)),
        names=event_columns.objects(row[3] for row in found),
        properties={name: [one[place] for one in said] for place, name in enumerate(wanted)},
    )


def _properties(history: History) -> Iterator[str]:
    """The events' own properties it looks at."""
    if history.of is not None:
        yield _of(history)
    if history.where is not None:
        for field in _kinds(history):
            if field not in ("event.type", "event.name"):
                yield field.removeprefix("event.")


def _of(history: History) -> str:
    """`amount_minor` is the event's amount, by whatever name its type has it."""
    assert history.of is not None
    is_amount = history.of == "amount_minor" and history.event in _SHOPPING
    return amount_property(history.event) if is_amount else history.of


def _kinds(history: History) -> dict[str, str]:
    """Every field that `where` looks at, with its kind."""
    assert history.where is not None
    found: dict[str, str] = {}
    for leaf in leaves(history.where):
        operands = leaf.value if isinstance(leaf.value, tuple) else (leaf.value,)
        found |= {operand.field: "number" for operand in operands if isinstance(operand, Reference)}
        found[leaf.field] = leaf.kind
    return found


def _measure(history: History, rows: _Rows, targets: Sequence[tuple[UUID, datetime]]) -> Floats:
    kept = np.flatnonzero(_holds(history, rows, targets))
    n, owners = len(targets), rows.n[kept]
    if history.measure == "count":
        return np.bincount(owners, minlength=n).astype(np.float64)
    if history.measure == "sum":
        amounts = np.nan_to_num(event_columns.column("number", (rows.properties[_of(history)][row] for row in kept)))
        return np.bincount(owners, weights=amounts, minlength=n).astype(np.float64)
    if history.measure == "distinct":
        values = rows.properties[_of(history)]
        seen = zip(owners.tolist(), (values[row] for row in kept), strict=True)
        pairs = {(owner, _written(value)) for owner, value in seen if value is not None}
        return np.bincount([owner for owner, _ in pairs], minlength=n).astype(np.float64)
    column = np.full(n, np.nan)
    choose = np.fmin if history.measure == "days_since_last" else np.fmax
    choose.at(column, owners, rows.ages[kept] / _DAY)
    return column


def _written(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _holds(history: History, rows: _Rows, targets: Sequence[tuple[UUID, datetime]]) -> NDArray[np.bool_]:
    """Which of the rows the history is about; where `where` is unknown of an event, it is not."""
    mask: NDArray[np.bool_] = np.equal(rows.types, history.event).astype(np.bool_)
    if history.within is not None:
        mask &= rows.ages < history.within // _MICROSECOND
    if history.name is not None:
        mask &= np.equal(rows.names, history.name).astype(np.bool_)
    if history.where is not None and mask.any():
        kept = np.flatnonzero(mask)
        columns = {field: _column(field, kind, rows, kept) for field, kind in _kinds(history).items()}
        moments = Instants.of([as_of for _, as_of in targets]).raw / 1e6
        columns[evaluate.AT] = moments[rows.n[kept]]
        mask[kept] = evaluate.compile(history.where).evaluate(columns, len(kept)).matched
    return mask


def _column(field: str, kind: str, rows: _Rows, kept: NDArray[Any]) -> NDArray[Any]:
    if field == "event.type":
        return rows.types[kept]
    if field == "event.name":
        return rows.names[kept]
    values = rows.properties[field.removeprefix("event.")]
    return event_columns.column(kind, (values[row] for row in kept))
