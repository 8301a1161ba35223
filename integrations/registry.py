"""From a row of `integrations` to a channel: which vendors there are, what each must be given, and where it may be.

A sandbox shop never reaches a real provider: its base_url must be a loopback or private address.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.actions.channel import Channel
from operation_agent.kit.errors import Rejected
from operation_agent.kit.secrets import Vault
from operation_agent.storefront.protocol import Storefront

from .sendgrid.channel import SendGridChannel, SendGridConfig
from .shopify.access import API_VERSION, Access
from .shopify.channel import ShopifyChannel, ShopifyConfig
from .shopify.client import Shopify
from .shopify.storefront import ShopifyStorefront
from .shopify.throttle import SharedBucket

if TYPE_CHECKING:
    from redis import Redis

Secrets = Mapping[str, str]


@dataclass(frozen=True)
class Configured:
    """A row of `integrations`, still sealed."""

    vendor: str
    channel: str | None
    base_url: str
    config: dict[str, Any] = field(default_factory=dict)
    secrets: bytes | None = None


@dataclass(frozen=True, slots=True)
class Vendor:
    """`secrets` are the names a person must enter; `webhook_secret` the one its webhook is verified with."""

    name: str
    channel: str
    base_url: str
    secrets: tuple[str, ...]
    webhook_secret: str
    make: Callable[[str, Mapping[str, Any], Secrets, Redis | None], Channel]


def _sendgrid(base_url: str, config: Mapping[str, Any], secrets: Secrets, _redis: Redis | None) -> Channel:
    return SendGridChannel(base_url, SendGridConfig.read(config), secrets["api_key"])


def _shopify(base_url: str, config: Mapping[str, Any], secrets: Secrets, redis: Redis | None) -> Channel:
    client = _shopify_client(base_url, config, secrets, redis)
    return ShopifyChannel(base_url, ShopifyConfig.read(config), secrets["access_token"], client=client)


def _shopify_client(base_url: str, config: Mapping[str, Any], secrets: Secrets, redis: Redis | None) -> Shopify:
    access = Access(base_url, secrets["access_token"], str(config.get("api_version") or API_VERSION))
    return Shopify(access, bucket=SharedBucket(redis, access.host) if redis is not None else None)


VENDORS: dict[str, Vendor] = {
    "sendgrid": Vendor("sendgrid", "email", "https://api.sendgrid.com", ("api_key",), "webhook_public_key", _sendgrid),
    "shopify": Vendor(
        "shopify", "coupon", "https://{shop}.myshopify.com", ("access_token",), "webhook_secret", _shopify
    ),
}

STOREFRONTS: dict[str, Callable[[Shopify, str], Storefront]] = {"shopify": ShopifyStorefront}
"""Vendors that are shop systems."""


def load(session: Session, shop_id: UUID, channel: str) -> Configured | None:
    """The enabled integration that serves `channel`, if there is one."""
    row = session.execute(
        text(
            "SELECT vendor, channel, base_url, config, secrets FROM integrations"
            " WHERE shop_id = :shop AND channel = :channel AND enabled"
        ),
        {"shop": shop_id, "channel": channel},
    ).one_or_none()
    if row is None:
        return None
    return Configured(row.vendor, row.channel, row.base_url, row.config, bytes(row.secrets) if row.secrets else None)


def channel_for(row: Configured, vault: Vault, *, sandbox: bool, redis: Redis | None = None) -> Channel:
    """A ready channel; with `redis` a provider's allowance is shared by all workers.

    Raises Rejected for an unknown vendor, a missing secret, or an address that is not allowed.
    """
    vendor, secrets = _opened(row, vault, sandbox=sandbox)
    return vendor.make(row.base_url.rstrip("/"), row.config, secrets, redis)


def client_for(row: Configured, vault: Vault, *, sandbox: bool, redis: Redis | None = None) -> Shopify:
    """A client of the shop's Admin API. Raises as above."""
    if row.vendor != "shopify":
        raise Rejected(f"{row.vendor} is no shop system; there is shopify", where="vendor")
    _, secrets = _opened(row, vault, sandbox=sandbox)
    return _shopify_client(row.base_url.rstrip("/"), row.config, secrets, redis)


def storefront_for(
    row: Configured, vault: Vault, *, sandbox: bool, currency: str, redis: Redis | None = None
) -> Storefront:
    """The shop system behind an integration. `currency` is the shop's. Raises as above."""
    make = STOREFRONTS.get(row.vendor)
    if make is None:
        raise Rejected(f"{row.vendor} is no shop system; there is {', '.join(STOREFRONTS)}", where="vendor")
    return make(client_for(row, vault, sandbox=sandbox, redis=redis), currency)


def _opened(row: Configured, vault: Vault, *, sandbox: bool) -> tuple[Vendor, Secrets]:
    vendor = VENDORS.get(row.vendor)
    if vendor is None:
        raise Rejected(f"there is no integration {row.vendor!r}; there are {', '.join(VENDORS)}", where="vendor")
    check_address(row.base_url, sandbox=sandbox)
    secrets = orjson.loads(vault.open(row.secrets)) if row.secrets else {}
    missing = [name for name in vendor.secrets if not secrets.get(name)]
    if missing:
        raise Rejected(f"{row.vendor} needs {', '.join(missing)}", where=f"secrets.{missing[0]}")
    return vendor, secrets


def check_address(base_url: str, *, sandbox: bool) -> None:
    """Raises Rejected unless the address is one a shop of this kind may call."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise Rejected(f"{base_url[:80]!r} is not an address such as https://api.sendgrid.com", where="base_url")
    is_private = _is_private(parts.hostname)
    if sandbox and not is_private:
        raise Rejected(
            "a sandbox shop only calls loopback and private addresses, never a real provider", where="base_url"
        )
    if parts.scheme == "http" and not is_private:
        raise Rejected("credentials go over https only", where="base_url")


def _is_private(host: str) -> bool:
    """Whether every address of the host is loopback or private. A name that does not resolve is not."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return False
    addresses = [ipaddress.ip_address(str(one).split("%")[0]) for one in found]
    return bool(addresses) and all(_unmapped(one).is_loopback or _unmapped(one).is_private for one in addresses)


def _unmapped(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address
