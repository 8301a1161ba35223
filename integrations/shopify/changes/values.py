"""A change that sets values: read them, set them, put the old ones back. What every such change has in common.

Values are name -> value. Only those that the change names count: what else is changed at the shop meanwhile is nobody's
business here. While a change of several calls is half made, each value is either the old or the new one, so it can be
taken up again where it broke off.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from integrations.shopify.client import Shopify
from operation_agent.kit.errors import AgentError, Conflict, NotFound, Rejected
from operation_agent.storefront.protocol import Applied, Preview

Values = dict[str, Any]
Parameters = Mapping[str, Any]


class ValueChange(ABC):
    """One kind of change. `in_steps`: it takes more than one call, so a refusal may find it half made."""

    in_steps: ClassVar[bool] = False

    @abstractmethod
    def read(self, shop: Shopify, parameters: Parameters) -> Values:
        """The values now. Raises NotFound when what is to be changed is not there."""

    @abstractmethod
    def target(self, parameters: Parameters, before: Values) -> Values:
        """The values after it. Raises Rejected when they cannot be."""

    @abstractmethod
    def write(self, shop: Shopify, parameters: Parameters, now: Values, to: Values) -> Values:
        """Set what differs; the values as the shop then tells them, as far as it does."""

    def equal(self, name: str, one: Any, other: Any) -> bool:
        return bool(one == other)

    def warnings(self, parameters: Parameters, before: Values, after: Values) -> list[str]:
        return []

    def why_no_undo(self, before: Values) -> str | None:
        return None

    def preview(self, shop: Shopify, parameters: Parameters) -> Preview:
        now = self.read(shop, parameters)
        after = self.target(parameters, now)
        before = {name: now.get(name) for name in after}
        told = self.warnings(parameters, before, after)
        if self._all(after, before):
            told.append("nothing changes: the values at the shop are these already")
        no_way_back = self.why_no_undo(before)
        if no_way_back is not None:
            told.append(f"it cannot be taken back: {no_way_back}")
        return Preview(before, after, told)

    def apply(self, shop: Shopify, parameters: Parameters, before: Values, *, key: str) -> Applied:
        after = self.target(parameters, before)
        now = self.read(shop, parameters)
        if self._all(after, now):
            return self._made(parameters, before, {name: now[name] for name in after})
        self._check(now, before, after, "since the preview; ask for it anew")
        try:
            told = self.write(shop, parameters, now, after)
        except (Rejected, NotFound, Conflict):
            if self.in_steps:
                self._put_back(shop, parameters, before, after)
            raise
        return self._made(parameters, before, {**after, **{name: told[name] for name in after if name in told}})

    def is_applied(self, shop: Shopify, parameters: Parameters, before: Values, *, key: str) -> Applied | None:
        after = self.target(parameters, before)
        now = self.read(shop, parameters)
        if self._all(after, now):
            return self._made(parameters, before, {name: now[name] for name in after})
        self._check(now, before, after, "to something that is neither the old value nor the new one")
        return None

    def undo(self, shop: Shopify, undo: Mapping[str, Any], *, key: str, force: bool) -> Values:
        parameters, before, after = undo["parameters"], dict(undo["before"]), dict(undo["after"])
        now = self.read(shop, parameters)
        if self._all(before, now):
            return {name: now[name] for name in before}
        if not force:
            self._check(now, before, after, "since it was applied; force it to put the old value back anyway")
        told = self.write(shop, parameters, now, before)
        return {**before, **{name: told[name] for name in before if name in told}}

    def _made(self, parameters: Parameters, before: Values, after: Values) -> Applied:
        why_not = self.why_no_undo(before)
        undo = {"parameters": dict(parameters), "before": before, "after": after}
        return Applied(None, after, undo if why_not is None else None, why_not)

    def _put_back(self, shop: Shopify, parameters: Parameters, before: Values, after: Values) -> None:
        now = self.read(shop, parameters)
        done = {name: before[name] for name in after if not self.equal(name, now.get(name), before[name])}
        if done:
            self.write(shop, parameters, now, done)

    def _all(self, wanted: Values, now: Values) -> bool:
        return all(name in now and self.equal(name, now[name], value) for name, value in wanted.items())

    def _check(self, now: Values, before: Values, after: Values, told: str) -> None:
        for name in after:
            known = (before.get(name), after[name])
            if name not in now or not any(self.equal(name, now[name], value) for value in known):
                raise Conflict(f"{name} was changed at the shop {told}", code="changed", where=name)


def refused(error: AgentError) -> Conflict:
    """Of a compare-and-set that lost."""
    return Conflict(f"somebody changed it at the same moment: {error.detail}", code="changed")
