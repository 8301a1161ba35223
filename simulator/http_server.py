"""A small HTTP/1.1 server for fakes: one synchronous handler, keep-alive, and faults no real server would offer.

Light on purpose: a fake provider must not be what a measurement of the agent's throughput measures.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httptools
import orjson


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str  # path and query, as sent
    headers: dict[str, str]  # names in lower case
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """`delay` in seconds before it is sent; `is_dropped` closes the connection instead of answering."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    is_dropped: bool = False

    @classmethod
    def json(cls, value: Any, status: int = 200, **headers: str) -> Reply:
        return cls(status, orjson.dumps(value), {"Content-Type": "application/json", **headers})


Handler = Callable[[Request], Reply]


class _Connection(asyncio.Protocol):
    def __init__(self, handler: Handler, everyone: set[_Connection]) -> None:
        self._handler, self._everyone = handler, everyone
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: list[tuple[Request, bool]] = []
        self._is_busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._everyone.add(self)
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, _error: Exception | None) -> None:
        self._everyone.discard(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.write(_encoded(Reply(400), keep_alive=False))
            self._transport.close()

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        if name.lower() == b"expect":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        request = Request(
            self._parser.get_method().decode(), self._target.decode("latin-1"), self._headers, b"".join(self._body)
        )
        self._waiting.append((request, self._parser.should_keep_alive()))
        if not self._is_busy:
            self._next()

    def _next(self) -> None:
        if not self._waiting or self._transport.is_closing():
            self._is_busy = False
            return
        self._is_busy = True
        request, keep_alive = self._waiting.pop(0)
        try:
            reply = self._handler(request)
        except Exception as error:  # noqa: BLE001 - a fake answers 500 to its own defects, and says which
            reply = Reply.json({"error": repr(error)}, 500)
        if reply.delay:
            asyncio.get_running_loop().call_later(reply.delay, self._answer, reply, keep_alive)
        else:
            self._answer(reply, keep_alive)

    def _answer(self, reply: Reply, keep_alive: bool) -> None:
        if reply.is_dropped:
            self._transport.abort()
            return
        if not self._transport.is_closing():
            self._transport.write(_encoded(reply, keep_alive=keep_alive))
            if not keep_alive:
                self._transport.close()
        self._next()


def _encoded(reply: Reply, *, keep_alive: bool) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    lines += [f"Content-Length: {len(reply.body)}", f"Connection: {'keep-alive' if keep_alive else 'close'}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + reply.body


class Server:
    """Serves `handler` from a thread of its own until `stop`. Port 0 picks a free one; `url` says which."""

    def __init__(self, handler: Handler, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._handler, self._host, self._wanted = handler, host, port
        self._loop = asyncio.new_event_loop()
        self._started, self._stopped = threading.Event(), asyncio.Event()
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="fake-providers", daemon=True)

    def start(self) -> Server:
        """Raises OSError when the port is taken."""
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure
        return self

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.port}"

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join(timeout=5)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        connections: set[_Connection] = set()

        try:
            server = await self._loop.create_server(
                lambda: _Connection(self._handler, connections), self._host, self._wanted, backlog=512
            )
        except OSError as error:
            self._failure = error
            self._started.set()
            return
        self.port: int = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stopped.wait()
        server.close()
        for connection in list(connections):
            connection._transport.abort()
        await asyncio.sleep(0)

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()
