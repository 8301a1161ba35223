"""Room for long jobs: never so many at once that a worker has no process left for events and actions.

A slot is a session-level advisory lock on a connection of its own, so it is free again the moment its holder dies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

from celery.signals import celeryd_after_setup
from sqlalchemy import Engine, text

_TRY = text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")
_slots = 1
_worker = "worker"


class Turn(Enum):
    OURS = "ours"
    RUNNING = "running"  # the very same job is being done by somebody else
    BUSY = "busy"  # every slot of this worker is taken


@celeryd_after_setup.connect
def _count_slots(sender: str, instance: Any, **_: Any) -> None:
    """A worker of jobs alone may fill all its processes; one that also serves events keeps a process free."""
    global _slots, _worker
    queues = set(instance.app.amqp.queues.consume_from)
    _slots = instance.concurrency if queues == {"jobs"} else max(1, instance.concurrency - 1)
    _worker = sender


@contextmanager
def turn(engine: Engine, name: str) -> Iterator[Turn]:
    """Whether the job called `name` may run now in this process; held until the block ends."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            if not connection.execute(_TRY, {"name": f"job:{name}"}).scalar():
                yield Turn.RUNNING
                return
            taken = any(connection.execute(_TRY, {"name": f"slot:{_worker}:{slot}"}).scalar() for slot in range(_slots))
            yield Turn.OURS if taken else Turn.BUSY
        finally:
            connection.execute(text("SELECT pg_advisory_unlock_all()"))
