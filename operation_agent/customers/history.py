"""What events say about customers, written down: timeline, orders, consents, suppressions, profile.

Every statement gives the same rows whatever order the events come in: facts are kept by their own time, the newest
consent stands, and so does the newest snapshot of an order. A second processing of the same events changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.events.event import Event
from operation_agent.store.shops import Shop

from . import consent, orders
from .identity import Resolved
from .traits import COLUMNS, Profile

Told = tuple[Event, Resolved | None]
"""An event and whose it is."""

_NOT_DONE = ("customer.identified", "customer.aliased", "customer.tagged", "order.updated", "webhook.kept")
_NOT_DONE_FAMILIES = ("storefront.", "shop.", "app.", "privacy.")
_AMOUNT = {
    "order.created": "total_minor",
    "order.paid": "total_minor",
    "order.refunded": "amount_minor",
    "checkout.started": "value_minor",
}


def amount_property(type: str) -> str:
    """Which property of an event of this type stands in `timeline.amount_minor`."""
    return _AMOUNT.get(type, "price_minor")


def apply(session: Session, shop: Shop, events: Sequence[Event], people: Mapping[UUID, Resolved | None]) -> None:
    """Write what `events` say; `people` is what `identity.resolve` answered for them (by event id).

    A guest's order is kept without a customer; whatever else has no customer leaves no trace but its event.
    """
    told: list[Told] = [(event, people.get(event.id)) for event in events]
    _see(session, shop.id, told)
    _profile(session, shop.id, told)
    _timeline(session, shop.id, told)
    orders.apply(session, shop, told)
    consent.apply(session, shop.id, told)


def known_orders(session: Session, shop_id: UUID, ids: Sequence[str]) -> dict[str, datetime]:
    """Of those of these orders (the source's ids) that we have a snapshot of: as of when, by the source's clock."""
    return orders.known(session, shop_id, ids)


def known_customers(session: Session, shop_id: UUID, ids: Sequence[str]) -> dict[str, datetime]:
    """Of those of these customers (Shopify's ids) whom a snapshot told of: as of when, by the source's clock."""
    rows = session.execute(
        text(
            "SELECT value, told_at FROM identities WHERE shop_id = :shop AND kind = 'shopify'"
            " AND value = ANY(CAST(:ids AS text[])) AND told_at IS NOT NULL"
        ),
        {"shop": shop_id, "ids": list(ids)},
    )
    return {row.value: row.told_at for row in rows}


def _see(session: Session, shop_id: UUID, told: Sequence[Told]) -> None:
    """First and last seen, of customers that were seen earlier or later than the row says."""
    seen: dict[UUID, list[datetime]] = {}
    for event, person in told:
        if person is not None:
            seen.setdefault(person.customer_id, []).append(event.occurred_at)
    if not seen:
        return
    ids = sorted(seen)
    session.execute(
        text(
            "UPDATE customers c SET first_seen_at = LEAST(c.first_seen_at, r.first),"
            " last_seen_at = GREATEST(c.last_seen_at, r.last)"
            " FROM unnest(CAST(:ids AS uuid[]), CAST(:firsts AS timestamptz[]), CAST(:lasts AS timestamptz[]))"
            " AS r (id, first, last) WHERE c.shop_id = :shop_id AND c.id = r.id"
            " AND (r.first < c.first_seen_at OR r.last > c.last_seen_at)"
        ),
        {
            "shop_id": shop_id,
            "ids": ids,
            "firsts": [min(seen[customer_id]) for customer_id in ids],
            "lasts": [max(seen[customer_id]) for customer_id in ids],
        },
    )


_PROFILE = ("customer.identified", "customer.tagged", "customer.deleted")


def _profile(session: Session, shop_id: UUID, told: Sequence[Told]) -> None:
    sayings = [(event, person) for event, person in told if person and event.type in _PROFILE]
    if not sayings:
        return
    ids = sorted({person.customer_id for _, person in sayings})
    rows = session.execute(
        text(
            "SELECT id, traits, trait_times FROM customers WHERE shop_id = :shop_id AND id = ANY(CAST(:ids AS uuid[]))"
        ),
        {"shop_id": shop_id, "ids": ids},
    )
    profiles = {row.id: Profile(row.traits, row.trait_times) for row in rows}
    for event, person in sayings:
        _say(profiles[person.customer_id], event)
    _write_profiles(session, shop_id, {customer_id: profiles[customer_id] for customer_id in ids})
    identified = [event for event, _ in sayings if event.type == "customer.identified" and _traits(event)]
    _note_records(session, shop_id, "told_at", identified)
    _note_records(session, shop_id, "deleted_at", [event for event, _ in sayings if event.type == consent.DELETED])


def _say(profile: Profile, event: Event) -> None:
    said = event.properties
    if event.type == "customer.tagged":
        profile.tag(said.get("added") or (), said.get("removed") or (), event.occurred_at)
    elif event.type == "customer.deleted":
        profile.delete(event.occurred_at)
    else:
        profile.say(_traits(event), event.occurred_at)


def _write_profiles(session: Session, shop_id: UUID, profiles: Mapping[UUID, Profile]) -> None:
    columns = {name: [profile.column(name) for profile in profiles.values()] for name in COLUMNS}
    arrays = ", ".join(f"CAST(:{name} AS text[])" for name in COLUMNS)
    session.execute(
        text(
            f"UPDATE customers c SET {', '.join(f'{n} = COALESCE(r.{n}, c.{n})' for n in COLUMNS)},"  # noqa: S608
            " traits = r.traits, trait_times = r.trait_times FROM unnest(CAST(:ids AS uuid[]),"
            f" CAST(:traits AS jsonb[]), CAST(:times AS jsonb[]), {arrays})"
            f" AS r (id, traits, trait_times, {', '.join(COLUMNS)}) WHERE c.shop_id = :shop_id AND c.id = r.id"
        ),
        {
            "shop_id": shop_id,
            "ids": list(profiles),
            "traits": [orjson.dumps(profile.traits).decode() for profile in profiles.values()],
            "times": [orjson.dumps(profile.times).decode() for profile in profiles.values()],
            **columns,
        },
    )


def _note_records(session: Session, shop_id: UUID, column: str, events: Sequence[Event]) -> None:
    """Remember as of when the shop's own record of a customer was told last (reconciliation compares by it), or that it
    was deleted. An event that only joins identities says nothing of the record."""
    newest: dict[str, datetime] = {}
    for event in events:
        shopify = event.identity.get("shopify")
        if shopify:
            newest[shopify] = max(newest.get(shopify, event.occurred_at), event.occurred_at)
    if newest:
        ids = sorted(newest)
        session.execute(
            text(
                f"UPDATE identities i SET {column} = r.at"  # noqa: S608 - one of two names
                " FROM unnest(CAST(:ids AS text[]), CAST(:times AS timestamptz[])) AS r (id, at)"
                " WHERE i.shop_id = :shop AND i.kind = 'shopify' AND i.value = r.id"
                f" AND (i.{column} IS NULL OR i.{column} < r.at)"
            ),
            {"shop": shop_id, "ids": ids, "times": [newest[one] for one in ids]},
        )


def _traits(event: Event) -> dict[str, Any]:
    """What was said, with e-mail and phone as the identity has them: normalised. A list of all tags is one of them."""
    traits = event.properties.get("traits") or {}
    ids = {kind: event.identity[kind] for kind in ("email", "phone") if kind in traits and event.identity.get(kind)}
    tags = {"tags": event.properties["tags"]} if "tags" in event.properties else {}
    return {**traits, **ids, **tags}


def _timeline(session: Session, shop_id: UUID, told: Sequence[Told]) -> None:
    """What customers did, or befell them: what a profile or a snapshot says now is not something that happened, and an
    open that a mail program made by itself says nothing of its reader."""
    rows = [
        (event, person)
        for event, person in told
        if person and _has_happened(event.type) and not event.properties.get("machine_open")
    ]
    if not rows:
        return
    session.execute(
        text(
            "INSERT INTO timeline (shop_id, customer_id, occurred_at, event_id, type, product_id, amount_minor)"
            " SELECT :shop_id, r.* FROM unnest(CAST(:customers AS uuid[]), CAST(:times AS timestamptz[]),"
            " CAST(:events AS uuid[]), CAST(:types AS text[]), CAST(:products AS text[]), CAST(:amounts AS bigint[]))"
            " AS r ON CONFLICT DO NOTHING"
        ),
        {
            "shop_id": shop_id,
            "customers": [person.customer_id for _, person in rows],
            "times": [event.occurred_at for event, _ in rows],
            "events": [event.id for event, _ in rows],
            "types": [event.type for event, _ in rows],
            "products": [_text(event.properties.get("product_id")) for event, _ in rows],
            "amounts": [event.properties.get(amount_property(event.type)) for event, _ in rows],
        },
    )


def _has_happened(type: str) -> bool:
    return type not in _NOT_DONE and not type.startswith(_NOT_DONE_FAMILIES)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
