"""The HTTP border of the error tree: every failure becomes one RFC 9457 problem document.

`type` is a stable relative address ending in the code, `detail` says what to do, `where` names the field at fault.
A database that is down, full or busy is 503 with Retry-After: what was not committed was not accepted.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson
import psycopg
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from operation_agent.kit.errors import AgentError, Conflict, Denied, NotFound, Rejected, Retryable

MEDIA_TYPE = "application/problem+json"
_STATUS: dict[type[AgentError], int] = {Rejected: 400, NotFound: 404, Conflict: 409, Retryable: 503}
_UNAVAILABLE_STATES = ("08", "53", "57", "58", "25006", "40", "55P03", "XX")
"""SQLSTATE classes that say "not now": connection, resources (disk full), intervention, system, serialisation."""


class Problem(BaseModel):
    """RFC 9457. `where` names the path, field or index at fault; `errors` lists more than one."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    where: str | None = None
    errors: list[dict[str, Any]] | None = None


class ProblemResponse(Response):
    media_type = MEDIA_TYPE


def problem(
    status: int, code: str, detail: str, *, headers: dict[str, str] | None = None, **members: Any
) -> ProblemResponse:
    """A problem document; members that are None are left out."""
    body = {
        "type": f"/problems/{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        **{name: value for name, value in members.items() if value is not None},
    }
    return ProblemResponse(orjson.dumps(body, default=str), status, headers)


def of_error(error: AgentError) -> ProblemResponse:
    """The one translation of kit.errors. `extra['status']` narrows it (413, 415, 422 ...)."""
    extra = dict(error.extra)
    status, headers = extra.pop("status", None), {}
    if isinstance(error, Denied):
        status = 401 if error.unauthenticated else 403
        if error.unauthenticated:
            headers["WWW-Authenticate"] = 'Basic realm="operation-agent", Bearer'
    elif isinstance(error, Retryable):
        headers["Retry-After"] = str(max(1, round(error.retry_after.total_seconds())))
    if status is None:
        status = next((known for kind, known in _STATUS.items() if isinstance(error, kind)), 500)
    return problem(status, error.code, error.detail, headers=headers, where=error.where, **extra)


def unavailable(error: Exception) -> Retryable | None:
    """What a database failure is to a caller: Retryable when the database is the cause, None when our SQL is."""
    if isinstance(error, PoolTimeout | InterfaceError | psycopg.InterfaceError):
        return Retryable("the database is busy; nothing was stored, send it again")
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, psycopg.OperationalError) and cause.sqlstate is None:
        return Retryable("the database cannot be reached; nothing was stored, send it again")
    if isinstance(cause, psycopg.Error) and (cause.sqlstate or "").startswith(_UNAVAILABLE_STATES):
        return Retryable("the database cannot store anything now; nothing was stored, send it again")
    return None


def of_any(request: Request, error: Exception) -> ProblemResponse:
    """Any failure as a problem document; one that is nobody's but ours is logged, and its details stay with us."""
    if isinstance(error, AgentError):
        return of_error(error)
    log = structlog.get_logger("api")
    retryable = unavailable(error)
    if retryable is not None:
        log.warning("database unavailable", path=request.url.path, error=str(error)[:300])
        return of_error(retryable)
    log.error("unexpected error", path=request.url.path, exc_info=error)
    return problem(500, "internal", "an unexpected error; the server's log has it")


async def _any_error(request: Request, error: Exception) -> Response:
    return of_any(request, error)


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).name.lower()
    return problem(error.status_code, code, str(error.detail), headers=dict(error.headers or {}))


async def _invalid_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        {"where": ".".join(str(part) for part in one["loc"]), "code": one["type"], "reason": one["msg"]}
        for one in error.errors()
    ]
    first = errors[0]
    return problem(400, "invalid", f"{first['where']}: {first['reason']}", where=first["where"], errors=errors)


def install(app: FastAPI) -> None:
    """Translate every error of the app."""
    app.add_exception_handler(AgentError, _any_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(PoolTimeout, _any_error)
    app.add_exception_handler(DBAPIError, _any_error)
    app.add_exception_handler(psycopg.Error, _any_error)
    app.add_exception_handler(Exception, _any_error)


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": HTTPStatus(status).phrase} for status in (400, 401, 403, 413, 503)
}
"""The failures any route may answer with, for the OpenAPI document."""
