"""`opagent up` as a person runs it: a process of its own in a data folder of its own, on a port that was free."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

CHILDREN = ("api", "worker", "relay", "scheduler")
COMPONENTS = (*CHILDREN, "redis", "postgres")


def clean_environment(data_dir: Path, **extra: str) -> dict[str, str]:
    """The caller's environment without its OPAGENT_ settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPAGENT_")}
    return {**kept, "OPAGENT_DATA_DIR": str(data_dir), **extra}


def opagent(data_dir: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "cli", *arguments], env=clean_environment(data_dir, **extra),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def eventually(condition: Callable[[], Any], *, within: float, what: str) -> Any:
    end = time.monotonic() + within
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {within:.0f} s: {what}")


class Running:
    """One `opagent up`. Its output goes to up.log beside the data folder."""

    def __init__(self, data_dir: Path, *, command: list[str] | None = None, environment: dict[str, str] | None = None):
        self.data_dir = data_dir
        self.log = data_dir.parent / "up.log"
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*(command or [sys.executable]), "-P", "-m", "cli", "up", "--port", "0"],
                env=environment or clean_environment(data_dir), stdout=output, stderr=output,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def await_ready(self, *, within: float = 90) -> None:
        eventually(lambda: self.process.poll() is not None or self.is_ready(), within=within, what=self.tail())
        assert self.process.poll() is None, self.tail()

    def is_ready(self) -> bool:
        try:
            return self.info()["pid"] == self.process.pid and self.get("/readyz").status_code == 200
        except (OSError, ValueError, httpx.TransportError):
            return False

    def info(self) -> dict[str, Any]:
        return json.loads((self.data_dir / "stack.json").read_text())

    @property
    def url(self) -> str:
        return self.info()["url"]

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=10)

    def pids(self) -> dict[str, int]:
        return {name: pid for pid, _, name in json.loads((self.data_dir / "children.json").read_text())}

    def family(self) -> list[psutil.Process]:
        """Every process of this stack: what it started, and what those started."""
        found = {process.pid: process for process in psutil.Process(self.process.pid).children(recursive=True)}
        for pid in self.pids().values():
            if psutil.pid_exists(pid):
                found[pid] = psutil.Process(pid)
                found.update({child.pid: child for child in found[pid].children(recursive=True)})
        return list(found.values())

    def stop(self, *, within: float = 10) -> int:
        """SIGTERM; the exit code. Fails when it takes longer than it may."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=within)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""


def still_running(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
