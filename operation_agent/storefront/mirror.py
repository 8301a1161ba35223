"""The shop's own things as its storefront tells of them, in our tables: whatever comes late, twice or out of order.

What stands is `standing`'s matter. Here: a batch of thousands in a few statements a kind, rows locked in the order of
their keys. A thing that comes while its parent is being listed would be overlooked by both writers, so parents are
locked first: shared by who tells of a thing, alone by who lists them all; by buckets, since locks are not without end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID
from zlib import crc32

import orjson
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.events.event import Event
from operation_agent.store.shops import Shop

from . import records, standing
from .records import KINDS, Complete, Kind, Record, Telling
from .standing import State

TYPE = "storefront.changed"
_CHILDREN: dict[str, list[str]] = {}
for _kind in KINDS.values():
    if _kind.of is not None:
        _CHILDREN.setdefault(_kind.of, []).append(_kind.name)
Key = tuple[str, ...]
_BUCKETS = 32


@dataclass(slots=True)
class Count:
    """Of one kind: tellings taken, things new to us, things that changed (the new ones apart), and things gone."""

    told: int = 0
    new: int = 0
    changed: int = 0
    gone: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """What a call did, by kind."""

    counts: Mapping[str, Count] = field(default_factory=dict)


def apply(session: Session, shop: Shop, events: Sequence[Event]) -> Written:
    """Write what `storefront.changed` events tell. Raises Rejected for tellings that cannot be stored."""
    tellings = [
        telling
        for event in events
        if event.type == TYPE
        for telling in records.from_json(event.properties.get("tellings") or ())
    ]
    return write(session, shop, tellings)


def write(session: Session, shop: Shop, tellings: Sequence[Telling]) -> Written:
    """Write tellings, of whatever kinds, in any order, again or not. Best in batches of some thousands.

    Raises Rejected (`records.check` says for which) before anything is written.
    """
    if not tellings:
        return Written()
    for one in tellings:
        records.check(one)
    batches = {name: _Batch(kind) for name, kind in KINDS.items()}
    for one in tellings:
        batches[one.kind].take(one)
        if isinstance(one, Record) and one.deleted:
            for child in _CHILDREN.get(one.kind, ()):  # a deleted parent has no things any more
                batches[child].listed(one.key[0], one.updated_at)
    used = [batch for batch in batches.values() if batch.states or batch.lists]
    _lock_parents(session, shop.id, used)
    for batch in used:
        _write_kind(session, shop.id, batch)
    return Written({batch.kind.name: batch.count for batch in used})


def known(session: Session, shop_id: UUID, kind: str, keys: Iterable[Key]) -> dict[Key, datetime]:
    """Of those of these things that were told of (or deleted): when, at last. One that was only listed is not known."""
    form = KINDS[kind]
    wanted = sorted(set(keys))
    if not wanted:
        return {}
    names = ", ".join(f"t.{name}" for name in form.key)
    rows = session.execute(
        text(
            f"SELECT {names}, GREATEST(t.source_updated_at, t.removed_at) AS at FROM {form.table} t"  # noqa: S608 - our names
            f" JOIN unnest({_arrays(form)}) AS k ({', '.join(form.key)}) ON {_same(form, 't', 'k')}"
            " WHERE t.shop_id = :shop AND GREATEST(t.source_updated_at, t.removed_at) IS NOT NULL"
        ),
        {"shop": shop_id, **_key_columns(form, wanted)},
    )
    return {tuple(row[:-1]): row[-1] for row in rows}


# -- a batch ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Batch:
    """What a call tells of one kind: what it says of each thing, and when each parent's things were listed."""

    kind: Kind
    states: dict[Key, State] = field(default_factory=dict)
    lists: dict[str, datetime] = field(default_factory=dict)
    count: Count = field(default_factory=Count)

    def take(self, one: Telling) -> None:
        self.count.told += 1
        if isinstance(one, Record):
            self.put(one.key, standing.of_record(one))
        else:
            self._list(one)

    def put(self, key: Key, state: State) -> None:
        known = self.states.get(key)
        self.states[key] = state if known is None else standing.join(self.kind, known, state)

    def _list(self, one: Complete) -> None:
        self.listed(one.parent[1], one.updated_at)
        for key in one.keys:
            self.put(key, State(listed_at=one.updated_at))

    def listed(self, parent: str, at: datetime) -> None:
        self.lists[parent] = max(self.lists.get(parent, at), at)

    def parent_of(self, key: Key, state: State) -> str | None:
        column = self.kind.parent
        if column is None:
            return None
        found = key[self.kind.key.index(column)] if column in self.kind.key else state.value(column)
        return str(found) if found is not None else None

    def parents(self) -> set[str]:
        """Every parent that this batch speaks of, by a list or by one of its things."""
        named = {self.parent_of(key, state) for key, state in self.states.items()}
        return {parent for parent in named if parent is not None} | self.lists.keys()


_LOCK = text("""
SELECT CASE WHEN b.alone THEN (SELECT 1 FROM pg_advisory_xact_lock(b.key))
            ELSE (SELECT 1 FROM pg_advisory_xact_lock_shared(b.key)) END
FROM (SELECT hashtextextended('storefront:' || :shop || ':' || n, 0) AS key, alone
      FROM unnest(CAST(:buckets AS integer[]), CAST(:alone AS boolean[])) AS r (n, alone) ORDER BY n OFFSET 0) AS b
""")


def _lock_parents(session: Session, shop_id: UUID, batches: Sequence[_Batch]) -> None:
    wanted: dict[int, bool] = {}
    for batch in batches:
        for parent in batch.parents():
            bucket = crc32(f"{batch.kind.name}:{parent}".encode()) % _BUCKETS
            wanted[bucket] = wanted.get(bucket, False) or parent in batch.lists
    if wanted:
        buckets = sorted(wanted)
        session.execute(
            _LOCK, {"shop": str(shop_id), "buckets": buckets, "alone": [wanted[bucket] for bucket in buckets]}
        )


# -- one kind -----------------------------------------------------------------------------------------------------


def _write_kind(session: Session, shop_id: UUID, batch: _Batch) -> None:
    if batch.lists:
        _write_lists(session, shop_id, batch)
    lists = _lists_of(session, shop_id, batch.kind, batch.parents())
    new = _insert(session, shop_id, batch, lists)
    if batch.lists or len(new) < len(batch.states):
        _update(session, shop_id, batch, lists, new)


def _write_lists(session: Session, shop_id: UUID, batch: _Batch) -> None:
    listed = sorted(batch.lists.items())
    session.execute(
        text(
            "INSERT INTO storefront_listings AS l (shop_id, kind, parent, listed_at)"
            " SELECT :shop, :kind, r.* FROM unnest(CAST(:parents AS text[]), CAST(:at AS timestamptz[])) AS r"
            " ON CONFLICT (shop_id, kind, parent) DO UPDATE SET listed_at = EXCLUDED.listed_at"
            " WHERE l.listed_at < EXCLUDED.listed_at"
        ),
        {
            "shop": shop_id,
            "kind": batch.kind.name,
            "parents": [parent for parent, _ in listed],
            "at": [at for _, at in listed],
        },
    )


def _lists_of(session: Session, shop_id: UUID, kind: Kind, parents: Iterable[str]) -> dict[str, datetime]:
    """When the things of each of these parents were listed last."""
    wanted = sorted(parents) if kind.parent is not None else []
    if not wanted:
        return {}
    rows = session.execute(
        text(
            "SELECT l.parent, l.listed_at FROM unnest(CAST(:parents AS text[])) AS r (parent)"
            " JOIN storefront_listings l ON l.shop_id = :shop AND l.kind = :kind AND l.parent = r.parent"
        ),
        {"shop": shop_id, "kind": kind.name, "parents": wanted},
    )
    return {row.parent: row.listed_at for row in rows}


def _insert(session: Session, shop_id: UUID, batch: _Batch, lists: Mapping[str, datetime]) -> set[Key]:
    """Insert what is new to us; which things that was. Another writer's rows of the same keys are waited for."""
    kind = batch.kind
    if not batch.states:
        return set()
    rows = [_row(batch, shop_id, key, batch.states[key], lists) for key in sorted(batch.states)]
    made = session.execute(
        text(
            f"INSERT INTO {kind.table} SELECT *"  # noqa: S608 - our names
            f" FROM jsonb_populate_recordset(NULL::{kind.table}, CAST(:rows AS jsonb))"
            f" ON CONFLICT DO NOTHING RETURNING {', '.join(kind.key)}, deleted_at IS NOT NULL AS is_gone"
        ),
        {"rows": orjson.dumps(rows).decode()},
    ).all()
    batch.count.new += len(made)
    batch.count.gone += sum(row.is_gone for row in made)
    return {tuple(row[:-1]) for row in made}


def _row(batch: _Batch, shop_id: UUID, key: Key, state: State, lists: Mapping[str, datetime]) -> dict[str, Any]:
    kind = batch.kind
    at, digest = state.version or (None, None)
    listed = lists.get(batch.parent_of(key, state) or "")
    return {
        "shop_id": str(shop_id),
        **dict(zip(kind.key, key, strict=True)),
        **{name: state.value(name) for name in kind.columns},
        "source_updated_at": at,
        "digest": digest,
        "told": standing.exceptions(kind, state) if at is not None else {},
        "listed_at": state.listed_at,
        "removed_at": state.removed_at,
        "deleted_at": standing.gone_since(kind, state, listed),
    }


_LOAD = """
WITH wanted AS MATERIALIZED (
  SELECT {keys} FROM unnest({arrays}) AS k ({keys}) {siblings}
)
SELECT t.* FROM {table} t JOIN wanted k ON {same} WHERE t.shop_id = :shop ORDER BY {ordered} FOR NO KEY UPDATE OF t
"""
_SIBLINGS = "UNION SELECT {keys} FROM {table} WHERE shop_id = :shop AND {parent} = ANY(CAST(:parents AS text[]))"


def _update(
    session: Session, shop_id: UUID, batch: _Batch, lists: Mapping[str, datetime], new: set[Key]
) -> None:  # fmt: skip
    """Join what was told to what stood, and look again at everything of the parents that were listed."""
    kind = batch.kind
    stood = {_key(kind, row): row for row in _load(session, shop_id, batch, new)}
    stands = {
        key: standing.join(kind, _state(kind, row), batch.states[key]) if key in batch.states else _state(kind, row)
        for key, row in stood.items()
        if key not in new
    }
    parents = {batch.parent_of(key, state) or "" for key, state in stands.items()}
    lists = {**lists, **_lists_of(session, shop_id, kind, parents - lists.keys())}  # of things told of without theirs
    changed = []
    for key, state in stands.items():
        row, was = _row(batch, shop_id, key, state, lists), stood[key]
        if state != _state(kind, was) or row["deleted_at"] != was.deleted_at:
            changed.append(row)
            batch.count.gone += row["deleted_at"] is not None and was.deleted_at is None
    batch.count.changed += len(changed)
    if changed:
        _store(session, shop_id, kind, changed)


_LOAD = """
WITH wanted AS MATERIALIZED (SELECT {keys} FROM unnest({arrays}) AS k ({keys}) {siblings})
SELECT t.* FROM {table} t JOIN wanted k ON {same} WHERE t.shop_id = :shop ORDER BY {ordered} FOR NO KEY UPDATE OF t
"""
_SIBLINGS = "UNION SELECT {keys} FROM {table} WHERE shop_id = :shop AND {parent} = ANY(CAST(:parents AS text[]))"


def _load(session: Session, shop_id: UUID, batch: _Batch, new: set[Key]) -> Sequence[Row[Any]]:
    kind = batch.kind
    keys = ", ".join(kind.key)
    siblings = _SIBLINGS.format(keys=keys, table=kind.table, parent=kind.parent) if batch.lists else ""
    statement = _LOAD.format(
        keys=keys, arrays=_arrays(kind), siblings=siblings, table=kind.table, same=_same(kind, "t", "k"),
        ordered=", ".join(f"t.{name}" for name in kind.key),
    )  # fmt: skip
    values = {"shop": shop_id, **_key_columns(kind, sorted(batch.states.keys() - new))}
    if batch.lists:
        values["parents"] = sorted(batch.lists)
    return session.execute(text(statement), values).all()


def _store(session: Session, shop_id: UUID, kind: Kind, rows: Sequence[Mapping[str, Any]]) -> None:
    names = [*kind.columns, "source_updated_at", "digest", "told", "listed_at", "removed_at", "deleted_at"]
    session.execute(
        text(
            f"UPDATE {kind.table} t SET {', '.join(f'{name} = r.{name}' for name in names)}"  # noqa: S608 - our names
            f" FROM jsonb_populate_recordset(NULL::{kind.table}, CAST(:rows AS jsonb)) AS r"
            f" WHERE t.shop_id = :shop AND {_same(kind, 't', 'r')}"
        ),
        {"shop": shop_id, "rows": orjson.dumps(rows).decode()},
    )


def _key(kind: Kind, row: Row[Any]) -> Key:
    return tuple(getattr(row, name) for name in kind.key)


def _state(kind: Kind, row: Row[Any]) -> State:
    version = (row.source_updated_at, row.digest.hex) if row.source_updated_at is not None else None
    return standing.restored(kind, row._asdict(), version, row.told, row.listed_at, row.removed_at)


def _arrays(kind: Kind) -> str:
    return ", ".join(f"CAST(:key_{name} AS text[])" for name in kind.key)


def _key_columns(kind: Kind, keys: Sequence[Key]) -> dict[str, Any]:
    return {f"key_{name}": [key[place] for key in keys] for place, name in enumerate(kind.key)}


def _same(kind: Kind, one: str, other: str) -> str:
    return " AND ".join(f"{one}.{name} = {other}.{name}" for name in kind.key)
