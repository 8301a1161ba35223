"""The GraphQL operations we send: one file each in `graphql/`, named as its operation in snake case. A test holds every
one to the published schema, so that an API upgrade is one test run."""

from __future__ import annotations

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "graphql"


@cache
def read(name: str) -> str:
    """The text of `<name>.graphql`."""
    return (FOLDER / f"{name}.graphql").read_text("utf-8")
