"""Who was assigned to what, and what each of them did afterwards: the rows every comparison is made of.

The population is by intention to treat: everyone a strategy drew a side for, messaged or not, both sides alike. A
customer's outcomes count from its assignment to `as_of`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.store.shops import Shop

METRICS = ("orders", "revenue", "profit", "spend")
COVARIATES = {"orders": "prior_orders", "revenue": "prior_revenue", "profit": "prior_revenue", "spend": "prior_revenue"}
"""What CUPED adjusts each metric by: known before the assignment, so it cannot depend on it."""


@dataclass(frozen=True, slots=True)
class Population:
    """One row per (strategy, customer), as columns.

    `share` is the probability of being held out that the row was drawn with. `metrics` holds orders (a count),
    revenue (net of refunds), profit (the ledger's sum) and spend (discounts given and message costs, positive);
    `covariates` what was known before. Money in minor units.
    """

    strategies: NDArray[np.object_]
    customers: NDArray[np.object_]
    held_out: NDArray[np.bool_]
    share: NDArray[np.float64]
    assigned_at: NDArray[np.object_]
    metrics: dict[str, NDArray[np.float64]]
    covariates: dict[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.held_out)

    def where(self, keep: NDArray[np.bool_]) -> Population:
        return Population(
            self.strategies[keep],
            self.customers[keep],
            self.held_out[keep],
            self.share[keep],
            self.assigned_at[keep],
            {name: values[keep] for name, values in self.metrics.items()},
            {name: values[keep] for name, values in self.covariates.items()},
        )

    def strata(self) -> Iterator[Population]:
        """Split by strategy and share: within each, the sides were drawn alike."""
        keys = {(strategy, share) for strategy, share in zip(self.strategies, self.share, strict=True)}
        for strategy, share in sorted(keys, key=str):
            yield self.where((self.strategies == strategy) & (self.share == share))


# An order belongs to the window it was placed in, with what of it was given back by :as_of. A message may be sent at
# the very instant of its assignment; an order at that instant is what triggered it, and came before.
_ROWS = text("""
WITH population AS (
  SELECT strategy_id, customer_id, held_out, CASE WHEN held_out THEN propensity ELSE 1 - propensity END AS share,
         assigned_at, prior_revenue_minor, prior_orders
  FROM assignments WHERE shop_id = :shop AND assigned_at <= :as_of
), returned AS (
  SELECT source_order_id, sum(amount_minor) AS amount_minor, bool_or(amount_minor IS NULL) AS is_cancelled
  FROM order_reversals WHERE shop_id = :shop AND occurred_at <= :as_of GROUP BY source_order_id
), bought AS (
  SELECT p.strategy_id, p.customer_id, count(*) FILTER (WHERE NOT COALESCE(r.is_cancelled, false)) AS orders,
         sum(CASE WHEN r.is_cancelled THEN 0
                  ELSE GREATEST(o.total_minor - COALESCE(r.amount_minor, 0), 0) END) AS revenue
  FROM population p
  JOIN orders o ON o.shop_id = :shop AND o.customer_id = p.customer_id
               AND o.ordered_at > p.assigned_at AND o.ordered_at <= :as_of
  LEFT JOIN returned r ON r.source_order_id = o.source_order_id
  GROUP BY p.strategy_id, p.customer_id
), earned AS (
  SELECT p.strategy_id, p.customer_id, sum(l.amount_minor) AS profit,
         -sum(l.amount_minor) FILTER (WHERE l.kind IN ('discount', 'message_cost')) AS spend
  FROM population p
  JOIN ledger l ON l.shop_id = :shop AND l.customer_id = p.customer_id AND l.occurred_at <= :as_of
    AND (l.occurred_at > p.assigned_at OR (l.kind = 'message_cost' AND l.occurred_at = p.assigned_at))
  GROUP BY p.strategy_id, p.customer_id
)
SELECT p.strategy_id, p.customer_id, p.held_out, p.share::float8, p.assigned_at, p.prior_orders::float8,
       p.prior_revenue_minor::float8, COALESCE(b.orders, 0)::float8, COALESCE(b.revenue, 0)::float8,
       COALESCE(e.profit, 0)::float8, COALESCE(e.spend, 0)::float8
FROM population p
LEFT JOIN bought b USING (strategy_id, customer_id)
LEFT JOIN earned e USING (strategy_id, customer_id)
ORDER BY p.strategy_id, p.customer_id
""")


def load(session: Session, shop: Shop, *, as_of: datetime) -> Population:
    """Every assignment up to `as_of` (shop time) with what followed it."""
    rows = session.execute(_ROWS, {"shop": shop.id, "as_of": as_of}).all()
    columns = list(zip(*rows, strict=True)) or [()] * 11
    numbers = [np.array(column, dtype=float) for column in columns[5:]]
    return Population(
        strategies=_objects(columns[0]),
        customers=_objects(columns[1]),
        held_out=np.array(columns[2], dtype=bool),
        share=np.round(np.array(columns[3], dtype=float), 9),
        assigned_at=_objects(columns[4]),
        covariates={"prior_orders": numbers[0], "prior_revenue": numbers[1]},
        metrics=dict(zip(METRICS, numbers[2:], strict=True)),
    )


def _objects(values: tuple[object, ...]) -> NDArray[np.object_]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def strategies_of(session: Session, shop: Shop) -> dict[UUID, str]:
    """Every strategy that was ever started, and its key."""
    found = session.execute(
        text("SELECT id, key FROM strategies WHERE shop_id = :shop AND started_at IS NOT NULL ORDER BY key"),
        {"shop": shop.id},
    )
    return {row.id: row.key for row in found}
