"""Calls to one shop's Admin GraphQL API. Each tells exactly what is known of it: done, provably not done, or uncertain.

Address, version and path come from ShopifyAPI's `Session`; the transport is ours, because `shopify.GraphQL` has no
time-out, prints what goes wrong and shows no headers (docs/decisions/0014-shopify.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import httpx
import orjson

from integrations import http
from operation_agent.actions.channel import NotSent

from . import documents
from .errors import (
    Malformed,
    ScopeMissing,
    ShopUnavailable,
    Throttled,
    Unauthorized,
    Uncertain,
    Unreachable,
    UserError,
    UserErrors,
)

API_VERSION = "2026-07"
TIMEOUT = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Access:
    """Where a shop's Admin API is and what opens it. `base_url` has no path: https://example.myshopify.com."""

    base_url: str
    token: str
    api_version: str = API_VERSION


class Bucket(Protocol):
    """The shop's cost allowance, shared by everybody who calls it."""

    def take(self, cost: float, *, patience: timedelta) -> None:
        """Wait at most `patience` until there is room. Raises Throttled."""
        ...

    def learn(self, *, maximum: float, available: float, restore_rate: float) -> None:
        """What the API itself said is left."""
        ...


class Shopify:
    """Thread-safe. `query` reads and may be tried again by itself; `mutate` calls once."""

    def __init__(self, access: Access, *, bucket: Bucket | None = None):
        self.access = access
        self._bucket = bucket
        self._client = http.Connections(access.base_url, {"X-Shopify-Access-Token": access.token})
        self._path = f"/admin/api/{access.api_version}/graphql.json"

    def query(
        self, name: str, variables: Mapping[str, Any] | None = None, *, timeout: timedelta = TIMEOUT
    ) -> dict[str, Any]:
        """`data` of the query in `graphql/<name>.graphql`. Raises the errors of `errors`, never Uncertain."""
        try:
            return self._call(name, variables or {}, timeout)
        except Uncertain as error:  # nothing can have been changed by reading
            raise Unreachable(error.detail) from None

    def mutate(self, name: str, variables: Mapping[str, Any], *, timeout: timedelta = TIMEOUT) -> dict[str, Any]:
        """The payload of the one mutation in `graphql/<name>.graphql`. Raises UserErrors for what it refuses."""
        data = self._call(name, variables, timeout)
        (payload,) = data.values()
        if payload is None:
            raise Uncertain("the answer does not say what became of it")
        errors = payload.get("userErrors") or payload.get("mediaUserErrors") or []
        if errors:
            raise UserErrors([_user_error(one) for one in errors])
        return dict(payload)

    def close(self) -> None:
        self._client.close()

    def _call(self, name: str, variables: Mapping[str, Any], timeout: timedelta) -> dict[str, Any]:
        body = {"query": documents.read(name), "variables": dict(variables)}
        try:
            response = self._client.post(self._path, json=body, timeout=timeout)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            found = http.of_error(error)
            raise (Unreachable if isinstance(found, NotSent) else Uncertain)(found.reason) from None
        return self._data(response)

    def _data(self, response: httpx.Response) -> dict[str, Any]:
        _check_status(response)
        try:
            answer = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            raise Uncertain(f"the answer is not JSON: {response.text[:200]}") from None
        if not isinstance(answer, dict):
            raise Uncertain("the answer is not an object")
        if answer.get("errors"):
            _raise_errors(answer["errors"])
        if not isinstance(answer.get("data"), dict):
            raise Uncertain("the answer has no data")
        return dict(answer["data"])


def _check_status(response: httpx.Response) -> None:
    status, told = response.status_code, f"HTTP {response.status_code}: {response.text[:300]}"
    if status == 401:
        raise Unauthorized(told)
    if status == 403:
        raise ScopeMissing(told)
    if status in (402, 404, 423):
        raise ShopUnavailable(told, retry_after=timedelta(minutes=10))
    if status in (429, 430):
        raise Throttled(told, retry_after=http.retry_after(response) or timedelta(seconds=2))
    if status >= 500 or status in (408, 499) or status < 200 or 300 <= status < 400:
        raise Uncertain(told)
    if status >= 400:
        raise Malformed(told)


def _raise_errors(errors: Any) -> None:
    """GraphQL's top-level errors come with HTTP 200; extensions.code tells them apart."""
    listed = [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    codes = {(error.get("extensions") or {}).get("code") for error in listed}
    told = "; ".join(str(error.get("message")) for error in listed)[:500] or str(errors)[:500]
    if "THROTTLED" in codes:
        raise Throttled(told, retry_after=timedelta(seconds=2))
    if "ACCESS_DENIED" in codes:
        raise ScopeMissing(told)
    if "SHOP_INACTIVE" in codes:
        raise ShopUnavailable(told, retry_after=timedelta(minutes=10))
    if not listed or "INTERNAL_SERVER_ERROR" in codes:
        raise Uncertain(told)
    raise Malformed(told)


def _user_error(one: Mapping[str, Any]) -> UserError:
    return UserError(tuple(str(part) for part in one.get("field") or ()), one.get("code"), str(one.get("message")))
