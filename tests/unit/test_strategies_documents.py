"""Definitions as text: what is written is read as it was, and nothing harmful or ambiguous is read at all."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.kit.errors import Rejected
from operation_agent.strategies import document, forms
from operation_agent.strategies.library import library
from operation_agent.strategies.vocabulary import vocabulary

pytestmark = pytest.mark.unit

TEXTS = st.one_of(
    st.text(max_size=40).filter(lambda value: "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)),
    st.sampled_from(
        ["on", "yes", "null", "~", "", " ", "21:00", "1:30:00", "0x10", "0o7", "010", "1_000", "1e3", ".5",
         "2026-01-01", "=", "<<", "- a", "a: b", "# x", "&a", "*a", "!!str x", "|", ">", "\t", "a\nb\n", "\n",
         " a\n  b", "a \n", "😀", "\u2028", "\u0085", "\x7f", "\ufeff",
         "'", '"', "%", "@", "`", "{}", "[]", "true", "NaN", ".inf"]
    ),
)  # fmt: skip
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.one_of(TEXTS, st.booleans(), st.integers(-(2**63), 2**63 - 1), NUMBERS, st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(TEXTS, VALUES, max_size=5))
def test_what_is_written_is_read_as_it_was_here_and_by_any_yaml(value):
    written = document.write(value)
    assert document.read(written) == value
    assert yaml.safe_load(written) == value
    assert document.write(document.read(written)) == written


@pytest.mark.parametrize("key", sorted(library()))
def test_a_template_outlives_its_file(key):
    definition = library()[key].to_dict()
    written = document.write(definition)
    assert forms.read(document.read(written), vocabulary()).to_dict() == definition
    assert forms.read(document.read(json.dumps(definition)), vocabulary()) == library()[key]


def test_what_people_write_without_quotes_is_what_they_mean():
    read = document.read("start: 21:00\nswitch: on\nday: 2026-01-01\ncount: 3\nshare: 0.25\nnone: ~\nyes: true\n")
    assert read == {
        "start": "21:00", "switch": "on", "day": "2026-01-01", "count": 3, "share": 0.25, "none": None, "yes": True,
    }  # fmt: skip


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


@pytest.mark.parametrize(
    ("source", "where", "says"),
    [
        (LAUGHS, "line 1", "anchors and aliases"),
        ("a: 1\nb: 2\na: 3", "line 3", "stands twice"),
        ('{"a": 1, "a": 2}', "a", "stands twice"),
        ("a:\n  - [", "line 3", "neither JSON nor YAML"),
        ("[" * 10_000, None, "deeper"),
        ('{"a":' * 10_000, None, "deeper"),
        ("!!python/object/apply:os.system [ls]", "line 1", "neither"),
        ("x: " + "[1, " * 30_000, "line 1", "levels"),
        ("a: \x00", None, "neither"),
        (b"\xff\xfe", None, "UTF-8"),
        ('{"a": [NaN]}', "a[0]", "NaN"),
        ('{"a": {"b": 1e999}}', "a.b", "NaN and Infinity"),
        ("a: 99999999999999999999", "a", "64 bits"),
        ('{"a": "\\ud83d"}', "a", "surrogate"),
        ('{"\\u0000": 1}', None, "NUL"),
        ("x" * (document.LARGEST_BYTES + 1), None, "bytes"),
        ("- 1\n" * 60_000, None, "values"),
        ("--- 1\n--- 2\n", "line 2", "neither"),
    ],
)
def test_what_harms_or_may_mean_two_things_is_refused_with_its_place(source, where, says):
    with pytest.raises(Rejected, match=says) as caught:
        document.read(source, name="file.yaml")
    if where is not None:
        assert str(caught.value.where).endswith(where)


def test_without_yaml_only_json_is_read():
    with pytest.raises(Rejected, match="is not JSON"):
        document.read("a: 1", yaml=False)


def test_every_mistake_is_told_at_its_own_place():
    raw = library()["conversion"].to_dict()
    leaf = {"field": "customer.orders", "op": "gte", "value": 1}
    wrong = {**leaf, "value": "many"}
    raw["rules"] = [
        {**raw["rules"][0], "if": {"all": [wrong, leaf, {"any": [leaf, wrong, {**leaf, "op": "about"}]}]}},
        {"key": "bare"},
        {**raw["rules"][0], "key": "other", "if": {"all": [leaf, wrong]}},
    ]
    raw["goal"] = "riches"
    found = [one.where for one in forms.problems(raw, vocabulary())]
    assert sorted(found) == sorted(
        [
            "rules[0].if.all[0].value", "rules[0].if.all[2].any[1].value", "rules[0].if.all[2].any[2].op",
            "rules[1].when", "rules[2].if.all[1].value", "goal",
        ]
    )  # fmt: skip
    assert forms.problems(library()["conversion"].to_dict(), vocabulary()) == []


@given(VALUES)
def test_whatever_is_written_its_mistakes_are_found_and_end(value):
    assert forms.problems(value, vocabulary()) != []
