"""Shopify's webhooks: whose they are, and what they say.

HMAC-SHA256 over the raw body with the app's client secret, base64. The headers are not signed, so nothing but the
body decides what an event is: a fact's own id makes its source id, and a repeated delivery tells the same events. What
the headers say besides serves to drop what came before, and to date what has no date.

`shopifyapp` verifies likewise (both spellings of the headers and the secret before a rotation are after it); it wants
the body as text, copies it into a log record and answers, which a route for thousands a second cannot afford. A test
holds the two to the same answers.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import orjson

from operation_agent.events.event import Event
from operation_agent.kit.errors import Rejected

from .reading import keeping
from .reading.telling import Webhook, precise
from .reading.topics import READERS

SIGNATURE_HEADER = "X-Shopify-Hmac-Sha256"
TOPIC_HEADER = "X-Shopify-Topic"
HEADERS = (
    SIGNATURE_HEADER, TOPIC_HEADER, "X-Shopify-Shop-Domain", "X-Shopify-API-Version", "X-Shopify-Event-Id",
    "X-Shopify-Webhook-Id", "X-Shopify-Triggered-At",
)  # fmt: skip
REQUIRED_HEADERS = (SIGNATURE_HEADER, TOPIC_HEADER)
TOPICS = tuple(READERS)
"""What something is made of; any other is kept as it came."""

LONGEST_NAME = 128
_TOPIC = re.compile(r"[a-z0-9_./]{1,100}", re.ASCII)
_NEWEST_KNOWN = "2026-07"
_VERSION = re.compile(r"20\d\d-(01|04|07|10)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the headers say: the topic, the API version, when it was triggered, and the names of the delivery by which
    another copy of it is known (Event.delivery)."""

    topic: str
    version: str | None = None
    triggered_at: datetime | None = None
    delivery: tuple[str, ...] = ()

    @property
    def is_newer(self) -> bool:
        """Of a version nobody had seen when this was written."""
        version = self.version
        return version is not None and (not _VERSION.fullmatch(version) or version > _NEWEST_KNOWN)


def verify(headers: Mapping[str, str], raw_body: bytes, secret: str) -> bool:
    """Whether this body was signed with `secret`; headers by lower-cased name. Without a secret nothing is accepted."""
    given = _header(headers, "hmac-sha256")
    if not secret or not given:
        return False
    wanted = base64.b64encode(hmac.digest(secret.encode(), raw_body, "sha256"))
    return hmac.compare_digest(wanted, given.strip().encode("utf-8", "surrogatepass"))


def domain(headers: Mapping[str, str]) -> str | None:
    """The myshopify.com domain of the shop it is from, as the header says."""
    return _header(headers, "shop-domain").strip().lower() or None


def envelope(headers: Mapping[str, str]) -> Envelope:
    """Headers by lower-cased name; whatever cannot be right is left out. Raises Rejected without a topic."""
    topic = _header(headers, "topic").strip().lower()
    if not _TOPIC.fullmatch(topic):
        raise Rejected(f"the header {TOPIC_HEADER} is missing, or names no topic", code="topic", where=TOPIC_HEADER)
    version, triggered = _header(headers, "api-version").strip(), _header(headers, "triggered-at")
    names = tuple(
        f"{topic}:{kind}:{name}"
        for kind, name in (("event", _header(headers, "event-id")), ("webhook", _header(headers, "webhook-id")))
        if 0 < len(name) <= LONGEST_NAME and name.isascii() and name.isprintable()
    )
    return Envelope(topic, version[:20] or None, precise(triggered) if triggered else None, names)


def parse(sent: Envelope, raw_body: bytes, *, currency: str, now: datetime, received_at: datetime) -> list[Event]:
    """The events of one delivery; none where nothing happened that matters, such as a refund without money.

    `currency` is the shop's; `now` shop time, `received_at` system time. A body of a topic that nobody reads is one
    event `webhook.kept`; so is one that cannot be read and is of a newer version than we know. Raises Rejected, naming
    the field, for any other that is not what Shopify sends, or whose money is of another currency.
    """
    try:
        body = orjson.loads(raw_body)
    except orjson.JSONDecodeError as error:
        raise Rejected(f"the body is not JSON: {error}", code="json") from None
    if not isinstance(body, dict):
        raise Rejected("the body is an object", code="json")
    webhook = Webhook(sent.topic, sent.version, sent.triggered_at, currency, now, received_at, raw_body, sent.delivery)
    try:
        return READERS.get(sent.topic, keeping.keep)(body, webhook)
    except Rejected as error:
        if not sent.is_newer:
            raise
        return keeping.keep(body, webhook, f"{error.where or error.code}: {error.detail}")


def _header(headers: Mapping[str, str], name: str) -> str:
    """`X-Shopify-<name>`, or `Shopify-<name>` as newer deliveries write it; headers by lower-cased name."""
    return headers.get(f"x-shopify-{name}") or headers.get(f"shopify-{name}") or ""
