"""Reading what people and other programs write as a strategy, and saying everything that is wrong with it at once.

Besides its own form a strategy is read from a plain rule (`rules.plain`: `rule_id`, `conditions`, `actions`); and
wherever it has a condition, from what a visual editor made of it (`rules.querybuilder`: `combinator`, `rules`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from operation_agent.kit.errors import Rejected
from operation_agent.segments.vocabulary import MEMBER
from rules import plain, querybuilder
from rules import rule as rule_form
from rules import strategy as strategies
from rules.errors import RuleError
from rules.fields import Vocabulary
from rules.strategy import Strategy
from rules.tree import Node

from .library import messages
from .vocabulary import of_shop, vocabulary

MOST_PROBLEMS = 50
_SEVERABLE = frozenset({"all", "any", "none", "rules", "arms", "caps"})
"""Lists from which one bad item can be taken without making another one wrong."""


@dataclass(frozen=True, slots=True)
class Problem:
    """`where` is the path in what was written, such as rules[0].if.all[2].value."""

    where: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        return {"where": self.where, "reason": self.reason}


def vocabulary_for(session: Session, shop_id: UUID, keys: Iterable[str] = ()) -> Vocabulary:
    """What a definition of this shop may speak of; `keys`: strategies that are being written with it."""
    known = of_shop(session, shop_id)
    made = {f"strategy.{key}": MEMBER for key in keys}
    return Vocabulary({**known.fields, **made}, known.events, known.aliases)


def read(raw: Any, vocabulary: Vocabulary) -> Strategy:
    """A written definition as a Strategy. Raises Rejected (code 'strategy') with the first path at fault in `where`
    and all of them in `errors`."""
    try:
        if plain.is_plain(raw):
            return _read_plain(raw, vocabulary)
        return strategies.parse(_without_queries(raw, "", vocabulary), vocabulary)
    except RuleError as error:
        found = problems(raw, vocabulary)
        errors = [one.to_dict() for one in found]
        raise Rejected(error.reason, code="strategy", where=error.where, errors=errors) from None


def _read_plain(raw: Any, vocabulary: Vocabulary) -> Strategy:
    """Of a rule that is not enabled: a strategy whose rule is switched off."""
    made, enabled = plain.read(raw, vocabulary, messages())
    return made if enabled else replace(made, rules=tuple(replace(rule, enabled=False) for rule in made.rules))


def read_of_shop(session: Session, shop_id: UUID, raw: Any) -> Strategy:
    """`read` with the segments and strategies of a shop, the one that is being written among them."""
    key = raw.get("key") if isinstance(raw, Mapping) else None
    return read(raw, vocabulary_for(session, shop_id, [key] if isinstance(key, str) else []))


def problems(raw: Any, vocabulary: Vocabulary) -> list[Problem]:
    """Everything that is wrong, up to MOST_PROBLEMS. Each rule is read by itself, and what is around them too; after
    an error the item it is in is left out, where that can make nothing else wrong, and the rest is read again."""
    if plain.is_plain(raw):
        return _first(lambda: _read_plain(raw, vocabulary))
    found: list[Problem] = []
    written = _without_queries(raw, "", vocabulary, found)
    if found:
        return found
    rules = written.get("rules") if isinstance(written, dict) else None
    if not isinstance(rules, list) or not rules:
        return _rounds(written, vocabulary)
    for number, rule in enumerate(rules):
        wrong = _rounds({**_FRAME, "rules": [rule]}, vocabulary, MOST_PROBLEMS - len(found))
        found += [replace(one, where=f"rules[{number}]{one.where.removeprefix('rules[0]')}") for one in wrong]
        if len(found) >= MOST_PROBLEMS:
            return found
    found += _rounds({**written, "rules": [_RULE]}, vocabulary, MOST_PROBLEMS - len(found))
    return found or _first(lambda: strategies.parse(written, vocabulary))  # what rules are to each other


_FRAME = {"key": "frame", "name": {"en": "-", "zh": "-"}, "goal": "conversion", "why": {"en": "-", "zh": "-"}}
_RULE = {
    "key": "frame", "when": {"schedule": "0 9 * * *"}, "if": {"field": "customer.orders", "op": "exists"},
    "then": {"arms": [{"key": "none", "steps": []}]},
}  # fmt: skip
"""A strategy without rules, and a rule, in which nothing is wrong: what the other is read with."""


def _first(read_it: Callable[[], object]) -> list[Problem]:
    try:
        read_it()
    except RuleError as error:
        return [Problem(error.where, error.reason)]
    return []


def _rounds(written: Any, vocabulary: Vocabulary, most: int = MOST_PROBLEMS) -> list[Problem]:
    tree = _numbered(written)
    found: list[Problem] = []
    while len(found) < most:
        try:
            strategies.parse(_plain(tree), vocabulary)
            break
        except RuleError as error:
            path = list(_steps(error.where))
            place = Problem(_original(tree, path), error.reason)
            if place in found:
                break
            found.append(place)
            if not _sever(tree, path):
                break
    return found


def query(rule: dict[str, Any]) -> dict[str, Any]:
    """The condition of a stored rule as an editor's query; reading it gives the condition again."""
    return querybuilder.produce(rule_form.parse(Node(rule), vocabulary()).condition)


_CONDITIONS = frozenset({"if", "where"})
"""The keys whose values are conditions."""


def _without_queries(value: Any, path: str, vocabulary: Vocabulary, failed: list[Problem] | None = None) -> Any:
    """A copy in which each editor's query is a condition. Raises RuleError, or with `failed` puts it there."""
    if isinstance(value, list):
        return [_without_queries(one, f"{path}[{n}]", vocabulary, failed) for n, one in enumerate(value)]
    if not isinstance(value, dict):
        return value
    made = {}
    for key, child in value.items():
        here = f"{path}.{key}" if path else f"{key}"
        if key in _CONDITIONS and isinstance(child, dict) and "combinator" in child:
            made[key] = _queried(child, here, vocabulary, failed)
        else:
            made[key] = _without_queries(child, here, vocabulary, failed)
    return made


def _queried(query: Any, path: str, vocabulary: Vocabulary, failed: list[Problem] | None) -> Any:
    try:
        return querybuilder.parse(Node(query), vocabulary).to_dict()
    except RuleError as error:
        where = f"{path}.{error.where}" if error.where else path
        if failed is None:
            raise RuleError(where, error.reason) from None
        failed.append(Problem(where, error.reason))
        return query


# -- a tree whose list items know where they stood --------------------------------------------------------------------


@dataclass(slots=True)
class _Item:
    index: int
    value: Any


def _numbered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbered(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_Item(index, _numbered(child)) for index, child in enumerate(value)]
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_plain(item.value) for item in value]
    return value


def _steps(path: str) -> Iterator[str | int]:
    """rules[0].if.all -> "rules", 0, "if", "all"."""
    for part in path.split("."):
        name, *indexes = part.split("[")
        if name:
            yield name
        for index in indexes:
            yield int(index.rstrip("]")) if index.rstrip("]").isdigit() else index


def _walk(tree: Any, path: list[str | int]) -> Iterator[tuple[Any, Any]]:
    """Each container on the path with the step taken from it, as far as the path leads."""
    node = tree
    for step in path:
        if isinstance(node, list) and isinstance(step, int) and step < len(node):
            yield node, step
            node = node[step].value
        elif isinstance(node, dict) and isinstance(step, str):
            yield node, step
            node = node.get(step)
        else:
            return


def _original(tree: Any, path: list[str | int]) -> str:
    """The path as it was before anything was left out."""
    written = ""
    taken = 0
    for node, step in _walk(tree, path):
        taken += 1
        written += f"[{node[step].index}]" if isinstance(node, list) else f".{step}" if written else f"{step}"
    rest = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path[taken:])
    return written + rest if written else rest.lstrip(".")


def _sever(tree: Any, path: list[str | int]) -> bool:
    """Leave out the innermost item that can be left out; False when there is none."""
    walked = list(_walk(tree, path))
    for place in range(len(walked) - 1, 0, -1):
        node, step = walked[place]
        if isinstance(node, list) and len(node) > 1 and walked[place - 1][1] in _SEVERABLE:
            del node[step]
            return True
    return False
