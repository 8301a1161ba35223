"""Finds the database a command works on: OPAGENT_DATABASE_URL, else the stack that runs in the data folder, else
the embedded PostgreSQL of that folder, started for the length of the command."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from operation_agent.kit.clock import monotonic
from operation_agent.kit.errors import Conflict, Rejected
from operation_agent.kit.settings import settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from operation_agent.store.shops import Shop

_PATIENCE = 20.0  # seconds for another command on the same data folder, or for a stack that is coming up


@contextmanager
def database_url() -> Iterator[str]:
    """The URL of the database, migrated or not. Raises Conflict when the data folder stays in another's hands."""
    with ExitStack() as cleanup:
        yield settings().database_url or _own_database(settings().data_dir, cleanup)


def _own_database(data_dir: Path, cleanup: ExitStack) -> str:
    from cli.datafolder import held, running_stack
    from embedded.postgres import EmbeddedPostgres

    end = monotonic() + _PATIENCE
    while True:
        stack = running_stack(data_dir)
        if stack is not None:
            return stack.database_url
        try:
            cleanup.enter_context(held(data_dir))
            break
        except Conflict:  # another command, or a stack that is just coming up
            if monotonic() >= end:
                raise
            time.sleep(0.1)
    server = EmbeddedPostgres(data_dir, dies_with_parent=True)
    cleanup.callback(server.stop)
    server.start()
    return server.url


@contextmanager
def engine() -> Iterator[Engine]:
    """A connection to the migrated database. An embedded one is migrated first; another must be at head."""
    from migrations.run import current, head, upgrade
    from operation_agent.store.engine import connect

    with database_url() as url:
        if settings().database_url is None:
            upgrade(url)
        made = connect(url, pool_size=2, application_name="opagent-cli")
        try:
            with made.connect() as connection:
                found = current(connection)
            if found != head():
                raise Rejected(
                    f"the database is at revision {found or 'none'} and this program needs {head()};"
                    " run `opagent db upgrade`"
                )
            yield made
        finally:
            made.dispose()


def find_shop(engine: Engine, name: str) -> Shop:
    """A shop by slug or id. Raises NotFound."""
    from operation_agent.store import shops
    from operation_agent.store.session import for_system

    with for_system(engine) as session:
        return shops.find_shop(session, name)
