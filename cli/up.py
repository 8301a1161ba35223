"""`opagent up`: the stack in the foreground, its lines on the terminal, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from types import FrameType

from cli.stack import Stack
from operation_agent.kit.errors import Retryable
from operation_agent.kit.settings import Settings

_COLOURS = {"api": 36, "worker": 32, "relay": 35, "scheduler": 34, "supervisor": 33, "postgres": 90, "redis": 90}
_LOCK = threading.Lock()


class _Interrupted(BaseException):
    """A signal asked for the end."""


def say(part: str, line: str) -> None:
    """One line of one part, on standard output; a reader that has gone away is no reason to stop."""
    name = f"{part:<10}"
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        name = f"\x1b[{_COLOURS.get(part, 37)}m{name}\x1b[0m"
    with _LOCK, contextlib.suppress(BrokenPipeError, ValueError):
        print(f"{name} | {line}", flush=True)


def run() -> None:
    """Start everything, say so once, and wait. Exit code 0 after a signal; errors before that are raised."""
    settings = Settings()
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, _interrupt)
    try:
        with Stack(settings, say) as stack:
            _banner(stack)
            while stack.supervisor.alive():
                threading.Event().wait(1)
            raise Retryable(f"the supervisor ended: {stack.supervisor.error}")
    except _Interrupted as why:
        say("supervisor", f"stopped by {why}")


def _interrupt(number: int, _frame: FrameType | None) -> None:
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)  # once is enough: stopping takes less than ten seconds
    raise _Interrupted(signal.Signals(number).name)


def _banner(stack: Stack) -> None:
    say("supervisor", "")
    say("supervisor", f"ready: {stack.url}")
    say("supervisor", f"log in as {stack.data_dir / 'admin.json'} says; Ctrl-C stops everything")
    say("supervisor", "")
