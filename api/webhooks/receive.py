"""Webhooks in: signed by the provider over the raw body, stored once, answered after the commit.

Nothing is accepted without a secret to check it with. One entry that cannot be understood is reported by its index and
the others are stored: refusing the whole delivery would make the provider send all of it again, for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any

import structlog
from fastapi import Depends, Path, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from api.errors import Problem
from api.metrics import count_delivery, count_events
from api.services import Services, services
from api.webhooks.senders import Sender
from operation_agent.events import instants, storable
from operation_agent.events.event import Event
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Denied, Rejected
from operation_agent.store.shops import Shop

SLUG = r"[a-z0-9][a-z0-9-]{0,62}"
Slug = Annotated[str, Path(pattern=f"^{SLUG}$", description="The shop's slug")]
RESPONSES: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "The signature does not fit the body"},
    404: {"model": Problem, "description": "No such shop"},
    503: {"model": Problem, "description": "No secret to check the signature with, or the database is away"},
}


LONG_BODY = 32 * 1024
"""Bytes above which a body is read beside the event loop and not on it."""


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
    topic: str = "events"
    """What the vendor calls this kind of delivery."""


async def delivery_of(request: Request) -> Delivery:
    return Delivery({name.lower(): value for name, value in request.headers.items()}, await request.body())


Incoming = Annotated[Delivery, Depends(delivery_of)]


async def _held(request: Request) -> Services:
    return services(request)


Held = Annotated[Services, Depends(_held)]


@dataclass(frozen=True, slots=True)
class Provider:
    """How a vendor's deliveries are checked and read; `secret` is its name among the integration's secrets.

    `is_for` says whether it is addressed to this sender's shop. `whole`: one delivery is one saying, so it is stored
    altogether or not at all.
    """

    vendor: str
    secret: str
    verify: Callable[[Mapping[str, str], bytes, str], bool]
    read: Callable[[Delivery, Shop, datetime], Read]
    is_for: Callable[[Mapping[str, str], Sender], bool] = lambda _headers, _sender: True
    whole: bool = False


async def receive(held: Services, provider: Provider, slug: str, delivery: Delivery) -> Received:
    """Check, read and store one delivery; many at once share a commit.

    Raises NotFound for an unknown shop, Retryable when there is no secret, Denied for a wrong signature, Rejected when
    the body as a whole cannot be read.
    """
    received_at = SYSTEM.now()
    sender = held.senders.remembered(slug, provider.vendor) or await _look_up(held, provider, slug)
    _check(provider, delivery, sender)
    if len(delivery.body) > LONG_BODY:
        found = await run_in_threadpool(provider.read, delivery, sender.shop, received_at)
    else:
        found = provider.read(delivery, sender.shop, received_at)
    now = received_at + sender.shop.clock_offset
    if sender.shop.sandbox and any(event.occurred_at > now for _, event in found.events):
        # its clock may have been moved since
        now = received_at + (await _look_up(held, provider, slug)).shop.clock_offset
    good, refused = _storable(found, now, whole=provider.whole)
    return await _store(held, provider, sender.shop, found, good, refused)


def _check(provider: Provider, delivery: Delivery, sender: Sender) -> None:
    if not any(provider.verify(delivery.headers, delivery.body, secret) for secret in sender.secrets):
        raise Denied("the signature does not fit this body", code="signature", unauthenticated=True)
    if not provider.is_for(delivery.headers, sender):
        # not 2xx: two shops' customers once mixed cannot be told apart again, and a delivery refused is fetched later
        raise Denied(
            f"this was sent for another shop than {sender.base_url}; set base_url to the shop it is from, or let its"
            f" subscription point to that shop's address here",
            code="other_shop",
            unauthenticated=True,
        )


async def _look_up(held: Services, provider: Provider, slug: str) -> Sender:
    """Deliveries that find the sender forgotten at the same moment share one look-up."""
    asked, key = held.senders.running, (slug, provider.vendor)
    if key not in asked:
        asked[key] = asyncio.ensure_future(
            run_in_threadpool(held.senders.look_up, slug, provider.vendor, provider.secret)
        )
        asked[key].add_done_callback(lambda _: asked.pop(key, None))
    return await asyncio.shield(asked[key])


async def _store(
    held: Services,
    provider: Provider,
    shop: Shop,
    found: Read,
    good: list[tuple[int, Event]],
    refused: list[Refusal],
) -> Received:
    duplicates = 0
    if good:
        committed = await held.committer.submit(shop.id, [event for _, event in good])
        refused = refused + [refusal(good[position][0], error) for position, error in committed.refused.items()]
        duplicates = len(committed.duplicates)
        accepted = len(good) - duplicates - len(committed.refused)
    else:
        accepted = 0
    count_events(shop.slug, provider.vendor, accepted=accepted, duplicates=duplicates, rejected=len(refused))
    count_delivery(provider.vendor, found.topic, _outcome(accepted, duplicates, refused, good))
    if refused:
        structlog.get_logger("webhooks").warning(
            "entries refused", vendor=provider.vendor, shop=shop.slug, number=len(refused), first=refused[0].reason
        )
    return Received(
        accepted=accepted,
        duplicates=duplicates,
        ignored=found.ignored,
        rejected=sorted(refused, key=lambda one: one.index),
    )


def _outcome(accepted: int, duplicates: int, refused: list[Refusal], good: list[tuple[int, Event]]) -> str:
    if accepted:
        return "kept" if good[0][1].type == "webhook.kept" else "accepted"
    return "rejected" if refused else "duplicate" if duplicates else "ignored"


def _storable(found: Read, now: datetime, *, whole: bool) -> tuple[list[tuple[int, Event]], list[Refusal]]:
    """The events as they will be stored, and everything that is not; `now` is the shop's. `whole`: all or none."""
    good, refused = [], list(found.refused)
    clean: set[int] = set()
    for index, event in found.events:
        try:
            good.append((index, _checked(event, now, clean)))
        except Rejected as error:
            refused.append(refusal(index, error))
            if whole:
                return [], refused
    return good, refused


def _checked(event: Event, now: datetime, clean: set[int]) -> Event:
    """`clean`: ids of the parts that were looked at already; events of one delivery share theirs."""
    for name in ("source_id", "identity", "properties", "context"):
        part = getattr(event, name)
        if id(part) in clean:
            continue
        if storable.is_suspect(part):
            for path, reason in storable.faults({name: part}):
                raise Rejected(f"{reason} at {path}", code="not_storable", where=path)
        clean.add(id(part))
    occurred_at = instants.settled(event.occurred_at, now, "occurred_at")
    return event if occurred_at is event.occurred_at else replace(event, occurred_at=occurred_at)


def refusal(index: int, error: Rejected) -> Refusal:
    return Refusal(index=index, code=error.code, reason=error.detail, where=error.where)
