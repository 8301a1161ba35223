"""Fifty rules of three to six conditions, evaluated by us and by four rule engines, and by Python written by hand.

One run, the same rules, the same customers. First every contestant has to give the same answer for every rule and
customer of a sample. Then: evaluations (one rule held against one customer) per second for a single customer, for
micro-batches of 200 as events come in, and for a million. Ours gets the customers as columns, which is how facts are
gathered here; "from dicts" counts making the columns out of what the peers get, one dict a customer, as well. The peers
look at one customer at a time, so they have one rate; zen-engine gets all rules as one compiled expression, the
fastest way to ask it. No value is missing, since the peers have no answer then; ours with every tenth value missing
stands beside it. Every contestant has one thread, so what counts is its processor time, which neighbours on the machine
disturb less. Aims: a million >= 100 x zen-engine, micro-batches >= 5 x zen-engine.

The peers are no dependency of ours: they live in an environment of their own, thrown away afterwards, or one that you
made and name with --peers:

    python3 -m venv peers && peers/bin/pip install zen-engine json-logic-qubit rule-engine business-rules
    python -m bench.rules --peers peers/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from rules.condition import leaves, parse
from rules.errors import RuleError
from rules.evaluate import Batch, CompiledCondition, Labels, compile, evaluate_all
from rules.fields import FieldType
from rules.tree import Node

PEERS = ("zen-engine", "json-logic-qubit", "rule-engine", "business-rules")
AIM_MANY, AIM_MICRO = 100.0, 5.0
RULES, MICRO, SAMPLE, PEER_CUSTOMERS = 50, 200, 500, 5_000

WORDS = {
    "purchase_stage": ("new", "browsing", "research", "decision", "customer", "repeat", "lapsed"),
    "price_sensitivity": ("low", "medium", "high"),
    "engagement_level": ("none", "low", "medium", "high"),
    "cluster": ("at_risk", "champions", "newcomers", "bargain_hunters", "window_shoppers", "regulars"),
}
NUMBERS = {
    "orders": 2.0, "revenue": 180.0, "average_order": 70.0, "days_since_order": 60.0, "days_since_visit": 14.0,
    "views_30d": 8.0, "carts_7d": 1.0, "clicks_90d": 3.0, "opens_90d": 6.0, "discount_share": 0.2,
}  # fmt: skip
"""With the mean of each: exponential, to two decimals."""
FLAGS = ("has_cart", "is_subscribed")
FIELDS = (
    {name: FieldType("number") for name in NUMBERS}
    | {name: FieldType("label", frozenset(words)) for name, words in WORDS.items()}
    | {name: FieldType("flag") for name in FLAGS}
)
Columns = dict[str, Any]


def shop(customers: int) -> Columns:
    """Columns of a synthetic shop; labels as objects."""
    draw = np.random.default_rng(42)
    columns: Columns = {name: draw.exponential(mean, customers).round(2) for name, mean in NUMBERS.items()}
    columns["orders"], columns["views_30d"] = columns["orders"].round(), columns["views_30d"].round()
    for name, words in WORDS.items():
        columns[name] = np.array(words, dtype=object)[draw.integers(0, len(words), customers)]
    return columns | {name: (draw.random(customers) < 0.4).astype(np.float64) for name in FLAGS}


def with_gaps(columns: Columns) -> Columns:
    """Every tenth value missing, here and there."""
    draw, found = np.random.default_rng(43), {}
    for name, column in columns.items():
        found[name] = column.copy()
        found[name][draw.random(len(column)) < 0.1] = None if column.dtype == object else np.nan
    return found


def coded(columns: Columns) -> Columns:
    return {name: Labels.of(column) if name in WORDS else column for name, column in columns.items()}


def rules() -> list[CompiledCondition]:
    """Three to six conditions each, two of them under `any` where there are five or more."""
    draw, found = random.Random(7), []
    while len(found) < RULES:
        size = draw.randint(3, 6)
        asked = [_leaf(draw) for _ in range(size)]
        raw = {"all": [*asked[:-2], {"any": asked[-2:]}]} if size >= 5 else {"all": asked}
        try:
            found.append(compile(parse(Node(raw), FIELDS)))
        except RuleError:  # nobody could meet it
            continue
    return found


def _leaf(draw: random.Random) -> dict[str, Any]:
    kind = draw.random()
    if kind < 0.1:
        return {"field": draw.choice(FLAGS), "op": "equals", "value": draw.random() < 0.7}
    if kind < 0.35:
        name = draw.choice(sorted(WORDS))
        some = draw.sample(WORDS[name], draw.randint(1, len(WORDS[name]) - 1))
        return (
            {"field": name, "op": "in", "value": some}
            if len(some) > 1
            else {"field": name, "op": "equals", "value": some[0]}
        )
    name = draw.choice(sorted(NUMBERS))
    low = round(NUMBERS[name] * draw.random(), 2)
    op = draw.choice(("gt", "gte", "lt", "lte", "between"))
    return {"field": name, "op": op, "value": [low, round(low + 2 * NUMBERS[name], 2)] if op == "between" else low}


def dicts(columns: Columns, n: int) -> list[dict[str, Any]]:
    """The first customers as the peers get them."""
    listed = {name: column[:n].tolist() for name, column in columns.items()}
    listed |= {name: [bool(value) for value in listed[name]] for name in FLAGS}
    return [dict(zip(listed, values, strict=True)) for values in zip(*listed.values(), strict=True)]


def _gathered(customers: list[dict[str, Any]]) -> Columns:
    """Columns out of dicts."""
    n = len(customers)
    return {
        name: np.fromiter((one[name] for one in customers), object if name in WORDS else np.float64, n)
        for name in FIELDS
    }


def _best(work: Callable[[], Any], seconds: float) -> float:
    """Processor seconds that the fastest of several goes took."""
    best, end = float("inf"), time.process_time() + seconds
    while True:
        begin = time.process_time()
        work()
        now = time.process_time()
        best = min(best, now - begin)
        if now >= end:
            return best


def _many(asked: list[CompiledCondition], columns: Columns, n: int) -> Callable[[], Any]:
    return lambda: evaluate_all(asked, columns, n)


def _small(asked: list[CompiledCondition], columns: Columns, size: int, goes: int) -> Callable[[], Any]:
    """One batch after the other, each with columns of its own."""
    parts = [{name: column[i : i + size] for name, column in columns.items()} for i in range(0, size * goes, size)]

    def work() -> None:
        for part in parts:
            batch = Batch(part, size)
            for one in asked:
                one.evaluate(batch, size)

    return work


def _small_from_dicts(
    asked: list[CompiledCondition], customers: list[dict[str, Any]], size: int, goes: int
) -> Callable[[], Any]:
    def work() -> None:
        for i in range(0, size * goes, size):
            part = customers[i : i + size]
            alone = {name: (value,) for name, value in part[0].items()} if size == 1 else _gathered(part)
            batch = Batch(alone, size)
            for one in asked:
                one.evaluate(batch, size)

    return work


def ours(asked: list[CompiledCondition], columns: Columns, seconds: float) -> dict[str, dict[str, float]]:
    """Evaluations per second, by how the customers came and how many at once."""
    n, people = len(columns["orders"]), dicts(columns, 2_000)
    gaps, told = with_gaps(columns), {}
    for name, given in (
        ("ours", coded(columns)),
        ("ours, labels as objects", columns),
        ("ours, with gaps", coded(gaps)),
    ):
        told[name] = {
            "single": RULES * 500 / _best(_small(asked, given, 1, 500), seconds),
            "micro": RULES * MICRO * 10 / _best(_small(asked, given, MICRO, 10), seconds),
            "many": RULES * n / _best(_many(asked, given, n), seconds),
        }
    told["ours, from dicts"] = {
        "single": RULES * 500 / _best(_small_from_dicts(asked, people, 1, 500), seconds),
        "micro": RULES * MICRO * 10 / _best(_small_from_dicts(asked, people, MICRO, 10), seconds),
    }
    return told


@contextmanager
def interpreter(named: str | None) -> Iterator[str]:
    """A Python that has the peers: the one named, or one made now and thrown away."""
    if named:
        yield named
        return
    folder = Path(tempfile.mkdtemp(prefix="opagent-peers-"))
    try:
        subprocess.run([getattr(sys, "_base_executable", sys.executable), "-m", "venv", str(folder)], check=True)
        python = str(folder / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *PEERS], check=True)
        yield python
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def peers(python: str, asked: list[CompiledCondition], columns: Columns, seconds: float) -> dict[str, Any]:
    task = {
        "rules": [one.condition.to_dict() for one in asked], "customers": dicts(columns, PEER_CUSTOMERS),
        "sample": SAMPLE, "seconds": seconds,
    }  # fmt: skip
    script = Path(__file__).with_name("rules_peers.py")
    done = subprocess.run(
        [python, "-I", str(script)], input=json.dumps(task), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"the peers could not run: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def agree(asked: list[CompiledCondition], columns: Columns, told: dict[str, Any]) -> dict[str, Any]:
    """Every answer for the sample, ours as a batch and one by one, against every peer's. Raises SystemExit."""
    few = {name: column[:SAMPLE] for name, column in columns.items()}
    together = [one.matched for one in evaluate_all(asked, few, SAMPLE)]
    answers = ["".join("1" if mask[row] else "0" for mask in together) for row in range(SAMPLE)]
    alone = Batch(few, SAMPLE)
    single = ["".join("1" if one.outcome(alone.row(row)) else "0" for one in asked) for row in range(SAMPLE)]
    for name, given in {"ours, one by one": single, **{name: one["answers"] for name, one in told.items()}}.items():
        differ = sum(
            a != b for ours_, theirs in zip(answers, given, strict=True) for a, b in zip(ours_, theirs, strict=True)
        )
        if differ:
            raise SystemExit(f"{name} gives {differ} of {SAMPLE * RULES} answers differently: nothing to compare")
    held = sum(row.count("1") for row in answers)
    return {"answers": SAMPLE * RULES, "true": held, "contestants": ["ours", "ours, one by one", *told]}


def measure(customers: int, seconds: float, python: str | None) -> dict[str, Any]:
    asked, columns = rules(), shop(customers)
    with interpreter(python) as with_peers:
        told = peers(with_peers, asked, columns, seconds)
    agreed = agree(asked, columns, told)
    mine = ours(asked, columns, seconds)
    zen = told["zen-engine"]["rate"]
    return {
        "customers": customers, "rules": RULES, "conditions": sum(len(leaves(one.condition)) for one in asked),
        "cpus": os.cpu_count(), "agreed": agreed, "ours": mine,
        "peers": {name: one["rate"] for name, one in told.items()},
        "of_zen": {name: {kind: value / zen for kind, value in rates.items()} for name, rates in mine.items()},
        "aims": {"many": AIM_MANY, "micro": AIM_MICRO},
    }  # fmt: skip


def show(result: dict[str, Any], console: Console) -> None:
    zen, agreed = result["peers"]["zen-engine"], result["agreed"]
    table = Table(
        title=f"{result['rules']} rules, {result['conditions']} conditions; million evaluations/s (x zen-engine)"
    )
    many = f"{result['customers']:,} customers"
    for column in ("", "one customer", f"micro-batches of {MICRO}", many):
        table.add_column(column, justify="left" if not column else "right")
    for name, rates in result["ours"].items():
        cells = (f"{rates[kind] / 1e6:,.2f} ({rates[kind] / zen:,.1f})" if kind in rates else "" for kind in KINDS)
        table.add_row(name, *cells, end_section=name == list(result["ours"])[-1])
    for name, rate in result["peers"].items():
        table.add_row(name, *[f"{rate / 1e6:,.2f} ({rate / zen:,.2f})"] * 3)
    console.print(table)
    mine, each = result["of_zen"]["ours"], zen / result["peers"]["zen-engine, one by one"]
    console.print(
        f"{agreed['answers']:,} answers compared first, {agreed['true']:,} of them true: all contestants agree."
        f" Aims: micro-batches >= {AIM_MICRO:g} x zen-engine ({mine['micro']:.1f}; {mine['micro'] * each:.0f} x one"
        f" compiled expression a rule), a million >= {AIM_MANY:g} x ({mine['many']:.0f}; {mine['many'] * each:.0f} x)."
    )


KINDS = ("single", "micro", "many")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.rules", description=__doc__)
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each figure")
    parser.add_argument("--peers", help="a Python that has the peers installed; else one is made for this run")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    result = measure(options.customers, options.seconds, options.peers)
    if options.json:
        print(json.dumps(result))
    else:
        show(result, Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
