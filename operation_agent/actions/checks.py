"""What must still be true at the moment of sending, as pure functions: held-out customers are asked the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from rules.limits import Cap

from .states import Happening


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known of one due action when it is about to be claimed."""

    held_out: bool
    is_customer_known: bool
    is_strategy_ended: bool
    is_unapproved: bool  # it needs people's yes, and never had it
    has_prerequisite_failed: bool
    goal_reached: str | None  # the event type of `exit_on` that followed the decision
    is_stale: bool
    is_address_missing: bool
    suppression: str | None  # why the address is suppressed
    has_consent: bool  # or needs none
    has_complained: bool  # lately, or since the decision
    quiet: Literal["delay", "skip"] | None  # what the quiet hours that it is now ask for
    is_capped: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """`happening` None: not now; it is looked at again when it is due anew."""

    happening: Happening | None
    reason: str | None = None


def judge(now: Situation) -> Verdict:
    """Go ahead ('claimed', or 'trapped' for the held out), or why not. The first reason in this order is given."""
    if not now.is_customer_known:
        return Verdict("cancelled", "customer_erased")
    return _cancels(now) or _suppresses(now) or Verdict("trapped" if now.held_out else "claimed")


def _cancels(now: Situation) -> Verdict | None:
    if now.is_strategy_ended:
        return Verdict("cancelled", "strategy_ended")
    if now.goal_reached is not None:
        return Verdict("cancelled", "goal_reached")
    if now.has_prerequisite_failed:
        return Verdict("cancelled", "prerequisite_failed")
    return None


def _suppresses(now: Situation) -> Verdict | None:
    if now.is_unapproved:
        return Verdict("suppressed", "not_approved")
    if now.is_stale:
        return Verdict("suppressed", "stale")
    if now.is_address_missing:
        return Verdict("suppressed", "no_address")
    if now.suppression is not None:
        return Verdict("suppressed", f"suppressed:{now.suppression}")
    if not now.has_consent:
        return Verdict("suppressed", "no_consent")
    if now.has_complained:
        return Verdict("suppressed", "complained")
    if now.quiet is not None:
        return Verdict("suppressed", "quiet") if now.quiet == "skip" else Verdict(None, "quiet")
    return Verdict("suppressed", "capped") if now.is_capped else None


# -- frequency caps -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Message:
    """A marketing message that went, or may have gone, or is about to go, at `moment` (shop time)."""

    action_id: UUID
    moment: datetime
    channel: str
    tags: frozenset[str]
    strategy_id: UUID


def is_capped(caps: Iterable[Cap], message: Message, others: Sequence[Message]) -> bool:
    """Whether some cap's window that contains `message` is full of the `others` that this cap counts.

    Windows reach forward too: where messages are not tried in the order of their moments (retries, a sandbox's
    jumping clock), the later one may be there already.
    """
    return any(_is_full(cap, message, others) for cap in caps if _concerns(cap, message))


def _concerns(cap: Cap, message: Message) -> bool:
    return cap.channel in (None, message.channel) and (cap.tag is None or cap.tag in message.tags)


def _is_full(cap: Cap, message: Message, others: Sequence[Message]) -> bool:
    near = [
        one.moment
        for one in others
        if one.action_id != message.action_id
        and abs(one.moment - message.moment) < cap.window
        and _concerns(cap, one)
        and (not cap.own or one.strategy_id == message.strategy_id)
    ]
    return len(near) >= cap.count and fullest(near, message.moment, cap.window) >= cap.count


def fullest(times: Sequence[datetime], moment: datetime, window: timedelta) -> int:
    """The most of `times` in any half-open window (end - window, end] that contains `moment`.

    Some fullest window ends at `moment` or at one of the times after it.
    """
    ends = [moment, *(end for end in times if moment < end < moment + window)]
    return max(sum(end - window < one <= end for one in times) for end in ends)
