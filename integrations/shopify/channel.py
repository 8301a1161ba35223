"""Coupons as Shopify discount codes, through the Admin GraphQL API.

The code follows from the action's dedupe key, so a second attempt asks for the same code: "taken" means that the
first attempt had been done, and looking it up proves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import httpx

from integrations import http
from operation_agent.actions.channel import Capability, Delivery, NotSent, Outcome, Sent, Unknown

API_VERSION = "2026-07"

CREATE = """
mutation CreateCoupon($basicCodeDiscount: DiscountCodeBasicInput!) {
  discountCodeBasicCreate(basicCodeDiscount: $basicCodeDiscount) {
    codeDiscountNode { id }
    userErrors { field code message }
  }
}
"""

FIND = """
query FindCoupon($code: String!) {
  codeDiscountNodeByCode(code: $code) { id }
}
"""


@dataclass(frozen=True, slots=True)
class ShopifyConfig:
    api_version: str = API_VERSION
    title: str = "Personal coupon"
    settle_seconds: float = 15.0

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> ShopifyConfig:
        return cls(
            api_version=str(config.get("api_version", API_VERSION)),
            title=str(config.get("title", "Personal coupon")),
            settle_seconds=float(config.get("settle_seconds", 15.0)),
        )


class ShopifyChannel:
    name = "shopify"
    capability: Capability = "queryable"

    def __init__(self, base_url: str, config: ShopifyConfig, access_token: str):
        self._config = config
        self._client = http.Connections(base_url, {"X-Shopify-Access-Token": access_token})
        self._path = f"/admin/api/{config.api_version}/graphql.json"
        self.settle = timedelta(seconds=config.settle_seconds)

    def send(self, delivery: Delivery) -> Outcome:
        answer = self._call(CREATE, {"basicCodeDiscount": discount(self._config, delivery)}, delivery.timeout)
        if not isinstance(answer, dict):
            return answer
        made = answer.get("discountCodeBasicCreate") or {}
        errors = made.get("userErrors") or []
        if any(_is_taken(error) for error in errors):
            found = self.find(delivery)
            return Unknown("the code is taken, and cannot be found") if isinstance(found, NotSent) else found
        if errors:
            told = "; ".join(f"{'.'.join(error.get('field') or [])}: {error.get('message')}" for error in errors)
            return NotSent(told[:300], permanent=True)
        node = made.get("codeDiscountNode") or {}
        return Sent(node["id"]) if node.get("id") else Unknown("the answer names no discount")

    def find(self, delivery: Delivery) -> Outcome:
        answer = self._call(FIND, {"code": delivery.parameters["code"]}, delivery.timeout)
        if not isinstance(answer, dict):
            return Unknown(answer.reason)
        if "codeDiscountNodeByCode" not in answer:
            return Unknown("the answer says nothing about the code")
        node = answer["codeDiscountNodeByCode"]
        return Sent(node["id"]) if node else NotSent("Shopify has no such code", permanent=False)

    def close(self) -> None:
        self._client.close()

    def _call(self, query: str, variables: dict[str, Any], timeout: timedelta) -> dict[str, Any] | NotSent | Unknown:
        try:
            response = self._client.post(self._path, json={"query": query, "variables": variables}, timeout=timeout)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return http.of_error(error)
        refused = http.of_status(response)
        if response.status_code == 401 and isinstance(refused, NotSent):
            return replace(refused, problem="unauthorized")
        if refused is not None:
            return refused
        try:
            answer = response.json()
        except ValueError:
            return Unknown(f"the answer is not JSON: {response.text[:200]}")
        if not isinstance(answer, dict):
            return Unknown("the answer is not an object")
        if answer.get("errors"):
            return _of_errors(answer["errors"])
        return answer["data"] if isinstance(answer.get("data"), dict) else Unknown("the answer has no data")


def _is_taken(error: Mapping[str, Any]) -> bool:
    return error.get("code") == "TAKEN" or "must be unique" in str(error.get("message", "")).lower()


def _of_errors(errors: Any) -> NotSent | Unknown:
    """GraphQL's top-level errors come with HTTP 200; extensions.code tells throttling from the rest."""
    listed = [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    codes = {(error.get("extensions") or {}).get("code") for error in listed}
    told = "; ".join(str(error.get("message")) for error in listed)[:300] or str(errors)[:300]
    if "THROTTLED" in codes:
        return NotSent(told, permanent=False, retry_after=timedelta(seconds=2), is_provider_down=True)
    if codes & {"ACCESS_DENIED", "SHOP_INACTIVE"}:
        return NotSent(told, permanent=False, is_provider_down=True)
    if not listed or "INTERNAL_SERVER_ERROR" in codes:
        return Unknown(told)
    return NotSent(told, permanent=True)


def discount(config: ShopifyConfig, delivery: Delivery) -> dict[str, Any]:
    """DiscountCodeBasicInput: a share off everything, once, for whoever has the code."""
    given = delivery.parameters
    return {
        "title": f"{config.title} {given['code']}",
        "code": given["code"],
        "startsAt": given["starts_at"],
        "endsAt": given["expires_at"],
        "usageLimit": 1,
        "appliesOncePerCustomer": True,
        "context": {"all": "ALL"},
        "customerGets": {"value": {"percentage": round(given["percent"] / 100, 6)}, "items": {"all": True}},
    }
