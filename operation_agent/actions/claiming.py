"""Taking due actions: everything is checked again at that moment, and the claim is committed before anything is called.

Claims of messages of one shop queue up behind an advisory lock, whatever their channel, so that frequency caps are
exact, also those over several channels; the consent rows of the claimed are locked against a concurrent unsubscribe:
whichever commits first is what counts.
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

from . import budget, coupon_codes
from .catalogue import CHANNELS, ChannelKind
from .claimed import Claimed
from .coupon_codes import Settled
from .marking import mark_sent
from .rendering import Person
from .situations import Known, address_of, moment_of
from .states import TERMINAL, Core, Happening, State, after, money

LEASE = timedelta(seconds=60)
TOPIC = "actions.deliver"

DUE_FROM = """
FROM actions a
JOIN strategies s ON s.shop_id = a.shop_id AND s.id = a.strategy_id
LEFT JOIN LATERAL (
  SELECT b.state, b.result FROM actions b WHERE b.shop_id = a.shop_id AND b.id = a.after_action LIMIT 1) b ON true
"""
DUE_WHERE = """
WHERE a.shop_id = :shop AND a.state = 'ready' AND a.due_at <= :now AND (a.retry_at IS NULL OR a.retry_at <= :at)
  AND s.state <> 'paused' AND (a.after_action IS NULL OR b.state = ANY(:terminal))
"""
DUE = DUE_FROM + DUE_WHERE
"""The due actions of a shop. Lateral, so that each looks its predecessor up by id: of a shop that statistics do not
know yet, a planner would join by the shop alone, every row with every other. `now` is shop time, `at` system time,
`terminal` the states that end a wait. That what goes to a provider which refuses everything stays ready is added by
whoever asks: put here as a condition on each action, it would spoil the planner's estimate of how many there are."""

_CANDIDATES = f"""
SELECT a.id, a.customer_id, a.type, a.topic, a.parameters, a.held_out, a.dedupe_key, a.due_at, a.decided_at,
  a.exit_on, a.fence, a.attempt, a.maybe_sent, a.cost_minor, s.state AS strategy_state,
  a.strategy_id, a.channel, a.tags, a.counted, a.held_back, a.stale_at,
  a.approval_id IS NOT NULL AND p.granted_at IS NULL AS is_unapproved,
  a.after_action, b.state AS before_state, b.result AS before_result
{DUE_FROM}
LEFT JOIN LATERAL (
  SELECT p.granted_at FROM approvals p WHERE p.shop_id = a.shop_id AND p.id = a.approval_id LIMIT 1) p ON true
{DUE_WHERE} AND a.channel = :channel
  AND NOT EXISTS (SELECT 1 FROM integrations i
    WHERE i.shop_id = :shop AND i.channel = :channel AND i.enabled AND i.problem IS NOT NULL)
ORDER BY a.due_at, a.dedupe_key LIMIT :limit FOR UPDATE OF a SKIP LOCKED
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Claim:
    """`claimed` are to be sent; `ended` are the trapped, suppressed and cancelled that were settled right here, and the
    coupons whose code was there already; `postponed` fell into quiet hours, or have to wait for a code."""

    claimed: list[Claimed] = field(default_factory=list)
    ended: int = 0
    postponed: int = 0

    @property
    def taken(self) -> int:
        return len(self.claimed) + self.ended + self.postponed


def claim(session: Session, shop: Shop, channel: str, *, limit: int, at: datetime, lease: timedelta = LEASE) -> Claim:
    """Take up to `limit` due actions of `channel`; `at` is system time. The caller commits before it sends."""
    now, kind = at + shop.clock_offset, CHANNELS[channel]
    session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended('deliver:' || :shop || :what, 0))"),
        {"shop": str(shop.id), "what": "messages" if kind.is_message else channel},
    )
    rows = session.execute(
        text(_CANDIDATES),
        {"shop": shop.id, "channel": channel, "now": now, "at": at, "terminal": list(TERMINAL), "limit": limit},
    ).all()
    if not rows:
        return Claim()
    known = Known.read(session, shop, kind, rows, now)
    verdicts = {row.id: known.verdict(row) for row in rows}
    claimed, ends, postponed = [], [], []
    for row in rows:
        verdict, moment = verdicts[row.id], moment_of(shop, row.due_at, now)
        if verdict.happening == "claimed":
            claimed.append(_claimed(kind, row, known.people[row.customer_id], moment, at + lease))
        elif verdict.happening is None:
            postponed.append((row.id, known.due_again(row)))
        else:
            ends.append(_end(row, verdict.happening, verdict.reason, moment))
    settled = coupon_codes.settle(session, shop, claimed) if channel == "coupon" else Settled(claimed)
    refused = dict(settled.refused)
    ends += [_end(row, "failed", refused[row.id], now) for row in rows if row.id in refused]
    _write_claims(session, shop.id, settled.calling, at, lease)
    _write_postponed(session, shop.id, postponed)
    coupon_codes.write_waiting(session, shop.id, settled.waiting, at=at)
    given = mark_sent(session, shop, "", "sent", settled.given)
    _write_ends(session, shop.id, ends, at, given=given, again=settled.again)
    outbox.ring(session, shop.id, [(coupon_codes.FILL, str(pool)) for pool in settled.low], at=at)
    return Claim(settled.calling, len(ends) + len(given), len(postponed) + len(settled.waiting))


def _claimed(kind: ChannelKind, row: Row[Any], person: Person, moment: datetime, until: datetime) -> Claimed:
    return Claimed(
        id=row.id,
        fence=row.fence + 1,
        attempt=row.attempt + 1,
        type=row.type,
        dedupe_key=row.dedupe_key,
        parameters=row.parameters,
        person=person,
        address=address_of(kind, person),
        moment=moment,
        coupon=row.before_result or {},
        cost_minor=row.cost_minor,
        maybe_sent=row.maybe_sent,
        lease_until=until,
    )


@dataclass(frozen=True, slots=True)
class _End:
    """An action that is settled without a call. `sent_at`: of the held out, who are trapped."""

    id: UUID
    state: State
    reason: str | None
    sent_at: datetime | None


def _end(row: Row[Any], happening: Happening, reason: str | None, moment: datetime) -> _End:
    state = after(Core("ready", row.fence, row.attempt, row.maybe_sent), happening).state
    return _End(row.id, state, reason, moment if state == "sent" else None)


# -- what is written ----------------------------------------------------------------------------------------------

_CLAIM = """
WITH c AS (
  UPDATE actions a SET state = 'sending', attempt = a.attempt + 1, fence = a.fence + 1, lease_until = :until,
    retry_at = NULL, reason = NULL, claimed_at = r.moment
  FROM unnest(CAST(:ids AS uuid[]), CAST(:moments AS timestamptz[])) AS r (id, moment)
  WHERE a.shop_id = :shop AND a.id = r.id AND a.state = 'ready'
  RETURNING a.id, a.attempt, a.fence
)
INSERT INTO attempts (shop_id, action_id, number, fence, started_at)
SELECT :shop, id, attempt, fence, :at FROM c
"""


def _write_claims(session: Session, shop_id: UUID, claimed: Sequence[Claimed], at: datetime, lease: timedelta) -> None:
    if claimed:
        ids, moments = [one.id for one in claimed], [one.moment for one in claimed]
        values = {"shop": shop_id, "ids": ids, "moments": moments, "until": at + lease, "at": at}
        session.execute(text(_CLAIM), values)


_POSTPONE = """
UPDATE actions a SET due_at = r.due_at, reason = 'quiet'
FROM unnest(CAST(:ids AS uuid[]), CAST(:due AS timestamptz[])) AS r (id, due_at)
WHERE a.shop_id = :shop AND a.id = r.id AND a.state = 'ready'
"""


def _write_postponed(session: Session, shop_id: UUID, postponed: Sequence[tuple[UUID, datetime]]) -> None:
    if postponed:
        ids, due = (list(column) for column in zip(*postponed, strict=True))
        session.execute(text(_POSTPONE), {"shop": shop_id, "ids": ids, "due": due})


_END = """
UPDATE actions a SET state = r.state, reason = r.reason, sent_at = r.sent_at,
  cost_minor = CASE WHEN r.state = 'sent' THEN 0 ELSE a.cost_minor END
FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:reasons AS text[]), CAST(:sent AS timestamptz[]))
  AS r (id, state, reason, sent_at)
WHERE a.shop_id = :shop AND a.id = r.id AND a.state = 'ready'
"""


def _write_ends(
    session: Session, shop_id: UUID, ends: Sequence[_End], at: datetime, *, given: Sequence[UUID], again: Sequence[UUID]
) -> None:
    """Settle those that are not sent: the held out in the trap, the rest with their reason and their money back. And
    those that were `given` a code here: one that was told `again` was paid for when it was first given."""
    if not ends and not given:
        return
    ids = [one.id for one in ends]
    if ends:
        session.execute(
            text(_END),
            {
                "shop": shop_id,
                "ids": ids,
                "states": [one.state for one in ends],
                "reasons": [one.reason for one in ends],
                "sent": [one.sent_at for one in ends],
            },
        )
    released = [one.id for one in ends if money(one.state) is not None]
    paid = set(given) - set(again)
    budget.finish(session, shop_id, commit=[one for one in given if one in paid], release=[*released, *again], at=at)
    wake_followers(session, shop_id, [*ids, *given], at=at)


def wake_followers(session: Session, shop_id: UUID, action_ids: Sequence[UUID], *, at: datetime) -> None:
    """Ring for the actions that waited for these."""
    if not action_ids:
        return
    channels = session.execute(
        text(
            "SELECT DISTINCT channel FROM actions"
            " WHERE shop_id = :shop AND after_action = ANY(:ids) AND state = 'ready'"
        ),
        {"shop": shop_id, "ids": list(action_ids)},
    ).scalars()
    outbox.ring(session, shop_id, [(TOPIC, channel) for channel in channels], at=at)
