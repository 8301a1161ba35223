"""Reading a definition: each value knows its path, so that every error names it.

A `Node` wraps one value of the tree (what YAML or JSON gave). Reading is strict: a key that is not known, or a value
of the wrong type, is an error and never a default.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from . import duration
from .errors import RuleError

LANGUAGES = ("en", "zh")
_KEY = re.compile(r"[a-z][a-z0-9_.-]{0,62}")


@dataclass(frozen=True, slots=True)
class Node:
    value: Any
    path: str = ""

    def fail(self, reason: str) -> RuleError:
        return RuleError(self.path, reason)

    def mapping(self, *allowed: str) -> dict[str, Node]:
        """The children of a mapping; with `allowed`, no other key."""
        if not isinstance(self.value, dict):
            raise self.fail(f"a mapping is wanted, not {_kind(self.value)}")
        children = {}
        for key, value in self.value.items():
            if not isinstance(key, str) or (allowed and key not in allowed):
                raise RuleError(self._child(str(key)), f"unknown key; known are {', '.join(allowed)}")
            children[key] = Node(value, self._child(key))
        return children

    def get(self, key: str) -> Node | None:
        """A child of a mapping that may be absent."""
        return Node(self.value[key], self._child(key)) if self.value.get(key) is not None else None

    def need(self, key: str) -> Node:
        child = self.get(key)
        if child is None:
            raise RuleError(self._child(key), "is missing")
        return child

    def items(self, what: str) -> list[Node]:
        """The children of a list with at least one item."""
        if not isinstance(self.value, list):
            raise self.fail(f"a list of {what} is wanted, not {_kind(self.value)}")
        if not self.value:
            raise self.fail(f"an empty list; give at least one of the {what}")
        return [Node(value, f"{self.path}[{index}]") for index, value in enumerate(self.value)]

    def text(self, *, longest: int = 10_000) -> str:
        if not isinstance(self.value, str) or not self.value.strip():
            raise self.fail(f"a text is wanted, not {_kind(self.value)}")
        if len(self.value) > longest or "\x00" in self.value:
            raise self.fail(f"a text of at most {longest} characters, without NUL, is wanted")
        return self.value

    def key(self) -> str:
        """A name by which machines refer to this: stable over versions."""
        value = self.text(longest=63)
        if not _KEY.fullmatch(value):
            raise self.fail(f"{value!r} is not a key: a small letter, then small letters, digits, '_', '-' or '.'")
        return value

    def choice(self, options: Iterable[str]) -> str:
        known = list(options)
        if not isinstance(self.value, str) or self.value not in known:
            raise self.fail(f"{str(self.value)[:40]!r} is not one of {', '.join(known)}")
        return self.value

    def number(self, *, low: float = -math.inf, high: float = math.inf) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or not math.isfinite(self.value):
            raise self.fail(f"a number is wanted, not {_kind(self.value)}")
        if not low <= self.value <= high:
            raise self.fail(f"{self.value} does not lie between {low:g} and {high:g}")
        return self.value

    def whole(self, *, low: int, high: int = 10**9) -> int:
        value = self.number(low=low, high=high)
        if value != int(value):
            raise self.fail(f"a whole number is wanted, not {value}")
        return int(value)

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.fail(f"true or false is wanted, not {_kind(self.value)}")
        return self.value

    def duration(self) -> timedelta:
        try:
            return duration.parse(self.text(longest=60))
        except ValueError as error:
            if isinstance(error, RuleError):
                raise
            raise self.fail(str(error)) from None

    def languages(self, *, longest: int = 10_000) -> dict[str, str]:
        """{en: …, zh: …}; both, so that no customer gets an empty message."""
        self.mapping(*LANGUAGES)
        return {language: self.need(language).text(longest=longest) for language in LANGUAGES}

    def _child(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def _kind(value: Any) -> str:
    names = {bool: "true/false", int: "a number", float: "a number", str: "a text", list: "a list", dict: "a mapping"}
    if value is None:
        return "nothing"
    if value == "":
        return "an empty text"
    return names.get(type(value), type(value).__name__)


def unique(nodes: Iterable[tuple[Node, str]], what: str) -> None:
    """Raises RuleError at the second of two nodes with the same key."""
    seen: set[str] = set()
    for node, key in nodes:
        if key in seen:
            raise node.fail(f"a second {what} named {key!r}")
        seen.add(key)
