"""What the stored events of UCI Online Retail add up to, so that an import can be compared with what is published."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from .online_retail_events import NAME
from .order_rows import SOURCE


@dataclass(frozen=True, slots=True)
class Totals:
    """Of everything a shop has stored of this data. Values are pounds, exactly, as decimal text; `value` is the sum of
    quantity × price over every line: sales less refunds plus adjustments."""

    invoices: int
    orders: int
    cancellations: int
    customers: int
    lines: int
    cancellation_lines: int
    cancellation_lines_matched: int
    adjustment_lines: int
    guest_lines: int
    sold: str
    refunded: str
    adjusted: str
    value: str


_TOTALS = text("""
WITH lines AS (
  SELECT e.type, e.properties->>'invoice' AS invoice, e.properties->>'order_id' AS order_id,
         e.identity->>'external' AS customer,
         CAST(l->>'quantity' AS bigint) * CAST(l->>'unit_minor' AS numeric) AS minor
  FROM events e CROSS JOIN LATERAL jsonb_array_elements(e.properties->'products') AS l
  WHERE e.shop_id = :shop AND e.source = :source AND e.source_id LIKE :mine
)
SELECT count(DISTINCT invoice) AS invoices, count(DISTINCT invoice) FILTER (WHERE type = 'order.paid') AS orders,
  count(DISTINCT invoice) FILTER (WHERE type = 'order.refunded') AS cancellations,
  count(DISTINCT customer) AS customers, count(*) AS lines,
  count(*) FILTER (WHERE type = 'order.refunded') AS cancellation_lines,
  count(*) FILTER (WHERE type = 'order.refunded' AND order_id <> invoice) AS cancellation_lines_matched,
  count(*) FILTER (WHERE type = 'custom') AS adjustment_lines,
  count(*) FILTER (WHERE customer IS NULL) AS guest_lines,
  COALESCE(sum(minor) FILTER (WHERE type = 'order.paid'), 0) AS sold,
  COALESCE(sum(minor) FILTER (WHERE type = 'order.refunded'), 0) AS refunded,
  COALESCE(sum(minor) FILTER (WHERE type = 'custom'), 0) AS adjusted
FROM lines
""")


def totals(session: Session, shop_id: UUID) -> Totals:
    """What the events of this data add up to, whichever imports brought them."""
    row = session.execute(_TOTALS, {"shop": shop_id, "source": SOURCE, "mine": f"{NAME}:%"}).one()
    counts = {name: value for name, value in row._mapping.items() if name not in ("sold", "refunded", "adjusted")}
    return Totals(
        **counts,
        sold=_pounds(row.sold),
        refunded=_pounds(row.refunded),
        adjusted=_pounds(row.adjusted),
        value=_pounds(row.sold - row.refunded + row.adjusted),
    )


def _pounds(minor: Decimal) -> str:
    return format((minor / 100).normalize(), "f")
