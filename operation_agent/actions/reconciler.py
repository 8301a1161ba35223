"""Unknown outcomes: ask the provider, never send again on a guess.

A provider that can be asked (`queryable`) says done or not done, after a settle delay; one that takes the same key
twice (`keyed`) is simply asked again; an `opaque` one leaves the action to a person (`parked`), money still reserved.
A provider's own event (`email.delivered`) settles it at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, Row, text
from sqlalchemy.orm import Session

from operation_agent.kit.clock import SYSTEM, Clock
from operation_agent.kit.errors import Rejected
from operation_agent.store import outbox
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop

from .catalogue import CHANNELS
from .channel import Channel, NotSent, Outcome, Sent, Unknown
from .claimed import Claimed
from .claiming import TOPIC
from .executor import TIMEOUT, complete, delivery_of, sender_of
from .marking import Proof, mark_sent
from .recording import MOST_ATTEMPTS, SETTLE, close, settle_sent
from .rendering import Person
from .situations import address_of, moment_of, people_of
from .states import sources
from .unsubscribe import Links

MOST_LOOKUPS = 12
_LOOKUP_LEASE = timedelta(seconds=60)


def expire_leases(session: Session, shop_id: UUID, *, at: datetime, settle: timedelta = SETTLE) -> int:
    """Whoever claimed these is gone, or too slow: `unknown`, never straight back to `ready`. `at` is system time."""
    expired = session.execute(
        text(
            """
            WITH late AS (
              UPDATE actions SET state = 'unknown', maybe_sent = true, reason = 'the lease ran out', lease_until = NULL,
                retry_at = :retry
              WHERE shop_id = :shop AND state = 'sending' AND lease_until < :at RETURNING id, attempt
            ), closed AS (
              UPDATE attempts t SET finished_at = :at, outcome = 'unknown', detail = 'the lease ran out'
              FROM late WHERE t.shop_id = :shop AND t.action_id = late.id AND t.number = late.attempt
                AND t.finished_at IS NULL
            )
            SELECT count(*) FROM late
            """
        ),
        {"shop": shop_id, "at": at, "retry": at + settle},
    )
    return int(expired.scalar_one())


@dataclass(frozen=True, slots=True)
class Doubt:
    """An unknown action that is being asked about."""

    claimed: Claimed
    lookups: int


_TAKE = """
UPDATE actions a SET retry_at = :until, lookups = a.lookups + 1
FROM (SELECT id FROM actions WHERE shop_id = :shop AND channel = :channel AND state = 'unknown' AND retry_at <= :at
      ORDER BY retry_at LIMIT :limit FOR UPDATE SKIP LOCKED) due
LEFT JOIN actions x ON x.shop_id = :shop AND x.id = due.id
LEFT JOIN actions b ON b.shop_id = :shop AND b.id = x.after_action
WHERE a.shop_id = :shop AND a.id = due.id
RETURNING a.id, a.customer_id, a.type, a.parameters, a.dedupe_key, a.due_at, a.fence, a.attempt, a.cost_minor,
  a.maybe_sent, a.lookups, a.claimed_at, b.result AS before_result
"""


def _take(session: Session, shop: Shop, channel: str, *, limit: int, at: datetime) -> list[Doubt]:
    rows = session.execute(
        text(_TAKE),
        {"shop": shop.id, "channel": channel, "at": at, "until": at + _LOOKUP_LEASE, "limit": limit},
    ).all()
    people = people_of(session, shop.id, {row.customer_id for row in rows})
    return [_doubt(shop, channel, row, people.get(row.customer_id), at) for row in rows]


def _doubt(shop: Shop, channel: str, row: Row[Any], person: Person | None, at: datetime) -> Doubt:
    # somebody erased meanwhile: the provider can still be asked by the action's id
    person = person or Person(row.customer_id, None, None, None, None, None, None)
    claimed = Claimed(
        id=row.id,
        fence=row.fence,
        attempt=row.attempt,
        type=row.type,
        dedupe_key=row.dedupe_key,
        parameters=row.parameters,
        person=person,
        address=address_of(CHANNELS[channel], person),
        moment=row.claimed_at or moment_of(shop, row.due_at, at + shop.clock_offset),
        coupon=row.before_result or {},
        cost_minor=row.cost_minor,
        maybe_sent=row.maybe_sent,
        lease_until=at + _LOOKUP_LEASE,
    )
    return Doubt(claimed, row.lookups)


def reconcile(
    engine: Engine,
    shop: Shop,
    channel_name: str,
    channel: Channel,
    links: Links,
    pool: ThreadPoolExecutor,
    *,
    limit: int = 64,
    clock: Clock = SYSTEM,
) -> int:
    """Settle what is due of one channel; returns how many were looked at."""
    with for_shop(engine, shop.id) as session:
        doubts = _take(session, shop, channel_name, limit=limit, at=clock.now())
    if not doubts:
        return 0
    sender = sender_of(shop, links)

    def ask(doubt: Doubt) -> Outcome:
        try:
            delivery = delivery_of(sender, doubt.claimed, TIMEOUT)
        except Rejected as error:
            return Unknown(error.detail)
        return complete(channel.find(delivery), doubt.claimed, delivery)

    answers = list(pool.map(ask, doubts)) if channel.capability == "queryable" else [Unknown("not asked")] * len(doubts)
    with for_shop(engine, shop.id) as session:
        _settle(session, shop, channel, list(zip(doubts, answers, strict=True)), clock.now())
    return len(doubts)


def _settle(
    session: Session, shop: Shop, channel: Channel, answers: Sequence[tuple[Doubt, Outcome]], at: datetime
) -> None:
    proofs = [
        Proof(doubt.claimed.id, doubt.claimed.fence, answer.provider_ref, answer.result, doubt.claimed.moment, None)
        for doubt, answer in answers
        if isinstance(answer, Sent)
    ]
    sent = mark_sent(session, shop, channel.name, "found", proofs)
    changes = [_next(doubt, answer, channel, at) for doubt, answer in answers if not isinstance(answer, Sent)]
    moved = _write(session, shop.id, changes)
    close(session, shop.id, sent=sent, failed=[row.id for row in moved if row.state == "failed"], at=at)
    outbox.ring(session, shop.id, {(TOPIC, row.channel) for row in moved if row.state == "ready"}, at=at)


def _next(doubt: Doubt, answer: Outcome, channel: Channel, at: datetime) -> tuple:
    """(id, fence, state, reason, retry_at, maybe_sent) of an action that was not found."""
    action = doubt.claimed
    if channel.capability == "keyed":
        return action.id, action.fence, "ready", "asked again under the same key", None, True
    if isinstance(answer, NotSent):
        if action.attempt >= MOST_ATTEMPTS:
            reason = f"gave up after {action.attempt} attempts: {answer.reason}"
            return action.id, action.fence, "failed", reason, None, False
        return action.id, action.fence, "ready", answer.reason, None, False
    assert isinstance(answer, Unknown)
    if channel.capability == "opaque" or doubt.lookups >= MOST_LOOKUPS:
        return action.id, action.fence, "parked", answer.reason, None, True
    wait = min(timedelta(hours=1), max(channel.settle, timedelta(seconds=1)) * 2 ** min(doubt.lookups, 12))
    return action.id, action.fence, "unknown", answer.reason, at + wait, True


def _write(session: Session, shop_id: UUID, changes: Sequence[tuple]) -> Sequence[Row[Any]]:
    """Returns (id, state, channel) of those still in doubt until now."""
    if not changes:
        return []
    ids, fences, states, reasons, retries, maybe = (list(column) for column in zip(*changes, strict=True))
    return session.execute(
        text(
            """
            UPDATE actions a SET state = r.state, reason = r.reason, retry_at = r.retry_at, maybe_sent = r.maybe_sent
            FROM unnest(CAST(:ids AS uuid[]), CAST(:fences AS bigint[]), CAST(:states AS text[]),
              CAST(:reasons AS text[]), CAST(:retries AS timestamptz[]), CAST(:maybe AS boolean[]))
              AS r (id, fence, state, reason, retry_at, maybe_sent)
            WHERE a.shop_id = :shop AND a.id = r.id AND a.fence = r.fence AND a.state = ANY(:sources)
            RETURNING a.id, a.state, a.channel
            """
        ),
        {
            "shop": shop_id,
            "sources": [state for state in sources("absent") if state == "unknown"],
            "ids": ids,
            "fences": fences,
            "states": states,
            "reasons": reasons,
            "retries": retries,
            "maybe": maybe,
        },
    ).all()


@dataclass(frozen=True, slots=True)
class Evidence:
    """A provider's own event about an action (delivered, opened, …): it was sent. `seen_at` is shop time."""

    action_id: UUID
    provider_ref: str | None
    seen_at: datetime


def accept_evidence(session: Session, shop: Shop, provider: str, evidence: Sequence[Evidence], *, at: datetime) -> int:
    """Settle unknown or parked actions that a provider's event proves sent; others are left alone."""
    if not evidence:
        return 0
    rows = session.execute(
        text(
            "SELECT id, due_at, claimed_at, result FROM actions"
            " WHERE shop_id = :shop AND id = ANY(:ids) AND state IN ('unknown', 'parked') FOR UPDATE"
        ),
        {"shop": shop.id, "ids": [one.action_id for one in evidence]},
    )
    seen = {one.action_id: one for one in evidence}
    proofs = []
    for row in rows:
        one = seen[row.id]
        sent_at = row.claimed_at or moment_of(shop, row.due_at, one.seen_at)
        proofs.append(Proof(row.id, None, one.provider_ref, row.result, sent_at, None))
    return settle_sent(session, shop, provider, "found", proofs, at=at)
