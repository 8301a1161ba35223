"""`python -m workers.schedule`: the timer. It only writes ticks and wake-ups, so a second one is harmless.

A tick's row is unique by its due time and decides who runs it; a timer that was down catches up once when it comes
back (`coalesce`), and no job runs beside itself.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType

from apscheduler.schedulers.blocking import BlockingScheduler
from sqlalchemy.exc import OperationalError

from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.logging import configure, logger
from operation_agent.kit.settings import settings

from .connections import engine
from .heartbeat import beat
from .sweep import make_partitions, sweep, take_ticks

log = logger(__name__)


def _guarded(name: str, act: Callable[[], object]) -> Callable[[], None]:
    """A failed tick is said aloud and tried again at the next: the database may be away for a while."""

    def run() -> None:
        try:
            act()
        except OperationalError as error:
            log.warning("tick_waits", tick=name, error=str(error.orig).splitlines()[0])
        except Exception as error:
            log.error("tick_failed", tick=name, exc_info=error)

    return run


def build() -> BlockingScheduler:
    scheduler = BlockingScheduler(
        timezone="UTC", job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
    )
    instance = f"{os.uname().nodename}:{os.getpid()}"
    ticks = {
        "sweep": (1, lambda: sweep(engine())),
        "ticks": (5, lambda: take_ticks(engine())),
        "partitions": (3600, lambda: make_partitions(engine())),
        "heartbeat": (5, lambda: beat("scheduler", instance)),
    }
    for name, (seconds, act) in ticks.items():
        scheduler.add_job(_guarded(name, act), "interval", seconds=seconds, id=name, next_run_time=SYSTEM.now())
    return scheduler


def main() -> None:
    configure("scheduler", level=settings().log_level, json=settings().log_json)
    scheduler = build()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        scheduler.shutdown(wait=False)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log.info("started")
    scheduler.start()


if __name__ == "__main__":
    main()
