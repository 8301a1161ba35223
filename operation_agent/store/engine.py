"""The database connection: PostgreSQL through SQLAlchemy and psycopg, in a role that row-level security binds."""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import Engine, create_engine, event

from . import arrays  # noqa: F401 - registers the fast dumper of list columns, before any connection is made

APPLICATION_ROLE = "opagent"


def driver_url(url: str) -> str:
    """`postgres://` and `postgresql://` as SQLAlchemy's psycopg dialect."""
    for prefix in ("postgresql://", "postgres://"):
        if url.startswith(prefix):
            return "postgresql+psycopg://" + url.removeprefix(prefix)
    return url


def connect(url: str, *, pool_size: int = 5, max_overflow: int = 10, application_name: str = "opagent") -> Engine:
    """An engine whose every connection runs as a role without SUPERUSER and BYPASSRLS.

    A login that could bypass row-level security drops to APPLICATION_ROLE, which `opagent db upgrade` creates.
    """
    engine = create_engine(
        driver_url(url),
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_pre_ping=True,
        pool_timeout=5,
        pool_recycle=1800,
        json_serializer=lambda value: orjson.dumps(value).decode(),
        json_deserializer=orjson.loads,
        connect_args={
            "application_name": application_name,
            "connect_timeout": 5,
            "options": "-c timezone=UTC -c lock_timeout=10s -c idle_in_transaction_session_timeout=60s",
        },
    )

    @event.listens_for(engine, "connect")
    def drop_privileges(connection: Any, _record: Any) -> None:
        previous, connection.autocommit = connection.autocommit, True
        with connection.cursor() as cursor:
            cursor.execute("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
            if cursor.fetchone()[0]:
                cursor.execute(f"SET ROLE {APPLICATION_ROLE}")
        connection.autocommit = previous

    return engine
