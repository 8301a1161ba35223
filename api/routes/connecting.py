"""Connecting a shop by its own grant of access (OAuth), and having a connection looked at.

The callback is the one route that calls a provider itself: a code is good for a moment only, and a person waits. It
shows what came of it as a page, in both languages; scopes and webhooks are then looked at by a worker.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse

from api import grant_page
from api.addresses import check_base_url
from api.dependencies import Database, Requires
from api.errors import Problem
from api.fields import Text
from api.idempotency import Idempotent
from api.services import services
from integrations.shopify import oauth
from operation_agent.access.principal import Principal
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import AgentError, Conflict, Denied, NotFound, Rejected
from operation_agent.kit.ids import as_uuid, digest_id
from operation_agent.kit.secrets import Vault, secret_key
from operation_agent.kit.settings import settings
from operation_agent.store import audit, outbox
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, load_shop
from operation_agent.storefront import connection
from operation_agent.storefront.connection import Connection

router = APIRouter(tags=["integrations"])

Writer = Annotated[Principal, Depends(Requires("integrations:write"))]
VENDOR = "shopify"
CALLBACK = "/oauth/shopify/callback"
COOKIE = "opagent_oauth"
"""Binds a grant to the browser that asked for it: another's cannot be led through with one's own."""


class Asking(BaseModel):
    domain: Text | None = Field(
        None, max_length=200, examples=["example.myshopify.com"], description="Left out: the integration's own"
    )
    all_orders: bool = Field(
        False, description="Also ask for orders older than 60 days; Shopify must have approved the app for it"
    )


class Asked(BaseModel):
    """`url` is where the operator grants access, in the browser this was asked with."""

    url: str
    redirect_uri: str = Field(description="Must stand among the app's allowed redirection URLs")
    domain: str
    scopes: list[str]
    expires_at: datetime


class Checking(BaseModel):
    vendor: str
    asked_at: datetime


def _vault() -> Vault:
    return Vault(secret_key(settings()))


def _secrets(row: Connection) -> dict[str, str]:
    return orjson.loads(_vault().open(row.secrets)) if row.secrets else {}


def _app(held: dict[str, str]) -> oauth.App:
    if not (held.get("client_id") and held.get("client_secret")):
        raise Conflict(
            "enter the app's client_id and client_secret first (PUT /api/integrations/shopify)", code="not_configured"
        )
    return oauth.App(held["client_id"], held["client_secret"])


def _redirect_uri() -> str:
    found = settings().public_url or f"http://{settings().host}:{settings().port}"
    return found.rstrip("/") + CALLBACK


# -- asking -------------------------------------------------------------------------------------------------------


@router.post(
    "/api/integrations/shopify/connect",
    operation_id="start_shopify_grant",
    summary="Begin to connect a shop by OAuth",
    status_code=201,
    response_model=Asked,
    responses={
        404: {"model": Problem, "description": "Shopify is not set up for this shop"},
        409: {"model": Problem, "description": "The app's client_id or client_secret is missing"},
    },
)
def start(body: Asking, caller: Writer, database: Database, request: Request, once: Idempotent) -> Response:
    """The answer is good for ten minutes and for one grant."""
    nonce = secrets.token_urlsafe(16) if _comes_back(caller, request) else ""

    def work(session: Session) -> Asked:
        return _ask(session, load_shop(session, caller.shop.id), body, caller.actor, nonce, at=SYSTEM.now())

    answer: Response = once.run(database, caller.shop.id, work)
    if nonce:
        answer.set_cookie(
            COOKIE, nonce, max_age=int(oauth.FRESH.total_seconds()), path="/oauth/", httponly=True, samesite="lax",
            secure=_redirect_uri().startswith("https:"),
        )  # fmt: skip
    return answer


def _comes_back(caller: Principal, request: Request) -> bool:
    """Whether the browser that asks is the one that will be sent back, with its cookie: not so for an API key, nor
    for one that knows us under another address."""
    return caller.kind == "user" and request.url.netloc == urlsplit(_redirect_uri()).netloc


def _ask(session: Session, shop: Shop, body: Asking, actor: str, nonce: str, *, at: datetime) -> Asked:
    row = connection.find(session, shop.id, VENDOR)
    if row is None:
        raise NotFound("shopify is not set up for this shop; PUT /api/integrations/shopify first")
    app, domain = _app(_secrets(row)), _domain(row, body.domain)
    state = shop.id.hex + secrets.token_urlsafe(32)
    asked = oauth.requested(optional=body.all_orders)
    url = oauth.permission_url(app, domain, redirect_uri=_redirect_uri(), state=state, asked=asked)
    session.execute(
        text("DELETE FROM oauth_states WHERE shop_id = :shop AND asked_at < :before"),
        {"shop": shop.id, "before": at - oauth.FRESH},
    )
    session.execute(
        text(
            "INSERT INTO oauth_states (shop_id, state_digest, vendor, domain, actor, asked_at)"
            " VALUES (:shop, :digest, :vendor, :domain, :actor, :at)"
        ),
        {
            "shop": shop.id, "digest": _digest(state, nonce), "vendor": VENDOR, "domain": domain, "actor": actor,
            "at": at,
        },
    )  # fmt: skip
    audit.record(
        session, shop.id, at=at, actor=actor, verb="integration.grant_asked", subject=f"integration:{VENDOR}",
        detail={"domain": domain, "scopes": asked},
    )  # fmt: skip
    return Asked(
        url=oauth.moved_to(url, row.base_url) if shop.sandbox else url,
        redirect_uri=_redirect_uri(), domain=domain, scopes=asked, expires_at=at + oauth.FRESH,
    )  # fmt: skip


def _domain(row: Connection, given: str | None) -> str:
    """The shop's domain. Raises Rejected when it is none, or another than the integration calls."""
    host = urlsplit(row.base_url).hostname or ""
    own = row.config.get("domain") or (host if host.endswith(".myshopify.com") else None)
    if given is None and own is None:
        raise Rejected("say which shop: domain, such as example.myshopify.com", where="body.domain")
    domain = oauth.domain_of(given if given is not None else str(own))
    if own is not None and domain != own:
        raise Rejected(f"this integration is that of {own}; change base_url to connect {domain}", where="body.domain")
    return domain


def _digest(state: str, nonce: str) -> UUID:
    return digest_id("oauth-state", state, nonce)


@router.post(
    "/api/integrations/shopify/check",
    operation_id="check_shopify",
    summary="Look at token, scopes and webhooks now",
    status_code=202,
    response_model=Checking,
    responses={
        404: {"model": Problem, "description": "Shopify is not set up for this shop"},
        409: {"model": Problem, "description": "The integration is switched off"},
    },
)
def check(caller: Writer, database: Database, once: Idempotent) -> Response:
    """Missing webhooks are created and wrong ones repaired; GET /api/integrations/shopify shows what was found.

    What was refused for a missing scope is tried again.
    """

    def work(session: Session) -> Checking:
        shop, at = load_shop(session, caller.shop.id), SYSTEM.now()
        row = connection.find(session, shop.id, VENDOR)
        if row is None:
            raise NotFound("shopify is not set up for this shop; PUT /api/integrations/shopify first")
        if not row.enabled:
            raise Conflict("the integration is switched off; PUT it with enabled: true")
        connection.clear(session, shop, VENDOR, at=at, actor=caller.actor, kinds=("scopes",))
        if row.token_expires_at is not None and row.problem == "unauthorized":
            connection.look_again(session, shop.id, VENDOR, renew_at=at)
            outbox.ring(session, shop.id, [(connection.RENEW, VENDOR)], at=at)
        connection.ask_check(session, shop.id, VENDOR, at=at)
        return Checking(vendor=VENDOR, asked_at=at)

    answer: Response = once.run(database, caller.shop.id, work, status=202)
    return answer


# -- coming back --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Granted:
    """A callback that was believed: whose it is, and what its code is exchanged with."""

    shop: Shop
    row: Connection
    app: oauth.App
    domain: str
    actor: str
    code: str


@router.get(
    CALLBACK,
    operation_id="finish_shopify_grant",
    summary="Shopify sends the operator back here",
    response_class=HTMLResponse,
    responses={
        400: {"model": Problem, "description": "Not what Shopify sends"},
        403: {"model": Problem, "description": "Not signed by Shopify, used already, too late, or refused"},
        503: {"model": Problem, "description": "Shopify did not answer; begin again"},
    },
)
def finish(request: Request, database: Database) -> HTMLResponse:
    """Proved by Shopify's signature over the query, and by a state that was given out once and not long ago.

    A browser is shown why nothing was connected; whoever does not ask for a page gets the problem document.
    """
    try:
        callback = oauth.read(request.url.query)
        granted = _believe(database, callback, request.cookies.get(COOKIE, ""), at=SYSTEM.now())
        made = oauth.exchange(granted.row.base_url, granted.app, granted.code, at=SYSTEM.now())
        with for_shop(database, granted.shop.id) as session:
            _connect(session, granted, made, at=SYSTEM.now())
    except AgentError as error:
        if "text/html" not in request.headers.get("accept", ""):
            raise
        return grant_page.refused(error)
    services(request).senders.forget()
    return grant_page.connected(granted.domain, made.scopes)


def _believe(database: Any, callback: oauth.Callback, nonce: str, *, at: datetime) -> _Granted:
    """Raises Denied with the reason. A state is used up by the first callback that Shopify signed."""
    shop_id = as_uuid(callback.state[:32])
    if shop_id is None:
        raise Denied("this grant was not begun here; begin again", code="state")
    with for_shop(database, shop_id) as session:
        row = connection.find(session, shop_id, VENDOR)
        if row is None:
            raise Denied("this grant was not begun here; begin again", code="state")
        app = _app(_secrets(row))
        oauth.check(app, callback, at=at)
        shop = load_shop(session, shop_id)
        state = session.execute(
            text(
                "DELETE FROM oauth_states WHERE shop_id = :shop AND state_digest = ANY(:digests)"
                " RETURNING domain, actor, asked_at"
            ),
            {"shop": shop_id, "digests": [_digest(callback.state, nonce), _digest(callback.state, "")]},
        ).one_or_none()
    if state is None:
        raise Denied("this grant was used already, or begun in another browser; begin again", code="state")
    if at - state.asked_at > oauth.FRESH:
        raise Denied("this grant was begun more than ten minutes ago; begin again", code="state_expired")
    if callback.shop != state.domain:
        raise Denied(f"the grant was asked of {state.domain}, and {callback.shop} answers", code="domain")
    check_base_url(row.base_url, sandbox=shop.sandbox)
    return _Granted(shop, row, app, state.domain, state.actor, callback.code)


def _connect(session: Session, granted: _Granted, made: oauth.Tokens, *, at: datetime) -> None:
    """Store both tokens, and let everything go on that waited for them."""
    shop = granted.shop
    row = connection.find(session, shop.id, VENDOR, lock=True)
    if row is None or row.base_url != granted.row.base_url:
        raise Conflict("the integration was changed meanwhile; begin again", code="state")
    held = _secrets(row) | {"access_token": made.access_token}
    held.pop("refresh_token", None)
    if made.refresh_token is not None:
        held["refresh_token"] = made.refresh_token
    if held.get("webhook_secret") not in (None, granted.app.client_secret):
        held["webhook_secret_previous"] = held["webhook_secret"]
    held["webhook_secret"] = granted.app.client_secret
    connection.keep_credentials(
        session, shop.id, VENDOR, _vault().seal(orjson.dumps(held)), token_expires_at=made.expires_at,
        renew_at=made.renew_at,
    )  # fmt: skip
    session.execute(
        text(
            "UPDATE integrations SET config = config || CAST(:config AS jsonb), enabled = true, updated_at = :at"
            " WHERE shop_id = :shop AND vendor = :vendor"
        ),
        {"shop": shop.id, "vendor": VENDOR, "at": at, "config": orjson.dumps({"domain": granted.domain}).decode()},
    )
    connection.keep_scopes(session, shop.id, VENDOR, made.scopes, at=at)
    connection.clear(session, shop, VENDOR, at=at, actor=granted.actor)
    audit.record(
        session, shop.id, at=at, actor=granted.actor, verb="integration.connected", subject=f"integration:{VENDOR}",
        detail={"domain": granted.domain, "scopes": list(made.scopes), "token_expires_at": made.expires_at},
    )  # fmt: skip
    connection.ask_check(session, shop.id, VENDOR, at=at)
