"""Which of the proposed strategies to run together: the best expected profit that money and patience allow.

Pure. A binary program, solved exactly by scipy's MILP (HiGHS): one variable an option; at most one option of a slot
(the same template in the same cluster, in several depths); the spend of all within the budget; the messages that a
customer of a cluster gets from all of its options within what a customer bears. What is left out is told with the
reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Why = Literal["loses_money", "better_variant", "budget", "messages", "too_many", "running"]


@dataclass(frozen=True, slots=True)
class Option:
    """`slot`: what it is a variant of. `profit`, and `spend` (what it commits of the budget), in minor units over the
    horizon; `messages`: how many one customer of `cluster` gets in it."""

    key: str
    slot: str
    cluster: str
    profit: float
    spend: float
    messages: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """`budget` in minor units over the horizon (None: no bound), `messages` a customer, `strategies` at most."""

    budget: float | None
    messages: float
    strategies: int


@dataclass(frozen=True, slots=True)
class LeftOut:
    """`detail` in plain numbers and keys: what was needed, what was there, or who was better."""

    key: str
    why: Why
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Portfolio:
    """`chosen` in the order of their profit. `profit` and `spend` are the sums."""

    chosen: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    profit: float
    spend: float


def choose(options: Sequence[Option], bounds: Bounds) -> Portfolio:
    """The most profitable feasible set. Raises ValueError when two options share a key."""
    if len({one.key for one in options}) < len(options):
        raise ValueError("two options with the same key")
    # by key, so that of two sets of the same worth the same one is found whatever order they come in
    earning = sorted((one for one in options if one.profit > 0), key=lambda one: one.key)
    chosen = [one for one, taken in zip(earning, _solve(earning, bounds), strict=True) if taken]
    chosen.sort(key=lambda one: (-one.profit, one.key))
    names = {one.key for one in chosen}
    left = tuple(_left_out(one, chosen, bounds) for one in options if one.key not in names)
    return Portfolio(
        tuple(one.key for one in chosen), left, sum(one.profit for one in chosen), sum(one.spend for one in chosen)
    )


def _solve(options: Sequence[Option], bounds: Bounds) -> list[bool]:
    if not options:
        return []
    import numpy as np
    from scipy.optimize import Bounds as Box
    from scipy.optimize import LinearConstraint, milp

    rows, limits = [np.ones(len(options))], [float(bounds.strategies)]
    for slot in sorted({one.slot for one in options}):
        rows.append(np.array([float(one.slot == slot) for one in options]))
        limits.append(1.0)
    for cluster in sorted({one.cluster for one in options}):
        rows.append(np.array([one.messages * (one.cluster == cluster) for one in options]))
        limits.append(bounds.messages)
    if bounds.budget is not None:
        rows.append(np.array([one.spend for one in options]))
        limits.append(bounds.budget)
    result = milp(
        c=-np.array([one.profit for one in options]),
        integrality=np.ones(len(options)),
        bounds=Box(0, 1),
        constraints=LinearConstraint(np.array(rows), ub=np.array(limits)),
        options={"mip_rel_gap": 0.0},
    )
    if result.x is None:  # the empty set is always feasible: only a solver that gave up comes here
        raise RuntimeError(f"the portfolio could not be solved: {result.message}")
    return [bool(value > 0.5) for value in result.x]


def _left_out(option: Option, chosen: Sequence[Option], bounds: Bounds) -> LeftOut:
    if option.profit <= 0:
        return LeftOut(option.key, "loses_money", {"profit_minor": round(option.profit)})
    rival = next((one for one in chosen if one.slot == option.slot), None)
    # without its rival it might still not fit: then the variant is not what stood in its way
    others = [one for one in chosen if one is not rival]
    if bounds.budget is not None:
        left = bounds.budget - sum(one.spend for one in others)
        if option.spend > left:
            detail = {"needed_minor": round(option.spend), "left_minor": round(left)}
            return LeftOut(option.key, "budget", detail)
    used = sum(one.messages for one in others if one.cluster == option.cluster)
    if used + option.messages > bounds.messages:
        return LeftOut(option.key, "messages", {"needed": option.messages, "left": bounds.messages - used})
    if rival is not None:
        return LeftOut(option.key, "better_variant", {"rival": rival.key, "profit_minor": round(rival.profit)})
    return LeftOut(option.key, "too_many", {"most": bounds.strategies})
