"""Concurrent requests share one commit, and each is answered only after it.

While a writer thread commits one group, the next gathers on the event loop; under load a group is hundreds of
requests and one fsync, at rest it is one request and no waiting. The queue is bounded: what does not fit is refused
with 503 at once, before anything was promised.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from uuid import UUID

import psycopg
import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api.errors import unavailable
from operation_agent.events import intake
from operation_agent.events.event import Event
from operation_agent.kit.errors import Rejected, Retryable
from operation_agent.store.session import HeldConnection

MOST_WAITING = 20_000
"""Events that may wait for a writer; about a second of work."""
WRITERS = 3
"""Groups on their way at once. All but one work only on full groups: one packs while another's group is being
stored and a third waits for the disk. Measured by bench/intake.py: a third more events a second than one writer."""
LARGEST_GROUP = 500
"""Events committed at once; larger groups gain little and make everybody in them wait."""
GATHER = 0.003
"""Seconds a group gathers before it is committed, if the one before it was shared: a group costs a millisecond of two
processors whatever its size, so ten groups of six requests cost more than one of sixty. Measured by bench/intake.py."""
ENOUGH = 200
"""Events that are committed without gathering more."""
ENOUGH_REQUESTS = 20
ENOUGH_OF_REQUESTS = 60
"""Or so many requests with so many events: of 64 connections that bring a few each, some are read while others are
stored. Single events gather, as a group costs much the same whatever its size. Measured by bench/shopify_intake.py."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of one submission: positions of duplicates, and the events the database itself refused."""

    duplicates: frozenset[int]
    refused: dict[int, Rejected]


_ALL_NEW = Committed(frozenset(), {})


@dataclass(slots=True)
class _Submission:
    shop_id: UUID
    events: Sequence[Event]
    answer: asyncio.Future[Committed]


class GroupCommitter:
    """Use from one event loop; `submit` returns after the commit."""

    def __init__(self, engine: Engine):
        self._pool = ThreadPoolExecutor(WRITERS, thread_name_prefix="group-commit")
        self._idle = [HeldConnection(engine) for _ in range(WRITERS)]
        self._waiting: deque[_Submission] = deque()
        self._waiting_events = 0
        self._next_start: asyncio.Handle | None = None
        self._closed = False

    async def submit(self, shop_id: UUID, events: Sequence[Event]) -> Committed:
        """Store events of a shop. Raises Retryable when the queue is full or the database cannot store now."""
        if self._closed or self._waiting_events + len(events) > MOST_WAITING:
            raise Retryable("more events are arriving than can be stored; send them again", code="overloaded")
        loop = asyncio.get_running_loop()
        submission = _Submission(shop_id, events, loop.create_future())
        self._waiting.append(submission)
        self._waiting_events += len(events)
        if self._is_enough():
            self._start(loop)
        elif self._next_start is None and len(self._idle) == WRITERS:
            self._next_start = loop.call_soon(self._start, loop)  # after the requests of this turn of the loop
        return await submission.answer

    async def close(self) -> None:
        """Take nothing more, commit what waits, end the writers."""
        self._closed = True
        while self._waiting or len(self._idle) < WRITERS:
            await asyncio.sleep(0.005)
        await asyncio.to_thread(self._pool.shutdown)
        for connection in self._idle:
            connection.close()

    def _is_enough(self) -> bool:
        return self._waiting_events >= ENOUGH or (
            self._waiting_events >= ENOUGH_OF_REQUESTS and len(self._waiting) >= ENOUGH_REQUESTS
        )

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._next_start is not None:
            self._next_start.cancel()
            self._next_start = None
        if not self._idle or not self._waiting:
            return
        connection, group = self._idle.pop(), self._next_group()
        running = loop.run_in_executor(self._pool, _store, connection, group)
        running.add_done_callback(lambda done: self._finish(loop, connection, group, done))

    def _next_group(self) -> list[_Submission]:
        group: list[_Submission] = []
        size = 0
        while self._waiting and (not group or size + len(self._waiting[0].events) <= LARGEST_GROUP):
            submission = self._waiting.popleft()
            size += len(submission.events)
            group.append(submission)
        self._waiting_events -= size
        return group

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: HeldConnection,
        group: list[_Submission],
        done: asyncio.Future[list[Committed | Exception]],
    ) -> None:
        self._idle.append(connection)
        failure = done.exception()
        results = [failure] * len(group) if failure is not None else done.result()
        for submission, result in zip(group, results, strict=True):
            if submission.answer.done():
                continue  # its client has gone; what was committed stays committed
            if isinstance(result, BaseException):
                submission.answer.set_exception(result)
            else:
                submission.answer.set_result(result)
        if self._is_enough() or len(group) == 1:
            self._start(loop)
        elif self._next_start is None:
            self._next_start = loop.call_later(GATHER, self._start, loop)


# -- in a writer's thread -----------------------------------------------------------------------------------------


def _store(connection: HeldConnection, group: list[_Submission]) -> list[Committed | Exception]:
    by_shop: dict[UUID, list[int]] = {}
    for index, submission in enumerate(group):
        by_shop.setdefault(submission.shop_id, []).append(index)
    results: list[Committed | Exception] = [_ALL_NEW] * len(group)
    for shop_id, indexes in by_shop.items():
        events = [event for index in indexes for event in group[index].events]
        try:
            together = _store_reconnecting(connection, shop_id, events)
        except Exception as error:  # noqa: BLE001 - whatever it is, its requests must be told
            for index in indexes:
                results[index] = unavailable(error) or error
            continue
        if together is not _ALL_NEW:
            _share_out(together, indexes, group, results)
    return results


def _store_reconnecting(connection: HeldConnection, shop_id: UUID, events: Sequence[Event]) -> Committed:
    """A connection that died while idle shows it only when used: then once more, on a new one.

    Nothing is stored twice by that, even if the first commit did arrive: its events are then duplicates.
    """
    try:
        return _store_shop(connection, shop_id, events)
    except psycopg.OperationalError:
        if connection.is_open:
            raise
        return _store_shop(connection, shop_id, events)


def _store_shop(held: HeldConnection, shop_id: UUID, events: Sequence[Event]) -> Committed:
    """One transaction; if the data is what is wrong, halves, until only the wrong events are refused."""
    try:
        with held.for_shop(shop_id) as connection:
            result = intake.write(connection, shop_id, events)
        return Committed(result.duplicate_indexes, {}) if result.duplicates else _ALL_NEW
    except (psycopg.Error, SQLAlchemyError) as error:
        if unavailable(error) is not None:
            raise
        middle = _middle(events)
        if middle is None:
            structlog.get_logger("intake").warning("refused by the database", error=str(error)[:300])
            reason = str(error).splitlines()[0][:200]
            refused = Rejected(f"the database refused it: {reason}", code="not_storable")
            return Committed(frozenset(), dict.fromkeys(range(len(events)), refused))
    left, right = _store_shop(held, shop_id, events[:middle]), _store_shop(held, shop_id, events[middle:])
    return Committed(
        left.duplicates | {index + middle for index in right.duplicates},
        left.refused | {index + middle: refusal for index, refusal in right.refused.items()},
    )


def _middle(events: Sequence[Event]) -> int | None:
    """Where to part them: nearest to the middle, never within a delivery, whose second half would pass for a copy of
    the first. None: they are one event or one delivery, and refused as that."""
    whole = [
        index
        for index in range(1, len(events))
        if not events[index].delivery or events[index].delivery != events[index - 1].delivery
    ]
    return min(whole, key=lambda index: abs(index - len(events) // 2), default=None)


def _share_out(
    together: Committed, indexes: list[int], group: list[_Submission], results: list[Committed | Exception]
) -> None:
    """Give each submission its part of what became of all of them."""
    start = 0
    for index in indexes:
        end = start + len(group[index].events)
        results[index] = Committed(
            frozenset(one - start for one in together.duplicates if start <= one < end),
            {one - start: refusal for one, refusal in together.refused.items() if start <= one < end},
        )
        start = end
