"""`python -m workers.relay`: from the outbox to the broker, and the only sender to Celery.

Woken by NOTIFY, and by itself once a second. A row goes only after it was published, and only as it was then: one
that was rung again meanwhile stays and is published again. Nothing is locked while the broker is talked to, so a
broker that hangs holds up no one; several relays at once only ring twice.
"""

from __future__ import annotations

import os
import signal
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from types import FrameType
from typing import Any
from uuid import UUID

import psycopg
from kombu.exceptions import OperationalError as BrokerError
from psycopg.rows import namedtuple_row

from operation_agent.kit.clock import monotonic
from operation_agent.kit.logging import configure, logger
from operation_agent.kit.settings import settings
from operation_agent.store.outbox import CHANNEL

from .app import ROUTES, app
from .connections import database_url
from .heartbeat import beat

log = logger(__name__)

AT_ONCE = 200
POLL = 1.0
BEAT = 5.0
SPACING = {"events.process": 0.04, "actions.deliver": 0.04, "journeys.advance": 0.04}
"""Seconds between two wake-ups of one key: what comes in between is found by the worker that is at it anyway."""

JOB_SPACING = 0.25
"""A job that finds no room rings again: so often it asks."""
_MOST_REMEMBERED = 10_000

_PENDING = "SELECT id, shop_id, topic, key, rings FROM outbox ORDER BY id LIMIT %s"
_DELETE = """
DELETE FROM outbox o USING unnest(%s::uuid[], %s::int[]) AS p (id, rings)
WHERE o.id = p.id AND o.rings = p.rings
"""


@dataclass
class Relay:
    """One connection to the database, one to the broker. `pass_on` publishes what is pending, once."""

    connection: psycopg.Connection[Any]
    published_at: OrderedDict[tuple[UUID, str, str], float] = field(default_factory=OrderedDict)
    published: int = 0

    def pass_on(self) -> float | None:
        """Publish what is pending. Returns the seconds until a held-back row may go; None when nothing is held back.

        Raises kombu's OperationalError when the broker is away; nothing is lost then.
        """
        now, held_back = monotonic(), None
        sent: list[Any] = []
        with self.connection.cursor(row_factory=namedtuple_row) as cursor:
            rows: list[Any] = cursor.execute(_PENDING, (AT_ONCE,)).fetchall()
        try:
            for row in rows:
                left = self._wait(row, now)
                if left > 0:
                    held_back = min(left, held_back or left)
                    continue
                self._publish(row)
                sent.append(row)
        finally:
            if sent:
                self.connection.execute(_DELETE, ([row.id for row in sent], [row.rings for row in sent]))
        return held_back if len(sent) < AT_ONCE else 0.0

    def _wait(self, row: Any, now: float) -> float:
        last = self.published_at.get((row.shop_id, row.topic, row.key))
        return 0.0 if last is None else last + SPACING.get(row.topic, JOB_SPACING) - now

    def _publish(self, row: Any) -> None:
        if row.topic not in ROUTES:
            log.error("unknown_topic", topic=row.topic)
            return
        app.send_task(row.topic, args=(str(row.shop_id), row.key), retry=False)
        key = (row.shop_id, row.topic, row.key)
        self.published_at[key] = monotonic()
        self.published_at.move_to_end(key)
        self.published += 1
        while len(self.published_at) > _MOST_REMEMBERED:
            self.published_at.popitem(last=False)


def connect() -> psycopg.Connection[Any]:
    """A connection that listens, sees the outbox of every shop, and commits each statement."""
    connection = psycopg.connect(database_url(), autocommit=True, connect_timeout=5, application_name="opagent-relay")
    connection.execute("SELECT set_config('app.system', 'on', false)")
    connection.execute(f"LISTEN {CHANNEL}")
    return connection


@dataclass
class Loop:
    """Keeps a Relay going through lost connections on either side, until told to stop."""

    stopping: bool = False
    beat_at: float = 0.0
    instance: str = field(default_factory=lambda: f"{os.uname().nodename}:{os.getpid()}")

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        self.stopping = True

    def run(self) -> None:
        back_off = 0.2
        while not self.stopping:
            try:
                with connect() as connection:
                    relay = Relay(connection)
                    while not self.stopping:
                        self._turn(relay)
                        back_off = 0.2
            except (BrokerError, psycopg.Error, OSError) as error:
                log.warning("relay_waits", error=str(error).splitlines()[0] if str(error) else repr(error))
                time.sleep(back_off)
                back_off = min(5.0, back_off * 2)

    def _turn(self, relay: Relay) -> None:
        if monotonic() - self.beat_at >= BEAT:
            beat("relay", self.instance, {"published": relay.published})
            self.beat_at = monotonic()
        held_back = relay.pass_on()
        timeout = POLL if held_back is None else min(POLL, max(held_back, 0.001))
        for _ in relay.connection.notifies(timeout=timeout, stop_after=1):
            pass


def main() -> None:
    configure("relay", level=settings().log_level, json=settings().log_json)
    loop = Loop()
    signal.signal(signal.SIGTERM, loop.stop)
    signal.signal(signal.SIGINT, loop.stop)
    log.info("started")
    loop.run()


if __name__ == "__main__":
    main()
