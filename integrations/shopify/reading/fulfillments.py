"""Parcels on their way."""

from __future__ import annotations

from operation_agent.events.event import Event
from operation_agent.storefront.records import Record

from .fields import Body, identifier, instant, text, texts
from .telling import Webhook


def changed(body: Body, webhook: Webhook) -> list[Event]:
    one = text(body, "tracking_number")
    values = {
        "source_order_id": identifier(body, "order_id"),
        "status": text(body, "status"),
        "shipment_status": text(body, "shipment_status"),
        "tracking_company": text(body, "tracking_company"),
        "tracking_numbers": texts(body, "tracking_numbers") or ([one] if one else []),
    }
    at = instant(body, "updated_at", "created_at")
    return [webhook.changed(Record("fulfillment", (identifier(body, "id"),), at, values))]
