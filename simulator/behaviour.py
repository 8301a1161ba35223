"""How the simulated customers behave on one day. Pure: parameters, state, random numbers and messages in, a day out.

Every customer-day has random numbers of its own (common random numbers), so what a customer would have done without
a message is computed, not estimated: the same numbers, fewer messages. A message can only move probabilities that the
same numbers are then compared with.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from .customers import Shoppers, table

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

(VISIT, BUY, CART, VIEWS, SEARCH, PRODUCT, OTHER_PRODUCT, QUANTITY, TIME, REDEEM, REFUND, CHECKOUT) = range(12)
DRAWS = 12
MESSAGE_DRAWS = 6
OPENED, CLICKED, LEFT, MACHINE, WHEN, REMEMBERED = range(MESSAGE_DRAWS)

WEEK = 7
REFUND_AFTER = 3
"""Days from an order to its refund."""
REFUND_SHARE = 0.03
PRODUCTS = 240
MEMORY = 0.7
"""How much of a message is still on the mind a day later."""
CART_DAYS = 3
COOL_DAYS = 7


@dataclass(frozen=True, slots=True)
class Messages:
    """Messages as received: `row` of the shopper, `day` at whose end it came, `percent` off (0: no coupon), until when
    the coupon holds (a day's index), and random numbers of their own (one row each)."""

    row: Ints
    day: Ints
    percent: Floats
    until: Floats
    draws: Floats

    @classmethod
    def none(cls) -> Messages:
        nobody, nothing = np.empty(0, dtype=np.int64), np.empty(0)
        return cls(nobody, nobody, nothing, nothing, np.empty((0, MESSAGE_DRAWS)))

    def __len__(self) -> int:
        return len(self.row)

    def where(self, keep: Flags) -> Messages:
        return Messages(*(getattr(self, item.name)[keep] for item in fields(self)))

    def index(self, rows: Ints) -> Messages:
        return Messages(*(getattr(self, item.name)[rows] for item in fields(self)))


@dataclass(frozen=True, slots=True)
class State:
    """What of the past matters, one row per shopper."""

    mind: Floats  # how present a message is, 0..1.5
    percent: Floats  # the best coupon the customer has read of
    until: Floats  # last day it holds
    coupon: Ints  # index of its message among all messages so far, -1: none
    received: NDArray[np.int16]  # messages of the last seven days, one column a day
    cart_day: Ints  # last day a cart was left
    order_day: Ints  # last day of an order
    is_gone: Flags  # unsubscribed because of a message


@dataclass(frozen=True, slots=True)
class Day:
    """What happened: per shopper, and per message answered (those of the day before)."""

    visited: Flags
    views: Ints
    searched: Flags
    carted: Flags
    checked_out: Flags
    ordered: Flags
    gross_minor: Ints
    discount_minor: Ints
    coupon: Ints  # the message whose coupon was redeemed, -1: none
    refunded: Flags  # this day's order will be given back
    clicked_through: Flags
    opened: Flags  # by message, as are the next four
    machine_opened: Flags
    clicked: Flags
    left: Flags


def start(shoppers: Shoppers) -> State:
    n = len(shoppers)
    long_ago = np.full(n, -1000, dtype=np.int64)
    return State(
        mind=np.zeros(n), percent=np.zeros(n), until=np.full(n, -1.0), coupon=np.full(n, -1, dtype=np.int64),
        received=np.zeros((n, WEEK), dtype=np.int16), cart_day=long_ago, order_day=long_ago.copy(),
        is_gone=np.zeros(n, dtype=bool),
    )  # fmt: skip


def draws(shoppers: Shoppers, seed: int, day: int) -> Floats:
    """Random numbers of a day, one row per shopper; stream 0 is the hidden parameters'."""
    return table(seed, day + 1, int(shoppers.numbers.max()) + 1, DRAWS)[shoppers.numbers]


def step(
    shoppers: Shoppers, state: State, day: int, u: Floats, messages: Messages, first: int = 0
) -> tuple[State, Day]:
    """One day. `messages` are those received at the end of the day before; `first` is the index of the first of them
    among all messages, by which `Day.coupon` and `State.coupon` speak."""
    state, answers = _read(shoppers, state, day, messages, first)
    has_coupon = (state.percent > 0) & (state.until >= day)
    pressure = np.maximum(state.received.sum(axis=1) - 2, 0)
    has_cart = day - state.cart_day <= CART_DAYS
    is_fresh = day - state.order_day <= COOL_DAYS

    visit = shoppers.visit * np.where(has_cart, 2.0, 1) * np.where(is_fresh, 0.6, 1)
    visit = visit * (1 + np.maximum(shoppers.nudge, 0) * 0.5 * state.mind) * np.exp(-shoppers.harm * pressure)
    visited = (u[:, VISIT] < np.minimum(visit, 0.9)) | answers.clicked_through

    buy = shoppers.buy * np.where(has_cart, 1.5, 1) * np.where(is_fresh, 0.35, 1)
    buy = buy * (1 + shoppers.nudge * np.minimum(state.mind, 1)) * (1 + shoppers.coupon * state.percent * has_coupon)
    buy = buy * np.exp(-shoppers.harm * pressure) * np.where(state.is_gone, 0.7, 1)
    ordered = visited & (u[:, BUY] < np.minimum(buy, 0.9))
    carted = ordered | (visited & (u[:, CART] < shoppers.cart))

    gross = np.where(ordered, price(product(shoppers, u)) * quantity(u), 0)
    redeems = ordered & has_coupon & (u[:, REDEEM] < 0.92)
    discount = np.rint(gross * np.where(redeems, state.percent, 0) / 100).astype(np.int64)
    coupon = np.where(redeems, state.coupon, -1)
    happened = Day(
        visited=visited,
        views=np.where(visited, 1 + (u[:, VIEWS] * u[:, VIEWS] * 5).astype(np.int64), 0),
        searched=visited & (u[:, SEARCH] < 0.25),
        carted=carted,
        checked_out=ordered | (carted & (u[:, CHECKOUT] < 0.3)),
        ordered=ordered,
        gross_minor=gross,
        discount_minor=discount,
        coupon=coupon,
        refunded=ordered & (u[:, REFUND] < REFUND_SHARE),
        clicked_through=answers.clicked_through,
        opened=answers.opened,
        machine_opened=answers.machine_opened,
        clicked=answers.clicked,
        left=answers.left,
    )
    after = State(
        mind=np.where(ordered, 0, state.mind * MEMORY),
        percent=np.where(redeems, 0, state.percent),
        until=state.until,
        coupon=np.where(redeems, -1, state.coupon),
        received=state.received,
        cart_day=np.where(ordered, -1000, np.where(carted, day, state.cart_day)),
        order_day=np.where(ordered, day, state.order_day),
        is_gone=state.is_gone,
    )
    return after, happened


@dataclass(frozen=True, slots=True)
class _Answers:
    opened: Flags
    machine_opened: Flags
    clicked: Flags
    left: Flags
    clicked_through: Flags


def _read(shoppers: Shoppers, state: State, day: int, messages: Messages, first: int) -> tuple[State, _Answers]:
    """The morning: yesterday's messages are counted, opened, clicked, remembered, or make someone leave."""
    received = state.received.copy()
    received[:, day % WEEK] = np.bincount(messages.row, minlength=len(shoppers))
    row, m = messages.row, messages.draws
    is_pressed = received.sum(axis=1)[row] > 2
    left = m[:, LEFT] < np.where(is_pressed, shoppers.leave_pressed[row], shoppers.leave[row])
    opened = m[:, OPENED] < shoppers.open[row] * np.where(is_pressed, 0.6, 1)
    clicked = opened & ~left & (m[:, CLICKED] < shoppers.click[row])
    mind = state.mind.copy()
    np.maximum.at(mind, row, np.where(clicked, 1.0, np.where(opened, 0.6, 0.0)))
    clicked_through = np.zeros(len(shoppers), dtype=bool)
    clicked_through[row[clicked]] = True
    is_gone = state.is_gone.copy()
    is_gone[row[left]] = True
    percent, until, coupon = state.percent.copy(), state.until.copy(), state.coupon.copy()
    read = np.flatnonzero(opened & (messages.percent > 0))
    # the best offer is kept: the last one written for a row is the greatest, the earliest among equals
    read = read[np.lexsort((-read, messages.percent[read]))]
    better = (messages.percent[read] >= percent[row[read]]) | (until[row[read]] < day)
    read = read[better]
    percent[row[read]], until[row[read]], coupon[row[read]] = (
        messages.percent[read], messages.until[read], first + read,
    )  # fmt: skip
    kept = State(mind, percent, until, coupon, received, state.cart_day, state.order_day, is_gone)
    return kept, _Answers(opened, (m[:, MACHINE] < 0.15), clicked, left, clicked_through)


def product(shoppers: Shoppers, u: Floats) -> Ints:
    """The product of the day: mostly of a customer's own shelf."""
    shelf = (shoppers.taste * PRODUCTS).astype(np.int64)
    return (shelf + (u[:, PRODUCT] ** 3 * PRODUCTS).astype(np.int64)) % PRODUCTS


def price(number: Ints) -> Ints:
    """Minor units; from 7.99 to 24.99."""
    return 799 + (number * 37 % 18) * 100


def quantity(u: Floats) -> Ints:
    return 1 + (u[:, QUANTITY] ** 2 * 4).astype(np.int64)
