"""The unit of work. One request or task, one transaction, committed here and nowhere else.

`for_shop` binds row-level security to one shop for the length of the transaction; `for_system` sees the
directory tables only (shops, keys, sessions, outbox, ticks), never a shop's own rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

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


@contextmanager
def for_shop_bare(engine: Engine, shop_id: UUID) -> Iterator[psycopg.Connection]:
    """`for_shop` without the ORM: psycopg's own connection, for the intake's hot path. The same promises."""
    pooled = engine.raw_connection()
    try:
        connection = pooled.driver_connection
        assert isinstance(connection, psycopg.Connection)
        with connection.pipeline(), connection.transaction():  # begin, scope and statements in one round trip
            connection.execute(
                "SELECT set_config('app.shop', %s, true), set_config('app.system', '', true)", (str(shop_id),)
            )
            yield connection
    except (psycopg.OperationalError, psycopg.InterfaceError):
        pooled.invalidate()
        raise
    finally:
        pooled.close()
