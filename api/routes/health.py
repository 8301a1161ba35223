"""Is it alive, is it ready, how is it doing. None of these needs a shop."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from api import metrics
from api.dependencies import Database, identify
from api.errors import Problem
from migrations import run as migrations
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Denied
from operation_agent.kit.settings import settings
from operation_agent.store.session import for_system

router = APIRouter(tags=["health"])

COMPONENTS = ("relay", "scheduler", "worker")
LATEST_BEAT = timedelta(seconds=30)
OK = "ok"
_BEATS = text("SELECT component, max(beat_at) AS beat_at FROM heartbeats GROUP BY component")


class Health(BaseModel):
    status: str = Field(OK, examples=[OK])


class Readiness(BaseModel):
    """`parts` says `ok`, or what is wrong, for each part."""

    ready: bool
    parts: dict[str, str]


@router.get("/healthz", operation_id="get_health", summary="The process answers")
async def get_health() -> Health:
    return Health(status=OK)


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Everything this installation needs is there",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "Not ready; `parts` names what is missing"}},
)
def get_readiness(database: Database, response: Response) -> Readiness:
    parts = {**_database_parts(database), "redis": _redis()}
    ready = all(state == OK for state in parts.values())
    response.status_code = 200 if ready else 503
    return Readiness(ready=ready, parts=parts)


def _database_parts(engine: Engine) -> dict[str, str]:
    """The database, its schema, and the processes that left their heartbeat in it."""
    try:
        with for_system(engine) as session:
            now = SYSTEM.now()
            revision = migrations.current(session.connection())
            rows = session.execute(_BEATS).all() if revision else []
    except SQLAlchemyError as error:
        structlog.get_logger("api").warning("database not ready", error=str(error)[:300])
        return {"database": "cannot be reached", **dict.fromkeys(("migrations", *COMPONENTS), "unknown")}
    beats = {row.component: row.beat_at for row in rows}
    parts = {"database": OK, "migrations": _schema(revision)}
    for component in COMPONENTS:
        beat = beats.get(component)
        if beat is None:
            parts[component] = "has never been seen"
        else:
            age = now - beat
            parts[component] = OK if age <= LATEST_BEAT else f"last seen {age.total_seconds():.0f} s ago"
    return parts


def _schema(revision: str | None) -> str:
    head = migrations.head()
    return OK if revision == head else f"at {revision or 'nothing'}, not at {head}; run `opagent db upgrade`"


def _redis() -> str:
    from redis import Redis
    from redis.exceptions import RedisError

    url = settings().redis_url
    if url is None:
        return "OPAGENT_REDIS_URL is not set"
    try:
        client = Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)
    except ValueError:
        return "OPAGENT_REDIS_URL is not a Redis address"
    try:
        client.ping()
    except (RedisError, OSError):
        return "cannot be reached"
    finally:
        client.close()
    return OK


def _is_loopback(request: Request) -> bool:
    """Whether the connection itself comes from this machine, and no proxy says it speaks for somebody else."""
    if request.client is None or "forwarded" in request.headers or "x-forwarded-for" in request.headers:
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


async def _may_read_metrics(request: Request) -> None:
    """From this machine without a key; from elsewhere with one of scope metrics:read. Raises Denied."""
    if "authorization" not in request.headers and _is_loopback(request):
        return
    caller = await identify(request)
    if caller.kind != "key":
        raise Denied("metrics are read with an API key", code="scope_missing")
    caller.require("metrics:read")


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text format"},
        401: {"model": Problem, "description": "Not from this machine and without a key"},
    },
)
def get_metrics(database: Database, _allowed: Annotated[None, Depends(_may_read_metrics)]) -> Response:
    return Response(metrics.exposition(database), media_type="text/plain; version=0.0.4; charset=utf-8")
