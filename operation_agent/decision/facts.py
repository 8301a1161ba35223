"""The columns that conditions are evaluated over: features, clusters, consent and the triggering event, by trigger."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from operation_agent.events.event import Event
from operation_agent.strategies.vocabulary import vocabulary
from rules.evaluate import AT
from rules.fields import lookup

SCHEDULE = "schedule"

Columns = dict[str, NDArray[Any]]
Clusters = Sequence[Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Trigger:
    """Why a customer is looked at, and as of when. `at` is shop time: the event's, or the schedule's due time.

    `type` is the event's, or SCHEDULE together with `rule_ids`, the rules that are due: a campaign asks all of its rules
    with one trigger per customer. `event_received_at` is system time.
    """

    customer_id: UUID
    random_key: UUID
    type: str
    event: Event | None
    at: datetime
    event_received_at: datetime | None = None
    rule_ids: frozenset[UUID] = frozenset()

    @property
    def key(self) -> str:
        """The same in every run: the event's source id, or the due time."""
        if self.event is not None:
            return f"{self.event.source}:{self.event.source_id}"
        return f"{SCHEDULE}@{self.at.isoformat()}"


class Table(Protocol):
    """What is needed of customers.features.FeatureTable: its columns."""

    @property
    def columns(self) -> dict[str, NDArray[Any]]: ...


def build(
    triggers: Sequence[Trigger],
    table: Table,
    clusters: Clusters | None,
    needed: Iterable[str],
    consents: Mapping[tuple[UUID, str, str], str],
) -> Columns:
    """The `needed` fields as columns; row i is trigger i (`table` and `clusters` may have more rows).

    `consents` as customers.consent.states gives them.
    """
    columns: Columns = {AT: np.array([trigger.at.timestamp() for trigger in triggers], dtype=np.float64)}
    known = (clusters or [None] * len(triggers))[: len(triggers)]
    for name in needed:
        room, _, rest = name.partition(".")
        if room == "customer":
            columns[name] = table.columns[rest][: len(triggers)]
        elif room == "cluster":
            columns[name] = _objects(_cluster(cluster, rest) for cluster in known)
        elif room == "consent":
            columns[name] = _objects(consents.get((one.customer_id, rest, "marketing")) for one in triggers)
        elif room == "event":
            columns[name] = _event_column(triggers, rest)
    return columns


def _cluster(cluster: Mapping[str, Any] | None, wanted: str) -> str | None:
    if cluster is None:
        return None
    value = cluster.get({"label": "label_key", "lineage": "lineage_id"}[wanted])
    return None if value is None else str(value)


def _event_column(triggers: Sequence[Trigger], name: str) -> NDArray[Any]:
    field = lookup(vocabulary().fields, f"event.{name}")
    values = [_event_value(trigger.event, name) for trigger in triggers]
    if field is not None and field.kind == "number":
        return np.array([_number(value) for value in values], dtype=np.float64)
    if field is not None and field.kind == "label":
        return _objects(value if isinstance(value, str) else None for value in values)
    if field is not None and field.kind == "list":
        return _objects(tuple(value) if isinstance(value, list | tuple) else None for value in values)
    return _objects(values)


def _event_value(event: Event | None, name: str) -> Any:
    if event is None:
        return None
    if name in ("type", "name"):
        return getattr(event, name)
    return event.properties.get(name)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _objects(values: Iterable[Any]) -> NDArray[Any]:
    # fromiter, since a plain assignment would take tuples of one length for a second dimension
    return np.fromiter(values, dtype=object)


def property_of(event: Event | None, field: str) -> str | None:
    """The value of `event.<property>` as an enrolment's key; None when the event lacks it."""
    value = _event_value(event, field.removeprefix("event."))
    return None if value is None or value == "" else str(value)
