"""Taking due actions: everything is checked again at that moment, and the claim is committed before anything is called.

Claims of one shop and channel queue up behind an advisory lock, so a frequency cap is exact; the consent rows of the
claimed are locked against a concurrent unsubscribe: whichever commits first is what counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.store import outbox
from operation_agent.store.shops import Shop

from . import budget
from .catalogue import CHANNELS, Cap, ChannelKind
from .catalogue import caps as caps_of
from .checks import Situation, Verdict, judge
from .rendering import Person
from .states import TERMINAL, Core, after, money

LEASE = timedelta(seconds=60)
TOPIC = "actions.deliver"

DUE = """
FROM actions a
JOIN strategies s ON s.shop_id = a.shop_id AND s.id = a.strategy_id
LEFT JOIN actions b ON b.shop_id = a.shop_id AND b.id = a.after_action
WHERE a.shop_id = :shop AND a.state = 'ready' AND a.due_at <= :now AND (a.retry_at IS NULL OR a.retry_at <= :at)
  AND s.state <> 'paused' AND (a.after_action IS NULL OR b.state = ANY(:terminal))
"""
"""The due actions of a shop: `now` is shop time, `at` system time, `terminal` the states that end a wait."""

_CANDIDATES = f"""
SELECT a.id, a.customer_id, a.type, a.topic, a.parameters, a.held_out, a.dedupe_key, a.due_at, a.decided_at,
  a.exit_on, a.fence, a.attempt, a.maybe_sent, a.cost_minor, s.state AS strategy_state,
  s.definition -> 'caps' AS caps,
  a.after_action, b.state AS before_state, b.result AS before_result
{DUE} AND a.channel = :channel
ORDER BY a.due_at, a.dedupe_key LIMIT :limit FOR UPDATE OF a SKIP LOCKED
"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """An action that is ours to send until `lease_until`. `moment` is shop time."""

    id: UUID
    fence: int
    attempt: int
    type: str
    dedupe_key: str
    parameters: dict[str, Any]
    person: Person
    address: str | None
    moment: datetime
    coupon: dict[str, Any]
    cost_minor: int
    maybe_sent: bool
    lease_until: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """`claimed` are to be sent; `ended` are the trapped, suppressed and cancelled that were settled right here."""

    claimed: list[Claimed] = field(default_factory=list)
    ended: int = 0

    @property
    def taken(self) -> int:
        return len(self.claimed) + self.ended


def moment_of(shop: Shop, due_at: datetime, now: datetime) -> datetime:
    """The shop time an action counts as done at.

    A sandbox's clock jumps; it plays as though every action had been punctual, so a replay gives the same figures.
    """
    return due_at if shop.sandbox else now


def claim(session: Session, shop: Shop, channel: str, *, limit: int, at: datetime, lease: timedelta = LEASE) -> Claim:
    """Take up to `limit` due actions of `channel`; `at` is system time. The caller commits before it sends."""
    now = at + shop.clock_offset
    session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended('deliver:' || :shop || :channel, 0))"),
        {"shop": str(shop.id), "channel": channel},
    )
    rows = session.execute(
        text(_CANDIDATES),
        {"shop": shop.id, "channel": channel, "now": now, "at": at, "terminal": list(TERMINAL), "limit": limit},
    ).all()
    if not rows:
        return Claim()
    kind = CHANNELS[channel]
    people = people_of(session, shop.id, {row.customer_id for row in rows})
    verdicts = _verdicts(session, shop, kind, rows, people, now)
    claimed = []
    for row in rows:
        if verdicts[row.id].happening == "claimed":
            claimed.append(_claimed(shop, kind, row, people[row.customer_id], now, at + lease))
    _write_claims(session, shop.id, claimed, at, lease)
    _write_ends(session, shop, rows, verdicts, at, now)
    return Claim(claimed, len(rows) - len(claimed))


def _claimed(shop: Shop, kind: ChannelKind, row: Row[Any], person: Person, now: datetime, until: datetime) -> Claimed:
    return Claimed(
        id=row.id,
        fence=row.fence + 1,
        attempt=row.attempt + 1,
        type=row.type,
        dedupe_key=row.dedupe_key,
        parameters=row.parameters,
        person=person,
        address=address_of(kind, person),
        moment=moment_of(shop, row.due_at, now),
        coupon=row.before_result or {},
        cost_minor=row.cost_minor,
        maybe_sent=row.maybe_sent,
        lease_until=until,
    )


def address_of(kind: ChannelKind, person: Person) -> str | None:
    return None if kind.address is None else getattr(person, kind.address)


# -- what is known at this moment ---------------------------------------------------------------------------------

_PEOPLE = """
WITH RECURSIVE chain AS (
  SELECT c.id AS asked, c.id, c.merged_into, 0 AS depth FROM customers c WHERE c.shop_id = :shop AND c.id = ANY(:ids)
  UNION ALL
  SELECT chain.asked, c.id, c.merged_into, chain.depth + 1
  FROM chain JOIN customers c ON c.shop_id = :shop AND c.id = chain.merged_into WHERE chain.depth < 100
)
SELECT chain.asked, c.id, c.external_id, c.email, c.phone, c.first_name, c.last_name, c.locale
FROM chain JOIN customers c ON c.shop_id = :shop AND c.id = chain.id WHERE chain.merged_into IS NULL
"""


def people_of(session: Session, shop_id: UUID, ids: set[UUID]) -> dict[UUID, Person]:
    """By the id the action names; somebody merged since is the person they became."""
    rows = session.execute(text(_PEOPLE), {"shop": shop_id, "ids": list(ids)})
    return {
        row.asked: Person(row.id, row.external_id, row.email, row.phone, row.first_name, row.last_name, row.locale)
        for row in rows
    }


def _verdicts(
    session: Session, shop: Shop, kind: ChannelKind, rows: Sequence[Row[Any]], people: dict[UUID, Person], now: datetime
) -> dict[UUID, Verdict]:
    known = list(people.values())
    consents = _consents(session, shop.id, kind, known)
    suppressions = _suppressions(session, shop.id, kind, known)
    goals = _goals(session, shop, rows, people, now)
    caps = {row.id: caps_of(shop.settings, kind.name, row.caps) if _counts(kind, row) else [] for row in rows}
    recent = _recent(session, shop, kind, rows, [cap.window for found in caps.values() for cap in found], now)
    verdicts = {}
    for row in rows:
        person = people.get(row.customer_id)
        address = address_of(kind, person) if person else None
        moment = moment_of(shop, row.due_at, now)
        verdict = judge(
            Situation(
                held_out=row.held_out,
                is_customer_known=person is not None,
                is_strategy_ended=row.strategy_state == "archived",
                has_prerequisite_failed=row.after_action is not None and row.before_state != "sent",
                goal_reached=goals.get(row.id),
                is_address_missing=kind.address is not None and not address,
                consent=consents.get((person.id, row.topic)) if person else None,
                needs_consent=kind.needs_consent,
                suppression=suppressions.get(address) if address else None,
                is_capped=_is_capped(caps[row.id], recent[row.customer_id], moment),
            )
        )
        if verdict.happening in ("claimed", "trapped") and _counts(kind, row):
            recent[row.customer_id].append(moment)
        verdicts[row.id] = verdict
    return verdicts


def _counts(kind: ChannelKind, row: Row[Any]) -> bool:
    """Caps are about marketing: a receipt or a reset link is never held back, nor counted."""
    return kind.is_message and row.topic == "marketing"


def _is_capped(caps: Sequence[Cap], messages: Sequence[datetime], moment: datetime) -> bool:
    return any(sum(moment - cap.window < at <= moment for at in messages) >= cap.count for cap in caps)


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


_RECENT = """
SELECT a.customer_id, COALESCE(a.sent_at, a.due_at) AS moment FROM actions a
WHERE a.shop_id = :shop AND a.customer_id = ANY(:customers) AND a.channel = :channel
  AND a.topic = 'marketing' AND a.state IN ('sent', 'sending', 'unknown', 'parked')
  AND COALESCE(a.sent_at, a.due_at) > :since
"""


def _recent(
    session: Session,
    shop: Shop,
    kind: ChannelKind,
    rows: Sequence[Row[Any]],
    windows: Sequence[timedelta],
    now: datetime,
) -> dict[UUID, list[datetime]]:
    """When messages went, or may have gone, to each customer, as far back as any cap looks."""
    found: dict[UUID, list[datetime]] = {row.customer_id: [] for row in rows}
    if windows:
        since = min(moment_of(shop, row.due_at, now) for row in rows) - max(windows)
        parameters = {"shop": shop.id, "channel": kind.name, "customers": list(found), "since": since}
        for row in session.execute(text(_RECENT), parameters):
            found[row.customer_id].append(row.moment)
    return found


# -- what is written ----------------------------------------------------------------------------------------------

_CLAIM = """
WITH c AS (
  UPDATE actions a SET state = 'sending', attempt = a.attempt + 1, fence = a.fence + 1, lease_until = :until,
    retry_at = NULL, reason = NULL
  WHERE a.shop_id = :shop AND a.id = ANY(:ids) AND a.state = 'ready'
  RETURNING a.id, a.attempt, a.fence
)
INSERT INTO attempts (shop_id, action_id, number, fence, started_at)
SELECT :shop, id, attempt, fence, :at FROM c
"""


def _write_claims(session: Session, shop_id: UUID, claimed: Sequence[Claimed], at: datetime, lease: timedelta) -> None:
    if claimed:
        session.execute(
            text(_CLAIM), {"shop": shop_id, "ids": [one.id for one in claimed], "until": at + lease, "at": at}
        )


_END = """
UPDATE actions a SET state = r.state, reason = r.reason, sent_at = r.sent_at,
  cost_minor = CASE WHEN r.state = 'sent' THEN 0 ELSE a.cost_minor END
FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:reasons AS text[]), CAST(:sent AS timestamptz[]))
  AS r (id, state, reason, sent_at)
WHERE a.shop_id = :shop AND a.id = r.id AND a.state = 'ready'
"""


def _write_ends(
    session: Session,
    shop: Shop,
    rows: Sequence[Row[Any]],
    verdicts: dict[UUID, Verdict],
    at: datetime,
    now: datetime,
) -> None:
    """Settle those that are not sent: the held out in the trap, the rest with their reason and their money back."""
    ends = []
    for row in rows:
        verdict = verdicts[row.id]
        if verdict.happening != "claimed":
            core = Core("ready", row.fence, row.attempt, row.maybe_sent)
            state = after(core, verdict.happening).state
            sent_at = moment_of(shop, row.due_at, now) if state == "sent" else None
            ends.append((row.id, state, verdict.reason, sent_at))
    if not ends:
        return
    ids, states, reasons, sent = (list(column) for column in zip(*ends, strict=True))
    session.execute(text(_END), {"shop": shop.id, "ids": ids, "states": states, "reasons": reasons, "sent": sent})
    released = [id_ for id_, state, *_ in ends if money(state) is not None]
    budget.finish(session, shop.id, released, "release", at=at)
    wake_followers(session, shop.id, ids, at=at)


def wake_followers(session: Session, shop_id: UUID, action_ids: Sequence[UUID], *, at: datetime) -> None:
    """Ring for the actions that waited for these."""
    channels = session.execute(
        text(
            "SELECT DISTINCT channel FROM actions"
            " WHERE shop_id = :shop AND after_action = ANY(:ids) AND state = 'ready'"
        ),
        {"shop": shop_id, "ids": list(action_ids)},
    ).scalars()
    outbox.ring(session, shop_id, [(TOPIC, channel) for channel in channels], at=at)
