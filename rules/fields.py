"""What a condition may speak of. The catalogue is handed in, since this package knows nothing of the agent.

Kinds: `number`, `flag` (true/false), `label` (a word), `time` (an instant), `list` (of words), and `any` for properties
whose type is known only when they come (a custom event's). A field named `event.*` stands for every other property
of an event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "flag", "label", "time", "list", "any"]


@dataclass(frozen=True, slots=True)
class FieldType:
    """`values` closes a label's vocabulary; `unit` is "days" where `within` compares with a duration."""

    kind: Kind
    values: frozenset[str] | None = None
    unit: str | None = None


Fields = Mapping[str, FieldType]


def lookup(fields: Fields, name: str) -> FieldType | None:
    """The type of a field, by its own name or its family's (`event.colour` by `event.*`)."""
    found = fields.get(name)
    if found is None and "." in name:
        found = fields.get(name.split(".", 1)[0] + ".*")
    return found


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Everything a rule may name: the fields, and each event type with its properties ("*": any property)."""

    fields: Fields
    events: Mapping[str, frozenset[str]]
