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
from operation_agent.access.principal import Principal
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Conflict, NotFound, Rejected
from operation_agent.kit.secrets import Vault, secret_key
from operation_agent.kit.settings import settings
from operation_agent.store import audit
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop

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
    api_version: str = Field("2026-07", pattern=r"^(20\d\d-(0[1-9]|1[0-2])|unstable)$")
    title: Text = Field("Personal coupon", min_length=1, max_length=200)
    settle_seconds: float = Field(15.0, ge=0, le=3600, allow_inf_nan=False)


CONFIGS: dict[str, type[_Config]] = {"sendgrid": SendGridConfig, "shopify": ShopifyConfig}
CHANNELS: dict[str, str] = {"sendgrid": "email", "shopify": "coupon"}
SECRETS: dict[str, frozenset[str]] = {
    "sendgrid": frozenset({"api_key", "webhook_public_key"}),
    "shopify": frozenset({"access_token", "webhook_secret"}),
}
"""By vendor, as integrations.registry wants them; that the two agree is held by a test."""


class Integration(BaseModel):
    vendor: Vendor
    channel: str | None = Field(description="The channel it serves")
    base_url: str
    config: dict[str, Any]
    secrets: list[str] = Field(description="Names of the secrets that are set; their values are never shown")
    enabled: bool
    updated_at: datetime


class IntegrationChange(BaseModel):
    base_url: Text = Field(max_length=500, examples=["https://api.sendgrid.com"])
    config: JsonObject = Field(default_factory=dict, description="SendGrid: from_email, …; Shopify: api_version, …")
    secrets: dict[Text, Annotated[Text, Field(max_length=5000)]] = Field(
        default_factory=dict, max_length=10, description="Those not named stay as they are; an empty one is removed"
    )
    enabled: bool = True


_SELECT = (
    "SELECT vendor, channel, base_url, config, secrets, enabled, updated_at FROM integrations WHERE shop_id = :shop"
)


def _vault() -> Vault:
    return Vault(secret_key(settings()))


def _opened(sealed: Any) -> dict[str, str]:
    return orjson.loads(_vault().open(bytes(sealed))) if sealed is not None else {}


def _shown(row: Any) -> Integration:
    return Integration(**{**row._mapping, "secrets": sorted(_opened(row.secrets))})


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
        at = SYSTEM.now()
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
        changed = _shown(_row(session, caller, vendor))
    services(request).senders.forget()  # after the commit: nobody may look up the old secret again
    return changed


def _config(vendor: str, given: dict[str, Any]) -> dict[str, Any]:
    """What was given, checked as the worker will read it. Raises Rejected with the field at fault."""
    try:
        return CONFIGS[vendor].model_validate(given).model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["body", "config", *(str(part) for part in first["loc"])])
        raise Rejected(f"{where}: {first['msg']}", where=where) from None


def _merged(session: Session, caller: Principal, vendor: str, base_url: str, given: dict[str, str]) -> dict[str, str]:
    """The stored secrets with the given ones on top. Raises Rejected when the host changes and a stored one stays."""
    try:
        row = _row(session, caller, vendor)
    except NotFound:
        kept: dict[str, str] = {}
    else:
        kept = {name: value for name, value in _opened(row.secrets).items() if name not in given}
        sent = sorted(name for name in kept if not name.startswith("webhook_"))
        if sent and urlsplit(row.base_url).netloc != urlsplit(base_url).netloc:
            raise Rejected(
                f"the address changes: enter {', '.join(sent)} again, so that nobody sends a stored one elsewhere",
                code="secret_needed",
                where="body.secrets",
            )
    return kept | {name: value for name, value in given.items() if value}
