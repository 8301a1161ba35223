"""Logging in and out. The cookie's token is known to the browser only; the server keeps its digest."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from pydantic import BaseModel, Field

from api.dependencies import Database, identify
from api.errors import Problem
from api.fields import Text
from operation_agent.access.principal import Principal
from operation_agent.access.sessions import COOKIE, LIFETIME, open_session, revoke_session
from operation_agent.access.users import log_in
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Retryable
from operation_agent.kit.settings import settings
from operation_agent.store.session import for_system
from operation_agent.store.shops import list_shops

router = APIRouter(prefix="/api/session", tags=["session"])

PER_ACCOUNT = RateLimitItemPerMinute(10, 5)
"""Attempts at one account from one address: ten in five minutes. Counted per API process."""
PER_ADDRESS = RateLimitItemPerMinute(60, 5)


class Credentials(BaseModel):
    email: Text = Field(max_length=320, examples=["admin@example.com"])
    password: Text = Field(max_length=1024)


class OpenSession(BaseModel):
    email: str
    expires_at: datetime


class Caller(BaseModel):
    """Who this request comes from, and which shops it may name."""

    kind: str = Field(description="`user` (a session) or `key`")
    name: str
    scopes: list[str]
    shops: list[str] = Field(description="Slugs for ?shop=")


@cache
def _attempts() -> MovingWindowRateLimiter:
    return MovingWindowRateLimiter(MemoryStorage())


def _throttle(email: str, address: str) -> None:
    """Raises Retryable (429) when this account or this address was tried too often."""
    keys = ((PER_ACCOUNT, f"{email.strip().lower()}@{address}"), (PER_ADDRESS, address))
    for limit, key in keys:
        if not _attempts().hit(limit, "log_in", key):
            free_at = _attempts().get_window_stats(limit, "log_in", key).reset_time
            wait = max(1.0, free_at - SYSTEM.now().timestamp())
            raise Retryable(
                "too many attempts to log in; wait before the next",
                code="throttled",
                retry_after=timedelta(seconds=wait),
                status=429,
            )


@router.post(
    "",
    operation_id="open_session",
    summary="Log in",
    status_code=201,
    response_model=OpenSession,
    responses={429: {"model": Problem, "description": "Too many attempts; Retry-After says when"}},
)
def open_one(body: Credentials, request: Request, response: Response, database: Database) -> OpenSession:
    """Sets a session cookie (HttpOnly, SameSite=Lax) that ends after twelve hours.

    Takes no Idempotency-Key: its answer is a credential, and a second log-in does no harm.
    """
    address = request.client.host if request.client else "unknown"
    _throttle(body.email, address)
    now = SYSTEM.now()
    with for_system(database) as session:
        user = log_in(session, body.email, body.password)
        token = open_session(session, user.id, now)
    _attempts().clear(PER_ACCOUNT, "log_in", f"{body.email.strip().lower()}@{address}")
    response.set_cookie(
        COOKIE,
        token,
        max_age=int(LIFETIME.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=_is_https(request),
        path="/",
    )
    return OpenSession(email=user.email, expires_at=now + LIFETIME)


def _is_https(request: Request) -> bool:
    return request.url.scheme == "https" or (settings().public_url or "").startswith("https://")


@router.get("", operation_id="get_session", summary="Who am I", response_model=Caller)
def get_caller(caller: Annotated[Principal, Depends(identify)], database: Database) -> Caller:
    if caller.kind == "key":
        shops = [caller.shop.slug]
    else:
        with for_system(database) as session:
            shops = [shop.slug for shop in list_shops(session)]
    return Caller(kind=caller.kind, name=caller.name, scopes=sorted(caller.scopes), shops=shops)


@router.delete("", operation_id="close_session", summary="Log out", status_code=204)
def close(
    request: Request, response: Response, _caller: Annotated[Principal, Depends(identify)], database: Database
) -> None:
    token = request.cookies.get(COOKIE)
    if token:
        with for_system(database) as session:
            revoke_session(session, token, SYSTEM.now())
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")
