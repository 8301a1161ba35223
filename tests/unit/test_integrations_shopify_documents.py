"""Every operation we send to Shopify, held to the published schema: an upgrade of the API is one run of this file."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from graphql import (
    FieldNode,
    GraphQLObjectType,
    NoDeprecatedCustomRule,
    OperationDefinitionNode,
    OperationType,
    get_named_type,
    parse,
    specified_rules,
    validate,
)

from integrations.shopify import documents
from tests.shopify_schema import published

pytestmark = pytest.mark.unit

INTEGRATIONS = Path(__file__).parents[2] / "integrations"
OPERATIONS = sorted(path.stem for path in documents.FOLDER.glob("*.graphql"))

_NO_SUCCESSOR = "its successor, smsMarketingConsent, is not in this version yet"
_SMS = (
    "the schema refers to smsMarketingConsent, which CustomerPhoneNumber does not have yet; that of Customer is"
    " deprecated too, and refers back to these"
)
DEPRECATED_BUT_USED: dict[str, str] = {
    "CustomerPhoneNumber.marketingState": _SMS,
    "CustomerPhoneNumber.marketingOptInLevel": _SMS,
    "CustomerPhoneNumber.marketingUpdatedAt": _SMS,
}
"""Field -> why there is no other way yet."""


def operation(name: str) -> OperationDefinitionNode:
    found = [one for one in parse(documents.read(name)).definitions if isinstance(one, OperationDefinitionNode)]
    assert len(found) == 1, f"{name}.graphql holds {len(found)} operations"
    return found[0]


def test_there_are_operations():
    assert OPERATIONS


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_what_the_published_schema_allows(name: str):
    errors = validate(published(), parse(documents.read(name)), specified_rules)
    assert not errors, "\n".join(error.message for error in errors)


def deprecated(name: str) -> list[str]:
    return [error.message for error in validate(published(), parse(documents.read(name)), [NoDeprecatedCustomRule])]


def is_excused(message: str) -> bool:
    return any(f" {field} is deprecated" in message for field in DEPRECATED_BUT_USED)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_uses_nothing_that_will_go_away(name: str):
    unexcused = [message for message in deprecated(name) if not is_excused(message)]
    assert not unexcused, "\n".join(unexcused)


def test_every_excuse_is_needed():
    used = "\n".join(message for name in OPERATIONS for message in deprecated(name))
    for field in DEPRECATED_BUT_USED:
        assert f" {field} is deprecated" in used, f"nothing uses {field} any more, or it is to stay: strike it out"


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_file_holds_one_operation_of_its_name(name: str):
    given = operation(name).name
    assert given is not None, f"{name}.graphql has no name"
    assert re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", given.value).lower() == name


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_change_is_one_field_and_asks_what_it_was_refused_for(name: str):
    """The client reads the payload of one field, and takes a payload without user errors for a change that was made."""
    node = operation(name)
    if node.operation is not OperationType.MUTATION:
        return
    (field,) = node.selection_set.selections
    assert isinstance(field, FieldNode)
    mutations = published().mutation_type
    assert mutations is not None
    payload = get_named_type(mutations.fields[field.name.value].type)
    assert isinstance(payload, GraphQLObjectType)
    listed = next(one for one in ("userErrors", "mediaUserErrors") if one in payload.fields)
    error = get_named_type(payload.fields[listed].type)
    assert field.selection_set is not None
    asked = {one.name.value: one for one in field.selection_set.selections if isinstance(one, FieldNode)}
    assert listed in asked, f"{name} does not ask for {listed}"
    selected = asked[listed].selection_set
    assert selected is not None
    wanted = {one for one in ("field", "code", "message") if one in error.fields}
    assert wanted <= {one.name.value for one in selected.selections if isinstance(one, FieldNode)}


@cache
def _code() -> str:
    return "\n".join(path.read_text("utf-8") for path in sorted(INTEGRATIONS.rglob("*.py")))


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_sent_by_somebody(name: str):
    assert f'"{name}"' in _code(), f"nobody sends {name}.graphql"


@pytest.mark.parametrize(
    "document",
    [
        "query X { shop { nme } }",
        "query X { product { id } }",
        "query X($id: String!) { product(id: $id) { id } }",
        "mutation X { tagsAdd(id: 1.5, tags: []) { userErrors { message } } }",
    ],
)
def test_the_published_schema_refuses_what_shopify_would(document: str):
    assert validate(published(), parse(document), specified_rules)


def test_what_will_go_away_is_seen():
    document = parse("query X { currentBulkOperation { id } }")
    assert not validate(published(), document, specified_rules)
    assert validate(published(), document, [NoDeprecatedCustomRule])
