"""What people do with campaigns: start one by hand, pause it, let it go on, cancel it. Each is written down."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.actions import budget
from operation_agent.journeys import leaving
from operation_agent.kit.errors import Conflict, Rejected
from operation_agent.store import audit, outbox
from operation_agent.store.shops import Shop
from operation_agent.strategies import lifecycle
from operation_agent.strategies.live import LiveRule, live_rules

from . import audience as audiences
from . import chunks, records
from .records import FIRST_LANE, TOPIC, Asked, Campaign

AT_ONCE = 5_000
"""Actions that one transaction takes back."""


def start(
    session: Session, shop: Shop, strategy: str, *, audience: dict[str, Any], as_of: datetime | None, by: str,
    at: datetime,
) -> Campaign:  # fmt: skip
    """Run a live strategy (its id or key) over an audience by hand, as of `as_of` (shop time; None: now).

    `at` is system time. Raises NotFound, Conflict when the strategy is not live, Rejected with what to change.
    """
    audiences.read(session, shop.id, audience)
    now = at + shop.clock_offset
    if as_of is not None and as_of > now:
        raise Rejected("a campaign looks at what is known: as_of may not lie ahead of the shop's clock", where="as_of")
    found = lifecycle.find(session, shop.id, strategy)
    if found.state != "live":
        raise Conflict(f"{found.key} is {found.state}; only a live strategy can be run")
    rules = [one for one in live_rules(session, shop.id) if one.strategy_id == found.id and needs_no_event(one)]
    if not rules:
        raise Rejected(
            f"no live rule of {found.key} can be run by hand: each needs the event that sets it off", where="strategy"
        )
    made = records.insert(
        session, shop.id, kind="manual", rules=[Asked(one.rule_id, one.key, found.id, one.version) for one in rules],
        audience=audience, as_of=as_of or now, due_at=now, by=by, at=at,
    )  # fmt: skip
    assert made is not None
    _record(session, shop, made, "started", by, at, {"strategy": found.key, "audience": audience})
    outbox.ring(session, shop.id, [(TOPIC, FIRST_LANE)], at=at)
    return records.find(session, shop.id, made)


def needs_no_event(live: LiveRule) -> bool:
    """Whether a rule can be held against a customer to whom nothing happened just now."""
    return live.rule.when.key is None and not any(name.startswith("event.") for name in live.condition.fields)


def pause(session: Session, shop: Shop, campaign_id: UUID, *, by: str, at: datetime) -> Campaign:
    """Stop at the next chunk. Raises NotFound, Conflict when it is not being worked on."""
    return _move(session, shop, campaign_id, ("preparing", "running"), "paused", by, at, reason=f"paused by {by}")


def resume(session: Session, shop: Shop, campaign_id: UUID, *, by: str, at: datetime) -> Campaign:
    """Go on after a pause or a failure; what is done stays done. Raises NotFound, Conflict."""
    found = records.find(session, shop.id, campaign_id, lock=True)
    chunks.forgive(session, shop.id, campaign_id)
    state = "running" if found.prepared_at is not None else "preparing"
    return _move(session, shop, campaign_id, ("paused", "failed"), state, by, at, reason=None, attempts=0)


def cancel(session: Session, shop: Shop, campaign_id: UUID, *, by: str, at: datetime) -> Campaign:
    """End it. What it planned and nobody sent is taken back; what was sent stays sent. Raises NotFound, Conflict."""
    states = ("preparing", "waiting_approval", "running", "paused", "failed")
    return _move(session, shop, campaign_id, states, "cancelled", by, at, reason=f"cancelled by {by}")


def _move(
    session: Session, shop: Shop, campaign_id: UUID, states: Sequence[str], to: str, by: str, at: datetime,
    **changes: Any,
) -> Campaign:  # fmt: skip
    found = records.find(session, shop.id, campaign_id, lock=True)
    if found.state not in states:
        raise Conflict(f"the campaign is {found.state}; only one that is {' or '.join(states)} can become {to}")
    records.change(session, shop.id, found, at=at, state=to, **changes)
    _record(session, shop, campaign_id, to, by, at, {"from": found.state})
    if to not in ("paused",):
        outbox.ring(session, shop.id, [(TOPIC, FIRST_LANE)], at=at)
    return records.find(session, shop.id, campaign_id)


def _record(
    session: Session, shop: Shop, campaign_id: UUID, what: str, by: str, at: datetime, detail: dict[str, Any]
) -> None:
    audit.record(
        session, shop.id, at=at, actor=by, verb=f"campaign.{what}", subject=f"campaign:{campaign_id}", detail=detail
    )


_TAKE_BACK = text("""
UPDATE actions SET state = 'cancelled', reason = 'its campaign was cancelled'
WHERE shop_id = :shop AND id IN (
  SELECT id FROM actions
  WHERE shop_id = :shop AND campaign_id = :campaign AND state IN ('waiting_approval', 'ready')
  ORDER BY id LIMIT :most FOR UPDATE)
RETURNING id
""")


def take_back(session: Session, shop: Shop, campaign: Campaign, *, at: datetime) -> int:
    """Take out whoever waits on the way a cancelled campaign set them on, cancel the next of its actions that nobody
    has sent, and release their money; how many. With none left the campaign is over. `at` is system time."""
    leaving.exit_campaign(session, shop, campaign.id, reason="campaign_cancelled", at=at)
    ids = list(session.execute(_TAKE_BACK, {"shop": shop.id, "campaign": campaign.id, "most": AT_ONCE}).scalars())
    if ids:
        budget.finish(session, shop.id, release=ids, at=at)
    else:
        records.change(session, shop.id, campaign, at=at, finished_at=at)
    return len(ids)
