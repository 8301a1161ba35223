"""Access tokens: asked for with a code, and renewed with the refresh token that came with the last one.

An offline token that expires lives an hour, its refresh token ninety days; each renewal gives a new pair. Shopify goes
on taking the old refresh token until its replacement is used for the first time (at most 30 days from its own first
use), so an answer that was lost, or a crash before it was stored, costs nothing: the same refresh token is used again.
https://shopify.dev/docs/apps/build/authentication-authorization/access-tokens/offline-access-tokens
https://shopify.dev/changelog/more-resilient-refreshes-for-expiring-offline-access-tokens
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx
import orjson

from integrations import http
from operation_agent.kit.errors import Denied, Rejected, Retryable

PATH = "/admin/oauth/access_token"
TIMEOUT = timedelta(seconds=15)
LIFE = timedelta(hours=1)
"""What a token with a refresh token lives when the answer does not say."""
AHEAD = timedelta(minutes=10)
"""How long before its end a token is renewed."""


class GrantRefused(Denied):
    """The code or the refresh token is not taken (any more): only connecting again helps."""

    code = "grant_refused"


@dataclass(frozen=True, slots=True)
class App:
    """Who we are to Shopify: the app's client id and secret."""

    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tokens:
    """`expires_at` is UTC by our clock, None for a token that stays. `scopes` are those of the answer."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_at: datetime | None
    scopes: tuple[str, ...]

    @property
    def renew_at(self) -> datetime | None:
        return self.expires_at - AHEAD if self.expires_at is not None else None


def exchange(base_url: str, app: App, code: str, *, at: datetime, expiring: bool = True) -> Tokens:
    """An offline token for the code of a callback. Raises GrantRefused, Rejected or Retryable."""
    asked = {"client_id": app.client_id, "client_secret": app.client_secret, "code": code}
    return _ask(base_url, asked | {"expiring": "1" if expiring else "0"}, at)


def renew(base_url: str, app: App, refresh_token: str, *, at: datetime) -> Tokens:
    """The next pair. May be asked again with the same refresh token until the new one is used. Raises as `exchange`."""
    asked = {"client_id": app.client_id, "client_secret": app.client_secret, "grant_type": "refresh_token"}
    return _ask(base_url, asked | {"refresh_token": refresh_token}, at)


def of_client(base_url: str, app: App, *, at: datetime) -> Tokens:
    """A token for an app of the shop's own organisation, which nobody needs to grant: it lives a day, and is simply
    asked for again (client credentials grant). Raises as `exchange`."""
    asked = {"client_id": app.client_id, "client_secret": app.client_secret, "grant_type": "client_credentials"}
    return _ask(base_url, asked, at)


def _ask(base_url: str, asked: Mapping[str, str], at: datetime) -> Tokens:
    connections = http.Connections(base_url.rstrip("/"), {"Accept": "application/json"})
    try:
        response = connections.post(PATH, json=dict(asked), timeout=TIMEOUT)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Retryable(f"Shopify was not reached: {type(error).__name__}", retry_after=timedelta(minutes=1)) from None
    finally:
        connections.close()
    return read(response, at)


def read(response: httpx.Response, at: datetime) -> Tokens:
    """What the token endpoint answered. What it says is never repeated whole: it may hold a token."""
    status = response.status_code
    if status == 429 or status >= 500 or status == 408:
        wait = http.retry_after(response) or timedelta(minutes=1)
        raise Retryable(f"Shopify answers HTTP {status} when asked for a token", retry_after=wait)
    body = _object(response)
    if not 200 <= status < 300:
        told = ": ".join(str(body[name])[:200] for name in ("error", "error_description") if body.get(name))
        raise GrantRefused(f"Shopify refuses the grant (HTTP {status}{f', {told}' if told else ''})")
    token = body.get("access_token")
    if not isinstance(token, str) or not token:
        raise Rejected("Shopify's answer holds no access token; is base_url the shop's own address?")
    refresh = body.get("refresh_token")
    refresh = refresh if isinstance(refresh, str) and refresh else None
    return Tokens(token, refresh, _end(body.get("expires_in"), refresh, at), _scopes(body.get("scope")))


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        found = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _end(seconds: Any, refresh_token: str | None, at: datetime) -> datetime | None:
    """A token that comes with a refresh token expires, whether the answer says when or not."""
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < 10**9:
        return at + timedelta(seconds=seconds)
    return at + LIFE if refresh_token is not None else None


def _scopes(said: Any) -> tuple[str, ...]:
    return tuple(sorted(filter(None, (one.strip() for one in said.split(","))))) if isinstance(said, str) else ()
