"""SendGrid's event webhook: signature and reading.

The signature is ECDSA (P-256, SHA-256) over the timestamp header and the raw body; the public key is base64 DER.
An event is known by (sg_message_id, event, timestamp, email): sg_event_id was seen to change on a retry
(sendgrid-nodejs#1435).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from operation_agent.events.event import Event
from operation_agent.kit.errors import Rejected
from operation_agent.kit.ids import new_id

SOURCE = "sendgrid"
SIGNATURE_HEADER = "X-Twilio-Email-Event-Webhook-Signature"
TIMESTAMP_HEADER = "X-Twilio-Email-Event-Webhook-Timestamp"

_TYPES = {
    "delivered": "email.delivered",
    "open": "email.opened",
    "click": "email.clicked",
    "bounce": "email.bounced",
    "dropped": "email.dropped",
    "spamreport": "email.complained",
    "unsubscribe": "email.unsubscribed",
    "group_unsubscribe": "email.unsubscribed",
}
"""Other events (processed, deferred, group_resubscribe, account status) say nothing we act on."""

_LATEST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


def verify(headers: Mapping[str, str], raw_body: bytes, public_key: str) -> bool:
    """Whether this body was signed by the holder of `public_key` (base64 DER SPKI). False for anything else: no key,
    a key that is none, no signature."""
    lowered = {name.lower(): value for name, value in headers.items()}
    signature, timestamp = lowered.get(SIGNATURE_HEADER.lower()), lowered.get(TIMESTAMP_HEADER.lower())
    key = _key(public_key)
    if key is None or not signature or not timestamp:
        return False
    try:
        key.verify(base64.b64decode(signature, validate=True), timestamp.encode() + raw_body, ec.ECDSA(SHA256()))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


@lru_cache(maxsize=256)
def _key(public_key: str) -> ec.EllipticCurvePublicKey | None:
    try:
        key = load_der_public_key(base64.b64decode("".join(public_key.split()), validate=True))
    except (binascii.Error, ValueError):
        return None
    return key if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1) else None


def parse(raw_body: bytes, *, received_at: datetime) -> list[Event]:
    """The events of one delivery. `received_at` is system time; SendGrid's own timestamps become `occurred_at`.

    Raises Rejected, naming the index, when the body is not what SendGrid sends.
    """
    try:
        entries = orjson.loads(raw_body)
    except orjson.JSONDecodeError as error:
        raise Rejected(f"the body is not JSON: {error}") from None
    if not isinstance(entries, list):
        raise Rejected("the body is a list of events")
    return [
        event for index, entry in enumerate(entries) if (event := _event(entry, f"[{index}]", received_at)) is not None
    ]


def _event(entry: Any, where: str, received_at: datetime) -> Event | None:
    if not isinstance(entry, dict):
        raise Rejected("an event is an object", where=where)
    kind = _TYPES.get(str(entry.get("event")))
    if kind is None:
        return None
    address, timestamp = entry.get("email"), entry.get("timestamp")
    if not isinstance(address, str) or "@" not in address:
        raise Rejected("an event names the recipient in `email`", where=f"{where}.email")
    if isinstance(timestamp, bool) or not isinstance(timestamp, int | float) or not 0 <= timestamp < _LATEST:
        raise Rejected("`timestamp` is in seconds since 1970", where=f"{where}.timestamp")
    address = address.strip().lower()
    message = str(entry.get("sg_message_id") or entry.get("smtp-id") or "")
    return Event(
        id=new_id(),
        source=SOURCE,
        source_id=f"{message}:{entry['event']}:{timestamp}:{address}",
        type=kind,
        occurred_at=datetime.fromtimestamp(timestamp, UTC),
        received_at=received_at,
        identity=_identity(entry, address),
        properties=_properties(entry, kind, address, message),
    )


def _identity(entry: Mapping[str, Any], address: str) -> dict[str, str]:
    """Our own id of the customer if the message carried one: the address may be somebody else's by now."""
    customer = entry.get("customer")
    return {"external": customer} if isinstance(customer, str) and customer else {"email": address}


def _properties(entry: Mapping[str, Any], kind: str, address: str, message: str) -> dict[str, Any]:
    properties: dict[str, Any] = {"address": address}
    if isinstance(entry.get("action_id"), str):
        properties["action_id"] = entry["action_id"]
    if message:
        properties["provider_ref"] = message.split(".")[0]  # X-Message-Id is its beginning
    if entry.get("reason"):
        properties["reason"] = str(entry["reason"])[:500]
    if kind == "email.bounced":
        properties["permanent"] = entry.get("type", "bounce") != "blocked"
    if entry.get("sg_machine_open") is True:  # a mail program fetched the pictures; nobody need have looked
        properties["machine_open"] = True
    if kind == "email.clicked" and isinstance(entry.get("url"), str):
        properties["url"] = entry["url"][:2000]
    return properties
