"""What is planned in one go: a stretch of an arm from one place to the next wait, branch or end.

A decision opens with a segment; each step forward of its run is another. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from operation_agent.decision import quiet_hours
from operation_agent.decision.facts import Trigger
from operation_agent.store.shops import Shop
from rules.limits import Limits, QuietHours, parse_shop
from rules.program import Due

from . import approving
from .approving import Ruling


@dataclass(frozen=True, slots=True)
class Entry:
    """Who walks through which arm, and why: what every action of one decision shares.

    `key`: of the dedupe keys, to which each action adds its number. `entered_at`: shop time of the decision; `costs` of
    the arm's actions by number (minor units); `zone`: the customer's where it is known, else the shop's.
    `event_received_at`: system time.
    """

    decision_id: UUID
    customer_id: UUID
    strategy_id: UUID
    rule_id: UUID
    rule_key: str
    rule_version: int
    arm: str
    key: str
    held_out: bool
    entered_at: datetime
    exit_on: tuple[str, ...]
    costs: tuple[int, ...]
    zone: str
    product_id: Any = None
    budget_id: UUID | None = None
    event_received_at: datetime | None = None
    run_id: UUID | None = None
    campaign_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Manner:
    """How a strategy's messages go out, within its limits and the shop's. `quiet`: hours to be waited for; `rulings`:
    when people must say yes."""

    quiet: QuietHours | None
    stale_after: timedelta
    tags: tuple[str, ...]
    counted: bool
    held_back: bool
    executions_per_day: int | None
    rulings: tuple[Ruling, ...]

    @classmethod
    def of(cls, limits: Limits, shop: Shop) -> Manner:
        """Raises RuleError when the shop's settings do not read."""
        quiet = limits.quiet_hours or parse_shop(shop.settings).quiet_hours
        return cls(
            quiet=quiet if quiet is not None and quiet.otherwise == "delay" else None,
            stale_after=limits.stale_after,
            tags=limits.tags,
            counted=limits.capping.counted,
            held_back=limits.capping.held_back,
            executions_per_day=limits.executions_per_day,
            rulings=approving.rulings(shop, limits),
        )

    def due_at(self, due: Due, zone: str) -> datetime:
        """When an action goes out: a marketing message not in the quiet hours, as clocks in `zone` show them."""
        step = due.placed.step
        if self.quiet is None or not step.is_message or step.topic != "marketing":
            return due.due_at
        return quiet_hours.next_allowed(due.due_at, zone, self.quiet)


@dataclass(frozen=True, slots=True)
class Segment:
    """Actions of one entry that are planned together, and paid for together. `is_opening`: the decision's first."""

    entry: Entry
    due: tuple[Due, ...]
    manner: Manner
    is_opening: bool = False


def trigger_key(trigger: Trigger) -> str:
    """What set a decision off, the same in every replay."""
    if trigger.event is not None:
        return f"{trigger.event.source}/{trigger.event.source_id}"
    return trigger.at.isoformat()


def entry_key(rule_key: str, version: int, random_key: UUID, trigger: str, arm: str) -> str:
    """Stable over replays, restarts and double deliveries: rule, version, customer, trigger, arm."""
    return f"{rule_key}:{version}:{random_key}:{trigger}:{arm}"


def product_of(properties: Mapping[str, Any]) -> Any:
    """The product that the trigger was about, which messages may show."""
    return properties.get("product_id")
