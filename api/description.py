"""The OpenAPI document's security: read off the same dependency that enforces it, so the two cannot differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts

from api.dependencies import Requires
from operation_agent.access.sessions import COOKIE

_SCHEMES: dict[str, Any] = {
    "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key: opk_..."},
    "writeKey": {"type": "http", "scheme": "basic", "description": "An API key as user name, no password"},
    "session": {
        "type": "apiKey", "in": "cookie", "name": COOKIE,
        "description": "A log-in session; unsafe methods also need X-Requested-With",
    },
}  # fmt: skip


def _requirements(dependant: Dependant) -> Iterator[Requires]:
    if isinstance(dependant.call, Requires):
        yield dependant.call
    for below in dependant.dependencies:
        yield from _requirements(below)


def routes(app: FastAPI) -> Iterator[tuple[RouteContext, Requires | None]]:
    """Every route of the app with its requirement, None for a public one."""
    for route in iter_route_contexts(app.routes):
        dependant = getattr(route, "dependant", None)
        yield route, next(_requirements(dependant), None) if dependant is not None else None


def describe_security(app: FastAPI) -> None:
    """Make `app.openapi()` name the permission and the ways to prove oneself of every route."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = plain()
        document.setdefault("components", {})["securitySchemes"] = _SCHEMES
        for route, requirement in routes(app):
            operations = document["paths"].get(route.path, {})
            for method in getattr(route, "methods", None) or ():
                if requirement is not None and method.lower() in operations:
                    operations[method.lower()]["security"] = [{scheme: []} for scheme in _SCHEMES]
                    operations[method.lower()]["x-permission"] = requirement.permission
        return document

    app.openapi = described  # type: ignore[method-assign]
