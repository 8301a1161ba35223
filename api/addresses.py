"""Where an integration may call: checked when a person enters it, and again by the worker before it calls.

A real shop's provider stands on the public internet and is called over https. A sandbox's stands on this machine or in
a private network, and is never a real provider.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit, urlunsplit

from operation_agent.kit.errors import Rejected

_NAME = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_TOP = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?", re.ASCII)
_PRIVATE_TOPS = frozenset({"localhost", "local", "internal", "lan", "home", "corp", "test", "invalid", "example"})
REAL_PROVIDERS = ("sendgrid.com", "sendgrid.net", "shopify.com", "myshopify.com", "twilio.com")


def check_base_url(base_url: str, *, sandbox: bool) -> str:
    """The address without a trailing slash. Raises Rejected, naming what is wrong with it."""
    parts = _split(base_url)
    host = parts.hostname or ""
    if sandbox:
        if any(host == known or host.endswith("." + known) for known in REAL_PROVIDERS):
            raise _refused("a sandbox shop never reaches a real provider")
    else:
        if parts.scheme != "https":
            raise _refused("credentials go over https only")
        if not _is_public(host):
            raise _refused("a real shop's provider has a public address")
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


def _refused(reason: str) -> Rejected:
    return Rejected(f"{reason}; an address looks like https://api.sendgrid.com", code="base_url", where="body.base_url")


def _split(base_url: str) -> SplitResult:
    if not base_url.isascii() or any(character <= " " or character in '\\"<>' for character in base_url):
        raise _refused("it contains characters that no address has")
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError:
        raise _refused("it cannot be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise _refused("it begins with http:// or https:// and names a host")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise _refused("it holds no user name, query or fragment")
    if _address(parts.hostname) is None and not _NAME.fullmatch(parts.hostname):
        raise _refused("its host is not a name")
    return parts


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_public(host: str) -> bool:
    """By its form alone: names are looked up when they are called, where they may have changed."""
    address = _address(host)
    if address is not None:
        mapped = getattr(address, "ipv4_mapped", None)
        return (mapped or address).is_global and not address.is_multicast
    # the last label of a name begins with a letter: 127.1, 0x7f.0.0.1 and 2130706433 are addresses to some libraries
    labels = host.split(".")
    return len(labels) > 1 and bool(_TOP.fullmatch(labels[-1])) and labels[-1] not in _PRIVATE_TOPS
