"""Conditions: read strictly, every error with its path; evaluated in three values, every value seen told."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from rules import condition as conditions
from rules.condition import History, Leaf, Relative
from rules.errors import RuleError
from rules.evaluate import compile
from rules.fields import FieldType, lookup
from rules.tree import Node
from tests.unit.slow_conditions import FIELDS, VOCABULARY

pytestmark = pytest.mark.unit


def read(raw: Any) -> conditions.Condition:
    return conditions.parse(Node(raw, "if"), VOCABULARY)


def leaf(field: str, op: str, value: Any = None) -> dict[str, Any]:
    return {"field": field, "op": op} | ({} if value is None else {"value": value})


def history(asked: dict[str, Any], op: str = "gte", value: Any = 1) -> dict[str, Any]:
    return {"history": asked, "op": op} | ({} if value is None else {"value": value})


@pytest.mark.parametrize(
    ("raw", "where", "reason"),
    [
        ({"all": []}, "if.all", "empty"),
        ({"any": []}, "if.any", "empty"),
        ({"all": [leaf("n.a", "gt", 1), {"none": []}]}, "if.all[1].none", "empty"),
        ({}, "if.field", "missing"),
        ([], "if", "mapping"),
        (None, "if", "mapping"),
        ({"all": [leaf("n.a", "gt", 1)], "any": [leaf("n.a", "gt", 1)]}, "if", "one key"),
        ({"some": [leaf("n.a", "gt", 1)]}, "if.some", "unknown key"),
        ({"all": [leaf("n.q", "gt", 1)]}, "if.all[0].field", "no field 'n.q'"),
        ({"all": [leaf("n.a", "above", 1)]}, "if.all[0].op", "not one of"),
        ({"all": [leaf("n.a", "contains", "x")]}, "if.all[0].op", "is a number"),
        ({"all": [leaf("l.open", "gt", 3)]}, "if.all[0].op", "is a label"),
        ({"all": [leaf("n.a", "within", "P7D")]}, "if.all[0].op", "not within"),
        ({"all": [leaf("n.a", "gt", "7")]}, "if.all[0].value", "number"),
        ({"all": [leaf("n.a", "gt", True)]}, "if.all[0].value", "number"),
        ({"all": [leaf("n.a", "gt", math.nan)]}, "if.all[0].value", "number"),
        ({"all": [leaf("n.a", "gt")]}, "if.all[0].value", "missing"),
        ({"all": [leaf("f.x", "equals", 1)]}, "if.all[0].value", "true or false"),
        ({"all": [leaf("l.closed", "equals", "Low")]}, "if.all[0].value", "not one of high, low"),
        ({"all": [leaf("n.a", "in", [])]}, "if.all[0].value", "empty"),
        ({"all": [leaf("n.a", "in", [1, 2, 1])]}, "if.all[0].value", "twice"),
        ({"all": [leaf("n.a", "in", [1, "2"])]}, "if.all[0].value[1]", "number"),
        ({"all": [leaf("n.a", "between", [5])]}, "if.all[0].value", "two bounds"),
        ({"all": [leaf("n.a", "between", [5, 4])]}, "if.all[0].value", "contradict"),
        ({"all": [leaf("n.a", "exists", 1)]}, "if.all[0].value", "no value"),
        ({"all": [leaf("n.age", "within", "7 days")]}, "if.all[0].value", "ISO 8601"),
        ({"all": [leaf("t.seen", "lt", "2026-01-01T00:00:00")]}, "if.all[0].value", "offset"),
        ({"all": [leaf("t.seen", "lt", "yesterday")]}, "if.all[0].value", "instant"),
        ({"all": [leaf("event.x", "gt", "tall")]}, "if.all[0].value", "number"),
        ({"all": [leaf("n.a", "gt", {"field": "n.z"})]}, "if.all[0].value.field", "no field"),
        ({"all": [leaf("n.a", "gt", {"field": "l.open"})]}, "if.all[0].value", "only a number"),
        ({"all": [leaf("n.a", "gt", {"field": "n.b", "by": 2})]}, "if.all[0].value.by", "unknown key"),
        ({"all": [leaf("n.a", "gt", 10), leaf("n.a", "lt", 5)]}, "if.all[1]", "contradicts"),
        ({"all": [leaf("n.a", "gt", 5), leaf("n.a", "lte", 5)]}, "if.all[1]", "contradicts"),
        ({"all": [leaf("n.a", "gt", 5), {"all": [leaf("n.a", "lt", 4)]}]}, "if.all[1].all[0]", "contradicts"),
        ({"all": [leaf("l.open", "equals", "a"), leaf("l.open", "equals", "b")]}, "if.all[1]", "contradicts"),
        ({"all": [leaf("n.a", "not_exists"), leaf("n.a", "lt", 5)]}, "if.all[1]", "contradicts"),
        ({"all": [leaf("n.age", "within", "P7D"), leaf("n.age", "gt", 8)]}, "if.all[1]", "contradicts"),
        ({"all": [leaf("n.a", "not_equals", 5), leaf("n.a", "equals", 5)]}, "if.all[1]", "contradicts"),
        ({"all": [leaf("n.a", "in", [1, 5]), leaf("n.a", "between", [2, 4])]}, "if.all[1]", "contradicts"),
        ({"all": [leaf("n.a", "not_equals", 5), leaf("n.a", "between", [5, 5])]}, "if.all[1]", "contradicts"),
        ({"all": [leaf("l.closed", "not_in", ["low", "high"])]}, "if.all[0]", "contradicts"),
        ({"any": [leaf("n.b", "gt", 1), leaf("l.closed", "not_in", ["low", "high"])]}, "if.any[1]", "contradicts"),
        ({"all": [leaf("f.x", "not_equals", True), leaf("f.x", "equals", True)]}, "if.all[1]", "contradicts"),
        ({"all": [leaf("l.open", "contains", "ab"), leaf("l.open", "equals", "b")]}, "if.all[1]", "contradicts"),
        ({"all": [leaf("event.x", "equals", 1), leaf("event.x", "equals", "1")]}, "if.all[1]", "contradicts"),
        ({"all": [leaf("event.x", "equals", 1), leaf("event.x", "equals", True)]}, "if.all[1]", "contradicts"),
        ({"all": [leaf("event.x", "equals", "a"), leaf("event.x", "gt", 1)]}, "if.all[1]", "contradicts"),
        ({"all": [leaf("event.x", "contains", 1), leaf("event.x", "equals", "a")]}, "if.all[1]", "contradicts"),
        ({"none": [leaf("n.a", "gt", 5), leaf("n.a", "lte", 5)]}, "if.none[1]", "contradicts"),
        ({"all": [leaf("n.a", "gt", 5), {"none": [leaf("n.a", "gt", 2)]}]}, "if.all[1].none[0]", "contradicts"),
        ({"all": [leaf("n.a", "gt", 1), {"none": [leaf("n.a", "exists")]}]}, "if.all[1].none[0]", "contradicts"),
        (
            {"all": [leaf("n.a", "between", [2, 3]), {"none": [leaf("n.a", "between", [1, 4])]}]},
            "if.all[1].none[0]",
            "contradicts",
        ),
        (
            {"none": [leaf("l.open", "equals", "a"), {"none": [leaf("l.open", "in", ["a"])]}]},
            "if.none[1].none[0]",
            "contradicts",
        ),
        (
            {"all": [leaf("t.seen", "gt", "2026-02-01T00:00:00Z"), leaf("t.seen", "lt", "2026-01-01T08:00:00+08:00")]},
            "if.all[1]",
            "contradicts",
        ),
        (
            {"all": [leaf("t.seen", "gt", {"ago": "P7D"}), leaf("t.seen", "lt", {"ago": "P8D"})]},
            "if.all[1]",
            "contradicts",
        ),
        (
            {"all": [leaf("t.seen", "within", "P7D"), leaf("t.seen", "gt", {"ahead": "PT1H"})]},
            "if.all[1]",
            "contradicts",
        ),
        ({"all": [leaf("t.seen", "within", "P7D"), leaf("t.seen", "not_exists")]}, "if.all[1]", "contradicts"),
        (
            {"all": [leaf("l.open", "changed", {"from": "a"}), leaf("l.open", "equals", "a")]},
            "if.all[1]",
            "contradicts",
        ),
        (
            {"all": [leaf("l.open", "changed", {"to": "a"}), leaf("l.open", "changed", {"to": "b"})]},
            "if.all[1]",
            "contradicts",
        ),
        (leaf("t.seen", "gt", {"ago": "P1D", "ahead": "P1D"}), "if.value", "either `ago` or `ahead`"),
        (leaf("t.seen", "gt", {"ago": "1 day"}), "if.value.ago", "ISO 8601"),
        (leaf("t.seen", "gt", {"field": "t.seen"}), "if.value.field", "unknown key"),
        (leaf("t.seen", "between", [{"ago": "P1D"}, {"ago": "P2D"}]), "if.value", "contradict"),
        (leaf("n.a", "gt", {"ago": "P1D"}), "if.value.ago", "unknown key"),
        (leaf("event.x", "changed"), "if.op", "no value before"),
        (leaf("l.open", "changed", {}), "if.value", "give `from`, `to` or both"),
        (leaf("l.open", "changed", {"from": "a", "to": "a"}), "if.value", "contradicts a change"),
        (leaf("l.closed", "changed", {"to": "middle"}), "if.value.to", "not one of high, low"),
        (leaf("t.seen", "changed", {"to": "2026-01-01T00:00:00Z"}), "if.value.to", "cannot be named"),
        (leaf("l.open", "equals", "a") | {"for": "3 days"}, "if.for", "ISO 8601"),
        (leaf("l.open", "equals", "a") | {"for": "PT0S"}, "if.for", "longer than nothing"),
        (leaf("l.open", "not_equals", "a") | {"for": "P3D"}, "if.for", "goes with equals"),
        (leaf("l.open", "changed") | {"for": "P3D"}, "if.for", "goes with equals"),
        (leaf("n.a", "equals", 1) | {"for": "P3D"}, "if.for", "not known"),
        (history({"event": "product.seen"}), "if.history.event", "not one of"),
        (history({}), "if.history.event", "missing"),
        (history({"event": "order.paid", "measure": "average"}), "if.history.measure", "not one of"),
        (history({"event": "order.paid", "measure": "sum"}), "if.history", "`of` is missing"),
        (history({"event": "order.paid", "measure": "sum", "of": "weight"}), "if.history.of", "no property"),
        (history({"event": "product.viewed", "measure": "sum", "of": "product_id"}), "if.history.of", "no number"),
        (history({"event": "product.viewed", "measure": "sum", "of": "amount_minor"}), "if.history.of", "no property"),
        (history({"event": "order.paid", "of": "amount_minor"}), "if.history.of", "goes with sum"),
        (history({"event": "order.paid", "within": "PT0S"}), "if.history.within", "longer than nothing"),
        (history({"event": "order.paid", "name": "x"}), "if.history.name", "only a custom event"),
        (history({"event": "order.paid", "since": "P7D"}), "if.history.since", "unknown key"),
        (
            history({"event": "order.paid", "where": {"any": [leaf("event.product_id", "equals", "p")]}}),
            "if.history.where.any[0].field",
            "no field",
        ),
        (history({"event": "order.paid", "where": leaf("n.a", "gt", 1)}), "if.history.where.field", "no field"),
        (
            history({"event": "custom", "where": {"history": {"event": "custom"}, "op": "gt", "value": 1}}),
            "if.history.where.history",
            "cannot be asked for here",
        ),
        (history({"event": "order.paid"}, "lt", 0), "if", "contradicts"),
        (history({"event": "order.paid"}, "not_exists", None), "if", "contradicts"),
        (history({"event": "order.paid"}, "within", "P3D"), "if.op", "not within"),
        (history({"event": "order.paid"}, "changed", None), "if.op", "no value before"),
        ({"all": [history({"event": "order.paid"}) | {"field": "n.a"}]}, "if.all[0]", "either `field` or `history`"),
    ],
)
def test_an_error_names_the_path_and_the_reason(raw, where, reason):
    with pytest.raises(RuleError) as caught:
        read(raw)
    assert caught.value.where == where
    assert reason in caught.value.reason


def test_what_can_be_met_is_no_contradiction():
    read({"all": [leaf("n.a", "gte", 5), leaf("n.a", "lte", 5)]})
    read({"any": [leaf("n.a", "gt", 10), leaf("n.a", "lt", 5)]})
    read({"all": [leaf("n.a", "gt", {"field": "n.b"}), leaf("n.a", "lt", 5)]})
    read({"all": [leaf("t.seen", "within", "P7D"), leaf("t.seen", "gt", "2026-01-01T00:00:00Z")]})
    read({"all": [leaf("t.seen", "lt", {"ago": "P7D"}), leaf("t.seen", "gt", "2026-01-01T00:00:00Z")]})
    read({"all": [leaf("event.x", "in", [1, "a"]), leaf("event.x", "gt", 0)]})
    read({"all": [leaf("n.a", "not_equals", 5), leaf("n.a", "not_equals", 6)]})
    read({"none": [leaf("n.a", "gt", 5), leaf("n.a", "lt", 5)]})
    read({"none": [{"all": [leaf("n.a", "gt", 5), leaf("n.b", "gt", 5)]}, leaf("n.a", "lt", 5)]})
    not_for_long = {"none": [leaf("l.open", "equals", "a") | {"for": "P3D"}]}
    read({"all": [leaf("l.open", "equals", "a"), not_for_long]})
    read({"all": [history({"event": "order.paid"}), history({"event": "product.viewed"}, "equals", 0)]})


def test_a_misspelt_field_is_answered_with_the_nearest():
    with pytest.raises(RuleError, match=r"n\.age is near"):
        read({"all": [leaf("n.agee", "gt", 1)]})


def test_nesting_and_size_have_an_end():
    raw: dict[str, Any] = leaf("n.a", "gt", 1)
    for _ in range(40):
        raw = {"any": [raw]}
    with pytest.raises(RuleError, match="nest deeper"):
        read(raw)
    with pytest.raises(RuleError, match="read by a person"):
        read({"any": [leaf("n.a", "gt", i) for i in range(500)]})


def masks(raw: Any, columns: dict[str, Any], n: int) -> list[bool | None]:
    evaluation = compile(read(raw)).evaluate(columns, n)
    return [
        True if true else None if unknown else False
        for true, unknown in zip(evaluation.matched, evaluation.unknown, strict=True)
    ]


def test_comparing_something_missing_is_unknown_and_not_false():
    columns = {"n.a": np.array([1.0, 9.0, np.nan])}
    assert masks(leaf("n.a", "gt", 5), columns, 3) == [False, True, None]
    assert masks({"none": [leaf("n.a", "gt", 5)]}, columns, 3) == [True, False, None]
    assert masks(leaf("n.a", "not_equals", 9), columns, 3) == [True, False, None]
    assert masks({"all": [leaf("n.a", "gt", 5), leaf("n.b", "gt", 5)]}, columns, 3) == [False, None, None]
    assert masks({"any": [leaf("n.a", "gt", 5), leaf("n.b", "gt", 5)]}, columns, 3) == [None, True, None]
    assert masks(leaf("n.a", "not_exists"), columns, 3) == [False, False, True]


def test_whole_number_and_bool_columns_will_do():
    columns = {"n.a": np.array([3, 7]), "f.x": np.array([True, False])}
    assert masks({"all": [leaf("n.a", "gte", 3), leaf("f.x", "equals", True)]}, columns, 2) == [True, False]


def test_a_field_compares_with_another_field_of_the_same_row():
    columns = {"n.a": np.array([30.0, 30.0, 30.0]), "n.b": np.array([10.0, 20.0, np.nan])}
    raw = leaf("n.a", "gt", {"field": "n.b", "times": 2})
    assert masks(raw, columns, 3) == [True, False, None]
    assert compile(read(raw)).explain(columns, 0)[0].against == 20
    ends = leaf("n.a", "between", [{"field": "n.b", "times": 2, "plus": 5}, {"field": "n.b", "times": 4}])
    assert masks(ends, columns, 3) == [True, False, None]


def test_within_looks_back_from_the_moment_of_the_decision():
    at = datetime(2026, 5, 1, tzinfo=UTC)
    seen = [at - timedelta(days=1), at - timedelta(days=9), at + timedelta(hours=1), None]
    columns = {
        "at": np.full(4, at.timestamp()),
        "t.seen": np.array([one.timestamp() if one else np.nan for one in seen]),
        "n.age": np.array([7.0, 7.1, -1.0, np.nan]),
    }
    assert masks(leaf("t.seen", "within", "P7D"), columns, 4) == [True, False, False, None]
    assert masks(leaf("n.age", "within", "P7D"), columns, 4) == [True, False, False, None]


def test_an_explanation_gives_each_leaf_with_the_value_seen():
    raw = {"all": [leaf("n.a", "gt", 5), {"any": [leaf("l.closed", "equals", "low"), leaf("f.x", "equals", True)]}]}
    columns = {
        "n.a": np.array([1.0, 6.0]),
        "l.closed": np.array(["high", None], dtype=object),
        "f.x": np.array([0.0, 1.0]),
    }
    found = [one.to_dict() for one in compile(read(raw)).evaluate(columns, 2).explain(1)]
    assert found == [
        {"path": "if.all[0]", "field": "n.a", "op": "gt", "value": 5, "seen": 6, "holds": True},
        {"path": "if.all[1].any[0]", "field": "l.closed", "op": "equals", "value": "low", "seen": None, "holds": None},
        {"path": "if.all[1].any[1]", "field": "f.x", "op": "equals", "value": True, "seen": True, "holds": True},
    ]


def test_what_asks_about_the_past_is_read_into_its_columns():
    raw = {
        "all": [
            history({"event": "product.viewed", "within": "P7D", "where": leaf("event.product_id", "equals", "p1")}),
            history({"event": "order.paid", "measure": "days_since_last"}, "within", "P30D"),
            leaf("l.open", "equals", "at_risk") | {"for": "P3D"},
            leaf("f.x", "changed", {"to": True}),
            leaf("n.a", "gt", {"field": "n.b", "times": 2}),
        ]
    }
    found = read(raw)
    asked = conditions.leaves(found)
    assert asked[0].history == History(
        "product.viewed", within=timedelta(days=7), where=Leaf("event.product_id", "equals", "p1", "label")
    )
    assert asked[2].held == timedelta(days=3)
    compiled = compile(found)
    assert compiled.fields == {"l.open", "f.x", "n.a", "n.b"}
    assert set(compiled.histories) == {asked[0].field, asked[1].field}
    assert compiled.needs == compiled.fields | set(compiled.histories) | {"l.open.since", "before:f.x"}
    assert read(found.to_dict()) == found


def test_two_histories_that_ask_the_same_share_a_column():
    one = read(history({"event": "order.paid", "within": "P7D", "measure": "count"}))
    two = read(history({"within": "P1W", "event": "order.paid"}, "lt", 5))
    assert isinstance(one, Leaf) and isinstance(two, Leaf)
    assert one.field == two.field


def test_synonyms_and_other_names_are_read_and_the_canonical_form_is_written():
    assert read(leaf("风险", "in", ["高危", "b"])).to_dict() == leaf("l.open", "in", ["at_risk", "b"])
    assert read(leaf("l.closed", "equals", "高")).to_dict() == leaf("l.closed", "equals", "high")
    assert read(leaf("f.x", "equals", "否")).to_dict() == {"field": "f.x", "op": "equals", "value": False}
    assert read(leaf("n.b", "gt", {"field": "数量"})).to_dict() == leaf("n.b", "gt", {"field": "n.a"})
    assert read(leaf("l.open", "changed", {"to": "高危"})).to_dict() == leaf("l.open", "changed", {"to": "at_risk"})


def test_a_family_stands_for_every_name_unless_it_is_closed():
    fields = {"consent.*": FieldType("label"), "consent.*.*": FieldType("flag"), "segment.vip": FieldType("flag")}
    assert lookup(fields, "consent.email").kind == "label"
    assert lookup(fields, "consent.email.sale").kind == "flag"
    assert lookup(fields, "segment.vpi") is lookup(fields, "segment") is lookup(fields, "consent.") is None
    with pytest.raises(RuleError, match=r"segment\.vip is near") as caught:
        conditions.parse(Node(leaf("segment.vpi", "equals", True), "if"), fields)
    assert caught.value.where == "if.field"


def test_mere_fields_leave_out_the_past():
    with pytest.raises(RuleError, match="cannot be asked for here"):
        conditions.parse(Node(history({"event": "order.paid"}), "if"), FIELDS)


def test_an_instant_that_moves_along_is_counted_from_the_decision():
    at = datetime(2026, 5, 1, tzinfo=UTC)
    seen = [at - timedelta(days=31), at - timedelta(days=30), at, None]
    columns = {
        "at": np.full(4, at.timestamp()),
        "t.seen": np.array([one.timestamp() if one else np.nan for one in seen]),
    }
    assert masks(leaf("t.seen", "gte", {"ago": "P30D"}), columns, 4) == [False, True, True, None]
    assert masks(leaf("t.seen", "between", [{"ago": "P40D"}, {"ago": "P1D"}]), columns, 4) == [True, True, False, None]
    assert read(leaf("t.seen", "lt", {"ahead": "P2D"})) == Leaf("t.seen", "lt", Relative(timedelta(days=2)), "time")
    explained = compile(read(leaf("t.seen", "gte", {"ago": "P30D"}))).explain(columns, 1)[0].to_dict()
    assert explained["against"] == explained["seen"] == "2026-04-01T00:00:00+00:00"


def test_a_membership_held_counts_from_the_instant_it_began():
    at = datetime(2026, 5, 1, tzinfo=UTC).timestamp()
    columns = {
        "at": np.full(5, at),
        "l.open": np.array(["a", "a", "a", "b", None], dtype=object),
        "l.open.since": np.array([at - 3 * 86400, at - 86400, np.nan, np.nan, at]),
    }
    raw = leaf("l.open", "equals", "a") | {"for": "P3D"}
    # the last one is not known, but surely not for long
    assert masks(raw, columns, 5) == [True, False, None, False, False]
    told = compile(read(raw)).explain(columns, 1)[0].to_dict()
    assert (told["for"], told["since"], told["holds"]) == ("P3D", "2026-04-30T00:00:00+00:00", False)


def test_a_change_looks_at_the_value_before_the_trigger():
    columns = {
        "l.open": np.array(["b", "a", "b", None], dtype=object),
        "before:l.open": np.array(["a", "a", None, "a"], dtype=object),
    }
    assert masks(leaf("l.open", "changed"), columns, 4) == [True, False, None, None]
    assert masks(leaf("l.open", "changed", {"from": "a", "to": "b"}), columns, 4) == [True, False, None, None]
    assert masks(leaf("l.open", "changed", {"to": "c"}), columns, 4) == [False, False, None, None]
    assert compile(read(leaf("l.open", "changed"))).explain(columns, 0)[0].to_dict()["before"] == "a"


@pytest.mark.parametrize(
    ("op", "value", "seen", "holds"),
    [
        ("equals", 1, True, None),
        ("equals", True, True, True),
        ("equals", "a", 1.0, None),
        ("equals", 2, 2, True),
        ("gt", 1, "2", None),
        ("in", [1, "a"], "a", True),
        ("in", [1, 2], "a", None),
        ("between", [1, 3], 2, True),
        ("between", [1, 3], "2", None),
        ("contains", "a", ["a", "b"], True),
        ("contains", "a", "cat", True),
        ("contains", "a", 7, None),
        ("not_equals", 2, 3, True),
        ("not_equals", 2, None, None),
    ],
)
def test_a_property_of_unknown_type_compares_only_with_its_like(op, value, seen, holds):
    columns = {"event.x": np.fromiter([seen], dtype=object, count=1)}
    assert masks(leaf("event.x", op, value), columns, 1) == [holds]
