"""A merchant grants our app access: the address they are sent to, and whether who comes back was sent by Shopify.

Address and signature are ShopifyAPI's own code. Its `Session` keeps the app's secret on the class, which every shop of
this installation would share: each call here makes a class of its own.
https://shopify.dev/docs/apps/build/authentication-authorization/access-tokens/authorization-code-grant
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from operation_agent.kit.errors import Denied, Rejected

from .access import API_VERSION
from .scopes import FEATURES as FEATURES
from .scopes import lacking_by_feature as lacking_by_feature
from .scopes import requested as requested
from .tokens import App as App
from .tokens import Tokens as Tokens
from .tokens import exchange as exchange

FRESH = timedelta(minutes=10)
"""How far a callback's timestamp may be from our clock, and how long somebody may take to grant access."""

_DOMAIN = re.compile(r"[a-z0-9][a-z0-9-]{0,59}\.myshopify\.com")
_NEEDED = ("code", "hmac", "shop", "state", "timestamp")
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class Callback:
    """What a callback says, once it has the form of one; whether Shopify said it is `check`'s to tell."""

    shop: str
    code: str
    state: str
    timestamp: datetime
    parameters: Mapping[str, str | list[str]]


def domain_of(given: str) -> str:
    """`example.myshopify.com` of whatever a person enters for it: with https://, a path, or only its first word.

    Raises Rejected for a domain that is not Shopify's own: the app's secret and the tokens go there.
    """
    asked = given.strip().lower().removeprefix("https://").removeprefix("http://").split("/")[0]
    domain = asked if "." in asked else f"{asked}.myshopify.com"
    if not _DOMAIN.fullmatch(domain):
        raise Rejected(f"{given[:80]!r} is not a shop's address such as example.myshopify.com", where="domain")
    return domain


def permission_url(app: App, domain: str, *, redirect_uri: str, state: str, asked: Sequence[str]) -> str:
    """Where the operator is sent to grant access to `domain`, offline."""
    session = _session(app)(domain, API_VERSION)
    return str(session.create_permission_url(list(asked), redirect_uri, state))


def moved_to(url: str, base_url: str) -> str:
    """The same page at another address: a sandbox shop never reaches Shopify itself."""
    there, parts = urlsplit(base_url), urlsplit(url)
    return urlunsplit((there.scheme, there.netloc, parts.path, parts.query, ""))


def read(query: str) -> Callback:
    """The query of a callback. Raises Rejected when it is none: a part missing, or one given twice."""
    if len(query) > _LONGEST:
        raise Rejected("the address is too long to be a callback of Shopify's", code="callback")
    grouped: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        grouped.setdefault(name, []).append(value)
    for name in _NEEDED:
        if len(grouped.get(name, [])) != 1 or not grouped[name][0]:
            raise Rejected(f"`{name}` must be given once", code="callback", where=name)
    # a list stays one under a name that ends in []; of another name given twice the last counts, as Shopify reads it
    parameters = {name: values if name.endswith("[]") else values[-1] for name, values in grouped.items()}
    shop = grouped["shop"][0]
    if not _DOMAIN.fullmatch(shop):
        raise Rejected(f"{shop[:80]!r} is not a shop's address such as example.myshopify.com", code="domain")
    return Callback(shop, grouped["code"][0], grouped["state"][0], _instant(grouped["timestamp"][0]), parameters)


def check(app: App, callback: Callback, *, at: datetime) -> None:
    """Raises Denied unless Shopify signed it, a moment ago. The signature is compared in constant time."""
    if not is_signed(app, callback.parameters):
        raise Denied("the address was not signed by Shopify with this app's client secret", code="hmac")
    if abs(at - callback.timestamp) > FRESH:
        raise Denied(
            f"the address was made at {callback.timestamp:%Y-%m-%d %H:%M} UTC, it is {at:%H:%M} here: too long ago, or"
            " one of the two clocks is wrong; connect again",
            code="timestamp",
        )


def is_signed(app: App, parameters: Mapping[str, str | list[str]]) -> bool:
    """Whether `hmac` is the signature of the other parameters; a name that ends in [] has a list of values."""
    return bool(_session(app).validate_hmac(dict(parameters)))


def _instant(written: str) -> datetime:
    if not re.fullmatch(r"[0-9]{1,11}", written):
        raise Rejected("`timestamp` is not a number of seconds", code="callback", where="timestamp")
    return datetime.fromtimestamp(int(written), UTC)


def _session(app: App) -> Any:
    """ShopifyAPI's Session for one app: its attributes are this class's, not everybody's."""
    from shopify.session import Session

    return type("Session", (Session,), {"api_key": app.client_id, "secret": app.client_secret})
