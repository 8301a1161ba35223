"""Webhooks in: signed by the provider over the raw body, stored once, answered after the commit.

Nothing is accepted without a secret to check it with. One entry that cannot be understood is reported by its index and
the others are stored: refusing the whole delivery would make the provider send all of it again, for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import orjson
import structlog
from fastapi import Depends, Path, Request
from pydantic import BaseModel, Field
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from api.errors import Problem
from api.metrics import count_events
from operation_agent.events import instants, intake, storable
from operation_agent.events.event import Event
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Denied, Rejected, Retryable
from operation_agent.kit.secrets import Vault, secret_key
from operation_agent.kit.settings import settings
from operation_agent.store.session import bind_scope, for_system
from operation_agent.store.shops import Shop, find_shop

Slug = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="The shop's slug")]
RESPONSES: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "The signature does not fit the body"},
    404: {"model": Problem, "description": "No such shop"},
    503: {"model": Problem, "description": "No secret to check the signature with, or the database is away"},
}


class Refusal(BaseModel):
    index: int = Field(description="Position in the delivery")
    code: str
    reason: str
    where: str | None = None


class Received(BaseModel):
    """What became of a delivery. Duplicates had been stored before; ignored says nothing we act on."""

    accepted: int
    duplicates: int
    ignored: int
    rejected: list[Refusal]


@dataclass(frozen=True, slots=True)
class Delivery:
    """The raw body with its headers, lower-cased names."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Read:
    """What a vendor's parser made of a delivery: events with their positions, and what it could not understand."""

    events: Sequence[tuple[int, Event]]
    refused: Sequence[Refusal]
    ignored: int = 0


async def _delivery(request: Request) -> Delivery:
    return Delivery({name.lower(): value for name, value in request.headers.items()}, await request.body())


Incoming = Annotated[Delivery, Depends(_delivery)]


@dataclass(frozen=True, slots=True)
class Provider:
    """How a vendor's deliveries are checked and read; `secret` is its name among the integration's secrets."""

    vendor: str
    secret: str
    verify: Callable[[Mapping[str, str], bytes, str], bool]
    read: Callable[[Delivery, Shop, datetime], Read]


def receive(engine: Engine, provider: Provider, slug: str, delivery: Delivery) -> Received:
    """Check, read and store one delivery in one transaction.

    Raises NotFound for an unknown shop, Retryable when there is no secret, Denied for a wrong signature, Rejected when
    the body as a whole cannot be read.
    """
    received_at = SYSTEM.now()
    with for_system(engine) as session:
        shop = find_shop(session, slug)
        bind_scope(session, shop.id)
        secret = _secret(session, shop.id, provider.vendor, provider.secret)
        if not provider.verify(delivery.headers, delivery.body, secret):
            raise Denied("the signature does not fit this body", code="signature", unauthenticated=True)
        found = provider.read(delivery, shop, received_at)
        good, refused = _storable(found, received_at + shop.clock_offset)
        stored = intake.commit(session, shop.id, good)
    counts = {"accepted": stored.accepted, "duplicates": stored.duplicates}
    count_events(shop.slug, provider.vendor, **counts, rejected=len(refused))
    if refused:
        structlog.get_logger("webhooks").warning(
            "entries refused", vendor=provider.vendor, shop=shop.slug, number=len(refused), first=refused[0].reason
        )
    return Received(**counts, ignored=found.ignored, rejected=refused)


def _secret(session: Session, shop_id: UUID, vendor: str, name: str) -> str:
    row = session.execute(
        text("SELECT secrets FROM integrations WHERE shop_id = :shop AND vendor = :vendor"),
        {"shop": shop_id, "vendor": vendor},
    ).one_or_none()
    secrets: dict[str, str] = {}
    if row is not None and row.secrets is not None:
        secrets = orjson.loads(Vault(secret_key(settings())).open(bytes(row.secrets)))
    if not secrets.get(name):
        raise Retryable(
            f"nothing is accepted from {vendor} until PUT /api/integrations/{vendor} has set secrets.{name}",
            code="webhook_not_configured",
            retry_after=timedelta(minutes=5),
        )
    return secrets[name]


def _storable(found: Read, now: datetime) -> tuple[list[Event], list[Refusal]]:
    """The events as they will be stored, and everything that is not; `now` is the shop's."""
    good, refused = [], list(found.refused)
    for index, event in found.events:
        try:
            good.append(_checked(event, now))
        except Rejected as error:
            refused.append(refusal(index, error))
    return good, sorted(refused, key=lambda one: one.index)


def _checked(event: Event, now: datetime) -> Event:
    written = {
        "source_id": event.source_id, "identity": event.identity, "properties": event.properties,
        "context": event.context,
    }  # fmt: skip
    for path, reason in storable.faults(written):
        raise Rejected(f"{reason} at {path}", code="not_storable", where=path)
    occurred_at = instants.occurred(event.occurred_at.isoformat(), None, now, "occurred_at")
    return event if occurred_at == event.occurred_at else replace(event, occurred_at=occurred_at)


def refusal(index: int, error: Rejected) -> Refusal:
    return Refusal(index=index, code=error.code, reason=error.detail, where=error.where)
