"""From the lines of a result to objects: what is nested comes as lines of its own after its parent, by `__parentId`.

A parent with very many children comes in pieces, so that memory does not grow with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from integrations.shopify.errors import Unreachable

Node = dict[str, Any]

MOST_CHILDREN = 5_000
"""Of one piece. No order and no product has so many: Shopify allows 500 lines and 2,048 variants."""


@dataclass(slots=True)
class Piece:
    """A parent with (some of) its children, which need not be of one kind. `start` and `end` are bytes of the file.

    The first piece of a parent has everything of it but children that come later; `is_last` is the last one.
    """

    node: Node
    start: int
    end: int
    children: list[Node] = field(default_factory=list)
    orphans: list[Node] = field(default_factory=list)
    is_first: bool = True
    is_last: bool = True
    has_nul: bool = False


@dataclass(frozen=True, slots=True)
class Broken:
    """A line that is no object."""

    end: int
    line: str


def single(lines: Iterable[tuple[bytes, int]], offset: int) -> Iterator[Piece | Broken]:
    """Every line as an object of its own."""
    start = offset
    for line, end in lines:
        node = _node(line)
        yield Piece(node, start, end, has_nul=_has_nul(line)) if node is not None else Broken(end, _shown(line))
        start = end


def grouped(lines: Iterable[tuple[bytes, int]], offset: int) -> Iterator[Piece | Broken]:
    """Every parent with its children. A child whose parent did not come right before it is an orphan of the piece."""
    held: Piece | None = None
    ids: set[Any] = set()
    start = offset
    for line, end in lines:
        node = _node(line)
        if node is None:
            if held is not None:
                yield held
                held = None
            yield Broken(end, _shown(line))
        elif "__parentId" not in node:
            if held is not None:
                yield held
            held, ids = Piece(node, start, end, has_nul=_has_nul(line)), {node.get("id")}
        elif held is None:
            yield Piece({}, start, end, orphans=[node])
        else:
            if len(held.children) >= MOST_CHILDREN:
                held.is_last = False
                yield held
                held = Piece(held.node, held.start, end, is_first=False)
            (held.children if node["__parentId"] in ids else held.orphans).append(node)
            ids.add(node.get("id"))
            held.end = end
            held.has_nul = held.has_nul or _has_nul(line)
        start = end
    if held is not None:
        yield held


def _node(line: bytes) -> Node | None:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        if not line.rstrip().endswith(b"}"):
            raise Unreachable("the result has half a line") from None
        return None
    return found if isinstance(found, dict) else None


def _has_nul(line: bytes) -> bool:
    """Whether a text in it has a character that PostgreSQL cannot store (an escaped backslash before u0000 is none)."""
    return b"\\u0000" in line and b"\\u0000" in line.replace(b"\\\\", b"")


def _shown(line: bytes) -> str:
    return line[:120].decode("utf-8", "replace")
