"""One field of a node of the Admin GraphQL API at a time: read strictly, or refused by its name."""

from __future__ import annotations

from typing import Any

from integrations.shopify.reading import fields
from operation_agent.kit.errors import Rejected

Node = dict[str, Any]


def number_of(node: Node, *kinds: str) -> str:
    """The id within `gid://shopify/<kind>/<id>`. Raises Rejected."""
    return fields.global_id(node, "id", *kinds)[1]


def of_nested(node: Node, name: str, *kinds: str) -> str | None:
    """The id of a nested object, None where there is none."""
    found = fields.optional_object(node, name)
    return number_of(found, *kinds) if found is not None else None


def money(node: Node, name: str, currency: str) -> int:
    """Minor units of the shop's money in a MoneyBag; 0 when absent. Raises Rejected, also in another currency."""
    both = node.get(name)
    if both is None:
        return 0
    said = both.get("shopMoney") if isinstance(both, dict) else None
    if not isinstance(said, dict):
        raise Rejected(f"`{name}` has no amount in the shop's money", code="field_type", where=name)
    if said.get("currencyCode") != currency:
        raise fields.mixed_currency(said.get("currencyCode"), currency, name)
    return fields.positive(fields.minor(said.get("amount"), currency, name), name)


def word(node: Node, name: str) -> str | None:
    """A value of an enumeration as REST and the webhooks write it: in lower case."""
    found = fields.text(node, name)
    return found.lower() if found else None
