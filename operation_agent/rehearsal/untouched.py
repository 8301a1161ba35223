"""A part of a transaction that leaves nothing behind: PostgreSQL itself sees to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text
from sqlalchemy.orm import Session


@contextmanager
def untouched(session: Session) -> Iterator[None]:
    """Whatever is written inside is taken back at the end, and its locks are given up."""
    savepoint = session.begin_nested()
    try:
        yield
    finally:
        savepoint.rollback()


def forbid_writing(session: Session) -> None:
    """From here to the end of `untouched` the database refuses every write. The permission comes back with the
    savepoint."""
    session.execute(text("SET LOCAL transaction_read_only = on"))
