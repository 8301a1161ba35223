"""The data folder: who holds it, and which stack runs in it.

One process at a time holds `lock`; the kernel lets go of it when that process dies, however it dies. `stack.json`
says where the running stack's database and API are; it is believed only while the process that wrote it lives.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from embedded.folders import our_folder
from embedded.owned import OwnedProcess
from operation_agent.kit.clock import monotonic
from operation_agent.kit.errors import Conflict


@dataclass(frozen=True, slots=True)
class StackInfo:
    """A running stack: its supervisor (pid, start) and its addresses."""

    pid: int
    started: float
    url: str
    database_url: str
    redis_url: str
    broker_url: str


def write_private(path: Path, text: str) -> None:
    """Write a file only we may read, so that a reader sees the old or the new one, never half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    temporary.replace(path)


def announce(data_dir: Path, info: StackInfo) -> None:
    write_private(data_dir / "stack.json", json.dumps(asdict(info), indent=2))


def withdraw(data_dir: Path) -> None:
    (data_dir / "stack.json").unlink(missing_ok=True)


def running_stack(data_dir: Path) -> StackInfo | None:
    """The stack that runs in this data folder now, if any."""
    try:
        info = StackInfo(**json.loads((data_dir / "stack.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return info if OwnedProcess(info.pid, info.started, "supervisor").alive() else None


@contextmanager
def held(data_dir: Path, *, wait: float = 0) -> Iterator[None]:
    """Hold the data folder. Raises Conflict, naming the holder, when another process does for `wait` seconds."""
    our_folder(data_dir)
    with (data_dir / "lock").open("a+") as file:
        end = monotonic() + wait
        while not _locked(file.fileno()):
            if monotonic() >= end:
                file.seek(0)
                raise Conflict(
                    f"the data folder {data_dir} is in use by process {file.read().strip() or '?'};"
                    " stop that one, or set OPAGENT_DATA_DIR to another folder"
                )
            time.sleep(0.05)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
