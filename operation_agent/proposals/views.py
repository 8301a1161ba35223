"""What the generator needs to know of a shop's clusters, read from its tables."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.kit.money import minor_digits
from operation_agent.store.shops import Shop
from operation_agent.strategies.generator import ClusterView

ANSWERS = timedelta(days=90)
"""How far back opens and clicks tell at what hour a cluster answers."""
TYPICAL_ORDER = 50
"""Units of currency, where nobody has ordered and the shop's settings say no `typical_order_minor`."""

_CLUSTERS = text("""
SELECT c.lineage_id, c.label_key, c.labels, count(*) AS size,
       count(*) FILTER (WHERE p.email IS NOT NULL AND s.state = 'subscribed'
         AND NOT EXISTS (SELECT 1 FROM suppressions x
                         WHERE x.shop_id = :shop AND x.channel = 'email' AND x.address = p.email)) AS reachable,
       count(*) FILTER (WHERE f.price_sensitivity = 'low') AS low,
       count(*) FILTER (WHERE f.price_sensitivity = 'medium') AS medium,
       count(*) FILTER (WHERE f.price_sensitivity = 'high') AS high,
       avg(f.average_order_minor)::float8 AS order_minor
FROM clusterings g
JOIN clusters c ON c.shop_id = g.shop_id AND c.clustering_id = g.id
JOIN cluster_members m ON m.shop_id = g.shop_id AND m.lineage_id = c.lineage_id
JOIN customers p ON p.shop_id = g.shop_id AND p.id = m.customer_id AND p.merged_into IS NULL
LEFT JOIN customer_features f ON f.shop_id = g.shop_id AND f.customer_id = m.customer_id
LEFT JOIN consents s ON s.shop_id = g.shop_id AND s.customer_id = m.customer_id AND s.channel = 'email'
                    AND s.topic = 'marketing'
WHERE g.shop_id = :shop AND g.id = :clustering
GROUP BY c.number, c.lineage_id, c.label_key, c.labels ORDER BY c.number
""")

_ANSWERS = text("""
SELECT m.lineage_id, extract(hour FROM o.occurred_at AT TIME ZONE :zone)::int AS hour, count(*) AS answers
FROM outcomes o JOIN cluster_members m ON m.shop_id = o.shop_id AND m.customer_id = o.customer_id
WHERE o.shop_id = :shop AND o.kind IN ('opened', 'clicked') AND o.occurred_at > :since AND o.occurred_at <= :as_of
GROUP BY 1, 2
""")


def clusters(session: Session, shop: Shop, clustering_id: UUID, *, as_of: datetime) -> list[ClusterView]:
    """Every cluster of a clustering with who is in it now. `as_of` is shop time."""
    values = {"shop": shop.id, "zone": shop.time_zone, "since": as_of - ANSWERS, "as_of": as_of}
    answers: dict[UUID, list[int]] = {}
    for row in session.execute(_ANSWERS, values):
        answers.setdefault(row.lineage_id, [0] * 24)[row.hour] = row.answers
    typical = float(shop.settings.get("typical_order_minor") or TYPICAL_ORDER * 10 ** minor_digits(shop.currency))
    return [
        ClusterView(
            lineage=row.lineage_id,
            label_key=row.label_key,
            labels={language: row.labels[language] for language in ("en", "zh")},
            size=row.size,
            reachable=row.reachable,
            sensitivity={"low": row.low, "medium": row.medium, "high": row.high},
            answers=answers.get(row.lineage_id, [0] * 24),
            order_minor=row.order_minor or typical,
        )
        for row in session.execute(_CLUSTERS, {"shop": shop.id, "clustering": clustering_id})
    ]
