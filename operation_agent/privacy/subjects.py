"""Who a request is about: the customers, addresses, orders and events that are one person's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.kit.ids import as_uuid

_STRONG = ("external", "shopify")
_WEAK = ("email", "phone")
_SHORTEST = 5
"""Characters of an id that is looked for inside texts: a shorter one would be found everywhere."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One person. `customers` are locked. `identities` by kind; `orders` are the shop's ids of theirs."""

    customers: tuple[UUID, ...]
    identities: Mapping[str, tuple[str, ...]]
    orders: tuple[str, ...]

    @property
    def patterns(self) -> list[str]:
        """POSIX expressions that find an address or id of theirs in a text, as a whole word."""
        named = [value for kind in (*_STRONG, *_WEAK) for value in self.identities.get(kind, ())]
        words = sorted({value for value in named if len(value) >= _SHORTEST})
        return [f"(?i)(^|[^0-9A-Za-z]){re.escape(word)}([^0-9A-Za-z]|$)" for word in words]

    def values(self, shop_id: UUID, events: Sequence[UUID], actions: Sequence[UUID]) -> dict[str, Any]:
        """The parameters of `holdings`."""
        anonymous = self.identities.get("anonymous", ())
        return {
            "shop": shop_id,
            "customers": list(self.customers),
            "addresses": [value for kind in _WEAK for value in self.identities.get(kind, ())],
            "shopify": list(self.identities.get("shopify", ())),
            "carts": [value.removeprefix("cart:") for value in anonymous if value.startswith("cart:")],
            "orders": list(self.orders),
            "patterns": self.patterns,
            "events": list(events),
            "actions": list(actions),
        }


def find(session: Session, shop_id: UUID, asked: Mapping[str, Any]) -> Subject:
    """Whom a request names: {customer_id?, external?, shopify?, email?, phone?, orders?}; holds them until the end.

    An address alone says who it is only when no id was given: families share a mailbox.
    """
    owners = _named(session, shop_id, asked)
    held = _with_merged(session, shop_id, owners)
    identities = _identities(session, shop_id, held, asked)
    rows = session.execute(
        text("SELECT source_order_id FROM orders WHERE shop_id = :shop AND customer_id = ANY(CAST(:ids AS uuid[]))"),
        {"shop": shop_id, "ids": held},
    )
    orders = sorted({*rows.scalars(), *(str(one) for one in asked.get("orders") or ())})
    return Subject(tuple(held), identities, tuple(orders))


def _named(session: Session, shop_id: UUID, asked: Mapping[str, Any]) -> list[UUID]:
    known = as_uuid(asked.get("customer_id"))
    if known is not None:
        return [known]
    for kinds in (_STRONG, _WEAK):
        pairs = [(kind, str(asked[kind])) for kind in kinds if asked.get(kind)]
        if pairs:
            rows = session.execute(
                text(
                    "SELECT DISTINCT i.customer_id FROM unnest(CAST(:kinds AS text[]), CAST(:values AS text[]))"
                    " AS w (kind, value) JOIN identities i"
                    " ON i.shop_id = :shop AND i.kind = w.kind AND i.value = w.value"
                ),
                {"shop": shop_id, "kinds": [kind for kind, _ in pairs], "values": [value for _, value in pairs]},
            )
            return list(rows.scalars())
    return []


def _with_merged(session: Session, shop_id: UUID, owners: Sequence[UUID]) -> list[UUID]:
    """These, whoever they were merged into, and everybody merged into them; locked in the order of ids."""
    rows = session.execute(
        text(
            "WITH RECURSIVE one AS ("
            "  SELECT id, merged_into FROM customers WHERE shop_id = :shop AND id = ANY(CAST(:ids AS uuid[]))"
            "  UNION SELECT c.id, c.merged_into FROM customers c JOIN one"
            "    ON c.id = one.merged_into OR c.merged_into = one.id WHERE c.shop_id = :shop)"
            " SELECT id FROM customers WHERE shop_id = :shop AND id IN (SELECT id FROM one) ORDER BY id FOR UPDATE"
        ),
        {"shop": shop_id, "ids": list(owners)},
    )
    return list(rows.scalars())


def _identities(
    session: Session, shop_id: UUID, customers: Sequence[UUID], asked: Mapping[str, Any]
) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    rows = session.execute(
        text(
            "SELECT kind, value FROM identities WHERE shop_id = :shop AND customer_id = ANY(CAST(:ids AS uuid[]))"
            " UNION SELECT v.kind, v.value FROM customers c CROSS JOIN LATERAL (VALUES ('external', c.external_id),"
            " ('shopify', c.shopify_id), ('email', c.email), ('phone', c.phone)) AS v (kind, value)"
            " WHERE c.shop_id = :shop AND c.id = ANY(CAST(:ids AS uuid[])) AND v.value IS NOT NULL"
        ),
        {"shop": shop_id, "ids": list(customers)},
    )
    for kind, value in rows:
        found.setdefault(kind, set()).add(value)
    for kind in _STRONG if customers else (*_STRONG, *_WEAK):
        if asked.get(kind):
            found.setdefault(kind, set()).add(str(asked[kind]))
    return {kind: tuple(sorted(values)) for kind, values in sorted(found.items())}


_EVENTS = text("""
SELECT id FROM events WHERE shop_id = :shop AND (
  identity ->> 'external' = ANY(CAST(:external AS text[])) OR identity ->> 'shopify' = ANY(CAST(:shopify AS text[]))
  OR identity ->> 'email' = ANY(CAST(:email AS text[])) OR identity ->> 'phone' = ANY(CAST(:phone AS text[]))
  OR identity ->> 'anonymous' = ANY(CAST(:anonymous AS text[]))
  OR properties::text ~ ANY(CAST(:patterns AS text[])) OR context::text ~ ANY(CAST(:patterns AS text[])))
UNION SELECT event_id FROM timeline WHERE shop_id = :shop AND customer_id = ANY(CAST(:customers AS uuid[]))
UNION SELECT event_id FROM consent_changes WHERE shop_id = :shop AND customer_id = ANY(CAST(:customers AS uuid[]))
UNION SELECT event_id FROM orders WHERE shop_id = :shop AND customer_id = ANY(CAST(:customers AS uuid[]))
""")


def events_of(session: Session, shop_id: UUID, subject: Subject) -> list[UUID]:
    """Every event that names the person. Reads all events of the shop once: minutes for tens of millions."""
    kinds = ("external", "shopify", "email", "phone", "anonymous")
    values = {kind: list(subject.identities.get(kind, ())) for kind in kinds}
    rows = session.execute(
        _EVENTS, {"shop": shop_id, "customers": list(subject.customers), "patterns": subject.patterns, **values}
    )
    return list(rows.scalars())


def actions_of(session: Session, shop_id: UUID, subject: Subject) -> list[UUID]:
    rows = session.execute(
        text("SELECT id FROM actions WHERE shop_id = :shop AND customer_id = ANY(CAST(:ids AS uuid[]))"),
        {"shop": shop_id, "ids": list(subject.customers)},
    )
    return list(rows.scalars())
