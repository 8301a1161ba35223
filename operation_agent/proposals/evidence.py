"""What the templates' strategies did in this shop, by the cluster a customer was in when it was assigned.

By intention to treat, each customer for the strategy's attribution window after its assignment, and only once that
window is over. The shop-wide holdout is left out: it is left alone by everything, so it differs in more than the one
strategy.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.experiments.assignment import GLOBAL_HOLDOUT, global_salt
from operation_agent.kit.ids import uniform
from operation_agent.store.shops import Shop
from operation_agent.strategies.library import library
from operation_agent.strategies.predictor import Measured

Evidence = dict[tuple[str, str], Measured]
"""By (template, cluster label); the label is '' where there was no clustering yet."""

_ASSIGNED = """
WITH assigned AS (
  SELECT s.key, COALESCE(d.receipt ->> 'cluster', '') AS label, a.held_out, a.customer_id,
         EXISTS (SELECT 1 FROM orders o WHERE o.shop_id = a.shop_id AND o.customer_id = a.customer_id
                 AND o.ordered_at > a.assigned_at AND o.ordered_at <= a.assigned_at + w.span
                 AND (o.cancelled_at IS NULL OR o.cancelled_at > a.assigned_at + w.span)) AS ordered
  FROM strategies s
  CROSS JOIN LATERAL (SELECT COALESCE(s.definition -> 'attribution' ->> 'window', 'P7D')::interval AS span) AS w
  JOIN assignments a ON a.shop_id = s.shop_id AND a.strategy_id = s.id
  JOIN decisions d ON d.shop_id = a.shop_id AND d.id = a.decision_id
  WHERE s.shop_id = :shop AND a.assigned_at <= CAST(:as_of AS timestamptz) - w.span
)
"""
_TREATED = text(
    _ASSIGNED + "SELECT key, label, count(*) AS customers, count(*) FILTER (WHERE ordered) AS orders FROM assigned"  # noqa: S608
    " WHERE NOT held_out GROUP BY key, label"
)
_HELD_OUT = text(
    _ASSIGNED + "SELECT r.key, r.label, r.ordered, c.random_key, f.draw FROM assigned r"  # noqa: S608
    " LEFT JOIN customers c ON c.shop_id = :shop AND c.id = r.customer_id"
    " LEFT JOIN forgotten f ON f.shop_id = :shop AND f.customer_id = r.customer_id WHERE r.held_out"
)
_PROPOSED = text("SELECT DISTINCT key, template FROM proposals WHERE shop_id = :shop")


def measured(session: Session, shop: Shop, *, as_of: datetime) -> Evidence:
    """Both sides of every template's strategies up to `as_of` (shop time)."""
    values = {"shop": shop.id, "as_of": as_of}
    templates = {one.key: name for name, one in library().items()}
    templates |= {row.key: row.template for row in session.execute(_PROPOSED, {"shop": shop.id})}
    found: Evidence = {}
    for row in session.execute(_TREATED, values):
        _add(found, templates.get(row.key), row.label, Measured(row.customers, row.orders, 0, 0))
    share = float(shop.settings.get("global_holdout", GLOBAL_HOLDOUT))
    for row in session.execute(_HELD_OUT, values):
        draw = uniform(shop.seed, *global_salt(str(row.random_key))) if row.draw is None else row.draw
        if draw >= share:
            _add(found, templates.get(row.key), row.label, Measured(0, 0, 1, int(row.ordered)))
    return found


def elsewhere(evidence: Evidence, template: str, label: str) -> Iterable[Measured]:
    """What the template did in every other cluster."""
    return [one for (name, other), one in evidence.items() if name == template and other != label]


def _add(found: Evidence, template: str | None, label: str, one: Measured) -> None:
    if template is not None:
        key = (template, label)
        found[key] = found[key] + one if key in found else one
