"""The way in: events become rows, once, in one statement, and the shop's partitions are rung.

An event is stored the first time its source's id is seen and counted as a duplicate after that; so is every event of a
delivery that came before, by any of the names its sender gave it. In the same transaction it joins the queue of its
partition (a hash of its strongest identity: one customer's events stay in order) and, as the last statement, the outbox
says that the partition has events.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID
from zlib import crc32

import orjson
import psycopg
from sqlalchemy.orm import Session

from operation_agent.kit.ids import digest, new_id
from operation_agent.store import arrays

from .event import IDENTITY_KINDS, Event

PARTITIONS = 8
TOPIC = "events.process"

_STORE = """
WITH incoming AS MATERIALIZED (
  SELECT * FROM unnest(%(ids)s, %(digests)s, %(sources)s, %(source_ids)s, %(types)s, %(names)s, %(occurred)s,
                       %(received)s, %(identities)s, %(properties)s, %(contexts)s, %(partitions)s) WITH ORDINALITY
    AS i (id, digest, source, source_id, type, name, occurred_at, received_at, identity, properties, context,
          partition, position)
), fresh AS (
  INSERT INTO event_keys (shop_id, digest, received_at)
  SELECT %(shop)s, digest, received_at FROM incoming ORDER BY digest
  ON CONFLICT DO NOTHING RETURNING digest
), stored AS (
  INSERT INTO events (shop_id, id, source, source_id, type, name, occurred_at, received_at, identity, properties,
                      context)
  SELECT %(shop)s, id, source, source_id, type, name, occurred_at, received_at, identity, properties, context
  FROM incoming JOIN fresh USING (digest)
), queued AS (
  INSERT INTO event_queue (shop_id, partition, event_id, received_at)
  SELECT %(shop)s, partition, id, received_at FROM incoming JOIN fresh USING (digest) ORDER BY position
)
SELECT digest FROM incoming WHERE digest NOT IN (SELECT digest FROM fresh)
"""
# Sorted by digest, so that two writers with the same new events wait for each other and never deadlock.

_DELIVERIES = """
WITH told AS MATERIALIZED (SELECT * FROM unnest(%(digests)s, %(received)s) AS t (digest, received_at)), fresh AS (
  INSERT INTO event_keys (shop_id, digest, received_at)
  SELECT %(shop)s, digest, received_at FROM told ORDER BY digest
  ON CONFLICT DO NOTHING RETURNING digest
)
SELECT digest FROM told WHERE digest NOT IN (SELECT digest FROM fresh)
"""
# Names of deliveries are keys too, under a source of their own. Every writer takes them before its events' keys, in
# order, so that two with the same delivery wait for each other here and the second finds it known.

_RING = """
INSERT INTO outbox (id, shop_id, topic, key, rung_at)
SELECT r.id, %(shop)s, %(topic)s, r.key, %(at)s FROM unnest(%(ids)s, %(keys)s) AS r (id, key)
ORDER BY r.key
ON CONFLICT (shop_id, topic, key) DO UPDATE SET rings = outbox.rings + 1
"""


@dataclass(frozen=True, slots=True)
class IntakeResult:
    """`duplicate_indexes` are positions in what was given; accepted + duplicates is its length."""

    accepted: int
    duplicates: int
    duplicate_indexes: frozenset[int]


def partition_of(identity: dict[str, str]) -> int:
    """The queue partition of an event: by its strongest identity, the same in every process and release."""
    for kind in IDENTITY_KINDS:
        value = identity.get(kind)
        if value is not None:
            return crc32(f"{kind}:{value}".encode()) % PARTITIONS
    return 0


def commit(session: Session, shop_id: UUID, events: Sequence[Event]) -> IntakeResult:
    """Store events of one shop, in its scope, in this transaction (its caller's `for_shop` commits it)."""
    connection = session.connection().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    return write(connection, shop_id, events)


def write(connection: psycopg.Connection, shop_id: UUID, events: Sequence[Event]) -> IntakeResult:
    """`commit` on a bare connection that is bound to the shop already: the group committer's way."""
    dropped = _seen_before(connection, shop_id, events) if any(event.delivery for event in events) else set()
    first: dict[bytes, int] = {}
    repeated: set[int] = set(dropped)
    digests = [digest(event.source, event.source_id) for event in events]
    for index, key in enumerate(digests):
        if index not in dropped and first.setdefault(key, index) != index:
            repeated.add(index)
    if not first:
        return IntakeResult(0, len(repeated), frozenset(repeated))
    chosen = [events[index] for index in first.values()] if repeated else events
    partitions = [partition_of(event.identity) for event in chosen]
    with connection.pipeline():
        known = connection.execute(_STORE, _columns(shop_id, chosen, first.keys(), partitions), prepare=True)
        _ring(connection, shop_id, set(partitions), max(event.received_at for event in chosen))
        repeated.update(first[row[0].bytes] for row in known.fetchall())
    return IntakeResult(len(events) - len(repeated), len(repeated), frozenset(repeated))


def _seen_before(connection: psycopg.Connection, shop_id: UUID, events: Sequence[Event]) -> set[int]:
    """Positions of the events of deliveries that came before, in an earlier transaction or earlier in this one.

    All events of one delivery have the same names, so equal names are one delivery, and one shared name is a copy.
    """
    owners: dict[bytes, tuple[str, ...]] = {}
    copies: set[tuple[str, ...]] = set()
    received: dict[bytes, datetime] = {}
    for event in events:
        for name in event.delivery:
            key = digest(f"{event.source} delivery", name)
            if owners.setdefault(key, event.delivery) != event.delivery:
                copies.add(event.delivery)
            received.setdefault(key, event.received_at)
    known = connection.execute(
        _DELIVERIES,
        {"shop": shop_id, "digests": arrays.uuids(owners), "received": arrays.instants(received.values())},
        prepare=True,
    )
    copies.update(owners[row[0].bytes] for row in known.fetchall())
    return {index for index, event in enumerate(events) if event.delivery in copies}


def _columns(
    shop_id: UUID, events: Sequence[Event], digests: Collection[bytes], partitions: list[int]
) -> dict[str, object]:
    return {
        "shop": shop_id,
        "ids": arrays.uuids([event.id.bytes for event in events]),
        "digests": arrays.uuids(digests),
        "sources": arrays.texts([event.source for event in events]),
        "source_ids": arrays.texts([event.source_id for event in events]),
        "types": arrays.texts([event.type for event in events]),
        "names": arrays.texts([event.name for event in events]),
        "occurred": arrays.instants([event.occurred_at for event in events]),
        "received": arrays.instants([event.received_at for event in events]),
        "identities": arrays.documents(_documents([event.identity for event in events])),
        "properties": arrays.documents(_documents([event.properties for event in events])),
        "contexts": arrays.documents(_documents([event.context for event in events])),
        "partitions": arrays.smallints(partitions),
    }


def _documents(values: Sequence[object]) -> list[bytes]:
    """As JSON. What several events share, as those of one order do, is written out once."""
    written: dict[int, bytes] = {}
    for value in values:
        if id(value) not in written:
            written[id(value)] = orjson.dumps(value)
    return [written[id(value)] for value in values]


def _ring(connection: psycopg.Connection, shop_id: UUID, partitions: set[int], at: datetime) -> None:
    """As store.outbox.ring, without leaving the pipeline."""
    keys = [str(partition) for partition in sorted(partitions)]
    connection.execute(
        _RING,
        {
            "shop": shop_id, "topic": TOPIC, "at": at,
            "ids": arrays.uuids([new_id().bytes for _ in keys]), "keys": arrays.texts(keys),
        },
        prepare=True,
    )  # fmt: skip
    connection.execute("NOTIFY outbox")
