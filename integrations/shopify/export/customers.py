"""Customers as a bulk query gives them, with their consents and tags."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from integrations.shopify import facts
from integrations.shopify.facts import Customer
from integrations.shopify.reading import fields
from operation_agent.storefront.protocol import Exported

from . import nodes
from .nodes import Node
from .objects import Piece

_CONSENTS = {"SUBSCRIBED": "subscribed", "UNSUBSCRIBED": "unsubscribed"}
"""Every other state says neither yes nor no."""


def exported(piece: Piece, _currency: str, received_at: datetime) -> Exported:
    """Raises Rejected."""
    found = customer(piece.node)
    events = facts.customer_events(found, received_at=received_at)
    return Exported(found.customer_id, found.updated_at, piece.end, events)


def customer(node: Node) -> Customer:
    email = fields.optional_object(node, "defaultEmailAddress") or {}
    phone = fields.optional_object(node, "defaultPhoneNumber") or {}
    updated_at = fields.instant(node, "updatedAt")
    said = {"email": _consent(email, updated_at), "sms": _consent(phone, updated_at)}
    return Customer(
        customer_id=nodes.number_of(node, "Customer"),
        updated_at=updated_at,
        email=fields.email(email.get("emailAddress")),
        phone=fields.phone(phone.get("phoneNumber")),
        traits=_traits(node),
        consents={channel: consent for channel, consent in said.items() if consent is not None},
        tags=tuple(fields.texts(node, "tags")),
    )


def _traits(node: Node) -> dict[str, Any]:
    traits: dict[str, Any] = {
        "first_name": fields.text(node, "firstName"),
        "last_name": fields.text(node, "lastName"),
        "locale": fields.text(node, "locale"),
        "state": nodes.word(node, "state"),
        "verified_email": fields.flag(node, "verifiedEmail"),
        "tax_exempt": fields.flag(node, "taxExempt"),
    }
    made = fields.optional_instant(node, "createdAt")
    if made is not None:
        traits["created_at"] = facts.at_second(made)
    address = fields.optional_object(node, "defaultAddress")
    country = fields.text(address, "countryCodeV2") if address is not None else None
    if country is not None and len(country) == 2:
        traits["country"] = country.upper()
    return traits


def _consent(address: Node, at: datetime) -> tuple[str, datetime] | None:
    """What was said of an address and when; without a time it holds as of `at`."""
    state = _CONSENTS.get(str(address.get("marketingState")))
    return (state, fields.optional_instant(address, "marketingUpdatedAt") or at) if state is not None else None
