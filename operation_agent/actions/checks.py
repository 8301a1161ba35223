"""What must still be true at the moment of sending, as one pure function: held-out customers are asked the same."""

from __future__ import annotations

from dataclasses import dataclass

from .states import Happening


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known of one due action when it is about to be claimed."""

    held_out: bool
    is_customer_known: bool
    is_strategy_ended: bool
    has_prerequisite_failed: bool
    goal_reached: str | None  # the event type of `exit_on` that followed the decision
    is_address_missing: bool
    consent: str | None  # 'subscribed', 'unsubscribed', None: never said; only asked where the channel needs it
    needs_consent: bool
    suppression: str | None  # why the address is suppressed
    is_capped: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    happening: Happening
    reason: str | None = None


def judge(now: Situation) -> Verdict:
    """Go ahead ('claimed', or 'trapped' for the held out), or why not. The first reason in this order is given."""
    if not now.is_customer_known:
        return Verdict("cancelled", "customer_erased")
    if now.is_strategy_ended:
        return Verdict("cancelled", "strategy_ended")
    if now.goal_reached is not None:
        return Verdict("cancelled", "goal_reached")
    if now.has_prerequisite_failed:
        return Verdict("cancelled", "prerequisite_failed")
    if now.is_address_missing:
        return Verdict("suppressed", "no_address")
    if now.suppression is not None:
        return Verdict("suppressed", f"suppressed:{now.suppression}")
    if now.needs_consent and now.consent != "subscribed":
        return Verdict("suppressed", "no_consent")
    if now.is_capped:
        return Verdict("suppressed", "capped")
    return Verdict("trapped" if now.held_out else "claimed")
