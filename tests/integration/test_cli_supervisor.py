"""The supervisor restarts what dies, with a growing pause, and stops all that it and its parts started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cli.parts import Child
from cli.supervisor import Supervisor, stop_leftovers
from embedded.owned import OwnedProcess, recall, remember

pytestmark = pytest.mark.integration

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
WITH_A_CHILD = [
    sys.executable, "-c",
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "print('up', flush=True); time.sleep(600)",
]  # fmt: skip


class Lines:
    def __init__(self):
        self.all: list[tuple[str, str]] = []

    def __call__(self, part: str, line: str) -> None:
        self.all.append((part, line))

    def of(self, part: str) -> list[str]:
        return [line for name, line in self.all if name == part]


def eventually(condition, *, within: float = 10):
    end = time.monotonic() + within
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def child(name: str, command: list[str], folder: Path, say: Lines) -> Child:
    return Child(name, command, {**os.environ, "OPAGENT_DATA_DIR": str(folder)}, folder, say)


@pytest.fixture
def say():
    return Lines()


def test_a_part_that_is_killed_is_started_again_and_said_so(tmp_path, say):
    supervisor = Supervisor([([child("one", SLEEP, tmp_path, say)], lambda: None)], tmp_path / "children.json", say)
    supervisor.start()
    try:
        first = supervisor.pids()["one"]
        assert eventually(lambda: say.of("one") == ["up"])
        os.kill(first, signal.SIGKILL)
        assert eventually(lambda: supervisor.pids()["one"] != first and psutil.pid_exists(supervisor.pids()["one"]))
        assert any("one was killed by SIGKILL" in line for line in say.of("supervisor"))
        assert eventually(lambda: say.of("one") == ["up", "up"])
    finally:
        supervisor.stop()
    assert not psutil.pid_exists(first)


def test_the_pause_before_a_restart_doubles(tmp_path, say):
    failing = child("one", [sys.executable, "-c", "raise SystemExit(3)"], tmp_path, say)
    supervisor = Supervisor([([failing], lambda: None)], tmp_path / "children.json", say)
    supervisor.start()
    assert eventually(lambda: len(say.of("supervisor")) >= 3)
    supervisor.stop()
    pauses = [line.rsplit(" in ", 1)[1] for line in say.of("supervisor")[:3]]
    assert pauses == ["0.2 s", "0.4 s", "0.8 s"]
    assert "ended with exit code 3" in say.of("supervisor")[0]


def test_what_a_killed_part_had_started_goes_with_it(tmp_path, say):
    supervisor = Supervisor([([child("one", WITH_A_CHILD, tmp_path, say)], lambda: None)], tmp_path / "c.json", say)
    supervisor.start()
    try:
        first = psutil.Process(supervisor.pids()["one"])
        assert eventually(lambda: len(first.children()) == 1)
        (grandchild,) = first.children()
        first.kill()
        assert eventually(lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE)
    finally:
        supervisor.stop()


def test_a_part_that_ignores_the_request_to_stop_is_killed_in_time(tmp_path, say):
    stubborn = [
        sys.executable, "-c",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
    ]  # fmt: skip
    supervisor = Supervisor([([child("one", stubborn, tmp_path, say)], lambda: None)], tmp_path / "children.json", say)
    supervisor.start()
    assert eventually(lambda: say.of("one") == ["up"])
    process = psutil.Process(supervisor.pids()["one"])
    started = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - started < 8
    assert not process.is_running()
    assert not (tmp_path / "children.json").exists()


def test_a_failed_first_start_is_raised_and_leaves_nothing(tmp_path, say):
    def fail() -> None:
        raise ValueError("no")

    supervisor = Supervisor([([child("one", SLEEP, tmp_path, say)], fail)], tmp_path / "children.json", say)
    with pytest.raises(ValueError, match="no"):
        supervisor.start()
    assert not supervisor.alive()
    assert all(not psutil.pid_exists(pid) for pid in supervisor.pids().values())


def test_a_restart_can_be_asked_for(tmp_path, say):
    supervisor = Supervisor([([child("one", SLEEP, tmp_path, say)], lambda: None)], tmp_path / "children.json", say)
    supervisor.start()
    try:
        first = supervisor.pids()["one"]
        supervisor.restart("one", "runs but makes no progress")
        assert eventually(lambda: supervisor.pids()["one"] != first)
        assert any("one runs but makes no progress" in line for line in say.of("supervisor"))
    finally:
        supervisor.stop()


def test_a_follower_starts_anew_when_what_it_follows_was_restarted(tmp_path, say):
    parts = [child("one", SLEEP, tmp_path, say), child("two", SLEEP, tmp_path, say)]
    supervisor = Supervisor([(parts, lambda: None)], tmp_path / "c.json", say, followers={"one": ["two"]})
    supervisor.start()
    try:
        first = supervisor.pids()
        os.kill(first["two"], signal.SIGKILL)
        assert eventually(lambda: supervisor.pids()["two"] != first["two"])
        second = supervisor.pids()
        assert second["one"] == first["one"]
        os.kill(second["one"], signal.SIGKILL)
        assert eventually(lambda: supervisor.pids()["two"] != second["two"])
        assert any("two starts anew with one" in line for line in say.of("supervisor"))
    finally:
        supervisor.stop()


def test_leftovers_of_a_killed_supervisor_are_found_by_pid_and_start(tmp_path, say):
    environment = {**os.environ, "OPAGENT_DATA_DIR": str(tmp_path)}
    quiet = {"start_new_session": True, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(WITH_A_CHILD, env=environment, **quiet) as left, subprocess.Popen(SLEEP, **quiet) as foreign:
        record = tmp_path / "children.json"
        wrong = OwnedProcess.of(foreign.pid, "foreign")
        remember(record, [OwnedProcess.of(left.pid, "one"), OwnedProcess(wrong.pid, wrong.started - 5, "foreign")])
        leader = psutil.Process(left.pid)
        assert eventually(lambda: len(leader.children()) == 1)
        (grandchild,) = leader.children()
        left.kill()  # its child is left alone
        left.wait()
        stop_leftovers(record, marked=f"OPAGENT_DATA_DIR={tmp_path}", say=say)
        assert eventually(lambda: not psutil.pid_exists(grandchild.pid) or grandchild.status() == "zombie")
        assert foreign.poll() is None, "a recycled pid must never be signalled"
        assert recall(record) == []
        foreign.kill()
