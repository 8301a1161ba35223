"""New collections and pages, and pages that are deleted: their undo deletes them, or makes them again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from integrations.shopify.client import Shopify
from operation_agent.kit.errors import Conflict, NotFound
from operation_agent.storefront.protocol import Applied, Preview

from .collections import source_of
from .creations import Creation
from .ids import gid, number_of
from .texts import canonical, input_of, page_of, texts_of
from .values import Parameters, Values


def _mark(key: str) -> dict[str, str]:
    return {"namespace": "opagent", "key": "change", "type": "single_line_text_field", "value": key}


class _Marked(Creation):
    def is_marked(self, node: Mapping[str, Any], key: str) -> bool:
        return node["metafield"] is not None and node["metafield"]["value"] == key


class NewCollection(_Marked):
    newest: ClassVar[str] = "collection_newest"
    listed: ClassVar[str] = "collections"

    def describe(self, shop: Shopify, parameters: Parameters) -> tuple[Values, list[str]]:
        told = {name: value for name, value in parameters.items() if value}
        return told, ["it is not published on any sales channel yet: publication.set does that"]

    def create(self, shop: Shopify, parameters: Parameters, key: str) -> str:
        names = {name for name in parameters if parameters[name] is not None}
        given = {**input_of(dict(parameters), names), "metafields": [_mark(key)]}
        if parameters["handle"]:
            given["handle"] = parameters["handle"]
        if parameters["product_ids"]:
            given["sources"] = [source_of(list(parameters["product_ids"]))]
        return str(shop.mutate("collection_create", {"collection": given})["collection"]["id"])

    def look(self, shop: Shopify, found: str) -> Values | None:
        told = shop.query("collection_text", {"id": found})["collection"]
        if told is None:
            return None
        return {**texts_of(told), "handle": told["handle"]}

    def delete(self, shop: Shopify, found: str) -> None:
        shop.mutate("collection_delete", {"input": {"id": found}})


class NewPage(_Marked):
    newest: ClassVar[str] = "page_newest"
    listed: ClassVar[str] = "pages"

    def describe(self, shop: Shopify, parameters: Parameters) -> tuple[Values, list[str]]:
        return {name: value for name, value in parameters.items() if value is not None}, []

    def create(self, shop: Shopify, parameters: Parameters, key: str) -> str:
        given = {
            "title": parameters["title"], "body": parameters["body_html"], "handle": parameters.get("handle"),
            "isPublished": parameters["published"], "templateSuffix": parameters.get("template"),
        }  # fmt: skip
        page = {**{name: value for name, value in given.items() if value is not None}, "metafields": [_mark(key)]}
        return str(shop.mutate("page_create", {"page": page})["page"]["id"])

    def look(self, shop: Shopify, found: str) -> Values | None:
        page = shop.query("page_text", {"id": found})["page"]
        return {**page_of(page), "handle": page["handle"]} if page is not None else None

    def delete(self, shop: Shopify, found: str) -> None:
        shop.mutate("page_delete", {"id": found})


class PageRemoval:
    """Values: the page's own; after it there are none."""

    def preview(self, shop: Shopify, parameters: Parameters) -> Preview:
        page = self._page(shop, parameters)
        if page is None:
            raise NotFound(f"there is no page {parameters['page_id']}", where="page_id")
        return Preview(page, {}, ["taking it back makes the page again: with a new id, at the same address"])

    def apply(self, shop: Shopify, parameters: Parameters, before: Values, *, key: str) -> Applied:
        now = self._page(shop, parameters)
        if now is None:
            return self._made(before)
        if {**now, "body_html": canonical(now["body_html"])} != {**before, "body_html": canonical(before["body_html"])}:
            raise Conflict("the page was changed at the shop since the preview; ask for it anew", code="changed")
        shop.mutate("page_delete", {"id": gid("Page", parameters["page_id"])})
        return self._made(before)

    def is_applied(self, shop: Shopify, parameters: Parameters, before: Values, *, key: str) -> Applied | None:
        return self._made(before) if self._page(shop, parameters) is None else None

    def undo(self, shop: Shopify, undo: Mapping[str, Any], *, key: str, force: bool) -> Values:
        made, pages = undo["page"], NewPage()
        found = pages.find(shop, {"newest": made["page_id"]}, key) or pages.create(shop, made, key)
        return {**made, "page_id": number_of(found)}

    def _page(self, shop: Shopify, parameters: Parameters) -> Values | None:
        page = shop.query("page_text", {"id": gid("Page", parameters["page_id"])})["page"]
        if page is None:
            return None
        place = {"handle": page["handle"], "template": page["templateSuffix"], "page_id": parameters["page_id"]}
        return {**page_of(page), **place}

    def _made(self, before: Values) -> Applied:
        return Applied(before["page_id"], {}, {"page": before})
