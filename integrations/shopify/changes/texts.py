"""Titles, descriptions and SEO of products and collections, and pages of the online store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from integrations.shopify.client import Shopify
from operation_agent.kit.errors import NotFound

from .ids import gid
from .values import Parameters, ValueChange, Values

_HTML = {"description_html", "body_html"}
_SEO = {"seo_title": "title", "seo_description": "description"}
_BETWEEN_TAGS = re.compile(r">\s+<")


def canonical(html: str) -> str:
    """HTML without what is only its layout: Shopify lays it out anew."""
    return _BETWEEN_TAGS.sub("><", " ".join(html.split()))


class _Texts(ValueChange):
    """Values by the names of the parameters; None and an empty text are the same."""

    def target(self, parameters: Parameters, before: Values) -> Values:
        return {name: parameters[name] for name in before if parameters.get(name) is not None}

    def equal(self, name: str, one: Any, other: Any) -> bool:
        if name in _HTML:
            return canonical(one or "") == canonical(other or "")
        return (one or "") == (other or "") if isinstance(one, str | None) else bool(one == other)


@dataclass(frozen=True, slots=True)
class CatalogueText(_Texts):
    """Of a product or a collection: `read_by` and `written_by` are operations, `field` what they are about."""

    owner: str
    read_by: str
    written_by: str
    field: str

    def read(self, shop: Shopify, parameters: Parameters) -> Values:
        number = parameters[f"{self.field}_id"]
        node = shop.query(self.read_by, {"id": gid(self.owner, number)})[self.field]
        if node is None:
            raise NotFound(f"there is no {self.field} {number}", where=f"{self.field}_id")
        return texts_of(node)

    def write(self, shop: Shopify, parameters: Parameters, now: Values, to: Values) -> Values:
        given = input_of({**now, **to}, set(to))
        told = shop.mutate(
            self.written_by, {self.field: {"id": gid(self.owner, parameters[f"{self.field}_id"]), **given}}
        )
        return texts_of(told[self.field]) if told[self.field] else {}


def texts_of(node: Mapping[str, Any]) -> Values:
    """Of a product or a collection as GraphQL tells it."""
    values = {
        "title": node["title"], "description_html": node["descriptionHtml"],
        **{name: node["seo"][field] for name, field in _SEO.items()},
    }  # fmt: skip
    return values | ({"sort_order": node["sortOrder"].lower()} if "sortOrder" in node else {})


def input_of(values: Values, names: set[str]) -> dict[str, Any]:
    """The input's fields for `names`. Both halves of `seo` always go together: one by itself might clear the other."""
    fields = {"title": "title", "description_html": "descriptionHtml"}
    given = {fields[name]: values[name] or "" for name in fields if name in names}
    if "sort_order" in names:
        given["sortOrder"] = values["sort_order"].upper()
    if names & set(_SEO):
        given["seo"] = {field: values.get(name) or "" for name, field in _SEO.items()}
    return given


class PageText(_Texts):
    def read(self, shop: Shopify, parameters: Parameters) -> Values:
        page = shop.query("page_text", {"id": gid("Page", parameters["page_id"])})["page"]
        if page is None:
            raise NotFound(f"there is no page {parameters['page_id']}", where="page_id")
        return page_of(page)

    def write(self, shop: Shopify, parameters: Parameters, now: Values, to: Values) -> Values:
        fields = {"title": "title", "body_html": "body", "published": "isPublished"}
        given = {fields[name]: value for name, value in to.items()}
        told = shop.mutate("page_update", {"id": gid("Page", parameters["page_id"]), "page": given})
        return page_of(told["page"]) if told["page"] else {}


def page_of(page: Mapping[str, Any]) -> Values:
    return {"title": page["title"], "body_html": page["body"], "published": page["isPublished"]}
