"""Who may do what, in one place: every route declares `Requires("<permission>")`.

A caller is an API key (Bearer, or Basic with the key as user name, as Segment's libraries send it) or a person's
session cookie. A browser sends cookies by itself, so an unsafe request with one must also prove that our own pages
made it: by `X-Requested-With`, which another site cannot set, or an `Origin` that is ours.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends
from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.services import Services, services
from operation_agent.access.permissions import EVERYTHING, PERMISSIONS
from operation_agent.access.principal import Principal
from operation_agent.access.sessions import COOKIE, find_user
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Denied
from operation_agent.store.session import for_system
from operation_agent.store.shops import find_shop

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def key_of(authorization: str) -> str | None:
    """The API key in an Authorization header, or None when it holds none."""
    scheme, _, value = authorization.partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return value or None
    if scheme.lower() == "basic":
        try:
            user = base64.b64decode(value, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            return None
        return user or None
    return None


def _from_our_pages(request: Request) -> bool:
    if "x-requested-with" in request.headers:
        return True
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host")


def _user(request: Request, token: str) -> Principal:
    """A user's session; the shop is named by ?shop=slug."""
    if request.method not in SAFE_METHODS and not _from_our_pages(request):
        raise Denied("send X-Requested-With with a session cookie: it shows that our own page asks", code="csrf")
    slug = request.query_params.get("shop")
    with for_system(services(request).engine) as session:
        user = find_user(session, token, SYSTEM.now())
        shop = find_shop(session, slug) if slug else None
    return Principal("user", user.id, user.email, frozenset({EVERYTHING}), shop)


async def caller_of_key(held: Services, key: str) -> Principal:
    """The caller behind an API key, remembered for two seconds. Raises Denied(unauthenticated).

    Requests that find the key forgotten at the same moment share one look-up.
    """
    known = held.keys.remembered(key)
    if known is not None:
        return known
    running = held.look_ups.get(key)
    if running is None:
        running = held.look_ups[key] = asyncio.ensure_future(run_in_threadpool(held.keys.look_up, key))
        running.add_done_callback(lambda _: held.look_ups.pop(key, None))
    return await asyncio.shield(running)


async def identify(request: Request) -> Principal:
    """Who is calling. Raises Denied(unauthenticated) when nobody we know."""
    authorization = request.headers.get("authorization")
    if authorization is not None:
        key = key_of(authorization)
        if key is not None:
            return await caller_of_key(services(request), key)
        raise Denied(
            "the Authorization header is neither `Bearer <key>` nor `Basic <base64 of key:>`",
            code="authorization",
            unauthenticated=True,
        )
    token = request.cookies.get(COOKIE)
    if token:
        return await run_in_threadpool(_user, request, token)
    raise Denied("send an API key, or log in", code="unauthenticated", unauthenticated=True)


class Requires:
    """The dependency of every route: `caller: Annotated[Principal, Depends(Requires("strategies:write"))]`.

    `caller.shop` is the shop the request is about: the key's, or the one a user names with ?shop=slug. With
    `shop=False` a user need not name one (`caller.chosen_shop` is None then). Raises Denied, Rejected.
    """

    def __init__(self, permission: str, *, shop: bool = True):
        if permission not in PERMISSIONS:
            raise ValueError(f"{permission} is not in access.permissions.PERMISSIONS")
        self.permission = permission
        self._shop = shop

    async def __call__(self, request: Request) -> Principal:
        caller = await identify(request)
        caller.require(self.permission)
        if self._shop:
            _ = caller.shop
        return caller


def _engine(request: Request) -> Engine:
    return services(request).engine


Database = Annotated[Engine, Depends(_engine)]
"""The engine; a route opens its one transaction itself: `with for_shop(database, caller.shop.id) as session:`."""
