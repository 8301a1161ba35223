"""Tags of a customer, an order or a product: some added, some taken away; all others stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from integrations.shopify.client import Shopify
from operation_agent.kit.errors import NotFound

from .ids import gid
from .values import Parameters, ValueChange, Values


@dataclass(frozen=True, slots=True)
class Tags(ValueChange):
    """Values: tag -> whether it is there. Shopify takes tags that differ in case for the same."""

    owner: str
    of: str
    in_steps: ClassVar[bool] = True

    def read(self, shop: Shopify, parameters: Parameters) -> Values:
        node = shop.query("tags_of", {"id": gid(self.owner, parameters[self.of])})["node"]
        if node is None:
            raise NotFound(f"there is no {self.owner.lower()} {parameters[self.of]}", where=self.of)
        there = {tag.casefold() for tag in node.get("tags") or ()}
        return {tag: tag.casefold() in there for tag in (*parameters["add"], *parameters["remove"])}

    def target(self, parameters: Parameters, before: Values) -> Values:
        return dict.fromkeys(parameters["add"], True) | dict.fromkeys(parameters["remove"], False)

    def write(self, shop: Shopify, parameters: Parameters, now: Values, to: Values) -> Values:
        owner = gid(self.owner, parameters[self.of])
        for name, wanted in (("tags_add", True), ("tags_remove", False)):
            tags = [tag for tag, there in to.items() if there is wanted and now[tag] is not wanted]
            if tags:
                shop.mutate(name, {"id": owner, "tags": tags})
        return {}
