"""One campaign over a million customers: 50 live rules of ten strategies, scored, guarded, decided, committed.

The whole job as the workers run it, on a durable PostgreSQL with row-level security: the campaign is made by the
calendar, prepared, cut into chunks; two worker processes compute each chunk's features and clusters, hold every rule
against it, ask every guardrail, draw holdouts and arms, and commit decisions with their receipts, assignments,
enrolments, actions and budget reservations, a transaction a chunk. Every strategy has a holdout, a budget with a daily
part, caps, quiet hours and coupon limits. Conditions have three to six comparisons. Aims: < 120 s, < 2 GB of memory in
the processes that work.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, text

from bench import clustering
from embedded.postgres import EmbeddedPostgres
from migrations.run import upgrade
from operation_agent.campaigns import due
from operation_agent.clustering import job
from operation_agent.kit.clock import SYSTEM, monotonic
from operation_agent.store.engine import connect
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, create_shop, load_shop
from operation_agent.strategies import lifecycle
from operation_agent.strategies.vocabulary import vocabulary
from rules import strategy as definitions

WORKERS = 2
STRATEGIES, RULES = 10, 5
PHASES = (
    "prepare", "survey", "conclude", "people", "- features", "- clusters", "decide", "- columns",
    "- conditions and scores", "- history", "- guardrails, draws, receipts", "- write decisions",
    "plan and write actions", "close",
)  # fmt: skip
AIM_SECONDS = 120.0
AIM_MEMORY = 2 * 1024**3

# how to reach the customers that bench.clustering made: four in five said yes to e-mail, one in a hundred is suppressed
REACH = (
    "UPDATE customers SET email = 'c' || substr(id::text, 1, 8) || substr(md5(id::text), 1, 10) || '@example.com'"
    " WHERE shop_id = %(shop)s",
    """INSERT INTO consents (shop_id, customer_id, channel, topic, state, changed_at, event_id)
    SELECT shop_id, id, 'email', 'marketing', CASE WHEN hashtext(id::text) %% 20 = 0 THEN 'unsubscribed'
           ELSE 'subscribed' END, %(at)s - interval '400 days', gen_random_uuid()
    FROM customers WHERE shop_id = %(shop)s AND hashtext('c' || id) %% 5 <> 0 ORDER BY id""",
    """INSERT INTO suppressions (shop_id, channel, address, reason, created_at)
    SELECT shop_id, 'email', email, 'bounced', %(at)s - interval '50 days'
    FROM customers WHERE shop_id = %(shop)s AND hashtext('s' || id) %% 100 = 0""",
    "VACUUM ANALYZE customers, consents, suppressions",
)

TEXTS = {
    "subject": {
        "en": "{{ customer.first_name }}, something for you",
        "zh": "{{ customer.first_name }}，为您准备的惊喜",
    },
    "body": dict.fromkeys(
        ("en", "zh"),
        "<p>Hello {{ customer.first_name }}, from {{ shop.name }}</p><a href='{{ unsubscribe_url }}'>-</a>",
    ),
}


def _leaf(field: str, op: str, value: Any) -> dict[str, Any]:
    return {"field": field, "op": op, "value": value}


def _conditions(strategy: int) -> list[dict[str, Any]]:
    """Five conditions of three to six comparisons; every strategy looks at another stretch of time."""
    since = 9 * strategy
    bought = _leaf("customer.days_since_order", "between", [since, since + 22])
    no_cart = {"none": [_leaf("customer.open_cart", "equals", True)]}
    return [
        {"all": [bought, _leaf("customer.orders", "equals", 1), no_cart]},
        {"all": [bought, _leaf("customer.orders", "between", [2, 4]), no_cart,
                 _leaf("customer.average_order_minor", "gte", 2000)]},
        {"all": [bought, _leaf("customer.orders", "gte", 5), {"any": [
            _leaf("customer.price_sensitivity", "in", ["high", "medium"]),
            _leaf("customer.discount_share", "gt", 0.05), _leaf("customer.views_30d", "gte", 1)]}]},
        {"all": [_leaf("customer.days_since_view", "between", [since / 3, since / 3 + 2]),
                 _leaf("customer.views_30d", "gte", 2), _leaf("customer.orders", "lte", 3),
                 _leaf("customer.engagement_level", "in", ["low", "medium", "high"]), no_cart]},
        {"all": [_leaf("customer.carts_7d", "gte", 1), _leaf("customer.open_cart", "equals", True),
                 _leaf("customer.days_since_cart", "between", [strategy * 0.6, strategy * 0.6 + 0.6]),
                 {"any": [_leaf("customer.revenue_minor", "gt", 3000), _leaf("customer.orders", "equals", 0)]},
                 {"none": [_leaf("customer.return_share", "gt", 0.5)]}]},
    ]  # fmt: skip


def _arms(number: int) -> list[dict[str, Any]]:
    mail = {"action": "email", **TEXTS}
    reminder = {"key": "mail", "weight": 1, "prior": {"increment": 0.02, "redemption": 0}, "steps": [mail]}
    if number % 2:
        return [reminder]
    coupon = {"action": "coupon", "percent": 5 + number * 2, "expires_in": "P14D"}
    prior = {"increment": 0.05, "redemption": 0.08}
    return [reminder, {"key": "coupon", "weight": 1, "prior": prior, "steps": [coupon, mail]}]


def definition(number: int) -> dict[str, Any]:
    """One of the ten strategies, as it would be written in a file."""
    return {
        "key": f"s{number}", "name": {"en": f"Strategy {number}", "zh": f"策略 {number}"}, "goal": "repurchase",
        "why": {"en": "To measure.", "zh": "用于测量。"}, "holdout": 0.1,
        "caps": [{"channel": "email", "count": 2, "window": "P7D"}],
        "budget": {"limit": "5000000", "daily": "2000000"},
        "quiet_hours": {"start": "22:00", "end": "08:00", "otherwise": "delay"},
        "coupons": {"count": 2, "window": "P30D"},
        "rules": [
            {
                "key": f"r{rule}", "priority": RULES - rule, "if": condition,
                "when": {"schedule": "0 9 * * *", "frequency": "every_time", "cooldown": "P14D"},
                "then": {"arms": _arms(rule)}, "exit_on": ["order.paid"],
            }
            for rule, condition in enumerate(_conditions(number))
        ],
    }  # fmt: skip


def _fill(url: str, shop: Shop, customers: int) -> dict[str, int]:
    rows = clustering.fill(url, shop.id, customers)
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in REACH:
            connection.execute(statement, {"shop": shop.id, "at": SYSTEM.now()} if "%(" in statement else None)
    return rows


def _start_strategies(engine: Engine, shop: Shop, started_at: datetime) -> None:
    with for_shop(engine, shop.id) as session:
        for number in range(STRATEGIES):
            found = definitions.parse(definition(number), vocabulary())
            lifecycle.create(session, shop, found, at=SYSTEM.now(), actor="bench")
            lifecycle.move(session, shop, found.key, "live", at=SYSTEM.now(), actor="bench")
        session.execute(
            text("UPDATE strategies SET started_at = :at WHERE shop_id = :s"), {"at": started_at, "s": shop.id}
        )


@contextmanager
def prepared(customers: int) -> Iterator[tuple[str, Engine, Shop, dict[str, int]]]:
    """A private, durable PostgreSQL with the shop, its history, clusters and strategies in it."""
    folder = Path(tempfile.mkdtemp(prefix="opagent-bench-"))
    postgres = EmbeddedPostgres(folder, durable=True)
    try:
        postgres.start()
        upgrade(postgres.url)
        engine = connect(postgres.url)
        shop = create_shop(engine, slug="bench", name="Bench", currency="USD", seed="bench", margin_rate=Decimal("0.4"))
        rows = _fill(postgres.superuser_url("opagent"), shop, customers)
        job.run(engine, shop, now=SYSTEM.now())
        _start_strategies(engine, shop, SYSTEM.now() - timedelta(days=3))
        yield postgres.url, engine, shop, rows
        engine.dispose()
    finally:
        postgres.destroy()
        shutil.rmtree(folder, ignore_errors=True)


# -- a worker, in a process of its own ----------------------------------------------------------------------------


def _phases() -> dict[str, float]:
    """Wrap what a chunk consists of, and count the seconds spent in each; the rest is committing and waiting."""
    from operation_agent.actions import planning
    from operation_agent.campaigns import chunks, people, preparation, survey
    from operation_agent.clustering import membership
    from operation_agent.customers import features
    from operation_agent.decision import batch, engine, reading, store, writing

    spent: dict[str, float] = {}
    wrapped = {
        "prepare": (preparation, "prepare"), "survey": (survey, "look_at"), "conclude": (preparation, "conclude"),
        "people": (people, "of_chunk"), "- features": (features, "compute_range"), "- clusters": (membership, "assign"),
        "decide": (batch, "decide"), "- columns": (reading, "load"), "- conditions and scores": (batch, "prepare"),
        "- history": (store, "load"), "- guardrails, draws, receipts": (engine, "settle"),
        "- write decisions": (writing, "write"), "plan and write actions": (planning, "plan"),
        "close": (chunks, "close"),
    }  # fmt: skip
    for phase, (module, name) in wrapped.items():
        setattr(module, name, _timed(spent, phase, getattr(module, name)))
    return spent


def _timed(spent: dict[str, float], phase: str, act: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **options: Any) -> Any:
        start = monotonic()
        try:
            return act(*args, **options)
        finally:
            spent[phase] = spent.get(phase, 0.0) + monotonic() - start

    return run


def _work(url: str, shop_id: UUID, lane: str) -> None:
    """Be a worker: wait for a line, work until there is nothing left, print what it took."""
    from workers import campaigns

    spent = _phases()
    engine = connect(url)
    print("ready", flush=True)
    sys.stdin.readline()
    start, cpu = monotonic(), os.times()
    while _is_open(engine, shop_id):
        campaigns.run(engine, shop_id, lane, seconds=3600)
    total, after = monotonic() - start, os.times()
    engine.dispose()
    used = after.user + after.system - cpu.user - cpu.system
    print(json.dumps({"total": total, "cpu": used, "phases": spent, "peak_bytes": clustering.peak_memory()}))


def _is_open(engine: Engine, shop_id: UUID) -> bool:
    with for_shop(engine, shop_id) as session:
        return bool(session.execute(text("SELECT EXISTS (SELECT 1 FROM campaigns WHERE finished_at IS NULL)")).scalar())


def _run(url: str, shop: Shop) -> tuple[float, list[dict[str, Any]]]:
    """Seconds from the first worker's start to the last one's end, and what each tells."""
    command = [sys.executable, "-m", "bench.campaign", "--worker", url, str(shop.id)]
    workers = [
        subprocess.Popen([*command, str(lane)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for lane in range(WORKERS)
    ]
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()
    start = monotonic()
    told = []
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        out, _ = worker.communicate()
        if worker.returncode:
            raise SystemExit(f"a worker failed ({worker.returncode})")
        *said, last = out.splitlines()
        print("\n".join(said), end="\n" if said else "", file=sys.stderr)
        told.append(json.loads(last))
    return monotonic() - start, told


# -- measuring ----------------------------------------------------------------------------------------------------

_COUNTS = text("""
SELECT (SELECT count(*) FROM decisions WHERE shop_id = :s) AS decisions,
       (SELECT count(*) FROM decisions WHERE shop_id = :s AND receipt <> '{}') AS receipts,
       (SELECT sum(length(receipt::text)) FROM decisions WHERE shop_id = :s) AS receipt_bytes,
       (SELECT count(*) FROM actions WHERE shop_id = :s) AS actions,
       (SELECT count(*) FROM assignments WHERE shop_id = :s) AS assignments,
       (SELECT count(*) FROM enrolments WHERE shop_id = :s) AS enrolments,
       (SELECT count(*) FROM budget_entries WHERE shop_id = :s) AS reservations,
       (SELECT count(*) FROM campaign_chunks WHERE shop_id = :s AND state = 'done') AS chunks,
       (SELECT sum(customers) FROM campaign_chunks WHERE shop_id = :s) AS customers,
       (SELECT state FROM campaigns WHERE shop_id = :s) AS state
""")
_VERDICTS = text("SELECT verdict, count(*) FROM decisions WHERE shop_id = :s GROUP BY 1 ORDER BY 2 DESC")


def measure(customers: int) -> dict[str, Any]:
    made = monotonic()
    with prepared(customers) as (url, engine, shop, rows):
        setup = monotonic() - made
        at = SYSTEM.now()
        with for_shop(engine, shop.id) as session:
            due.wake(session, load_shop(session, shop.id), after=at - timedelta(days=1), until=at, at=at)
        seconds, told = _run(url, shop)
        with for_shop(engine, shop.id) as session:
            counts = dict(session.execute(_COUNTS, {"s": shop.id}).one()._mapping)
            verdicts = {row.verdict: row.count for row in session.execute(_VERDICTS, {"s": shop.id})}
    phases: dict[str, float] = {}
    for one in told:
        for phase, spent in one["phases"].items():
            phases[phase] = phases.get(phase, 0.0) + spent
    return {
        "customers": customers, "rows": rows, "cpus": os.cpu_count(), "setup": setup, "seconds": seconds,
        "rules": STRATEGIES * RULES, "workers": told, "phases": phases,
        "counts": {key: int(value) if isinstance(value, Decimal) else value for key, value in counts.items()},
        "verdicts": verdicts, "peak_bytes": sum(one["peak_bytes"] for one in told),
        "aims": {"seconds": AIM_SECONDS, "peak_bytes": AIM_MEMORY},
    }  # fmt: skip


def show(result: dict[str, Any], console: Console) -> None:
    counts, seconds = result["counts"], result["seconds"]
    rows = ", ".join(f"{count:,} {name}" for name, count in result["rows"].items())
    table = Table(
        title=f"Campaign: {result['rules']} rules, {rows}; {result['cpus']} CPUs, {WORKERS} workers, fsync on"
    )
    for column in ("what", "measured", "aim"):
        table.add_column(column, justify="left" if column == "what" else "right")
    aim = f"< {AIM_SECONDS:g} at a million" if result["customers"] != 1_000_000 else f"< {AIM_SECONDS:g}"
    table.add_row("seconds", f"{seconds:.1f}", aim)
    table.add_row("customers / s", f"{result['customers'] / seconds:,.0f}", "")
    for name in ("decisions", "receipts", "actions", "assignments", "enrolments", "reservations", "chunks"):
        table.add_row(name, f"{counts[name]:,}", "")
    table.add_row("decisions / customer", f"{counts['decisions'] / result['customers']:.2f}", "")
    table.add_row("bytes / receipt", f"{counts['receipt_bytes'] / max(1, counts['receipts']):.0f}", "")
    used = sum(one["cpu"] for one in result["workers"])
    table.add_row("processor seconds of the workers", f"{used:.1f}", "")
    table.add_row("peak memory of the workers, MB", f"{result['peak_bytes'] / 1e6:.0f}", "< 2147", end_section=True)
    for phase in PHASES:
        table.add_row(f"  {phase}, s of both workers", f"{result['phases'].get(phase, 0.0):.1f}", "")
    console.print(table)
    console.print("'survey' has 'people' of its own, which are counted there too; the rest of the time is committing")
    console.print("  ".join(f"{verdict} {count:,}" for verdict, count in result["verdicts"].items()))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.campaign", description=__doc__)
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--worker", nargs=3, metavar=("URL", "SHOP", "LANE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _work(options.worker[0], UUID(options.worker[1]), options.worker[2])
        return 0
    result = measure(options.customers)
    if options.json:
        print(json.dumps(result))
    else:
        show(result, Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
