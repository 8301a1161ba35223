"""The simulated shop's customers: real purchase histories, and hidden parameters the agent never sees.

Histories are CDNOW's (23,570 customers, January 1997 to June 1998). What each customer is like is drawn from the
seed and its number alone, so the same customer is the same in every run of a seed, whoever else takes part.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from operation_agent.kit.errors import NotFound

STARTS_ON = date(1998, 7, 1)
"""The first simulated day: the histories end the day before."""

PERSUADABLE, SURE_THING, DO_NOT_DISTURB, LOST_CAUSE = range(4)
KINDS = ("persuadable", "sure_thing", "do_not_disturb", "lost_cause")

_SHARES = np.array([[0.32, 0.17, 0.12, 0.39], [0.38, 0.32, 0.15, 0.15]])
"""Of each kind, for customers with fewer than four orders and for the others."""

# by kind, in the order of KINDS
_VISIT = np.array([1.0, 1.15, 1.0, 0.55])  # of the daily chance of a visit
_BUY = np.array([0.045, 0.12, 0.09, 0.008])  # chance that a visit ends in an order
_CART = np.array([0.32, 0.20, 0.22, 0.12])  # chance that a visit without an order leaves a cart
_OPEN = np.array([0.60, 0.45, 0.36, 0.12])
_CLICK = np.array([0.45, 0.30, 0.15, 0.08])  # of those who open
_NUDGE = np.array([1.9, 0.03, -0.15, 0.1])  # relative change of buying while a message is on the mind
_COUPON = np.array([0.13, 0.01, 0.0, 0.02])  # relative change of buying per percent off
_HARM = np.array([0.05, 0.02, 0.7, 0.05])  # log-loss of buying per message beyond two a week
_LEAVE = np.array([0.002, 0.002, 0.012, 0.004])  # chance that a message makes one unsubscribe
_LEAVE_PRESSED = np.array([0.004, 0.003, 0.12, 0.01])  # the same beyond two a week


@dataclass(frozen=True, slots=True)
class History:
    """What the agent knows as well: one row per customer, sorted by number. Money in minor units of the dollar."""

    numbers: NDArray[np.int64]
    orders: NDArray[np.int64]
    days_since_order: NDArray[np.float64]

    def first(self, count: int) -> History:
        return History(self.numbers[:count], self.orders[:count], self.days_since_order[:count])


@dataclass(frozen=True, slots=True)
class Shoppers:
    """Hidden parameters, one row per customer of the history."""

    numbers: NDArray[np.int64]
    kind: NDArray[np.int64]
    visit: NDArray[np.float64]
    buy: NDArray[np.float64]
    cart: NDArray[np.float64]
    open: NDArray[np.float64]
    click: NDArray[np.float64]
    nudge: NDArray[np.float64]
    coupon: NDArray[np.float64]
    harm: NDArray[np.float64]
    leave: NDArray[np.float64]
    leave_pressed: NDArray[np.float64]
    taste: NDArray[np.float64]  # in [0, 1): which products
    is_subscriber: NDArray[np.bool_]
    is_chinese: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.numbers)


def find_cdnow(path: Path | None = None) -> Path:
    """CDNOW_master.txt: `path`, or the copy inside the installed `lifetimes` wheel (which is not imported).

    Raises NotFound, saying what to install.
    """
    if path is not None:
        if not path.is_file():
            raise NotFound(f"there is no file {path}", where="cdnow")
        return path
    spec = find_spec("lifetimes")
    found = Path(spec.origin).parent / "datasets" / "CDNOW_master.txt" if spec and spec.origin else None
    if found is None or not found.is_file():
        raise NotFound("CDNOW_master.txt is not here; `pip install --no-deps lifetimes` brings it", where="cdnow")
    return found


def read_histories(path: Path, *, starts_on: date = STARTS_ON) -> History:
    """Orders (purchases of one day by one customer) and recency per customer of a CDNOW file."""
    raw = np.array(path.read_bytes().split(b"\n", 1)[1].split()).reshape(-1, 4)
    number, day = raw[:, 0].astype(np.int64), raw[:, 1].astype(np.int64)
    numbers, row = np.unique(number, return_inverse=True)
    last = np.zeros(len(numbers), dtype=np.int64)
    np.maximum.at(last, row, day)
    ordinal = [date(d // 10000, d // 100 % 100, d % 100).toordinal() for d in last.tolist()]
    return History(
        numbers=numbers,
        orders=np.bincount(row),
        days_since_order=(starts_on.toordinal() - np.array(ordinal)).astype(float),
    )


def draw(history: History, seed: int) -> Shoppers:
    """The hidden parameters of these customers for a seed."""
    u = table(seed, 0, int(history.numbers.max()) + 1, 8)[history.numbers]
    cumulated = _SHARES.cumsum(axis=1)[(history.orders >= 4).astype(int)]
    kind = np.minimum((u[:, :1] >= cumulated).sum(axis=1), len(KINDS) - 1)
    recent = np.select([history.days_since_order <= 90, history.days_since_order <= 270], [0.09, 0.032], 0.010)
    spread = np.exp(0.6 * _normal(u[:, 1], u[:, 2]))
    return Shoppers(
        numbers=history.numbers,
        kind=kind,
        visit=np.clip(recent * _VISIT[kind] * spread, 0.001, 0.5),
        buy=np.clip(_BUY[kind] * np.exp(0.35 * _normal(u[:, 3], u[:, 4])), 0, 0.7),
        cart=_CART[kind],
        open=_OPEN[kind],
        click=_CLICK[kind],
        nudge=_NUDGE[kind],
        coupon=_COUPON[kind],
        harm=_HARM[kind],
        leave=_LEAVE[kind],
        leave_pressed=_LEAVE_PRESSED[kind],
        taste=u[:, 5],
        is_subscriber=u[:, 6] < 0.8,
        is_chinese=u[:, 7] < 0.25,
    )


def table(seed: int, stream: int, rows: int, columns: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1): row i of a (seed, stream) is the same however many rows are asked for."""
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)))
    return generator.random((rows, columns))


def _normal(one: NDArray[np.float64], two: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard normal from two uniforms (Box and Muller)."""
    return np.asarray(np.sqrt(-2 * np.log1p(-one)) * np.cos(2 * np.pi * two), dtype=float)


def external_id(number: int) -> str:
    """As in the file: the identity under which `opagent import cdnow` knows the customer."""
    return f"{number:05d}"


def email(number: int) -> str:
    return f"cdnow-{number:05d}@example.com"


def day_of(index: int, starts_on: date = STARTS_ON) -> date:
    return starts_on + timedelta(days=index)
