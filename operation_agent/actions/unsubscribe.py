"""The link with which a recipient leaves: signed, so that nobody can unsubscribe somebody else, and for ever valid.

A GET of it must change nothing (mail scanners follow links); the POST of RFC 8058 is the one click.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass
from uuid import UUID

from operation_agent.kit.errors import Denied
from operation_agent.kit.secrets import keyed_digest, secret_key
from operation_agent.kit.settings import Settings

PATH = "/unsubscribe/"
_MAC_BYTES = 16


@dataclass(frozen=True, slots=True)
class Links:
    """Makes the links of one installation. `base` is the address under which the outside reaches it."""

    base: str
    secret: str

    @classmethod
    def of(cls, settings: Settings) -> Links:
        base = settings.public_url or f"http://{settings.host}:{settings.port}"
        return cls(base.rstrip("/"), secret_key(settings))

    def unsubscribe(self, shop_id: UUID, action_id: UUID) -> str:
        return f"{self.base}{PATH}{sign(self.secret, shop_id, action_id)}"


def _mac(secret: str, ids: bytes) -> bytes:
    return keyed_digest(secret, f"unsubscribe:{ids.hex()}")[:_MAC_BYTES]


def sign(secret: str, shop_id: UUID, action_id: UUID) -> str:
    """64 URL-safe characters: both ids and 128 bits of HMAC-SHA256."""
    ids = shop_id.bytes + action_id.bytes
    return base64.urlsafe_b64encode(ids + _mac(secret, ids)).decode()


def read(secret: str, token: str) -> tuple[UUID, UUID]:
    """(shop id, action id) of a token. Raises Denied when it was not made by `sign` with this secret."""
    try:
        raw = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32 + _MAC_BYTES or not hmac.compare_digest(raw[32:], _mac(secret, raw[:32])):
        raise Denied("this link was not made here, or is damaged")
    return UUID(bytes=raw[:16]), UUID(bytes=raw[16:32])
