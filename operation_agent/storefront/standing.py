"""What stands of all that was told of a thing: a join, so that neither order, repetition nor batching matters. Pure.

- Of each column the newest saying stands, by the telling's time and, at one instant, by the digest of all it says:
  so two full tellings of one moment are never mixed, and a telling that leaves a column out says nothing of it.
- Deleted is for ever; the earliest deletion counts. A thing whose key may return (`Kind.returns`) is gone when it was
  deleted no earlier than it was last heard of.
- A list of all of a parent's things is heard of each thing on it. Who is not on the newest list, and was told of no
  later than that, is gone: since when cannot be known, so `deleted_at` is when it was last heard of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from operation_agent.kit.ids import digest

from .records import Kind, Record, checked_values

Version = tuple[datetime, str]
"""When a telling was true, and the digest of what it said (hexadecimal)."""
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class State:
    """What stands of one thing. `columns`: of every column told its newest version and value. `version`: of its newest
    telling. `listed_at`, `removed_at`: the newest list that has it, and when it was deleted."""

    columns: dict[str, tuple[Version, Any]] = field(default_factory=dict)
    version: Version | None = None
    listed_at: datetime | None = None
    removed_at: datetime | None = None

    @property
    def heard_at(self) -> datetime | None:
        """When it was last told of or listed."""
        return _latest(self.version[0] if self.version else None, self.listed_at)

    def value(self, column: str) -> Any:
        known = self.columns.get(column)
        return None if known is None else known[1]


def of_record(record: Record) -> State:
    """Raises Rejected for values that its kind does not have."""
    at = record.updated_at.astimezone(UTC)
    if record.deleted:
        return State(removed_at=at)
    values = checked_values(record)
    told = orjson.dumps(values, option=orjson.OPT_SORT_KEYS).decode()
    version = (at, digest(record.kind, told).hex())
    return State({name: (version, value) for name, value in values.items()}, version)


def join(kind: Kind, one: State, other: State) -> State:
    """Both: commutative, associative, and the same again changes nothing."""
    columns = dict(one.columns)
    for name, said in other.columns.items():
        known = columns.get(name)
        if known is None or said[0] > known[0]:
            columns[name] = said
    version = one.version if other.version is None else other.version
    if one.version is not None and other.version is not None:
        version = max(one.version, other.version)
    choose = _latest if kind.returns else _earliest
    return State(
        columns, version, _latest(one.listed_at, other.listed_at), choose(one.removed_at, other.removed_at)
    )  # fmt: skip


def gone_since(kind: Kind, state: State, parent_listed_at: datetime | None) -> datetime | None:
    """Since when a thing is gone, or last heard of before it was; None: it is there. `parent_listed_at`: the newest
    list of all the things of its parent."""
    heard = state.heard_at
    removed = state.removed_at
    if removed is not None and (not kind.returns or heard is None or removed >= heard):
        return removed
    if parent_listed_at is None or heard is None:
        return None
    told = state.version[0] if state.version else _NEVER
    is_missed = parent_listed_at > (state.listed_at or _NEVER) and parent_listed_at >= told
    return heard if is_missed else None


def exceptions(kind: Kind, state: State) -> dict[str, list[str] | None]:
    """The columns whose telling is another than the thing's newest: what `told` holds. null: never told."""
    found: dict[str, list[str] | None] = {}
    for name in kind.columns:
        known = state.columns.get(name)
        if known is None:
            found[name] = None
        elif known[0] != state.version:
            found[name] = [known[0][0].isoformat(), known[0][1]]
    return found


def restored(
    kind: Kind,
    values: Mapping[str, Any],
    version: Version | None,
    told: Mapping[str, list[str] | None],
    listed_at: datetime | None,
    removed_at: datetime | None,
) -> State:
    """The inverse of `exceptions`."""
    columns: dict[str, tuple[Version, Any]] = {}
    for name in kind.columns if version is not None else ():
        if name in told:
            said = told[name]
            if said is not None:
                columns[name] = ((datetime.fromisoformat(said[0]), said[1]), values[name])
        elif version is not None:
            columns[name] = (version, values[name])
    return State(columns, version, listed_at, removed_at)


def _latest(one: datetime | None, other: datetime | None) -> datetime | None:
    return max(one, other) if one is not None and other is not None else one or other


def _earliest(one: datetime | None, other: datetime | None) -> datetime | None:
    return min(one, other) if one is not None and other is not None else one or other
