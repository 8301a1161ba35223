"""The embedded servers: any data folder, taken over after a crash, nothing of anybody else's touched."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg
import pytest

from embedded.folders import our_folder
from embedded.postgres import EmbeddedPostgres
from embedded.redis import EmbeddedRedis
from operation_agent.kit.errors import Rejected

pytestmark = pytest.mark.integration


@pytest.fixture
def postgres_in(tmp_path):
    """Makes servers in folders below tmp_path, and removes them afterwards."""
    made: list[EmbeddedPostgres] = []

    def make(folder: Path, durable: bool = False) -> EmbeddedPostgres:
        made.append(EmbeddedPostgres(folder, durable=durable))
        return made[-1]

    yield make
    for server in made:
        server.destroy()


def one(server: EmbeddedPostgres, query: str):
    with psycopg.connect(server.url) as connection:
        return connection.execute(query).fetchone()[0]


@pytest.mark.parametrize("name", ["with a space", "a" * 200, "逗号, ' \" %41"])
def test_any_folder_name_will_do(tmp_path, postgres_in, name):
    folder = tmp_path / name
    server = postgres_in(folder)
    server.start()
    assert one(server, "SELECT current_user || 1") == "opagent1"
    redis = EmbeddedRedis(folder)
    redis.start()
    assert redis.answers()
    redis.stop()


def test_the_application_role_is_bound_by_row_level_security(tmp_path, postgres_in):
    server = postgres_in(tmp_path / "data")
    server.start()
    assert one(server, "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user") is False


def test_a_folder_that_was_deleted_does_not_meet_its_old_database_again(tmp_path, postgres_in):
    folder = tmp_path / "data"
    first = postgres_in(folder)
    first.start()
    with psycopg.connect(first.url) as connection:
        connection.execute("CREATE TABLE old (x int)")
    first.stop()
    shutil.rmtree(folder)
    second = postgres_in(folder)
    second.start()
    assert one(second, "SELECT to_regclass('old') IS NULL") is True


def test_a_server_whose_postmaster_was_killed_starts_again_with_its_data(tmp_path, postgres_in):
    server = postgres_in(tmp_path / "data", durable=True)
    pid = server.start()
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS x")
    os.kill(pid, signal.SIGKILL)
    assert server.start() != pid
    assert one(server, "SELECT x FROM kept") == 7


def test_a_second_start_takes_over_the_server_of_the_first(tmp_path, postgres_in):
    first = postgres_in(tmp_path / "data")
    pid = first.start()
    second = postgres_in(tmp_path / "data")
    assert second.start() != pid
    assert first.ended() is not None
    assert one(second, "SELECT 1") == 1


def test_servers_end_with_the_process_that_started_them(tmp_path, postgres_in):
    program = (
        "import pathlib, sys, time\n"
        "from embedded.postgres import EmbeddedPostgres\nfrom embedded.redis import EmbeddedRedis\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "a = EmbeddedPostgres(folder, durable=False, dies_with_parent=True).start()\n"
        "b = EmbeddedRedis(folder, dies_with_parent=True).start()\n"
        "print(a, b, flush=True)\ntime.sleep(600)\n"
    )
    folder = tmp_path / "data"
    postgres_in(folder)  # removes it in the end
    with subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.kill()
    gone, left = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=8)
    assert left == [], gone


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Rejected, match="OPAGENT_DATA_DIR"):
        EmbeddedPostgres(tmp_path / "file" / "data").start()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a folder of somebody else's")
def test_a_folder_of_somebody_else_in_a_shared_place_is_refused(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    theirs = shared / "opagent-0-x"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    with pytest.raises(Rejected, match="somebody else"):
        our_folder(theirs)


@pytest.mark.skipif(os.geteuid() != 0, reason="root's own way to start PostgreSQL")
def test_as_root_no_folder_of_ours_becomes_readable_for_others(tmp_path, postgres_in):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    server = postgres_in(home / "data")
    server.start()
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "data").stat().st_mode & 0o777 == 0o700
    assert server.home.stat().st_mode & 0o077 == 0
    assert psutil.Process(server.running().pid).uids().effective != 0


def test_stopping_takes_less_than_five_seconds_with_open_sessions(tmp_path, postgres_in):
    server = postgres_in(tmp_path / "data")
    server.start()
    connections = [psycopg.connect(server.url) for _ in range(5)]
    started = time.monotonic()
    server.stop()
    assert time.monotonic() - started < 5
    for connection in connections:
        connection.close()
