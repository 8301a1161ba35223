"""From identities to customers: who an event is about, in a few statements for a whole batch.

The rules are in `linking`; here is what makes them hold in the database. Every customer a batch touches is locked
(in the order of ids) until the transaction ends, so two partitions' workers never work on one customer at a time.
A new identity that another worker has just created shows as a conflict: the batch is then resolved again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.events.event import Event
from operation_agent.kit.errors import Retryable
from operation_agent.kit.ids import as_uuid
from operation_agent.store.shops import Shop

from . import merging
from .linking import ACTION, Identity, Linker, Person, is_provider_event, lookups

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Resolved:
    """`random_key` is where the customer stands in every holdout and draw."""

    customer_id: UUID
    random_key: UUID


class _RacedError(Exception):
    """Another transaction made one of our new identities first."""


def resolve(session: Session, shop: Shop, events: Sequence[Event]) -> dict[UUID, Resolved | None]:
    """The customer of each event (by event id), creating, linking and merging; None: no identity at all (a guest).

    `events` are in order of arrival, best at most 1,000. Raises Retryable when other workers keep making the same
    identities (or PostgreSQL finds a deadlock: sqlalchemy's OperationalError); nothing has been written then.
    """
    for _ in range(_ATTEMPTS):
        try:
            with session.begin_nested():
                return _resolve_once(session, shop, events)
        except _RacedError:
            continue
    raise Retryable(f"the same new identities were made by other workers {_ATTEMPTS} times in a row")


def _resolve_once(session: Session, shop: Shop, events: Sequence[Event]) -> dict[UUID, Resolved | None]:
    wanted = sorted({identity for event in events for identity in lookups(event)})
    owners, known = _owners(session, shop.id, wanted) if wanted else ({}, {})
    linker = Linker(shop.seed, owners)
    people = [(event.id, linker.take(event)) for event in events]
    seen = _first_seen(events)
    _see_earlier(session, shop.id, {one: at for one, at in seen.items() if one in known and at < known[one]})
    linker.links = {one: (person, min(at, seen.get(one, at))) for one, (person, at) in linker.links.items()}
    if linker.links:
        _insert_identities(session, shop.id, linker)
        _insert_customers(session, shop.id, linker)
        _fill_columns(session, shop.id, linker)
    if linker.merges:
        merging.merge(session, shop.id, linker.merges)
    return {event_id: _resolved(person.root()) if person else None for event_id, person in people}


def _first_seen(events: Sequence[Event]) -> dict[Identity, datetime]:
    """When each identity was first there, in whatever order its events came; a provider's event is no sign of it."""
    seen: dict[Identity, datetime] = {}
    for event in events:
        for one in () if is_provider_event(event) else lookups(event):
            seen[one] = min(seen.get(one, event.occurred_at), event.occurred_at)
    return seen


def _see_earlier(session: Session, shop_id: UUID, earlier: Mapping[Identity, datetime]) -> None:
    if not earlier:
        return
    kinds, values = map(list, zip(*sorted(earlier), strict=True))
    session.execute(
        text(
            "UPDATE identities i SET first_seen_at = r.at FROM (SELECT * FROM unnest(CAST(:kinds AS text[]),"
            " CAST(:values AS text[]), CAST(:times AS timestamptz[])) AS r (kind, value, at)) AS r"
            " WHERE i.shop_id = :shop_id AND i.kind = r.kind AND i.value = r.value AND r.at < i.first_seen_at"
        ),
        {"shop_id": shop_id, "kinds": kinds, "values": values, "times": [earlier[one] for one in sorted(earlier)]},
    )


def _resolved(person: Person) -> Resolved:
    return Resolved(person.id, person.random_key)


def lock(session: Session, shop_id: UUID, customer_ids: Sequence[UUID]) -> list[UUID]:
    """Hold these customers until the transaction ends, as `resolve` holds those of its events; who is still there, by
    id. Merged ones are not: what they were is the survivor's."""
    rows = session.execute(
        text(
            "SELECT id FROM customers WHERE shop_id = :shop AND id = ANY(CAST(:ids AS uuid[])) AND merged_into IS NULL"
            " ORDER BY id FOR NO KEY UPDATE"
        ),
        {"shop": shop_id, "ids": list(customer_ids)},
    )
    return list(rows.scalars())


_OWNERS = text("""
WITH found AS (
  SELECT i.kind, i.value, i.customer_id, i.first_seen_at AS known_at
  FROM unnest(CAST(:kinds AS text[]), CAST(:values AS text[])) AS w (kind, value)
  JOIN identities i ON i.shop_id = :shop_id AND i.kind = w.kind AND i.value = w.value
  UNION ALL
  SELECT 'action', a.id::text, a.customer_id, NULL FROM actions a
  WHERE a.shop_id = :shop_id AND a.id = ANY(CAST(:actions AS uuid[]))
)
SELECT f.kind, f.value, f.known_at, c.id, c.random_key, c.first_seen_at, c.last_seen_at,
       c.external_id IS NOT NULL AS has_external, c.shopify_id IS NOT NULL AS has_shopify
FROM found f JOIN customers c ON c.shop_id = :shop_id AND c.id = f.customer_id
WHERE c.merged_into IS NULL
ORDER BY c.id
FOR NO KEY UPDATE OF c
""")


def _owners(
    session: Session, shop_id: UUID, wanted: Sequence[Identity]
) -> tuple[dict[Identity, Person], dict[Identity, datetime]]:
    """Whose these identities are, and when each was first seen as far as we know."""
    own = [identity for identity in wanted if identity[0] != ACTION]
    rows = session.execute(
        _OWNERS,
        {
            "shop_id": shop_id,
            "kinds": [kind for kind, _ in own],
            "values": [value for _, value in own],
            "actions": [value for kind, value in wanted if kind == ACTION and as_uuid(value)],
        },
    )
    people: dict[UUID, Person] = {}
    owners: dict[Identity, Person] = {}
    known: dict[Identity, datetime] = {}
    for kind, value, known_at, *columns in rows:
        owners[(kind, value)] = people.setdefault(columns[0], Person(*columns))
        if known_at is not None:
            known[(kind, value)] = known_at
    return owners, known


def _insert_identities(session: Session, shop_id: UUID, linker: Linker) -> None:
    rows = sorted((kind, value, person.root().id, at) for (kind, value), (person, at) in linker.links.items())
    kinds, values, customers, times = map(list, zip(*rows, strict=True))
    made = session.execute(
        text(
            "INSERT INTO identities (shop_id, kind, value, customer_id, first_seen_at)"
            " SELECT :shop_id, r.kind, r.value, r.customer_id, r.at FROM unnest(CAST(:kinds AS text[]),"
            " CAST(:values AS text[]), CAST(:customers AS uuid[]), CAST(:times AS timestamptz[]))"
            " AS r (kind, value, customer_id, at) ORDER BY r.kind, r.value"
            " ON CONFLICT DO NOTHING RETURNING 1"
        ),
        {"shop_id": shop_id, "kinds": kinds, "values": values, "customers": customers, "times": times},
    )
    if len(made.all()) != len(rows):
        raise _RacedError


def _insert_customers(session: Session, shop_id: UUID, linker: Linker) -> None:
    made = [person for person in linker.created if person.merged_into is None]
    if not made:
        return
    session.execute(
        text(
            "INSERT INTO customers (shop_id, id, random_key, first_seen_at, last_seen_at, created_at)"
            " SELECT :shop_id, r.* FROM unnest(CAST(:ids AS uuid[]), CAST(:keys AS uuid[]),"
            " CAST(:firsts AS timestamptz[]), CAST(:lasts AS timestamptz[]), CAST(:created AS timestamptz[])) AS r"
        ),
        {
            "shop_id": shop_id,
            "ids": [person.id for person in made],
            "keys": [person.random_key for person in made],
            "firsts": [person.first_seen_at for person in made],
            "lasts": [person.last_seen_at for person in made],
            "created": [person.created_at for person in made],
        },
    )


_COLUMN = {"external": 0, "shopify": 1, "email": 2, "phone": 3}


def _fill_columns(session: Session, shop_id: UUID, linker: Linker) -> None:
    """The first identity of each kind also stands in the customer's row, unless one stands there already."""
    first: dict[UUID, list[str | None]] = {}
    for (kind, value), (person, _) in linker.links.items():
        if kind in _COLUMN:
            columns = first.setdefault(person.root().id, [None] * len(_COLUMN))
            columns[_COLUMN[kind]] = columns[_COLUMN[kind]] or value
    if not first:
        return
    ids = sorted(first)
    external, shopify, email, phone = (
        [first[customer_id][index] for customer_id in ids] for index in range(len(_COLUMN))
    )
    session.execute(
        text(
            "UPDATE customers c SET external_id = COALESCE(c.external_id, r.external_id),"
            " shopify_id = COALESCE(c.shopify_id, r.shopify_id), email = COALESCE(c.email, r.email),"
            " phone = COALESCE(c.phone, r.phone)"
            " FROM unnest(CAST(:ids AS uuid[]), CAST(:external AS text[]), CAST(:shopify AS text[]),"
            " CAST(:email AS text[]), CAST(:phone AS text[])) AS r (id, external_id, shopify_id, email, phone)"
            " WHERE c.shop_id = :shop_id AND c.id = r.id"
        ),
        {"shop_id": shop_id, "ids": ids, "external": external, "shopify": shopify, "email": email, "phone": phone},
    )
