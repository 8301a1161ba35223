"""Working off one partition of a shop's events: batch after batch, each one transaction, until nothing is left.

A partition is one worker's at a time (an advisory lock of the transaction), so a customer's events keep their order.
When a batch fails, smaller and smaller beginnings of it are tried, until the one event at fault stands alone: it is
counted, set aside after several attempts, and the others go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from operation_agent.kit.clock import SYSTEM, monotonic
from operation_agent.kit.errors import Retryable
from operation_agent.kit.logging import logger
from operation_agent.store import outbox
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop

TOPIC = "events.process"
BATCH = 1000
MOST_REPEATS = 5
_PASSING = ("40001", "40P01", "55P03")  # serialization failure, deadlock, lock not available: the same batch may pass

log = logger(__name__)


@dataclass
class _Step:
    """What one transaction did. `is_ours` is False when somebody else holds the partition."""

    taken: int
    is_ours: bool = True


def drain(engine: Engine, shop_id: UUID, partition: int, *, seconds: float = 2.0, batch: int = BATCH) -> int:
    """Process the partition until it is empty, somebody else has it, or `seconds` have passed; how many events.

    When time is up a new wake-up is rung, so that other partitions get their turn. Raises what is no event's fault
    (the database is away): the sweep rings again.
    """
    end, total, limit, repeats, empty = monotonic() + seconds, 0, batch, 0, 0
    while True:
        try:
            step = _step(engine, shop_id, partition, limit)
        except (InterfaceError, Retryable):
            raise
        except Exception as error:
            if _is_passing(error) and repeats < MOST_REPEATS:
                repeats += 1
                continue
            if isinstance(error, OperationalError) and not _is_passing(error):
                raise
            limit = _after_failure(engine, shop_id, partition, limit, error)
            continue
        total, repeats = total + step.taken, 0
        if not step.is_ours:
            return total
        empty = 0 if step.taken else empty + 1
        # the lock was released by that commit; an event that came just before it, and whose worker gave up because
        # of our lock, is seen here
        if empty and (empty > MOST_REPEATS or not _is_pending(engine, shop_id, partition)):
            return total
        limit = min(batch, limit * 2)
        if monotonic() >= end:
            _ring_again(engine, shop_id, partition)
            return total


def _step(engine: Engine, shop_id: UUID, partition: int, limit: int) -> _Step:
    from operation_agent import agent
    from operation_agent.events import queue

    with for_shop(engine, shop_id) as session:
        queued = queue.claim(session, shop_id, partition, limit)
        if queued is None:
            return _Step(0, is_ours=False)
        if not queued:
            return _Step(0)
        shop = load_shop(session, shop_id)
        agent.observe(session, shop, [one.event for one in queued], recorded_at=SYSTEM.now())
        queue.done(session, shop_id, partition, [one.seq for one in queued])
        return _Step(len(queued))


def _is_passing(error: Exception) -> bool:
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _PASSING


def _after_failure(engine: Engine, shop_id: UUID, partition: int, limit: int, error: Exception) -> int:
    """The size of the next try. Alone at fault: the event at the head is counted, or set aside."""
    from operation_agent.events import queue

    with for_shop(engine, shop_id) as session:
        queued = queue.claim(session, shop_id, partition, limit)
        if queued and len(queued) == 1:
            log.error("event_failed", shop=str(shop_id), event_id=str(queued[0].event.id), exc_info=error)
            told = f"{type(error).__name__}: {error}"
            queue.failed(session, shop_id, partition, [queued[0].seq], told, at=SYSTEM.now())
            return 1
        return max(1, len(queued or ()) // 2)


def _is_pending(engine: Engine, shop_id: UUID, partition: int) -> bool:
    from operation_agent.events import queue

    with for_shop(engine, shop_id) as session:
        return queue.pending(session, shop_id, partition) > 0


def _ring_again(engine: Engine, shop_id: UUID, partition: int) -> None:
    with for_shop(engine, shop_id) as session:
        outbox.ring(session, shop_id, [(TOPIC, str(partition))], at=SYSTEM.now())
