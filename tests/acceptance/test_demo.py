"""The demonstration: it says what it did, twice the same, and once more the same while its processes are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.acceptance.running import COMPONENTS, Running, clean_environment, eventually
from tests.acceptance.test_up import remove

pytestmark = pytest.mark.acceptance

DAYS = "4"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("demo") / "data")
    try:
        running.await_ready()
        yield running
    finally:
        running.stop()
        remove(running.data_dir)


def demo(data_dir: Path) -> dict[str, Any]:
    made = subprocess.run(
        [sys.executable, "-P", "-m", "cli", "demo", "--no-serve", "--json", "--days", DAYS],
        env=clean_environment(data_dir), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[-4000:]
    return json.loads(made.stdout)


def rounded(value: Any, digits: int) -> Any:
    """Floats to so many significant digits: a sum in another order differs in the last of sixteen."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {key: rounded(one, digits) for key, one in value.items()}
    return [rounded(one, digits) for one in value] if isinstance(value, list) else value


def tables(report: dict[str, Any]) -> dict[str, Any]:
    """What the tables say, without what is new each time: ids, clock times, latencies.

    The shop's clock runs on while it is grouped, so a profile's days differ by the seconds the import took.
    """
    decisions = [{key: row[key] for key in ("strategy", "verdict", "number")} for row in report["decisions"]]
    clusters = [{key: one[key] for key in ("label_key", "size", "profile")} for one in report["clustering"]["clusters"]]
    return {
        "rows": {key: report["rows"][key] for key in ("read", "accepted", "duplicates", "rejected")},
        "clusters": rounded(sorted(clusters, key=lambda one: one["label_key"]), 3),
        "decisions": sorted(decisions, key=lambda row: (row["strategy"], row["verdict"])),
        "actions": sorted(report["actions"], key=lambda row: json.dumps(row, sort_keys=True)),
        "effects": rounded(sorted(report["effects"], key=lambda row: (row["strategy"], row["metric"])), 9),
        "counts": {
            key: value
            for key, value in report["simulator"]["counts"].items()
            if key not in ("repeated_calls", "duplicate_messages")
        },
        "totals": report["simulator"]["totals"],
    }


class Killer(threading.Thread):
    """Kills every component of the stack once, one after the other, with a pause in which it comes back."""

    def __init__(self, stack: Running, pause: float):
        super().__init__(daemon=True)
        self.stack, self.pause, self.halt = stack, pause, threading.Event()
        self.killed: list[str] = []

    def run(self) -> None:
        for name in COMPONENTS:
            if self.halt.wait(self.pause):
                return
            os.kill(eventually(lambda n=name: self._alive(n), within=30, what=f"{name} runs"), signal.SIGKILL)
            self.killed.append(name)

    def _alive(self, name: str) -> int | None:
        """Its pid; None while it is being started again."""
        pid = self.stack.pids().get(name)
        return pid if pid is not None and psutil.pid_exists(pid) else None


@pytest.fixture(scope="module")
def undisturbed(stack: Running) -> dict[str, Any]:
    return demo(stack.data_dir)


def test_every_stage_did_something_and_says_so(undisturbed):
    assert undisturbed["rows"]["read"] == 69_659
    assert undisturbed["rows"]["rejected"] == 0
    assert undisturbed["clustering"]["customers"] == 23_570
    assert {one["state"] for one in undisturbed["strategies"]} == {"live"}
    verdicts = {row["verdict"] for row in undisturbed["decisions"]}
    assert {"act", "holdout", "no_consent"} <= verdicts
    sent = {row["channel"] for row in undisturbed["actions"] if row["state"] == "sent" and not row["held_out"]}
    assert sent == {"email", "coupon"}
    assert any(effect["estimate"] is not None and effect["truth"] is not None for effect in undisturbed["effects"])
    assert undisturbed["simulator"]["replay_agrees"] is True


def test_held_out_customers_received_nothing(undisturbed):
    counts = undisturbed["simulator"]["counts"]
    emails = sum(
        row["number"]
        for row in undisturbed["actions"]
        if row["channel"] == "email" and row["state"] == "sent" and not row["held_out"]
    )
    assert counts["messages"] == emails
    assert counts["messages_to_strangers"] == 0
    assert counts["duplicate_messages"] == 0


def test_the_tables_are_the_same_while_every_process_is_killed_in_turn(stack, undisturbed):
    killer = Killer(stack, pause=2.5)
    killer.start()
    try:
        disturbed = demo(stack.data_dir)
    finally:
        killer.halt.set()
        killer.join()
    assert killer.killed == list(COMPONENTS), f"too quick to be disturbed: only {killer.killed}"
    expected = tables(undisturbed)
    for name, table in tables(disturbed).items():
        assert table == expected[name], name
    assert disturbed["simulator"]["counts"]["duplicate_messages"] == 0
