"""People who log in. Passwords are argon2id hashes; an unknown address takes as long to refuse as a wrong password."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import Row, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from operation_agent.kit.errors import Conflict, Denied, NotFound, Rejected
from operation_agent.kit.ids import new_id

SHORTEST_PASSWORD = 12
_LONGEST_PASSWORD = 1024  # hashing more is work an attacker could ask for


@dataclass(frozen=True, slots=True)
class User:
    """Times are system time (UTC)."""

    id: UUID
    email: str
    created_at: datetime
    disabled_at: datetime | None


def _user(row: Row[Any]) -> User:
    return User(row.id, row.email, row.created_at, row.disabled_at)


@cache
def _hasher() -> PasswordHash:
    return PasswordHash((Argon2Hasher(),))


@cache
def _nobodys_hash() -> str:
    """What a password is checked against when there is no such user."""
    return _hasher().hash("nobody has this password")


def normal_address(email: str) -> str:
    """The address users are found by: lower case. Raises Rejected for what is not an e-mail address."""
    from email_validator import EmailNotValidError, validate_email

    try:
        found = validate_email(email.strip(), check_deliverability=False, test_environment=True)
    except EmailNotValidError as error:
        raise Rejected(f"{email[:80]!r} is not an e-mail address: {error}", where="email") from None
    return found.normalized.lower()


def create_user(session: Session, email: str, password: str, at: datetime) -> User:
    """In system scope; `at` is system time. Raises Rejected (address, password too short) or Conflict."""
    address = normal_address(email)
    if not SHORTEST_PASSWORD <= len(password) <= _LONGEST_PASSWORD:
        raise Rejected(f"a password has at least {SHORTEST_PASSWORD} characters", where="password")
    try:
        with session.begin_nested():
            row = session.execute(
                text(
                    "INSERT INTO users (id, email, password_hash, created_at) VALUES (:id, :email, :hash, :at)"
                    " RETURNING id, email, created_at, disabled_at"
                ),
                {"id": new_id(), "email": address, "hash": _hasher().hash(password), "at": at},
            ).one()
    except IntegrityError:
        raise Conflict(f"{address} is a user already", where="email") from None
    return _user(row)


def list_users(session: Session) -> list[User]:
    return [
        _user(row)
        for row in session.execute(text("SELECT id, email, created_at, disabled_at FROM users ORDER BY email"))
    ]


def disable_user(session: Session, user_id: UUID, at: datetime) -> User:
    """Ends the user's sessions too. Raises NotFound."""
    row = session.execute(
        text(
            "UPDATE users SET disabled_at = COALESCE(disabled_at, :at) WHERE id = :id"
            " RETURNING id, email, created_at, disabled_at"
        ),
        {"at": at, "id": user_id},
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no user {user_id}")
    session.execute(
        text("UPDATE sessions SET revoked_at = :at WHERE user_id = :id AND revoked_at IS NULL"),
        {"at": at, "id": user_id},
    )
    return _user(row)


def log_in(session: Session, email: str, password: str) -> User:
    """The user with this address and password, in system scope.

    Raises Denied(unauthenticated) with the same words and after the same work whether the address, the password or
    the account's state was wrong, so that it tells nobody who has an account.
    """
    row = session.execute(
        text("SELECT id, email, created_at, disabled_at, password_hash FROM users WHERE email = :email"),
        {"email": email.strip().lower().replace("\0", "")},
    ).one_or_none()
    right = _hasher().verify(password[:_LONGEST_PASSWORD], row.password_hash if row else _nobodys_hash())
    if row is None or not right or row.disabled_at is not None:
        raise Denied("the e-mail address or the password is wrong", code="log_in", unauthenticated=True)
    return _user(row)
