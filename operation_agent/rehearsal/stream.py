"""What set rules off in the past: every event, due time, missed goal and move between groups of a span, in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from operation_agent.strategies import calendar
from operation_agent.strategies.live import LiveRule
from rules import recurrence

from .index import Index, Ints
from .screen import Screen, Source, names_told

PART = 20_000
"""Occurrences held against the rules at a time."""
FEW = 1 / 8
"""Of everybody: up to this share features are looked up for each, above it computed for all at once. By
bench/backtest.py a look-up costs about eight times as much."""

_ROW = wire.row_type({"customer_id": "uuid", "random_key": "uuid", "at": "timestamptz", "event_id": "uuid",
                      "type": "int2"})  # fmt: skip

_EVENTS = """
SELECT t.customer_id, c.random_key, t.occurred_at, t.event_id,
       array_position(CAST(%(types)s AS text[]), t.type)::int2
FROM timeline t JOIN customers c ON c.shop_id = t.shop_id AND c.id = t.customer_id
WHERE t.shop_id = %(shop)s AND c.merged_into IS NULL AND t.type = ANY(%(types)s)
  AND t.occurred_at > %(since)s AND t.occurred_at <= %(until)s
"""

# as journeys.watches: a watch begins when the rule is live, and each event begins one of its own
_MISSES = """
SELECT t.customer_id, c.random_key, t.occurred_at + %(within)s::interval, t.event_id, 1::int2
FROM timeline t JOIN customers c ON c.shop_id = t.shop_id AND c.id = t.customer_id
WHERE t.shop_id = %(shop)s AND c.merged_into IS NULL AND t.type = ANY(%(types)s)
  AND t.occurred_at > %(since)s::timestamptz
  AND t.occurred_at <= %(until)s::timestamptz - %(within)s::interval
  AND NOT EXISTS (SELECT 1 FROM timeline g WHERE g.shop_id = t.shop_id AND g.customer_id = t.customer_id
                  AND g.occurred_at > t.occurred_at AND g.occurred_at <= t.occurred_at + %(within)s::interval
                  AND g.type = ANY(%(goals)s))
"""

_SEGMENT_MOVES = """
SELECT m.customer_id, c.random_key, m.{moment}, c.id, 1::int2 FROM segment_members m
JOIN segments s ON s.shop_id = m.shop_id AND s.id = m.segment_id
JOIN customers c ON c.shop_id = m.shop_id AND c.id = m.customer_id
WHERE m.shop_id = %(shop)s AND s.key = %(key)s AND c.merged_into IS NULL
  AND m.{moment} > %(since)s AND m.{moment} <= %(until)s
"""


@dataclass(frozen=True, slots=True)
class Occurrences:
    """Row by row, in order: a customer, a moment (shop time), the event that stands behind it (where its source has
    one), and `sources[codes[row]]`, what it is. `table`: their features, when somebody has computed them already."""

    customer_ids: Uuids
    random_keys: Uuids
    at: Instants
    event_ids: Uuids | None
    sources: tuple[Source, ...]
    codes: Ints
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
            self.sources,
            self.codes[index],
            None if self.table is None else taken(self.table, index),
        )

    def source_of(self, row: int) -> Source:
        return self.sources[int(self.codes[row])]


def taken(table: FeatureTable, index: np.ndarray) -> FeatureTable:
    """Some rows of a table of features."""
    return table.take(index)  # type: ignore[arg-type]


class Stream:
    """Everything of since < t <= until (shop time) that asks one of `rules`. `looked_at`: how many that were, those
    among them whom no rule can take. Where money or executions are limited a part is an hour at most: within one the
    most valuable go first."""

    def __init__(self, session: Session, shop: Shop, rules: Sequence[LiveRule], since: datetime, until: datetime):
        self.session, self.shop, self.rules, self.since, self.until = session, shop, rules, since, until
        self.looked_at = 0
        self._span = timedelta(hours=1) if any(_is_rationed(live) for live in rules) else None
        self._due = _Calendar(session, shop, rules, since, until)
        self._groups = _Groups(session, shop, rules, since)
        asks_everybody = bool(self._due.instants)
        index = None
        if asks_everybody or names_told(rules):
            index = Index(session, shop, names_told(rules), until, self._due.zones)
        self.screen = Screen(rules, index)

    def parts(self) -> Iterator[Occurrences]:
        """In order of time, at most PART rows at a time, without those of whom memory tells that nobody takes them."""
        things = self._screened(_merged(self._things()))
        before = self.since
        for at in sorted({*self._due.instants, *self._groups.looks(self.since, self.until), self.until}):
            yield from _between(things, before, at, self._span)
            if self._groups.is_asked(at):
                yield from self._moves(at)
            if at in self._due.instants:
                yield from self._everybody(at)
            before = at

    # -- what happened ------------------------------------------------------------------------------------------------

    def _things(self) -> list[Occurrences]:
        types = sorted({name for live in self.rules for name in live.rule.when.events})
        found = []
        if types:
            values: dict[str, Any] = {"types": types}
            found.append(self._read(_EVENTS, values, tuple(Source(name) for name in types)))
        for live in self.rules:
            when = live.rule.when
            if when.missed is not None:
                missed = when.missed
                values = {"types": list(missed.events), "goals": list(missed.goals), "within": missed.within}
                found.append(self._read(_MISSES, values, (Source(MISSED, frozenset({live.rule_id})),)))
        return [*found, *self._segment_moves()]

    def _segment_moves(self) -> Iterator[Occurrences]:
        """Each customer's newest entering of a segment and newest leaving: earlier ones are not kept."""
        whens = [live.rule.when for live in self.rules]
        moves = {(one.entered, "entered", "since") for one in whens} | {(one.left, "left", "left_at") for one in whens}
        for group, way, moment in sorted(move for move in moves if move[0] is not None):
            if group is not None and group.startswith("segment."):
                source = Source(f"segment.{way}", group=group, has_event=False)
                known = {"key": group.partition(".")[2]}
                yield self._read(_SEGMENT_MOVES.format(moment=moment), known, (source,))

    def _read(self, query: str, values: Mapping[str, Any], sources: tuple[Source, ...]) -> Occurrences:
        known = {"shop": self.shop.id, "since": self.since, "until": self.until, **values}
        rows = wire.copy_out(self.session, query, known, _ROW, bulk=query is _EVENTS)
        return Occurrences(
            Uuids(rows["customer_id"]), Uuids(rows["random_key"]), Instants.of_wire(rows["at"]),
            Uuids(rows["event_id"]), sources, rows["type"].astype(np.int64) - 1,
        )  # fmt: skip

    def _screened(self, things: Occurrences) -> Occurrences:
        """Without whom no rule can take, by what is in memory."""
        self.looked_at += len(things)
        index = self.screen.index
        if index is None or not len(things):
            return things
        numbers = index.numbers_of(things.customer_ids.raw)
        keep = np.zeros(len(things), np.bool_)
        for code, source in enumerate(things.sources):
            mine = np.flatnonzero(things.codes == code)
            if len(mine):
                keep[mine] = self.screen.by_index(source, numbers[mine], things.at.raw[mine])
        return things.rows(np.flatnonzero(keep))

    # -- everybody at a due time --------------------------------------------------------------------------------------

    def _everybody(self, at: datetime) -> Iterator[Occurrences]:
        index = self.screen.index
        assert index is not None
        moment = wire.microseconds(at)
        there = np.flatnonzero(index.first_seen <= moment)
        everyone: FeatureTable | None = None
        for rule_ids, numbers in self._due.asked(at, there, index):
            self.looked_at += len(numbers)
            source = Source(SCHEDULE, rule_ids, has_event=False)
            mask = self.screen.by_index(source, numbers, np.full(len(numbers), moment))
            few = numbers[mask]
            if len(few) > FEW * len(index):
                everyone = everyone or features.compute_all(self.session, self.shop.id, at)
                yield from self._all_of(everyone, few, source)
            else:
                yield from _in_parts(index, few, moment, source)

    def _all_of(self, everyone: FeatureTable, numbers: Ints, source: Source) -> Iterator[Occurrences]:
        index = self.screen.index
        assert index is not None
        wanted = np.zeros(len(index) + 1, np.bool_)
        wanted[numbers] = True
        ids = everyone.customer_ids
        assert isinstance(ids, Uuids)
        rows = np.flatnonzero(wanted[index.numbers_of(ids.raw)])
        for start in range(0, len(rows), PART):
            yield _of_table(taken(everyone, rows[start : start + PART]), source)

    def _moves(self, at: datetime) -> Iterator[Occurrences]:
        everyone = features.compute_all(self.session, self.shop.id, at)
        for found in self._groups.moves(everyone):
            self.looked_at += len(found)
            yield found


def _in_parts(index: Index, numbers: Ints, moment: int, source: Source) -> Iterator[Occurrences]:
    for start in range(0, len(numbers), PART):
        some = numbers[start : start + PART]
        yield Occurrences(
            Uuids(index.ids.raw[some]), Uuids(index.keys.raw[some]), Instants(np.full(len(some), moment)), None,
            (source,), np.zeros(len(some), np.int64),
        )  # fmt: skip


def _of_table(table: FeatureTable, source: Source) -> Occurrences:
    ids, keys, times = table.customer_ids, table.random_keys, table.as_of
    assert isinstance(ids, Uuids) and isinstance(keys, Uuids) and isinstance(times, Instants)
    return Occurrences(ids, keys, times, None, (source,), np.zeros(len(table), np.int64), table)


def _merged(several: Sequence[Occurrences]) -> Occurrences:
    """All of them in one order: of their times, then of what stays the same in every run."""
    if not several:
        nothing = np.zeros(0, "V16")
        return Occurrences(Uuids(nothing), Uuids(nothing), Instants(np.zeros(0, np.int64)), Uuids(nothing), (),
                           np.zeros(0, np.int64))  # fmt: skip
    offsets = np.cumsum([0, *(len(one.sources) for one in several[:-1])])
    events = [one.event_ids for one in several if one.event_ids is not None]
    whole = Occurrences(
        Uuids(np.concatenate([one.customer_ids.raw for one in several])),
        Uuids(np.concatenate([one.random_keys.raw for one in several])),
        Instants(np.concatenate([one.at.raw for one in several])),
        Uuids(np.concatenate([one.raw for one in events])),
        tuple(source for one in several for source in one.sources),
        np.concatenate([one.codes + offset for one, offset in zip(several, offsets, strict=True)]),
    )
    keys = whole.random_keys.raw.view(">u8").reshape(-1, 2)
    return whole.rows(np.lexsort((whole.codes, keys[:, 1], keys[:, 0], whole.at.raw)))


def _is_rationed(live: LiveRule) -> bool:
    return live.budget_id is not None or live.strategy.limits.executions_per_day is not None


def _between(things: Occurrences, after: datetime, until: datetime, span: timedelta | None) -> Iterator[Occurrences]:
    times = things.at.raw
    low, high = (int(np.searchsorted(times, wire.microseconds(at), side="right")) for at in (after, until))
    while low < high:
        stop = min(low + PART, high)
        if span is not None:
            hour = span // timedelta(microseconds=1)
            stop = min(stop, int(np.searchsorted(times, (times[low] // hour + 1) * hour)))
        yield things.rows(np.arange(low, stop))
        low = stop


class _Calendar:
    """When scheduled rules come due, and for whom: as strategies.calendar.due_runs has it."""

    def __init__(self, session: Session, shop: Shop, rules: Sequence[LiveRule], since: datetime, until: datetime):
        local = [live for live in rules if live.rule.when.schedule and live.rule.when.time_zone == "customer"]
        self.zones: list[str] = calendar.lived_in(session, shop) if local else []
        self._home = self.zones.index(shop.time_zone) + 1 if local else 0
        self.instants: dict[datetime, dict[str | None, frozenset[UUID]]] = {}
        for live in rules:
            schedule = live.rule.when.schedule
            if schedule is None:
                continue
            for zone in self.zones if live in local else [None]:
                for at in recurrence.fire_times(schedule, zone or shop.time_zone, since, until):
                    asks = self.instants.setdefault(at, {})
                    asks[zone] = asks.get(zone, frozenset()) | {live.rule_id}

    def asked(self, at: datetime, numbers: Ints, index: Index) -> Iterator[tuple[frozenset[UUID], Ints]]:
        """Customers with the rules that ask them then; nobody twice."""
        asks = self.instants[at]
        everywhere = asks.get(None, frozenset())
        if not self.zones:
            yield everywhere, numbers
            return
        codes = np.where(index.zones[numbers] == 0, self._home, index.zones[numbers])
        by_rules: dict[frozenset[UUID], list[int]] = {}
        for code, zone in enumerate(self.zones, start=1):
            by_rules.setdefault(everywhere | asks.get(zone, frozenset()), []).append(code)
        for rule_ids, wanted in by_rules.items():
            if rule_ids:
                yield rule_ids, numbers[np.isin(codes, wanted)]


class _Groups:
    """Who comes under a cluster's label and who leaves it, by today's clustering, looked at once a day."""

    def __init__(self, session: Session, shop: Shop, rules: Sequence[LiveRule], since: datetime):
        self._session, self._shop = session, shop
        asked = {group for live in rules for group in (live.rule.when.entered, live.rule.when.left) if group}
        self._labels = {one.partition(".")[2] for one in asked if one.startswith("cluster.")}
        self._since = since
        self._before: dict[bytes, str | None] = {}
        self._began = False

    def looks(self, since: datetime, until: datetime) -> Iterator[datetime]:
        at = since
        while self._labels and at <= until:
            yield at
            at += timedelta(days=1)

    def is_asked(self, at: datetime) -> bool:
        return bool(self._labels) and (at - self._since) % timedelta(days=1) == timedelta(0)

    def moves(self, table: FeatureTable) -> Iterator[Occurrences]:
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
                for way, mask in (("left", went), ("entered", came)):
                    if mask.any():
                        source = Source(f"cluster.{way}", group=f"cluster.{label}", has_event=False)
                        yield _of_table(taken(table, np.flatnonzero(mask)), source)
        self._before, self._began = now, True


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
