"""Finds parts that run and do nothing, which no exit code shows: a Celery worker that lost its consumer after the
broker came back (celery#8030, #8384, #10205), an API that no longer answers.

Progress is read from the database, because that is where work is done or not: the head of a queue that stays the
same for three quarters of a minute is a worker that does not work. Each time in a row the patience doubles, so that a
job that is only slow comes to its end.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from operation_agent.kit.clock import monotonic
from operation_agent.store.engine import connect
from operation_agent.store.session import for_shop, for_system
from operation_agent.store.shops import list_shops

PATIENCE = 45.0
LONGEST_PATIENCE = 900.0
_EVERY = 5.0
_ANSWERS_MISSED = 6

_QUEUE_HEADS = text("SELECT partition, min(seq) FROM event_queue WHERE shop_id = :shop GROUP BY partition")
# what a worker would have begun at once: due, tried by nobody, waiting for nothing, with somebody to send it
_DUE_ACTIONS = text(
    "SELECT a.channel, min(a.id::text), count(*) FROM actions a WHERE a.shop_id = :shop AND a.state = 'ready'"
    " AND a.due_at <= :now AND a.retry_at IS NULL AND a.attempt = 0 AND a.after_action IS NULL"
    " AND EXISTS (SELECT FROM integrations i WHERE i.shop_id = a.shop_id AND i.channel = a.channel AND i.enabled)"
    " GROUP BY a.channel"
)
# the relay takes rows out within a second; ringing again keeps the id
_OLDEST_WAKE_UP = text("SELECT id FROM outbox ORDER BY rung_at, id LIMIT 1")


@dataclass
class Stall:
    """Tells when the same unfinished work is seen for too long. Times are seconds of `monotonic`."""

    patience: float = PATIENCE
    _seen: Hashable = None
    _since: float = 0.0

    def is_stalled(self, pending: Hashable, now: float) -> bool:
        """`pending` identifies the work that comes next; falsy when there is none."""
        if not pending or pending != self._seen:
            if not pending:
                self.patience = PATIENCE
            self._seen, self._since = pending, now
            return False
        if now - self._since < self.patience:
            return False
        self._since, self.patience = now, min(self.patience * 2, LONGEST_PATIENCE)
        return True


class Watch:
    """A thread that looks every few seconds, and calls `restart(part, reason)`."""

    def __init__(self, database_url: str, address: tuple[str, int], restart: Callable[[str, str], None]):
        self._url, self._address, self._restart = database_url, address, restart
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="liveness")
        self._worker, self._relay = Stall(), Stall()
        self._missed = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        engine = connect(self._url, pool_size=1, max_overflow=0, application_name="opagent-liveness")
        while not self._stopping.wait(_EVERY):
            self._look_at_api()
            with contextlib.suppress(SQLAlchemyError):  # the database's own absence is not the worker's fault
                self._look_at_work(engine)
        engine.dispose()

    def _look_at_api(self) -> None:
        self._missed = 0 if answers(self._address, "/healthz") == 200 else self._missed + 1
        if self._missed >= _ANSWERS_MISSED:
            self._missed = 0
            self._restart("api", f"has not answered for {_ANSWERS_MISSED * _EVERY:.0f} s")

    def _look_at_work(self, engine: Engine) -> None:
        now = monotonic()
        for part, stall, pending in (
            ("worker", self._worker, _pending_work(engine)),
            ("relay", self._relay, _pending_wake_up(engine)),
        ):
            if stall.is_stalled(pending, now):
                self._restart(part, "runs but makes no progress")


def _pending_work(engine: Engine) -> frozenset[tuple]:
    """What stands at the head of every shop's queues; equal answers mean that nothing was done in between."""
    with for_system(engine) as session:
        shops = list_shops(session)
    heads: set[tuple] = set()
    for shop in shops:
        with for_shop(engine, shop.id) as session:
            values = {"shop": shop.id, "now": shop.now()}
            heads.update((shop.id, *row) for row in session.execute(_QUEUE_HEADS, values))
            heads.update((shop.id, *row) for row in session.execute(_DUE_ACTIONS, values))
    return frozenset(heads)


def _pending_wake_up(engine: Engine) -> Hashable:
    with for_system(engine) as session:
        return session.execute(_OLDEST_WAKE_UP).scalar_one_or_none()


def answers(address: tuple[str, int], path: str, *, timeout: float = 5) -> int | None:
    """The status of a GET, or None when nobody answers."""
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
