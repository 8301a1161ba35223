"""Triggers, and the columns that conditions are evaluated over: what is known of customers, and of what set them off.

Pure; `reading` asks the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from operation_agent.customers.groups import Moved
from operation_agent.events.columns import column
from operation_agent.events.event import Event
from operation_agent.segments.columns import Clusters as Clusters
from operation_agent.segments.columns import Columns as Columns
from operation_agent.segments.columns import Table as Table
from operation_agent.strategies.vocabulary import vocabulary
from rules.fields import lookup

SCHEDULE = "schedule"
_EVENT = "event."


@dataclass(frozen=True, slots=True)
class Trigger:
    """Why a customer is looked at, and as of when. `at` is shop time: the event's, or the schedule's due time.

    `type` is the event's, or SCHEDULE together with `rule_ids`, the rules that are due: a campaign asks all of its
    rules with one trigger per customer; or `segment.entered`, `segment.left`, `cluster.entered`, `cluster.left`
    together with `group`, such as "segment.vip". `event_received_at` is system time.
    """

    customer_id: UUID
    random_key: UUID
    type: str
    event: Event | None
    at: datetime
    event_received_at: datetime | None = None
    rule_ids: frozenset[UUID] = frozenset()
    group: str | None = None

    @property
    def key(self) -> str:
        """The same in every run: the event's source id, the group and when it was entered or left, or the due time."""
        if self.event is not None:
            return f"{self.event.source}:{self.event.source_id}"
        if self.group is not None:
            return f"{self.group}@{self.at.isoformat()}"
        return f"{SCHEDULE}@{self.at.isoformat()}"


def of_move(moved: Moved) -> Trigger:
    """What is set off by a customer that came into a group, or left it."""
    family = moved.group.partition(".")[0]
    return Trigger(
        moved.customer_id, moved.random_key, f"{family}.{moved.way}", None, moved.at, group=moved.group
    )  # fmt: skip


def build(triggers: Sequence[Trigger], known: Columns, needed: Iterable[str]) -> Columns:
    """`known` (row i: the customer of trigger i at its moment) with the properties of the triggering events that are
    `needed`."""
    columns = dict(known)
    for name in needed:
        if name.startswith(_EVENT):
            columns[name] = _event_column(triggers, name)
    return columns


def _event_column(triggers: Sequence[Trigger], name: str) -> Any:
    field = lookup(vocabulary().fields, name)
    values = (_event_value(trigger.event, name.removeprefix(_EVENT)) for trigger in triggers)
    return column(field.kind if field is not None else "any", values)


def _event_value(event: Event | None, name: str) -> Any:
    if event is None:
        return None
    if name in ("type", "name"):
        return getattr(event, name)
    return event.properties.get(name)


def property_of(event: Event | None, field: str) -> str | None:
    """The value of `event.<property>` as an enrolment's key; None when the event lacks it."""
    value = _event_value(event, field.removeprefix(_EVENT))
    return None if value is None or value == "" else str(value)
