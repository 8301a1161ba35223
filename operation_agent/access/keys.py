"""API keys: shown once, stored as a keyed digest, bound to one shop, limited to scopes.

A key has 256 random bits, so a fast keyed digest (HMAC-SHA256) protects it as well as a slow password hash would,
and a stolen table is useless without the installation's secret.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.kit.errors import Conflict, Denied, NotFound, Rejected
from operation_agent.kit.ids import new_id
from operation_agent.kit.secrets import keyed_digest, secret_key
from operation_agent.kit.settings import settings
from operation_agent.store import audit
from operation_agent.store.shops import load_shop

from .permissions import checked_scopes
from .principal import Principal

MARK = "opk_"
SHOWN_CHARACTERS = len(MARK) + 6
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it may be shown: never the key itself. Times are system time (UTC)."""

    id: UUID
    shop_id: UUID
    name: str
    prefix: str
    scopes: list[str]
    created_at: datetime
    revoked_at: datetime | None


def _api_key(row: Row[Any]) -> ApiKey:
    return ApiKey(**row._mapping)


def _digest(token: str) -> bytes:
    return keyed_digest(secret_key(settings()), token)


def create_key(
    session: Session, shop_id: UUID, name: str, scopes: Iterable[str], at: datetime, *, actor: str = "system"
) -> tuple[str, ApiKey]:
    """Make a key of a shop (in its scope); returns its text, which is never to be seen again, and its row.

    `at` is system time. Raises Rejected for an empty name or an unknown scope.
    """
    if not name.strip() or "\0" in name or len(name) > _LONGEST:
        raise Rejected("a key needs a name of 1 to 200 characters", where="name")
    token = MARK + secrets.token_urlsafe(32)
    key = ApiKey(new_id(), shop_id, name.strip(), token[:SHOWN_CHARACTERS], checked_scopes(scopes), at, None)
    session.execute(
        text(
            "INSERT INTO api_keys (id, shop_id, name, prefix, key_hash, scopes, created_at)"
            " VALUES (:id, :shop_id, :name, :prefix, :hash, :scopes, :at)"
        ),
        {
            "id": key.id, "shop_id": shop_id, "name": key.name, "prefix": key.prefix, "hash": _digest(token),
            "scopes": key.scopes, "at": at,
        },
    )  # fmt: skip
    audit.record(
        session, shop_id, at=at, actor=actor, verb="key.created", subject=f"key:{key.id}",
        detail={"name": key.name, "prefix": key.prefix, "scopes": key.scopes},
    )  # fmt: skip
    return token, key


def list_keys(session: Session, shop_id: UUID) -> list[ApiKey]:
    """A shop's keys, newest first, the revoked ones too."""
    rows = session.execute(
        text(
            "SELECT id, shop_id, name, prefix, scopes, created_at, revoked_at FROM api_keys"
            " WHERE shop_id = :shop ORDER BY created_at DESC, id DESC"
        ),
        {"shop": shop_id},
    )
    return [_api_key(row) for row in rows]


def revoke_key(session: Session, shop_id: UUID, key_id: UUID, at: datetime, *, actor: str = "system") -> ApiKey:
    """From now on (within the API's two seconds of cache) the key opens nothing. Raises NotFound, Conflict."""
    row = session.execute(
        text(
            "UPDATE api_keys SET revoked_at = :at WHERE shop_id = :shop AND id = :id AND revoked_at IS NULL"
            " RETURNING id, shop_id, name, prefix, scopes, created_at, revoked_at"
        ),
        {"at": at, "shop": shop_id, "id": key_id},
    ).one_or_none()
    if row is None:
        known = session.execute(
            text("SELECT 1 FROM api_keys WHERE shop_id = :shop AND id = :id"), {"shop": shop_id, "id": key_id}
        ).scalar()
        raise Conflict("this key was revoked already") if known else NotFound(f"there is no key {key_id}")
    audit.record(session, shop_id, at=at, actor=actor, verb="key.revoked", subject=f"key:{key_id}")
    return _api_key(row)


def authenticate(session: Session, token: str) -> Principal:
    """The caller behind a key's text (system scope). Raises Denied(unauthenticated) when no live key has it."""
    row = None
    if token.startswith(MARK) and len(token) <= _LONGEST:
        row = session.execute(
            text("SELECT id, shop_id, name, scopes FROM api_keys WHERE key_hash = :hash AND revoked_at IS NULL"),
            {"hash": _digest(token)},
        ).one_or_none()
    if row is None:
        raise Denied(
            "this key is not known, or was revoked; `opagent key create` makes one",
            code="key_unknown",
            unauthenticated=True,
        )
    return Principal("key", row.id, row.name, frozenset(row.scopes), load_shop(session, row.shop_id))
