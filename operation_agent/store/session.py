"""The unit of work. One request or task, one transaction, committed here and nowhere else.

`for_shop` binds row-level security to one shop for the length of the transaction; `for_system` sees the
directory tables only (shops, keys, sessions, outbox, ticks), never a shop's own rows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import PoolProxiedConnection

from operation_agent.kit.clock import monotonic

_BARE_SCOPE = "SELECT set_config('app.shop', %s, true), set_config('app.system', '', true)"
_SCOPE = text("SELECT set_config('app.shop', :shop, true), set_config('app.system', :system, true)")


def bind_scope(session: Session, shop_id: UUID | None, *, system: bool = False) -> None:
    """Say in this transaction whose rows may be seen. It ends with the transaction."""
    session.execute(_SCOPE, {"shop": str(shop_id) if shop_id else "", "system": "on" if system else ""})


@contextmanager
def for_shop(engine: Engine, shop_id: UUID) -> Iterator[Session]:
    """A transaction in which only `shop_id`'s rows exist. Commits at the end, rolls back on any exception."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        bind_scope(session, shop_id)
        yield session


@contextmanager
def for_system(engine: Engine) -> Iterator[Session]:
    """A transaction over the directory tables of all shops."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        bind_scope(session, None, system=True)
        yield session


_Answer = TypeVar("_Answer")
_ONCE = "once"


@contextmanager
def asking_once(session: Session) -> Iterator[None]:
    """Within it whatever goes through `once` is asked once: a task's work looks at one state of the shop's rules."""
    if _ONCE in session.info:
        yield
        return
    session.info[_ONCE] = {}
    try:
        yield
    finally:
        del session.info[_ONCE]


def once(session: Session, key: Hashable, ask: Callable[[], _Answer]) -> _Answer:
    """What `ask` says; within `asking_once` what it said the first time under this key."""
    known: dict[Hashable, Any] | None = session.info.get(_ONCE)
    if known is None:
        return ask()
    if key not in known:
        known[key] = ask()
    answer: _Answer = known[key]
    return answer


class HeldConnection:
    """`for_shop` without the ORM, on one connection kept by one thread: the intake's hot path. The same promises.

    After a pause the connection is taken from the pool anew, which tests it; a broken one is thrown away.
    """

    PAUSE = 5.0
    """Seconds without use after which the connection may have died unnoticed."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._pooled: PoolProxiedConnection | None = None
        self._used_at = 0.0

    @contextmanager
    def for_shop(self, shop_id: UUID) -> Iterator[psycopg.Connection]:
        """A transaction in which only `shop_id`'s rows exist. Its statements travel together (pipeline mode)."""
        connection = self._connection()
        try:
            with connection.pipeline(), connection.transaction():
                connection.execute(_BARE_SCOPE, (str(shop_id),), prepare=True)
                yield connection
        finally:
            self._used_at = monotonic()
            if connection.closed:
                self._throw_away()

    @property
    def is_open(self) -> bool:
        """False before the first use and after the connection broke."""
        return self._pooled is not None

    def close(self) -> None:
        """Give the connection back to the pool."""
        if self._pooled is not None:
            self._pooled.close()
            self._pooled = None

    def _connection(self) -> psycopg.Connection:
        if self._pooled is not None and monotonic() - self._used_at > self.PAUSE:
            self.close()
        if self._pooled is None:
            self._pooled = self._engine.raw_connection()
        connection = self._pooled.driver_connection
        assert isinstance(connection, psycopg.Connection)
        return connection

    def _throw_away(self) -> None:
        if self._pooled is not None:
            self._pooled.invalidate()
            self._pooled = None
