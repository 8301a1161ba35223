"""What was known of customers right before a trigger: the columns `before:<field>` that `changed` compares with.

Memberships, assignments and consents keep when they changed, so what was before is told from what is stored. Features
and traits are stored over: `remember` reads them before new events are taken in. Of several triggers of a customer in
one call, each has what the one before it had found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.customers.definitions import FEATURES
from operation_agent.customers.wire import microseconds
from operation_agent.events.columns import objects

from .columns import (
    BEFORE,
    Clusters,
    Columns,
    Rows,
    Table,
    Wanted,
    cluster_value,
    consents,
    read_traits,
    segment_spans,
    strategy_spans,
)


@dataclass(frozen=True, slots=True)
class Remembered:
    """`features`: customer -> as of when (microseconds) and the values of the wanted features, in order. `traits`:
    customer -> the values of the wanted traits, in order. `clusters`: where each row's customer was, row by row; None:
    where it is stored to be."""

    features: Mapping[UUID, tuple[int, list[Any]]] = field(default_factory=dict)
    traits: Mapping[UUID, list[Any]] = field(default_factory=dict)
    clusters: Clusters | None = None


def remember(session: Session, shop_id: UUID, customer_ids: Sequence[UUID], wanted: Wanted) -> Remembered:
    """Read what will be stored over. Nothing is read that no condition asks for."""
    return Remembered(
        _features(session, shop_id, customer_ids, _feature_names(wanted)),
        read_traits(session, shop_id, customer_ids, wanted.before("trait")),
    )


def load(
    session: Session, shop_id: UUID, rows: Rows, table: Table, wanted: Wanted, remembered: Remembered | None
) -> Columns:
    """Every `before:` column of `rows` that is wanted. `table` begins with these rows; what else is in it was found
    in the same call. `remembered`: what was read before the table's facts were stored; None: they are not yet."""
    if not wanted.asks_before:
        return {}
    n = len(rows)
    if remembered is None:
        remembered = remember(session, shop_id, rows.customers, wanted)
    clusters = remembered.clusters
    if clusters is None and wanted.before("cluster"):
        clusters = _stored_clusters(session, shop_id, rows)
    known = list(clusters[:n]) if clusters is not None else [None] * n
    columns: Columns = {
        f"cluster.{name}": objects(cluster_value(one, name) for one in known) for name in wanted.before("cluster")
    }
    columns |= _feature_columns(table, _feature_names(wanted), remembered, n)
    columns |= _traits(session, shop_id, rows, wanted.before("trait"), remembered)
    columns |= consents(session, shop_id, rows, wanted.before("consent"), before=True)
    for family, spans in (("segment", segment_spans), ("strategy", strategy_spans)):
        for name, span in spans(session, shop_id, rows, wanted.before(family)).items():
            columns[f"{family}.{name}"] = span.before(rows.moments)
    return {f"{BEFORE}{name}": column for name, column in columns.items()}


# -- features -----------------------------------------------------------------------------------------------------


def _feature_names(wanted: Wanted) -> list[str]:
    return [name for name in wanted.before("customer") if name in FEATURES]


def _features(
    session: Session, shop_id: UUID, customer_ids: Sequence[UUID], names: Sequence[str]
) -> dict[UUID, tuple[int, list[Any]]]:
    if not names:
        return {}
    found = session.execute(
        text(
            f"SELECT customer_id, (extract(epoch FROM as_of) * 1000000)::int8 AS as_of, {', '.join(names)}"  # noqa: S608
            " FROM customer_features WHERE shop_id = :shop AND customer_id = ANY(CAST(:customers AS uuid[]))"
        ),
        {"shop": shop_id, "customers": list(customer_ids)},
    )
    return {row[0]: (row[1], list(row[2:])) for row in found}


def _feature_columns(table: Table, names: Sequence[str], remembered: Remembered, n: int) -> Columns:
    columns: Columns = {name: _blank(name, n) for name in names}
    latest = dict(remembered.features)
    if not names:
        return columns
    moments = [microseconds(at) for at in table.as_of]
    ids = list(table.customer_ids)
    # rows of one moment know nothing of each other: they are looked at before any of them is remembered
    for row, known in _in_time(ids, moments, latest, table, names):
        if row < n and known is not None:
            for name, value in zip(names, known, strict=True):
                columns[name][row] = np.nan if value is None and columns[name].dtype != object else value
    return {f"customer.{name}": column for name, column in columns.items()}


def _in_time(
    ids: Sequence[UUID], moments: Sequence[int], latest: dict[UUID, tuple[int, list[Any]]], table: Table,
    names: Sequence[str],
) -> list[tuple[int, list[Any] | None]]:  # fmt: skip
    """Each row with what was known of its customer right before its moment; None: nothing, or only later facts."""
    older: dict[UUID, tuple[int, list[Any]]] = {}
    found: list[tuple[int, list[Any] | None]] = []
    for row in sorted(range(len(ids)), key=moments.__getitem__):
        customer_id, at = ids[row], moments[row]
        known = latest.get(customer_id)
        if known is not None and known[0] >= at:
            known = older.get(customer_id)
            found.append((row, known[1] if known is not None and known[0] < at else None))
            continue
        found.append((row, known[1] if known is not None else None))
        if known is not None:
            older[customer_id] = known
        latest[customer_id] = (at, [_plain(table.columns[name][row]) for name in names])
    return found


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _blank(name: str, n: int) -> NDArray[Any]:
    return np.full(n, None, object) if FEATURES[name].kind == "label" else np.full(n, np.nan)


# -- clusters and traits ------------------------------------------------------------------------------------

_CLUSTERS = text("""
SELECT m.customer_id, c.label_key, c.lineage_id FROM cluster_members m
JOIN clusters c ON c.shop_id = m.shop_id AND c.clustering_id = m.clustering_id AND c.number = m.number
WHERE m.shop_id = :shop AND m.customer_id = ANY(CAST(:customers AS uuid[]))
""")


def _stored_clusters(session: Session, shop_id: UUID, rows: Rows) -> Clusters:
    values = {"shop": shop_id, "customers": rows.customers}
    found = {row.customer_id: dict(row._mapping) for row in session.execute(_CLUSTERS, values)}
    return [found.get(customer_id) for customer_id in rows.ids]


def _traits(
    session: Session, shop_id: UUID, rows: Rows, names: Sequence[str], remembered: Remembered
) -> Columns:  # fmt: skip
    """A trait that was said earlier than the row's moment was known before it; else what is remembered was."""
    columns = {name: rows.nothing() for name in names}
    if not names:
        return {}
    said = session.execute(
        text("SELECT id, traits, trait_times FROM customers WHERE shop_id = :shop AND id = ANY(:customers)"),
        {"shop": shop_id, "customers": rows.customers},
    )
    for customer_id, traits, times in said:
        past = dict(zip(names, remembered.traits.get(customer_id, [None] * len(names)), strict=True))
        for name in names:
            at = _said_at(times, name)
            for row in rows.places[customer_id]:
                was_known = at is not None and at < rows.moments[row]
                value = _dig(traits, name) if was_known else past[name]
                columns[name][row] = tuple(value) if isinstance(value, list) else value
    return {f"trait.{name}": column for name, column in columns.items()}


def _said_at(times: Mapping[str, Any], name: str) -> int | None:
    written = times.get(name, times.get(name.partition(".")[0]))
    return microseconds(datetime.fromisoformat(written)) if written else None


def _dig(traits: Any, name: str) -> Any:
    if name in traits:
        return traits[name]
    for part in name.split("."):
        traits = traits.get(part) if isinstance(traits, dict) else None
    return traits
