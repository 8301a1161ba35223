"""What nothing is made of yet: kept as it came, so that it can be read once somebody knows how."""

from __future__ import annotations

from operation_agent.events.event import Event

from .fields import Body
from .telling import Webhook


def keep(body: Body, webhook: Webhook, reason: str | None = None) -> list[Event]:
    """`reason` says why it could not be read, where it should have been."""
    properties = {"topic": webhook.topic, "version": webhook.version, "body": body}
    if reason is not None:
        properties["reason"] = reason
    return [webhook.event(f"kept:{webhook.topic}:{webhook.digest}", "webhook.kept", webhook.at, properties)]
