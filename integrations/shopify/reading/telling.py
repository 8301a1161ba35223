"""What surrounds the body of one webhook, and events made with it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from integrations.shopify import facts
from operation_agent.events.event import Event
from operation_agent.kit.ids import new_id
from operation_agent.storefront import records
from operation_agent.storefront.records import Telling

_FARTHEST = timedelta(days=7)
"""How long ago a delivery may say it was triggered: Shopify gives up after four hours."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """One delivery: its unsigned headers as far as they are used, the shop's `currency`, `now` in shop time and
    `received_at` in system time (both UTC), and the body as it came."""

    topic: str
    version: str | None
    triggered_at: datetime | None
    currency: str
    now: datetime
    received_at: datetime
    raw_body: bytes
    delivery: tuple[str, ...] = ()

    @property
    def at(self) -> datetime:
        """When that happened whose body has no time: as the header says, within reason, or now. Whole seconds."""
        stated = self.triggered_at
        if stated is not None and self.now - _FARTHEST <= stated <= self.now:
            return stated.replace(microsecond=0)
        return self.now.replace(microsecond=0)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.raw_body).hexdigest()[:32]

    def event(
        self,
        source_id: str,
        type_: str,
        occurred_at: datetime,
        properties: Mapping[str, Any],
        identity: Mapping[str, str] | None = None,
    ) -> Event:
        return Event(
            id=new_id(),
            source=facts.SOURCE,
            source_id=source_id,
            type=type_,
            occurred_at=occurred_at,
            received_at=self.received_at,
            identity=dict(identity or {}),
            properties=dict(properties),
            delivery=self.delivery,
        )

    def changed(self, *tellings: Telling) -> Event:
        """The event that carries `tellings`, which happened when the newest of them did. Raises Rejected for one that
        could not be stored: here its sender is still told, in a queue nobody would be."""
        for one in tellings:
            records.check(one)
        newest = max(one.updated_at for one in tellings)
        return facts.tellings_event(tellings, received_at=self.received_at, occurred_at=newest, delivery=self.delivery)

    def customer_events(self, customer: facts.Customer) -> list[Event]:
        return facts.customer_events(customer, received_at=self.received_at, delivery=self.delivery)

    def order_events(self, order: facts.Order, *, is_update: bool) -> list[Event]:
        return facts.order_events(order, received_at=self.received_at, is_update=is_update, delivery=self.delivery)


def precise(written: str) -> datetime | None:
    """An instant to the microsecond, UTC, or None for what is none."""
    try:
        found = datetime.fromisoformat(written)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
