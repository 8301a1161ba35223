"""What a customer said about marketing by e-mail or SMS. Never an older word over a newer one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from integrations.shopify.client import Shopify
from operation_agent.kit.errors import NotFound, Rejected

from .ids import gid
from .values import Parameters, ValueChange, Values

_SETTABLE = {"subscribed", "unsubscribed", "pending"}


@dataclass(frozen=True, slots=True)
class _Channel:
    address: str
    mutation: str
    input: str
    told: str


_CHANNELS = {
    "email": _Channel(
        "defaultEmailAddress", "customer_email_marketing_consent_update", "emailMarketingConsent", "e-mail address"
    ),
    "sms": _Channel(
        "defaultPhoneNumber", "customer_sms_marketing_consent_update", "smsMarketingConsent", "telephone number"
    ),
}


class Consent(ValueChange):
    """Values: "consent" -> {state, level, at}, in lower case; `at` is ISO 8601 UTC."""

    def read(self, shop: Shopify, parameters: Parameters) -> Values:
        channel = _CHANNELS[parameters["channel"]]
        customer = shop.query("customer_consent", {"id": gid("Customer", parameters["customer_id"])})["customer"]
        if customer is None:
            raise NotFound(f"there is no customer {parameters['customer_id']}", where="customer_id")
        if customer[channel.address] is None:
            raise Rejected(f"the customer has no {channel.told}", code="no_address", where="channel")
        return {"consent": _consent(customer[channel.address])}

    def target(self, parameters: Parameters, before: Values) -> Values:
        was, at = before["consent"], parameters["consented_at"]
        if was["at"] is not None and _instant(was["at"]) > _instant(at) and was["state"] in _SETTABLE:
            raise Rejected(
                f"the customer said {was['state']} later, on {was['at']}: an older word does not replace it",
                code="older_consent",
                where="consented_at",
            )
        return {"consent": {"state": parameters["state"], "level": parameters["opt_in_level"], "at": at}}

    def equal(self, name: str, one: Any, other: Any) -> bool:
        """Of who does not want any, no level of opting in is told."""
        same = one["state"] == other["state"]
        return same and (one["state"] == "unsubscribed" or one["level"] == other["level"])

    def write(self, shop: Shopify, parameters: Parameters, now: Values, to: Values) -> Values:
        channel, wanted = _CHANNELS[parameters["channel"]], to["consent"]
        consent: dict[str, Any] = {"marketingState": wanted["state"].upper(), "consentUpdatedAt": wanted["at"]}
        if wanted["level"] is not None:
            consent["marketingOptInLevel"] = wanted["level"].upper()
        given = {"customerId": gid("Customer", parameters["customer_id"]), channel.input: consent}
        told = shop.mutate(channel.mutation, {"input": given})["customer"]
        return {"consent": _consent(told[channel.address])} if told and told.get(channel.address) else {}

    def warnings(self, parameters: Parameters, before: Values, after: Values) -> list[str]:
        if before["consent"]["state"] == "unsubscribed" and parameters["state"] == "subscribed":
            return ["the customer had unsubscribed: only their own new word makes this right"]
        return []

    def why_no_undo(self, before: Values) -> str | None:
        state = before["consent"]["state"]
        if state in _SETTABLE:
            return None
        return f"it was {state} before, which Shopify does not let anybody set; ask for `unsubscribed` instead"


def _consent(address: Mapping[str, Any]) -> dict[str, Any]:
    level = address["marketingOptInLevel"]
    at = address["marketingUpdatedAt"]
    return {
        "state": address["marketingState"].lower(),
        "level": level.lower() if level else None,
        "at": _instant(at).isoformat() if at else None,
    }


def _instant(written: str) -> datetime:
    return datetime.fromisoformat(written)
