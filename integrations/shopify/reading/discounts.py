"""Discounts and their codes. A discount is known by the number in its global id."""

from __future__ import annotations

from operation_agent.events.event import Event
from operation_agent.kit.errors import Rejected
from operation_agent.storefront.records import Record

from .fields import LONGEST_ID, Body, global_id, instant, optional_instant, optional_object, text
from .telling import Webhook

_METHODS = {"DiscountCodeNode": "code", "DiscountAutomaticNode": "automatic"}


def changed(body: Body, webhook: Webhook) -> list[Event]:
    kind, discount_id = global_id(body, "admin_graphql_api_id", *_METHODS)
    at = optional_instant(body, "updated_at") or webhook.at
    status = text(body, "status")
    values = {"title": text(body, "title"), "status": status.lower() if status else None, "method": _METHODS[kind]}
    return [webhook.changed(Record("discount", (discount_id,), at, values))]


def deleted(body: Body, webhook: Webhook) -> list[Event]:
    _, gone = global_id(body, "admin_graphql_api_id", *_METHODS)
    return [webhook.changed(Record("discount", (gone,), instant(body, "deleted_at"), deleted=True))]


def code_changed(body: Body, webhook: Webhook) -> list[Event]:
    _, discount_id = global_id(body, "admin_graphql_api_id", *_METHODS)
    at = optional_instant(body, "updated_at") or webhook.at
    told = optional_object(body, "redeem_code") or {}
    code = told.get("code")
    if not isinstance(code, str) or not 0 < len(code) <= LONGEST_ID:
        raise Rejected("`redeem_code.code` is missing", code="field_missing", where="redeem_code.code")
    removed = webhook.topic.endswith("removed")
    return [webhook.changed(Record("discount_code", (discount_id, code), at, deleted=removed))]
