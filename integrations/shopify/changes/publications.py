"""Whether a product or a collection is to be seen on a sales channel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from integrations.shopify.client import Shopify
from operation_agent.kit.errors import NotFound, Rejected

from .ids import gid, number_of
from .values import Parameters, ValueChange, Values


class Publishing(ValueChange):
    """Values: "published" -> whether it is."""

    def read(self, shop: Shopify, parameters: Parameters) -> Values:
        kind, number = _thing(parameters)
        asked = {"id": gid(kind, number), "publication": _publication(shop, parameters["publication"])}
        node = shop.query("published_on", asked)["node"]
        if node is None:
            raise NotFound(f"there is no {kind.lower()} {number}", where=f"{kind.lower()}_id")
        return {"published": node["publishedOnPublication"]}

    def target(self, parameters: Parameters, before: Values) -> Values:
        return {"published": parameters["published"]}

    def write(self, shop: Shopify, parameters: Parameters, now: Values, to: Values) -> Values:
        publication = _publication(shop, parameters["publication"])
        given = {
            "id": gid(*_thing(parameters)), "input": [{"publicationId": publication}], "publication": publication,
        }  # fmt: skip
        told = shop.mutate("publishable_publish" if to["published"] else "publishable_unpublish", given)["publishable"]
        return {"published": told["publishedOnPublication"]} if told else {}


def _thing(parameters: Parameters) -> tuple[str, str]:
    if parameters.get("product_id"):
        return "Product", parameters["product_id"]
    return "Collection", parameters["collection_id"]


def _publication(shop: Shopify, wanted: str) -> str:
    """By number, or by what it is called in the shop's admin. Raises Rejected, naming those there are."""
    nodes = shop.query("publications", {})["publications"]["nodes"]
    for node in nodes:
        if wanted == number_of(node["id"]) or wanted.casefold() in {name.casefold() for name in _names(node)}:
            return str(node["id"])
    known = ", ".join(sorted({name for node in nodes for name in _names(node)})) or "none"
    raise Rejected(f"there is no publication {wanted!r}; there are: {known}", code="publication", where="publication")


def _names(node: Mapping[str, Any]) -> Iterator[str]:
    catalog = node["catalog"] or {}
    if catalog.get("title"):
        yield catalog["title"]
    yield from (app["title"] for app in (catalog.get("apps") or {}).get("nodes", ()))
