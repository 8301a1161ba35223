"""`Idempotency-Key`: a POST sent twice does its work once.

The key's row and the work are one transaction: after a crash neither happened, and the request may be sent again.
A request that failed changed nothing and is not remembered. Answers are kept for 24 h per shop, sealed, because one of
them may hold a key that is shown only once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Conflict, Rejected
from operation_agent.kit.secrets import Vault, secret_key
from operation_agent.kit.settings import settings
from operation_agent.store.session import for_shop

KEPT = timedelta(hours=24)
REPLAY_HEADER = "Idempotent-Replay"
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Once:
    """One POST as its sender named it; without a key every request is a new one."""

    key: str | None
    digest: bytes

    def run(
        self, engine: Engine, shop_id: UUID, work: Callable[[Session], BaseModel | None], *, status: int = 201
    ) -> Response:
        """Do `work` in one transaction of the shop, or answer as the same request was answered before.

        Raises Conflict while the first request with this key still runs, and Rejected when the key was used for
        another request.
        """
        with for_shop(engine, shop_id) as session:
            if self.key is not None and (kept := self._recall(session, shop_id)) is not None:
                return kept
            return self.keep(session, shop_id, work(session), status=status)

    def recall(self, engine: Engine, shop_id: UUID) -> Response | None:
        """The answer this request got before, or None. Raises as `run` does."""
        if self.key is None:
            return None
        with for_shop(engine, shop_id) as session:
            return self._recall(session, shop_id)

    def keep(self, session: Session, shop_id: UUID, made: BaseModel | None, *, status: int) -> Response:
        """The answer, remembered in this transaction."""
        body = made.model_dump_json(by_alias=True).encode() if made is not None else b""
        if self.key is not None:
            session.execute(
                text(
                    "INSERT INTO idempotency_keys (shop_id, key, request_hash, status, response, created_at)"
                    " VALUES (:shop, :key, :hash, :status, :response, :at)"
                ),
                {
                    "shop": shop_id, "key": self.key, "hash": self.digest, "status": status,
                    "response": _vault().seal(body), "at": SYSTEM.now(),
                },
            )  # fmt: skip
        return _answer(body, status)

    def _recall(self, session: Session, shop_id: UUID) -> Response | None:
        name = {"name": f"idempotency:{shop_id}:{self.key}"}
        if not session.execute(text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))"), name).scalar_one():
            raise Conflict("the first request with this Idempotency-Key still runs", code="idempotency_running")
        session.execute(
            text("DELETE FROM idempotency_keys WHERE shop_id = :shop AND created_at < :before"),
            {"shop": shop_id, "before": SYSTEM.now() - KEPT},
        )
        row = session.execute(
            text("SELECT request_hash, status, response FROM idempotency_keys WHERE shop_id = :shop AND key = :key"),
            {"shop": shop_id, "key": self.key},
        ).one_or_none()
        if row is None:
            return None
        if bytes(row.request_hash) != self.digest:
            raise Conflict("this Idempotency-Key was used for another request", code="idempotency_reused")
        return _answer(_vault().open(bytes(row.response)), row.status, replay=True)


def _answer(body: bytes, status: int, *, replay: bool = False) -> Response:
    headers = {REPLAY_HEADER: "true"} if replay else None
    return Response(body, status, headers, media_type="application/json" if body else None)


def _vault() -> Vault:
    return Vault(secret_key(settings()))


async def _once(
    request: Request,
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="Any string of 1 to 200 printable characters. The same key and request again within 24 h is"
            " answered as the first one was, with `Idempotent-Replay: true`.",
        ),
    ] = None,
) -> Once:
    if key is not None and not (1 <= len(key) <= _LONGEST and key.isascii() and key.isprintable()):
        raise Rejected(
            "an Idempotency-Key is 1 to 200 printable ASCII characters", code="idempotency_key", where="Idempotency-Key"
        )
    digest = hashlib.sha256(f"{request.method} {request.url.path}?{request.url.query}\n".encode())
    digest.update(await request.body())
    return Once(key, digest.digest())


Idempotent: Any = Annotated[Once, Depends(_once)]
"""Every POST under /api takes this (a test holds it)."""
