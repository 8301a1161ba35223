"""A backtest of 90 days over 100,000 customers: a draft held against what they did, the live version beside it.

The shop is synthetic, on a durable PostgreSQL with row-level security: about two orders a customer before the span and
ten shop events within it (views, carts, checkouts, orders), with consents and suppressions. The draft has a rule set
off by carts, with a message that waits for an order, and a rule that looks at everybody every morning; holdout, caps,
quiet hours, coupon limits. The live version is the same with other caps and another discount. Triggers are looked at in
the order of time with the features of their own moments; everything a decision leads to is followed. Aim: < 120 s.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from bench.campaign import REACH, TEXTS
from bench.clustering import _EXPONENTIAL, FILL, peak_memory
from embedded.postgres import EmbeddedPostgres
from migrations.run import upgrade
from operation_agent.kit.clock import SYSTEM, monotonic
from operation_agent.rehearsal import backtest, impact
from operation_agent.store.engine import connect
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, create_shop, load_shop
from operation_agent.strategies.vocabulary import vocabulary
from rules import strategy as definitions
from rules.strategy import Strategy

AIM_SECONDS = 120.0

# Within the span: half of the customers do something, in sessions of views of which some end in a cart, a checkout, an
# order. Ten events a customer on the average over all.
SPAN = (
    """CREATE TEMPORARY TABLE visits AS
    SELECT p.id, %(at)s - random() * %(days)s * interval '1 day' AS at, random() AS depth
    FROM (SELECT id, CASE WHEN random() < 0.5 THEN 1 + floor(random_exponential(6)) ELSE 0 END::int AS visits
          FROM people) AS p, generate_series(1, p.visits) n""",
    """CREATE TEMPORARY TABLE steps AS
    SELECT v.id, v.at + s.after AS at, s.type, gen_random_uuid() AS event_id, 'p' || floor(random() * 40) AS product
    FROM visits v CROSS JOIN LATERAL (VALUES
      (interval '0 minutes', 'product.viewed', 0.0), (interval '3 minutes', 'product.viewed', 0.0),
      (interval '6 minutes', 'cart.added', 0.35), (interval '8 minutes', 'checkout.started', 0.7),
      (interval '12 minutes', 'order.paid', 0.85)) AS s (after, type, least_depth)
    WHERE v.depth >= s.least_depth AND v.at + s.after <= %(at)s""",
    """INSERT INTO timeline (shop_id, customer_id, occurred_at, event_id, type, product_id, amount_minor)
    SELECT %(shop)s, id, at, event_id, type, CASE WHEN type IN ('product.viewed', 'cart.added') THEN product END,
           CASE WHEN type = 'order.paid' THEN 3000 + floor(random() * 6000) END FROM steps ORDER BY id, at""",
    """INSERT INTO orders (shop_id, id, source_order_id, customer_id, ordered_at, currency, total_minor, discount_minor,
                           quantity, updated_at, event_id)
    SELECT %(shop)s, gen_random_uuid(), 'span-' || event_id, id, at, 'USD', 3000 + floor(random() * 6000), 0, 1, at,
           event_id FROM steps WHERE type = 'order.paid'""",
    """INSERT INTO events (shop_id, id, source, source_id, type, occurred_at, received_at, identity, properties,
                           context)
    SELECT %(shop)s, event_id, 'bench', event_id::text, type, at, at, '{}', jsonb_build_object('product_id', product),
           '{}' FROM steps""",
)

MAIL = {"action": "email", **TEXTS}


def definition(*, percent: float, emails: int) -> Strategy:
    """As it would be written in a file."""
    carts = {
        "key": "carts", "priority": 2, "exit_on": ["order.refunded"],
        "when": {"event": ["cart.added"], "frequency": "every_time", "cooldown": "P3D"},
        "if": {"all": [
            {"field": "customer.carts_7d", "op": "gte", "value": 2},
            {"field": "customer.price_sensitivity", "op": "not_equals", "value": "low"},
        ]},
        "then": {"arms": [
            {"key": "reminder", "prior": {"increment": 0.02, "redemption": 0}, "steps": [
                {"wait": {"event": ["order.paid"], "within": "PT4H"}, "then": [{"exit": True}], "else": [MAIL]}]},
            {"key": "coupon", "prior": {"increment": 0.04, "redemption": 0.1}, "steps": [
                {"wait": {"event": ["order.paid"], "within": "PT4H"}, "then": [{"exit": True}],
                 "else": [{"action": "coupon", "percent": percent}, MAIL]}]},
        ]},
    }  # fmt: skip
    lapsing = {
        "key": "lapsing", "priority": 1, "exit_on": ["order.paid"],
        "when": {"schedule": "0 9 * * *", "frequency": "every_time", "cooldown": "P30D"},
        "if": {"all": [
            {"field": "customer.orders", "op": "gte", "value": 1},
            {"field": "customer.days_since_order", "op": "between", "value": [60, 75]},
            {"any": [{"field": "customer.views_30d", "op": "gte", "value": 1},
                     {"field": "customer.average_order_minor", "op": "gte", "value": 3000}]},
        ]},
        "then": {"arms": [
            {"key": "mail", "steps": [MAIL], "prior": {"increment": 0.01, "redemption": 0}},
            {"key": "coupon", "prior": {"increment": 0.03, "redemption": 0.1},
             "steps": [{"action": "coupon", "percent": percent}, MAIL, {"delay": "P3D"}, {**MAIL, "key": "again"}]},
        ]},
    }  # fmt: skip
    made = {
        "key": "tried", "name": {"en": "Tried", "zh": "试用"}, "goal": "repurchase",
        "why": {"en": "To measure.", "zh": "用于测量。"}, "holdout": 0.1,
        "caps": [{"channel": "email", "count": emails, "window": "P14D"}],
        "quiet_hours": {"start": "22:00", "end": "08:00", "otherwise": "delay"},
        "coupons": {"count": 2, "window": "P60D"}, "rules": [carts, lapsing],
    }  # fmt: skip
    return definitions.parse(made, vocabulary())


@contextmanager
def prepared(customers: int, days: int) -> Iterator[tuple[Engine, Shop, dict[str, int], datetime]]:
    """A private, durable PostgreSQL with the shop in it; and the moment at which the span ends."""
    folder = Path(tempfile.mkdtemp(prefix="opagent-bench-"))
    postgres = EmbeddedPostgres(folder, durable=True)
    try:
        postgres.start()
        upgrade(postgres.url)
        engine = connect(postgres.url)
        shop = create_shop(engine, slug="bench", name="Bench", currency="USD", seed="bench")
        at = SYSTEM.now()
        rows = fill(postgres.superuser_url("opagent"), shop.id, customers, days, at)
        yield engine, shop, rows, at
        engine.dispose()
    finally:
        postgres.destroy()
        shutil.rmtree(folder, ignore_errors=True)


def fill(url: str, shop_id: UUID, customers: int, days: int, at: datetime) -> dict[str, int]:
    """A synthetic shop; returns the number of rows by table. `url` logs in as superuser."""
    values = {"shop": shop_id, "customers": customers, "at": at, "days": days}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_EXPONENTIAL)
        for month in range(days // 28 + 3):
            connection.execute(
                "SELECT ensure_partition('events', (%(at)s - %(month)s * interval '28 days')::date)",
                {"at": at, "month": month},
            )
        for statement in (*FILL, *SPAN, *REACH):
            written = statement.replace("random_exponential(", "pg_temp.random_exponential(")
            connection.execute(written, values if "%(" in statement else None)
        connection.execute("VACUUM ANALYZE customers, orders, timeline, events")
        counted = connection.execute(
            "SELECT (SELECT count(*) FROM customers), (SELECT count(*) FROM orders), (SELECT count(*) FROM timeline),"
            " (SELECT count(*) FROM events)"
        ).fetchall()
    return dict(zip(("customers", "orders", "timeline", "events"), counted[0], strict=True))


def measure(customers: int, days: int) -> dict[str, Any]:
    draft, live = definition(percent=15, emails=2), definition(percent=10, emails=3)
    with prepared(customers, days) as (engine, shop, rows, at):
        base = peak_memory()
        with for_shop(engine, shop.id) as session:
            start = monotonic()
            told = backtest.run(session, load_shop(session, shop.id), draft, days=days, until=at, live=live)
            seconds = monotonic() - start
        memory = peak_memory()
        with for_shop(engine, shop.id) as session:
            start = monotonic()
            found = impact.measure(session, load_shop(session, shop.id), draft, at=at)
            seconds_impact = monotonic() - start
    assert told.against is not None and told.diff is not None
    return {
        "customers": customers, "days": days, "rows": rows, "cpus": os.cpu_count(), "seconds": seconds,
        "looked_at": told.looked_at, "draft": told.draft["total"], "live": told.against["total"], "diff": told.diff,
        "peak_bytes": memory, "peak_bytes_before": base, "aim_seconds": AIM_SECONDS,
        "impact_seconds": seconds_impact, "impact": [one.to_dict() for one in found.rules],
    }  # fmt: skip


def show(result: dict[str, Any], console: Console) -> None:
    rows = ", ".join(f"{count:,} {name}" for name, count in result["rows"].items())
    table = Table(title=f"Backtest of {result['days']} days: {rows}; {result['cpus']} CPUs")
    for column in ("", "draft", "live"):
        table.add_column(column, justify="left" if not column else "right")
    for name in ("decisions", "customers", "spend_minor", "moved", "ended", "may_skip", "under_way"):
        table.add_row(name, f"{result['draft'][name]:,}", f"{result['live'][name]:,}")
    for part in ("verdicts", "sends"):
        for name in sorted({*result["draft"][part], *result["live"][part]}):
            table.add_row(name, *(f"{result[one][part].get(name, 0):,}" for one in ("draft", "live")))
    console.print(table)
    print(f"{result['looked_at']:,} triggers looked at, {result['seconds']:.1f} s (aim < {result['aim_seconds']:g}),"
          f" peak memory of this process {result['peak_bytes'] / 1e6:.0f} MB")  # fmt: skip
    print(f"impact of publishing the draft: {result['impact_seconds']:.1f} s")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.backtest", description=__doc__)
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    result = measure(options.customers, options.days)
    if options.json:
        print(json.dumps(result))
    else:
        show(result, Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
