"""Processes that belong to us: recorded by pid and start time, so that a recycled pid is never signalled."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class OwnedProcess:
    pid: int
    started: float
    name: str

    @classmethod
    def of(cls, pid: int, name: str) -> OwnedProcess:
        return cls(pid, psutil.Process(pid).create_time(), name)

    def alive(self) -> psutil.Process | None:
        """The live process, or None when it has gone or the pid is somebody else's now."""
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) < 0.02 and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


def remember(path: Path, processes: list[OwnedProcess]) -> None:
    """Write the list so that a reader sees the old or the new one, never half of it."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps([[p.pid, p.started, p.name] for p in processes]))
    temporary.replace(path)


def recall(path: Path) -> list[OwnedProcess]:
    try:
        return [
            OwnedProcess(int(pid), float(started), str(name))
            for pid, started, name in json.loads(path.read_text())
        ]
    except (OSError, ValueError):
        return []


def stop(process: psutil.Process, *, grace: float) -> None:
    """TERM the process and its children, then KILL what is left after `grace` seconds."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [process, *process.children(recursive=True)]
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
        _, left = psutil.wait_procs(family, timeout=grace)
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(left, timeout=2)
