"""A load generator in its own process: raw asyncio protocols on uvloop, requests rendered before the clock starts.

`python -m bench.load` prints one JSON line. HTTP client libraries of Python cost more per request than the servers
measured here, so this speaks HTTP/1.1 by hand: one request at a time on each of N kept-alive connections.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
from collections import Counter, deque
from datetime import UTC, timedelta
from typing import Any

import orjson
import uvloop

from operation_agent.kit.clock import SYSTEM, monotonic
from operation_agent.kit.ids import new_id, uniform

_PRODUCTS = 2_000
_CUSTOMERS = 20_000


def message(number: int, run: str) -> dict[str, Any]:
    """One product view as Segment's Node library sends it; the same number and run give the same customer."""
    stamp = (SYSTEM.now().astimezone(UTC) - timedelta(seconds=1)).isoformat(timespec="milliseconds")
    product = int(uniform("product", run, str(number)) * _PRODUCTS)
    return {
        "type": "track",
        "event": "Product Viewed",
        "messageId": f"node-{new_id()}",
        "userId": f"customer-{int(uniform('customer', run, str(number)) * _CUSTOMERS)}",
        "timestamp": stamp.replace("+00:00", "Z"),
        "context": {"library": {"name": "analytics-node", "version": "2.1.0"}, "locale": "en-US"},
        "properties": {
            "product_id": f"p{product}",
            "name": f"Product {product}",
            "category": f"c{product % 20}",
            "price": 5 + product % 200,
            "currency": "USD",
        },
    }


def request(path: str, key: str, body: bytes) -> bytes:
    credentials = base64.b64encode(f"{key}:".encode()).decode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {credentials}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def rendered(path: str, key: str, requests: int, batch: int) -> deque[bytes]:
    """`requests` ready requests; `batch` events each, 0 for a single message as the whole body."""
    run = new_id().hex
    if not batch:
        return deque(request(path, key, orjson.dumps(message(number, run))) for number in range(requests))
    return deque(
        request(path, key, orjson.dumps({"batch": [message(first * batch + n, run) for n in range(batch)]}))
        for first in range(requests)
    )


class Connection(asyncio.Protocol):
    """Sends the next request when the last answer is complete; tells `finished` when there is none."""

    def __init__(self, waiting: deque[bytes], statuses: Counter[bytes], waits: list[float]):
        self._waiting, self._statuses, self._waits = waiting, statuses, waits
        self._buffer = b""
        self._sent_at = 0.0
        self._asked: asyncio.Future[None] | None = None
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    async def ask(self, raw: bytes) -> None:
        """Send one request that does not wait in line; returns when it is answered."""
        self._asked = asyncio.get_running_loop().create_future()
        self._sent_at = monotonic()
        self._transport.write(raw)
        await self._asked

    def send_next(self) -> None:
        if not self._waiting:
            self._transport.close()
            if not self.finished.done():
                self.finished.set_result(None)
            return
        self._sent_at = monotonic()
        self._transport.write(self._waiting.popleft())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        start = head.index(b"content-length:") + 15
        stop = head.find(b"\r\n", start)
        length = int(head[start : stop if stop > 0 else None])
        if len(self._buffer) < end + 4 + length:
            return
        self._statuses[head[9:12]] += 1
        self._waits.append(monotonic() - self._sent_at)
        self._buffer = b""
        if self._asked is None:
            self.send_next()
        else:
            self._asked.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._asked is not None and not self._asked.done():
            self._asked.set_exception(exc or ConnectionError("the server closed the connection"))
        if not self.finished.done():
            self.finished.set_exception(exc or ConnectionError("the server closed the connection"))


async def drive(port: int, waiting: deque[bytes], connections: int) -> dict[str, Any]:
    """Send everything; requests per second and waits in milliseconds."""
    total = len(waiting)
    statuses: Counter[bytes] = Counter()
    waits: list[float] = []
    loop = asyncio.get_running_loop()
    made = [
        (await loop.create_connection(lambda: Connection(waiting, statuses, waits), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    start = monotonic()
    for connection in made:
        connection.send_next()
    await asyncio.gather(*(connection.finished for connection in made))
    seconds = monotonic() - start
    waits.sort()
    return {
        "requests": total,
        "seconds": seconds,
        "per_second": total / seconds,
        "p50_ms": waits[len(waits) // 2] * 1000,
        "p99_ms": waits[int(len(waits) * 0.99)] * 1000,
        "statuses": {status.decode(): count for status, count in statuses.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--key", default="")
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--connections", type=int, default=64)
    given = parser.parse_args()
    waiting = rendered(given.path, given.key, given.requests, given.batch)
    print(json.dumps(uvloop.run(drive(given.port, waiting, given.connections))))


if __name__ == "__main__":
    main()
