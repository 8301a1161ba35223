"""How fast signed order webhooks of Shopify come in, beside a bare FastAPI route that only verifies their HMAC.

(a) `POST /webhooks/shopify/{shop}` on 64 connections until committed: distinct orders of about 9 kB, each an
    `order.created`, `order.paid` and `order.updated` with lines and customer, all of which must be in the table then;
(b) the same requests to a route that verifies and answers, under the same uvicorn settings, in the same run;
(c) the waits for an answer at 100 a second with the whole stack running (`opagent up`: API, relay, worker, scheduler),
    live strategies included, until every order is in the `orders` table.
Aims: a >= 0.35 b; p99 of (c) < 250 ms. Databases are private, in temporary folders, and durable (fsync on).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import orjson
import psycopg
from rich.console import Console
from rich.table import Table
from sqlalchemy import text
from sqlalchemy.orm import Session

from bench.intake import serving
from bench.signed import SECRET
from embedded.postgres import EmbeddedPostgres
from migrations.run import upgrade
from operation_agent.kit.clock import SYSTEM, monotonic
from operation_agent.kit.secrets import Vault, secret_key
from operation_agent.kit.settings import settings
from operation_agent.store.engine import connect
from operation_agent.store.session import for_shop
from operation_agent.store.shops import create_shop

CONNECTIONS = 64
EVENTS_EACH = 3
RATE = 100.0
AIMS = {"to_bare": 0.35, "p99_ms": 250.0}
PATH = "/webhooks/shopify/bench"


@dataclass(frozen=True)
class Bench:
    postgres: EmbeddedPostgres
    api_port: int
    bare_port: int

    def stored(self) -> int:
        with psycopg.connect(self.postgres.superuser_url("opagent")) as connection:
            row = connection.execute("SELECT count(*) FROM events").fetchone()
            assert row is not None
            return row[0]


@contextmanager
def _prepared() -> Iterator[Bench]:
    folder = Path(tempfile.mkdtemp(prefix="opagent-bench-"))
    postgres = EmbeddedPostgres(folder, durable=True)
    os.environ["OPAGENT_DATA_DIR"] = str(folder)
    settings.cache_clear()
    try:
        postgres.start()
        upgrade(postgres.url)
        engine = connect(postgres.url)
        shop = create_shop(engine, slug="bench", name="Bench", currency="USD", seed="bench")
        with for_shop(engine, shop.id) as session:
            _connect(session, shop.id, secret_key(settings()))
        engine.dispose()
        environment = {"OPAGENT_DATABASE_URL": postgres.url, "OPAGENT_DATA_DIR": str(folder)}
        with serving("api.app:app", environment) as api, serving("bench.signed:app", {}) as bare:
            yield Bench(postgres, api, bare)
    finally:
        postgres.destroy()
        shutil.rmtree(folder, ignore_errors=True)


def _connect(session: Session, shop_id: UUID, secret: str) -> None:
    sealed = Vault(secret).seal(orjson.dumps({"access_token": "bench", "webhook_secret": SECRET}))
    session.execute(
        text(
            "INSERT INTO integrations (shop_id, vendor, channel, base_url, secrets, updated_at)"
            " VALUES (:shop, 'shopify', 'coupon', 'https://bench.myshopify.com', :secrets, :at)"
        ),
        {"shop": shop_id, "secrets": sealed, "at": SYSTEM.now()},
    )


def _load(port: int, path: str, requests: int, run: int, *extra: str) -> dict[str, Any]:
    ran = subprocess.run(
        [sys.executable, "-m", "bench.shopify_orders", "--port", str(port), "--path", path, "--requests", str(requests),
         "--connections", str(CONNECTIONS), "--run", str(run), *extra],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(ran.stdout)
    if set(result["statuses"]) != {"200"}:
        raise SystemExit(f"{path}: answers other than 200: {result['statuses']}")
    return result


def _round(bench: Bench, requests: int, run: int) -> dict[str, dict[str, Any]]:
    bare = _load(bench.bare_port, "/signed", requests, run)
    before = bench.stored()
    committed = _load(bench.api_port, PATH, requests, run)
    stored = bench.stored() - before
    if stored != requests * EVENTS_EACH:
        raise SystemExit(f"{requests} orders were answered and {stored} events of them are stored")
    return {"bare": bare, "committed": committed}


def throughput(rounds: int, requests: int) -> dict[str, Any]:
    """Webhooks per second, the median of the rounds, and of their ratios."""
    with _prepared() as bench:
        _round(bench, 2_000, 0)
        ran = [_round(bench, requests, number) for number in range(1, rounds + 1)]
    return {
        "per_second": {name: median(one[name]["per_second"] for one in ran) for name in ran[0]},
        "to_bare": median(one["committed"]["per_second"] / one["bare"]["per_second"] for one in ran),
        "bytes": ran[-1]["bare"]["bytes"],
        "rounds": ran,
    }


def answered(seconds: float) -> dict[str, Any]:
    """Waits for an answer at RATE a second with everything running, and how soon after the last all was processed."""
    from bench import pipeline

    with pipeline.running() as stack:
        with for_shop(stack.engine, stack.shop_id) as session:
            secret = (Path(os.environ["OPAGENT_DATA_DIR"]) / "secret.key").read_text().strip()
            _connect(session, stack.shop_id, secret)
        port = urlsplit(stack.url).port
        assert port is not None
        _load(port, PATH, int(RATE * 5), 1, "--rate", str(RATE))
        requests = int(RATE * seconds)
        result = _load(port, PATH, requests, 2, "--rate", str(RATE))
        start = monotonic()
        expected = requests + int(RATE * 5)
        while (orders := stack.scalar("SELECT count(*) FROM orders WHERE shop_id = :shop")) < expected:
            if monotonic() - start > 60:
                raise SystemExit(f"{expected} orders were answered and {orders} are in the table a minute later")
            time.sleep(0.05)
        return result | {"settled_seconds": monotonic() - start, "orders": orders}


def measure(rounds: int, requests: int, seconds: float) -> dict[str, Any]:
    """All figures and whether they are what was aimed at."""
    return {
        "throughput": throughput(rounds, requests), "answered": answered(seconds), "aims": AIMS, "cpus": os.cpu_count(),
    }  # fmt: skip


def _print(result: dict[str, Any]) -> None:
    whole, paced = result["throughput"], result["answered"]
    table = Table(title=f"Shopify's webhooks, {result['cpus']} CPUs, fsync on, {whole['bytes']:,.0f} bytes each")
    for column in ("what", "per second", "p50 / p99 ms", "aim"):
        table.add_column(column, justify="left" if column == "what" else "right")
    last = whole["rounds"][-1]

    def waits(one: dict[str, Any]) -> str:
        return f"{one['p50_ms']:.1f} / {one['p99_ms']:.1f}"

    table.add_row(
        f"(a) verified, read, committed: {CONNECTIONS} connections", f"{whole['per_second']['committed']:,.0f}",
        waits(last["committed"]), f"{whole['to_bare']:.2f} b (aim {AIMS['to_bare']})",
    )  # fmt: skip
    table.add_row("(b) bare FastAPI, verified", f"{whole['per_second']['bare']:,.0f}", waits(last["bare"]), "")
    table.add_row(
        f"(c) at {RATE:.0f} a second, whole stack; all settled {paced['settled_seconds']:.1f} s after the last",
        f"{paced['per_second']:,.0f}", waits(paced), f"p99 < {AIMS['p99_ms']:.0f}",
    )  # fmt: skip
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=10_000, help="webhooks of (a) and (b) in a round")
    parser.add_argument("--seconds", type=float, default=30, help="of (c)")
    given = parser.parse_args()
    result = measure(given.rounds, given.requests, given.seconds)
    if given.json:
        print(json.dumps(result))
        return
    _print(result)
    figures = {name: result["throughput"][name] for name in ("per_second", "to_bare")}
    print(json.dumps(figures | {name: result["answered"][name] for name in ("p50_ms", "p99_ms", "settled_seconds")}))


if __name__ == "__main__":
    main()
