"""The lines of a result file, from any byte on, with no more of it in memory than a piece.

The file lies on another host, under an address that is its own key: no token goes there. A break is told from an end:
by the length that was announced, and by the last line, which is whole or not JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from urllib.parse import urlsplit

import httpx

from integrations import http
from integrations.shopify.errors import Unreachable
from operation_agent.kit.errors import Rejected
from operation_agent.storefront.protocol import ResultExpired

TIMEOUT = httpx.Timeout(connect=10, read=60, write=10, pool=10)
LONGEST_LINE = 1 << 25
"""Bytes; a line longer than this is not Shopify's."""


def lines(url: str, *, offset: int, secure: bool = True) -> Iterator[tuple[bytes, int]]:
    """Each line from byte `offset` on, without its end, and the byte after it; empty lines are left out.

    `secure`: only https will do. Raises Unreachable when the connection breaks or the file ends within a line,
    ResultExpired when the address is not good any more, Rejected when it is none.
    """
    if urlsplit(url).scheme != "https" and secure:
        raise Rejected("the result of an export is read over https only", where="url")
    try:
        with _opened(url, offset) as response:
            yield from _split(_from(response, offset), offset)
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
        raise Unreachable(f"the result broke off: {type(error).__name__}: {error}"[:300]) from None


@contextmanager
def _opened(url: str, offset: int) -> Iterator[httpx.Response]:
    """The response to a request for the file from `offset` on, or for all of it when the server knows no ranges."""
    headers = {"Accept-Encoding": "gzip"}
    if offset:
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={offset}-"}
    tls = httpx.create_ssl_context(trust_env=False) if url.startswith("https:") else False
    with (
        httpx.Client(follow_redirects=False, trust_env=False, verify=tls, timeout=TIMEOUT) as client,
        client.stream("GET", url, headers=headers) as response,
    ):
        _check(response, offset)
        yield response


def _check(response: httpx.Response, offset: int) -> None:
    status = response.status_code
    if status == 206 and _starts_at(response, offset):
        return
    if status == 200 or (status == 416 and offset):
        return
    told = f"the address of the result answers HTTP {status}"
    if status in (400, 401, 403, 404, 410):
        raise ResultExpired(told, retry_after=timedelta(seconds=1))
    raise Unreachable(told, retry_after=http.retry_after(response) or timedelta(seconds=5))


def _starts_at(response: httpx.Response, offset: int) -> bool:
    """Whether a part is the one that was asked for: uncompressed, since it could not be unpacked from its middle."""
    said = response.headers.get("Content-Range", "")
    return said.startswith(f"bytes {offset}-") and response.headers.get("Content-Encoding", "identity") == "identity"


def _from(response: httpx.Response, offset: int) -> Iterator[bytes]:
    """The bytes from `offset` on, unpacked; of a server that sends everything all the same, the first are skipped."""
    if response.status_code == 416:  # nothing comes after what was read
        return
    skip = offset if response.status_code == 200 else 0
    for piece in response.iter_bytes():  # as they come: what waits to fill a piece is lost when the connection breaks
        if skip >= len(piece):
            skip -= len(piece)
            continue
        yield piece[skip:] if skip else piece
        skip = 0


def _split(pieces: Iterator[bytes], offset: int) -> Iterator[tuple[bytes, int]]:
    rest, end = b"", offset
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            end += len(line) + 1
            if line.strip():
                yield line, end
        if len(rest) > LONGEST_LINE:
            raise Rejected(f"a line of the result is longer than {LONGEST_LINE} bytes")
    if rest.strip():
        if not rest.rstrip().endswith(b"}"):
            raise Unreachable("the result ends in the middle of a line")
        yield rest, end + len(rest)
