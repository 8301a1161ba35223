"""How fast events come in, beside what PostgreSQL and FastAPI do at best on the same machine in the same run.

(a) psycopg COPY of the same rows, into a table like `events` with its index, and into a bare heap;
(b) `POST /v1/batch` of 100 on 32 connections and (c) single `POST /v1/track` on 64, both until committed;
(d) a FastAPI route that returns its JSON body, under the same uvicorn settings. Aims: b >= 0.3 a, c >= 0.35 d.
The database is private, in a temporary folder, and durable (fsync on). Rounds alternate; the median counts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import orjson
import psycopg
from rich.console import Console
from rich.table import Table

from bench.load import message
from embedded.postgres import EmbeddedPostgres
from migrations.run import upgrade
from operation_agent.access.keys import create_key
from operation_agent.events.segment import normalise
from operation_agent.kit.clock import SYSTEM, monotonic
from operation_agent.kit.ids import new_id
from operation_agent.store.engine import connect
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, create_shop

BATCH = 100
BATCH_CONNECTIONS = 32
SINGLE_CONNECTIONS = 64
AIMS = {"batch": 0.3, "single": 0.35}


@dataclass(frozen=True)
class Bench:
    postgres: EmbeddedPostgres
    shop: Shop
    key: str
    api_port: int
    echo_port: int


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(app: str, environment: dict[str, str]) -> Iterator[int]:
    """A uvicorn process of `app`; yields its port."""
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop",
         "--http", "httptools", "--no-access-log", "--log-level", "warning"],
        env={**os.environ, **environment},
    )  # fmt: skip
    try:
        _await_port(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    end = monotonic() + 30
    while monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("the server under test did not start")


@contextmanager
def _prepared() -> Iterator[Bench]:
    folder = Path(tempfile.mkdtemp(prefix="opagent-bench-"))
    postgres = EmbeddedPostgres(folder, durable=True)
    os.environ["OPAGENT_DATA_DIR"] = str(folder)
    try:
        postgres.start()
        upgrade(postgres.url)
        engine = connect(postgres.url)
        shop = create_shop(engine, slug="bench", name="Bench", currency="USD", seed="bench")
        with for_shop(engine, shop.id) as session:
            key, _ = create_key(session, shop.id, "bench", ["events:write"], SYSTEM.now())
        engine.dispose()
        environment = {"OPAGENT_DATABASE_URL": postgres.url, "OPAGENT_DATA_DIR": str(folder)}
        with serving("api.app:app", environment) as api, serving("bench.echo:app", {}) as echo:
            yield Bench(postgres, shop, key, api, echo)
    finally:
        postgres.destroy()
        shutil.rmtree(folder, ignore_errors=True)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _rows(bench: Bench, count: int) -> list[tuple[Any, ...]]:
    """The rows that the intake makes of the same messages."""
    now, run = SYSTEM.now(), new_id().hex
    events = (normalise(message(number, run), bench.shop, now=now, received_at=now) for number in range(count))
    return [
        (bench.shop.id, event.id, event.source, event.source_id, event.type, event.name, event.occurred_at,
         event.received_at, *map(_json, (event.identity, event.properties, event.context)))
        for event in events
    ]  # fmt: skip


def _copy(bench: Bench, rows: list[tuple[Any, ...]], like: str) -> float:
    """Rows per second until committed."""
    with psycopg.connect(bench.postgres.superuser_url("opagent")) as connection:
        connection.execute(f"CREATE TABLE copied (LIKE events {like})")
        connection.commit()
        start = monotonic()
        with connection.cursor().copy("COPY copied FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        connection.commit()
        seconds = monotonic() - start
        connection.execute("DROP TABLE copied")
    return len(rows) / seconds


def _load(port: int, path: str, requests: int, connections: int, *, key: str = "", batch: int = 0) -> dict[str, Any]:
    ran = subprocess.run(
        [sys.executable, "-m", "bench.load", "--port", str(port), "--path", path, "--key", key, "--requests",
         str(requests), "--connections", str(connections), "--batch", str(batch)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    result = json.loads(ran.stdout)
    if set(result["statuses"]) != {"200"}:
        raise SystemExit(f"{path}: answers other than 200: {result['statuses']}")
    return result


def _stored(bench: Bench) -> int:
    with psycopg.connect(bench.postgres.superuser_url("opagent")) as connection:
        row = connection.execute("SELECT count(*) FROM events").fetchone()
        assert row is not None
        return row[0]


def _measured(bench: Bench, events: int, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A load whose every event must be in the table when its last answer has come."""
    before = _stored(bench)
    result = run()
    if _stored(bench) - before != events:
        raise SystemExit(f"{events} events were answered and {_stored(bench) - before} are stored")
    return {**result, "rows_per_second": events / result["seconds"]}


def _round(bench: Bench, events: int, singles: int) -> dict[str, dict[str, Any]]:
    rows = _rows(bench, events)
    return {
        "copy": {"rows_per_second": _copy(bench, rows, "INCLUDING ALL")},
        "copy_heap": {"rows_per_second": _copy(bench, rows, "")},
        "batch": _measured(
            bench,
            events,
            lambda: _load(bench.api_port, "/v1/batch", events // BATCH, BATCH_CONNECTIONS, key=bench.key, batch=BATCH),
        ),
        "echo": _load(bench.echo_port, "/echo", singles, SINGLE_CONNECTIONS),
        "single": _measured(
            bench, singles, lambda: _load(bench.api_port, "/v1/track", singles, SINGLE_CONNECTIONS, key=bench.key)
        ),
    }


def _warm_up(bench: Bench) -> None:
    _load(bench.api_port, "/v1/batch", 40, BATCH_CONNECTIONS, key=bench.key, batch=BATCH)
    _load(bench.api_port, "/v1/track", 2_000, SINGLE_CONNECTIONS, key=bench.key)
    _load(bench.echo_port, "/echo", 2_000, SINGLE_CONNECTIONS)


def measure(rounds: int, events: int, singles: int) -> dict[str, Any]:
    """All figures: per second, the median of the rounds, and the two ratios the aims are about."""
    with _prepared() as bench:
        _warm_up(bench)
        ran = [_round(bench, events, singles) for _ in range(rounds)]
    figures = {
        name: median(float(one[name].get("rows_per_second") or one[name]["per_second"]) for one in ran)
        for name in ran[0]
    }
    ratios = {
        "batch": median(one["batch"]["rows_per_second"] / one["copy"]["rows_per_second"] for one in ran),
        "batch_to_heap": median(one["batch"]["rows_per_second"] / one["copy_heap"]["rows_per_second"] for one in ran),
        "single": median(one["single"]["rows_per_second"] / one["echo"]["per_second"] for one in ran),
    }
    return {"per_second": figures, "ratios": ratios, "aims": AIMS, "cpus": os.cpu_count(), "rounds": ran}


def _print(result: dict[str, Any]) -> None:
    figures, ratios, last = result["per_second"], result["ratios"], result["rounds"][-1]
    table = Table(title=f"Intake, {result['cpus']} CPUs, fsync on, median of {len(result['rounds'])} rounds")
    for column, side in (("what", "left"), ("per second", "right"), ("p50 / p99 ms", "right"), ("ratio", "right")):
        table.add_column(column, justify=side)  # type: ignore[arg-type]

    def waits(name: str) -> str:
        return f"{last[name]['p50_ms']:.1f} / {last[name]['p99_ms']:.1f}"

    table.add_row("(a) psycopg COPY, same table and index", f"{figures['copy']:,.0f} rows", "", "")
    table.add_row("    psycopg COPY, bare heap", f"{figures['copy_heap']:,.0f} rows", "", "")
    table.add_row(
        f"(b) POST /v1/batch of {BATCH}, committed", f"{figures['batch']:,.0f} events", waits("batch"),
        f"{ratios['batch']:.2f} a (aim {AIMS['batch']}); {ratios['batch_to_heap']:.2f} of the heap",
    )  # fmt: skip
    table.add_row(
        f"(c) POST /v1/track, {SINGLE_CONNECTIONS} connections, committed", f"{figures['single']:,.0f} events",
        waits("single"), f"{ratios['single']:.2f} d (aim {AIMS['single']})",
    )  # fmt: skip
    table.add_row("(d) bare FastAPI echo", f"{figures['echo']:,.0f} requests", waits("echo"), "")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=int, default=50_000, help="rows of (a) and (b) in a round")
    parser.add_argument("--singles", type=int, default=15_000, help="requests of (c) and (d) in a round")
    given = parser.parse_args()
    result = measure(given.rounds, given.events, given.singles)
    if given.json:
        print(json.dumps(result))
    else:
        _print(result)
        print(json.dumps({name: result[name] for name in ("per_second", "ratios", "aims")}))


if __name__ == "__main__":
    main()
