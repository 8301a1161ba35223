"""Metafields of a customer, an order or a product, by compare-and-set: what somebody else wrote is never overwritten.

Recommendations, VIP status and the assigned agent are metafields of the namespace `opagent`, which a theme and an agent
in the shop's own admin can read: `customer.metafields.opagent.vip`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

from integrations.shopify.client import Shopify
from integrations.shopify.errors import UserErrors
from operation_agent.kit.errors import NotFound

from .ids import gid
from .values import Parameters, ValueChange, Values, refused

NAMESPACE = "opagent"
Wanted = Mapping[str, Mapping[str, str] | None]


@dataclass(frozen=True, slots=True)
class Metafields(ValueChange):
    """Values: "namespace.key" -> {type, value, digest}, None where there is none."""

    owner: str
    of: str
    wanted: Callable[[Parameters], Wanted]
    in_steps: ClassVar[bool] = True

    def read(self, shop: Shopify, parameters: Parameters) -> Values:
        names = list(self.wanted(parameters))
        asked = {"id": gid(self.owner, parameters[self.of]), "keys": names, "first": len(names)}
        node = shop.query("metafields_of", asked)["node"]
        if node is None:
            raise NotFound(f"there is no {self.owner.lower()} {parameters[self.of]}", where=self.of)
        return dict.fromkeys(names) | _by_name(node["metafields"]["nodes"])

    def target(self, parameters: Parameters, before: Values) -> Values:
        return {name: dict(value) if value is not None else None for name, value in self.wanted(parameters).items()}

    def equal(self, name: str, one: Any, other: Any) -> bool:
        if one is None or other is None:
            return one is other
        return one["type"] == other["type"] and _meaning(one) == _meaning(other)

    def write(self, shop: Shopify, parameters: Parameters, now: Values, to: Values) -> Values:
        owner, told = gid(self.owner, parameters[self.of]), dict[str, Any]()
        changed = {name: value for name, value in to.items() if not self.equal(name, now.get(name), value)}
        sets = [_set(owner, name, value, now.get(name)) for name, value in changed.items() if value is not None]
        if sets:
            try:
                told = _by_name(shop.mutate("metafields_set", {"metafields": sets})["metafields"] or [])
            except UserErrors as error:
                if error.has("INVALID_COMPARE_DIGEST", "STALE_OBJECT"):
                    raise refused(error) from None
                raise
        gone = [{"ownerId": owner, **_place(name)} for name, value in changed.items() if value is None]
        if gone:
            shop.mutate("metafields_delete", {"metafields": gone})
        return told


def _set(owner: str, name: str, value: Mapping[str, str], now: Mapping[str, str] | None) -> dict[str, Any]:
    digest = now["digest"] if now is not None else None  # null: it must not exist yet
    return {
        "ownerId": owner, **_place(name), "type": value["type"], "value": value["value"], "compareDigest": digest,
    }  # fmt: skip


def _place(name: str) -> dict[str, str]:
    namespace, _, key = name.partition(".")
    return {"namespace": namespace, "key": key}


def _by_name(nodes: Sequence[Mapping[str, Any]]) -> Values:
    return {
        f"{node['namespace']}.{node['key']}": {
            "type": node["type"], "value": node["value"], "digest": node["compareDigest"],
        }
        for node in nodes
    }  # fmt: skip


def _meaning(value: Mapping[str, Any]) -> Any:
    """Shopify writes JSON anew: what it means is compared, not how it is written."""
    if value["type"] != "json" and not value["type"].startswith("list."):
        return value["value"]
    try:
        return orjson.loads(value["value"])
    except orjson.JSONDecodeError:
        return value["value"]


def given(parameters: Parameters) -> Wanted:
    """Of the kinds that take any metafields."""
    return {
        f"{one['namespace']}.{one['key']}": (
            {"type": one["type"], "value": one["value"]} if one["value"] is not None else None
        )
        for one in parameters["metafields"]
    }


def recommendations(parameters: Parameters) -> Wanted:
    products = [gid("Product", number) for number in parameters["product_ids"]]
    value = {"type": "list.product_reference", "value": orjson.dumps(products).decode()}
    return {f"{NAMESPACE}.recommendations": value if products else None}


def vip(parameters: Parameters) -> Wanted:
    return {f"{NAMESPACE}.vip": {"type": "boolean", "value": "true" if parameters["vip"] else "false"}}


def agent(parameters: Parameters) -> Wanted:
    name = parameters["agent"]
    return {f"{NAMESPACE}.agent": {"type": "single_line_text_field", "value": name} if name else None}
