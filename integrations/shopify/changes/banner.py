"""The banner on the home page: a metaobject that the theme reads (docs/howto/change-the-shop.md has its lines).

A metaobject and not a theme file: it needs no access to themes, survives a change of theme, and the shop's own people
can edit it under Content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from integrations.shopify.client import Shopify
from integrations.shopify.errors import UserErrors

from .values import Parameters, ValueChange, Values

TYPE = "opagent_banner"
_LINE, _LINES, _FLAG = "single_line_text_field", "multi_line_text_field", "boolean"
_FIELDS = {
    "visible": ("Visible", _FLAG), "title": ("Title", _LINE), "text": ("Text", _LINES),
    "link_url": ("Link", _LINE), "link_label": ("Text of the link", _LINE), "image_url": ("Image", _LINE),
}  # fmt: skip
_DEFINITION: dict[str, Any] = {
    "type": TYPE,
    "name": "Banner (operations agent)",
    "displayNameKey": "title",
    "access": {"storefront": "PUBLIC_READ"},
    "fieldDefinitions": [{"key": key, "name": name, "type": kind} for key, (name, kind) in _FIELDS.items()],
}


class Banner(ValueChange):
    """Values: "banner" -> its fields as text, None where there is no such banner."""

    def read(self, shop: Shopify, parameters: Parameters) -> Values:
        found = _look(shop, parameters)["metaobjectByHandle"]
        return {"banner": _fields(found["fields"]) if found is not None else None}

    def target(self, parameters: Parameters, before: Values) -> Values:
        written = {name: parameters[name] or "" for name in _FIELDS if name != "visible"}
        return {"banner": {"visible": "true" if parameters["visible"] else "false", **written}}

    def write(self, shop: Shopify, parameters: Parameters, now: Values, to: Values) -> Values:
        found = _look(shop, parameters)
        if to["banner"] is None:
            if found["metaobjectByHandle"] is not None:
                shop.mutate("metaobject_delete", {"id": found["metaobjectByHandle"]["id"]})
            return {}
        if found["metaobjectDefinitionByType"] is None:
            _define(shop)
        fields = [{"key": name, "value": value} for name, value in to["banner"].items()]
        told = shop.mutate("metaobject_upsert", {"handle": _handle(parameters), "metaobject": {"fields": fields}})
        return {"banner": _fields(told["metaobject"]["fields"])} if told["metaobject"] else {}

    def warnings(self, parameters: Parameters, before: Values, after: Values) -> list[str]:
        if before["banner"] is not None:
            return []
        return [
            f"there is no such banner yet: the theme shows it once it has the lines for {TYPE}"
            f" {parameters['name']} (see the guide); its definition stays when this is taken back"
        ]


def _handle(parameters: Parameters) -> dict[str, str]:
    return {"type": TYPE, "handle": parameters["name"]}


def _look(shop: Shopify, parameters: Parameters) -> dict[str, Any]:
    return shop.query("banner", {"handle": _handle(parameters), "type": TYPE})


def _define(shop: Shopify) -> None:
    try:
        shop.mutate("metaobject_definition_create", {"definition": _DEFINITION})
    except UserErrors as error:
        if not error.has("TAKEN"):  # somebody was faster
            raise


def _fields(told: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    values = {one["key"]: one["value"] or "" for one in told}
    return {name: values.get(name, "false" if kind == _FLAG else "") for name, (_, kind) in _FIELDS.items()}
