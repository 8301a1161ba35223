"""Doing what was decided: claim → send → record, three steps because a crash may fall between any two.

The claim is committed before anything is called; calls run side by side outside any transaction and only while the
lease leaves time for an answer; the answer is written by compare-and-set. Whatever is cut off in between ends as
`unknown` and is the reconciler's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import Engine

from operation_agent.kit.clock import SYSTEM, Clock, monotonic
from operation_agent.kit.errors import Rejected
from operation_agent.kit.logging import logger
from operation_agent.store import outbox
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop
from operation_agent.storefront import connection

from .channel import Channel, Delivery, NotSent, Outcome, Sent, Unknown
from .claimed import Claimed
from .claiming import LEASE, TOPIC, Claim, claim
from .recording import Result, record
from .rendering import Job, Sender, render
from .unsubscribe import Links

IN_FLIGHT = 32
TIMEOUT = timedelta(seconds=10)
_RECORD_AT_ONCE = 32
_MARGIN = timedelta(seconds=1)

log = logger(__name__)


@dataclass
class Breaker:
    """Stops calling a provider that is down: its actions stay ready, and one probe is let through from time to time.

    Opens after `limit` failures in a row, for 2, 4, … 60 s (system monotonic time). One per channel and process.
    """

    limit: int = 5
    failures: int = 0
    opened_until: float = 0.0

    def allows(self, limit: int) -> int:
        """How many may be claimed now: none while open, one as a probe, else `limit`."""
        if self.failures < self.limit:
            return limit
        return 1 if monotonic() >= self.opened_until else 0

    def hears(self, outcome: Outcome) -> None:
        is_refused = isinstance(outcome, NotSent) and (outcome.is_provider_down or outcome.problem is not None)
        is_down = isinstance(outcome, Unknown) or is_refused
        if not is_down:
            self.failures = 0
            return
        self.failures += 1
        if self.failures >= self.limit:
            self.opened_until = monotonic() + min(60.0, 2.0 ** (self.failures - self.limit + 1))


@dataclass
class Executor:
    """Delivers one shop's actions of one channel. `at_step` is called between the steps: tests crash there.

    `credentials` are the sealed secrets that `channel` calls with: when they are refused, and are still those stored,
    the integration is stopped until it is connected again.
    """

    engine: Engine
    shop: Shop
    channel_name: str
    channel: Channel
    links: Links
    pool: ThreadPoolExecutor
    breaker: Breaker = field(default_factory=Breaker)
    clock: Clock = SYSTEM
    lease: timedelta = LEASE
    timeout: timedelta = TIMEOUT
    credentials: bytes | None = None
    is_stopped: bool = False
    at_step: Callable[[str], None] = lambda step: None

    def deliver(self, *, seconds: float = 5.0, limit: int = 64) -> int:
        """Claim, send and record until nothing is due; returns how many were taken.

        After `seconds` it rings for the rest and ends, so that others get their turn.
        """
        end, taken = monotonic() + seconds, 0
        while True:
            allowed = self.breaker.allows(limit)
            batch = self.claim(allowed) if allowed else Claim()
            taken += batch.taken
            if batch.claimed:
                self.send(batch.claimed)
            is_open = bool(batch.claimed) and self.breaker.failures >= self.breaker.limit
            if batch.taken == 0 or is_open or self.is_stopped:
                return taken
            if monotonic() >= end:
                with for_shop(self.engine, self.shop.id) as session:
                    outbox.ring(session, self.shop.id, [(TOPIC, self.channel_name)], at=self.clock.now())
                return taken

    def claim(self, limit: int) -> Claim:
        with for_shop(self.engine, self.shop.id) as session:
            batch = claim(session, self.shop, self.channel_name, limit=limit, at=self.clock.now(), lease=self.lease)
        self.at_step("claimed")
        return batch

    def send(self, claimed: Sequence[Claimed]) -> None:
        """Call the provider for each, up to IN_FLIGHT at once, writing answers down as they come."""
        deadline = monotonic() + (self.lease - self.timeout - _MARGIN).total_seconds()
        sender = sender_of(self.shop, self.links)
        futures = {self.pool.submit(self._send_one, one, sender, deadline) for one in claimed}
        for results in _in_batches(futures):
            for result in results:
                self.breaker.hears(result.outcome)
            self.at_step("answered")
            self._note_problem(results)
            self._record(results)

    def _note_problem(self, results: Sequence[Result]) -> None:
        """Before the refused are ready again, so that nobody claims them in between."""
        refused = [one.outcome for one in results if isinstance(one.outcome, NotSent) and one.outcome.problem]
        if not refused:
            return
        self.is_stopped = True
        with for_shop(self.engine, self.shop.id) as session:
            for problem, reason in {one.problem: one.reason for one in refused if one.problem}.items():
                connection.note_problem(
                    session, self.shop, self.channel.name, problem, reason, at=self.clock.now(),
                    credentials=self.credentials,
                )  # fmt: skip

    def _record(self, results: Sequence[Result]) -> None:
        with for_shop(self.engine, self.shop.id) as session:
            written = record(
                session, self.shop, self.channel.name, results, at=self.clock.now(), settle=self.channel.settle
            )
        if written != len(results):
            log.warning("late_answers", channel=self.channel_name, late=len(results) - written)
        self.at_step("recorded")

    def _send_one(self, claimed: Claimed, sender: Sender, deadline: float) -> Result:
        try:
            delivery = delivery_of(sender, claimed, self.timeout)
        except Rejected as error:
            refused = NotSent(error.detail, permanent=True)
            return Result(claimed, refused, None, self.clock.now())
        if monotonic() > deadline:
            # somebody may take this action over soon: an answer would come too late to be believed
            late = NotSent("the lease left no time", permanent=False, is_provider_down=True)
            return Result(claimed, late, None, self.clock.now())
        called_at = self.clock.now()
        self.at_step("calling")
        outcome = self.channel.send(delivery)
        return Result(claimed, complete(outcome, claimed, delivery), called_at, self.clock.now())


def sender_of(shop: Shop, links: Links) -> Sender:
    language = str(shop.settings.get("language", "en"))
    return Sender(shop.id, shop.slug, shop.name, shop.time_zone, shop.seed, language, links, shop.currency)


def delivery_of(sender: Sender, claimed: Claimed, timeout: timedelta) -> Delivery:
    """Render an action. Raises Rejected when its template cannot be."""
    job = Job(
        claimed.id,
        claimed.type,
        claimed.dedupe_key,
        claimed.parameters,
        claimed.person,
        claimed.moment,
        claimed.coupon,
    )
    return Delivery(claimed.id, claimed.dedupe_key, claimed.address, render(sender, job), timeout)


def complete(outcome: Outcome, claimed: Claimed, delivery: Delivery) -> Outcome:
    """A coupon's result is what was asked for, whatever the provider repeats of it: its row is made from that. When one
    that was there already ends is for the provider to say."""
    if claimed.type != "coupon" or not isinstance(outcome, Sent):
        return outcome
    asked = {name: delivery.parameters[name] for name in _ASKED if name in delivery.parameters}
    return Sent(outcome.provider_ref, {**asked, **outcome.result, "code": asked["code"]})


_ASKED = ("code", "percent", "terms", "expires_at")


def _in_batches(futures: set[Future[Result]]) -> Iterator[list[Result]]:
    """Results as they come, gathered for at most 50 ms so that slow calls do not hold up the others."""
    pending, ready = futures, []
    while pending:
        done, pending = wait(pending, timeout=0.05, return_when=FIRST_COMPLETED)
        ready += [future.result() for future in done]
        if ready and (not pending or not done or len(ready) >= _RECORD_AT_ONCE):
            yield ready
            ready = []
