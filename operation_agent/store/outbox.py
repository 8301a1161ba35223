"""The outbox: what must happen after this transaction, written inside it.

A wake-up carries no data, only "look here": a topic (the Celery task's name), a shop and a key. At most one
is pending per (shop, topic, key), so ten thousand events ring once. `workers/relay.py` takes rows out and
publishes them; `NOTIFY outbox` wakes it on commit.

`DO UPDATE` (not `DO NOTHING`) on purpose: it locks the pending row until this transaction ends, so the relay
cannot publish it before our rows are visible. Ring last in a transaction, to hold that lock briefly.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.kit.ids import new_id

CHANNEL = "outbox"

RING_SQL = """
INSERT INTO outbox (id, shop_id, topic, key, rung_at)
SELECT r.id, :shop_id, r.topic, r.key, :rung_at
FROM unnest(CAST(:ids AS uuid[]), CAST(:topics AS text[]), CAST(:keys AS text[])) AS r (id, topic, key)
ORDER BY r.topic, r.key
ON CONFLICT (shop_id, topic, key) DO UPDATE SET rings = outbox.rings + 1
"""


def ring(session: Session, shop_id: UUID, wake_ups: Iterable[tuple[str, str]], *, at: datetime) -> None:
    """Write wake-ups `(topic, key)` for a shop; `at` is system time. Sorted, so that two writers cannot deadlock."""
    pairs = sorted(set(wake_ups))
    if not pairs:
        return
    session.execute(
        text(RING_SQL),
        {
            "shop_id": shop_id,
            "rung_at": at,
            "ids": [new_id() for _ in pairs],
            "topics": [topic for topic, _ in pairs],
            "keys": [key for _, key in pairs],
        },
    )
    session.execute(text(f"NOTIFY {CHANNEL}"))
