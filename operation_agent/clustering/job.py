"""The clustering job: refresh every customer's features, fit, say what became of the old groups, reassign everybody.

Several short transactions rather than one: events go on being processed while it runs. Nothing is held during the
fit; going live is a handful of rows; features and members are written some ten thousand customers at a time. A crash
in between leaves a live clustering whose `members_at` is empty, and the next run finishes that one before anything
else. A shop's jobs run one at a time, held by an advisory lock on a connection of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from operation_agent.customers import features, wire
from operation_agent.customers.features import FeatureTable
from operation_agent.kit.clock import monotonic
from operation_agent.kit.errors import Conflict, Rejected
from operation_agent.kit.ids import digest_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop

from . import membership, publish
from .fit import Fit, Inconclusive, Options, fit
from .membership import Live
from .publish import Occasion

FEATURES: dict[str, str] = {
    "days_since_order": "horizon",
    "orders": "zero",
    "revenue_minor": "zero",
    "average_order_minor": "zero",
    "interpurchase_days": "horizon",
    "discount_share": "zero",
    "views_30d": "zero",
    "repeat_views_7d": "zero",
    "carts_7d": "zero",
    "days_since_view": "horizon",
}
"""What customers are grouped by, and what a missing value is taken for. Nothing the agent itself does is among them
(messages sent, opened, clicked): contact must not move a customer to another group by being counted."""

PROFILED = (*FEATURES, "days_since_first_order", "views_7d", "searches_7d", "checkouts_7d", "open_cart")
"""What a cluster is described by."""

PART = 25_000
"""Customers per transaction: some tenths of a second of row locks."""
WRITERS = 2
"""Connections that write side by side."""


def run(
    engine: Engine, shop: Shop, *, now: datetime, as_of: datetime | None = None, actor: str = "clustering"
) -> dict[str, Any]:
    """Cluster the shop's customers. `now` is system time; `as_of` shop time, the shop's now when absent.

    Returns {"state": "live" | "inconclusive" | "resumed", "version", "clustering_id", "customers", "k", "clusters",
    "ended", "reason", "quality", "seconds"}. `ended` names every lineage that has no successor and what became of it:
    a rule bound to one of them selects nobody until a person points it elsewhere.
    Raises Conflict when a job of this shop is running already, Rejected for settings that are none.
    """
    options = options_of(shop)
    with _only_one(engine, shop.id):
        return _Run(engine, shop, now, as_of or now + shop.clock_offset, actor).go(options)


def options_of(shop: Shop) -> Options:
    """The shop's settings under "clustering", e.g. {"k_max": 6}. Raises Rejected for a name or value that is none."""
    given = shop.settings.get("clustering", {})
    known = {field.name for field in fields(Options)}
    if not isinstance(given, dict) or not given.keys() <= known:
        raise Rejected(f"settings.clustering takes {', '.join(sorted(known))}", where="settings.clustering")
    try:
        options = Options(**given)
        is_range = 2 <= options.k_min <= options.k_max <= 50
    except TypeError:
        is_range = False
    if not is_range:
        raise Rejected("settings.clustering: 2 <= k_min <= k_max <= 50", where="settings.clustering")
    return options


@contextmanager
def _only_one(engine: Engine, shop_id: UUID) -> Iterator[None]:
    """Hold the shop's job lock on a connection of its own, outside any transaction, so that it keeps no rows alive."""
    key = {"key": f"clustering.job:{shop_id}"}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if not connection.execute(text("SELECT pg_try_advisory_lock(hashtextextended(:key, 0))"), key).scalar():
            raise Conflict("a clustering job of this shop is running already", code="clustering_running")
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(hashtextextended(:key, 0))"), key)


_STRAGGLERS = text("""
SELECT f.customer_id, f.as_of FROM customer_features f WHERE f.shop_id = :shop AND f.as_of > :as_of
UNION ALL
SELECT m.customer_id, m.as_of FROM cluster_members m JOIN customers c ON c.shop_id = m.shop_id AND c.id = m.customer_id
WHERE m.shop_id = :shop AND m.clustering_id <> :clustering AND c.merged_into IS NULL
  AND NOT EXISTS (SELECT FROM customer_features f
                  WHERE f.shop_id = :shop AND f.customer_id = m.customer_id AND f.as_of > :as_of)
ORDER BY 1
""")
# who is left was merged into another customer, or erased
_DELETE_LEFT = text("DELETE FROM cluster_members WHERE shop_id = :shop AND clustering_id <> :clustering")
_COMPLETE = text("UPDATE clusterings SET members_at = :now WHERE shop_id = :shop AND id = :clustering")


class _Run:
    """One run: its table of features, and the seconds each step took."""

    def __init__(self, engine: Engine, shop: Shop, now: datetime, as_of: datetime, actor: str):
        self.engine, self.shop, self.now, self.as_of, self.actor = engine, shop, now, as_of, actor
        self.seconds: dict[str, float] = {}
        self._last = monotonic()

    def go(self, options: Options) -> dict[str, Any]:
        with for_shop(self.engine, self.shop.id) as session:
            previous = membership.live_model(session, self.shop.id)
            table = features.compute_all(session, self.shop.id, self.as_of)
        self._lap("features")
        if previous is not None and not previous.is_complete:
            self._store(table)
            self._reassign(previous, table)
            return self._told("resumed", previous, table)
        occasion = Occasion(self.shop, self.as_of, self.now, self.actor, len(table))
        with ThreadPoolExecutor(1) as aside:
            # the database writes the features while this process fits
            stored = aside.submit(self._store, table)
            found = self._fit(table, options, previous)
            self._lap("fit")
            stored.result()
        self._lap("store features")
        if isinstance(found, Inconclusive):
            return self._inconclusive(occasion, found, previous, table)
        described = publish.describe(found, table.columns, PROFILED, previous, self.shop.currency)
        self._lap("label")
        with for_shop(self.engine, self.shop.id) as session:
            live = publish.go_live(session, occasion, found, described, previous)
        self._assign(live, table, found.numbers, found.distances)
        told = self._told("live", live, table)
        told |= {"clusters": [_plain(one) for one in described.clusters], "ended": described.ended}
        return told | {"quality": found.quality}

    def _fit(self, table: FeatureTable, options: Options, previous: Live | None) -> Fit | Inconclusive:
        matrix = np.column_stack([table.columns[name] for name in FEATURES])
        seed = digest_id(self.shop.seed, "clustering").int % 2**30
        old = previous.model if previous else None
        return fit(matrix, tuple(FEATURES), seed, options=options, missing=FEATURES, previous=old)

    def _lap(self, name: str) -> None:
        at = monotonic()
        self.seconds[name] = round(at - self._last, 3)
        self._last = at

    def _store(self, table: FeatureTable) -> None:
        def write(session: Session, rows: np.ndarray) -> None:
            features.store(session, self.shop.id, _take(table, rows))

        self._in_parts(_by_id(table), write)

    def _in_parts(self, order: np.ndarray, write: Callable[[Session, np.ndarray], None]) -> None:
        """`write` the rows PART by PART, each part a transaction of its own; the first error ends it."""

        def one(start: int) -> None:
            with for_shop(self.engine, self.shop.id) as session:
                write(session, order[start : start + PART])

        with ThreadPoolExecutor(WRITERS) as writers:
            try:
                for _ in writers.map(one, range(0, len(order), PART)):
                    pass
            except BaseException:
                writers.shutdown(cancel_futures=True)
                raise

    # -- members --------------------------------------------------------------------------------------------------

    def _reassign(self, live: Live, table: FeatureTable) -> None:
        self._assign(live, table, *live.model.assign(table.columns))

    def _assign(self, live: Live, table: FeatureTable, numbers: np.ndarray, distances: np.ndarray) -> None:
        ids = _raw(table.customer_ids)

        def write(session: Session, rows: np.ndarray) -> None:
            membership.assign_part(
                session, self.shop.id, live.id, ids[rows], numbers[rows], distances[rows], self.as_of
            )

        self._in_parts(_by_id(table), write)
        self._follow_events(live)
        values = {"shop": self.shop.id, "clustering": live.id, "now": self.now}
        with for_shop(self.engine, self.shop.id) as session:
            session.execute(_DELETE_LEFT, values)
            session.execute(_COMPLETE, values)
        self._lap("members")

    def _follow_events(self, live: Live) -> None:
        """Assign once more those whom an event touched after the features of this run were read."""
        values = {"shop": self.shop.id, "as_of": self.as_of, "clustering": live.id}
        with for_shop(self.engine, self.shop.id) as session:
            targets = [(row.customer_id, row.as_of) for row in session.execute(_STRAGGLERS, values)]
        for start in range(0, len(targets), 1_000):
            with for_shop(self.engine, self.shop.id) as session:
                part = features.compute(session, self.shop.id, targets[start : start + 1_000])
                membership.update(session, self.shop.id, part, is_told=False)

    # -- what is told ---------------------------------------------------------------------------------------------

    def _inconclusive(
        self, occasion: Occasion, found: Inconclusive, previous: Live | None, table: FeatureTable
    ) -> dict[str, Any]:
        with for_shop(self.engine, self.shop.id) as session:
            clustering_id, version, quality = publish.record_inconclusive(
                session, occasion, found, list(FEATURES), previous
            )
        if previous is not None:
            self._reassign(previous, table)
        told = self._told("inconclusive", None, table)
        return told | {
            "version": version,
            "clustering_id": str(clustering_id),
            "reason": found.reason,
            "quality": quality,
        }

    def _told(self, state: str, live: Live | None, table: FeatureTable) -> dict[str, Any]:
        return {
            "state": state,
            "version": live and live.version,
            "clustering_id": live and str(live.id),
            "customers": len(table),
            "k": live and live.model.k,
            "clusters": [_plain(one) for one in live.clusters] if live else [],
            "ended": [],
            "reason": None,
            "quality": {},
            "seconds": self.seconds,
        }


def _raw(ids: Sequence[UUID]) -> np.ndarray:
    return (ids if isinstance(ids, wire.Uuids) else wire.Uuids.of(ids)).raw


def _instants(times: Sequence[datetime]) -> np.ndarray:
    return (times if isinstance(times, wire.Instants) else wire.Instants.of(times)).raw


def _by_id(table: FeatureTable) -> np.ndarray:
    """Rows in the order of customer ids: two writers that lock rows in one order cannot deadlock."""
    return wire.order_of(_raw(table.customer_ids))


def _take(table: FeatureTable, rows: np.ndarray) -> FeatureTable:
    return FeatureTable(
        wire.Uuids(_raw(table.customer_ids)[rows]),
        wire.Uuids(_raw(table.random_keys)[rows]),
        wire.Instants(_instants(table.as_of)[rows]),
        {name: column[rows] for name, column in table.columns.items()},
    )


def _plain(cluster: dict[str, Any]) -> dict[str, Any]:
    return {**cluster, "lineage_id": str(cluster["lineage_id"])}
