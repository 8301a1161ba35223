"""The HTTP application: tracking, webhooks and the admin API, one factory.

`uvicorn api.app:app`, with OPAGENT_DATABASE_URL set (`opagent up` sets it).
"""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from sqlalchemy import Engine

from api import errors
from api.cross_origin import TrackingFromAnywhere
from api.description import describe_security
from api.group_commit import GroupCommitter
from api.hot_path import HotPathApp
from api.limits import BodyLimit
from api.metrics import RequestMetrics
from api.routes import (
    access,
    actions,
    approvals,
    audit,
    behavior,
    budgets,
    campaigns,
    catalogue,
    clusterings,
    code_pools,
    connecting,
    customers,
    decisions,
    effects,
    events,
    health,
    home,
    integrations,
    pixel,
    privacy,
    proposals,
    publishing,
    rehearsal,
    rules,
    runs,
    segments,
    session,
    shop_changes,
    shops,
    storefront,
    strategies,
    tracking,
)
from api.services import Services
from api.webhooks import sendgrid, shopify, unsubscribe
from api.webhooks.senders import Senders
from operation_agent.access.keyring import KeyRing
from operation_agent.kit.errors import Rejected
from operation_agent.kit.settings import settings
from operation_agent.store.engine import connect

ROUTERS: tuple[APIRouter, ...] = (
    tracking.router,
    session.router,
    shops.router,
    events.router,
    customers.router,
    clusterings.router,
    segments.router,
    strategies.router,
    proposals.router,
    campaigns.router,
    publishing.router,
    rehearsal.router,
    rules.router,
    decisions.router,
    approvals.router,
    actions.router,
    runs.router,
    budgets.router,
    effects.router,
    audit.router,
    integrations.router,
    access.router,
    sendgrid.router,
    shopify.router,
    unsubscribe.router,
    health.router,
    home.router,
    behavior.router,
    shop_changes.router,
    code_pools.router,
    storefront.router,
    catalogue.router,
    connecting.router,
    pixel.router,
    privacy.router,
)
"""Every module with routes has one line here; `include` order is the order of the OpenAPI document."""

PUBLIC_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/", "/api/session"})
"""Routes without Requires: health, the API's description, logging in. Webhooks prove themselves by signature."""
PUBLIC_PREFIXES = ("/webhooks/", "/unsubscribe/", "/oauth/")


SWITCH_SECONDS = 0.001
"""How long the event loop may keep the interpreter from the committing thread; Python's 5 ms would be its wait at
each of its steps. Measured by bench/intake.py."""
COLLECT_EVERY = 50_000
"""Allocations between two runs of the cycle collector. A batch of 100 events is thousands of them, none in a cycle;
Python's 700 cost a fifth of a batch. Measured by bench/intake.py."""


def _tune_interpreter() -> None:
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # what is loaded by now stays for ever: never look at it again
    gc.set_threshold(COLLECT_EVERY, 20, 100)


def _engine() -> Engine:
    url = settings().database_url
    if url is None:
        raise Rejected("set OPAGENT_DATABASE_URL, or start everything with `opagent up`", where="OPAGENT_DATABASE_URL")
    return connect(url, application_name="opagent-api")


def create_app(engine: Engine | None = None) -> FastAPI:
    """The app. Its lifespan opens the database (or uses `engine`, which the caller then closes)."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = engine or _engine()
        _tune_interpreter()
        app.state.services = Services(database, KeyRing(database), GroupCommitter(database), Senders(database))
        try:
            yield
        finally:
            await app.state.services.close(dispose=engine is None)

    app = HotPathApp(
        title="Operation Agent",
        version="0.1.0",
        lifespan=lifespan,
        responses=errors.RESPONSES,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    errors.install(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(TrackingFromAnywhere)
    app.add_middleware(RequestMetrics)
    for router in ROUTERS:
        app.include_router(router)
    tracked = RequestMetrics(TrackingFromAnywhere(BodyLimit(tracking.serve_hot)))
    app.hot_apps = {
        **dict.fromkeys(tracking.HOT, tracked),
        shopify.HOT: RequestMetrics(BodyLimit(shopify.serve_hot)),
    }
    describe_security(app)
    return app


app = create_app()
