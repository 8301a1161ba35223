"""Scopes are of the catalogue, and a caller may do what it holds and nothing else."""

from __future__ import annotations

from uuid import UUID

import pytest

from operation_agent.access.permissions import PERMISSIONS, checked_scopes
from operation_agent.access.principal import Principal
from operation_agent.kit.errors import Denied, Rejected

pytestmark = pytest.mark.unit


def test_scopes_are_of_the_catalogue():
    assert checked_scopes(["events:write", "audit:read", "events:write"]) == ["audit:read", "events:write"]
    for wrong in ([], ["events"], ["events:write", "everything"]):
        with pytest.raises(Rejected):
            checked_scopes(wrong)


def test_a_caller_may_do_what_it_holds_and_nothing_else():
    tracker = Principal("key", UUID(int=1), "k", frozenset({"events:write"}), None)
    tracker.require("events:write")
    for other in PERMISSIONS.keys() - {"events:write"}:
        with pytest.raises(Denied) as refused:
            tracker.require(other)
        assert not refused.value.unauthenticated
    for permission in PERMISSIONS:
        Principal("user", UUID(int=1), "u", frozenset({"*"}), None).require(permission)


def test_a_user_who_names_no_shop_is_asked_for_one():
    with pytest.raises(Rejected, match="shop="):
        _ = Principal("user", UUID(int=1), "u", frozenset({"*"}), None).shop
