"""Integrations: which provider serves a shop, where it is reached, and its secrets: written, never shown."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import orjson
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api.addresses import check_base_url
from api.dependencies import Database, Requires
from api.errors import Problem
from api.fields import JsonObject, Text
from api.services import services
from integrations.shopify import oauth
from operation_agent.access.principal import Principal
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Conflict, NotFound, Rejected
from operation_agent.kit.secrets import Vault, secret_key
from operation_agent.kit.settings import settings
from operation_agent.store import audit, outbox
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, load_shop
from operation_agent.storefront import connection

router = APIRouter(prefix="/api/integrations", tags=["integrations"])

Reader = Annotated[Principal, Depends(Requires("integrations:read"))]
Writer = Annotated[Principal, Depends(Requires("integrations:write"))]
Vendor = Literal["sendgrid", "shopify"]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SendGridConfig(_Config):
    from_email: Text = Field(max_length=320, pattern=r"^[^@\s]+@[^@\s]+$", examples=["shop@example.com"])
    from_name: Text | None = Field(None, max_length=200)
    activity: bool = Field(True, description="Whether the account may query Email Activity")
    settle_seconds: float = Field(60.0, ge=0, le=3600, allow_inf_nan=False)
    categories: list[Annotated[Text, Field(max_length=255)]] = Field(default_factory=list, max_length=10)


class ShopifyConfig(_Config):
    api_version: str = Field("2026-07", pattern=r"^(20\d\d-(01|04|07|10)|unstable)$")
    domain: str | None = Field(
        None, pattern=r"^[a-z0-9][a-z0-9-]{0,59}\.myshopify\.com$", examples=["example.myshopify.com"],
        description="The shop's own domain, where base_url is another",
    )  # fmt: skip
    grant: Literal["client_credentials"] | None = Field(
        None, description="For an app of the shop's own organisation: tokens are asked for with client_id and secret"
    )
    title: Text = Field("Personal coupon", min_length=1, max_length=200)
    settle_seconds: float = Field(15.0, ge=0, le=3600, allow_inf_nan=False)


CONFIGS: dict[str, type[_Config]] = {"sendgrid": SendGridConfig, "shopify": ShopifyConfig}
CHANNELS: dict[str, str] = {"sendgrid": "email", "shopify": "coupon"}
SECRETS: dict[str, frozenset[str]] = {
    "sendgrid": frozenset({"api_key", "webhook_public_key"}),
    "shopify": frozenset(
        {"access_token", "refresh_token", "client_id", "client_secret", "webhook_secret", "webhook_secret_previous"}
    ),
}
"""By vendor, as integrations.registry wants them; that the two agree is held by a test."""
TOKENS: dict[str, str] = {"sendgrid": "api_key", "shopify": "access_token"}
"""The secret that opens the provider's door."""


class Integration(BaseModel):
    vendor: Vendor
    channel: str | None = Field(description="The channel it serves")
    base_url: str
    config: dict[str, Any]
    secrets: list[str] = Field(description="Names of the secrets that are set; their values are never shown")
    enabled: bool
    updated_at: datetime
    problem: Literal["unauthorized", "uninstalled", "scopes", "unavailable"] | None = Field(
        description="What stops everything that would go out to it; nothing is lost meanwhile"
    )
    problem_detail: str | None = Field(description="In the provider's words")
    problem_at: datetime | None
    advice: dict[str, str] | None = Field(description="What to do about the problem, by language")
    scopes: list[str] = Field(description="Granted, as of checked_at")
    lacking_scopes: dict[str, list[str]] = Field(description="What is not granted, by feature; empty: all there is")
    token_expires_at: datetime | None = Field(description="It is renewed ahead of that; null: it does not expire")
    checked_at: datetime | None
    webhooks: dict[str, Any] = Field(description="What the last look at the webhook subscriptions found and did")


class IntegrationChange(BaseModel):
    base_url: Text = Field(max_length=500, examples=["https://api.sendgrid.com"])
    config: JsonObject = Field(default_factory=dict, description="SendGrid: from_email, …; Shopify: api_version, …")
    secrets: dict[Text, Annotated[Text, Field(max_length=5000)]] = Field(
        default_factory=dict, max_length=10, description="Those not named stay as they are; an empty one is removed"
    )
    enabled: bool = True


_SELECT = (
    "SELECT vendor, channel, base_url, config, secrets, enabled, updated_at, problem, problem_detail, problem_at,"
    " scopes, token_expires_at, checked_at, subscriptions AS webhooks FROM integrations WHERE shop_id = :shop"
)


def _vault() -> Vault:
    return Vault(secret_key(settings()))


def _opened(sealed: Any) -> dict[str, str]:
    return orjson.loads(_vault().open(bytes(sealed))) if sealed is not None else {}


def _shown(row: Any) -> Integration:
    lacking = oauth.lacking_by_feature(row.scopes) if row.vendor == "shopify" and row.checked_at else {}
    return Integration(
        **{**row._mapping, "secrets": sorted(_opened(row.secrets))},
        advice=dict(connection.ADVICE[row.problem]) if row.problem else None,
        lacking_scopes=lacking,
    )


@router.get("", operation_id="list_integrations", summary="Integrations", response_model=list[Integration])
def list_all(caller: Reader, database: Database) -> list[Integration]:
    with for_shop(database, caller.shop.id) as session:
        return [_shown(row) for row in session.execute(text(_SELECT + " ORDER BY vendor"), {"shop": caller.shop.id})]


@router.get(
    "/{vendor}",
    operation_id="get_integration",
    summary="One integration",
    response_model=Integration,
    responses={404: {"model": Problem, "description": "Not connected"}},
)
def get(vendor: Vendor, caller: Reader, database: Database) -> Integration:
    with for_shop(database, caller.shop.id) as session:
        return _shown(_row(session, caller, vendor))


def _row(session: Session, caller: Principal, vendor: str) -> Any:
    row = session.execute(
        text(_SELECT + " AND vendor = :vendor FOR UPDATE"), {"shop": caller.shop.id, "vendor": vendor}
    ).one_or_none()
    if row is None:
        raise NotFound(f"{vendor} is not connected to this shop")
    return row


_UPSERT = text("""
INSERT INTO integrations (shop_id, vendor, channel, base_url, config, secrets, enabled, updated_at)
VALUES (:shop, :vendor, :channel, :base_url, CAST(:config AS jsonb), :secrets, :enabled, :at)
ON CONFLICT (shop_id, vendor) DO UPDATE SET channel = EXCLUDED.channel, base_url = EXCLUDED.base_url,
  config = EXCLUDED.config, secrets = EXCLUDED.secrets, enabled = EXCLUDED.enabled, updated_at = EXCLUDED.updated_at
""")


@router.put(
    "/{vendor}",
    operation_id="connect_integration",
    summary="Connect a provider, or change how",
    response_model=Integration,
    responses={409: {"model": Problem, "description": "Another integration serves that channel"}},
)
def connect(
    vendor: Vendor, body: IntegrationChange, caller: Writer, database: Database, request: Request
) -> Integration:
    """A changed base_url needs its secrets entered again: a stored key is never sent to a new address."""
    unknown = body.secrets.keys() - SECRETS[vendor]
    if unknown:
        names = ", ".join(sorted(SECRETS[vendor]))
        raise Rejected(f"{vendor} has no secret {min(unknown)[:60]!r}; there are {names}", where="body.secrets")
    config = _config(vendor, body.config)
    with for_shop(database, caller.shop.id) as session:
        shop = load_shop(session, caller.shop.id)
        base_url = check_base_url(body.base_url, sandbox=shop.sandbox)
        secrets = _merged(session, caller, vendor, base_url, body.secrets)
        was, at = connection.find(session, shop.id, vendor), SYSTEM.now()
        values = {
            "shop": shop.id, "vendor": vendor, "channel": CHANNELS[vendor], "base_url": base_url,
            "config": orjson.dumps(config).decode(), "enabled": body.enabled, "at": at,
            "secrets": _vault().seal(orjson.dumps(secrets)) if secrets else None,
        }  # fmt: skip
        try:
            with session.begin_nested():
                session.execute(_UPSERT, values)
        except IntegrityError:
            raise Conflict(f"another integration of this shop serves {CHANNELS[vendor]}") from None
        audit.record(
            session, shop.id, at=at, actor=caller.actor, verb="integration.changed", subject=f"integration:{vendor}",
            detail={"base_url": base_url, "enabled": body.enabled, "secrets_set": sorted(body.secrets)},
        )  # fmt: skip
        _look_at(session, shop, vendor, was, secrets, caller, at)
        changed = _shown(_row(session, caller, vendor))
    services(request).senders.forget()  # after the commit: nobody may look up the old secret again
    return changed


def _look_at(
    session: Session, shop: Shop, vendor: str, was: connection.Connection | None, secrets: dict[str, str],
    caller: Principal, at: datetime,
) -> None:  # fmt: skip
    """What follows from new credentials: a problem is over, a token is renewed at once, scopes and webhooks looked at.

    A token that was entered without a refresh token has none; one with a refresh token is renewed to learn its end.
    """
    before = _opened(was.secrets) if was else {}
    is_new = was is None or any(
        before.get(name) != secrets.get(name) for name in ("access_token", "refresh_token", "client_secret")
    )
    if is_new and secrets.get(TOKENS[vendor]):
        connection.clear(session, shop, vendor, at=at, actor=caller.actor)
    if vendor != "shopify":
        return
    now = connection.find(session, shop.id, vendor)
    assert now is not None
    if is_new:
        renews = bool(secrets.get("refresh_token")) or now.config.get("grant") == "client_credentials"
        end = renew_at = at if renews else None
        connection.keep_credentials(session, shop.id, vendor, now.secrets, token_expires_at=end, renew_at=renew_at)
        if renews:
            outbox.ring(session, shop.id, [(connection.RENEW, vendor)], at=at)
    if not secrets.get("access_token"):
        told = "there is no access token yet: enter one, or connect the shop (POST /api/integrations/shopify/connect)"
        connection.note_problem(session, shop, vendor, "unauthorized", told, at=at)
    connection.ask_check(session, shop.id, vendor, at=at)


def _config(vendor: str, given: dict[str, Any]) -> dict[str, Any]:
    """What was given, checked as the worker will read it. Raises Rejected with the field at fault."""
    try:
        return CONFIGS[vendor].model_validate(given).model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["body", "config", *(str(part) for part in first["loc"])])
        raise Rejected(f"{where}: {first['msg']}", where=where) from None


def _merged(session: Session, caller: Principal, vendor: str, base_url: str, given: dict[str, str]) -> dict[str, str]:
    """The stored secrets with the given ones on top. Raises Rejected when the host changes and a stored one stays.

    An access token and its refresh token belong together: a new one alone puts the other away.
    """
    try:
        row = _row(session, caller, vendor)
    except NotFound:
        before: dict[str, str] = {}
    else:
        before = _opened(row.secrets)
        sent = sorted(name for name in before if name not in given and not name.startswith("webhook_"))
        if sent and urlsplit(row.base_url).netloc != urlsplit(base_url).netloc:
            raise Rejected(
                f"the address changes: enter {', '.join(sent)} again, so that nobody sends a stored one elsewhere",
                code="secret_needed",
                where="body.secrets",
            )
    merged = {name: value for name, value in (before | given).items() if value}
    if given.get("access_token") and "refresh_token" not in given:
        merged.pop("refresh_token", None)
    return _signing(before, merged, given)


def _signing(before: dict[str, str], merged: dict[str, str], given: dict[str, str]) -> dict[str, str]:
    """Shopify signs webhooks with the app's client secret, unless another was entered. While one replaces the other,
    messages that were signed with the old one are still under way."""
    secret, old = merged.get("client_secret"), before.get("webhook_secret")
    if secret is None or "webhook_secret" in given:
        return merged
    if old is None:
        return merged | {"webhook_secret": secret}
    if old == before.get("client_secret") != secret:
        return merged | {"webhook_secret": secret, "webhook_secret_previous": old}
    return merged
