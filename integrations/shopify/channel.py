"""Coupons as Shopify discount codes, through the Admin GraphQL API: one for a customer, or a discount with many codes.

The code follows from the action, so a second attempt asks for the same code: "taken" means that the first attempt had
been done, if what is there is what was asked for. Somebody else's code of the same name is not taken for ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from operation_agent.actions.channel import (
    Added,
    Capability,
    Delivery,
    NewDiscount,
    NotSent,
    Outcome,
    Sent,
    Unknown,
)
from operation_agent.kit.errors import AgentError, Rejected, Retryable

from . import discounts
from .access import API_VERSION, Access
from .client import Shopify
from .errors import ScopeMissing, ShopUnavailable, Unauthorized, Uncertain, UserErrors

_PATIENCE = timedelta(seconds=1)
"""How long a delivery waits for the shop's allowance: its lease runs."""


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
    """`client`: to share one and its cost allowance; otherwise it makes its own."""

    name = "shopify"
    capability: Capability = "queryable"

    def __init__(self, base_url: str, config: ShopifyConfig, access_token: str, *, client: Shopify | None = None):
        self._config = config
        self._client = client or Shopify(Access(base_url, access_token, config.api_version))
        self.settle = timedelta(seconds=config.settle_seconds)

    def close(self) -> None:
        self._client.close()

    # -- a code for one customer --------------------------------------------------------------------------------------

    def send(self, delivery: Delivery) -> Outcome:
        wanted = self._wanted(delivery)
        told = discounts.asked(wanted)
        try:
            made = self._client.mutate(
                told.operation, {"discount": told.discount}, timeout=delivery.timeout, patience=_PATIENCE
            )
        except UserErrors as error:
            return self._taken(delivery, wanted) if _is_taken(error) else NotSent(error.detail[:300], permanent=True)
        except AgentError as error:
            return outcome_of(error)
        ref = _node_id(made)
        return Sent(ref, {"discount_ref": ref}) if ref else Unknown("the answer names no discount")

    def find(self, delivery: Delivery) -> Outcome:
        """Somebody else's code of that name proves that ours was not made, and never will be."""
        try:
            node = self._by_code(delivery.parameters["code"], delivery.timeout)
        except AgentError as error:
            return Unknown(error.detail[:300])
        if node is None:
            return NotSent("Shopify has no such code", permanent=False)
        wanted = self._wanted(delivery)
        reason = discounts.why_not_ours(node["codeDiscount"], wanted)
        if reason is not None:
            return NotSent(f"the code is another discount's: {reason}", permanent=True)
        return _sent(node, wanted)

    def _taken(self, delivery: Delivery, wanted: NewDiscount) -> Outcome:
        found = self.find(delivery)
        if isinstance(found, NotSent) and not found.permanent:
            return Unknown("the code is taken, and cannot be found")
        return found

    def _wanted(self, delivery: Delivery) -> NewDiscount:
        given = delivery.parameters
        return NewDiscount(
            title=f"{self._config.title} {given['code']}",
            code=given["code"],
            terms=given.get("terms") or {"percent": given["percent"]},
            starts_at=datetime.fromisoformat(given["starts_at"]),
            ends_at=datetime.fromisoformat(given["expires_at"]),
            customer=given.get("customer"),
        )

    def _by_code(self, code: str, timeout: timedelta) -> dict[str, Any] | None:
        answer = self._client.query("coupon_by_code", {"code": code}, timeout=timeout, patience=_PATIENCE)
        if "codeDiscountNodeByCode" not in answer:
            raise Uncertain("the answer says nothing about the code")
        node = answer["codeDiscountNodeByCode"]
        return dict(node) if node else None

    # -- a discount with many codes -----------------------------------------------------------------------------------

    def make_discount(self, wanted: NewDiscount) -> str:
        told = discounts.asked(wanted)
        try:
            ref = _node_id(self._client.mutate(told.operation, {"discount": told.discount}))
        except UserErrors as error:
            if not _is_taken(error):
                raise
            ref = self.holder_of(wanted)
            if ref is None:
                raise Rejected(f"the code {wanted.code} is taken by another discount", code="taken") from None
        if ref is None:
            raise Retryable("the answer names no discount")
        return ref

    def holder_of(self, wanted: NewDiscount) -> str | None:
        node = self._by_code(wanted.code, timedelta(seconds=10))
        if node is None or discounts.why_not_ours(node["codeDiscount"], wanted) is not None:
            return None
        return str(node["id"])

    def discount_of(self, code: str) -> str | None:
        node = self._by_code(code, timedelta(seconds=10))
        return str(node["id"]) if node else None

    def add_codes(self, discount_ref: str, codes: Sequence[str]) -> str:
        listed = [{"code": code} for code in codes]
        made = self._client.mutate("coupon_codes_add", {"id": discount_ref, "codes": listed})
        creation = made.get("bulkCreation") or {}
        if not creation.get("id"):
            raise Uncertain("the answer names no bulk creation")
        return str(creation["id"])

    def added(self, batch_ref: str) -> Added | None:
        """Its codes are asked for only when not all were made: that costs more of the allowance than all the rest."""
        creation = self._client.query("coupon_codes_added", {"id": batch_ref})["discountRedeemCodeBulkCreation"]
        if creation is None:
            return None
        if not creation["done"] or creation["importedCount"] == creation["codesCount"]:
            return Added(bool(creation["done"]))
        answer = self._client.query("coupon_codes_refused", {"id": batch_ref})["discountRedeemCodeBulkCreation"]
        listed = answer["codes"]["nodes"] if answer is not None else []
        return Added(True, {one["code"]: _messages(one["errors"]) for one in listed if not one["discountRedeemCode"]})

    # -- taking back --------------------------------------------------------------------------------------------------

    def deactivate(self, discount_ref: str) -> int:
        node = self._client.mutate("coupon_deactivate", {"id": discount_ref})["codeDiscountNode"] or {}
        return int((node.get("codeDiscount") or {}).get("asyncUsageCount") or 0)

    def drop_code(self, discount_ref: str, code: str) -> int:
        answer = self._client.query("coupon_code_of", {"id": discount_ref, "search": f"code:{code}"})
        discount = (answer.get("discountNode") or {}).get("discount") or {}
        listed = (discount.get("codes") or {}).get("nodes") or []
        theirs = [one for one in listed if str(one["code"]).upper() == code.upper()]
        if theirs:
            variables = {"id": discount_ref, "codes": [one["id"] for one in theirs]}
            self._client.mutate("coupon_code_delete", variables)
        return sum(int(one.get("asyncUsageCount") or 0) for one in theirs)


def outcome_of(error: AgentError) -> NotSent | Unknown:
    """What an error of the client means for the action whose call it was."""
    told = error.detail[:300]
    if isinstance(error, Unauthorized):
        return NotSent(told, permanent=False, is_provider_down=True, problem="unauthorized")
    if isinstance(error, ScopeMissing):
        return NotSent(told, permanent=False, is_provider_down=True, problem="scopes")
    if isinstance(error, ShopUnavailable):
        return NotSent(
            told, permanent=False, retry_after=error.retry_after, is_provider_down=True, problem="unavailable"
        )
    if isinstance(error, Retryable):
        return NotSent(told, permanent=False, retry_after=error.retry_after, is_provider_down=True)
    if isinstance(error, Uncertain):
        return Unknown(told)
    return NotSent(told, permanent=True)


def _sent(node: Mapping[str, Any], wanted: NewDiscount) -> Sent:
    """With its end, where an earlier attempt began it at another moment."""
    ref, ends = str(node["id"]), discounts.other_end(node["codeDiscount"], wanted)
    return Sent(ref, {"discount_ref": ref, **({"expires_at": ends.isoformat()} if ends is not None else {})})


def _node_id(made: Mapping[str, Any]) -> str | None:
    node = made.get("codeDiscountNode") or {}
    return str(node["id"]) if node.get("id") else None


def _is_taken(error: UserErrors) -> bool:
    return error.has("TAKEN") or any("must be unique" in one.message.lower() for one in error.errors)


def _messages(errors: Iterable[Mapping[str, Any]]) -> str:
    return "; ".join(f"{one.get('code') or ''} {one.get('message')}".strip() for one in errors)[:300]
