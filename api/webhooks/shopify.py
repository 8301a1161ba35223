"""Shopify's webhooks: orders, refunds and cancellations."""

from __future__ import annotations

from datetime import datetime

import orjson
from fastapi import APIRouter

from api.webhooks.receive import RESPONSES, Delivery, Held, Incoming, Provider, Read, Received, Slug, receive, refusal
from integrations.shopify import webhook
from operation_agent.kit.errors import Rejected
from operation_agent.store.shops import Shop

router = APIRouter(tags=["webhooks"])


@router.post(
    "/webhooks/shopify/{shop}",
    operation_id="receive_shopify",
    summary="Shopify reports orders, refunds and cancellations",
    response_model=Received,
    responses=RESPONSES,
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
        "parameters": [
            {"name": name, "in": "header", "required": name == webhook.TOPIC_HEADER, "schema": {"type": "string"}}
            for name in (webhook.TOPIC_HEADER, webhook.SIGNATURE_HEADER)
        ],
    },
)
async def receive_shopify(shop: Slug, delivery: Incoming, held: Held) -> Received:
    """Signed with HMAC-SHA256 over the body; the app's secret is `secrets.webhook_secret` of the integration."""
    return await receive(held, PROVIDER, shop, delivery)


def _read(delivery: Delivery, shop: Shop, received_at: datetime) -> Read:
    try:
        if not isinstance(orjson.loads(delivery.body), dict):
            raise Rejected("the body is an object", code="json")
    except orjson.JSONDecodeError as error:
        raise Rejected(f"the body is not JSON: {error}", code="json") from None
    topic = delivery.headers.get(webhook.TOPIC_HEADER.lower(), "")
    try:
        events = webhook.parse(topic, delivery.body, currency=shop.currency, received_at=received_at)
    except Rejected as error:
        return Read([], [refusal(0, error)])
    return Read([(0, event) for event in events], [], ignored=0 if events else 1)


PROVIDER = Provider("shopify", "webhook_secret", webhook.verify, _read)
