"""The published schema of Shopify's Admin API, read once for every test that holds something to it."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

import pytest
from graphql import GraphQLSchema, build_ast_schema, parse

from integrations.shopify.access import API_VERSION

PUBLISHED = Path(__file__).parents[1] / f"../shared/contracts/shopify/admin_{API_VERSION}.graphql.gz"


@cache
def _read() -> GraphQLSchema:
    with gzip.open(PUBLISHED, "rt", encoding="utf-8") as file:
        document = parse(file.read(), no_location=True)
    return build_ast_schema(document, assume_valid=True, assume_valid_sdl=True)


def published() -> GraphQLSchema:
    """Skips, saying so, where the contracts are not."""
    if not PUBLISHED.exists():
        pytest.skip(f"Shopify's published schema is not at {PUBLISHED.parent}")
    return _read()
