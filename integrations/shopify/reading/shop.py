"""The shop itself, and what it lets the app do."""

from __future__ import annotations

from integrations.shopify import facts
from operation_agent.events.event import Event
from operation_agent.kit.ids import digest_id

from .fields import Body, global_id, identifier, optional_instant, text, texts
from .telling import Webhook


def changed(body: Body, webhook: Webhook) -> list[Event]:
    identifier(body, "id")
    updated_at = optional_instant(body, "updated_at")
    named = {
        "name": text(body, "name"), "currency": text(body, "currency"), "time_zone": text(body, "iana_timezone"),
        "email": text(body, "email"), "domain": text(body, "myshopify_domain"),
    }  # fmt: skip
    told = {name: value for name, value in named.items() if value is not None}
    source_id = f"shop@{facts.at_second(updated_at) if updated_at else webhook.digest}"
    return [webhook.event(source_id, "shop.changed", updated_at or webhook.at, {"vendor": facts.SOURCE, **told})]


def uninstalled(body: Body, webhook: Webhook) -> list[Event]:
    """A shop that comes back and leaves again may say so with the same body: the header tells the two apart."""
    triggered = facts.at_second(webhook.triggered_at) if webhook.triggered_at else ""
    shop = identifier(body, "id")
    source_id = f"app.uninstalled:{shop}@{digest_id(webhook.digest, triggered)}"
    return [webhook.event(source_id, "app.uninstalled", webhook.at, {"vendor": facts.SOURCE})]


def scopes_changed(body: Body, webhook: Webhook) -> list[Event]:
    _, shop = global_id(body, "shop_id", "Shop")
    at = optional_instant(body, "updated_at") or webhook.at
    properties = {"vendor": facts.SOURCE, "scopes": sorted(texts(body, "current"))}
    source_id = f"app.scopes_changed:{shop}@{facts.at_second(at)}:{webhook.digest}"
    return [webhook.event(source_id, "app.scopes_changed", at, properties)]
