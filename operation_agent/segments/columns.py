"""What is known of customers at moments, as the columns that conditions are evaluated over; one statement a family.

Families: `customer.*` (of the feature table given), `cluster.*`, `trait.*`, `consent.*`, `segment.*`, `strategy.*`,
`random.*`, histories of events, and the instants `<field>.since`. Values before a trigger are in `before`; properties
of the trigger itself are the decision's to add (`decision.facts`). Only what the conditions ask for is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.customers import event_history, wire
from operation_agent.customers.wire import Instants
from operation_agent.events.columns import objects
from operation_agent.kit.ids import uniform
from operation_agent.store.shops import Shop
from rules.columns import Labels
from rules.condition import History
from rules.evaluate import AT, CompiledCondition

Columns = dict[str, Any]
Floats = NDArray[np.float64]
Clusters = Sequence[Mapping[str, Any] | None]

SINCE = ".since"
BEFORE = "before:"
_WITH_SINCE = ("cluster", "segment", "strategy")


class Table(Protocol):
    """What is needed of customers.features.FeatureTable: row i is a customer at a moment of shop time."""

    @property
    def customer_ids(self) -> Sequence[UUID]: ...
    @property
    def random_keys(self) -> Sequence[UUID]: ...
    @property
    def as_of(self) -> Sequence[datetime]: ...
    @property
    def columns(self) -> dict[str, NDArray[Any]]: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """The columns that some conditions look at: `names`, and the histories among them by name."""

    names: frozenset[str]
    histories: Mapping[str, History]

    @classmethod
    def of(cls, conditions: Iterable[CompiledCondition]) -> Wanted:
        names: set[str] = set()
        histories: dict[str, History] = {}
        for one in conditions:
            names |= one.needs
            histories |= one.histories
        return cls(frozenset(names), histories)

    def now(self, family: str) -> list[str]:
        """Without the family: `segment.vip` and `segment.vip.since` are both asked for as "vip"."""
        return self._rest(family, (one for one in self.names if not one.startswith(BEFORE)))

    def before(self, family: str) -> list[str]:
        """As `now`, of the values before the trigger."""
        return self._rest(family, (one.removeprefix(BEFORE) for one in self.names if one.startswith(BEFORE)))

    @property
    def asks_before(self) -> bool:
        return any(one.startswith(BEFORE) for one in self.names)

    def _rest(self, family: str, names: Iterable[str]) -> list[str]:
        rest = {one.removeprefix(f"{family}.") for one in names if one.startswith(f"{family}.")}
        return sorted({one.removesuffix(SINCE) for one in rest} if family in _WITH_SINCE else rest)


class Rows:
    """Some customers at moments: row i is `ids[i]` (which is `customers[who[i]]`), with `keys[i]` for draws, at
    `moments[i]` (shop time; microseconds since 1970). `places`: the rows of each customer."""

    def __init__(self, ids: Sequence[UUID], keys: Sequence[UUID], times: Sequence[datetime]):
        self.ids: list[UUID] = list(ids)
        self.keys, self.times = keys, times
        instants = times if isinstance(times, Instants) else Instants.of(times)
        self.moments: Floats = instants.raw.astype(np.float64)
        self.customers = list(dict.fromkeys(self.ids))
        self.places: dict[UUID, list[int]] = {}
        for row, customer_id in enumerate(self.ids):
            self.places.setdefault(customer_id, []).append(row)
        numbers = {customer_id: number for number, customer_id in enumerate(self.customers)}
        self.who = np.fromiter((numbers[one] for one in self.ids), np.int64, len(self.ids))

    @classmethod
    def of(cls, table: Table) -> Rows:
        return cls(table.customer_ids, table.random_keys, table.as_of)

    def __len__(self) -> int:
        return len(self.ids)

    def fill(self, column: NDArray[Any], customer_id: UUID, value: Any) -> None:
        for row in self.places[customer_id]:
            column[row] = value

    def blank(self) -> Floats:
        return np.full(len(self.ids), np.nan)

    def nothing(self) -> NDArray[Any]:
        return np.full(len(self.ids), None, dtype=object)


def load(
    session: Session, shop: Shop, rows: Rows, features: Mapping[str, NDArray[Any]], clusters: Clusters | None,
    wanted: Wanted, *, counted: Mapping[str, NDArray[Any]] | None = None,
) -> Columns:  # fmt: skip
    """The `wanted` columns of `rows`, and AT. What a family does not know is missing; `event.*` and what was before the
    trigger are not here. `features` (as FeatureTable.columns) and `clusters` (as membership gives them) begin with
    these rows and may have more. `counted`: histories of these rows that are known already."""
    columns: Columns = {AT: rows.moments / 1e6}
    for name in wanted.now("customer"):
        if name in features:
            columns[f"customer.{name}"] = features[name][: len(rows)]
    columns |= _clusters(session, shop.id, rows, clusters, wanted)
    columns |= _traits(session, shop.id, rows, wanted.now("trait"))
    columns |= consents(session, shop.id, rows, wanted.now("consent"))
    for family, spans in (("segment", segment_spans), ("strategy", strategy_spans)):
        for name, span in spans(session, shop.id, rows, wanted.now(family)).items():
            columns[f"{family}.{name}"] = span.at(rows.moments)
            columns[f"{family}.{name}{SINCE}"] = span.since(rows.moments)
    for name in wanted.now("random"):
        columns[f"random.{name}"] = _random(shop, rows.keys, name)
    columns |= counted or {}
    histories = {name: one for name, one in wanted.histories.items() if name not in columns}
    if histories:
        targets = list(zip(rows.ids, rows.times, strict=True))
        columns |= event_history.compute(session, shop.id, targets, histories)
    return columns


def _random(shop: Shop, keys: Sequence[UUID], name: str) -> Floats:
    """Where each customer stands in the named draw: the same for ever, whichever rule asks."""
    return np.fromiter((uniform(shop.seed, "bucket", name, str(key)) for key in keys), np.float64, len(keys))


# -- clusters -----------------------------------------------------------------------------------------------------

CLUSTER_KEYS = {"label": "label_key", "lineage": "lineage_id"}

_SINCE_CLUSTER = text("""
SELECT customer_id, lineage_id, (extract(epoch FROM since) * 1000000)::int8 AS since,
       label_key, (extract(epoch FROM label_since) * 1000000)::int8 AS label_since
FROM cluster_members WHERE shop_id = :shop AND customer_id = ANY(CAST(:customers AS uuid[]))
""")


def cluster_value(cluster: Mapping[str, Any] | None, name: str) -> str | None:
    value = None if cluster is None else cluster.get(CLUSTER_KEYS.get(name, ""))
    return None if value is None else str(value)


def _clusters(
    session: Session, shop_id: UUID, rows: Rows, clusters: Clusters | None, wanted: Wanted
) -> Columns:  # fmt: skip
    known = list(clusters[: len(rows)]) if clusters is not None else [None] * len(rows)
    columns: Columns = {
        f"cluster.{name}": objects(cluster_value(one, name) for one in known) for name in wanted.now("cluster")
    }
    since = [name for name in CLUSTER_KEYS if f"cluster.{name}{SINCE}" in wanted.names]
    if not since:
        return columns
    found = {row.customer_id: row for row in session.execute(_SINCE_CLUSTER, _values(shop_id, rows))}
    for name in since:
        column = rows.blank()
        for row, (customer_id, cluster) in enumerate(zip(rows.ids, known, strict=True)):
            at = _cluster_since(found.get(customer_id), cluster, name)
            if at is not None and at <= rows.moments[row]:
                column[row] = at / 1e6
        columns[f"cluster.{name}{SINCE}"] = column
    return columns


def _cluster_since(member: Any, cluster: Mapping[str, Any] | None, name: str) -> int | None:
    """Since when a customer has been where it is; None when it is remembered elsewhere. A label outlives lineages."""
    if member is None or cluster is None:
        return None
    if name == "label" and member.label_key == cluster["label_key"] and member.label_since is not None:
        return int(member.label_since)
    return int(member.since) if member.lineage_id == cluster["lineage_id"] else None


# -- traits and consent -------------------------------------------------------------------------------------------


def _values(shop_id: UUID, rows: Rows) -> dict[str, Any]:
    return {"shop": shop_id, "customers": rows.customers}


def read_traits(
    session: Session, shop_id: UUID, customer_ids: Sequence[UUID], names: Sequence[str]
) -> dict[UUID, list[Any]]:
    """The named traits of customers, in order; a name with dots also leads into objects (address.city)."""
    if not names:
        return {}
    picked = ", ".join(
        f"COALESCE(traits -> CAST(:t{number} AS text), traits #> string_to_array(:t{number}, '.'))"
        for number in range(len(names))
    )
    found = session.execute(
        text(
            f"SELECT id, jsonb_build_array({picked})::text FROM customers"  # noqa: S608 - names are parameters
            " WHERE shop_id = :shop AND id = ANY(CAST(:customers AS uuid[]))"
        ),
        {"shop": shop_id, "customers": list(customer_ids)} | {f"t{number}": name for number, name in enumerate(names)},
    )
    return {customer_id: orjson.loads(said) for customer_id, said in found}


def _traits(session: Session, shop_id: UUID, rows: Rows, names: Sequence[str]) -> Columns:
    columns = {name: rows.nothing() for name in names}
    for customer_id, said in read_traits(session, shop_id, rows.customers, names).items():
        for name, value in zip(names, said, strict=True):
            rows.fill(columns[name], customer_id, tuple(value) if isinstance(value, list) else value)
    return {f"trait.{name}": column for name, column in columns.items()}


def consent_key(name: str) -> tuple[str, str]:
    """`email` is about marketing, `email.<topic>` about that topic."""
    channel, _, topic = name.partition(".")
    return channel, topic or "marketing"


_CONSENTS = """
SELECT c.customer_id, (array_position(%(keys)s::text[], c.channel || '.' || c.topic) - 1)::int4 AS place,
       (c.state = 'subscribed')::int4 AS code, c.changed_at
FROM consents c WHERE c.shop_id = %(shop)s AND c.customer_id = ANY(%(customers)s::uuid[])
  AND c.channel || '.' || c.topic = ANY(%(keys)s::text[])
"""
_CONSENT_ROW = wire.row_type({"customer_id": "uuid", "place": "int4", "code": "int4", "changed_at": "timestamptz"})
_STATES = ("unsubscribed", "subscribed")

# the newest comes last, and stands
_CONSENT_CHANGES = text("""
SELECT customer_id, state, (extract(epoch FROM changed_at) * 1000000)::int8 AS at
FROM consent_changes WHERE shop_id = :shop AND customer_id = ANY(CAST(:customers AS uuid[]))
  AND channel || '.' || topic = :key
ORDER BY changed_at, state = 'unsubscribed', event_id
""")


def consents(session: Session, shop_id: UUID, rows: Rows, names: Sequence[str], *, before: bool = False) -> Columns:
    """What each row's customer had said by its moment; with `before`, right before it. Missing: nothing yet."""
    if not names:
        return {}
    keys = [".".join(consent_key(name)) for name in names]
    found = wire.copy_out(session, _CONSENTS, {**_values(shop_id, rows), "keys": keys}, _CONSENT_ROW)
    _, places = wire.places(found["customer_id"], rows.customers)
    columns: Columns = {}
    # before a moment is at least a microsecond earlier: that is how finely times are kept
    moments = rows.moments - 1 if before else rows.moments
    for number, name in enumerate(names):
        own = found["place"] == number
        codes, said_at = np.full(len(rows.customers), -1, np.int8), np.full(len(rows.customers), np.nan)
        codes[places[own]] = found["code"][own]
        said_at[places[own]] = wire.Instants.of_wire(found["changed_at"][own]).raw
        by_row = codes[rows.who]
        is_later = said_at[rows.who] > moments
        by_row[is_later] = -1
        if is_later.any():
            later = [rows.customers[one] for one in np.unique(rows.who[is_later]).tolist()]
            _say_earlier(session, shop_id, rows, later, keys[number], moments, by_row)
        columns[f"consent.{name}"] = Labels(by_row, _STATES)
    return columns


def _say_earlier(
    session: Session, shop_id: UUID, rows: Rows, customers: Sequence[UUID], key: str, moments: Floats,
    codes: NDArray[np.int8],
) -> None:  # fmt: skip
    """What those had said by then who have said something else since."""
    values = {"shop": shop_id, "customers": list(customers), "key": key}
    for said in session.execute(_CONSENT_CHANGES, values):
        for row in rows.places[said.customer_id]:
            if said.at <= moments[row]:
                codes[row] = _STATES.index(said.state)


# -- segments and strategies --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spans:
    """When each row's customer entered last and when it left again, in microseconds; NaN: never."""

    entered: Floats
    left: Floats

    def at(self, moments: Floats) -> Floats:
        """1 where the customer is in at that moment, else 0."""
        return ((self.entered <= moments) & ~(self.left <= moments)).astype(np.float64)

    def before(self, moments: Floats) -> Floats:
        """1 where it was in right before that moment."""
        return ((self.entered < moments) & ~(self.left < moments)).astype(np.float64)

    def since(self, moments: Floats) -> Floats:
        """Seconds since 1970 at which it came to be in, or out; NaN for who never was in."""
        gone: Floats = np.where(self.left <= moments, self.left, np.nan)
        return np.where(self.at(moments) > 0, self.entered, gone) / 1e6


_SEGMENT_SPANS = text("""
SELECT s.key, m.customer_id, (extract(epoch FROM m.since) * 1000000)::int8 AS entered,
       (extract(epoch FROM m.left_at) * 1000000)::int8 AS gone
FROM segment_members m JOIN segments s ON s.shop_id = m.shop_id AND s.id = m.segment_id AND s.key = ANY(:keys)
  AND s.state = 'active'
WHERE m.shop_id = :shop AND m.customer_id = ANY(CAST(:customers AS uuid[]))
""")

_STRATEGY_SPANS = text("""
SELECT s.key, a.customer_id, (extract(epoch FROM a.assigned_at) * 1000000)::int8 AS entered, NULL AS gone
FROM assignments a JOIN strategies s ON s.shop_id = a.shop_id AND s.id = a.strategy_id AND s.key = ANY(:keys)
WHERE a.shop_id = :shop AND a.customer_id = ANY(CAST(:customers AS uuid[]))
""")


def segment_spans(session: Session, shop_id: UUID, rows: Rows, keys: Sequence[str]) -> dict[str, Spans]:
    """Of stored memberships; a segment that does not exist has nobody."""
    return _spans(session, _SEGMENT_SPANS, shop_id, rows, keys)


def strategy_spans(session: Session, shop_id: UUID, rows: Rows, keys: Sequence[str]) -> dict[str, Spans]:
    """Ever assigned to a strategy, on either side; nobody leaves again."""
    return _spans(session, _STRATEGY_SPANS, shop_id, rows, keys)


def _spans(session: Session, query: Any, shop_id: UUID, rows: Rows, keys: Sequence[str]) -> dict[str, Spans]:
    spans = {key: Spans(rows.blank(), rows.blank()) for key in keys}
    if keys:
        for row in session.execute(query, {**_values(shop_id, rows), "keys": list(keys)}):
            rows.fill(spans[row.key].entered, row.customer_id, row.entered)
            if row.gone is not None:
                rows.fill(spans[row.key].left, row.customer_id, row.gone)
    return spans
