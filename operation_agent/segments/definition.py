"""A segment's definition: a condition over what a customer is, at any moment and without a trigger. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rules import condition as conditions
from rules import querybuilder
from rules.condition import Condition, Leaf
from rules.errors import RuleError
from rules.fields import Vocabulary
from rules.tree import Node

PREFIX = "segment."


Form = Literal["conditions", "querybuilder"]


def parse(raw: Any, vocabulary: Vocabulary, *, path: str = "definition", form: Form = "conditions") -> Condition:
    """Read a definition; `form` querybuilder: the JSON of react-querybuilder. Raises RuleError, naming the path at
    fault: also for what only a trigger has."""
    node = Node(raw, path)
    if form == "querybuilder":
        found = querybuilder.parse(node, vocabulary)
        _refuse_triggers(Node(found.to_dict(), path), found)
        return found
    found = conditions.parse(node, vocabulary)
    _refuse_triggers(node, found)
    return found


def _refuse_triggers(node: Node, condition: Condition) -> None:
    if isinstance(condition, Leaf):
        if condition.op == "changed":
            raise node.need("op").fail(
                "a segment holds at any moment, so nothing has changed; compare the value itself"
            )
        if any(name.startswith("event.") for name in (condition.field, *condition.references)):
            raise node.fail("a segment has no triggering event; ask for past ones with `history`")
        return
    for child, inner in zip(node.need(condition.kind).items("conditions"), condition.children, strict=True):
        _refuse_triggers(child, inner)


def refers_to(condition: Condition) -> frozenset[str]:
    """Keys of the segments that a condition looks at."""
    named = conditions.fields_of(condition)
    return frozenset(name.removeprefix(PREFIX) for name in named if name.startswith(PREFIX))


def in_order(references: Mapping[str, frozenset[str]]) -> list[str]:
    """Keys so that each comes after those it refers to; else by name. References to others are left out.

    Raises RuleError, naming them, when segments refer to each other in a circle.
    """
    done: list[str] = []
    for key in sorted(references):
        _visit(key, references, done, ())
    return done


def _visit(key: str, references: Mapping[str, frozenset[str]], done: list[str], above: Sequence[str]) -> None:
    if key in above:
        circle = " → ".join((*above[above.index(key) :], key))
        raise RuleError("definition", f"segments refer to each other in a circle: {circle}")
    if key in done or key not in references:
        return
    for other in sorted(references[key]):
        _visit(other, references, done, (*above, key))
    done.append(key)
