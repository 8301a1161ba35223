"""Shopify's webhooks.

Answered 2xx once it is decided what becomes of a delivery, stored or refused for good: Shopify sends again whatever is
not, eight times in four hours, and then deletes the subscription. So 401 is for a signature that does not fit and for
another shop's delivery, 413 for a body above the limit, 503 for trouble of ours, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import urlsplit

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.errors import of_any
from api.services import services
from api.webhooks.receive import (
    RESPONSES,
    SLUG,
    Delivery,
    Held,
    Incoming,
    Provider,
    Read,
    Received,
    Slug,
    delivery_of,
    receive,
    refusal,
)
from api.webhooks.senders import Sender
from integrations.shopify import webhook
from operation_agent.kit.errors import NotFound, Rejected
from operation_agent.store.shops import Shop

router = APIRouter(tags=["webhooks"])

HOT = "/webhooks/shopify/"
"""Below it, what api.hot_path serves without FastAPI's machinery; the route here describes it."""
_SLUG = re.compile(SLUG, re.ASCII)


@router.post(
    "/webhooks/shopify/{shop}",
    operation_id="receive_shopify",
    summary="Shopify reports what changed in the shop",
    response_model=Received,
    responses=RESPONSES,
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
        "parameters": [
            {"name": name, "in": "header", "required": name in webhook.REQUIRED_HEADERS, "schema": {"type": "string"}}
            for name in webhook.HEADERS
        ],
    },
)
async def receive_shopify(shop: Slug, delivery: Incoming, held: Held) -> Received:
    """Signed with HMAC-SHA256 over the body; the app's secret is `secrets.webhook_secret` of the integration, and while
    it is being replaced `secrets.webhook_secret_previous` is good too. A topic that is not read is kept as it came."""
    return await receive(held, PROVIDER, shop, delivery)


class _Route:
    """What the metrics call it: the template and not the shop."""

    path = f"{HOT}{{shop}}"


async def serve_hot(scope: Scope, receive_: Receive, send: Send) -> None:
    """The ASGI form of `receive_shopify`: the same work, the same translation of errors."""
    scope["route"] = _Route
    request = Request(scope, receive_)
    try:
        slug = scope["path"][len(HOT) :]
        if not _SLUG.fullmatch(slug):
            raise NotFound("there is no shop of that name")
        received = await receive(services(request), PROVIDER, slug, await delivery_of(request))
        answer = Response(received.model_dump_json().encode(), media_type="application/json")
    except Exception as error:  # noqa: BLE001 - translated, as at every border
        answer = of_any(request, error)
    await answer(scope, receive_, send)


def _read(delivery: Delivery, shop: Shop, received_at: datetime) -> Read:
    topic = "none"
    try:
        sent = webhook.envelope(delivery.headers)
        topic = sent.topic
        events = webhook.parse(
            sent, delivery.body, currency=shop.currency, now=received_at + shop.clock_offset, received_at=received_at
        )
    except Rejected as error:
        return Read([], [refusal(0, error)], topic=topic)
    return Read([(0, event) for event in events], [], ignored=0 if events else 1, topic=topic)


def _is_for(headers: Mapping[str, str], sender: Sender) -> bool:
    """Not when the header names another shop than the integration is connected to. The header is not signed: this
    finds subscriptions that point to the wrong address, since an app signs all its shops' webhooks with one secret."""
    said, ours = webhook.domain(headers), urlsplit(sender.base_url).hostname or ""
    return said is None or not ours.endswith(".myshopify.com") or said == ours


PROVIDER = Provider("shopify", "webhook_secret", webhook.verify, _read, _is_for, whole=True)
