"""What a condition may speak of. The catalogue is handed in, since this package knows nothing of the agent.

Kinds: `number`, `flag` (true/false), `label` (a word), `time` (an instant), `list` (of words), and `any` for properties
whose type is known only when they come (a custom event's). A field named `event.*` stands for every other property of
an event, `consent.*.*` for every name of three parts. A family without such a field is closed: `segment.vip` alone
makes `segment.vpi` an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["number", "flag", "label", "time", "list", "any"]


@dataclass(frozen=True, slots=True)
class FieldType:
    """`values` closes a label's vocabulary; `unit` is "days" where `within` compares with a duration. `synonyms` are
    read as the value they name (高 as "high"; for a flag, 是 as "true") and never written. `has_since`: the column
    `<field>.since` says since when it has had its present value, so that a condition may ask how long."""

    kind: Kind
    values: frozenset[str] | None = None
    unit: str | None = None
    synonyms: Mapping[str, str] = field(default_factory=dict, hash=False)
    has_since: bool = False


Fields = Mapping[str, FieldType]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Everything a rule may name: the fields, and each event type with its properties ("*": any property). `aliases`:
    other names of fields (购买阶段), read as the one they stand for and never written."""

    fields: Fields
    events: Mapping[str, frozenset[str]]
    aliases: Mapping[str, str] = field(default_factory=dict)


def lookup(fields: Fields, name: str) -> FieldType | None:
    """The type of a field, by its own name or its family's (`event.colour` by `event.*`)."""
    found = fields.get(name)
    return found if found is not None else next((fields[one] for one in _families(name) if one in fields), None)


def _families(name: str) -> Iterator[str]:
    """The nearest first; every part of the name has to be there."""
    first, _, rest = name.partition(".")
    second, _, third = rest.partition(".")
    if third:
        yield f"{first}.{second}.*"
        yield f"{first}.*.*"
    if rest:
        yield f"{first}.*"


def near(fields: Fields, name: str) -> list[str]:
    """Up to three field names that may have been meant, the nearest first."""
    from difflib import get_close_matches

    return get_close_matches(name, [one for one in fields if not one.endswith("*")], n=3, cutoff=0.7)
