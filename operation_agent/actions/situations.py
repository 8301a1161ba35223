"""What is known of due actions at this moment: a handful of statements, however many there are.

Strategies' and the shop's limits are read as they are now, not as they were at the decision: who tightens a cap or sets
quiet hours means what has not gone out yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.decision.guardrails import is_consented
from operation_agent.decision.quiet_hours import is_quiet, next_allowed
from operation_agent.store.shops import Shop
from rules.limits import Cap, QuietHours, ShopLimits, parse_limits, parse_shop
from rules.tree import Node

from .catalogue import CHANNELS, ChannelKind, shop_caps
from .checks import Message, Situation, Verdict, is_capped, judge
from .rendering import Person

MESSAGES = [kind.name for kind in CHANNELS.values() if kind.is_message]


def moment_of(shop: Shop, due_at: datetime, now: datetime) -> datetime:
    """The shop time an action counts as done at.

    A sandbox's clock jumps; it plays as though every action had been punctual, so a replay gives the same figures.
    """
    return due_at if shop.sandbox else now


def address_of(kind: ChannelKind, person: Person) -> str | None:
    return None if kind.address is None else getattr(person, kind.address)


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for a strategy's messages, the shop's own limits among it."""

    is_ended: bool
    caps: tuple[Cap, ...]
    quiet: tuple[QuietHours, ...]
    complaint_cooldown: timedelta


@dataclass(slots=True)
class Known:
    """By the ids that the actions name. `sent`: each customer's counted messages; those claimed here are added."""

    shop: Shop
    kind: ChannelKind
    now: datetime
    people: dict[UUID, Person]
    terms: dict[UUID, Terms]
    consents: dict[tuple[UUID, str], str]
    suppressions: dict[str, str]
    goals: dict[UUID, str]
    complaints: dict[UUID, datetime]
    sent: dict[UUID, list[Message]] = field(default_factory=dict)

    @classmethod
    def read(cls, session: Session, shop: Shop, kind: ChannelKind, rows: Sequence[Row[Any]], now: datetime) -> Known:
        """Of due actions of one channel. Locks their customers' consents against a concurrent unsubscribe."""
        people = people_of(session, shop.id, {row.customer_id for row in rows})
        everybody = list(people.values())
        terms = _terms(session, shop, {row.strategy_id for row in rows})
        known = cls(
            shop=shop,
            kind=kind,
            now=now,
            people=people,
            terms=terms,
            consents=_consents(session, shop.id, kind, everybody),
            suppressions=_suppressions(session, shop.id, kind, everybody),
            goals=_goals(session, shop, rows, people, now),
            complaints=_complaints(session, shop.id, everybody),
        )
        known.sent = _sent(session, known, rows)
        return known

    def verdict(self, row: Row[Any]) -> Verdict:
        """Whether this action may go now; one that may counts for those asked about after it."""
        person, terms = self.people.get(row.customer_id), self.terms[row.strategy_id]
        address = address_of(self.kind, person) if person else None
        message = self._message(row)
        is_marketing = row.topic == "marketing"
        verdict = judge(
            Situation(
                held_out=row.held_out,
                is_customer_known=person is not None,
                is_strategy_ended=terms.is_ended,
                is_unapproved=row.is_unapproved,
                has_prerequisite_failed=row.after_action is not None and row.before_state != "sent",
                goal_reached=self.goals.get(row.id),
                is_stale=row.stale_at is not None and row.stale_at <= message.moment,
                is_address_missing=self.kind.address is not None and not address,
                suppression=self.suppressions.get(address) if address else None,
                has_consent=not self.kind.needs_consent or person is None
                or is_consented(self.consents.get((person.id, row.topic)), row.topic),
                has_complained=is_marketing and person is not None
                and self._has_complained(person, terms, row.decided_at, message.moment),
                quiet=self._quiet(row) if is_marketing and person is not None and self.kind.is_message else None,
                is_capped=self._is_capped(row, terms, message),
            )
        )  # fmt: skip
        if verdict.happening in ("claimed", "trapped") and self._counts(row):
            self.sent[row.customer_id].append(message)
        return verdict

    def due_again(self, row: Row[Any]) -> datetime:
        """The first moment (shop time) at which no quiet hours forbid it."""
        moment, zone = moment_of(self.shop, row.due_at, self.now), self._zone(row)
        for _ in range(8):  # the end of one may fall into another
            later = moment
            for quiet in self.terms[row.strategy_id].quiet:
                later = next_allowed(later, zone, quiet)
            if later == moment:
                break
            moment = later
        return moment

    def _quiet(self, row: Row[Any]) -> Literal["delay", "skip"] | None:
        moment, zone = moment_of(self.shop, row.due_at, self.now), self._zone(row)
        found = [quiet for quiet in self.terms[row.strategy_id].quiet if is_quiet(moment, zone, quiet)]
        if not found:
            return None
        return "skip" if any(quiet.otherwise == "skip" for quiet in found) else "delay"

    def _zone(self, row: Row[Any]) -> str:
        return self.people[row.customer_id].time_zone or self.shop.time_zone

    def _has_complained(self, person: Person, terms: Terms, decided_at: datetime, moment: datetime) -> bool:
        last = self.complaints.get(person.id)
        return last is not None and (last > decided_at or last > moment - terms.complaint_cooldown)

    def _message(self, row: Row[Any]) -> Message:
        moment = moment_of(self.shop, row.due_at, self.now)
        return Message(row.id, moment, row.channel, frozenset(row.tags), row.strategy_id)

    def _is_capped(self, row: Row[Any], terms: Terms, message: Message) -> bool:
        """Caps are about marketing: a receipt or a reset link is never held back, nor counted."""
        asked = self.kind.is_message and row.topic == "marketing" and row.held_back
        return asked and is_capped(terms.caps, message, self.sent[row.customer_id])

    def _counts(self, row: Row[Any]) -> bool:
        return self.kind.is_message and row.topic == "marketing" and row.counted


# -- people -------------------------------------------------------------------------------------------------------

_PEOPLE = """
WITH RECURSIVE chain AS (
  SELECT c.id AS asked, c.id, c.merged_into, 0 AS depth FROM customers c WHERE c.shop_id = :shop AND c.id = ANY(:ids)
  UNION ALL
  SELECT chain.asked, c.id, c.merged_into, chain.depth + 1
  FROM chain CROSS JOIN LATERAL (
    SELECT * FROM customers c WHERE c.shop_id = :shop AND c.id = chain.merged_into LIMIT 1) c
  WHERE chain.merged_into IS NOT NULL AND chain.depth < 100
)
SELECT chain.asked, c.id, c.external_id, c.email, c.phone, c.first_name, c.last_name, c.locale, c.time_zone,
  c.shopify_id, c.random_key
FROM chain CROSS JOIN LATERAL (SELECT * FROM customers c WHERE c.shop_id = :shop AND c.id = chain.id LIMIT 1) c
WHERE chain.merged_into IS NULL
"""


def people_of(session: Session, shop_id: UUID, ids: set[UUID]) -> dict[UUID, Person]:
    """By the id the action names; somebody merged since is the person they became."""
    rows = session.execute(text(_PEOPLE), {"shop": shop_id, "ids": list(ids)})
    return {
        row.asked: Person(
            row.id,
            row.external_id,
            row.email,
            row.phone,
            row.first_name,
            row.last_name,
            row.locale,
            row.time_zone,
            row.shopify_id,
            row.random_key,
        )  # fmt: skip
        for row in rows
    }


def _consents(
    session: Session, shop_id: UUID, kind: ChannelKind, people: Sequence[Person]
) -> dict[tuple[UUID, str], str]:
    """Locked FOR SHARE: an unsubscribe that has not committed yet waits for this claim, and the next claim sees it."""
    if not kind.needs_consent:
        return {}
    rows = session.execute(
        text(
            "SELECT customer_id, topic, state FROM consents WHERE shop_id = :shop AND customer_id = ANY(:ids)"
            " AND channel = :channel ORDER BY customer_id, topic FOR SHARE"
        ),
        {"shop": shop_id, "ids": [person.id for person in people], "channel": kind.name},
    )
    return {(row.customer_id, row.topic): row.state for row in rows}


def _suppressions(session: Session, shop_id: UUID, kind: ChannelKind, people: Sequence[Person]) -> dict[str, str]:
    addresses = [address for person in people if (address := address_of(kind, person))]
    if not addresses:
        return {}
    rows = session.execute(
        text(
            "SELECT address, reason FROM suppressions"
            " WHERE shop_id = :shop AND channel = :channel AND address = ANY(:addresses)"
        ),
        {"shop": shop_id, "channel": kind.name, "addresses": addresses},
    )
    return {row.address: row.reason for row in rows}


def _complaints(session: Session, shop_id: UUID, people: Sequence[Person]) -> dict[UUID, datetime]:
    """When each last complained of a message."""
    rows = session.execute(
        text(
            "SELECT customer_id, max(occurred_at) AS last FROM timeline WHERE shop_id = :shop"
            " AND customer_id = ANY(:ids) AND type = 'email.complained' GROUP BY customer_id"
        ),
        {"shop": shop_id, "ids": [person.id for person in people]},
    )
    return {row.customer_id: row.last for row in rows}


_GOALS = """
SELECT w.action_id, w.type FROM unnest(CAST(:actions AS uuid[]), CAST(:customers AS uuid[]), CAST(:types AS text[]),
  CAST(:since AS timestamptz[]), CAST(:until AS timestamptz[])) AS w (action_id, customer_id, type, since, until)
WHERE CASE WHEN w.type = 'order.paid' THEN EXISTS (
    SELECT 1 FROM orders o WHERE o.shop_id = :shop AND o.customer_id = w.customer_id
      AND o.ordered_at > w.since AND o.ordered_at <= w.until AND o.cancelled_at IS NULL)
  ELSE EXISTS (
    SELECT 1 FROM timeline t WHERE t.shop_id = :shop AND t.customer_id = w.customer_id
      AND t.occurred_at > w.since AND t.occurred_at <= w.until AND t.type = w.type) END
"""


def _goals(
    session: Session, shop: Shop, rows: Sequence[Row[Any]], people: dict[UUID, Person], now: datetime
) -> dict[UUID, str]:
    """Which `exit_on` event has followed the decision, by action."""
    asked = [
        (row.id, people[row.customer_id].id, type_, row.decided_at, moment_of(shop, row.due_at, now))
        for row in rows
        if row.customer_id in people
        for type_ in row.exit_on
    ]
    if not asked:
        return {}
    columns = list(zip(*asked, strict=True))
    found = session.execute(
        text(_GOALS),
        {
            "shop": shop.id,
            "actions": list(columns[0]),
            "customers": list(columns[1]),
            "types": list(columns[2]),
            "since": list(columns[3]),
            "until": list(columns[4]),
        },
    )
    return {row.action_id: row.type for row in found}


# -- limits -------------------------------------------------------------------------------------------------------

_LIMITED = ("caps", "quiet_hours", "complaint_cooldown")
_TERMS = (
    "SELECT id, state, jsonb_strip_nulls(jsonb_build_object("  # noqa: S608 - names of ours
    + ", ".join(f"'{name}', definition -> '{name}'" for name in _LIMITED)
    + ")) AS limits FROM strategies WHERE shop_id = :shop AND id = ANY(:ids)"
)


def _terms(session: Session, shop: Shop, strategy_ids: set[UUID]) -> dict[UUID, Terms]:
    everywhere = parse_shop(shop.settings)
    caps = shop_caps(shop.settings, everywhere.caps)
    rows = session.execute(text(_TERMS), {"shop": shop.id, "ids": list(strategy_ids)})
    return {row.id: _terms_of(row, everywhere, caps) for row in rows}


def _terms_of(row: Row[Any], everywhere: ShopLimits, caps: tuple[Cap, ...]) -> Terms:
    own = parse_limits(Node(row.limits))
    said = [own.complaint_cooldown] if "complaint_cooldown" in row.limits or not everywhere.complaint_cooldown else []
    cooldown = max([*said, everywhere.complaint_cooldown or timedelta(0)])
    quiet = tuple(one for one in (everywhere.quiet_hours, own.quiet_hours) if one is not None)
    return Terms(row.state == "archived", (*caps, *own.caps), quiet, cooldown)


# a claimed message counts from the moment it was claimed for: that may be days after it was due
_SENT = """
SELECT a.id, a.customer_id, a.channel, a.tags, a.strategy_id, COALESCE(a.sent_at, a.claimed_at, a.due_at) AS moment
FROM actions a
WHERE a.shop_id = :shop AND a.customer_id = ANY(:customers) AND a.topic = 'marketing' AND a.counted
  AND a.channel = ANY(:channels)
  AND (a.state IN ('sent', 'sending', 'unknown', 'parked') OR (a.state = 'ready' AND a.maybe_sent))
  AND COALESCE(a.sent_at, a.claimed_at, a.due_at) > :since
"""


def _sent(session: Session, known: Known, rows: Sequence[Row[Any]]) -> dict[UUID, list[Message]]:
    """Messages that went, or may have gone, to each customer, as far back as any cap looks."""
    found: dict[UUID, list[Message]] = {row.customer_id: [] for row in rows}
    caps = [
        cap
        for row in rows
        if row.topic == "marketing" and row.held_back
        for cap in known.terms[row.strategy_id].caps
        if cap.channel in (None, known.kind.name)
    ]
    if not caps or not known.kind.is_message:
        return found
    since = min(moment_of(known.shop, row.due_at, known.now) for row in rows) - max(cap.window for cap in caps)
    channels = MESSAGES if any(cap.channel is None for cap in caps) else [known.kind.name]
    values = {"shop": known.shop.id, "customers": list(found), "channels": channels, "since": since}
    for row in session.execute(text(_SENT), values):
        message = Message(row.id, row.moment, row.channel, frozenset(row.tags), row.strategy_id)
        found[row.customer_id].append(message)
    return found
