"""Body limits, held before anything is buffered: by Content-Length, and by counting when there is none or it lies."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import of_error
from operation_agent.kit.errors import Rejected
from operation_agent.kit.settings import settings

UPLOAD_LIMIT_BYTES = 256 * 1024 * 1024
"""Of an imported file; imports are streamed to disk, never held in memory."""
ADMIN_LIMIT_BYTES = 1024 * 1024


def limit_of(path: str) -> int:
    """Bytes the body of a request to `path` may have."""
    if path.startswith("/v1/"):
        return settings().body_limit_bytes
    if path.startswith("/webhooks/"):
        return settings().webhook_limit_bytes
    return UPLOAD_LIMIT_BYTES if path.startswith("/api/imports") else ADMIN_LIMIT_BYTES


def too_large(limit: int) -> Rejected:
    return Rejected(f"the body is larger than {limit} bytes; send less at once", code="body_too_large", status=413)


def _declared_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    return None


class BodyLimit:
    """ASGI middleware: 413 as soon as it is known that the body is too large."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = limit_of(scope["path"])
        declared = _declared_length(scope)
        if declared is None:
            await self._app(scope, _counted(receive, limit), send)
        elif declared > limit:
            await of_error(too_large(limit))(scope, receive, send)
        else:
            await self._app(scope, receive, send)  # the server reads no further than Content-Length


def _counted(receive: Receive, limit: int) -> Receive:
    seen = 0

    async def count() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise too_large(limit)
        return message

    return count
