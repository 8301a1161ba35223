"""What everybody did, in memory, to tell quickly whom a rule cannot take at some past moment.

It knows the features that are counted from `timeline` and `orders` alone. Nobody is decided about by it: whoever it
lets through has all features computed by the one text that computes them (`customers.features_sql`), as of the same
moment. Of customers of whom an order was cancelled it says nothing, so they are always let through. A test holds its
answers to those of `customers.features`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from operation_agent.customers import wire
from operation_agent.customers.wire import Instants, Uuids
from operation_agent.store.shops import Shop

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

HOUR = 3_600_000_000
DAY_MICROSECONDS = 86_400_000_000.0
WEEK, MONTH = 168 * HOUR, 720 * HOUR

_COUNTS = {
    "customer.views_7d": ("product.viewed", WEEK),
    "customer.views_30d": ("product.viewed", MONTH),
    "customer.searches_7d": ("product.searched", WEEK),
    "customer.carts_7d": ("cart.added", WEEK),
    "customer.checkouts_7d": ("checkout.started", WEEK),
    "customer.opens_30d": ("email.opened", MONTH),
    "customer.clicks_30d": ("email.clicked", MONTH),
}
_SINCE = {
    "customer.days_since_view": "product.viewed",
    "customer.days_since_search": "product.searched",
    "customer.days_since_cart": "cart.added",
}
_OF_ORDERS = (
    "customer.orders", "customer.average_order_minor", "customer.days_since_order", "customer.days_since_first_order",
    "customer.interpurchase_days", "customer.discount_share", "customer.quantity",
)  # fmt: skip
_OPEN_CART = "customer.open_cart"
TOLD = frozenset({*_COUNTS, *_SINCE, *_OF_ORDERS, _OPEN_CART})
"""The columns it knows."""

_PEOPLE = """
SELECT c.id, c.random_key, c.first_seen_at, COALESCE(array_position(%(zones)s::text[], c.time_zone), 0)::int2
FROM customers c WHERE c.shop_id = %(shop)s AND c.merged_into IS NULL ORDER BY c.id
"""
_PERSON = wire.row_type({"id": "uuid", "random_key": "uuid", "first_seen_at": "timestamptz", "zone": "int2"})

_NUMBERED = """
WITH people AS MATERIALIZED (
  SELECT c.id, (row_number() OVER (ORDER BY c.id) - 1)::int4 AS n FROM customers c
  WHERE c.shop_id = %(shop)s AND c.merged_into IS NULL
)
"""
_DID = f"""{_NUMBERED}
SELECT p.n, t.occurred_at, array_position(%(types)s::text[], t.type)::int2 FROM timeline t
JOIN people p ON p.id = t.customer_id
WHERE t.shop_id = %(shop)s AND t.occurred_at <= %(until)s AND t.type = ANY(%(types)s)
"""  # noqa: S608
_DONE = wire.row_type({"n": "int4", "at": "timestamptz", "type": "int2"})

_ORDERED = f"""{_NUMBERED}
SELECT p.n, o.ordered_at, o.total_minor::float8, o.discount_minor::float8, o.quantity::float8,
       o.cancelled_at IS NOT NULL
FROM orders o JOIN people p ON p.id = o.customer_id
WHERE o.shop_id = %(shop)s AND o.ordered_at <= %(until)s
"""  # noqa: S608
_ORDER = wire.row_type({"n": "int4", "at": "timestamptz", "total": "float8", "discount": "float8",
                        "quantity": "float8", "cancelled": "bool"})  # fmt: skip


class Happenings:
    """Moments of one kind, grouped by customer number and in order of time."""

    def __init__(self, numbers: Ints, times: Ints, customers: int):
        order = np.lexsort((times, numbers))
        self.numbers, self.times = numbers[order], times[order]
        self.order = order
        self._known = np.unique(times)
        self._wide = len(self._known) + 1
        self._keys = self.numbers * self._wide + np.searchsorted(self._known, self.times) + 1
        self.starts = np.searchsorted(self.numbers, np.arange(customers + 1))

    def until(self, numbers: Ints, at: Ints) -> Ints:
        """The place after the last one of each customer up to each moment, that moment included."""
        rank = np.searchsorted(self._known, at, side="right")
        return np.searchsorted(self._keys, numbers * self._wide + rank, side="right")

    def count(self, numbers: Ints, at: Ints, span: int) -> Floats:
        """Within at - span < t <= at."""
        return (self.until(numbers, at) - self.until(numbers, at - span)).astype(np.float64)

    def last(self, numbers: Ints, at: Ints) -> tuple[NDArray[np.bool_], Ints]:
        """Whether there is one by then, and the latest (0 where there is none)."""
        end = self.until(numbers, at)
        there = end > self.starts[numbers]
        return there, np.where(there, self.times[np.maximum(end - 1, 0)], 0) if len(self.times) else np.zeros_like(at)


class Index:
    """Of one shop up to a moment. `ids`, `keys`, `first_seen` and `zones` by customer number; `zones` counts from 1
    into the names given, 0: none of them."""

    def __init__(self, session: Session, shop: Shop, names: frozenset[str], until: datetime, zones: Sequence[str] = ()):
        values: dict[str, Any] = {"shop": shop.id, "until": until, "zones": list(zones)}
        people = wire.copy_out(session, _PEOPLE, values, _PERSON, bulk=True)
        self.ids, self.keys = Uuids(people["id"]), Uuids(people["random_key"])
        self.first_seen = Instants.of_wire(people["first_seen_at"]).raw
        self.zones = people["zone"].astype(np.int64)
        self.names = names & TOLD
        self._done = self._timeline(session, values)
        self._ordered: _Orders | None = None
        if self.names & {*_OF_ORDERS, _OPEN_CART}:
            rows = wire.copy_out(session, _ORDERED, values, _ORDER, bulk=True)
            self._ordered = _Orders(rows, len(self.ids))

    def _timeline(self, session: Session, values: dict[str, Any]) -> dict[str, Happenings]:
        types = {_COUNTS[name][0] for name in self.names if name in _COUNTS}
        types |= {_SINCE[name] for name in self.names if name in _SINCE}
        types |= {"cart.added"} if _OPEN_CART in self.names else set()
        if not types:
            return {}
        listed = sorted(types)
        rows = wire.copy_out(session, _DID, {**values, "types": listed}, _DONE, bulk=True)
        found = {}
        for code, type_ in enumerate(listed, start=1):
            mine = rows[rows["type"] == code]
            times = Instants.of_wire(mine["at"]).raw
            found[type_] = Happenings(mine["n"].astype(np.int64), times, len(self.ids))
        return found

    def __len__(self) -> int:
        return len(self.ids)

    def numbers_of(self, raw: np.ndarray) -> Ints:
        """The number of each customer (ids as V16); -1 for one that is not there."""
        is_there, places = wire.places(raw, self.ids)
        found = np.full(len(raw), -1, np.int64)
        found[is_there] = places
        return found

    def columns(self, numbers: Ints, at: Ints) -> tuple[dict[str, Floats], NDArray[np.bool_]]:
        """Every column asked for, of customers at moments (microseconds since 1970); and of whom it cannot say."""
        found: dict[str, Floats] = {}
        for name in self.names:
            if name in _COUNTS:
                type_, span = _COUNTS[name]
                found[name] = self._done[type_].count(numbers, at, span)
            elif name in _SINCE:
                there, last = self._done[_SINCE[name]].last(numbers, at)
                found[name] = np.where(there, (at - last) / DAY_MICROSECONDS, np.nan)
        if self._ordered is None:
            return found, np.zeros(len(numbers), np.bool_)
        found |= {name: value for name, value in self._ordered.columns(numbers, at).items() if name in self.names}
        if _OPEN_CART in self.names:
            carts = self._done["cart.added"]
            _, cart_at = carts.last(numbers, at)
            has_ordered, ordered_at = self._ordered.last(numbers, at)
            is_open = (carts.count(numbers, at, WEEK) > 0) & (~has_ordered | (cart_at > ordered_at))
            found[_OPEN_CART] = is_open.astype(np.float64)
        return found, self._ordered.is_changed[numbers]


class _Orders:
    def __init__(self, rows: np.ndarray, customers: int):
        numbers = rows["n"].astype(np.int64)
        self.is_changed = np.zeros(customers + 1, np.bool_)  # the last stands for nobody
        self.is_changed[numbers[rows["cancelled"].astype(np.bool_)]] = True
        self._placed = Happenings(numbers, Instants.of_wire(rows["at"]).raw, customers)
        order = self._placed.order
        self._sums = {
            name: np.r_[0.0, np.cumsum(rows[name][order].astype(np.float64))]
            for name in ("total", "discount", "quantity")
        }

    def last(self, numbers: Ints, at: Ints) -> tuple[NDArray[np.bool_], Ints]:
        return self._placed.last(numbers, at)

    def columns(self, numbers: Ints, at: Ints) -> dict[str, Floats]:
        end, start = self._placed.until(numbers, at), self._placed.starts[numbers]
        orders = (end - start).astype(np.float64)
        paid, discount, quantity = (
            self._sums[name][end] - self._sums[name][start] for name in ("total", "discount", "quantity")
        )
        there, last = self._placed.last(numbers, at)
        times = self._placed.times
        first = np.where(there, times[np.minimum(start, len(times) - 1)], 0) if len(times) else last
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "customer.orders": orders,
                "customer.average_order_minor": np.where(there, paid / orders, np.nan),
                "customer.days_since_order": np.where(there, (at - last) / DAY_MICROSECONDS, np.nan),
                "customer.days_since_first_order": np.where(there, (at - first) / DAY_MICROSECONDS, np.nan),
                "customer.interpurchase_days": np.where(
                    orders >= 2, (last - first) / DAY_MICROSECONDS / (orders - 1), np.nan
                ),
                "customer.discount_share": np.where(
                    there & (paid + discount > 0), discount / (paid + discount), np.nan
                ),
                "customer.quantity": quantity,
            }
