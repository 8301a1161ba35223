"""What an event is, wherever it came from: an immutable fact in the past tense, with its source's own id."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

IDENTITY_KINDS = ("external", "shopify", "email", "phone", "anonymous")
"""Kinds of identity, strongest first. `previous` (an alias's old id) may also stand in `Event.identity`."""

PAST = "past"
"""A true value in an event's context: it is told as history. It counts in history and features and sets nothing off."""


@dataclass(frozen=True, slots=True)
class Event:
    """One fact, normalised.

    `type` is of `catalogue.TYPES`; `name` is the source's own name of a custom event. `occurred_at` is shop time,
    `received_at` system time, both UTC. `identity` maps a kind of identity to its normalised value. `properties`
    are as the catalogue describes for the type (money as `…_minor` integers of the shop's currency).
    """

    id: UUID
    source: str
    source_id: str
    type: str
    occurred_at: datetime
    received_at: datetime
    identity: dict[str, str]
    properties: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    delivery: tuple[str, ...] = ()
    """Names its sender gave the delivery it came in; with one that was seen before, it is a duplicate. Not stored."""
