"""Changes that make something new. It carries a mark with the change's key, so that after an uncertain call it can be
found again: among the newest of its kind, back to the newest that stood there when the change was previewed. (Not by
search: Shopify's search index shows new things late.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from integrations.shopify.client import Shopify
from operation_agent.kit.errors import Conflict, Retryable
from operation_agent.storefront.protocol import Applied, Preview

from .ids import number_of
from .values import Parameters, Values

_PAGE, _MOST_PAGES = 50, 40


class Creation(ABC):
    """One kind of new thing. `newest` is the query that lists them, the newest first, and `listed` its field."""

    newest: ClassVar[str]
    listed: ClassVar[str]
    why_no_undo: ClassVar[str | None] = None

    @abstractmethod
    def describe(self, shop: Shopify, parameters: Parameters) -> tuple[Values, list[str]]:
        """What would be made, and what the operator should know."""

    @abstractmethod
    def is_marked(self, node: Mapping[str, Any], key: str) -> bool: ...

    @abstractmethod
    def create(self, shop: Shopify, parameters: Parameters, key: str) -> str:
        """Make it; its global id."""

    @abstractmethod
    def look(self, shop: Shopify, found: str) -> Values | None:
        """Its values as they are compared before it is deleted; None: it is gone."""

    @abstractmethod
    def delete(self, shop: Shopify, found: str) -> None: ...

    def finish(self, shop: Shopify, parameters: Parameters, found: str) -> list[str]:
        """What is done once it stands, if it is not done yet; warnings."""
        return []

    def is_finished(self, shop: Shopify, parameters: Parameters, found: str) -> bool:
        return True

    def is_same(self, now: Values, made: Values) -> bool:
        return now == made

    def preview(self, shop: Shopify, parameters: Parameters) -> Preview:
        after, warnings = self.describe(shop, parameters)
        if self.why_no_undo is not None and parameters.get("invoice"):
            warnings.append(self.why_no_undo)
        nodes = shop.query(self.newest, {"first": 1, "after": None})[self.listed]["nodes"]
        return Preview({"newest": number_of(nodes[0]["id"]) if nodes else None}, after, warnings)

    def apply(self, shop: Shopify, parameters: Parameters, before: Values, *, key: str) -> Applied:
        found = self.find(shop, before, key) or self.create(shop, parameters, key)
        warnings = self.finish(shop, parameters, found)
        return self._made(shop, parameters, found, warnings)

    def is_applied(self, shop: Shopify, parameters: Parameters, before: Values, *, key: str) -> Applied | None:
        found = self.find(shop, before, key)
        if found is None or not self.is_finished(shop, parameters, found):
            return None
        return self._made(shop, parameters, found, [])

    def undo(self, shop: Shopify, undo: Mapping[str, Any], *, key: str, force: bool) -> Values:
        now = self.look(shop, undo["id"])
        if now is None:
            return {}
        stays = self.why_it_stays(now)
        if stays is not None:
            raise Conflict(stays, code="completed")
        if not force and not self.is_same(now, undo["made"]):
            raise Conflict("somebody changed it since it was made; force it to delete it anyway", code="changed")
        self.delete(shop, undo["id"])
        return {}

    def why_it_stays(self, now: Values) -> str | None:
        """Why it cannot be deleted, forced or not."""
        return None

    def find(self, shop: Shopify, before: Values, key: str) -> str | None:
        """The global id of what this change made, None if it made nothing."""
        oldest, after = int(before["newest"] or 0), None
        for _ in range(_MOST_PAGES):
            page = shop.query(self.newest, {"first": _PAGE, "after": after})[self.listed]
            for node in page["nodes"]:
                if int(number_of(node["id"])) <= oldest:
                    return None
                if self.is_marked(node, key):
                    return str(node["id"])
            if not page["pageInfo"]["hasNextPage"]:
                return None
            after = page["pageInfo"]["endCursor"]
        raise Retryable(f"more than {_PAGE * _MOST_PAGES} new {self.listed} since the preview: cannot tell its own")

    def _made(self, shop: Shopify, parameters: Parameters, found: str, warnings: list[str]) -> Applied:
        made = self.look(shop, found)
        undo = {"id": found, "made": made} if made is not None else None
        why = self.why_no_undo if parameters.get("invoice") else None
        return Applied(number_of(found), made or {}, undo, why if undo else "it is gone already", warnings)
