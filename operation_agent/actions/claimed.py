"""An action that somebody has taken to send: what the steps of sending hand on to one another."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from .rendering import Person


@dataclass(frozen=True, slots=True)
class Claimed:
    """An action that is ours to send until `lease_until`. `moment` is shop time."""

    id: UUID
    fence: int
    attempt: int
    type: str
    dedupe_key: str
    parameters: dict[str, Any]
    person: Person
    address: str | None
    moment: datetime
    coupon: dict[str, Any]
    cost_minor: int
    maybe_sent: bool
    lease_until: datetime
