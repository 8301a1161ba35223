"""What changed between two definitions, place by place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rules.strategy import Strategy


@dataclass(frozen=True, slots=True)
class Change:
    """`before` None: it was added; `after` None: it was removed."""

    path: str
    before: Any
    after: Any

    def to_dict(self) -> dict[str, Any]:
        return {"path": self.path, "before": self.before, "after": self.after}


def compare(before: Strategy, after: Strategy) -> tuple[Change, ...]:
    return tuple(_changes("", before.to_dict(), after.to_dict()))


def _changes(path: str, before: Any, after: Any) -> Iterator[Change]:
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from _changes(f"{path}.{key}" if path else key, before.get(key), after.get(key))
    else:
        yield Change(path, before, after)
