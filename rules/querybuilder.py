"""Conditions as the JSON of react-querybuilder (https://react-querybuilder.js.org), so that a visual editor may read
and write them: `parse(produce(c)) == c` for every condition.

    all, any, none      {combinator: and | or, rules, not?}; `not` with `and` is read as "none of (all of …)"
    a comparison        {field, operator, value}; = != < <= > >= in notIn between contains null notNull are its own
                        operators, `within` (value P7D) and `changed` (value {from?, to?} or null) are ours
    with another field  valueSource "field", value its name; meta {times?, plus?}
    {ago: P30D} …       as the value
    of past events      field "history", meta {history: {event, measure, …}}
    held for a time     meta {for: P3D}
    a lone comparison   a group around it (the editor wants one) with meta {bare: true}

Accepted besides: doesNotContain and notBetween (read as `none` of the positive), lists as texts with commas, numbers
and true/false as texts where the field says what they are; `id` and `path` are dropped. What a condition cannot hold
(independent combinators, xor, locked or muted rules, subqueries, beginsWith …) is refused with its path in the query.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from . import condition as conditions
from .condition import Condition, Group, Leaf, Reference
from .errors import RuleError
from .fields import Fields, FieldType, Vocabulary, lookup
from .tree import Node

OPERATORS = {
    "equals": "=", "not_equals": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">=", "in": "in", "not_in": "notIn",
    "between": "between", "contains": "contains", "exists": "notNull", "not_exists": "null", "within": "within",
    "changed": "changed",
}  # fmt: skip
"""Ours by the editor's name for it."""
_OURS = {theirs: ours for ours, theirs in OPERATORS.items()}
_NEGATED = {"doesNotContain": "contains", "notBetween": "between"}
_INEXPRESSIBLE = ("beginsWith", "endsWith", "doesNotBeginWith", "doesNotEndWith")
_LISTS = ("in", "not_in", "between")
_DROPPED = ("id", "path")
_LOCKS = {
    "disabled": "a locked part cannot be kept as one; unlock it",
    "muted": "a muted part would be lost; remove it, or switch it on again",
    "match": "a query within a value cannot be asked",
    "combinatorPreceding": "independent combinators cannot be read; give each group one combinator",
}
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_COMMA = re.compile(r"(?<!\\),")
HISTORY = "history"
PLACEHOLDER = "~"


def produce(condition: Condition) -> dict[str, Any]:
    """The query of a condition, without ids."""
    if isinstance(condition, Leaf):
        return {"combinator": "and", "rules": [_rule(condition)], "meta": {"bare": True}}
    return _group(condition)


def parse(node: Node, known: Vocabulary | Fields) -> Condition:
    """Read a query. Raises RuleError, naming the path in the query."""
    vocabulary = known if isinstance(known, Vocabulary) else Vocabulary(known, {})
    reading = _Reading(vocabulary, {})
    written = reading.root(node)
    try:
        return conditions.parse(Node(written, ""), vocabulary)
    except RuleError as refused:
        raise RuleError(reading.theirs(refused.where), refused.reason) from None


def _group(group: Group) -> dict[str, Any]:
    rules = [_rule(one) if isinstance(one, Leaf) else _group(one) for one in group.children]
    query = {"combinator": "and" if group.kind == "all" else "or", "rules": rules}
    return query | ({"not": True} if group.kind == "none" else {})


def _rule(leaf: Leaf) -> dict[str, Any]:
    written, meta = leaf.to_dict(), {}
    rule = {"field": written.get("field", HISTORY), "operator": OPERATORS[leaf.op], "value": written.get("value")}
    if isinstance(leaf.value, Reference):
        meta = {key: value for key, value in written["value"].items() if key != "field"}
        rule |= {"value": leaf.value.field, "valueSource": "field"}
    meta |= {key: written[key] for key in (HISTORY, "for") if key in written}
    return rule | ({"meta": meta} if meta else {})


class _Reading:
    """Rewrites a query into our form, noting which part came from where."""

    def __init__(self, known: Vocabulary, places: dict[str, str]) -> None:
        self._known, self._places = known, places

    def root(self, node: Node) -> dict[str, Any]:
        if isinstance(node.value, dict) and "rules" not in node.value and "field" in node.value:
            return self._rule(node, "")
        children = self._children(node)
        meta = children["meta"].mapping("bare") if "meta" in children else {}
        only = children["rules"].value
        if (
            "bare" in meta
            and meta["bare"].flag()
            and isinstance(only, list)
            and len(only) == 1
            and "not" not in children
        ):
            inner = children["rules"].items("rules")[0]
            if isinstance(inner.value, dict) and "rules" not in inner.value:
                return self._rule(inner, "")
        return self._group(node, "")

    def theirs(self, where: str) -> str:
        """The path in the query of a path in our form."""
        known = max((one for one in self._places if _is_within(where, one)), key=len, default="")
        rest = where[len(known) :].removeprefix(".")
        head, _, tail = rest.partition(".")
        head = {"op": "operator", "for": "meta.for"}.get(head, "meta.history" if head == HISTORY else head)
        return ".".join(part for part in (self._places.get(known, ""), head, tail) if part)

    def _children(self, node: Node) -> dict[str, Node]:
        children = node.mapping("combinator", "rules", "not", "meta", *_DROPPED, *_LOCKS)
        _refuse_locks(children)
        node.need("rules")
        if node.get("combinator") is None:
            raise node.fail(_LOCKS["combinatorPreceding"])
        return children

    def _group(self, node: Node, at: str) -> dict[str, Any]:
        children = self._children(node)
        if "meta" in children:
            children["meta"].mapping("bare")
        combinator = children["combinator"].choice(("and", "or"))
        negated = "not" in children and children["not"].flag()
        kind = {("and", False): "all", ("or", False): "any"}.get((combinator, negated), "none")
        self._places[at] = node.path
        inner = f"{at}.{kind}" if at else kind
        nodes = children["rules"].items("rules")
        self._places[inner] = children["rules"].path
        if combinator == "and" and negated and len(nodes) > 1:  # not (a and b): none of the one group
            self._places[f"{inner}[0]"] = node.path
            self._places[f"{inner}[0].all"] = children["rules"].path
            return {"none": [{"all": self._members(nodes, f"{inner}[0].all")}]}
        return {kind: self._members(nodes, inner)}

    def _members(self, nodes: Sequence[Node], at: str) -> list[dict[str, Any]]:
        return [self._member(node, f"{at}[{i}]") for i, node in enumerate(nodes)]

    def _member(self, node: Node, at: str) -> dict[str, Any]:
        if isinstance(node.value, str):
            raise node.fail(_LOCKS["combinatorPreceding"])
        return self._group(node, at) if isinstance(node.value, dict) and "rules" in node.value else self._rule(node, at)

    def _rule(self, node: Node, at: str) -> dict[str, Any]:
        children = node.mapping("field", "operator", "value", "valueSource", "meta", *_DROPPED, *_LOCKS)
        _refuse_locks(children)
        operator = node.need("operator")
        op = self._operator(operator)
        if operator.value in _NEGATED:
            self._places[at] = self._places[f"{at}.none" if at else "none"] = node.path
            at = f"{at}.none[0]" if at else "none[0]"
        self._places[at] = node.path
        meta = children["meta"].mapping(HISTORY, "for", "times", "plus") if "meta" in children else {}
        asked, field = self._asked(node.need("field"), meta)
        written = asked | {"op": op} | ({"for": meta["for"].value} if "for" in meta else {})
        if op not in ("exists", "not_exists") and children.get("value", node).value not in (None, ""):
            written["value"] = self._value(children, meta, op, field, at)
        return {"none": [written]} if operator.value in _NEGATED else written

    def _operator(self, node: Node) -> str:
        if node.value in _INEXPRESSIBLE:
            raise node.fail(f"{node.value} cannot be asked; `contains` looks anywhere in a text")
        if node.value == PLACEHOLDER:
            raise node.fail("no operator is chosen")
        return _OURS[_NEGATED.get(str(node.value)) or node.choice((*_OURS, *_NEGATED))]

    def _asked(self, node: Node, meta: dict[str, Node]) -> tuple[dict[str, Any], FieldType | None]:
        name = node.text(longest=120)
        if name == PLACEHOLDER:
            raise node.fail("no field is chosen")
        if name != HISTORY:  # what the editor kept of another field is none of this one's
            return {"field": name}, lookup(self._known.fields, self._known.aliases.get(name, name))
        if HISTORY not in meta:
            raise node.fail("what is asked of past events is missing: meta.history")
        return {HISTORY: meta[HISTORY].value}, FieldType("number")

    def _value(
        self, children: dict[str, Node], meta: dict[str, Node], op: str, field: FieldType | None, at: str
    ) -> Any:
        node, source = children["value"], children.get("valueSource")
        if source is not None and source.choice(("value", "field")) == "field":
            if op in (*_LISTS, "within", "contains", "changed"):
                raise source.fail(f"{op} cannot name another field here; a list of {{field: …}} can, for between")
            self._places[f"{at}.value.field" if at else "value.field"] = node.path
            self._places[f"{at}.value" if at else "value"] = node.path
            return {"field": node.value} | {key: meta[key].value for key in ("times", "plus") if key in meta}
        if op in _LISTS:
            listed = _split(node.value) if isinstance(node.value, str) else node.value
            return [_typed(one, op, field) for one in listed] if isinstance(listed, list) else listed
        return _typed(node.value, op, field)


def _refuse_locks(children: dict[str, Node]) -> None:
    for key, reason in _LOCKS.items():
        if key in children and children[key].value not in (None, False):
            raise children[key].fail(reason)


def _is_within(where: str, place: str) -> bool:
    return where == place or not place or (where.startswith(place) and where[len(place)] in ".[")


def _split(value: str) -> list[str]:
    """A list as the editor keeps it by default: commas between, a comma of its own after a backslash."""
    parts = (part.replace("\\,", ",").strip() for part in _COMMA.split(value))
    return [part for part in parts if part]


def _typed(value: Any, op: str, field: FieldType | None) -> Any:
    """What an input element gave as text, as the field's kind has it."""
    if not isinstance(value, str) or field is None or op in ("within", "contains"):
        return value
    text = value.strip()
    is_ordered = op in (*conditions.ORDERED, "between")
    if (field.kind == "number" or (field.kind == "any" and is_ordered)) and _NUMBER.fullmatch(text):
        number = float(text)
        return number if number - number == 0 else value
    if field.kind == "flag" and text in ("true", "false"):
        return text == "true"
    return value
