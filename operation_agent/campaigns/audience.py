"""Who a campaign is for: everybody, a segment, or whoever meets a condition. Written `{}`, `{"segment": key}` or
`{"condition": {...}}`, the condition as a rule's `if`; it speaks of customers, so not of what just happened to one.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from operation_agent.kit.errors import Rejected
from operation_agent.segments import definition
from operation_agent.strategies.vocabulary import of_shop
from rules.condition import Condition
from rules.errors import RuleError


def read(session: Session, shop_id: UUID, written: dict[str, Any]) -> Condition | None:
    """The condition of an audience; None for everybody. Raises Rejected, naming the path at fault."""
    if written.keys() - {"segment", "condition"} or len(written) > 1:
        raise Rejected("an audience is {}, {segment: key} or {condition: {...}}", where="audience")
    if not written:
        return None
    tree = {"field": f"segment.{written['segment']}", "op": "equals", "value": True} if "segment" in written else None
    try:
        return definition.parse(
            tree or written["condition"], of_shop(session, shop_id), path="audience" if tree else "audience.condition"
        )
    except RuleError as error:
        raise Rejected(str(error), where="audience") from None
