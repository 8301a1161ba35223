"""Customers, their consents and tags."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from integrations.shopify import facts
from integrations.shopify.facts import Customer
from operation_agent.events.event import Event
from operation_agent.kit.errors import Rejected
from operation_agent.kit.ids import digest_id

from .fields import (
    Body,
    email,
    flag,
    global_id,
    identifier,
    optional_identifier,
    optional_instant,
    optional_object,
    phone,
    text,
    texts,
)
from .telling import Webhook, precise

_STATES = {"subscribed": "subscribed", "unsubscribed": "unsubscribed"}
"""Of marketing; not_subscribed, pending, redacted and invalid say neither yes nor no."""


def changed(body: Body, webhook: Webhook) -> list[Event]:
    return webhook.customer_events(customer(body, webhook.at))


def deleted(body: Body, webhook: Webhook) -> list[Event]:
    if body.get("created_at") is not None:  # the topic is not signed
        raise Rejected("this tells of a customer who exists", code="not_deleted", where="created_at")
    gone = identifier(body, "id")
    return [
        webhook.event(
            f"customer.deleted:{gone}", "customer.deleted", webhook.at, {"customer_id": gone}, {"shopify": gone}
        )
    ]


def merged(body: Body, webhook: Webhook) -> list[Event]:
    """The shop says that two customers are one. A merge that failed changes nothing."""
    _, kept = global_id(body, "admin_graphql_api_customer_kept_id", "Customer")
    _, gone = global_id(body, "admin_graphql_api_customer_deleted_id", "Customer")
    if text(body, "status") not in ("completed", "COMPLETED"):
        return []
    identity = {"shopify": kept, "previous": gone}
    return [webhook.event(f"customer.merged:{gone}:{kept}", "customer.aliased", webhook.at, {}, identity)]


def tagged(body: Body, webhook: Webhook) -> list[Event]:
    """GraphQL-style: `customerId` is a global id. The moment keeps its fraction, for a tag taken back at once."""
    _, customer_id = global_id(body, "customerId", "Customer")
    tags = texts(body, "tags")
    if not tags:
        return []
    at = _tagged_at(body, webhook)
    way = "added" if webhook.topic.endswith("added") else "removed"
    told = digest_id(way, *sorted(tags))
    properties = {"added": [], "removed": [], way: sorted(tags)}
    source_id = f"customer.tagged:{customer_id}@{at.isoformat()}:{told}"
    return [webhook.event(source_id, "customer.tagged", at, properties, {"shopify": customer_id})]


def _tagged_at(body: Body, webhook: Webhook) -> datetime:
    written = body.get("occurredAt")
    if written is None:
        return webhook.at
    found = precise(written) if isinstance(written, str) else None
    if found is None:
        raise Rejected("`occurredAt` is not an ISO 8601 time", code="field_type", where="occurredAt")
    return found


def consent_changed(body: Body, webhook: Webhook) -> list[Event]:
    """Of e-mail (`customer_id`) or SMS (`id`): only the consent is told."""
    customer_id = optional_identifier(body, "customer_id") or identifier(body, "id")
    found = Customer(customer_id, consents=_consents(body, webhook.at))
    return webhook.customer_events(found)


def customer(body: Body, at: datetime) -> Customer:
    """The customer that `body` describes; `at` stands for a time it does not say. Raises Rejected."""
    updated_at = optional_instant(body, "updated_at") or at
    return Customer(
        customer_id=identifier(body, "id"),
        updated_at=updated_at,
        email=email(body.get("email")),
        phone=phone(body.get("phone")),
        traits=_traits(body),
        consents=_consents(body, updated_at),
        tags=tuple(texts(body, "tags")) if body.get("tags") is not None else None,
    )


def of_order(body: Body) -> Customer | None:
    """Whose order or checkout it is: None for a guest's."""
    found = optional_object(body, "customer")
    if found is None:
        return None
    customer_id = optional_identifier(found, "id")
    if customer_id is None:
        return None
    return Customer(customer_id, email=email(found.get("email")), phone=phone(found.get("phone")))


def _traits(body: Body) -> dict[str, Any]:
    traits: dict[str, Any] = {
        name: text(body, name) for name in ("first_name", "last_name", "locale", "state") if name in body
    }
    traits |= {name: flag(body, name) for name in ("verified_email", "tax_exempt") if body.get(name) is not None}
    created_at = optional_instant(body, "created_at")
    if created_at is not None:
        traits["created_at"] = facts.at_second(created_at)
    address = optional_object(body, "default_address")
    country = text(address, "country_code") if address is not None else None
    if country is not None and len(country) == 2:
        traits["country"] = country.upper()
    return traits


def _consents(body: Body, at: datetime) -> dict[str, tuple[str, datetime]]:
    """What was said when, by channel. A state without a time holds as of `at`."""
    found: dict[str, tuple[str, datetime]] = {}
    for channel in ("email", "sms"):
        consent = optional_object(body, f"{channel}_marketing_consent")
        if consent is None:
            continue
        state = _STATES.get((text(consent, "state") or "").lower())
        since = optional_instant(consent, "consent_updated_at")
        if state is not None:
            found[channel] = (state, since or at)
    if body.get("email_marketing_consent") is None and "accepts_marketing" in body:
        said = _accepts_marketing(body, at)
        if said is not None:
            found["email"] = said
    return found


def _accepts_marketing(body: Body, at: datetime) -> tuple[str, datetime] | None:
    """Until 2024: a flag, false for those too who were never asked; then it was last changed when they were made."""
    accepts = flag(body, "accepts_marketing")
    since = optional_instant(body, "accepts_marketing_updated_at")
    if accepts:
        return "subscribed", since or at
    made = optional_instant(body, "created_at")
    return ("unsubscribed", since) if since is not None and made is not None and since > made else None


def orders_of(body: Body, name: str) -> list[str]:
    """The ids in a list of order ids. Raises Rejected."""
    listed = body.get(name)
    if listed is None:
        return []
    if not isinstance(listed, list):
        raise Rejected(f"`{name}` is a list of ids", code="field_type", where=name)
    return [identifier({name: one}, name) for one in listed]
