"""What may come in over HTTP, in its pure parts: cursors, storable text, addresses, languages."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from api.addresses import check_base_url
from api.fields import Instant, JsonObject, Text
from api.pagination import decode, encode
from api.routes.decisions import preferred
from operation_agent.kit.errors import Rejected

pytestmark = pytest.mark.unit

INT64 = st.integers(-(2**63), 2**63 - 1)
STORABLE = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(st.uuids(), st.datetimes(timezones=st.just(UTC)), INT64, STORABLE)
def test_a_cursor_gives_back_what_it_was_made_of(identity: UUID, at: datetime, number: int, name: str):
    kinds = (UUID, datetime, int, str)
    assert decode(encode(identity, at, number, name), *kinds) == (identity, at, number, name)


@given(st.text(), st.lists(st.sampled_from([UUID, datetime, int, str]), max_size=3))
def test_no_other_text_is_a_cursor_that_breaks_anything(cursor: str, kinds: list[type]):
    try:
        values = decode(cursor, *kinds)
    except Rejected as error:
        assert error.where == "cursor"
    else:
        assert all(isinstance(value, kind) for value, kind in zip(values, kinds, strict=True))


@pytest.mark.parametrize("value", ["\0", "a\0b", "\ud800", "x\udfff"])
def test_text_that_the_database_cannot_hold_is_refused(value: str):
    for kind, wrapped in ((Text, value), (JsonObject, {"a": [value]}), (JsonObject, {value: 1})):
        with pytest.raises(ValidationError):
            TypeAdapter(kind).validate_python(wrapped)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**63, -(2**64), "x" * 10_001])
def test_json_that_the_database_cannot_hold_is_refused(value: object):
    with pytest.raises(ValidationError):
        TypeAdapter(JsonObject).validate_python({"a": {"b": value}})


def test_json_without_end_is_refused():
    deep: object = 1
    for _ in range(50):
        deep = [deep]
    for value in ({"a": deep}, {"a": list(range(5_000))}):
        with pytest.raises(ValidationError):
            TypeAdapter(JsonObject).validate_python(value)


def test_an_instant_needs_an_offset_and_a_year_of_ours():
    assert TypeAdapter(Instant).validate_python("2026-01-01T08:00:00+08:00") == datetime(2026, 1, 1, tzinfo=UTC)
    for bad in ("2026-01-01T08:00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", 10**30):
        with pytest.raises(ValidationError):
            TypeAdapter(Instant).validate_python(bad)


@given(st.text(max_size=80), st.booleans())
def test_whatever_is_entered_as_an_address_is_accepted_or_refused_with_words(address: str, sandbox: bool):
    for candidate in (address, f"https://{address}", f"https://a.com{address}"):
        try:
            assert check_base_url(candidate, sandbox=sandbox).startswith(("https://", "http://"))
        except Rejected as error:
            assert error.where == "body.base_url"


def test_a_sandbox_may_stand_anywhere_but_at_a_real_provider():
    for fine in ("http://127.0.0.1:9000/", "http://simulator:80", "https://fake.example.org/base"):
        assert check_base_url(fine, sandbox=True) == fine.rstrip("/")
    for real in (
        "https://api.sendgrid.com",
        "https://API.SendGrid.com",
        "https://x.myshopify.com",
        "https://sendgrid.com.",
    ):
        with pytest.raises(Rejected):
            check_base_url(real, sandbox=True)


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"), ("", "en"), ("zh", "zh"), ("zh-CN,zh;q=0.9", "zh"), ("fr, zh;q=0.1", "zh"),
        ("en;q=0.1, zh", "zh"), ("zh;q=0, en", "en"), ("*;q=0.5", "en"), (";;;,,q=", "en"),
        ("zh;q=nan", "en"), ("zh;q=1e999", "zh"),
    ],
)  # fmt: skip
def test_the_language_a_reader_prefers(header: str | None, language: str):
    assert preferred(header) == language
