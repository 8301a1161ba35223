"""The two kinds of part a stack is made of: a process of ours whose lines are passed on, and an embedded server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from embedded.owned import die_with_parent
from embedded.postgres import EmbeddedPostgres
from embedded.redis import EmbeddedRedis

Say = Callable[[str, str], None]
"""Takes the name of a part and one line of its output."""


class Part(Protocol):
    """Something the supervisor keeps running. `start` and `ended` are called from one thread only."""

    name: str

    def start(self, give_up: Callable[[], bool]) -> int:
        """Start it and return the pid to remember. Raises Retryable when it did not start."""
        ...

    def ended(self) -> str | None:
        """Why it is no longer running, or None while it is."""
        ...

    def ask_to_stop(self) -> None: ...

    def kill(self) -> None:
        """End it and all that it started, at once."""
        ...


@dataclass
class Server:
    """An embedded PostgreSQL or Redis: its data outlives it, so it is stopped with care."""

    name: str
    server: EmbeddedPostgres | EmbeddedRedis

    def start(self, give_up: Callable[[], bool]) -> int:
        return self.server.start(give_up=give_up)

    def ended(self) -> str | None:
        return self.server.ended()

    def ask_to_stop(self) -> None:
        self.server.stop(grace=3)

    def kill(self) -> None:
        self.server.stop(grace=3)


@dataclass
class Child:
    """A process of ours in a session of its own. Its output goes line by line to `say`."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    say: Say
    inherits: tuple[int, ...] = ()
    _process: subprocess.Popen | None = field(default=None, init=False, repr=False)

    def start(self, give_up: Callable[[], bool]) -> int:
        process = self._process = subprocess.Popen(
            self.command, env=dict(self.environment), cwd=self.folder, pass_fds=self.inherits, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )  # fmt: skip
        threading.Thread(target=self._pass_on, args=(process,), daemon=True, name=f"lines of {self.name}").start()
        return process.pid

    def ended(self) -> str | None:
        code = self._process.poll() if self._process else None
        if code is None:
            return None
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def ask_to_stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # the pool processes of a worker that was killed too
        self._process.wait(timeout=5)

    def _pass_on(self, process: subprocess.Popen) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self.say(self.name, line.decode(errors="replace").rstrip())
