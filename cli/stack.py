"""The whole stack on one machine: embedded servers (unless addresses are given), migrations, the first log-in, the
API, a Celery worker, the relay and the scheduler. `opagent up` runs it in the foreground, `opagent demo` around itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from cli import datafolder
from cli.liveness import Watch, answers
from cli.parts import Child, Part, Say, Server
from cli.supervisor import Supervisor, stop_leftovers
from embedded.owned import started_at
from embedded.postgres import EmbeddedPostgres
from embedded.redis import EmbeddedRedis
from operation_agent.kit.clock import SYSTEM, monotonic
from operation_agent.kit.errors import Conflict, Rejected, Retryable
from operation_agent.kit.secrets import secret_key
from operation_agent.kit.settings import Settings

_SHORT_WAIT = 15.0  # for a command that holds the data folder for its own length


class Stack:
    """A context manager: entering starts everything and waits until /readyz is green, leaving stops everything.

    `say(part, line)` gets every line of output. Raises Rejected, Conflict or Retryable with what to do.
    """

    def __init__(self, settings: Settings, say: Say):
        self.settings = settings
        self.data_dir = settings.data_dir.resolve()
        self.say = say
        self._cleanup = ExitStack()

    def __enter__(self) -> Stack:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        stack = datafolder.running_stack(self.data_dir)
        self._cleanup.enter_context(datafolder.held(self.data_dir, wait=0 if stack else _SHORT_WAIT))
        os.environ["OPAGENT_DATA_DIR"] = str(self.data_dir)  # marks everything that is started below
        self._take_over()
        secret_key(self.settings)
        self._listener = self._cleanup.enter_context(listen(self.settings))
        self.address = _reachable(self._listener)
        host = f"[{self.address[0]}]" if ":" in self.address[0] else self.address[0]
        self.url = f"http://{host}:{self.address[1]}"
        servers = self._servers()
        self.supervisor = Supervisor(
            [(servers, self._prepare_database), (self._children(), lambda: None)],
            self.data_dir / "children.json",
            self.say,
            # a worker that could not acknowledge its last message keeps waiting for it, and takes no other
            followers={"redis": ["worker"]},
        )
        self._cleanup.callback(datafolder.withdraw, self.data_dir)
        self._cleanup.callback(self.supervisor.stop)
        self.supervisor.start()
        watch = Watch(self.database_url, self.address, self.supervisor.restart)
        self._cleanup.callback(watch.stop)
        self._await_ready()
        watch.start()

    def stop(self) -> None:
        self._cleanup.close()

    def _take_over(self) -> None:
        marked = f"OPAGENT_DATA_DIR={self.data_dir}"
        stop_leftovers(self.data_dir / "children.json", marked=marked, say=self.say)
        EmbeddedRedis(self.data_dir).stop()
        if (self.data_dir / "postgres.id").exists():
            EmbeddedPostgres(self.data_dir).stop()

    def _servers(self) -> list[Part]:
        servers: list[Part] = []
        self.database_url = self.settings.database_url or ""
        if not self.database_url:
            postgres = EmbeddedPostgres(self.data_dir, dies_with_parent=True)
            self.database_url = postgres.url
            servers.append(Server("postgres", postgres))
        self.redis_url = self.settings.redis_url or ""
        self.broker_url = self.settings.broker_url or self.redis_url
        if not self.redis_url:
            redis = EmbeddedRedis(self.data_dir, dies_with_parent=True)
            self.redis_url, self.broker_url = redis.url, self.broker_url or redis.broker_url
            servers.append(Server("redis", redis))
        return servers

    def _children(self) -> list[Part]:
        environment = os.environ | {
            "OPAGENT_DATABASE_URL": self.database_url,
            "OPAGENT_REDIS_URL": self.redis_url,
            "OPAGENT_BROKER_URL": self.broker_url,
            "OPAGENT_HOST": self.settings.host,
            "OPAGENT_PORT": str(self.address[1]),
            "PYTHONUNBUFFERED": "1",
        }
        python = [sys.executable, "-P"]  # -P: what lies in the working folder is never imported
        worker = [
            *python, "-W", "ignore:You're running the worker",  # as root, it would say on every start
            "-m", "celery", "-q", "-A", "workers.app", "worker", "--loglevel", "WARNING", "--without-gossip",
            "--without-mingle", "--concurrency", str(self.settings.worker_concurrency),
        ]  # fmt: skip
        listener = self._listener.fileno()

        def child(name: str, command: list[str], inherits: tuple[int, ...] = ()) -> Child:
            return Child(name, command, environment, self.data_dir, self.say, inherits)

        return [
            child("api", [*python, "-m", "cli.serve", str(listener)], (listener,)),
            child("worker", worker),
            child("relay", [*python, "-m", "workers.relay"]),
            child("scheduler", [*python, "-m", "workers.schedule"]),
        ]

    def _prepare_database(self) -> None:
        from migrations.run import upgrade

        upgrade(self.database_url)
        make_first_user(self.database_url, self.data_dir)
        me = started_at(psutil.Process())
        datafolder.announce(
            self.data_dir,
            datafolder.StackInfo(os.getpid(), me, self.url, self.database_url, self.redis_url, self.broker_url),
        )

    def _await_ready(self, timeout: float = 60) -> None:
        end = monotonic() + timeout
        while monotonic() < end and self.supervisor.alive():
            if answers(self.address, "/readyz") == 200:
                return
            time.sleep(0.05)
        if self.supervisor.alive():
            raise Retryable(f"not ready after {timeout:.0f} s; {_what_is_missing(self.address)}")


def make_first_user(database_url: str, data_dir: Path) -> None:
    """The first log-in, when nobody can log in yet. Its password is in admin.json before the user exists, so that a
    crash between the two leaves neither a user without a password nor the other way round."""
    from operation_agent.access.users import create_user, list_users
    from operation_agent.store.engine import connect
    from operation_agent.store.session import for_system

    path = data_dir / "admin.json"
    engine = connect(database_url, pool_size=1)
    try:
        with for_system(engine) as session:
            if list_users(session):
                return
        if not path.exists():
            made = {"email": "admin@opagent.test", "password": secrets.token_urlsafe(18)}
            datafolder.write_private(path, json.dumps(made, indent=2) + "\n")
        admin = json.loads(path.read_text())
        with for_system(engine) as session, contextlib.suppress(Conflict):  # two stacks on one database
            create_user(session, admin["email"], admin["password"], SYSTEM.now())
    finally:
        engine.dispose()


def listen(settings: Settings) -> socket.socket:
    """The API's listening socket. Raises Rejected when the port is taken, saying by whom where that can be seen."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise Rejected(f"OPAGENT_HOST {settings.host!r} is not an address of this machine: {error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise Rejected(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}{_holder(settings.port)};"
            " stop that, or set OPAGENT_PORT (or --port) to another one, 0 for any"
        ) from None
    return listener


def _holder(port: int) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f", held by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""


def _reachable(listener: socket.socket) -> tuple[str, int]:
    """Where this machine reaches the socket: an address that means "all of them" is no destination."""
    host, port = listener.getsockname()[:2]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port


def _what_is_missing(address: tuple[str, int]) -> str:
    import http.client

    connection = http.client.HTTPConnection(*address, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return "/readyz says: " + connection.getresponse().read(500).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return "the API does not answer; see its lines above"
    finally:
        connection.close()
