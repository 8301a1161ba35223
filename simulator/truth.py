"""What the messages really changed: every customer's days replayed without them. Pure.

Profit is defined as in the agent's ledger: margin rate x price before discount - discount - message costs, and a
refunded order earns nothing. `without one strategy` removes that strategy's messages and leaves the others as they
were; `programme` removes all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .behaviour import REFUND_AFTER, Day, Flags, Floats, Ints, Messages, draws, start, step
from .customers import Shoppers


@dataclass(frozen=True, slots=True)
class Totals:
    """Per shopper, over the whole run: orders, revenue net of refunds, profit, and spend (discounts and messages)."""

    orders: Floats
    revenue: Floats
    profit: Floats
    spend: Floats

    def __sub__(self, other: Totals) -> Totals:
        return Totals(
            self.orders - other.orders,
            self.revenue - other.revenue,
            self.profit - other.profit,
            self.spend - other.spend,
        )

    def summed(self, rows: Flags) -> dict[str, float]:
        return {name: float(getattr(self, name)[rows].sum()) for name in ("orders", "revenue", "profit", "spend")}


@dataclass(frozen=True, slots=True)
class Prices:
    """`message_minor` is the cost of one message, `margin_rate` of the price before discounts."""

    margin_rate: float = 0.4
    message_minor: int = 1


def account(day_totals: Totals, happened: Day, day: int, days: int, prices: Prices) -> Totals:
    """Add one day. An order is given back REFUND_AFTER days later, if that is still within the run."""
    gross, discount = happened.gross_minor, happened.discount_minor
    is_returned = happened.refunded & (day + REFUND_AFTER < days)
    margin = np.rint(prices.margin_rate * gross)
    return Totals(
        day_totals.orders + happened.ordered,
        day_totals.revenue + np.where(is_returned, 0, gross - discount),
        day_totals.profit + np.where(is_returned, 0, margin - discount),
        day_totals.spend + discount,
    )


def nothing(count: int) -> Totals:
    return Totals(*(np.zeros(count) for _ in range(4)))


def replay(shoppers: Shoppers, seed: int, days: int, messages: Messages, prices: Prices) -> Totals:
    """The whole run of these customers with these messages (sorted by day)."""
    state, totals = start(shoppers), nothing(len(shoppers))
    edges = np.searchsorted(messages.day, np.arange(-1, days + 1))
    for day in range(days):
        low, high = int(edges[day]), int(edges[day + 1])
        mine = messages.index(np.arange(low, high))
        state, happened = step(shoppers, state, day, draws(shoppers, seed, day), mine, low)
        totals = account(totals, happened, day, days, prices)
    return charge(totals, messages, prices)


def charge(totals: Totals, messages: Messages, prices: Prices) -> Totals:
    """The totals less what the messages cost."""
    cost = np.bincount(messages.row, minlength=len(totals.orders)) * float(prices.message_minor)
    return Totals(totals.orders, totals.revenue, totals.profit - cost, totals.spend + cost)


def increments(
    shoppers: Shoppers, seed: int, days: int, messages: Messages, labels: Sequence[str], prices: Prices
) -> dict[str, dict[str, float]]:
    """What each label's messages changed, the others unchanged, and under 'programme' what all of them changed.

    `labels` names the strategy of each message. Only customers who received something are replayed: for the others
    the answer is exactly zero.
    """
    reached = np.unique(messages.row)
    few = select(shoppers, reached)
    local = Messages(np.searchsorted(reached, messages.row), messages.day, messages.percent, messages.until,
                     messages.draws)  # fmt: skip
    names = np.array(labels, dtype=object)
    everyone = np.ones(len(few), dtype=bool)
    found: dict[str, dict[str, float]] = {}
    if len(messages) == 0:
        return {"programme": nothing(0).summed(everyone) | {"messages": 0.0, "customers": 0.0}}
    factual = replay(few, seed, days, local, prices)
    for name in [*sorted(set(labels)), "programme"]:
        gone = np.ones(len(local), dtype=bool) if name == "programme" else names == name
        difference = factual - replay(few, seed, days, local.where(~gone), prices)
        found[name] = difference.summed(everyone) | {
            "messages": float(gone.sum()),
            "customers": float(len(np.unique(local.row[gone]))),
        }
    return found


def select(shoppers: Shoppers, rows: Ints) -> Shoppers:
    """These shoppers only."""
    return Shoppers(*(getattr(shoppers, name)[rows] for name in Shoppers.__dataclass_fields__))
