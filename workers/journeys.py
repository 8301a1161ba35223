"""Leading on who waits: batch after batch, each one transaction, until nothing is due.

A worker that dies has led on whole batches only: the sweep rings again for what is still due.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import Engine

from operation_agent.kit.clock import SYSTEM, Clock, monotonic
from operation_agent.kit.logging import logger
from operation_agent.store import outbox
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop

TOPIC = "journeys.advance"
LATE = timedelta(minutes=1)
"""A run that is led on later than this is told in the log. In a sandbox, whose clock jumps, it means nothing."""

log = logger(__name__)


def advance(engine: Engine, shop_id: UUID, *, seconds: float = 5.0, clock: Clock = SYSTEM) -> int:
    """Lead on what is due until nothing is, or `seconds` have passed; how many runs and watches.

    When time is up a new wake-up is rung, so that other shops get their turn.
    """
    from operation_agent import agent
    from operation_agent.journeys.advance import BATCH

    end, total = monotonic() + seconds, 0
    while True:
        with for_shop(engine, shop_id) as session:
            shop, at = load_shop(session, shop_id), clock.now()
            done = agent.advance(session, shop, recorded_at=at)
            total += done.runs + done.watches
            is_more = max(done.runs, done.watches) >= BATCH
            if is_more and monotonic() >= end:
                outbox.ring(session, shop_id, [(TOPIC, "")], at=at)
        if done.latest > LATE and not shop.sandbox:
            log.warning("journeys_late", shop=shop.slug, seconds=round(done.latest.total_seconds()))
        if not is_more or monotonic() >= end:
            return total
