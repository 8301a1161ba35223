"""The three webhooks the law is behind: see what is known of me, forget me, forget this shop.

Topics are not signed, bodies are: each body must have what only its own topic has, so that a request to see can never
be played again as one to forget. The events name nobody in their identity: asking must not make a customer.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from operation_agent.events.event import Event
from operation_agent.kit.errors import Rejected

from .customers import orders_of
from .fields import LONGEST_ID, Body, email, identifier, optional_identifier, optional_object, phone
from .telling import Webhook

TERM = timedelta(days=30)
"""In which Shopify (and the GDPR, article 12) wants it done."""


def data_request(body: Body, webhook: Webhook) -> list[Event]:
    asked = _only(body, "data_request")
    subject = _subject(body, "orders_requested")
    return [_requested(webhook, "export", optional_identifier(asked, "id") or webhook.digest, subject)]


def redact(body: Body, webhook: Webhook) -> list[Event]:
    if "orders_to_redact" not in body:
        raise Rejected("`orders_to_redact` is missing", code="field_missing", where="orders_to_redact")
    return [_requested(webhook, "erase", webhook.digest, _subject(body, "orders_to_redact"))]


def shop_redact(body: Body, webhook: Webhook) -> list[Event]:
    for name in ("customer", "data_request", "orders_requested", "orders_to_redact"):
        if name in body:
            raise Rejected(f"`{name}` does not belong to the erasure of a shop", code="wrong_topic", where=name)
    domain = body.get("shop_domain")
    if not isinstance(domain, str) or not 0 < len(domain) <= LONGEST_ID:
        raise Rejected("`shop_domain` is missing", code="field_missing", where="shop_domain")
    subject = {"shop_id": identifier(body, "shop_id"), "shop_domain": domain}
    return [_requested(webhook, "erase_shop", webhook.digest, subject)]


def _requested(webhook: Webhook, kind: str, request: str, subject: dict[str, Any]) -> Event:
    properties = {"kind": kind, "subject": subject, "due_at": (webhook.at + TERM).isoformat(), "request_id": request}
    return webhook.event(f"privacy:{kind}:{request}", "privacy.requested", webhook.at, properties)


def _only(body: Body, name: str) -> Body:
    found = optional_object(body, name)
    if found is None:
        raise Rejected(f"`{name}` is missing", code="field_missing", where=name)
    return found


def _subject(body: Body, orders: str) -> dict[str, Any]:
    """Identities as they stand in events; a phone number without its country's code is kept as it was written."""
    person = optional_object(body, "customer") or {}
    said = person.get("phone")
    found = {
        "shopify": optional_identifier(person, "id"),
        "email": email(person.get("email")),
        "phone": phone(said) or (said[:40] if isinstance(said, str) and said else None),
    }
    subject: dict[str, Any] = {kind: value for kind, value in found.items() if value}
    subject["orders"] = orders_of(body, orders)
    if len(subject) == 1 and not subject["orders"]:
        raise Rejected("`customer` is missing, and no order is named", code="field_missing", where="customer")
    return subject
