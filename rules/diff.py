"""What differs between two versions of a strategy, as an operator would say it: "discount 10 % → 15 %".

Rules, arms and steps that were given a key are the same by their key, wherever they stand; other steps by what they
do, in their order. A condition's comparisons are the same by the field they ask about. What cannot be matched was
added or removed. Equal strategies differ in nothing, and different ones always in something.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from . import labels, phrases
from .labels import Labels, Say
from .phrases import Names, Words, both
from .strategy import Strategy

Kind = Literal["added", "removed", "changed", "moved"]
Written = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `path` names rules, arms and steps by key (`rules[cart-left].then.arms[a].steps[1].percent`);
    `before` and `after` are as written, None where there is none. `words`: {en, zh}."""

    path: str
    kind: Kind
    before: Any
    after: Any
    words: Words


def diff(before: Strategy | None, after: Strategy, names: Names | None = None) -> list[Change]:
    """What changed, from the whole to its parts. `before` None: everything is new. `names`: see `phrases`."""
    new = after.to_dict()
    if before is None:
        said = both(lambda language: _NEW[language].format(after.name.get(language, after.key)))
        old: dict[str, Any] = {"rules": []}
        head = [Change("", "added", None, new, said)]
        return head + list(_rules(old["rules"], new["rules"], _Place("", names or {})))
    written = before.to_dict()
    if written == new:
        return []
    place = _Place("", names or {})
    found = list(_mapping({**written, "rules": None}, {**new, "rules": None}, place, labels.STRATEGY))
    return found + list(_rules(written["rules"], new["rules"], place))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a difference is: the path, and the same in words."""

    path: str
    names: Names
    where: tuple[Words, ...] = ()

    def at(self, path: str, words: Words | None = None) -> _Place:
        joined = path if path.startswith("[") or not self.path else f".{path}"
        return _Place(self.path + joined, self.names, (*self.where, words) if words else self.where)

    def change(self, kind: Kind, before: Any, after: Any, say: Callable[[str], str]) -> Change:
        def whole(language: str) -> str:
            parts = [*(words[language] for words in self.where), say(language)]
            return _COLON[language].join(parts)

        return Change(self.path, kind, before, after, both(whole))


_COLON = {"en": ": ", "zh": "："}
_NEW = {"en": "strategy “{}” is new", "zh": "新策略“{}”"}
_RULE = {"en": "rule `{}`", "zh": "规则 `{}`"}
_ARM = {"en": "arm `{}`", "zh": "方案 `{}`"}
_STEP = {"en": "step `{}`", "zh": "步骤 `{}`"}
_CAP = {"en": "cap", "zh": "频次上限"}
_CONDITION = {"en": "condition `{}`", "zh": "条件 `{}`"}
_SAID: dict[Kind, Words] = {
    "added": {"en": "{} added", "zh": "新增{}"},
    "removed": {"en": "{} removed", "zh": "删除{}"},
    "moved": {"en": "{} moved", "zh": "{}移动了位置"},
}
_BECAME = {"en": "{} became `{}`", "zh": "{}改为 `{}`"}
_REWORDED = {"en": "{} reworded", "zh": "{}有改动"}
_ARROW = {"en": "{} {} → {}", "zh": "{} {} → {}"}


def _named(words: Words, key: str) -> Words:
    return {language: text.format(key) for language, text in words.items()}


def _simply(kind: Kind, thing: Words) -> Callable[[str], str]:
    return lambda language: _SAID[kind][language].format(thing[language])


# -- mappings ---------------------------------------------------------------------------------------------------------


def _mapping(before: Written, after: Written, place: _Place, table: Labels) -> Iterator[Change]:
    """The keys of two mappings in the order of their labels, and what has none after them."""
    order = [*table, *sorted((set(before) | set(after)) - set(table))]
    for key in order:
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        words, say = table.get(key, labels.label(key, key))
        if key == "caps":
            yield from _caps(old or [], new or [], place.at("caps"))
        elif isinstance(old, dict) and isinstance(new, dict) and set(old) | set(new) <= set(phrases.LANGUAGES):
            yield from _texts(old, new, place.at(key), words)
        elif isinstance(old, dict) and isinstance(new, dict) and key not in labels.WHOLE:
            yield from _mapping(old, new, place.at(key, words), table)
        else:
            yield _field(place.at(key), old, new, words, say)


def _texts(before: Written, after: Written, place: _Place, words: Words) -> Iterator[Change]:
    """Texts by language; of one that differs far behind, only that it does."""
    for language in phrases.LANGUAGES:
        old, new = before.get(language), after.get(language)
        if old == new:
            continue
        named = {said: text.format(words[said]) for said, text in labels.IN_LANGUAGE[language].items()}
        if phrases.shortened(old) == phrases.shortened(new):
            reworded = {said: text.format(named[said]) for said, text in _REWORDED.items()}
            yield place.at(language).change("changed", old, new, reworded.__getitem__)
        else:
            yield _field(place.at(language), old, new, named, labels.quoted)


def _field(place: _Place, old: Any, new: Any, words: Words, say: Say) -> Change:
    kind: Kind = "added" if old is None else "removed" if new is None else "changed"

    def sentence(language: str) -> str:
        return _ARROW[language].format(words[language], say(old, language), say(new, language))

    return place.change(kind, old, new, sentence)


def _caps(before: Sequence[Written], after: Sequence[Written], place: _Place) -> Iterator[Change]:
    def kind_of(cap: Written) -> str:
        return json.dumps([cap.get("channel"), cap.get("tag"), cap.get("scope")])

    def thing(cap: Written) -> Words:
        what = " ".join(cap[key] for key in ("channel", "tag") if key in cap)
        return both(
            lambda language: f"{_CAP[language]} {what} {cap['count']} / {phrases.span(cap['window'], language)}"
        )

    yield from _matched(before, after, _pair(before, after, kind_of), place, thing, _cap_change)


def _cap_change(before: Written, after: Written, place: _Place) -> Iterator[Change]:
    what = " ".join(after[key] for key in ("channel", "tag") if key in after)
    named = both(lambda language: f"{_CAP[language]} {what}".rstrip())
    yield from _mapping(before, after, _Place(place.path, place.names, (*place.where, named)), labels.CAP)


# -- lists: pairs of the same thing -----------------------------------------------------------------------------------

Pairs = list[tuple[int, int]]


def _pair(before: Sequence[Written], after: Sequence[Written], *signs: Callable[[Written], str]) -> Pairs:
    """Pairs (index before, index after): equal ones first, then those with the same sign, sign after sign, in order.
    An empty sign matches nothing."""
    left, right = list(range(len(before))), list(range(len(after)))
    pairs: Pairs = []
    for sign in (_content, *signs):
        waiting: dict[str, list[int]] = {}
        for index in left:
            waiting.setdefault(sign(before[index]), []).append(index)
        for index in list(right):
            found = waiting.get(sign(after[index]))
            if found and sign(after[index]):
                pairs.append((found.pop(0), index))
                left.remove(pairs[-1][0])
                right.remove(index)
    return sorted(pairs, key=lambda pair: pair[1])


def _content(written: Written) -> str:
    return json.dumps(written, sort_keys=True, ensure_ascii=False)


def _moved(pairs: Pairs) -> set[int]:
    """Indices after of what changed its order: all but a longest run that kept it."""
    best: list[list[int]] = []
    for place, (old, _) in enumerate(pairs):
        before = [run for run in best if pairs[run[-1]][0] < old]
        best.append([*_longest(before), place])
    kept = set(_longest(best))
    return {new for place, (_, new) in enumerate(pairs) if place not in kept}


def _longest(runs: Sequence[list[int]]) -> list[int]:
    return max(runs, key=lambda run: len(run), default=[])


def _matched(
    before: Sequence[Written],
    after: Sequence[Written],
    pairs: Pairs,
    place: _Place,
    thing: Callable[[Written], Words],
    inner: Callable[[Written, Written, _Place], Iterator[Change]],
    path: Callable[[Written, int], str] | None = None,
    elsewhere: tuple[Mapping[str, Written], Mapping[str, Written]] = ({}, {}),
) -> Iterator[Change]:
    """What was removed, then, in the order of now, what was added, moved or changed within. `elsewhere`: what other
    lists held and hold by key: what comes from there, or went there, was moved."""
    at = path or (lambda _, index: f"[{index}]")
    known, moved = {new: old for old, new in pairs}, _moved(pairs)
    for index, old in enumerate(before):
        if index not in known.values() and _key(old) not in elsewhere[1]:
            yield place.at(at(old, index)).change("removed", old, None, _simply("removed", thing(old)))
    for index, new in enumerate(after):
        here = place.at(at(new, index))
        origin = before[known[index]] if index in known else elsewhere[0].get(_key(new))
        if origin is None:
            yield here.change("added", None, new, _simply("added", thing(new)))
            continue
        old = origin
        if index in moved or index not in known:
            yield here.change("moved", old, new, _simply("moved", thing(new)))
        if old != new:
            yield from inner(old, new, here)


def _key(written: Written) -> str:
    return str(written.get("key", ""))


# -- rules and arms ---------------------------------------------------------------------------------------------------


def _rules(before: Sequence[Written], after: Sequence[Written], place: _Place) -> Iterator[Change]:
    def thing(rule: Written) -> Words:
        return _named(_RULE, rule["key"])

    pairs = _pair(before, after, _key)
    yield from _matched(before, after, pairs, place.at("rules"), thing, _rule, lambda rule, _: f"[{rule['key']}]")


def _rule(before: Written, after: Written, place: _Place) -> Iterator[Change]:
    place = _Place(place.path, place.names, (*place.where, _named(_RULE, after["key"])))
    parts = ("when", "if", "then", "key")
    yield from _mapping(_without(before, parts), _without(after, parts), place, labels.RULE)
    yield from _when(before["when"], after["when"], place.at("when"))
    yield from _condition(before["if"], after["if"], place.at("if"))
    old, new = before["then"]["arms"], after["then"]["arms"]

    def thing(arm: Written) -> Words:
        return _named(_ARM, arm["key"])

    at = place.at("then.arms")
    yield from _matched(old, new, _pair(old, new, _key), at, thing, _arm, lambda arm, _: f"[{arm['key']}]")


def _without(written: Written, keys: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in written.items() if key not in keys}


def _when(before: Written, after: Written, place: _Place) -> Iterator[Change]:
    sources = ("event", "schedule", "time_zone", "entered", "left", "missed")
    old, new = ({key: one[key] for key in sources if key in one} for one in (before, after))
    if old != new:
        words = {"en": "starts on", "zh": "触发于"}
        yield _field(place, old, new, words, lambda value, language: phrases.source(value, language))
    yield from _mapping(_without(before, sources), _without(after, sources), place, labels.WHEN)


def _arm(before: Written, after: Written, place: _Place) -> Iterator[Change]:
    place = _Place(place.path, place.names, (*place.where, _named(_ARM, after["key"])))
    parts = ("steps", "key")
    yield from _mapping(_without(before, parts), _without(after, parts), place, labels.ARM)
    elsewhere = _keyed(before["steps"]), _keyed(after["steps"])
    yield from _steps(before["steps"], after["steps"], place.at("steps"), elsewhere)


# -- steps ------------------------------------------------------------------------------------------------------------

Keyed = tuple[Mapping[str, Written], Mapping[str, Written]]


def _keyed(steps: Sequence[Written]) -> dict[str, Written]:
    """Every step of an arm that was given a key, at whatever depth."""
    found: dict[str, Written] = {}
    for step in steps:
        if "key" in step:
            found[step["key"]] = step
        for way in ("then", "else"):
            found |= _keyed(step.get(way, []))
    return found


def _kind_of(step: Written) -> str:
    """Steps without a key are the same by their kind; one with a key is itself."""
    if "key" in step:
        return ""
    return str(step.get("action") or next(kind for kind in ("wait", "if", "delay", "exit") if kind in step))


def _steps(before: Sequence[Written], after: Sequence[Written], place: _Place, keyed: Keyed) -> Iterator[Change]:
    def thing(step: Written) -> Words:
        if "key" in step:
            return _named(_STEP, step["key"])
        return both(lambda language: f"“{phrases.step(step, language, place.names)}”")

    def at(step: Written, index: int) -> str:
        return f"[{step.get('key', index)}]"

    def inner(old: Written, new: Written, here: _Place) -> Iterator[Change]:
        yield from _step(old, new, here, keyed)

    yield from _matched(before, after, _pair(before, after, _key, _kind_of), place, thing, inner, at, keyed)


def _step(before: Written, after: Written, place: _Place, keyed: Keyed) -> Iterator[Change]:
    if "key" in after:
        place = _Place(place.path, place.names, (*place.where, _named(_STEP, after["key"])))
    ways, forks = ("then", "else"), ("wait", "if")
    yield from _mapping(_without(before, (*ways, *forks)), _without(after, (*ways, *forks)), place, labels.STEP)
    for fork in forks:
        old, new = before.get(fork), after.get(fork)
        if old == new:
            continue
        if fork == "if" and old is not None and new is not None:
            yield from _condition(old, new, place.at("if"))
        else:
            words = {"en": "wait", "zh": "等待"} if fork == "wait" else {"en": "branch", "zh": "分支"}
            yield from _mapping(old or {}, new or {}, place.at(fork, words), labels.STEP)
    for way, words in zip(ways, ({"en": "then", "zh": "满足时"}, {"en": "else", "zh": "否则"}), strict=True):
        yield from _steps(before.get(way, []), after.get(way, []), place.at(way, words), keyed)


# -- conditions -------------------------------------------------------------------------------------------------------


def _condition(before: Written, after: Written, place: _Place) -> Iterator[Change]:
    if before == after:
        return
    parts = _side_by_side(before, after)
    if parts is None:
        yield _became(before, after, place)
        return
    kind, old, new = parts

    def thing(one: Written) -> Words:
        return both(lambda language: _CONDITION[language].format(phrases.condition(one, language, place.names)))

    yield from _matched(old, new, _pair(old, new, _asked), place.at(kind), thing, _condition)


def _side_by_side(before: Written, after: Written) -> tuple[str, Sequence[Written], Sequence[Written]] | None:
    """The members of two groups of a kind. What stands alone is one of `all` beside which something is asked now, or
    was before."""
    one, other = (next((kind for kind in ("all", "any", "none") if kind in part), "") for part in (before, after))
    if one and one == other:
        return one, before[one], after[one]
    old, new = before.get("all", [before]), after.get("all", [after])
    if "all" in (one, other) and old != new and (before in new or after in old):
        return "all", old, new
    return None


def _asked(condition: Written) -> str:
    if "field" in condition:
        return f"field {condition['field']}"
    if "history" in condition:
        return f"history {condition['history']['event']} {condition['history']['measure']}"
    return f"group {next(iter(condition))}"


def _became(before: Written, after: Written, place: _Place) -> Change:
    def say(language: str) -> str:
        old, new = (phrases.condition(one, language, place.names) for one in (before, after))
        return _BECAME[language].format(_CONDITION[language].format(old), new)

    return place.change("changed", before, after, say)
