"""May we write to them: consent of a customer per channel and topic, suppression of an address whoever holds it.

The newest consent stands; at the same instant "unsubscribed" does. A customer whom the shop deletes has withdrawn every
consent given until then; one given later counts. An unsubscription by mail also suppresses the
address, until its holder subscribes again later; a hard bounce or a complaint stays.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.events.event import Event

from .identity import Resolved

DELETED = "customer.deleted"
_ENDS_CONSENT = ("email.unsubscribed", "email.complained")
_RANK = {"operator": 3, "complained": 2, "bounced": 1, "unsubscribed": 0}


def states(session: Session, shop_id: UUID, customer_ids: Collection[UUID]) -> dict[tuple[UUID, str, str], str]:
    """`{(customer, channel, topic): 'subscribed' | 'unsubscribed'}`; absent: the customer never said."""
    rows = session.execute(
        text(
            "SELECT customer_id, channel, topic, state FROM consents"
            " WHERE shop_id = :shop_id AND customer_id = ANY(CAST(:ids AS uuid[]))"
        ),
        {"shop_id": shop_id, "ids": list(customer_ids)},
    )
    return {(row.customer_id, row.channel, row.topic): row.state for row in rows}


def suppressed(session: Session, shop_id: UUID, channel: str, addresses: Collection[str]) -> dict[str, str]:
    """The addresses among these that may not be written to, with the reason (`bounced`, `complained`, …)."""
    rows = session.execute(
        text(
            "SELECT address, reason FROM suppressions"
            " WHERE shop_id = :shop_id AND channel = :channel AND address = ANY(CAST(:addresses AS text[]))"
        ),
        {"shop_id": shop_id, "channel": channel, "addresses": list(addresses)},
    )
    return {row.address: row.reason for row in rows}


@dataclass(frozen=True, slots=True)
class _Change:
    customer_id: UUID
    channel: str
    topic: str
    state: str
    at: datetime
    event_id: UUID

    @property
    def rank(self) -> tuple[datetime, bool, int]:
        return (self.at, self.state == "unsubscribed", self.event_id.int)


def apply(session: Session, shop_id: UUID, told: Sequence[tuple[Event, Resolved | None]]) -> None:
    """Write consents, their history, and suppressions, from events and whose they are."""
    changes = [change for event, person in told if person for change in _changes(event, person.customer_id)]
    if changes:
        _write_history(session, shop_id, changes)
        _write_consents(session, shop_id, changes)
    deleted = {person.customer_id for event, person in told if person and event.type == DELETED}
    touched = deleted | {change.customer_id for change in changes}
    if touched:
        _withdraw(session, shop_id, sorted(touched))
    _suppress(session, shop_id, told)
    _lift(session, shop_id, [change for change in changes if change.state == "subscribed"])


def _changes(event: Event, customer_id: UUID) -> list[_Change]:
    said = event.properties
    if event.type == "consent.changed":
        topic = said.get("topic") or "marketing"
        return [_Change(customer_id, said["channel"], topic, said["state"], event.occurred_at, event.id)]
    if event.type in _ENDS_CONSENT:
        return [_Change(customer_id, "email", "marketing", "unsubscribed", event.occurred_at, event.id)]
    return []


_ROWS = """
unnest(CAST(:customers AS uuid[]), CAST(:channels AS text[]), CAST(:topics AS text[]), CAST(:states AS text[]),
       CAST(:times AS timestamptz[]), CAST(:events AS uuid[])) AS r (customer_id, channel, topic, state, at, event_id)
"""

_INSERT_HISTORY = f"""
INSERT INTO consent_changes (shop_id, customer_id, channel, topic, state, changed_at, event_id)
SELECT :shop_id, r.* FROM {_ROWS} ON CONFLICT DO NOTHING
"""  # noqa: S608

_UPSERT_CONSENTS = f"""
INSERT INTO consents AS c (shop_id, customer_id, channel, topic, state, changed_at, event_id)
SELECT :shop_id, r.* FROM {_ROWS} ORDER BY r.customer_id, r.channel, r.topic
ON CONFLICT (shop_id, customer_id, channel, topic) DO UPDATE
SET state = EXCLUDED.state, changed_at = EXCLUDED.changed_at, event_id = EXCLUDED.event_id
WHERE (EXCLUDED.changed_at, EXCLUDED.state = 'unsubscribed', EXCLUDED.event_id)
    > (c.changed_at, c.state = 'unsubscribed', c.event_id)
"""  # noqa: S608


def _rank(row: str) -> str:
    cases = " ".join(f"WHEN '{reason}' THEN {rank}" for reason, rank in _RANK.items())
    return f"CASE {row}.reason {cases} ELSE 0 END"


# an unsubscription that arrives after its holder's later subscription is no longer true
_UPSERT_SUPPRESSIONS = f"""
INSERT INTO suppressions AS s (shop_id, channel, address, reason, created_at)
SELECT :shop_id, 'email', r.address, r.reason, r.at
FROM unnest(CAST(:addresses AS text[]), CAST(:reasons AS text[]), CAST(:times AS timestamptz[]),
            CAST(:customers AS uuid[])) AS r (address, reason, at, customer_id)
WHERE r.reason <> 'unsubscribed' OR NOT EXISTS (
  SELECT 1 FROM consent_changes c WHERE c.shop_id = :shop_id AND c.customer_id = r.customer_id AND c.channel = 'email'
  AND c.topic = 'marketing' AND c.state = 'subscribed' AND c.changed_at > r.at)
ORDER BY r.address
ON CONFLICT (shop_id, channel, address) DO UPDATE SET reason = EXCLUDED.reason, created_at = EXCLUDED.created_at
WHERE ({_rank("EXCLUDED")}, EXCLUDED.created_at) > ({_rank("s")}, s.created_at)
"""  # noqa: S608

_LIFT = f"""
DELETE FROM suppressions s
USING identities i, (SELECT customer_id, max(at) AS at FROM {_ROWS} GROUP BY customer_id) AS r
WHERE i.shop_id = :shop_id AND i.customer_id = r.customer_id AND i.kind = 'email'
  AND s.shop_id = :shop_id AND s.channel = 'email' AND s.address = i.value
  AND s.reason = 'unsubscribed' AND s.created_at < r.at
"""  # noqa: S608


def _columns(shop_id: UUID, changes: Sequence[_Change]) -> dict[str, object]:
    return {
        "shop_id": shop_id,
        "customers": [change.customer_id for change in changes],
        "channels": [change.channel for change in changes],
        "topics": [change.topic for change in changes],
        "states": [change.state for change in changes],
        "times": [change.at for change in changes],
        "events": [change.event_id for change in changes],
    }


def _write_history(session: Session, shop_id: UUID, changes: Sequence[_Change]) -> None:
    session.execute(
        text(_INSERT_HISTORY),
        _columns(shop_id, changes),
    )


def _write_consents(session: Session, shop_id: UUID, changes: Sequence[_Change]) -> None:
    newest: dict[tuple[UUID, str, str], _Change] = {}
    for change in changes:
        key = (change.customer_id, change.channel, change.topic)
        newest[key] = max(newest.get(key, change), change, key=lambda item: item.rank)
    session.execute(
        text(_UPSERT_CONSENTS),
        _columns(shop_id, list(newest.values())),
    )


# of those deleted only (the trait tells without a look at the timeline), of whom the shop has no other record: one
# that was merged into another may be deleted after that
_DELETIONS = """
SELECT DISTINCT ON (t.customer_id) t.customer_id, t.occurred_at AS at, t.event_id
FROM customers d JOIN timeline t ON t.shop_id = :shop_id AND t.customer_id = d.id AND t.type = :type
WHERE d.shop_id = :shop_id AND d.id = ANY(CAST(:ids AS uuid[])) AND d.traits ? 'deleted_at'
  AND NOT EXISTS (SELECT 1 FROM identities i WHERE i.shop_id = :shop_id AND i.customer_id = d.id
                                               AND i.kind = 'shopify' AND i.deleted_at IS NULL)
ORDER BY t.customer_id, t.occurred_at DESC, t.event_id DESC
"""
_WITHDRAW_HISTORY = f"""
INSERT INTO consent_changes (shop_id, customer_id, channel, topic, state, changed_at, event_id)
SELECT DISTINCT :shop_id, c.customer_id, c.channel, c.topic, 'unsubscribed', d.at, d.event_id
FROM ({_DELETIONS}) AS d JOIN consent_changes c ON c.shop_id = :shop_id AND c.customer_id = d.customer_id
WHERE c.changed_at <= d.at ON CONFLICT DO NOTHING
"""  # noqa: S608
_WITHDRAW = f"""
UPDATE consents c SET state = 'unsubscribed', changed_at = d.at, event_id = d.event_id FROM ({_DELETIONS}) AS d
WHERE c.shop_id = :shop_id AND c.customer_id = d.customer_id
  AND (d.at, true, d.event_id) > (c.changed_at, c.state = 'unsubscribed', c.event_id)
"""  # noqa: S608


def _withdraw(session: Session, shop_id: UUID, customers: Sequence[UUID]) -> None:
    values = {"shop_id": shop_id, "ids": list(customers), "type": DELETED}
    for statement in (_WITHDRAW_HISTORY, _WITHDRAW):
        session.execute(text(statement), values)


def _suppression(event: Event) -> str | None:
    if event.type == "email.bounced":
        return "bounced" if event.properties.get("permanent") else None
    return {"email.complained": "complained", "email.unsubscribed": "unsubscribed"}.get(event.type)


def _suppress(session: Session, shop_id: UUID, told: Sequence[tuple[Event, Resolved | None]]) -> None:
    worst: dict[str, tuple[int, datetime, str, UUID | None]] = {}
    for event, person in told:
        reason = _suppression(event)
        address = event.properties.get("address") or event.identity.get("email")
        if reason and address:
            row = (_RANK[reason], event.occurred_at, reason, person.customer_id if person else None)
            worst[address] = max(worst.get(address, row), row, key=lambda item: item[:2])
    if not worst:
        return
    addresses = sorted(worst)
    session.execute(
        text(_UPSERT_SUPPRESSIONS),
        {
            "shop_id": shop_id,
            "addresses": addresses,
            "reasons": [worst[address][2] for address in addresses],
            "times": [worst[address][1] for address in addresses],
            "customers": [worst[address][3] for address in addresses],
        },
    )


def _lift(session: Session, shop_id: UUID, subscribed: Sequence[_Change]) -> None:
    rows = [change for change in subscribed if change.channel == "email" and change.topic == "marketing"]
    if not rows:
        return
    session.execute(
        text(_LIFT),
        _columns(shop_id, rows),
    )
