"""What ships with the agent, in Chinese and English: strategies to start from, and messages that rules may name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType

from operation_agent.kit.errors import NotFound
from rules import message
from rules.message import Message
from rules.strategy import Strategy, parse_yaml
from rules.tree import Node

from .vocabulary import vocabulary


@cache
def library() -> Mapping[str, Strategy]:
    """Every shipped template by its file's name, parsed once; those of the four goals bear the goal's name.

    A template that does not parse is a defect of this release, and raises rules.errors.RuleError.
    """
    return MappingProxyType({name: parse_yaml(source, vocabulary()) for name, source in _files("templates")})


def template(key: str) -> Strategy:
    """Raises NotFound, naming the templates there are."""
    try:
        return library()[key]
    except KeyError:
        raise NotFound(f"there is no template {key!r}; there are {', '.join(library())}", where="template") from None


@cache
def messages() -> Mapping[str, Message]:
    """Every shipped message by its key, parsed once."""
    import yaml

    return MappingProxyType(
        {name: message.parse(name, Node(yaml.safe_load(source), name)) for name, source in _files("messages")}
    )


def _files(folder: str) -> Iterator[tuple[str, str]]:
    """Name without ending, and content, of the YAML files of a folder of rules/, by name."""
    for file in sorted((resources.files("rules") / folder).iterdir(), key=lambda one: one.name):
        if file.name.endswith(".yaml"):
            yield file.name.removesuffix(".yaml"), file.read_text(encoding="utf-8")
