"""Brings a database to the newest schema, whoever the login is: `opagent db upgrade` and `opagent up`.

A login that bypasses row-level security first makes the role `opagent`, and every object belongs to that role.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text

from operation_agent.store.engine import APPLICATION_ROLE, driver_url

_LOCK = 0x6F706167656E74  # "opagent": one migration at a time


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    if connection is not None:
        config.attributes["connection"] = connection
    return config


def _become_application_role(connection: Connection) -> None:
    row = connection.execute(
        text("SELECT rolsuper OR rolbypassrls AS bypasses FROM pg_roles WHERE rolname = current_user")
    ).one()
    if not row.bypasses:
        return
    exists = connection.execute(
        text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": APPLICATION_ROLE}
    ).scalar()
    if not exists:
        connection.execute(text(f"CREATE ROLE {APPLICATION_ROLE} NOLOGIN NOSUPERUSER NOBYPASSRLS"))
    database = connection.execute(text("SELECT quote_ident(current_database())")).scalar_one()
    connection.execute(text(f"GRANT {APPLICATION_ROLE} TO current_user"))
    connection.execute(text(f"GRANT CREATE, CONNECT, TEMPORARY ON DATABASE {database} TO {APPLICATION_ROLE}"))
    connection.execute(text(f"GRANT ALL ON SCHEMA public TO {APPLICATION_ROLE}"))
    connection.commit()
    connection.execute(text(f"SET ROLE {APPLICATION_ROLE}"))
    connection.commit()


def _run(url: str, act: Callable[[Connection], None]) -> None:
    engine = create_engine(driver_url(url), connect_args={"connect_timeout": 5, "options": "-c timezone=UTC"})
    try:
        with engine.connect() as connection:
            _become_application_role(connection)
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
            connection.commit()
            try:
                act(connection)
                connection.commit()
            finally:
                connection.rollback()
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
                connection.commit()
    finally:
        engine.dispose()


def upgrade(url: str, revision: str = "head") -> None:
    """Idempotent. Two callers at once: the second waits, then finds nothing to do."""
    _run(url, lambda connection: command.upgrade(_config(connection), revision))


def downgrade(url: str, revision: str) -> None:
    _run(url, lambda connection: command.downgrade(_config(connection), revision))


def head() -> str:
    """The newest revision this code knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


def current(connection: Connection) -> str | None:
    """The revision the database is at, or None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()
