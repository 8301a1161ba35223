"""What a rule asks of a customer and of its shop, worked out once per rule and call: every arm taken together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from operation_agent.strategies.live import LiveRule
from rules import duration, offer
from rules.limits import UNLIMITED, Approval, Cap, QuietHours, ShopLimits
from rules.program import Arm, Branch, Delay, Placed, Wait, walk, walk_tree
from rules.step import Step

from . import guardrails, receipt
from .history import Coupon

ADDRESSES = {"email": "email", "sms": "phone"}
"""The customer's column that each channel writes to; any other channel needs none."""


@dataclass(frozen=True, slots=True)
class Timed:
    """An action of an arm and how many seconds after the decision it is due at the earliest. `is_sure`: exactly then;
    otherwise a time of day, a date or a wait lies before it."""

    placed: Placed
    offset: float
    is_sure: bool

    @property
    def is_capped(self) -> bool:
        """Whether caps look at it: marketing messages only."""
        return self.placed.step.is_message and self.placed.step.topic == "marketing"


def timed(arm: Arm) -> list[Timed]:
    """Every action of the arm in reading order, with when it is due at the earliest; ways of a fork both count."""
    passed, is_sure, found = timedelta(0), True, []
    for path, step in walk_tree(arm.steps):
        if isinstance(step, Step):
            passed += step.delay
            found.append(Timed(arm.places[path], passed.total_seconds(), is_sure))
        elif isinstance(step, Delay) and step.span is not None:
            passed += step.span
        elif isinstance(step, Delay | Wait | Branch):
            is_sure = False
    return found


@dataclass(frozen=True, slots=True)
class Demands:
    """`topics`: (channel, topic) of every message; `tags` of the strategy come with each step's own. `caps` as
    guardrails.cap reads them, none where they do not hold this strategy back; `coupon_limits` as guardrails.coupon
    reads them. `is_exempt`: only transactional messages and nothing else. `quiet`: hours in which a message is skipped.
    `seen`: the columns whose values a receipt keeps. By arm, `messages` are those that caps look at, with channel and
    tags, and `coupons` those it gives, each with how many seconds it can be used."""

    arms: tuple[Arm, ...]
    actions: tuple[tuple[Timed, ...], ...]
    channels: tuple[str, ...]
    topics: tuple[tuple[str, str], ...]
    tags: tuple[str, ...]
    is_exempt: bool
    caps: tuple[Mapping[str, Any], ...]
    is_counted: bool
    quiet: tuple[QuietHours, ...]
    coupon_limits: tuple[Mapping[str, Any], ...]
    stacking: bool
    cooldown: float
    approvals: tuple[Needed, ...]
    seen: tuple[str, ...]
    messages: tuple[tuple[tuple[Timed, str, tuple[str, ...]], ...], ...]
    coupons: tuple[tuple[tuple[Timed, float], ...], ...]

    @classmethod
    def of(cls, **parts: Any) -> Demands:
        """With what follows from the other parts."""
        tags: tuple[str, ...] = parts["tags"]
        messages, coupons = [], []
        for actions in parts["actions"]:
            capped = (one for one in actions if one.is_capped)
            messages.append(tuple((one, one.placed.step.channel, _tags(one.placed.step, tags)) for one in capped))
            coupons.append(tuple((one, _use(one)) for one in actions if one.placed.step.action == "coupon"))
        return cls(**parts, messages=tuple(messages), coupons=tuple(coupons))

    def coupons_from(self, arm: int, at: float, strategy_id: UUID) -> list[Coupon]:
        """The coupons that an arm will give when it begins at `at` (seconds since 1970)."""
        return [
            Coupon(at + one.offset, at + one.offset + use, strategy_id, one.placed.step.parameters.get("offer"))
            for one, use in self.coupons[arm]
        ]

    @property
    def offer(self) -> str | None:
        """What every coupon of every arm is of, where that is one offer; None otherwise."""
        named = {one.placed.step.parameters.get("offer") for listed in self.coupons for one, _ in listed}
        return named.pop() if len(named) == 1 else None

    def due(self, arm: int, one: Timed, at: datetime, zone: str, properties: Mapping[str, Any]) -> float:
        """When an action is due, as far as can be told now; in seconds since 1970."""
        if not one.is_sure:
            walked = walk(self.arms[arm], "0", at, zone, properties)
            for due in walked.due:
                if due.placed.number == one.placed.number:
                    return due.due_at.timestamp()
        return at.timestamp() + one.offset


@dataclass(frozen=True, slots=True)
class Needed:
    """When people must say yes to an action, by the shop's settings or the strategy's definition (`of`). `cost_above`
    in minor units; `prices` tell how deep a coupon is."""

    of: str
    types: frozenset[str]
    percent_above: float | None
    cost_above: int | None
    approvers: int
    expires_in: float
    prices: offer.Prices

    def why(self, arm: Arm, costs: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Every reason the actions of an arm give, each at what it may cost: {rule, limit, found, of}."""
        for placed, cost in zip(arm.places.values(), costs, strict=True):
            step = placed.step
            if step.action in self.types:
                yield {"rule": "types", "limit": sorted(self.types), "found": step.action, "of": self.of}
            percent = offer.depth(step.parameters, self.prices) if step.action == "coupon" else 0.0
            if self.percent_above is not None and percent > self.percent_above:
                yield {"rule": "percent_above", "limit": self.percent_above, "found": percent, "of": self.of}
            if self.cost_above is not None and cost > self.cost_above:
                yield {"rule": "cost_above", "limit": self.cost_above, "found": cost, "of": self.of}


_kept: OrderedDict[int, tuple[LiveRule, tuple[Any, ...], Demands]] = OrderedDict()
KEPT = 4096


def demands_of(live: LiveRule, shop: ShopLimits, settings: Mapping[str, Any], currency_digits: int) -> Demands:
    """As `demands`, remembered for as long as the rule is live and the shop's limits stay."""
    prices = offer.Prices.of(settings, currency_digits)
    terms = (shop, (settings.get("approval") or {}).get("above_minor"), prices)
    known = _kept.get(id(live))
    if known is not None and known[0] is live and known[1] == terms:
        return known[2]
    made = demands(live, shop, settings, currency_digits)
    _kept[id(live)] = (live, terms, made)  # which holds the rule, so that its identity is nobody else's
    if len(_kept) > KEPT:
        _kept.popitem(last=False)
    return made


def demands(live: LiveRule, shop: ShopLimits, settings: Mapping[str, Any], currency_digits: int) -> Demands:
    """What a live rule asks, within its strategy's limits and the shop's. `currency_digits` of the shop's currency."""
    limits, arms = live.strategy.limits, live.rule.arms
    actions = tuple(tuple(timed(arm)) for arm in arms)
    messages = [one.placed.step for arm in actions for one in arm if one.placed.step.is_message]
    silent = any(not one.placed.step.is_message for arm in actions for one in arm)
    quiet = tuple(one for one in (limits.quiet_hours, shop.quiet_hours) if one is not None and one.otherwise == "skip")
    chosen = limits.coupons if limits.coupons != UNLIMITED.coupons else shop.coupons or limits.coupons
    fatigue = [one for one in (limits.coupons, shop.coupons) if one is not None and one.count is not None]
    cooldown = max(limits.complaint_cooldown, shop.complaint_cooldown or timedelta(0))
    if limits.complaint_cooldown == UNLIMITED.complaint_cooldown and shop.complaint_cooldown is not None:
        cooldown = shop.complaint_cooldown  # the strategy says nothing of its own
    return Demands.of(
        arms=arms,
        actions=actions,
        channels=tuple(sorted({step.channel for step in messages})),
        topics=tuple(sorted({(step.channel, step.topic) for step in messages})),
        tags=limits.tags,
        is_exempt=bool(messages) and not silent and all(step.topic != "marketing" for step in messages),
        caps=_caps(limits.caps, shop.caps) if limits.capping.held_back else (),
        is_counted=limits.capping.counted,
        quiet=quiet,
        coupon_limits=tuple({"count": one.count, "window": one.window.total_seconds()} for one in fatigue),
        stacking=chosen.stacking,
        cooldown=cooldown.total_seconds(),
        seen=tuple(name for name, _ in receipt.fields(live.rule.condition)),
        approvals=_approvals(limits.approval, shop.approval, settings, currency_digits),
    )


def _caps(*several: Sequence[Cap]) -> tuple[Mapping[str, Any], ...]:
    found = []
    for cap in (one for caps in several for one in caps):
        named = {"channel": cap.channel, "tag": cap.tag, "own": cap.own}
        written = {name: value for name, value in named.items() if value}
        found.append({**written, "count": cap.count, "window": cap.window.total_seconds()})
    return tuple(found)


def _approvals(
    own: Approval | None, shop: Approval | None, settings: Mapping[str, Any], currency_digits: int
) -> tuple[Needed, ...]:
    prices = offer.Prices.of(settings, currency_digits)
    older = (settings.get("approval") or {}).get("above_minor")  # the older way to write a cost, the shop's only
    found = []
    for of, one in (("shop", shop), ("strategy", own)):
        if one is not None:
            costs = [int(one.cost_above * 10**currency_digits)] if one.cost_above is not None else []
            costs += [int(older)] if older is not None and of == "shop" else []
            spans = one.approvers, one.expires_in.total_seconds()
            found.append(Needed(of, frozenset(one.types), one.percent_above, min(costs, default=None), *spans, prices))
    return tuple(found)


def _tags(step: Step, strategy: Sequence[str]) -> tuple[str, ...]:
    """Its own and its strategy's."""
    return (*step.tags, *(tag for tag in strategy if tag not in step.tags))


def _use(one: Timed) -> float:
    """For how many seconds a coupon can be used."""
    return duration.parse(str(one.placed.step.parameters.get("expires_in", "P14D"))).total_seconds()


def may_skip(wanted: Demands, arm: int, at: float, messages: Sequence[Sequence[Any]]) -> list[int]:
    """The numbers of an arm's later messages that would be one too many when they are due, as it looks now: they are
    judged when they are sent, and the customer moves on. `messages` as guardrails.cap reads them."""
    known, found = list(messages), []
    for position, (one, channel, tags) in enumerate(wanted.messages[arm]):
        message = [at + one.offset, channel, tags, True]
        if position > 0 and guardrails.cap({"caps": wanted.caps, "first": [message], "messages": known}):
            found.append(one.placed.number)
        else:
            known.append(message)
    return found
