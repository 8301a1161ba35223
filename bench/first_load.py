"""A first load of a shop's orders from Shopify's bulk export, by the real worker's code, until committed as events.

The export (10⁶ orders unless --orders says otherwise; bench/bulk_shop.py) is written to a file and served over HTTP by
a process of its own; the load runs in another, whose peak memory is measured (aim: under 500 MB). PostgreSQL is
private, in a temporary folder, and durable (fsync on). Loading does not wait for the pipeline here (in operation it
does, above 200,000 waiting events); how fast two worker processes then process them is measured after it, apart.
What is stored is counted by type and compared with what the file was written to hold.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, text

from embedded.postgres import EmbeddedPostgres
from migrations.run import upgrade
from operation_agent.kit.clock import SYSTEM, monotonic
from operation_agent.kit.secrets import Vault, secret_key
from operation_agent.kit.settings import settings
from operation_agent.store.engine import connect
from operation_agent.store.session import for_shop
from operation_agent.store.shops import create_shop, load_shop

ORDERS = 1_000_000
PROCESSES = 2
SAMPLE_SECONDS = 20.0
AIMS = {"peak_mb": 500.0}


@contextmanager
def _exporting(folder: Path, orders: int) -> Iterator[dict[str, Any]]:
    """The shop's own process; yields where it is and what its file holds."""
    command = [sys.executable, "-m", "bench.bulk_shop", str(folder / "orders.jsonl"), str(orders)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()


@contextmanager
def _database(folder: Path) -> Iterator[str]:
    postgres = EmbeddedPostgres(folder, durable=True)
    try:
        postgres.start()
        upgrade(postgres.url)
        yield postgres.url
    finally:
        postgres.destroy()


def _shop(engine: Engine, port: int) -> UUID:
    """A shop that is connected to the export, with a first load asked for."""
    from operation_agent.storefront import sync

    made = create_shop(engine, slug="bench", name="Bench", currency="USD", seed="bench")
    secrets = orjson.dumps({"access_token": "bench", "webhook_secret": "bench", "client_secret": "bench"})
    at = SYSTEM.now()
    with for_shop(engine, made.id) as session:
        session.execute(
            text(
                "INSERT INTO integrations (shop_id, vendor, channel, base_url, config, secrets, enabled, updated_at)"
                " VALUES (:shop, 'shopify', 'coupon', :url, '{}', :secrets, true, :at)"
            ),
            {
                "shop": made.id, "url": f"http://127.0.0.1:{port}", "at": at,
                "secrets": Vault(secret_key(settings())).seal(secrets),
            },
        )  # fmt: skip
        sync.ask(session, load_shop(session, made.id), "shopify", ["orders"], "first", at=at, actor="bench")
    return made.id


# -- the processes that are measured ------------------------------------------------------------------------------


def _load(url: str, shop_id: UUID) -> dict[str, Any]:
    """Task after task, as they come due, until the sync has ended."""
    from workers.storefront import sync_kind

    engine, began = connect(url, pool_size=2, max_overflow=4), monotonic()
    tasks = 0
    while True:
        row = _row(engine, shop_id)
        if row["state"] not in ("asked", "running", "loading"):
            break
        time.sleep(max(0.0, (row["wake_at"] - SYSTEM.now()).total_seconds()))
        sync_kind(engine, shop_id, "orders", most_queued=None)
        tasks += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = monotonic() - began
    engine.dispose()
    return {"seconds": seconds, "peak_mb": peak, "tasks": tasks, **{name: row[name] for name in _COUNTS}}


_COUNTS = ("state", "error", "objects_done", "missing", "stale", "refused", "events", "tellings")


def _row(engine: Engine, shop_id: UUID) -> dict[str, Any]:
    with for_shop(engine, shop_id) as session:
        found = session.execute(text("SELECT * FROM storefront_syncs WHERE shop_id = :shop"), {"shop": shop_id}).one()
        return dict(found._mapping)


def _process(url: str, shop_id: UUID, number: int, seconds: float) -> dict[str, Any]:
    """Work off this process's share of the partitions for a while."""
    from workers.processing import drain

    engine, began = connect(url, pool_size=2, max_overflow=4), monotonic()
    events = 0
    while (left := began + seconds - monotonic()) > 0:
        done = sum(drain(engine, shop_id, one, seconds=min(2.0, left)) for one in range(number, 8, PROCESSES))
        events += done
        if not done:
            break
    engine.dispose()
    return {"events": events, "seconds": monotonic() - began}


def _child(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.first_load", "--child", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a process of the bench ended with {process.returncode}")
    return json.loads(out.splitlines()[-1])


# -- the measurement ----------------------------------------------------------------------------------------------


def measure(orders: int, sample_seconds: float) -> dict[str, Any]:
    """All figures of one load and of the pipeline after it."""
    folder = Path(tempfile.mkdtemp(prefix="opagent-first-load-"))
    os.environ["OPAGENT_DATA_DIR"] = str(folder)
    os.environ.setdefault("OPAGENT_SECRET_KEY", os.urandom(24).hex())
    settings.cache_clear()
    try:
        with _database(folder) as url, _exporting(folder, orders) as told:
            engine = connect(url)
            shop_id = _shop(engine, told["port"])
            loaded = _answer(_child("load", url, str(shop_id)))
            stored = _stored(engine, shop_id)
            _check(loaded, stored, told)
            running = [_child("process", url, str(shop_id), str(one), str(sample_seconds)) for one in range(PROCESSES)]
            processed = [_answer(one) for one in running]
            engine.dispose()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _figures(told, loaded, processed)


def _stored(engine: Engine, shop_id: UUID) -> dict[str, int]:
    with for_shop(engine, shop_id) as session:
        rows = session.execute(
            text("SELECT type, count(*) AS n FROM events WHERE shop_id = :shop GROUP BY type"), {"shop": shop_id}
        )
        return {row.type: row.n for row in rows}


def _check(loaded: dict[str, Any], stored: dict[str, int], told: dict[str, Any]) -> None:
    if loaded["state"] != "done" or loaded["objects_done"] != told["orders"] or loaded["refused"]:
        raise SystemExit(f"the load did not end well: {loaded}")
    if stored != told["events"] or loaded["missing"] != told["orders"] - told["silent"]:
        raise SystemExit(f"the file holds {told['events']} and these are stored: {stored}")


def _figures(told: dict[str, Any], loaded: dict[str, Any], processed: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = loaded["seconds"]
    return {
        "orders": told["orders"],
        "rows": told["rows"],
        "file_mb": told["bytes"] / 1e6,
        "seconds": seconds,
        "rows_per_second": told["rows"] / seconds,
        "orders_per_second": told["orders"] / seconds,
        "events": loaded["events"],
        "events_per_second": loaded["events"] / seconds,
        "tellings": loaded["tellings"],
        "tasks": loaded["tasks"],
        "peak_mb": loaded["peak_mb"],
        "pipeline": {
            "events_per_second": sum(one["events"] / one["seconds"] for one in processed),
            "events": sum(one["events"] for one in processed),
            "processes": PROCESSES,
        },
        "aims": AIMS,
        "cpus": os.cpu_count(),
        "at": datetime.isoformat(SYSTEM.now(), timespec="seconds"),
    }


def _print(result: dict[str, Any]) -> None:
    table = Table(title=f"First load of {result['orders']:,} orders, {result['cpus']} CPUs, fsync on")
    table.add_column("what")
    table.add_column("measured", justify="right")
    pipeline = result["pipeline"]
    for what, measured in (
        ("bulk export", f"{result['rows']:,} rows, {result['file_mb']:,.0f} MB"),
        ("asked until committed", f"{result['seconds']:,.1f} s in {result['tasks']} tasks"),
        ("rows per second", f"{result['rows_per_second']:,.0f}"),
        ("orders per second", f"{result['orders_per_second']:,.0f}"),
        ("events committed per second", f"{result['events_per_second']:,.0f} ({result['events']:,} in all)"),
        ("peak memory of the loading process", f"{result['peak_mb']:,.0f} MB (aim < {AIMS['peak_mb']:,.0f})"),
        (f"pipeline after it, {pipeline['processes']} processes",
         f"{pipeline['events_per_second']:,.0f} events/s ({pipeline['events']:,} processed)"),
    ):  # fmt: skip
        table.add_row(what, measured)
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--orders", type=int, default=ORDERS)
    parser.add_argument("--sample", type=float, default=SAMPLE_SECONDS, help="seconds of processing after the load")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        what, url, shop_id, *more = given.child
        made = (
            _load(url, UUID(shop_id)) if what == "load" else _process(url, UUID(shop_id), int(more[0]), float(more[1]))
        )
        print(json.dumps(made))
        return
    result = measure(given.orders, given.sample)
    if not given.json:
        _print(result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
