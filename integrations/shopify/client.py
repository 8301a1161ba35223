"""Calls to one shop's Admin GraphQL API. Each tells exactly what is known of it: done, provably not done, or uncertain.

Version and path come from ShopifyAPI; the transport is ours, because `shopify.GraphQL` has no time-out, prints what
goes wrong and shows no headers (docs/decisions/0014-shopify.md).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import httpx

from integrations import http
from operation_agent.actions.channel import NotSent
from operation_agent.kit.clock import monotonic

from . import answers, documents
from .access import API_VERSION as API_VERSION
from .access import Access as Access
from .errors import Malformed, Oversized, Throttled, Uncertain, Unreachable
from .throttle import Bucket, of_process

TIMEOUT = timedelta(seconds=10)
PATIENCE = timedelta(seconds=30)
UNTOLD_COST = 10.0
"""Points that an operation is taken to cost until it was called once: what Shopify charges for any mutation."""
_BACKOFF, _LONGEST_BACKOFF = 0.5, 8.0
_costs: dict[str, float] = {}
"""Points, by operation: what it cost last, whichever shop it was called at. A client lives as long as a task, this as
long as the process."""


class Shopify:
    """Thread-safe. `query` reads and tries again by itself; `mutate` calls once.

    `sleep` is how it waits, in seconds (tests give their own).
    """

    def __init__(self, access: Access, *, bucket: Bucket | None = None, sleep: Callable[[float], None] = time.sleep):
        self.access = access
        self.served_version: str | None = None  # of the last answer: another than asked for when ours has expired
        self._bucket = bucket or of_process(access.host)
        self._path = access.path()
        self._client = http.Connections(access.base_url, {"X-Shopify-Access-Token": access.token})
        self._sleep = sleep

    def query(
        self,
        name: str,
        variables: Mapping[str, Any] | None = None,
        *,
        timeout: timedelta = TIMEOUT,
        patience: timedelta = PATIENCE,
    ) -> dict[str, Any]:
        """`data` of the query in `graphql/<name>.graphql`, all of it or an error. Raises those of `errors`, never
        Uncertain. What may pass is tried again for `patience` (besides the calls themselves, `timeout` each)."""
        deadline, tries = monotonic() + patience.total_seconds(), 0
        while True:
            left = timedelta(seconds=max(0.0, deadline - monotonic()))
            try:
                return self._query(name, variables or {}, timeout, left)
            except (Throttled, Unreachable) as error:
                wait = _wait(error, tries)
                if monotonic() + wait > deadline:
                    raise
            tries += 1
            self._sleep(wait)

    def mutate(
        self,
        name: str,
        variables: Mapping[str, Any],
        *,
        timeout: timedelta = TIMEOUT,
        patience: timedelta = TIMEOUT,
    ) -> dict[str, Any]:
        """The payload of the one mutation in `graphql/<name>.graphql`. Raises UserErrors for what it refuses.

        It is called once, after waiting at most `patience` for the shop's allowance. Throttled, Unreachable and
        ShopUnavailable: it was provably not done.
        """
        return answers.payload_of(self._call(name, variables, timeout, patience))

    def close(self) -> None:
        self._client.close()

    def _query(
        self, name: str, variables: Mapping[str, Any], timeout: timedelta, patience: timedelta
    ) -> dict[str, Any]:
        try:
            answer = self._call(name, variables, timeout, patience)
            if answer.errors:
                answers.raise_errors(answer)
        except Oversized as error:
            raise Malformed(f"{error.detail}; ask for fewer at once") from None
        except Uncertain as error:  # nothing can have been changed by reading
            raise Unreachable(error.detail) from None
        return dict(answer.data or {})

    def _call(self, name: str, variables: Mapping[str, Any], timeout: timedelta, patience: timedelta) -> answers.Answer:
        body = {"query": documents.read(name), "variables": dict(variables)}
        receipt = self._bucket.take(_costs.get(name, UNTOLD_COST), patience=patience)
        try:
            response = self._client.post(self._path, json=body, timeout=timeout)
        except http.AnswerTooLarge as error:
            raise Oversized(f"{name}: {error}") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            found = http.of_error(error)
            raise (Unreachable if isinstance(found, NotSent) else Uncertain)(found.reason) from None
        self.served_version = response.headers.get("X-Shopify-API-Version", self.served_version)
        read = answers.body_of(response)
        cost = answers.cost_of(read)
        self._learn(name, cost, receipt)
        return answers.read(response, read, cost)

    def _learn(self, name: str, cost: answers.Cost | None, receipt: str) -> None:
        if cost is None:
            return
        if cost.requested:
            _costs[name] = cost.requested
        self._bucket.learn(
            maximum=cost.maximum, available=cost.available, restore_rate=cost.restore_rate, receipt=receipt
        )


def _wait(error: Throttled | Unreachable, tries: int) -> float:
    """Seconds until the next attempt: what was computed and a little apart, or back-off with full jitter
    (Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog 2015)."""
    jitter = random.uniform(0, min(_LONGEST_BACKOFF, _BACKOFF * 2**tries))
    if isinstance(error, Throttled):
        return error.retry_after.total_seconds() + min(jitter, 1.0)
    return jitter
