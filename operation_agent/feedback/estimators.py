"""Fitting, strategy by strategy, whom its arms move: from those it treated and those it left alone.

A row is one assignment: the customer's features as of that moment, the arm (none for the held out), and whether an
order followed within the strategy's attribution window. What cannot be told yet is kept as inconclusive with its
reason; a fit that shows something replaces the strategy's live one, and decisions take it up from then on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.customers import features
from operation_agent.customers.definitions import FEATURES
from operation_agent.experiments import uplift
from operation_agent.experiments.comparison import Inconclusive
from operation_agent.kit.ids import new_id, uniform
from operation_agent.store.shops import Shop

from .population import strategies_of

MOST_ROWS = 50_000
"""The newest assignments of a strategy that a fit looks at: beyond that the models hardly move, and features cost."""

_ROWS = text("""
SELECT a.customer_id, a.assigned_at, CASE WHEN a.held_out THEN NULL ELSE d.arm END AS arm,
       EXISTS (SELECT 1 FROM orders o WHERE o.shop_id = a.shop_id AND o.customer_id = a.customer_id
               AND o.ordered_at > a.assigned_at AND o.ordered_at <= a.assigned_at + w.span
               AND (o.cancelled_at IS NULL OR o.cancelled_at > a.assigned_at + w.span)) AS ordered
FROM strategies s
CROSS JOIN LATERAL (SELECT COALESCE(s.definition -> 'attribution' ->> 'window', 'P7D')::interval AS span) AS w
JOIN assignments a ON a.shop_id = s.shop_id AND a.strategy_id = s.id
JOIN decisions d ON d.shop_id = a.shop_id AND d.id = a.decision_id
JOIN customers c ON c.shop_id = a.shop_id AND c.id = a.customer_id
WHERE s.shop_id = :shop AND s.id = :strategy AND a.assigned_at <= CAST(:as_of AS timestamptz) - w.span
ORDER BY a.assigned_at DESC, c.random_key LIMIT :most
""")


@dataclass(frozen=True, slots=True)
class Estimate:
    """One fit of one strategy. `state`: live, or inconclusive with the reason in `quality`."""

    strategy_id: UUID
    strategy: str
    version: int
    state: str
    quality: dict[str, Any]


def fit_all(session: Session, shop: Shop, *, as_of: datetime, fitted_at: datetime) -> list[Estimate]:
    """Fit every strategy that was ever started, as of `as_of` (shop time), and keep the results; `fitted_at` is system
    time. A fit that shows nothing leaves the live one as it is."""
    return [
        _fit(session, shop, strategy_id, key, as_of, fitted_at)
        for strategy_id, key in strategies_of(session, shop).items()
    ]


def _fit(session: Session, shop: Shop, strategy_id: UUID, key: str, as_of: datetime, fitted_at: datetime) -> Estimate:
    values = {"shop": shop.id, "strategy": strategy_id, "as_of": as_of, "most": MOST_ROWS}
    rows = session.execute(_ROWS, values).all()
    seed = int(uniform(shop.seed, "estimator", key) * 2**32)
    found: uplift.Fitted | Inconclusive = Inconclusive("too_few", "nobody was assigned long enough ago")
    if rows:
        table = features.compute(session, shop.id, [(row.customer_id, row.assigned_at) for row in rows])
        numbers = {name: table.columns[name] for name, one in FEATURES.items() if one.kind != "label"}
        arms = np.array([row.arm for row in rows], object)
        found = uplift.fit(numbers, arms, np.array([float(row.ordered) for row in rows]), seed=seed)
    return _store(session, shop, strategy_id, key, found, len(rows), fitted_at)


def _store(
    session: Session, shop: Shop, strategy_id: UUID, key: str, found: uplift.Fitted | Inconclusive, rows: int,
    fitted_at: datetime,
) -> Estimate:  # fmt: skip
    if isinstance(found, Inconclusive):
        state, model = "inconclusive", {}
        quality: dict[str, Any] = {"rows": rows, "reason": found.reason, "detail": found.detail}
    else:
        state, model = "live", found.model.to_json()
        quality = {"rows": rows, "qini": found.qini, "qini_5_percent": found.lower}
    version = session.execute(
        text("SELECT COALESCE(max(version), 0) + 1 FROM estimators WHERE shop_id = :shop AND strategy_id = :strategy"),
        {"shop": shop.id, "strategy": strategy_id},
    ).scalar_one()
    if state == "live":
        session.execute(
            text(
                "UPDATE estimators SET state = 'retired'"
                " WHERE shop_id = :shop AND strategy_id = :strategy AND state = 'live'"
            ),
            {"shop": shop.id, "strategy": strategy_id},
        )
    session.execute(
        text(
            "INSERT INTO estimators (shop_id, id, strategy_id, version, kind, fitted_at, model, quality, state)"
            " VALUES (:shop, :id, :strategy, :version, :kind, :at, CAST(:model AS jsonb), CAST(:quality AS jsonb),"
            " :state)"
        ),
        {
            "shop": shop.id, "id": new_id(), "strategy": strategy_id, "version": version, "kind": uplift.KIND,
            "at": fitted_at, "model": orjson.dumps(model).decode(), "quality": orjson.dumps(quality).decode(),
            "state": state,
        },
    )  # fmt: skip
    return Estimate(strategy_id, key, version, state, quality)
