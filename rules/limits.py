"""The limits within which a strategy acts, as its definition writes them. A shop's own settings have the same form.

All windows roll: they are spans of shop time that end now, not calendar days.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import time, timedelta
from decimal import Decimal
from typing import Any, Literal

from . import duration
from .moments import read_clock
from .offer import money as amount
from .step import ACTIONS, read_tags
from .tree import Node

Written = dict[str, Any]


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

    def to_dict(self) -> Written:
        return {"held_back": self.held_back, "counted": self.counted}


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From `start` to `end` (over midnight, when end <= start) of the customer's own time zone (the shop's where it is
    not known) no message goes out: it is delayed to `end`, or skipped."""

    start: time
    end: time
    otherwise: Literal["delay", "skip"] = "delay"

    def to_dict(self) -> Written:
        return {"start": f"{self.start:%H:%M}", "end": f"{self.end:%H:%M}", "otherwise": self.otherwise}


@dataclass(frozen=True, slots=True)
class Budget:
    """`limit` in units of `currency`; without one, of the shop's. `daily`: at most so much committed a day of the
    shop's calendar; `per_customer`: at most so much for one customer, ever."""

    limit: Decimal
    currency: str | None = None
    daily: Decimal | None = None
    per_customer: Decimal | None = None

    def to_dict(self) -> Written:
        currency = {"currency": self.currency} if self.currency else {}
        parts = (("daily", self.daily), ("per_customer", self.per_customer))
        return {"limit": str(self.limit), **currency, **{name: str(one) for name, one in parts if one is not None}}


@dataclass(frozen=True, slots=True)
class CouponLimits:
    """At most `count` coupons for one customer in `window`, of all strategies (fatigue). Unless `stacking`, no coupon
    while one that is neither redeemed nor expired is still out."""

    count: int | None = None
    window: timedelta = timedelta(days=30)
    stacking: bool = False

    def to_dict(self) -> Written:
        fatigue = {"count": self.count, "window": duration.write(self.window)} if self.count is not None else {}
        return {**fatigue, "stacking": self.stacking}


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

    def to_dict(self) -> Written:
        cost = None if self.cost_above is None else str(self.cost_above)
        sizes = (("audience_above", self.audience_above), ("percent_above", self.percent_above), ("cost_above", cost))
        return {
            **({"types": list(self.types)} if self.types else {}),
            **{name: value for name, value in sizes if value is not None},
            "approvers": self.approvers,
            "expires_in": duration.write(self.expires_in),
        }


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

    def to_dict(self) -> Written:
        """Flat, as a strategy writes them; what stands as it would without being said is left out, `caps` apart."""
        written: Written = {"caps": [cap.to_dict() for cap in self.caps]}
        for name in ("capping", "quiet_hours", "budget", "coupons", "approval"):
            value = getattr(self, name)
            if value != getattr(UNLIMITED, name):
                written[name] = value.to_dict()
        for name in ("exclusive_for", "complaint_cooldown", "stale_after"):
            if getattr(self, name) != getattr(UNLIMITED, name):
                written[name] = duration.write(getattr(self, name))
        plain = {"exclusive": self.exclusive, "executions_per_day": self.executions_per_day}
        tags = {"tags": list(self.tags)} if self.tags else {}
        return written | {name: value for name, value in plain.items() if value is not None} | tags


UNLIMITED = Limits()
"""What counts for a strategy that says nothing."""

KEYS = (
    "caps", "capping", "quiet_hours", "budget", "coupons", "approval", "exclusive", "exclusive_for",
    "executions_per_day", "complaint_cooldown", "stale_after", "tags",
)  # fmt: skip
"""The keys of a strategy that hold its limits."""


@dataclass(frozen=True, slots=True)
class ShopLimits:
    """What a shop's settings say for all of its strategies; None where they say nothing."""

    caps: tuple[Cap, ...] = ()
    quiet_hours: QuietHours | None = None
    coupons: CouponLimits | None = None
    approval: Approval | None = None
    complaint_cooldown: timedelta | None = None


def parse_limits(node: Node) -> Limits:
    """Read the limits among a strategy's keys. Raises RuleError, naming the path at fault."""
    daily, tags, group = node.get("executions_per_day"), node.get("tags"), node.get("exclusive")
    quiet, capping, budget = node.get("quiet_hours"), node.get("capping"), node.get("budget")
    coupons, approval = node.get("coupons"), node.get("approval")
    if group is None and node.get("exclusive_for") is not None:
        raise node.need("exclusive_for").fail("goes with `exclusive`, the name of the group")
    return Limits(
        caps=_caps(node.get("caps")),
        capping=_capping(capping) if capping else Capping(),
        quiet_hours=_quiet_hours(quiet) if quiet else None,
        budget=_budget(budget) if budget else None,
        coupons=_coupons(coupons) if coupons else CouponLimits(),
        approval=_approval(approval) if approval else None,
        exclusive=group.key() if group else None,
        exclusive_for=_span(node, "exclusive_for", UNLIMITED.exclusive_for),
        executions_per_day=daily.whole(low=1) if daily else None,
        complaint_cooldown=_span(node, "complaint_cooldown", UNLIMITED.complaint_cooldown, least=timedelta(0)),
        stale_after=_span(node, "stale_after", UNLIMITED.stale_after),
        tags=read_tags(tags) if tags is not None else (),
    )


def parse_shop(settings: Mapping[str, Any]) -> ShopLimits:
    """Read the limits among a shop's settings, whose other keys are left alone. Raises RuleError with the path.

    `approval.above_minor`, the older way to write a cost, is the agent's to read: it is in minor units.
    """
    node = Node({**settings})
    quiet, coupons, approval = node.get("quiet_hours"), node.get("coupons"), node.get("approval")
    cooldown = node.get("complaint_cooldown")
    return ShopLimits(
        caps=_caps(node.get("caps")),
        quiet_hours=_quiet_hours(quiet) if quiet else None,
        coupons=_coupons(coupons) if coupons else None,
        approval=_approval(approval, "above_minor") if approval else None,
        complaint_cooldown=cooldown.duration() if cooldown else None,
    )


def _span(node: Node, name: str, default: timedelta, *, least: timedelta = timedelta(seconds=1)) -> timedelta:
    child = node.get(name)
    if child is None:
        return default
    found = child.duration()
    if found < least:
        raise child.fail("a span of no length is not one")
    return found


def _caps(node: Node | None) -> tuple[Cap, ...]:
    if node is None or node.value == []:
        return ()
    channels = sorted({form.channel for form in ACTIONS.values()})
    caps = []
    for one in node.items("caps"):
        one.mapping("channel", "tag", "count", "window", "scope")
        channel, tag, scope = one.get("channel"), one.get("tag"), one.get("scope")
        window = one.need("window").duration()
        if not window:
            raise one.need("window").fail("a window of no length holds nothing")
        caps.append(
            Cap(
                channel=channel.choice(channels) if channel else None,
                count=one.need("count").whole(low=1),
                window=window,
                tag=tag.key() if tag else None,
                own=scope is not None and scope.choice(("shop", "strategy")) == "strategy",
            )
        )
    return tuple(caps)


def _capping(node: Node) -> Capping:
    node.mapping("held_back", "counted")
    held_back, counted = node.get("held_back"), node.get("counted")
    return Capping(held_back.flag() if held_back else True, counted.flag() if counted else True)


def _quiet_hours(node: Node) -> QuietHours:
    node.mapping("start", "end", "otherwise")
    otherwise = node.get("otherwise")
    start, end = read_clock(node.need("start")), read_clock(node.need("end"))
    if start == end:
        raise node.need("end").fail("from one time to the same time is all day; nothing would ever go out")
    chosen = otherwise.choice(("delay", "skip")) if otherwise else "delay"
    return QuietHours(start, end, chosen)  # type: ignore[arg-type]


def _budget(node: Node) -> Budget:
    node.mapping("limit", "currency", "daily", "per_customer")
    currency, daily, each = node.get("currency"), node.get("daily"), node.get("per_customer")
    code = currency.text(longest=3) if currency else None
    if currency is not None and (code is None or len(code) != 3 or not code.isascii() or not code.isupper()):
        raise currency.fail(f"{currency.value!r} is not an ISO 4217 code such as USD")
    budget = Budget(
        limit=amount(node.need("limit")),
        currency=code,
        daily=amount(daily) if daily else None,
        per_customer=amount(each) if each else None,
    )
    for child, part in ((daily, budget.daily), (each, budget.per_customer)):
        if child is not None and part is not None and part > budget.limit:
            raise child.fail(f"{part} is more than the whole limit, {budget.limit}")
    return budget


def _coupons(node: Node) -> CouponLimits:
    node.mapping("count", "window", "stacking")
    count, stacking = node.get("count"), node.get("stacking")
    if count is None and node.get("window") is not None:
        raise node.need("window").fail("goes with `count`")
    return CouponLimits(
        count=count.whole(low=1) if count else None,
        window=_span(node, "window", CouponLimits().window),
        stacking=stacking.flag() if stacking else False,
    )


def _approval(node: Node, *also: str) -> Approval:
    sizes = ("types", "audience_above", "percent_above", "cost_above", *also)
    node.mapping(*sizes, "approvers", "expires_in")
    if all(node.get(name) is None for name in sizes):
        raise node.fail(f"say when a yes is needed: {', '.join(sizes)}")
    types, audience, percent = node.get("types"), node.get("audience_above"), node.get("percent_above")
    cost, approvers = node.get("cost_above"), node.get("approvers")
    listed = types.items("action types") if types is not None and types.value != [] else []
    return Approval(
        types=tuple(one.choice(ACTIONS) for one in listed),
        audience_above=audience.whole(low=0) if audience else None,
        percent_above=float(percent.number(low=0, high=100)) if percent else None,
        cost_above=amount(cost) if cost else None,
        approvers=approvers.whole(low=1, high=10) if approvers else 1,
        expires_in=_span(node, "expires_in", Approval().expires_in),
    )
