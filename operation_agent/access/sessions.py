"""Log-in sessions, kept by the server: the cookie holds a random token, the table its digest. They end after 12 h."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.kit.errors import Denied
from operation_agent.kit.secrets import keyed_digest, secret_key
from operation_agent.kit.settings import settings

from .users import User

COOKIE = "opagent_session"
LIFETIME = timedelta(hours=12)


def _digest(token: str) -> bytes:
    return keyed_digest(secret_key(settings()), token)


def open_session(session: Session, user_id: UUID, at: datetime) -> str:
    """Start one and return the cookie's token. System scope; `at` is system time. Sweeps out expired ones."""
    session.execute(text("DELETE FROM sessions WHERE expires_at < :at"), {"at": at})
    token = secrets.token_urlsafe(32)
    session.execute(
        text("INSERT INTO sessions (token_hash, user_id, created_at, expires_at) VALUES (:hash, :user, :at, :expires)"),
        {"hash": _digest(token), "user": user_id, "at": at, "expires": at + LIFETIME},
    )
    return token


def find_user(session: Session, token: str, at: datetime) -> User:
    """Whose live session this is at `at`. Raises Denied(unauthenticated)."""
    row = session.execute(
        text(
            "SELECT u.id, u.email, u.created_at, u.disabled_at FROM sessions AS s JOIN users AS u ON u.id = s.user_id"
            " WHERE s.token_hash = :hash AND s.expires_at > :at AND s.revoked_at IS NULL AND u.disabled_at IS NULL"
        ),
        {"hash": _digest(token), "at": at},
    ).one_or_none()
    if row is None:
        raise Denied("this session has ended; log in again", code="session_ended", unauthenticated=True)
    return User(row.id, row.email, row.created_at, row.disabled_at)


def revoke_session(session: Session, token: str, at: datetime) -> None:
    """Log out. A session that has ended already is no error."""
    session.execute(
        text("UPDATE sessions SET revoked_at = :at WHERE token_hash = :hash AND revoked_at IS NULL"),
        {"at": at, "hash": _digest(token)},
    )
