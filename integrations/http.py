"""What an HTTP call to a provider tells: done, provably not done, or unknown. The same reading for every vendor."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson

from operation_agent.actions.channel import NotSent, Unknown
from operation_agent.kit.clock import SYSTEM, monotonic

_LONGEST_WAIT = timedelta(hours=1)
# raised before a byte of the request has left, or because it never could
_NEVER_LEFT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_UNUSABLE = (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError)

LARGEST_ANSWER = 32 * 2**20
"""Bytes, unpacked, that one answer may take of a worker's memory."""
_OF_THE_WIRE = (b"content-encoding", b"content-length", b"transfer-encoding")


class AnswerTooLarge(httpx.TransportError):
    """An answer of more than LARGEST_ANSWER bytes; the rest of it was not read."""


class Connections:
    """A provider's address and credentials, with one kept-alive connection for each thread that calls it.

    One httpx pool shared by 32 threads looks through all its connections at every request: that costs more than the
    request (bench/pipeline.py). No redirect is followed (a redirected POST is another request).
    """

    def __init__(self, base_url: str, headers: dict[str, str]):
        self._base_url, self._headers = base_url, headers
        self._tls = httpx.create_ssl_context(trust_env=False) if base_url.startswith("https:") else False
        self._mine = threading.local()
        self._all: list[httpx.Client] = []
        self._lock = threading.Lock()

    def post(self, path: str, *, json: Any, timeout: timedelta) -> httpx.Response:
        kind = {"Content-Type": "application/json"}
        return self._ask("POST", path, timeout, content=orjson.dumps(json), headers=kind)

    def get(self, path: str, *, params: Mapping[str, Any], timeout: timedelta) -> httpx.Response:
        return self._ask("GET", path, timeout, params=dict(params))

    def close(self) -> None:
        with self._lock:
            for client in self._all:
                client.close()
            self._all.clear()

    def _ask(self, method: str, path: str, timeout: timedelta, **given: Any) -> httpx.Response:
        """The whole answer. Raises AnswerTooLarge, and httpx's ReadTimeout for one that trickles in for too long."""
        end, parts, size = monotonic() + timeout.total_seconds(), [], 0
        with self._client().stream(method, path, timeout=timeouts(timeout), **given) as response:
            for part in response.iter_bytes():
                size += len(part)
                if size > LARGEST_ANSWER:
                    raise AnswerTooLarge(f"the answer is larger than {LARGEST_ANSWER // 2**20} MB")
                if monotonic() > end:
                    raise httpx.ReadTimeout("the answer was not complete in time", request=response.request)
                parts.append(part)
        told = [one for one in response.headers.raw if one[0].lower() not in _OF_THE_WIRE]
        return httpx.Response(response.status_code, headers=told, content=b"".join(parts), request=response.request)

    def _client(self) -> httpx.Client:
        client: httpx.Client | None = getattr(self._mine, "client", None)
        if client is None or client.is_closed:
            client = httpx.Client(
                base_url=self._base_url,
                headers=self._headers,
                follow_redirects=False,
                trust_env=False,
                verify=self._tls,
                limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=15),
            )
            self._mine.client = client
            with self._lock:
                self._all.append(client)
        return client


def timeouts(total: timedelta) -> httpx.Timeout:
    """The whole call stays within about `total`: an answer after the lease would not be believed."""
    seconds = total.total_seconds()
    return httpx.Timeout(connect=seconds / 4, write=seconds / 4, pool=seconds / 4, read=seconds / 2)


def of_error(error: Exception) -> NotSent | Unknown:
    """What an exception of httpx means for a request that changes something."""
    told = f"{type(error).__name__}: {error}"[:300]
    if isinstance(error, _NEVER_LEFT + _UNUSABLE):
        return NotSent(told, permanent=False, is_provider_down=True)
    return Unknown(told)


def of_status(response: httpx.Response) -> NotSent | Unknown | None:
    """What an HTTP status means; None for 2xx, which the vendor's own client reads."""
    status, told = response.status_code, f"HTTP {response.status_code}: {response.text[:300]}"
    if 200 <= status < 300:
        return None
    if status == 429:
        return NotSent(told, permanent=False, retry_after=retry_after(response), is_provider_down=True)
    if status in (401, 402, 403, 407, 423):  # our account's trouble, not this delivery's
        return NotSent(told, permanent=False, is_provider_down=True)
    if status == 408 or status >= 500 or status < 200:
        return Unknown(told)
    return NotSent(told, permanent=True)


def retry_after(response: httpx.Response) -> timedelta | None:
    """The Retry-After header, as seconds or a date, or SendGrid's X-RateLimit-Reset; at most an hour."""
    written = response.headers.get("Retry-After", "").strip()
    if not written and response.headers.get("X-RateLimit-Reset", "").isdigit():
        seconds = int(response.headers["X-RateLimit-Reset"]) - SYSTEM.now().timestamp()
        return max(timedelta(0), min(timedelta(seconds=seconds), _LONGEST_WAIT))
    try:
        return max(timedelta(0), min(timedelta(seconds=float(written)), _LONGEST_WAIT))
    except (ValueError, OverflowError):
        pass
    try:
        at = parsedate_to_datetime(written)
    except (TypeError, ValueError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(timedelta(0), min(at - SYSTEM.now(), _LONGEST_WAIT))
