"""Who a campaign is for: everybody, a segment, or whoever meets a condition. Written `{}`, `{"segment": key}` or
`{"condition": {...}}`, the condition as a rule's `if`; it speaks of customers, so not of `event.*`.
"""

from __future__ import annotations

from typing import Any

from operation_agent.kit.errors import Rejected
from operation_agent.strategies.vocabulary import vocabulary
from rules import condition as conditions
from rules.condition import Condition
from rules.errors import RuleError
from rules.tree import Node


def read(written: dict[str, Any]) -> Condition | None:
    """The condition of an audience; None for everybody. Raises Rejected, naming the path at fault."""
    if written.keys() - {"segment", "condition"} or len(written) > 1:
        raise Rejected("an audience is {}, {segment: key} or {condition: {...}}", where="audience")
    if not written:
        return None
    tree = written.get("condition") or {"field": f"segment.{written['segment']}", "op": "equals", "value": True}
    try:
        found = conditions.parse(Node(tree, "audience.condition"), vocabulary().fields)
    except RuleError as error:
        raise Rejected(str(error), where="audience") from None
    about_events = sorted(name for name in conditions.fields_of(found) if name.startswith("event."))
    if about_events:
        raise Rejected(f"an audience cannot speak of {about_events[0]}: nothing happened just now", where="audience")
    return found
