"""The simulated shop's days, one after the other: what happens, in which order, and how the agent is waited for.

A day: (1) the sandbox's clock moves to the day's end and what came due is done; (2) newcomers are introduced and the
providers report on yesterday's messages; (3) orders and refunds; (4) browsing. Before each next step the agent has
finished the one before, so the outcome does not depend on how fast anything is. Orders go before the browsing that
led to them because decisions are made as of their event, and a message that is due within the day must find the goal
reached. Messages that came in by the end of a day are read the next morning, in the order of their keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import numpy as np

from operation_agent.kit.clock import monotonic

from . import behaviour, payloads, truth
from .agent_client import Agent
from .behaviour import REFUND_AFTER, Flags, Messages
from .customers import STARTS_ON, Shoppers
from .providers import Message, Providers

DAY_ENDS = timedelta(hours=22)
"""Where the sandbox's clock stands while a day is told: after its last event, and long enough before midnight that
the seconds which the telling takes never reach the next day."""
_ADDRESS = re.compile(r"cdnow-(\d{5})@example\.com", re.IGNORECASE)
_CODE = re.compile(r"[A-Z0-9][A-Z0-9_-]{3,40}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Offer:
    """A coupon as the shop knows it: percent off, and when it ends."""

    percent: float
    ends_at: datetime | None


class Mailboxes:
    """What the fake providers hold: of this process, or of another one (`url`)."""

    def __init__(self, providers: Providers | None = None, url: str | None = None):
        self._providers, self._url, self._seen = providers, url, 0

    def new(self) -> list[Message]:
        """Messages that arrived since the last call."""
        if self._providers is not None:
            found = self._providers.messages[self._seen :]
        else:
            rows = httpx.get(f"{self._url}/control/messages", params={"since": self._seen}, timeout=60).json()
            found = [Message(**row) for row in rows]
        self._seen += len(found)
        return found

    def offers(self) -> dict[str, Offer]:
        """Every coupon there is, by its code in upper case."""
        if self._providers is not None:
            coupons = [(one.code, one.percent, one.ends_at) for one in list(self._providers.coupons.values())]
        else:
            rows = httpx.get(f"{self._url}/control/coupons", timeout=60).json()
            coupons = [(row["code"], row["percent"], row["ends_at"]) for row in rows]
        return {code.upper(): Offer(percent, _instant(ends_at)) for code, percent, ends_at in coupons}


@dataclass(slots=True)
class Post:
    """Every message of the run, in the order the simulation takes them, with what the provider knows of each."""

    seed: int
    starts_on: date
    rows: dict[int, int]  # customer's number -> row
    arrays: Messages = field(default_factory=Messages.none)
    labels: list[str] = field(default_factory=list)
    codes: dict[int, str] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    duplicates: int = 0
    strangers: int = 0

    def take(self, arrived: list[Message], offers: dict[str, Offer], day: int) -> list[Message]:
        """Sort out a day's post. The same message twice is counted and read once."""
        fresh: dict[str, tuple[Message, int]] = {}
        for message in arrived:
            address = _ADDRESS.fullmatch(message.to)
            row = self.rows.get(int(address.group(1))) if address else None
            if row is None:
                self.strangers += 1
            elif message.key in self.keys or message.key in fresh:
                self.duplicates += 1
            else:
                fresh[message.key] = (message, row)
        ordered = [fresh[key] for key in sorted(fresh)]
        self.keys |= fresh.keys()
        first = len(self.arrays)
        percents, untils = [], []
        for index, (message, _row) in enumerate(ordered):
            code = next((found.upper() for found in _CODE.findall(message.body) if found.upper() in offers), None)
            offer = offers[code] if code else Offer(0.0, None)
            if code:
                self.codes[first + index] = code
            percents.append(offer.percent)
            untils.append(self._last_day(offer.ends_at))
        self.labels += [label_of(message) for message, _row in ordered]
        self._append([row for _message, row in ordered], day, percents, untils, sorted(fresh))
        return [message for message, _row in ordered]

    def _last_day(self, ends_at: datetime | None) -> float:
        """The last day on which an order, at whatever hour, is still within the coupon's time."""
        if ends_at is None:
            return float("inf")
        midnight = datetime.combine(self.starts_on, datetime.min.time(), UTC)
        return float((ends_at - midnight - payloads.LAST_ORDER) // timedelta(days=1))

    def _append(self, rows: list[int], day: int, percents: list[float], untils: list[float], keys: list[str]) -> None:
        old = self.arrays
        self.arrays = Messages(
            np.concatenate([old.row, np.array(rows, dtype=np.int64)]),
            np.concatenate([old.day, np.full(len(rows), day, dtype=np.int64)]),
            np.concatenate([old.percent, np.array(percents, dtype=float)]),
            np.concatenate([old.until, np.array(untils, dtype=float)]),
            np.concatenate([old.draws, payloads.message_draws(self.seed, keys)]),
        )


def label_of(message: Message) -> str:
    """The strategy a message belongs to, by the rule in front of its dedupe key ('<strategy>/<rule>:…')."""
    return message.key.split(":", 1)[0].split("/", 1)[0]


def _instant(stamp: str | None) -> datetime | None:
    return datetime.fromisoformat(stamp) if stamp else None


@dataclass(slots=True)
class Run:
    """A whole simulation against a running agent. `progress` is told each day that is done."""

    agent: Agent
    mail: Mailboxes
    shoppers: Shoppers
    seed: int = 42
    days: int = 28
    starts_on: date = STARTS_ON
    prices: truth.Prices = field(default_factory=truth.Prices)
    progress: Callable[[int, dict[str, int]], None] = lambda _day, _counts: None

    def __call__(self) -> dict[str, Any]:
        """Live the days, then say what happened and what was true. Raises Retryable or Rejected."""
        began = monotonic()
        rows = {int(number): row for row, number in enumerate(self.shoppers.numbers)}
        post = Post(self.seed, self.starts_on, rows)
        state, totals = behaviour.start(self.shoppers), truth.nothing(len(self.shoppers))
        known = np.zeros(len(self.shoppers), dtype=bool)
        returns: dict[int, list[tuple[int, int, int]]] = {}
        counts = {"events": 0, "orders": 0, "refunds": 0, "redeemed": 0}
        letters: list[Message] = []
        self.mail.new()  # what came before the first day is not ours
        for day in range(self.days):
            first = len(post.arrays) - len(letters)
            messages = post.arrays.index(np.arange(first, len(post.arrays)))
            u = behaviour.draws(self.shoppers, self.seed, day)
            state, happened = behaviour.step(self.shoppers, state, day, u, messages, first)
            totals = truth.account(totals, happened, day, self.days, self.prices)
            scene = payloads.Scene.of(self.shoppers, self.seed, day, self.starts_on, u, happened)
            self._tell(scene, known, post, letters, messages, returns.pop(day, []))
            known |= happened.visited
            _remember_returns(returns, scene, self.days)
            letters = post.take(self.mail.new(), self.mail.offers(), day)
            counts = _counted(counts, happened, self.agent.posted)
            self.progress(day, counts | {"messages": len(post.arrays)})
        totals = truth.charge(totals, post.arrays, self.prices)
        return self._told(post, totals, counts, monotonic() - began)

    def _tell(
        self, scene: payloads.Scene, known: Flags, post: Post, letters: list[Message], messages: Messages,
        returned: list[tuple[int, int, int]],
    ) -> None:  # fmt: skip
        agent = self.agent
        agent.move_clock(scene.midnight + DAY_ENDS)
        agent.drain()
        agent.track(payloads.introductions(scene, np.flatnonzero(scene.day.visited & ~known)))
        agent.sendgrid(payloads.reports(scene, letters, messages))
        agent.drain()
        agent.shopify("refunds/create", payloads.refunds(scene, returned))
        agent.shopify("orders/paid", payloads.orders(scene, post.codes))
        agent.drain()
        agent.track(payloads.visits(scene))
        agent.drain()

    def _told(self, post: Post, totals: truth.Totals, counts: dict[str, int], seconds: float) -> dict[str, Any]:
        again = truth.replay(self.shoppers, self.seed, self.days, post.arrays, self.prices)
        everyone = np.ones(len(self.shoppers), dtype=bool)
        return {
            "seed": self.seed,
            "days": self.days,
            "customers": len(self.shoppers),
            "from": self.starts_on.isoformat(),
            "until": (
                datetime.combine(self.starts_on, datetime.min.time(), UTC) + timedelta(days=self.days)
            ).isoformat(),
            "counts": counts
            | {
                "messages": len(post.arrays),
                "coupons": len(post.codes),
                "duplicate_messages": post.duplicates,
                "messages_to_strangers": post.strangers,
                "refused_events": len(self.agent.refused),
                "repeated_calls": self.agent.repeated,
            },
            "totals": totals.summed(everyone),
            "truth": truth.increments(self.shoppers, self.seed, self.days, post.arrays, post.labels, self.prices),
            "replay_agrees": again.summed(everyone) == totals.summed(everyone),
            "refused": self.agent.refused[:10],
            "seconds": {"total": round(seconds, 3), "waiting_for_the_agent": round(self.agent.waited, 3)},
        }


def _remember_returns(returns: dict[int, list[tuple[int, int, int]]], scene: payloads.Scene, days: int) -> None:
    due = scene.index + REFUND_AFTER
    if due < days:
        paid = scene.day.gross_minor - scene.day.discount_minor
        returns[due] = [
            (int(scene.shoppers.numbers[row]), scene.index, int(paid[row]))
            for row in np.flatnonzero(scene.day.refunded).tolist()
        ]


def _counted(counts: dict[str, int], happened: behaviour.Day, posted: int) -> dict[str, int]:
    return {
        "events": posted,
        "orders": counts["orders"] + int(happened.ordered.sum()),
        "refunds": counts["refunds"] + int(happened.refunded.sum()),
        "redeemed": counts["redeemed"] + int((happened.coupon >= 0).sum()),
    }
