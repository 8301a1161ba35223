"""SendGrid's event webhook: what became of each e-mail."""

from __future__ import annotations

from datetime import datetime

import orjson
from fastapi import APIRouter

from api.webhooks.receive import RESPONSES, Delivery, Held, Incoming, Provider, Read, Received, Slug, receive, refusal
from integrations.sendgrid import webhook
from operation_agent.kit.errors import Rejected
from operation_agent.store.shops import Shop

router = APIRouter(tags=["webhooks"])


@router.post(
    "/webhooks/sendgrid/{shop}",
    operation_id="receive_sendgrid",
    summary="SendGrid reports what became of e-mails",
    response_model=Received,
    responses=RESPONSES,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "array", "items": {"type": "object"}}}},
        }
    },
)
async def receive_sendgrid(shop: Slug, delivery: Incoming, held: Held) -> Received:
    """Signed with ECDSA over time stamp and body; the public key is `secrets.webhook_public_key` of the integration."""
    return await receive(held, PROVIDER, shop, delivery)


def _read(delivery: Delivery, _shop: Shop, received_at: datetime) -> Read:
    try:
        entries = orjson.loads(delivery.body)
    except orjson.JSONDecodeError as error:
        raise Rejected(f"the body is not JSON: {error}", code="json") from None
    if not isinstance(entries, list):
        raise Rejected("the body is a list of events", code="json")
    try:
        events = webhook.parse(delivery.body, received_at=received_at)
        return Read(list(enumerate(events)), [], ignored=len(entries) - len(events))
    except Rejected:
        return _read_one_by_one(entries, received_at)


def _read_one_by_one(entries: list[object], received_at: datetime) -> Read:
    """One entry is at fault: the others are not."""
    events, refused = [], []
    for index, entry in enumerate(entries):
        try:
            events += [(index, event) for event in webhook.parse(orjson.dumps([entry]), received_at=received_at)]
        except Rejected as error:
            refused.append(refusal(index, error))
    return Read(events, refused, ignored=len(entries) - len(events) - len(refused))


PROVIDER = Provider("sendgrid", "webhook_public_key", webhook.verify, _read)
