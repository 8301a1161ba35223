"""Who is calling: a key of one shop, or a user who chose a shop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from operation_agent.kit.errors import Denied, Rejected
from operation_agent.store.shops import Shop

from .permissions import allows


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller. `chosen_shop` is None only for a user who named no shop."""

    kind: Literal["key", "user"]
    id: UUID
    name: str
    scopes: frozenset[str]
    chosen_shop: Shop | None

    @property
    def shop(self) -> Shop:
        """The shop this request is about. Raises Rejected when a user named none."""
        if self.chosen_shop is None:
            raise Rejected("say which shop with ?shop=<slug>", code="shop_missing", where="query.shop")
        return self.chosen_shop

    @property
    def actor(self) -> str:
        """For the audit log."""
        return f"{self.kind}:{self.name}"

    def require(self, permission: str) -> None:
        """Raises Denied when this caller may not do that."""
        if not allows(self.scopes, permission):
            raise Denied(
                f"this needs the permission {permission}; {self.actor} has {', '.join(sorted(self.scopes))}",
                code="scope_missing",
            )
