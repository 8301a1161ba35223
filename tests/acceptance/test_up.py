"""`opagent up` keeps its promises: one banner, restarts, nothing lost, nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import text

from embedded.postgres import ROOT_HOME
from operation_agent.store.engine import connect
from operation_agent.store.session import for_shop, for_system
from operation_agent.store.shops import find_shop
from tests.acceptance.running import (
    CHILDREN,
    COMPONENTS,
    Running,
    clean_environment,
    eventually,
    opagent,
    still_running,
)

pytestmark = pytest.mark.acceptance


def remove(data_dir: Path) -> None:
    """The data folder, and where PostgreSQL lives when root started it."""
    if os.geteuid() == 0 and (data_dir / "postgres.id").exists():
        shutil.rmtree(ROOT_HOME / (data_dir / "postgres.id").read_text(), ignore_errors=True)
    shutil.rmtree(data_dir, ignore_errors=True)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("up") / "the data"
    yield path
    remove(path)


@pytest.fixture(scope="module")
def stack(data_dir: Path) -> Iterator[Running]:
    running = Running(data_dir)
    try:
        running.await_ready()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def key(stack: Running) -> str:
    """A write key of the shop `acme`, made by the command line while the stack runs."""
    made = opagent(stack.data_dir, "shop", "create", "acme", "--currency", "USD", "--json")
    assert made.returncode == 0, made.stderr
    printed = opagent(stack.data_dir, "key", "create", "--shop", "acme", "--scopes", "events:write", "--json")
    assert printed.returncode == 0, printed.stderr
    return json.loads(printed.stdout)["key"]


class Sender(threading.Thread):
    """A shop that goes on sending, one event after the other, each until it is accepted, as the Segment SDKs do."""

    def __init__(self, url: str, key: str, *, name: str):
        super().__init__(daemon=True)
        self.client = httpx.Client(base_url=url, auth=(key, ""), timeout=20)
        self.prefix, self.accepted, self.retries = name, 0, 0
        self.refused: list[str] = []
        self.halt = threading.Event()

    def run(self) -> None:
        while not self.halt.is_set():
            message = {
                "messageId": f"{self.prefix}-{self.accepted}", "userId": f"{self.prefix}-{self.accepted % 17}",
                "event": "Product Viewed", "properties": {"product_id": f"p{self.accepted % 5}"},
            }  # fmt: skip
            if self._deliver(message):
                self.accepted += 1
            time.sleep(0.02)

    def _deliver(self, message: dict) -> bool:
        while True:
            try:
                answer = self.client.post("/v1/track", json=message)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == 200:
                return True
            if answer is not None and answer.status_code < 500 and answer.status_code != 429:
                self.refused.append(answer.text)
                return False
            self.retries += 1
            time.sleep(0.1)

    def finish(self) -> int:
        """Stop after the event in hand; how many were accepted."""
        self.halt.set()
        self.join(timeout=60)
        assert not self.is_alive()
        self.client.close()
        assert self.refused == []
        return self.accepted


def counts(stack: Running, prefix: str) -> dict[str, int]:
    """What the database holds of one sender's events, and what it has not done yet."""
    engine = connect(stack.info()["database_url"], pool_size=1)
    try:
        with for_system(engine) as session:
            shop = find_shop(session, "acme").id
        with for_shop(engine, shop) as session:
            row = session.execute(
                text(
                    "SELECT (SELECT count(*) FROM events WHERE source_id LIKE :p) AS events,"
                    " (SELECT count(*) FROM timeline JOIN events ON events.id = event_id WHERE source_id LIKE :p)"
                    " AS timeline,"
                    " (SELECT count(*) FROM identities WHERE kind = 'external' AND value LIKE :p) AS identities,"
                    " (SELECT count(*) FROM event_queue) AS queued,"
                    " (SELECT count(*) FROM event_failures) AS failures"
                ),
                {"p": f"{prefix}-%"},
            ).one()
            return dict(row._mapping)
    finally:
        engine.dispose()


def test_the_files_that_hold_secrets_are_private(stack):
    for name in ("admin.json", "secret.key", "stack.json"):
        assert stat.S_IMODE((stack.data_dir / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE(stack.data_dir.stat().st_mode) == 0o700


def test_the_first_log_in_is_the_one_of_admin_json(stack):
    admin = json.loads((stack.data_dir / "admin.json").read_text())
    assert set(admin) == {"email", "password"}
    wrong = httpx.post(f"{stack.url}/api/session", json={**admin, "password": "x" * 20}, timeout=20)
    right = httpx.post(f"{stack.url}/api/session", json=admin, timeout=20)
    assert (wrong.status_code, right.is_success) == (401, True), right.text


def test_the_banner_is_printed_once(stack):
    assert stack.log.read_text().count("ready: http://") == 1


def test_a_second_up_on_the_same_data_folder_is_a_clear_error(stack):
    second = opagent(stack.data_dir, "up", "--port", "0")
    assert second.returncode == 1
    assert "in use by process" in second.stderr and "OPAGENT_DATA_DIR" in second.stderr
    assert "Traceback" not in second.stderr
    assert stack.is_ready()


def test_a_port_that_is_taken_is_a_clear_error(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        started = opagent(tmp_path / "other", "up", "--port", str(port))
    assert started.returncode == 2
    assert f":{port}" in started.stderr and "OPAGENT_PORT" in started.stderr and str(os.getpid()) in started.stderr
    assert "Traceback" not in started.stderr


def test_doctor_finds_nothing_wrong_with_a_running_stack(stack):
    looked = opagent(stack.data_dir, "doctor", "--json")
    findings = {one["check"]: one for one in json.loads(looked.stdout)}
    assert [one for one in findings.values() if one["level"] == "fail"] == []
    assert looked.returncode == 0
    assert {"python", "disk", "port", "postgresql", "tenancy", "migrations", "redis", "worker"} <= set(findings)


def test_an_event_over_http_is_processed(stack, key):
    sender = Sender(stack.url, key, name="first")
    sender.start()
    time.sleep(1)
    sent = sender.finish()
    eventually(lambda: counts(stack, "first")["timeline"] == sent, within=30, what="all processed: " + stack.tail())
    assert counts(stack, "first") == {
        "events": sent, "timeline": sent, "identities": min(sent, 17), "queued": 0, "failures": 0
    }  # fmt: skip


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_that_is_killed_comes_back_and_no_event_is_lost_or_doubled(stack, key, component):
    sender = Sender(stack.url, key, name=f"kill-{component}")
    sender.start()
    time.sleep(0.5)
    killed = stack.pids()[component]
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: stack.pids()[component] != killed, within=20, what=f"{component} restarted: {stack.tail()}")
    eventually(stack.is_ready, within=60, what=f"ready after {component} was killed: {stack.tail()}")
    time.sleep(1)
    sent = sender.finish()
    eventually(
        lambda: counts(stack, sender.prefix)["timeline"] >= sent, within=60, what=f"all processed: {stack.tail()}"
    )
    found = counts(stack, sender.prefix)
    assert found == {"events": sent, "timeline": sent, "identities": min(sent, 17), "queued": 0, "failures": 0}
    assert f"{component} " in stack.log.read_text()


def test_sigterm_leaves_no_process_behind(tmp_path):
    data_dir = tmp_path / "data"
    running = Running(data_dir)
    try:
        running.await_ready()
        family = running.family()
        assert len(family) >= len(COMPONENTS)
        started = time.monotonic()
        assert running.stop(within=10) == 0
        assert time.monotonic() - started < 10
        assert still_running(family) == []
        assert not (data_dir / "stack.json").exists() and not (data_dir / "children.json").exists()
    finally:
        running.stop()
        remove(data_dir)


def test_a_start_after_kill_9_of_the_supervisor_takes_over(tmp_path):
    data_dir = tmp_path / "data"
    first = Running(data_dir)
    second = None
    try:
        first.await_ready()
        assert opagent(data_dir, "shop", "create", "kept", "--currency", "CNY").returncode == 0
        admin = (data_dir / "admin.json").read_text()
        family = first.family()
        first.process.kill()
        first.process.wait()
        second = Running(data_dir)
        second.await_ready()
        assert still_running(family) == []
        assert "kept" in opagent(data_dir, "shop", "list", "--json").stdout
        assert (data_dir / "admin.json").read_text() == admin
    finally:
        for running in (first, second):
            if running is not None:
                running.stop()
        remove(data_dir)


def test_given_servers_are_used_instead_of_embedded_ones(tmp_path, database_url, redis_server):
    data_dir = tmp_path / "data"
    given = {
        "OPAGENT_DATABASE_URL": database_url, "OPAGENT_REDIS_URL": redis_server.url,
        "OPAGENT_BROKER_URL": redis_server.broker_url,
    }  # fmt: skip
    running = Running(data_dir, environment=clean_environment(data_dir, **given))
    try:
        running.await_ready()
        assert set(running.pids()) == set(CHILDREN)
        assert not (data_dir / "postgres.id").exists()
        looked = opagent(data_dir, "doctor", "--json", **given)
        assert [one for one in json.loads(looked.stdout) if one["level"] == "fail"] == []
    finally:
        running.stop()
    assert redis_server.answers(), "servers that were given are not ours to stop"


def test_a_command_without_a_running_stack_uses_the_embedded_database_for_its_own_length(tmp_path):
    data_dir = tmp_path / "data"
    try:
        assert opagent(data_dir, "shop", "create", "alone", "--currency", "EUR").returncode == 0
        listed = opagent(data_dir, "shop", "list", "--json")
        assert [shop["slug"] for shop in json.loads(listed.stdout)] == ["alone"]
        assert [p for p in psutil.process_iter() if _holds(p, data_dir)] == []
    finally:
        remove(data_dir)


def _holds(process: psutil.Process, data_dir: Path) -> bool:
    try:
        home = (data_dir / "postgres.id").read_text()
        return any(home in part or str(data_dir) in part for part in process.cmdline())
    except psutil.Error:
        return False


def test_wrong_input_is_one_line_and_never_a_traceback(tmp_path):
    nowhere = opagent(tmp_path / "d", "shop", "list", OPAGENT_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    wrong = opagent(tmp_path / "d", "shop", "list", OPAGENT_PORT="many")
    for failed, code in ((nowhere, 1), (wrong, 2)):
        assert failed.returncode == code
        assert len(failed.stderr.strip().splitlines()) == 1, failed.stderr
        assert failed.stderr.startswith("opagent: ")


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, to be another user")
def test_it_works_as_an_ordinary_user():
    checkout = Path(__file__).parent.parent.parent
    home = Path(tempfile.mkdtemp(prefix="opagent-user-"))
    os.chown(home, 1, 1)
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    environment = clean_environment(home / "data", HOME=str(home), PYTHONPATH=f"{checkout}:{packages}")
    command = _python_of_an_ordinary_user(home, environment)
    running = Running(home / "data", command=command, environment=environment)
    try:
        running.await_ready()
        family = running.family()
        assert {process.uids().effective for process in family} == {1}
        assert running.stop() == 0
        assert still_running(family) == []
    finally:
        running.stop()
        shutil.rmtree(home, ignore_errors=True)


def _python_of_an_ordinary_user(home: Path, environment: dict[str, str]) -> list[str]:
    """Our Python run as the user 1; where that may not enter its folder (a version manager's below /root), from a
    place where it is bound for this process only."""
    become = ["setpriv", "--reuid=1", "--regid=1", "--clear-groups"]
    bind = 'mount --bind "$0" "$1" && shift && exec "$@"'
    bound = home / "python"
    bound.mkdir()
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for command in (
        [*become, sys.executable],
        ["unshare", "-m", "sh", "-c", bind, sys.base_prefix, str(bound), "env", f"LD_LIBRARY_PATH={bound / 'lib'}",
         *become, str(bound / "bin" / version)],
    ):  # fmt: skip
        tried = subprocess.run(
            [*command, "-P", "-c", "import cli.main, numpy, psycopg, redis"], env=environment, cwd="/",
            capture_output=True, check=False,
        )  # fmt: skip
        if tried.returncode == 0:
            return command
    shutil.rmtree(home, ignore_errors=True)
    pytest.skip(f"no ordinary user may run this Python: {tried.stderr.decode()[-300:]}")
