"""Processes that belong to us: recorded by pid and start time, so that a recycled pid is never signalled."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def started_at(process: psutil.Process) -> float:
    """When the process started, in seconds since boot: unlike the wall clock's answer, it never shifts."""
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_text()
    except FileNotFoundError:
        if sys.platform == "linux":
            raise psutil.NoSuchProcess(process.pid) from None
        return process.create_time()
    return int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class OwnedProcess:
    pid: int
    started: float
    name: str

    @classmethod
    def of(cls, pid: int, name: str) -> OwnedProcess:
        return cls(pid, started_at(psutil.Process(pid)), name)

    def alive(self) -> psutil.Process | None:
        """The live process, or None when it has gone or the pid is somebody else's now."""
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            process = psutil.Process(self.pid)
            if abs(started_at(process) - self.started) < 0.02 and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


def die_with_parent(how: signal.Signals) -> Callable[[], None]:
    """For Popen's preexec_fn: the kernel sends `how` to the child when the thread that started it ends.

    So a supervisor that is killed leaves nothing behind. Only on Linux; elsewhere the next start finds the leftovers.
    """
    parent = os.getpid()

    def arm() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(how), 0, 0, 0)
            if os.getppid() != parent:  # it died before we could ask
                os._exit(1)

    return arm


def remember(path: Path, processes: list[OwnedProcess]) -> None:
    """Write the list so that a reader sees the old or the new one, never half of it."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps([[p.pid, p.started, p.name] for p in processes]))
    temporary.replace(path)


def recall(path: Path) -> list[OwnedProcess]:
    try:
        return [
            OwnedProcess(int(pid), float(started), str(name)) for pid, started, name in json.loads(path.read_text())
        ]
    except (OSError, ValueError, TypeError):
        return []


def stop(process: psutil.Process, *, grace: float) -> None:
    """TERM the process and its children, then KILL what is left after `grace` seconds."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [process, *process.children(recursive=True)]
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
        _, left = psutil.wait_procs(family, timeout=grace)
        kill(left)


def kill(processes: list[psutil.Process]) -> None:
    """KILL, and wait until they have gone."""
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(processes, timeout=2)


def members(session_id: int, *, marked: str) -> list[psutil.Process]:
    """What still runs in a session whose leader was ours, and has `marked` (NAME=value) in its environment."""
    name, _, value = marked.partition("=")
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == session_id and process.environ().get(name) == value:
                found.append(process)
    return found
