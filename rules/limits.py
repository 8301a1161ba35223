"""The limits within which a strategy acts, as its definition writes them. A shop's own settings have the same form.

All windows roll: they are spans of shop time that end now, not calendar days.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import time, timedelta
from decimal import Decimal
from typing import Any, Literal

from . import duration


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `count` messages to one customer within any `window`. What counts: those of `channel` (None: of every
    channel) that carry `tag` (None: whatever they carry); with `own` only this strategy's, else the whole shop's.
    Transactional messages neither count nor are held back."""

    channel: str | None
    count: int
    window: timedelta
    tag: str | None = None
    own: bool = False

    def to_dict(self) -> dict[str, Any]:
        named = {key: value for key, value in (("channel", self.channel), ("tag", self.tag)) if value is not None}
        own = {"scope": "strategy"} if self.own else {}
        return {**named, "count": self.count, "window": duration.write(self.window), **own}


@dataclass(frozen=True, slots=True)
class Capping:
    """How a strategy's messages stand to caps: whether caps hold them back, and whether caps count them."""

    held_back: bool = True
    counted: bool = True


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From `start` to `end` (over midnight, when end <= start) of the customer's own time zone (the shop's where it is
    not known) no message goes out: it is delayed to `end`, or skipped."""

    start: time
    end: time
    otherwise: Literal["delay", "skip"] = "delay"


@dataclass(frozen=True, slots=True)
class Budget:
    """`limit` in units of `currency`; without one, of the shop's. `daily`: at most so much committed a day of the
    shop's calendar; `per_customer`: at most so much for one customer, ever."""

    limit: Decimal
    currency: str | None = None
    daily: Decimal | None = None
    per_customer: Decimal | None = None


@dataclass(frozen=True, slots=True)
class CouponLimits:
    """At most `count` coupons for one customer in `window`, of all strategies (fatigue). Unless `stacking`, no coupon
    while one that is neither redeemed nor expired is still out."""

    count: int | None = None
    window: timedelta = timedelta(days=30)
    stacking: bool = False


@dataclass(frozen=True, slots=True)
class Approval:
    """When people must say yes before anything goes out: for these action `types`, above these sizes. `approvers`
    different people, none of them its author; what is not approved within `expires_in` is dropped."""

    types: tuple[str, ...] = ()
    audience_above: int | None = None
    percent_above: float | None = None
    cost_above: Decimal | None = None
    approvers: int = 1
    expires_in: timedelta = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class Limits:
    """Everything above, of one strategy. `exclusive`: a group of strategies of which a customer takes one at a time (a
    customer with a step still to come, or an assignment within `exclusive_for`, belongs to the one it is in).
    `executions_per_day`: at most so many decisions to act a day of the shop's calendar. `complaint_cooldown`: nothing
    to who complained within that span. `stale_after`: a message that could not go out so long after it was due is
    dropped."""

    caps: tuple[Cap, ...] = ()
    capping: Capping = field(default_factory=Capping)
    quiet_hours: QuietHours | None = None
    budget: Budget | None = None
    coupons: CouponLimits = field(default_factory=CouponLimits)
    approval: Approval | None = None
    exclusive: str | None = None
    exclusive_for: timedelta = timedelta(days=7)
    executions_per_day: int | None = None
    complaint_cooldown: timedelta = timedelta(days=90)
    stale_after: timedelta = timedelta(days=2)
    tags: tuple[str, ...] = ()
