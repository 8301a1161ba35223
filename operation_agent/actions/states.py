"""What may become of an action: the whole state machine, pure.

Unknown is a state: a call whose answer was lost is neither sent nor failed. `fence` counts claims, so a result
that arrives after its lease was given to somebody else is recognised; `maybe_sent` remembers that an earlier
attempt may have reached somebody, and then money and the action are never simply let go.

TRANSITIONS is the only place that says what follows what; the executor's and reconciler's UPDATEs take their
`state IN (...)` from `sources`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from operation_agent.kit.errors import Conflict

State = Literal[
    "waiting_approval", "ready", "sending", "sent", "unknown",
    "suppressed", "over_budget", "failed", "cancelled", "parked",
]  # fmt: skip

Happening = Literal[
    "approved",  # a person said yes
    "claimed",  # a worker took it, committed, and is about to call
    "trapped",  # held out: it ends here, without a call
    "sent",  # the provider has it
    "refused",  # the provider provably did nothing; later it may
    "failed",  # refused for good, or too often
    "lost",  # time-out, reset, 5xx after the request left, or the lease ran out
    "found",  # the provider says it was done, or an event proves it
    "absent",  # the provider says it was not done
    "repeatable",  # the provider takes the same key again without doing it twice
    "given_up",  # nobody can tell: a person must look
    "suppressed",  # consent, suppression or a cap forbids it now
    "cancelled",  # the goal was reached, the strategy ended, a person said no
]

TRANSITIONS: dict[tuple[State, Happening], State] = {
    ("waiting_approval", "approved"): "ready",
    ("waiting_approval", "cancelled"): "cancelled",
    ("ready", "claimed"): "sending",
    ("ready", "trapped"): "sent",
    ("ready", "suppressed"): "suppressed",
    ("ready", "cancelled"): "cancelled",
    ("ready", "failed"): "failed",
    # the answer came after the reconciler had already decided: proof beats inference
    ("ready", "sent"): "sent",
    ("ready", "given_up"): "parked",
    ("sending", "sent"): "sent",
    ("sending", "refused"): "ready",
    ("sending", "failed"): "failed",
    ("sending", "lost"): "unknown",
    ("sending", "given_up"): "parked",
    ("unknown", "sent"): "sent",
    ("unknown", "found"): "sent",
    ("unknown", "absent"): "ready",
    ("unknown", "repeatable"): "ready",
    ("unknown", "failed"): "failed",
    ("unknown", "given_up"): "parked",
    ("parked", "sent"): "sent",
    ("parked", "found"): "sent",
    ("parked", "absent"): "ready",
    ("parked", "cancelled"): "cancelled",
}

TERMINAL: frozenset[State] = frozenset({"sent", "suppressed", "over_budget", "failed", "cancelled"})
"""`parked` is not terminal: a person, or a late event of the provider, still settles it."""

DROPS: frozenset[Happening] = frozenset({"suppressed", "cancelled", "failed"})
COMMITS: frozenset[State] = frozenset({"sent"})
RELEASES: frozenset[State] = frozenset({"suppressed", "failed", "cancelled", "over_budget"})


@dataclass(frozen=True, slots=True)
class Core:
    """The part of an action that the machine is about."""

    state: State
    fence: int = 0
    attempt: int = 0
    maybe_sent: bool = False


def sources(happening: Happening) -> list[State]:
    """The states in which `happening` means something, for an UPDATE's compare-and-set."""
    return [state for (state, what) in TRANSITIONS if what == happening]


def after(core: Core, happening: Happening, *, fence: int | None = None) -> Core:
    """The action after `happening`. `fence` is the claim a result belongs to; omitted when a person or the sweep acts.

    An action that may have reached somebody is never dropped silently: what would suppress, cancel or fail it
    parks it instead, money still reserved. Raises Conflict when the machine does not allow it, or the claim is old.
    """
    if fence is not None and fence != core.fence:
        raise Conflict(f"a result of claim {fence} came for an action at claim {core.fence}", code="stale_claim")
    kept = core.maybe_sent and core.state in ("ready", "sending") and happening in DROPS
    target = TRANSITIONS.get((core.state, "given_up" if kept else happening))
    if target is None:
        raise Conflict(f"an action that is {core.state} cannot be {happening}", code="state")
    if happening == "claimed":
        return replace(core, state=target, fence=core.fence + 1, attempt=core.attempt + 1)
    if happening == "lost":
        return replace(core, state=target, maybe_sent=True)
    if happening == "absent":
        return replace(core, state=target, maybe_sent=False)
    return replace(core, state=target)


def money(state: State) -> Literal["commit", "release"] | None:
    """What happens to the reservation of an action that reached `state`; None: it stays reserved."""
    if state in COMMITS:
        return "commit"
    return "release" if state in RELEASES else None
