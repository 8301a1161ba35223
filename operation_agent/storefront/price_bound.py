"""How far a price may be moved at once. Pure: values in, values out.

Values are as a preview of `product.price` has them: variant id -> {price, compare_at, cost}, decimal text in the shop's
currency; `cost` is what the shop says that one costs, where it says it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from operation_agent.kit.errors import Rejected

DEFAULT = Decimal("0.30")
SETTING = "price_bound"
MEMORY = timedelta(days=30)
"""How far back several changes of one price count as one."""

Values = Mapping[str, Mapping[str, Any]]


def bound_of(settings: Mapping[str, Any]) -> Decimal:
    """The share by which a price may go up or down at once."""
    return Decimal(str(settings.get(SETTING, DEFAULT)))


def largest_move(before: Values, after: Values) -> Decimal:
    """The largest relative change of one price, 0.1 for ten per cent; infinite from a price of nothing."""
    moves = [_move(Decimal(before[one]["price"]), Decimal(after[one]["price"])) for one in after]
    return max(moves, default=Decimal(0))


def _move(old: Decimal, new: Decimal) -> Decimal:
    if old == new:
        return Decimal(0)
    return abs(new - old) / old if old else Decimal("Infinity")


def first_known(before: Values, earlier: Sequence[Values]) -> Values:
    """What each price was before the oldest of the `earlier` changes that had it, else what it is now."""
    known: dict[str, Mapping[str, Any]] = {}
    for values in earlier:
        for variant, offer in values.items():
            known.setdefault(variant, offer)
    return {variant: known.get(variant, offer) for variant, offer in before.items()}


def check(before: Values, after: Values, bound: Decimal) -> None:
    """Raises Rejected for a price that moves further than `bound`, is below nothing, or goes below the cost."""
    for variant, values in after.items():
        old, new = Decimal(before[variant]["price"]), Decimal(values["price"])
        if new < 0:
            raise Rejected(f"variant {variant}: a price of {new} is below nothing", code="price_bound", where="price")
        move = _move(old, new)
        if move > bound:
            told = f"{move:.1%}" if move.is_finite() else "from nothing"
            raise Rejected(
                f"variant {variant}: {old} to {new} is a change of {told}, beyond the bound of {bound:.1%}"
                f" (the shop's setting {SETTING})",
                code="price_bound",
                where=f"variants.{variant}.price",
            )
        _check_cost(variant, old, new, before[variant].get("cost"))


def _check_cost(variant: str, old: Decimal, new: Decimal, cost: str | None) -> None:
    if cost is not None and new < old and new < Decimal(cost):
        raise Rejected(
            f"variant {variant}: {new} is below what it costs, {cost}",
            code="below_cost",
            where=f"variants.{variant}.price",
        )


def needs_a_person(before: Values, after: Values, bound: Decimal) -> bool:
    """Whether it moves a price by more than half of what is allowed: then it waits for a person's apply."""
    return largest_move(before, after) > bound / 2
