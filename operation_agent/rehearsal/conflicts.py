"""Other live rules that would take the same customers, and why that matters: the same channel within a cap's window,
the same exclusive group, a second coupon. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operation_agent.store.shops import Shop
from operation_agent.strategies.live import LiveRule
from rules import duration
from rules.limits import Cap, parse_shop

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Conflict:
    """`customers` whom both rules match. `other` as '<strategy>/<rule>'. `why`: {why: 'messages', channel, count,
    window} (a cap that counts messages of both; without count and window: no cap counts them), {why: 'exclusive',
    group}, {why: 'coupons'}."""

    rule: str
    other: str
    customers: int
    why: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        return {"rule": self.rule, "other": self.other, "customers": self.customers, "why": list(self.why)}


class Meeting:
    """Counts, part by part, whom each of our rules has in common with each of the others."""

    def __init__(self, shop: Shop, ours: Sequence[LiveRule], others: Sequence[LiveRule]):
        caps = parse_shop(shop.settings).caps
        self._pairs = {
            (i, j): why
            for i, one in enumerate(ours)
            for j, other in enumerate(others)
            if (why := tuple(reasons(one, other, caps)))
        }
        self._ours, self._others = ours, others
        self._counts = dict.fromkeys(self._pairs, 0)

    def count(self, ours: Sequence[Mask], others: Sequence[Mask]) -> None:
        for i, j in self._pairs:
            self._counts[i, j] += int((ours[i] & others[j]).sum())

    def conflicts(self) -> list[Conflict]:
        """The largest first; only where there is somebody."""
        found = [
            Conflict(self._ours[i].rule.key, self._others[j].key, self._counts[i, j], why)
            for (i, j), why in self._pairs.items()
            if self._counts[i, j]
        ]
        return sorted(found, key=lambda one: (-one.customers, one.rule, one.other))


def reasons(one: LiveRule, other: LiveRule, shop_caps: Sequence[Cap]) -> Iterator[dict[str, Any]]:
    """Why two rules of different strategies get into each other's way when they take the same customer."""
    caps = [cap for cap in (*one.strategy.caps, *other.strategy.caps, *shop_caps) if not cap.own]
    for channel in sorted(_channels(one) & _channels(other)):
        counted = [cap for cap in caps if cap.channel in (None, channel)]
        if not counted:
            yield {"why": "messages", "channel": channel}
        for cap in sorted(set(counted), key=lambda cap: (cap.window, cap.count)):
            yield {"why": "messages", "channel": channel, "count": cap.count, "window": duration.write(cap.window)}
    group = one.strategy.limits.exclusive
    if group is not None and group == other.strategy.limits.exclusive:
        yield {"why": "exclusive", "group": group}
    if _gives(one) and _gives(other):
        yield {"why": "coupons"}


def _channels(live: LiveRule) -> set[str]:
    steps = [placed.step for arm in live.rule.arms for placed in arm.places.values()]
    return {step.channel for step in steps if step.is_message and step.topic == "marketing"}


def _gives(live: LiveRule) -> bool:
    return any(placed.step.action == "coupon" for arm in live.rule.arms for placed in arm.places.values())
