"""A definition as text: JSON or YAML, taken apart within limits and written so that git shows what changed.

YAML here is what people expect of 1.2: `on` and `21:00` are texts, a key stands once, and nothing refers to anything
else (an alias that refers to ten aliases is how a kilobyte becomes a gigabyte).
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from operation_agent.kit.errors import Rejected

LARGEST_BYTES = 256 * 1024
"""A hundred rules with their messages; reading so much takes most of a second."""
DEEPEST = 60
MOST_VALUES = 50_000
_WIDTH = 110
_BREAKS = re.compile("[\x85\u2028\u2029\ufeff\r]")


def read(source: str | bytes, *, yaml: bool = True, name: str = "") -> Any:
    """What the text says, in plain dicts and lists. JSON is tried first; with `yaml`, YAML after it.

    Raises Rejected (code 'document') with the line at fault; `name` (a file) is put before it.
    """
    content = _decoded(source, name)
    try:
        value = _json(content)
    except ValueError as error:
        if not yaml:
            raise _rejected(f"is not JSON: {error}", name) from None
        value = _yaml(content, name)
    except RecursionError:
        raise _rejected(f"nests deeper than {DEEPEST}", name) from None
    check(value, name)
    return value


def write(definition: dict[str, Any]) -> str:
    """YAML in the order of `definition`, texts of several lines as blocks. The same definition: the same bytes."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)  # list items stand below their key, not beside it

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        # these break lines for some readers of YAML and not for others: written as escapes they are the same for all
        style = '"' if _BREAKS.search(value) else "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return yaml.dump(definition, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)


def check(value: Any, name: str = "") -> None:
    """Raises Rejected unless the database can hold it and a person could have written it."""
    pending: list[tuple[Any, int, str]] = [(value, 1, "")]
    seen = 0
    while pending:
        node, depth, path = pending.pop()
        seen += 1
        if depth > DEEPEST or seen > MOST_VALUES:
            raise _rejected(f"at most {DEEPEST} levels and {MOST_VALUES} values", name, path[:200])
        if isinstance(node, dict):
            for key, child in node.items():
                _check_key(key, name, path)
                pending.append((child, depth + 1, f"{path}.{key}" if path else key))
        elif isinstance(node, list):
            pending.extend((child, depth + 1, f"{path}[{index}]") for index, child in enumerate(node))
        else:
            _check_leaf(node, name, path)


def _check_key(key: Any, name: str, path: str) -> None:
    if not isinstance(key, str) or len(key) > 200:
        raise _rejected(f"{str(key)[:40]!r} is not a key: keys are texts of at most 200 characters", name, path)
    _check_leaf(key, name, path)


def _check_leaf(value: Any, name: str, path: str) -> None:
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise _rejected("NUL characters and halves of surrogate pairs cannot be stored", name, path)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _rejected("NaN and Infinity are no numbers here", name, path)
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise _rejected("an integer of more than 64 bits", name, path)
    elif value is not None:
        raise _rejected(f"{type(value).__name__} is no kind of value here", name, path)


def _decoded(source: str | bytes, name: str) -> str:
    size = len(source)
    if size > LARGEST_BYTES:
        raise _rejected(f"a definition has at most {LARGEST_BYTES} bytes", name, code="body_too_large", status=413)
    try:
        return source.decode("utf-8-sig") if isinstance(source, bytes) else source
    except UnicodeDecodeError as error:
        raise _rejected(f"is not UTF-8 (byte {error.start})", name) from None


def _json(content: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            twice = next(key for key, _ in pairs if sum(other == key for other, _ in pairs) > 1)
            raise Rejected(f"the key {twice[:60]!r} stands twice", code="document", where=twice[:60])
        return made

    return json.loads(content, object_pairs_hook=once)


def _yaml(content: str, name: str) -> Any:
    import yaml

    try:
        _refuse_bombs(content, name)
        return yaml.load(content, Loader=_loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        said = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).split("\n")[0]
        raise _rejected(f"is neither JSON nor YAML: {said}", name, _line(mark)) from None
    except (ValueError, RecursionError) as error:
        raise _rejected(f"is neither JSON nor YAML: {str(error)[:200]}", name) from None


def _refuse_bombs(content: str, name: str) -> None:
    """Looks at the events before anything is built from them: no alias, no depth, not too many values."""
    import yaml

    depth = seen = 0
    for event in yaml.parse(content, Loader=_parser()):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _rejected("anchors and aliases (&, *) are not taken; write it out", name, _line(event.start_mark))
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        seen += isinstance(event, yaml.NodeEvent)
        if depth > DEEPEST or seen > 2 * MOST_VALUES:
            raise _rejected(f"at most {DEEPEST} levels and {MOST_VALUES} values", name, _line(event.start_mark))


def _parser() -> Any:
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _loader() -> Any:
    """A safe loader that knows true, false, null and decimal numbers; everything else is a text."""
    import yaml

    class Loader(_parser()):  # type: ignore[misc]
        yaml_implicit_resolvers: dict[str, Any] = {}

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value:
                written = str(key.value)
                if written in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {written[:60]!r} stands twice", key.start_mark
                    )
                seen.add(written)
            return super().construct_mapping(node, deep)

    for kind, pattern, first in _SCALARS:
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(pattern), list(first))
    return Loader


_SCALARS = (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("float", r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
)
"""A part of what YAML 1.1 takes for more than a text, so that what `write` leaves without quotes is read as it was."""


def _line(mark: Any) -> str:
    return f"line {mark.line + 1}" if mark is not None else ""


def _rejected(reason: str, name: str, where: str = "", *, code: str = "document", **extra: Any) -> Rejected:
    place = ": ".join(part for part in (name, where) if part)
    return Rejected(reason, code=code, where=place or None, **extra)
