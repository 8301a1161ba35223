"""Segment's messages (track, identify, page, screen, alias, group) become events, or are refused with the reason."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from operation_agent.kit.errors import Rejected
from operation_agent.kit.ids import new_id
from operation_agent.store.shops import Shop

from . import instants
from .catalogue import TYPES, identifier, type_of
from .event import Event
from .storable import check

SOURCE = "segment"
KINDS = ("track", "identify", "page", "screen", "alias", "group")
_ADDRESS = re.compile(r"[^@\s]{1,64}@[^@\s]{1,253}\.[^@\s.]{2,63}")
_SHOPIFY = ("shopify_customer_id", "shopify_id", "shopify")


def normalise(
    message: dict[str, Any],
    shop: Shop,
    *,
    now: datetime,
    received_at: datetime,
    sent_at: object = None,
) -> Event:
    """One message as an event.

    `now` is the shop's time of receipt, `received_at` the system's; `sent_at` is the batch's, as received, for a
    message without its own. A message without `messageId` gets one (`Event.source_id`), so sending it again stores it
    again. Raises Rejected with `where` and, at first fault, nothing is stored of it.
    """
    if not isinstance(message, dict):
        raise Rejected(f"an event is an object, not {type(message).__name__}", code="not_an_object")
    check(message)
    kind = message.get("type")
    if kind not in KINDS:
        raise Rejected(f"type is one of {', '.join(KINDS)}, not {str(kind)[:40]!r}", code="unknown_type", where="type")
    context = _object(message, "context")
    type_, name, properties = _content(message, kind)
    occurred_at = instants.occurred(
        message.get("timestamp", message.get("originalTimestamp")), message.get("sentAt") or sent_at, now
    )
    event_id = new_id()
    return Event(
        event_id,
        SOURCE,
        identifier(message.get("messageId"), "messageId") or str(event_id),
        type_,
        occurred_at,
        received_at,
        _identity(message, kind, context, properties, shop),
        TYPES[type_](properties, shop),
        context,
        name,
    )


def _object(message: dict[str, Any], name: str) -> dict[str, Any]:
    found = message.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Rejected(f"{name} is an object, not {type(found).__name__}", code="not_an_object", where=name)
    return found


def _content(message: dict[str, Any], kind: str) -> tuple[str, str | None, dict[str, Any]]:
    """The type, the source's own name, and the properties as sent."""
    if kind == "track":
        name = message.get("event")
        if not isinstance(name, str) or not name.strip():
            raise Rejected("event is the name of what happened", code="event_name", where="event")
        name = identifier(name, "event")
        assert name is not None
        type_ = type_of(name)
        return type_, name if type_ == "custom" else None, _object(message, "properties")
    if kind == "identify":
        return "customer.identified", None, {"traits": _object(message, "traits")}
    if kind == "alias":
        return "customer.aliased", None, {}
    if kind == "group":
        group = identifier(message.get("groupId"), "groupId")
        if group is None:
            raise Rejected("groupId is missing", code="id_missing", where="groupId")
        return "custom", "group", {"group_id": group, "traits": _object(message, "traits")}
    name = identifier(message.get("name"), "name")
    properties = _object(message, "properties")
    return "page.viewed", None, {"name": name, **properties} if name else properties


def _identity(
    message: dict[str, Any], kind: str, context: dict[str, Any], properties: dict[str, Any], shop: Shop
) -> dict[str, str]:
    identity: dict[str, str] = {}
    external = identifier(message.get("userId"), "userId")
    anonymous = identifier(message.get("anonymousId"), "anonymousId")
    if external is not None:
        identity["external"] = external
    if anonymous is not None:
        identity["anonymous"] = anonymous
    if kind == "alias":
        _alias(message, identity)
        if external is None:
            return identity
    if not identity:
        raise Rejected("send a userId or an anonymousId", code="id_missing", where="userId")
    if kind == "identify" or "traits" in context:
        _contact(properties.get("traits") if kind == "identify" else context["traits"], identity, shop)
    if "externalIds" in context:
        _shopify(context["externalIds"], identity)
    return identity


def _alias(message: dict[str, Any], identity: dict[str, str]) -> None:
    """Two ids of one person, or with an anonymousId alone two of one device: then nothing else in it names anybody, so
    that nobody who holds a tracking key joins two of the shop's customers."""
    previous = identifier(message.get("previousId"), "previousId")
    if previous is None:
        raise Rejected("previousId is missing: the id this user had before", code="id_missing", where="previousId")
    if "external" not in identity and "anonymous" not in identity:
        raise Rejected("userId is missing: the id this user has now", code="id_missing", where="userId")
    identity["previous"] = previous


def _contact(traits: object, identity: dict[str, str], shop: Shop) -> None:
    """E-mail and phone identify a person too; a value that is neither stays a trait and identifies nobody."""
    if not isinstance(traits, dict):
        return
    address = email_identity(traits.get("email"))
    if address is not None:
        identity["email"] = address
    number = phone_identity(traits.get("phone"), shop.settings.get("country"))
    if number is not None:
        identity["phone"] = number
    for name in _SHOPIFY[:2]:
        found = traits.get(name)
        if isinstance(found, str | int) and not isinstance(found, bool) and found != "":
            identity["shopify"] = shopify_identity(str(found))


def _shopify(external_ids: object, identity: dict[str, str]) -> None:
    for one in external_ids if isinstance(external_ids, list) else ():
        if isinstance(one, dict) and one.get("type") in _SHOPIFY:
            found = identifier(one.get("id"), "context.externalIds")
            if found is not None:
                identity["shopify"] = shopify_identity(found)


def shopify_identity(value: str) -> str:
    """A customer's number, with or without the address form around it (gid://shopify/Customer/1)."""
    return value.rsplit("/", 1)[-1].strip()


def email_identity(value: object) -> str | None:
    """The address in lower case, or None for what is not one."""
    if not isinstance(value, str):
        return None
    address = value.strip().lower()
    return address if _ADDRESS.fullmatch(address) else None


def phone_identity(value: object, country: object = None) -> str | None:
    """E.164 ('+8613800138000'), or None for what is not a possible number. `country` reads numbers without one."""
    if not isinstance(value, str) or not value.strip() or len(value) > 40:
        return None
    import phonenumbers

    try:
        number = phonenumbers.parse(value, country if isinstance(country, str) else None)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
