"""Variables of a message's texts that would render empty for some of its readers: the text itself is rendered, with a
mark around every place where a value goes. A place that has a default, or stands in an `if`, does not come out empty.

Only first names may be missing: `rules.reading` sees to it that the coupon or product is there that a text names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rules import text
from rules.rule import Rule
from rules.step import Step

_PLACE = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_OPEN, _SHUT = "\ue000", "\ue001"
_MARK = re.compile(f"{_OPEN}(\\d+){_SHUT}(.*?){_OPEN}/{_SHUT}", re.DOTALL)
_FULL: dict[str, Any] = {
    "customer": {"first_name": "x"},
    "shop": {"name": "x"},
    "coupon": {"code": "x", "percent": "x", "amount": "x", "description": "x", "expires_at": "2026-01-01"},
    "product": {"id": "x"},
    "unsubscribe_url": "x",
}
FIRST_NAME = "customer.first_name"


@dataclass(frozen=True, slots=True)
class Gap:
    """The texts of one step, by language, that come out empty somewhere for readers without a first name."""

    arm: str
    step: str
    variable: str
    languages: tuple[str, ...]


def gaps(rule: Rule) -> list[Gap]:
    """Of every message of a rule."""
    found = []
    for arm in rule.arms:
        for path, placed in arm.places.items():
            languages = _lacking(placed.step)
            if languages:
                found.append(Gap(arm.key, placed.step.key or path, FIRST_NAME, languages))
    return found


def _lacking(step: Step) -> tuple[str, ...]:
    texts = [step.parameters[name] for name in ("subject", "body") if isinstance(step.parameters.get(name), Mapping)]
    found = {name for one in texts for name, source in one.items() if is_empty(source, FIRST_NAME)}
    return tuple(sorted(found))


def is_empty(source: str, variable: str) -> bool:
    """Whether some place of a text has nothing in it when `variable` is missing, and something when it is not."""
    room, _, name = variable.partition(".")
    if name not in source:
        return False
    without = {**_FULL, room: {key: value for key, value in _FULL[room].items() if key != name}}
    if room == "customer":
        without[room] = {name: None}
    marked = _marked(source)
    try:
        full, bare = (_rendered(marked, context) for context in (_FULL, without))
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "liquid":
            raise
        return False  # a text beyond the limits is refused when it is sent; that is another matter
    return any(one not in full for one in bare)


def _marked(source: str) -> str:
    number = iter(range(len(source)))
    return _PLACE.sub(lambda found: f"{_OPEN}{next(number)}{_SHUT}{found.group()}{_OPEN}/{_SHUT}", source)


def _rendered(marked: str, context: Mapping[str, Any]) -> set[str]:
    """The places that came out empty."""
    return {place for place, value in _MARK.findall(text.render_html(marked, context)) if not value.strip()}
