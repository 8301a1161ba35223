"""A visual editor round-trips: what is produced reads as the same condition; what cannot be held is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from rules import condition as conditions
from rules import querybuilder
from rules.condition import Group
from rules.errors import RuleError
from rules.tree import Node
from tests.unit.slow_conditions import VOCABULARY, trees

pytestmark = pytest.mark.unit


def read(query: Any) -> dict[str, Any]:
    return querybuilder.parse(Node(query, "query"), VOCABULARY).to_dict()


def rule(field: str, operator: str, value: Any = None, **more: Any) -> dict[str, Any]:
    return {"field": field, "operator": operator, "value": value, **more}


def every(*rules: Any, **more: Any) -> dict[str, Any]:
    return {"combinator": "and", "rules": list(rules), **more}


@settings(max_examples=300, deadline=None)
@given(trees)
def test_what_is_produced_reads_as_the_same_condition(tree):
    try:
        condition = conditions.parse(Node(tree.to_dict(), "if"), VOCABULARY)
    except RuleError:
        return
    query = querybuilder.produce(condition)
    assert querybuilder.parse(Node(query, "query"), VOCABULARY) == condition
    assert _is_a_query(query)


def _is_a_query(query: Any) -> bool:
    """RuleGroupType and RuleType of the library's own documentation."""
    if "rules" in query:
        rest = set(query) - {"combinator", "rules", "not", "meta"}
        return query["combinator"] in ("and", "or") and not rest and all(map(_is_a_query, query["rules"]))
    return {"field", "operator", "value"} <= set(query) <= {"field", "operator", "value", "valueSource", "meta"}


def test_a_query_as_the_editor_keeps_it_is_read():
    query = {
        "id": "r1",
        "combinator": "and",
        "not": False,
        "rules": [
            rule("n.a", ">=", "2", id="r2", path=[0], valueSource="value"),
            rule("n.b", "between", "1,5.5"),
            rule("n.a", "in", "2, 3,"),
            rule("l.open", "in", "a\\,b,c"),
            rule("f.x", "=", "true"),
            rule("l.open", "notNull", ""),
            {
                "combinator": "or",
                "rules": [rule("n.a", ">", "n.b", valueSource="field"), rule("s.codes", "contains", "X")],
            },
        ],
    }
    assert read(query) == {
        "all": [
            {"field": "n.a", "op": "gte", "value": 2},
            {"field": "n.b", "op": "between", "value": [1, 5.5]},
            {"field": "n.a", "op": "in", "value": [2, 3]},
            {"field": "l.open", "op": "in", "value": ["a,b", "c"]},
            {"field": "f.x", "op": "equals", "value": True},
            {"field": "l.open", "op": "exists"},
            {
                "any": [
                    {"field": "n.a", "op": "gt", "value": {"field": "n.b"}},
                    {"field": "s.codes", "op": "contains", "value": "X"},
                ]
            },
        ]
    }


def test_not_is_read_as_none():
    a, b = rule("n.a", ">", 1), rule("n.b", ">", 1)
    ours_a, ours_b = ({"field": name, "op": "gt", "value": 1} for name in ("n.a", "n.b"))
    assert read({"combinator": "or", "not": True, "rules": [a, b]}) == {"none": [ours_a, ours_b]}
    assert read(every(a, b, **{"not": True})) == {"none": [{"all": [ours_a, ours_b]}]}
    assert read(every(a, **{"not": True})) == {"none": [ours_a]}
    assert read(every(rule("l.open", "doesNotContain", "x"))) == {
        "all": [{"none": [{"field": "l.open", "op": "contains", "value": "x"}]}]
    }
    assert read(every(rule("n.a", "notBetween", [1, 2]))) == {
        "all": [{"none": [{"field": "n.a", "op": "between", "value": [1, 2]}]}]
    }


def test_what_is_ours_alone_travels_in_meta():
    written = {
        "all": [
            {"history": {"event": "product.viewed", "measure": "count", "within": "P7D"}, "op": "gte", "value": 3},
            {"field": "l.open", "op": "equals", "value": "at_risk", "for": "P3D"},
            {"field": "n.a", "op": "gt", "value": {"field": "n.b", "times": 2}},
            {"field": "t.seen", "op": "gt", "value": {"ago": "P30D"}},
            {"field": "f.x", "op": "changed", "value": {"to": True}},
        ]
    }
    query = querybuilder.produce(conditions.parse(Node(written), VOCABULARY))
    assert query["rules"] == [
        rule("history", ">=", 3, meta={"history": written["all"][0]["history"]}),
        rule("l.open", "=", "at_risk", meta={"for": "P3D"}),
        rule("n.a", ">", "n.b", valueSource="field", meta={"times": 2}),
        rule("t.seen", ">", {"ago": "P30D"}),
        rule("f.x", "changed", {"to": True}),
    ]
    assert read(query) == written


def test_a_lone_comparison_stays_alone_until_another_is_added():
    leaf = conditions.parse(Node({"field": "n.a", "op": "gt", "value": 1}), VOCABULARY)
    query = querybuilder.produce(leaf)
    assert read(query) == leaf.to_dict()
    query["rules"].append(rule("n.b", ">", 1))
    assert isinstance(querybuilder.parse(Node(query), VOCABULARY), Group)


def test_what_the_editor_kept_of_another_field_is_not_asked_of_this_one():
    stale = rule("n.a", ">", 1, meta={"history": {"event": "order.paid"}})
    assert read(every(stale)) == {"all": [{"field": "n.a", "op": "gt", "value": 1}]}


OK = rule("n.a", ">", 1)


@pytest.mark.parametrize(
    ("query", "where", "reason"),
    [
        (every(), "query.rules", "empty"),
        ([], "query", "mapping"),
        ({"combinator": "and"}, "query.rules", "missing"),
        ({"rules": [OK, "and", OK]}, "query", "independent combinators"),
        (every(OK, "or", OK), "query.rules[1]", "independent combinators"),
        (every(OK | {"combinatorPreceding": "or"}), "query.rules[0].combinatorPreceding", "independent combinators"),
        ({"combinator": "xor", "rules": [OK]}, "query.combinator", "not one of and, or"),
        (every(OK | {"disabled": True}), "query.rules[0].disabled", "locked"),
        (every(every(OK, muted=True)), "query.rules[0].muted", "muted"),
        (every(OK | {"match": {"mode": "all"}}), "query.rules[0].match", "within a value"),
        (every(OK | {"colour": "red"}), "query.rules[0].colour", "unknown key"),
        (every(OK | {"meta": {"colour": "red"}}), "query.rules[0].meta.colour", "unknown key"),
        (every(rule("~", "=", 1)), "query.rules[0].field", "no field is chosen"),
        (every(rule("n.a", "~", 1)), "query.rules[0].operator", "no operator is chosen"),
        (every(rule("l.open", "beginsWith", "x")), "query.rules[0].operator", "cannot be asked"),
        (every(rule("n.a", "like", "x")), "query.rules[0].operator", "not one of"),
        (every(OK, every(rule("n.q", "=", 1))), "query.rules[1].rules[0].field", "no field"),
        (every(rule("n.a", "contains", "x")), "query.rules[0].operator", "is a number"),
        (every(rule("n.a", "=", "many")), "query.rules[0].value", "number"),
        (every(rule("n.a", "=", "")), "query.rules[0].value", "missing"),
        (every(rule("n.a", "in", "1,many")), "query.rules[0].value[1]", "number"),
        (every(rule("n.a", "in", ",")), "query.rules[0].value", "empty"),
        (every(rule("n.a", "<", "n.q", valueSource="field")), "query.rules[0].value", "no field"),
        (every(rule("n.a", "in", "n.b", valueSource="field")), "query.rules[0].valueSource", "cannot name"),
        (every(rule("n.a", "notBetween", "5,x")), "query.rules[0].value[1]", "number"),
        (every(rule("n.a", "=", 1, meta={"for": "P3D"})), "query.rules[0].meta.for", "not known"),
        (every(rule("history", ">", 1)), "query.rules[0].field", "meta.history"),
        (
            every(rule("history", ">", 1, meta={"history": {"event": "order.payd"}})),
            "query.rules[0].meta.history.event", "not one of",
        ),
        (
            every(rule("history", ">", 1, meta={"history": {"event": "order.paid", "where": {"all": []}}})),
            "query.rules[0].meta.history.where.all", "empty",
        ),
        (every(OK, rule("n.a", "<", 1)), "query.rules[1]", "contradicts"),
        (every(OK, every(rule("n.a", "<", 1), OK, **{"not": True})), "query.rules[1].rules[1]", "contradicts"),
        (every(every(OK, rule("n.a", "<=", 1), **{"not": True}), {"combinator": "or", "rules": []}),
         "query.rules[1].rules", "empty"),
        (OK | {"operator": "in", "value": []}, "query.value", "empty"),
    ],
)  # fmt: skip
def test_what_cannot_be_held_is_refused_with_its_path(query, where, reason):
    with pytest.raises(RuleError) as caught:
        read(query)
    assert caught.value.where == where
    assert reason in caught.value.reason
