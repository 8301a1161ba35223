"""What the guardrails need to know of the past, in memory for one call; what is decided in the call is added to it.

So the second trigger of a customer sees what the first led to before anything is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from operation_agent.experiments.assignment import Side


@dataclass(frozen=True, slots=True)
class Person:
    """How a customer can be reached: addresses and suppressions by channel, consent by (channel, topic)."""

    addresses: Mapping[str, str | None] = field(default_factory=dict)
    suppressed: Mapping[str, str] = field(default_factory=dict)
    consents: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kept:
    """A side that was assigned earlier, and stays."""

    held_out: bool
    propensity: float


UNKNOWN_PERSON = Person()


@dataclass(slots=True)
class History:
    """`entries`: (rule, customer) -> enrolment key -> last entry. `messages`: customer -> channel -> when each
    marketing message was or will be due (seconds since 1970), held-out ones included. `available`: budget -> minor
    units left."""

    people: dict[UUID, Person] = field(default_factory=dict)
    sides: dict[tuple[UUID, UUID], Kept | Side] = field(default_factory=dict)
    entries: dict[tuple[UUID, UUID], dict[str, datetime]] = field(default_factory=dict)
    messages: dict[UUID, dict[str, list[float]]] = field(default_factory=dict)
    available: dict[UUID, int] = field(default_factory=dict)

    def enter(self, rule_id: UUID, customer_id: UUID, key: str, at: datetime) -> None:
        entries = self.entries.setdefault((rule_id, customer_id), {})
        entries[key] = max(entries.get(key, at), at)

    def plan(self, customer_id: UUID, messages: tuple[tuple[str, float], ...], at: float) -> None:
        planned = self.messages.setdefault(customer_id, {})
        for channel, offset in messages:
            planned.setdefault(channel, []).append(at + offset)
