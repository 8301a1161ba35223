"""Doing a sync: asking the storefront for an export, waiting until it is ready, reading and storing it.

No call leaves inside a transaction, and every step of the row is a transaction of its own: killed anywhere, another
worker goes on from the last byte whose objects are stored. What a batch says, how far it was read and what it counted
are committed together. A first load tells of the past: its events set nothing off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from operation_agent.events import queue
from operation_agent.kit.clock import SYSTEM, Clock, monotonic
from operation_agent.kit.errors import AgentError, Denied, Retryable
from operation_agent.kit.logging import logger
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop

from . import steps, storing, sync
from .protocol import Export, ExportBusy, Exported, Exports, ResultExpired
from .sync import Sync

log = logger(__name__)

BATCH = 2_000
"""Events and tellings in one transaction: enough that its round trips do not count, and a few megabytes."""
SECONDS = 20.0
"""How long one task loads before it lets others have their turn."""
MOST_QUEUED = 200_000
"""Events of a shop that wait to be processed above which loading waits: the live ones come behind them."""
_LOOK_EVERY = 2.0
_BEHIND_WAIT = timedelta(seconds=10)
_BUSY_WAIT = timedelta(seconds=30)


class _OvertakenError(Exception):
    """Another worker has got on with this sync: what we were about to store is stored."""


@dataclass
class Loader:
    """One shop, one storefront, one kind, for the length of a task. `most_queued` None: never wait for the queue.
    `told` hears every error of the storefront, before it is decided what becomes of the sync."""

    engine: Engine
    shop: Shop
    storefront: Exports
    kind: str
    clock: Clock = SYSTEM
    seconds: float = SECONDS
    most_queued: int | None = MOST_QUEUED
    told: Callable[[AgentError], None] = lambda _error: None
    began: float = field(default_factory=monotonic)
    looked: float = 0.0

    def run(self) -> bool:
        """Get on with the kind's open sync, if it is due. True: there is more to do at once.

        Raises what is neither the storefront's nor the data's fault (the database is away).
        """
        with for_shop(self.engine, self.shop.id) as session:
            found = sync.claim(session, self.shop.id, self.kind, at=self.clock.now())
        if found is None:
            return False
        try:
            return self._step(found)
        except _OvertakenError:
            return False
        except AgentError as error:
            self.told(error)
            put_off(self.engine, self.shop, found, error, self.clock)
            return False
        except (OperationalError, InterfaceError):  # the database's trouble: the lease ends, and the sweep rings again
            raise
        except Exception as error:  # ours: it is tried again, and seen by who looks at the sync
            told = Retryable(f"{type(error).__name__}: {error}"[:500], code="internal")
            put_off(self.engine, self.shop, found, told, self.clock)
            raise

    def _step(self, found: Sync) -> bool:
        if found.cancel_by is not None:
            return self._cancel(found)
        if found.state == "asked":
            return self._start(found)
        if found.state == "running":
            return self._check(found)
        return self._load(found)

    # -- one step each --------------------------------------------------------------------------------------------

    def _start(self, found: Sync) -> bool:
        asked_at = self.clock.now()
        export = self.storefront.start_export(found.kind, since=found.since)
        with for_shop(self.engine, self.shop.id) as session:
            steps.started(session, self.shop.id, found, export, asked_at=asked_at, at=self.clock.now())
        return False

    def _check(self, found: Sync) -> bool:
        assert found.operation_id is not None
        export = self.storefront.check_export(found.kind, found.operation_id)
        if export.failed is not None:
            return self._failed(found, export)
        at = self.clock.now()
        with for_shop(self.engine, self.shop.id) as session:
            if not export.ready:
                steps.still_running(session, self.shop.id, found, export, at=at)
                return False
            if export.url is None:
                steps.end(session, self.shop, found, "done", at=at)
                return False
            return steps.ready(session, self.shop.id, found, export, at=at)

    def _failed(self, found: Sync, export: Export) -> bool:
        told, at = export.failed or "", self.clock.now()
        with for_shop(self.engine, self.shop.id) as session:
            if export.again and found.exports < steps.MOST_EXPORTS:
                steps.start_anew(session, self.shop.id, found, told, "export_failed", at=at)
            else:
                steps.end(session, self.shop, found, "failed", at=at, error=told, code="export_failed")
        return False

    def _cancel(self, found: Sync) -> bool:
        if found.state == "running" and found.operation_id is not None:
            with suppress(AgentError):  # it may be over, or the token gone: the sync ends all the same
                self.storefront.cancel_export(found.operation_id)
        with for_shop(self.engine, self.shop.id) as session:
            steps.end(session, self.shop, found, "cancelled", at=self.clock.now())
        return False

    # -- loading --------------------------------------------------------------------------------------------------

    def _load(self, found: Sync) -> bool:
        assert found.url is not None
        if self._is_behind(found):
            return False
        objects = self.storefront.read_export(
            found.kind, found.url, offset=found.bytes_done, received_at=self.clock.now()
        )
        with closing(objects) as stream:  # type: ignore[type-var]
            for batch in _batches(stream):
                found = self._store(found, batch)
                if found.cancel_by is not None:
                    return self._cancel(found)
                if self._is_behind(found):
                    return False
                if monotonic() - self.began >= self.seconds:
                    return self._rest(found)
        if found.bytes_total is not None and found.bytes_done < found.bytes_total:
            raise Retryable(f"the result has {found.bytes_total} bytes and ended after {found.bytes_done}")
        with for_shop(self.engine, self.shop.id) as session:
            steps.end(session, self.shop, found, "done", at=self.clock.now())
        log.info("synced", shop=self.shop.slug, kind=found.kind, objects=found.objects_done, missing=found.missing,
                 stale=found.stale, refused=found.refused)  # fmt: skip
        return False

    def _store(self, found: Sync, batch: list[Exported]) -> Sync:
        """Store a batch; when the database cannot hold something in it, by halves, until what it cannot hold is found
        and refused."""
        try:
            return self._commit(found, batch)
        except (DataError, psycopg.DataError) as error:
            told = " ".join(str(getattr(error, "orig", error)).split())[:300]
        if len(batch) > 1:
            half = len(batch) // 2
            return self._store(self._store(found, batch[:half]), batch[half:])
        (one,) = batch
        return self._commit(found, [replace(one, events=(), tellings=(), refused=f"the database refuses it: {told}")])

    def _commit(self, found: Sync, batch: list[Exported]) -> Sync:
        at = self.clock.now()
        with for_shop(self.engine, self.shop.id) as session:
            counted = storing.store(session, self.shop, found, batch)
            moved = steps.got_on(session, self.shop.id, found, batch[-1].end, counted, at=at)
            if moved is None:
                raise _OvertakenError
        return moved

    def _rest(self, found: Sync) -> bool:
        with for_shop(self.engine, self.shop.id) as session:
            steps.rests(session, self.shop.id, found, at=self.clock.now())
        return True

    def _is_behind(self, found: Sync) -> bool:
        """Whether too many events wait to be processed; then the sync waits too, and says so."""
        if self.most_queued is None or monotonic() - self.looked < _LOOK_EVERY:
            return False
        self.looked = monotonic()
        with for_shop(self.engine, self.shop.id) as session:
            if not queue.has_more_than(session, self.shop.id, self.most_queued):
                return False
            at = self.clock.now()
            told = f"more than {self.most_queued:,} events wait to be processed; loading goes on when they are fewer"
            steps.waits(session, self.shop.id, found, told, "queue_full", at=at, until=at + _BEHIND_WAIT, counts=False)
        return True


def end_cancelled(session: Session, shop: Shop, kind: str, *, at: datetime) -> None:
    """End the open sync of a kind if somebody wants it to, without telling the storefront: it cannot be reached."""
    for one in sync.under_way(session, shop.id):
        if one.kind == kind and one.cancel_by is not None:
            steps.end(session, shop, one, "cancelled", at=at)


# -- what goes wrong ----------------------------------------------------------------------------------------------


def put_off(engine: Engine, shop: Shop, found: Sync, error: AgentError, clock: Clock) -> None:
    """Later, or never again: whoever looks at the sync sees why, and what to do."""
    at = clock.now()
    log.warning("sync_waits", shop=shop.slug, kind=found.kind, code=error.code, error=error.detail)
    with for_shop(engine, shop.id) as session:
        seen = sync.get(session, shop.id, found.id)  # it may have got on before that went wrong
        if seen.state in sync.OPEN:
            _decide(session, shop, seen, error, at)


def _decide(session: Session, shop: Shop, seen: Sync, error: AgentError, at: datetime) -> None:
    again = steps.wait(seen.attempts + 1)
    if isinstance(error, ExportBusy):
        steps.waits(session, shop.id, seen, error.detail, error.code, at=at, until=at + _BUSY_WAIT, counts=False)
    elif isinstance(error, Denied) and error.code != "scope_missing":
        # the connection is at fault: nothing is asked of it until it is repaired
        steps.waits(session, shop.id, seen, error.detail, error.code, at=at, until=at + again, counts=False)
    elif not isinstance(error, Retryable) or seen.attempts + 1 >= steps.MOST_ATTEMPTS:
        steps.end(session, shop, seen, "failed", at=at, error=_advice(error), code=error.code)
    elif isinstance(error, ResultExpired) and seen.state == "loading":
        steps.address_expired(session, shop.id, seen, at=at)
    else:
        until = at + max(again, error.retry_after)
        steps.waits(session, shop.id, seen, error.detail, error.code, at=at, until=until)


def _batches(objects: Iterator[Exported]) -> Iterator[list[Exported]]:
    """Whole objects with together about BATCH events and tellings. A stream that breaks gives what it had first."""
    batch: list[Exported] = []
    size = 0
    try:
        for one in objects:
            batch.append(one)
            size += 1 + len(one.events) + len(one.tellings)
            if size >= BATCH:
                yield batch
                batch, size = [], 0
    except Retryable:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _advice(error: AgentError) -> str:
    if error.code == "scope_missing":
        return f"{error.detail}; grant the missing access scope, connect the shop again, then ask for the sync again"
    if isinstance(error, Retryable):
        return f"{error.detail}; it was tried {steps.MOST_ATTEMPTS} times: ask for the sync again when that is repaired"
    return error.detail
