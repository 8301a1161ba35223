"""An application under test, spoken to by an ordinary `httpx.Client`, without a socket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal


class _Transport(httpx.BaseTransport):
    def __init__(self, app: Any, portal: BlockingPortal, address: str):
        self._inner = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 40_000))
        self._portal = portal

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._portal.call(self._ask, request, request.read())

    async def _ask(self, request: httpx.Request, body: bytes) -> httpx.Response:
        asked = httpx.Request(
            request.method, request.url, headers=request.headers, content=body, extensions=request.extensions
        )
        answer = await self._inner.handle_async_request(asked)
        content = await answer.aread()
        return httpx.Response(answer.status_code, headers=answer.headers, content=content)


@contextmanager
def serve(app: Any, *, address: str = "192.0.2.1") -> Iterator[httpx.Client]:
    """Run the app's lifespan around a client that calls from `address`."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(app.router.lifespan_context(app)),
        httpx.Client(transport=_Transport(app, portal, address), base_url="http://agent.test") as client,
    ):
        yield client
