"""The templates that ship with the agent: one strategy for each goal, in Chinese and English."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType

from operation_agent.kit.errors import NotFound
from rules.strategy import Strategy, parse_yaml

from .vocabulary import vocabulary


@cache
def library() -> Mapping[str, Strategy]:
    """Every shipped template by its goal's key (`conversion`, `retention`, `repurchase`, `win_back`), parsed once.

    A template that does not parse is a defect of this release, and raises rules.errors.RuleError.
    """
    folder = resources.files("rules") / "templates"
    found = {
        file.name.removesuffix(".yaml"): parse_yaml(file.read_text(encoding="utf-8"), vocabulary())
        for file in sorted(folder.iterdir(), key=lambda one: one.name)
        if file.name.endswith(".yaml")
    }
    return MappingProxyType(found)


def template(key: str) -> Strategy:
    """Raises NotFound, naming the templates there are."""
    try:
        return library()[key]
    except KeyError:
        raise NotFound(f"there is no template {key!r}; there are {', '.join(library())}", where="template") from None
