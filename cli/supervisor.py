"""Keeps the parts of one stack running, in one thread that lives as long as they do.

A part that dies is started again after a pause that doubles from 0.2 s to 10 s and starts over once it has run for
30 s. Every part is started from the supervisor's thread, because the kernel ends a part when the thread that started
it ends (`embedded.owned.die_with_parent`); what even that leaves behind is in `children.json`, for the next start.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import SubprocessError

from cli.parts import Part, Say
from embedded.owned import OwnedProcess, kill, members, recall, remember, stop
from operation_agent.kit.clock import monotonic
from operation_agent.kit.errors import AgentError

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
HEALTHY_AFTER = 30.0
_TICK = 0.1
_GRACE = 4.0  # seconds a part has to finish what it is doing; all in all a stop takes less than ten


@dataclass
class _State:
    part: Part
    pause: float = FIRST_PAUSE
    started: float = 0.0
    due: float | None = None  # when to start it again; None while it runs
    deadline: float | None = None  # when to kill it, since it was asked to stop and has not
    reason: str = ""  # why it was asked to stop
    process: OwnedProcess | None = None


class Supervisor:
    """`phases` are started one after the other; each is a list of parts and what to do once they run.

    `followers` names the parts that are started anew after another one was.
    """

    def __init__(
        self,
        phases: Sequence[tuple[Sequence[Part], Callable[[], None]]],
        record: Path,
        say: Say,
        *,
        followers: Mapping[str, Sequence[str]] | None = None,
    ):
        self._phases = phases
        self._followers = followers or {}
        self._record = record
        self._say = say
        self._states: list[_State] = []
        self._wanted_restarts: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor")
        self._running = threading.Event()
        self.error: BaseException | None = None

    # -- from any thread --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything; returns when all parts were started once. Raises what kept the first start from working."""
        self._thread.start()
        self._running.wait()
        if self.error is not None:
            self._thread.join()
            raise self.error

    def request_stop(self) -> None:
        self._stopping.set()

    def stop(self) -> None:
        """Stop everything and wait until it has gone: less than ten seconds."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def restart(self, name: str, reason: str) -> None:
        """Have a part that runs stopped, or killed when it does not stop, and started again."""
        self._wanted_restarts.put((name, reason))

    def alive(self) -> bool:
        return self._thread.is_alive()

    def pids(self) -> dict[str, int]:
        return {s.part.name: s.process.pid for s in list(self._states) if s.process is not None}

    # -- in the supervisor's thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._start_phases()
            self._running.set()
            while not self._stopping.wait(_TICK):
                self._restart_wanted()
                for state in self._states:
                    self._tend(state)
        except BaseException as error:  # noqa: BLE001 - raised again by `start`, in the caller's thread
            self.error = error
        finally:
            self._stop_all()
            self._running.set()

    def _start_phases(self) -> None:
        for parts, afterwards in self._phases:
            for part in parts:
                state = _State(part)
                self._states.append(state)
                self._launch(state)
            if self._stopping.is_set():
                return
            afterwards()

    def _launch(self, state: _State) -> None:
        state.started, state.due = monotonic(), None
        pid = state.part.start(self._stopping.is_set)
        with contextlib.suppress(Exception):  # it may have ended already; the next look at it says so
            state.process = OwnedProcess.of(pid, state.part.name)
        remember(self._record, [s.process for s in self._states if s.process is not None])

    def _tend(self, state: _State) -> None:
        now = monotonic()
        if state.due is None:
            reason = state.part.ended()
            if reason is not None:
                self._plan_restart(state, state.reason or reason)
            elif state.deadline is not None and now >= state.deadline:
                state.part.kill()
        elif now >= state.due:
            try:
                self._launch(state)
            except (AgentError, OSError, SubprocessError) as error:
                self._plan_restart(state, f"did not start: {error}")
                return
            for name in self._followers.get(state.part.name, ()):
                self.restart(name, f"starts anew with {state.part.name}")

    def _plan_restart(self, state: _State, reason: str) -> None:
        now = monotonic()
        if now - state.started >= HEALTHY_AFTER:
            state.pause = FIRST_PAUSE
        state.part.kill()
        state.due, state.deadline, state.reason = now + state.pause, None, ""
        self._say("supervisor", f"{state.part.name} {reason}; it starts again in {state.pause:.1f} s")
        state.pause = min(state.pause * 2, LONGEST_PAUSE)

    def _restart_wanted(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                name, reason = self._wanted_restarts.get_nowait()
                for state in self._states:
                    if state.part.name == name and state.due is None and state.deadline is None:
                        state.deadline, state.reason = monotonic() + _GRACE, reason
                        state.part.ask_to_stop()

    def _stop_all(self) -> None:
        """The parts started last first: processes of ours together, then the servers they talk to."""
        for parts, _ in reversed(self._phases):
            running = [s.part for s in self._states if s.part in parts]
            for part in running:
                part.ask_to_stop()
            end = monotonic() + _GRACE
            while monotonic() < end and any(part.ended() is None for part in running):
                threading.Event().wait(0.02)
            for part in running:
                part.kill()
        self._record.unlink(missing_ok=True)


def stop_leftovers(record: Path, *, marked: str, say: Say) -> None:
    """End the processes that a killed supervisor left behind, and the other members of their sessions.

    `marked` (NAME=value) is in the environment of each. The embedded servers are found by their own pid files.
    """
    for owned in reversed(recall(record)):
        process = owned.alive()
        if process is not None and owned.name not in ("postgres", "redis"):
            say("supervisor", f"stopping {owned.name} ({owned.pid}), which an earlier run left behind")
            stop(process, grace=3)
        kill(members(owned.pid, marked=marked))
    record.unlink(missing_ok=True)
