"""The application, with a short way for events.

FastAPI and Starlette put fourteen calls between the server and an endpoint (telemetry, three layers of error handling,
two routers); for a request whose own work is a tenth of that they are most of its cost. POSTs to the tracking paths and
of Shopify's webhooks go through the body limit and metrics and straight to the endpoint. Measured by bench/intake.py:
245 µs of processor time a request before, 105 µs after. All other requests go the usual way.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send


class HotPathApp(FastAPI):
    """A FastAPI that hands some POSTs to other ASGI applications.

    `hot_apps` is by exact path, or by a path that ends in a slash for whatever is one segment below it.
    """

    hot_apps: Mapping[str, ASGIApp] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hot = self._hot_app(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if hot is not None:
            scope["app"] = self
            await hot(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def _hot_app(self, path: str) -> ASGIApp | None:
        return self.hot_apps.get(path) or self.hot_apps.get(path[: path.rfind("/") + 1])
