"""Who was assigned to what, and what each of them did afterwards: the rows every comparison is made of.

The population is by intention to treat: everyone a strategy drew a side for, messaged or not, both sides alike. A
customer's outcomes count from its assignment to `as_of`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.experiments.assignment import GLOBAL_HOLDOUT, global_salt
from operation_agent.kit.ids import uniform
from operation_agent.store.shops import Shop

METRICS = ("orders", "revenue", "profit", "spend")
COVARIATES = {"orders": "prior_orders", "revenue": "prior_revenue", "profit": "prior_revenue", "spend": "prior_revenue"}
"""What CUPED adjusts each metric by: known before the assignment, so it cannot depend on it."""


@dataclass(frozen=True, slots=True)
class Population:
    """One row per (strategy, customer), as columns.

    `strategies` and `customers` are numbers: of the strategy among `names`, and of the customer from 0 up.
    `share` is the probability of being held out that the row was drawn with. `metrics` holds orders (a count),
    revenue (net of refunds), profit (the ledger's sum) and spend (discounts given and message costs, positive);
    `covariates` what was known before. Money in minor units.
    """

    names: tuple[UUID | None, ...]
    strategies: NDArray[np.int64]
    customers: NDArray[np.int64]
    held_out: NDArray[np.bool_]
    share: NDArray[np.float64]
    metrics: dict[str, NDArray[np.float64]]
    covariates: dict[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.held_out)

    def where(self, keep: NDArray[np.bool_]) -> Population:
        return Population(
            self.names,
            self.strategies[keep],
            self.customers[keep],
            self.held_out[keep],
            self.share[keep],
            {name: values[keep] for name, values in self.metrics.items()},
            {name: values[keep] for name, values in self.covariates.items()},
        )

    def of(self, strategy: UUID | None) -> Population:
        """The rows of one strategy; none when it is not among the names."""
        number = self.names.index(strategy) if strategy in self.names else -1
        return self.where(self.strategies == number)

    def strata(self) -> Iterator[Population]:
        """Split by strategy and share: within each, the sides were drawn alike."""
        for strategy in np.unique(self.strategies):
            for share in np.unique(self.share[self.strategies == strategy]):
                yield self.where((self.strategies == strategy) & (self.share == share))


_EVERY_ASSIGNMENT = """
  SELECT a.strategy_id, a.customer_id, a.held_out, CASE WHEN a.held_out THEN a.propensity ELSE 1 - a.propensity END
         AS share, a.assigned_at, a.prior_revenue_minor, a.prior_orders
  FROM assignments a WHERE a.shop_id = :shop AND a.assigned_at <= :as_of"""

_FIRST_ASSIGNMENT = """
  SELECT DISTINCT ON (a.customer_id) CAST(NULL AS uuid) AS strategy_id, a.customer_id, false AS held_out, 0.0 AS share,
         a.assigned_at, a.prior_revenue_minor, a.prior_orders
  FROM assignments a WHERE a.shop_id = :shop AND a.assigned_at <= :as_of
  ORDER BY a.customer_id, a.assigned_at, a.prior_orders"""

# An order belongs to the window it was placed in, with what of it was given back by :as_of. A message may be sent at
# the very instant of its assignment; an order at that instant is what triggered it, and came before. One look into an
# index per row, on purpose: the plan stays right on tables that have just been filled.
_ROWS = """
WITH population AS ({population})
SELECT p.strategy_id, p.customer_id, p.held_out, p.share::float8,
       (SELECT c.random_key FROM customers c WHERE c.shop_id = :shop AND c.id = p.customer_id),
       (SELECT f.draw FROM forgotten f WHERE f.shop_id = :shop AND f.customer_id = p.customer_id),
       p.prior_orders::float8, p.prior_revenue_minor::float8, bought.orders::float8,
       COALESCE(bought.revenue, 0)::float8, COALESCE(earned.profit, 0)::float8, COALESCE(earned.spend, 0)::float8
FROM population p
CROSS JOIN LATERAL (
  SELECT count(*) FILTER (WHERE NOT COALESCE(r.is_cancelled, false)) AS orders,
         sum(CASE WHEN r.is_cancelled THEN 0
                  ELSE GREATEST(o.total_minor - COALESCE(r.amount_minor, 0), 0) END) AS revenue
  FROM orders o CROSS JOIN LATERAL (
    SELECT sum(amount_minor) FILTER (WHERE kind = 'refunded') AS amount_minor,
           bool_or(kind = 'cancelled') AS is_cancelled
    FROM order_changes
    WHERE shop_id = :shop AND source_order_id = o.source_order_id AND occurred_at <= :as_of) AS r
  WHERE o.shop_id = :shop AND o.customer_id = p.customer_id
    AND o.ordered_at > p.assigned_at AND o.ordered_at <= :as_of) AS bought
CROSS JOIN LATERAL (
  SELECT sum(amount_minor) AS profit,
         -sum(amount_minor) FILTER (WHERE kind IN ('discount', 'message_cost')) AS spend
  FROM ledger l
  WHERE l.shop_id = :shop AND l.customer_id = p.customer_id AND l.occurred_at <= :as_of
    AND l.occurred_at >= p.assigned_at AND (l.occurred_at > p.assigned_at OR l.kind = 'message_cost')) AS earned
ORDER BY p.strategy_id, p.customer_id
"""


def of_strategies(session: Session, shop: Shop, *, as_of: datetime) -> Population:
    """Every assignment up to `as_of` (shop time) with what followed it, without the shop-wide holdout.

    Whoever is left alone by everything differs from a strategy's treated in more than that strategy; the strategy's
    own draw was made of the others, with its own share.
    """
    rows, is_global, share = _load(session, shop, _EVERY_ASSIGNMENT, as_of)
    rows.share[:] = np.round((rows.share - share) / (1 - share), 9)
    return rows.where(~is_global)


def of_programme(session: Session, shop: Shop, *, as_of: datetime) -> Population:
    """Every customer that any strategy met, from the first meeting: the shop-wide holdout against all others."""
    rows, is_global, share = _load(session, shop, _FIRST_ASSIGNMENT, as_of)
    rows.held_out[:] = is_global
    rows.share[:] = share
    return rows


def _load(
    session: Session, shop: Shop, population: str, as_of: datetime
) -> tuple[Population, NDArray[np.bool_], float]:
    statement = text(_ROWS.format(population=population))
    rows = session.execute(statement, {"shop": shop.id, "as_of": as_of}).all()
    columns = list(zip(*rows, strict=True)) or [()] * 12
    numbers = [np.array(column, dtype=float) for column in columns[6:]]
    share = float(shop.settings.get("global_holdout", GLOBAL_HOLDOUT))
    names, strategies = _numbered(columns[0])
    _, customers = _numbered(columns[1])
    loaded = Population(
        names=names,
        strategies=strategies,
        customers=customers,
        held_out=np.array(columns[2], dtype=bool),
        share=np.array(columns[3], dtype=float),
        covariates={"prior_orders": numbers[0], "prior_revenue": numbers[1]},
        metrics=dict(zip(METRICS, numbers[2:], strict=True)),
    )
    kept = zip(columns[4], columns[5], strict=True)  # somebody who was forgotten left only where they stood
    draws = np.array(
        [uniform(shop.seed, *global_salt(str(key))) if draw is None else draw for key, draw in kept], dtype=float
    )
    return loaded, draws < share, share


def _numbered(values: Sequence[UUID | None]) -> tuple[tuple[UUID | None, ...], NDArray[np.int64]]:
    """The different values in the order of their first appearance, and each row's number among them."""
    numbers: dict[UUID | None, int] = {}
    codes = [numbers.setdefault(value, len(numbers)) for value in values]
    return tuple(numbers), np.array(codes, dtype=np.int64)


def strategies_of(session: Session, shop: Shop) -> dict[UUID, str]:
    """Every strategy that was ever started, and its key."""
    found = session.execute(
        text("SELECT id, key FROM strategies WHERE shop_id = :shop AND started_at IS NOT NULL ORDER BY key"),
        {"shop": shop.id},
    )
    return {row.id: row.key for row in found}
