"""What set rules off in the past: every event, due time, missed goal and move between groups of a span, in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.clustering import membership
from operation_agent.customers import features, wire
from operation_agent.customers.features import FeatureTable
from operation_agent.customers.wire import Instants, Uuids
from operation_agent.decision.facts import SCHEDULE
from operation_agent.events.event import Event
from operation_agent.journeys.watches import MISSED
from operation_agent.store.shops import Shop
from operation_agent.strategies.live import LiveRule
from rules import recurrence

PART = 20_000
"""Occurrences held against the rules at a time."""

_FIELDS = {"customer_id": "uuid", "random_key": "uuid", "at": "timestamptz", "event_id": "uuid", "type": "int2"}
_ROW = wire.row_type(_FIELDS)

_EVENTS = """
SELECT t.customer_id, c.random_key, t.occurred_at, t.event_id,
       array_position(CAST(%(types)s AS text[]), t.type)::int2
FROM timeline t JOIN customers c ON c.shop_id = t.shop_id AND c.id = t.customer_id
WHERE t.shop_id = %(shop)s AND c.merged_into IS NULL AND t.type = ANY(%(types)s)
  AND t.occurred_at > %(since)s AND t.occurred_at <= %(until)s
"""

_MISSES = """
SELECT t.customer_id, c.random_key, t.occurred_at + %(within)s::interval, t.event_id, 1::int2
FROM timeline t JOIN customers c ON c.shop_id = t.shop_id AND c.id = t.customer_id
WHERE t.shop_id = %(shop)s AND c.merged_into IS NULL AND t.type = ANY(%(types)s)
  AND t.occurred_at > %(since)s::timestamptz - %(within)s::interval
  AND t.occurred_at <= %(until)s::timestamptz - %(within)s::interval
  AND NOT EXISTS (SELECT 1 FROM timeline g WHERE g.shop_id = t.shop_id AND g.customer_id = t.customer_id
                  AND g.occurred_at > t.occurred_at AND g.occurred_at <= t.occurred_at + %(within)s::interval
                  AND g.type = ANY(%(goals)s))
"""


@dataclass(frozen=True, slots=True)
class Occurrences:
    """Row by row, in order: a customer, a moment (shop time), and the event that stands behind it, if one does. `type`
    is the trigger's, the same for all rows when `types` has one entry; `rule_ids` and `group` as of decision Trigger.
    `table`: their features, when somebody has computed them already."""

    customer_ids: Uuids
    random_keys: Uuids
    at: Instants
    event_ids: Uuids | None
    types: tuple[str, ...]
    codes: np.ndarray | None = None
    rule_ids: frozenset[UUID] = frozenset()
    group: str | None = None
    table: FeatureTable | None = None

    def __len__(self) -> int:
        return len(self.customer_ids)

    def rows(self, index: np.ndarray) -> Occurrences:
        """Some of them."""
        return Occurrences(
            Uuids(self.customer_ids.raw[index]),
            Uuids(self.random_keys.raw[index]),
            Instants(self.at.raw[index]),
            None if self.event_ids is None else Uuids(self.event_ids.raw[index]),
            self.types,
            None if self.codes is None else self.codes[index],
            self.rule_ids,
            self.group,
            None if self.table is None else taken(self.table, index),
        )

    def type_of(self, row: int) -> str:
        return self.types[0] if self.codes is None else self.types[int(self.codes[row])]


def taken(table: FeatureTable, index: np.ndarray) -> FeatureTable:
    """Some rows of a table of features."""
    ids, keys, times = table.customer_ids, table.random_keys, table.as_of
    assert isinstance(ids, Uuids) and isinstance(keys, Uuids) and isinstance(times, Instants)
    columns = {name: column[index] for name, column in table.columns.items()}
    return FeatureTable(Uuids(ids.raw[index]), Uuids(keys.raw[index]), Instants(times.raw[index]), columns)


def occurrences(
    session: Session, shop: Shop, rules: Sequence[LiveRule], since: datetime, until: datetime
) -> Iterator[Occurrences]:
    """Everything of since < t <= until (shop time) that asks one of `rules`, in order of time, in parts.

    Where money or executions are limited a part is an hour at most: within one the most valuable go first.
    """
    span = timedelta(hours=1) if any(_is_rationed(live) for live in rules) else None
    instants = _fire_times(shop, rules, since, until)
    streams = [
        _events(session, shop, rules, since, until),
        *_misses(session, shop, rules, since, until),
        *_segment_moves(session, shop, rules, since, until),
    ]
    groups = _Groups(session, shop, rules, since)
    before = since
    # by the day, so that different kinds of triggers stay together in time
    days = {since + timedelta(days=number) for number in range(1, (until - since).days + 1)}
    for at in sorted({*instants, *groups.looks(since, until), *days, until}):
        for stream in streams:
            yield from _between(stream, before, at, span)
        everyone = features.compute_all(session, shop.id, at) if at in instants or groups.is_asked(at) else None
        if everyone is not None:
            if groups.is_asked(at):
                yield from groups.moves(everyone, at)
            if at in instants:
                yield from _everybody(everyone, at, instants[at])
        before = at


def _fire_times(
    shop: Shop, rules: Sequence[LiveRule], since: datetime, until: datetime
) -> Mapping[datetime, frozenset[UUID]]:
    """Each due instant with the rules that come due then. Hours of the customers' own zones are the shop's here."""
    found: dict[datetime, frozenset[UUID]] = {}
    for live in rules:
        if live.rule.when.schedule is not None:
            for at in recurrence.fire_times(live.rule.when.schedule, shop.time_zone, since, until):
                found[at] = found.get(at, frozenset()) | {live.rule_id}
    return found


def _everybody(table: FeatureTable, at: datetime, rule_ids: frozenset[UUID]) -> Iterator[Occurrences]:
    for start in range(0, len(table), PART):
        part = table.part(start, start + PART)
        ids, keys, times = part.customer_ids, part.random_keys, part.as_of
        assert isinstance(ids, Uuids) and isinstance(keys, Uuids) and isinstance(times, Instants)
        yield Occurrences(ids, keys, times, None, (SCHEDULE,), rule_ids=rule_ids, table=part)


def _events(
    session: Session, shop: Shop, rules: Sequence[LiveRule], since: datetime, until: datetime
) -> Occurrences | None:
    types = sorted({name for live in rules for name in live.rule.when.events})
    if not types:
        return None
    values = {"shop": shop.id, "types": types, "since": since, "until": until}
    rows = wire.copy_out(session, _EVENTS, values, _ROW, bulk=True)
    return _ordered(rows, tuple(types))


def _misses(
    session: Session, shop: Shop, rules: Sequence[LiveRule], since: datetime, until: datetime
) -> list[Occurrences | None]:
    found = []
    for live in rules:
        missed = live.rule.when.missed
        if missed is not None:
            values = {
                "shop": shop.id, "types": list(missed.events), "goals": list(missed.goals), "within": missed.within,
                "since": since, "until": until,
            }  # fmt: skip
            rows = wire.copy_out(session, _MISSES, values, _ROW)
            found.append(_ordered(rows, (MISSED,), frozenset({live.rule_id})))
    return found


def _ordered(
    rows: np.ndarray, types: tuple[str, ...], rule_ids: frozenset[UUID] = frozenset(), group: str | None = None
) -> Occurrences | None:
    if not len(rows):
        return None
    times = Instants.of_wire(rows["at"])
    order = np.argsort(times.raw, kind="stable")
    return Occurrences(
        Uuids(rows["customer_id"][order]),
        Uuids(rows["random_key"][order]),
        Instants(times.raw[order]),
        Uuids(rows["event_id"][order]),
        types,
        rows["type"][order].astype(np.int64) - 1,
        rule_ids,
        group,
    )


def _is_rationed(live: LiveRule) -> bool:
    return live.budget_id is not None or live.strategy.limits.executions_per_day is not None


def _between(
    stream: Occurrences | None, after: datetime, until: datetime, span: timedelta | None
) -> Iterator[Occurrences]:
    if stream is None:
        return
    times = stream.at.raw
    low, high = (int(np.searchsorted(times, wire.microseconds(at), side="right")) for at in (after, until))
    while low < high:
        stop = min(low + PART, high)
        if span is not None:
            hour = span // timedelta(microseconds=1)
            stop = min(stop, int(np.searchsorted(times, (times[low] // hour + 1) * hour)))
        yield stream.rows(np.arange(low, stop))
        low = stop


class _Groups:
    """Who comes under a cluster's label and who leaves it, by today's clustering, looked at once a day."""

    def __init__(self, session: Session, shop: Shop, rules: Sequence[LiveRule], since: datetime):
        self._session, self._shop = session, shop
        asked = {live.rule.when.entered or live.rule.when.left or "" for live in rules}
        self._labels = {one.partition(".")[2] for one in asked if one.startswith("cluster.")}
        self._rules = rules
        self._since = since
        self._before: dict[bytes, str | None] = {}
        self._began = False

    def looks(self, since: datetime, until: datetime) -> Iterator[datetime]:
        at = since + timedelta(days=1)
        while self._labels and at <= until:
            yield at
            at += timedelta(days=1)

    def is_asked(self, at: datetime) -> bool:
        return bool(self._labels) and (at - self._since) % timedelta(days=1) == timedelta(0)

    def moves(self, table: FeatureTable, at: datetime) -> Iterator[Occurrences]:
        clusters = membership.assign(self._session, self._shop.id, table).clusters
        ids = table.customer_ids
        assert isinstance(ids, Uuids)
        now = {
            key.tobytes(): None if one is None else str(one["label_key"])
            for key, one in zip(ids.raw, clusters, strict=True)
        }
        if self._began:
            for label in sorted(self._labels):
                came = np.array([now[k] == label and self._before.get(k) != label for k in now], np.bool_)
                went = np.array([now[k] != label and self._before.get(k) == label for k in now], np.bool_)
                yield from self._moved(table, "cluster.entered", f"cluster.{label}", came)
                yield from self._moved(table, "cluster.left", f"cluster.{label}", went)
        self._before, self._began = now, True

    def _moved(self, table: FeatureTable, kind: str, group: str, mask: np.ndarray) -> Iterator[Occurrences]:
        index = np.flatnonzero(mask)
        if len(index):
            part = taken(table, index)
            ids, keys, times = part.customer_ids, part.random_keys, part.as_of
            assert isinstance(ids, Uuids) and isinstance(keys, Uuids) and isinstance(times, Instants)
            yield Occurrences(ids, keys, times, None, (kind,), group=group, table=part)


_SEGMENT_MOVES = """
SELECT m.customer_id, c.random_key, m.{moment}, c.id, 1::int2 FROM segment_members m
JOIN segments s ON s.shop_id = m.shop_id AND s.id = m.segment_id
JOIN customers c ON c.shop_id = m.shop_id AND c.id = m.customer_id
WHERE m.shop_id = %(shop)s AND s.key = %(key)s AND c.merged_into IS NULL
  AND m.{moment} > %(since)s AND m.{moment} <= %(until)s
"""


def _segment_moves(
    session: Session, shop: Shop, rules: Sequence[LiveRule], since: datetime, until: datetime
) -> list[Occurrences | None]:
    """Each customer's newest entering of a segment and newest leaving: earlier ones are not kept."""
    found = []
    for live in rules:
        for group, kind, moment in (
            (live.rule.when.entered, "segment.entered", "since"), (live.rule.when.left, "segment.left", "left_at"),
        ):  # fmt: skip
            if group is not None and group.startswith("segment."):
                values = {"shop": shop.id, "key": group.partition(".")[2], "since": since, "until": until}
                rows = wire.copy_out(session, _SEGMENT_MOVES.format(moment=moment), values, _ROW)
                ordered = _ordered(rows, (kind,), group=group)
                found.append(None if ordered is None else replace(ordered, event_ids=None))
    return found


_READ = text("""
SELECT id, source, source_id, type, name, occurred_at, received_at, properties FROM events
WHERE shop_id = :shop AND id = ANY(:ids)
""")


def events(session: Session, shop_id: UUID, ids: Uuids) -> dict[UUID, Event]:
    """The events themselves, with their properties."""
    rows = session.execute(_READ, {"shop": shop_id, "ids": list(ids)})
    return {
        row.id: Event(
            row.id,
            row.source,
            row.source_id,
            row.type,
            row.occurred_at,
            row.received_at,
            {},
            row.properties,
            name=row.name,
        )
        for row in rows
    }


def placeholder(event_id: UUID, type_: str, at: datetime) -> Event:
    """An event of whose properties nobody asks."""
    properties: dict[str, Any] = {}
    return Event(event_id, "replay", str(event_id), type_, at, at, {}, properties)
