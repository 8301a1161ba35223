"""Definitions of segments: what they may speak of, and in which order they are held against anybody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.clustering.phrases import RULES
from operation_agent.segments.definition import in_order, parse, refers_to
from operation_agent.segments.vocabulary import CLUSTER_LABELS, vocabulary
from rules.errors import RuleError

pytestmark = pytest.mark.unit


def leaf(field: str, op: str = "equals", value: object = True, **more: object) -> dict[str, object]:
    return {"field": field, "op": op, **({"value": value} if value is not None else {}), **more}


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (leaf("event.product_id", value="a"), "definition"),
        ({"all": [leaf("customer.open_cart"), leaf("event.colour", value="red")]}, "definition.all[1]"),
        ({"any": [{"none": [leaf("customer.purchase_stage", "changed", None)]}]}, "definition.any[0].none[0].op"),
        (leaf("customer.nothing"), "definition.field"),
        ({"all": []}, "definition.all"),
        ({"all": [leaf("customer.orders", "gt", 5), leaf("customer.orders", "lt", 2)]}, "definition.all[1]"),
    ],
)
def test_what_only_a_trigger_has_and_what_does_not_read_is_refused_at_its_path(raw, path):
    with pytest.raises(RuleError) as refused:
        parse(raw, vocabulary())
    assert refused.value.where == path


def test_a_history_may_look_at_its_own_events_properties():
    raw = {
        "history": {"event": "product.viewed", "within": "P7D", "where": leaf("event.category", value="shoes")},
        "op": "gte",
        "value": 3,
    }
    assert parse(parse(raw, vocabulary()).to_dict(), vocabulary()) == parse(raw, vocabulary())


def test_chinese_names_and_values_are_read_and_the_canonical_ones_written():
    at_risk = next(rule for rule in RULES if rule.key == "at_risk").text["zh"]
    raw = {
        "all": [
            leaf("购买阶段", value="深度研究"),
            leaf("price_sensitivity", value="高"),
            leaf("segment.vip", value="是"),
            leaf("cluster.label", value=at_risk),
            leaf("consent.email", value="已订阅"),
        ]
    }
    written = parse(raw, vocabulary()).to_dict()["all"]
    assert [(one["field"], one["value"]) for one in written] == [
        ("customer.purchase_stage", "research"),
        ("customer.price_sensitivity", "high"),
        ("segment.vip", True),
        ("cluster.label", "at_risk"),
        ("consent.email", "subscribed"),
    ]


def test_no_word_means_two_things():
    known = vocabulary()
    for name, field in known.fields.items():
        for word, value in field.synonyms.items():
            assert field.values is None or value in field.values or field.kind == "flag", (name, word)
            assert field.values is None or word not in field.values or word == value, (name, word)
    assert set(known.aliases.values()) <= set(known.fields)
    assert not set(known.aliases) & set(known.fields)
    assert set(known.fields["cluster.label"].synonyms.values()) == set(CLUSTER_LABELS)


def test_segments_that_refer_to_each_other_in_a_circle_are_named():
    with pytest.raises(RuleError, match="a → b → c → a"):
        in_order({"a": frozenset("b"), "b": frozenset("c"), "c": frozenset("a"), "d": frozenset()})
    with pytest.raises(RuleError, match="a → a"):
        in_order({"a": frozenset("a")})


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.frozensets(st.sampled_from("abcdefgh")), max_size=8))
def test_each_comes_once_and_after_those_it_refers_to(wanted):
    acyclic = {key: frozenset(one for one in named if one < key) for key, named in wanted.items()}
    order = in_order(acyclic)
    assert sorted(order) == sorted(acyclic)
    for key, named in acyclic.items():
        assert all(order.index(other) < order.index(key) for other in named if other in acyclic)


def test_references_are_found_wherever_they_stand():
    raw = {"any": [leaf("segment.vip"), {"none": [leaf("segment.lapsing", "equals", False, **{"for": "P3D"})]}]}
    assert refers_to(parse(raw, vocabulary())) == {"vip", "lapsing"}
