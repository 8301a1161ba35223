"""Which products are in a collection, and in which order.

Since 2026-07 a collection has sources: products chosen by hand are selections of a source, others come by conditions.
A product that a condition brings in cannot be taken out by hand. Both changes are carried out by a job at the shop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from integrations.shopify.client import Shopify
from operation_agent.kit.errors import NotFound, Rejected

from .ids import gid, number_of
from .values import Parameters, ValueChange, Values

SOURCE_TITLE = "Chosen by hand"


def _selections(products: list[str]) -> list[dict[str, str]]:
    return [{"productId": gid("Product", number)} for number in products]


def source_of(products: list[str]) -> dict[str, Any]:
    """A new source that holds these products."""
    return {"source": {"title": SOURCE_TITLE, "inclusion": {"selections": _selections(products)}}}


class Members(ValueChange):
    """Values: product -> whether it is in the collection."""

    def read(self, shop: Shopify, parameters: Parameters) -> Values:
        names = [*parameters["add"], *parameters["remove"]]
        asked = {"collection": _collection(parameters), "products": [gid("Product", one) for one in names]}
        told = shop.query("collection_members", asked)
        if told["collection"] is None:
            raise NotFound(f"there is no collection {parameters['collection_id']}", where="collection_id")
        found = {number_of(node["id"]): node["inCollection"] for node in told["nodes"] if node}
        missing = [name for name in names if name not in found]
        if missing:
            raise NotFound(f"there is no product {missing[0]}", where="add")
        return found

    def target(self, parameters: Parameters, before: Values) -> Values:
        return dict.fromkeys(parameters["add"], True) | dict.fromkeys(parameters["remove"], False)

    def write(self, shop: Shopify, parameters: Parameters, now: Values, to: Values) -> Values:
        sources = shop.query("collection_sources", {"id": _collection(parameters)})["collection"]["sources"]
        added = [name for name, wanted in to.items() if wanted and not now[name]]
        removed = [name for name, wanted in to.items() if not wanted and now[name]]
        given = {"id": _collection(parameters), **_sources(sources, added, removed)}
        shop.mutate("collection_update", {"collection": given})
        return {}

    def warnings(self, parameters: Parameters, before: Values, after: Values) -> list[str]:
        return ["the shop carries it out by a job, which may take a while"] if len(after) > 50 else []


def _collection(parameters: Parameters) -> str:
    return gid("Collection", parameters["collection_id"])


def _sources(sources: list[Mapping[str, Any]], added: list[str], removed: list[str]) -> dict[str, Any]:
    """The inputs of collectionUpdate. Raises Rejected for a product that nobody chose by hand."""
    updates: dict[str, dict[str, Any]] = {}
    by_hand = {source["id"]: _chosen(source) for source in sources if source.get("inclusion")}
    for name in removed:
        holding = [source for source, chosen in by_hand.items() if name in chosen]
        if not holding:
            raise Rejected(
                f"product {name} is in the collection by a condition, and cannot be taken out by hand",
                code="by_condition",
                where="remove",
            )
        for source in holding:
            updates.setdefault(source, {}).setdefault("selectionsToRemove", []).extend(_selections([name]))
    given: dict[str, Any] = {}
    if added:
        mine = next((source["id"] for source in sources if _takes_products(source)), None)
        if mine is not None:
            updates.setdefault(mine, {})["selectionsToAdd"] = _selections(added)
        else:
            given["sourcesToCreate"] = [source_of(added)]
    if updates:
        given["sourcesToUpdate"] = [
            {"condition": {"id": source, "inclusion": inclusion}} for source, inclusion in updates.items()
        ]
    return given


def _chosen(source: Mapping[str, Any]) -> set[str]:
    return {number_of(one["product"]["id"]) for one in source["inclusion"]["selections"]["nodes"]}


def _takes_products(source: Mapping[str, Any]) -> bool:
    """Whether products may be added to it by hand: it is this collection's own and has no conditions."""
    if not source.get("inclusion") or source.get("shareable") or source.get("targetType") != "PRODUCTS":
        return False
    return not source["inclusion"]["conditions"]


class Order(ValueChange):
    """Values: "order" -> the products of the collection as they stand."""

    def read(self, shop: Shopify, parameters: Parameters) -> Values:
        found = shop.query("collection_order", {"id": _collection(parameters)})["collection"]
        if found is None:
            raise NotFound(f"there is no collection {parameters['collection_id']}", where="collection_id")
        if found["sortOrder"] != "MANUAL":
            raise Rejected(
                "its products are sorted by a rule; set its sort_order to manual first",
                code="sorted",
                where="sort_order",
            )
        if found["products"]["pageInfo"]["hasNextPage"]:
            raise Rejected("a collection of more than 250 products is sorted at the shop", code="too_many")
        return {"order": [number_of(node["id"]) for node in found["products"]["nodes"]]}

    def target(self, parameters: Parameters, before: Values) -> Values:
        first = list(parameters["product_ids"])
        missing = [name for name in first if name not in before["order"]]
        if missing:
            raise Rejected(f"product {missing[0]} is not in the collection", where="product_ids")
        return {"order": [*first, *(name for name in before["order"] if name not in first)]}

    def write(self, shop: Shopify, parameters: Parameters, now: Values, to: Values) -> Values:
        moves = moves_of(now["order"], to["order"])
        if moves:
            given = {"id": _collection(parameters), "moves": moves}
            shop.mutate("collection_reorder_products", given)
        return {}


def moves_of(now: list[str], to: list[str]) -> list[dict[str, str]]:
    """What to move where, one after the other, so that `now` becomes `to` as far as its products are in it.

    Each puts a product at its last place from the front on, so doing them twice does no more than once.
    """
    standing, moves = list(now), list[dict[str, str]]()
    for place, name in enumerate(name for name in to if name in standing):
        if standing[place] != name:
            standing.remove(name)
            standing.insert(place, name)
            moves.append({"id": gid("Product", name), "newPosition": str(place)})
    return moves
