"""Conditions: read strictly, evaluated in three values, by one evaluator that agrees with a slow reference."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules import condition as conditions
from rules.condition import Group, Leaf, Reference
from rules.errors import RuleError
from rules.evaluate import compile
from rules.fields import FieldType
from rules.tree import Node

pytestmark = pytest.mark.unit

FIELDS = {
    "n.a": FieldType("number"),
    "n.b": FieldType("number"),
    "n.age": FieldType("number", unit="days"),
    "f.x": FieldType("flag"),
    "l.open": FieldType("label"),
    "l.closed": FieldType("label", frozenset({"low", "high"})),
    "t.seen": FieldType("time"),
    "s.codes": FieldType("list"),
    "event.*": FieldType("any"),
}


def read(raw: Any) -> conditions.Condition:
    return conditions.parse(Node(raw, "if"), FIELDS)


def leaf(field: str, op: str, value: Any = None) -> dict[str, Any]:
    return {"field": field, "op": op} | ({} if value is None else {"value": value})


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


# -- the reference ----------------------------------------------------------------------------------------------------


def slow(node: conditions.Condition, row: dict[str, Any]) -> bool | None:
    """One row, one node at a time, straight from the definition: None is unknown."""
    if isinstance(node, Group):
        found = [slow(child, row) for child in node.children]
        if node.kind == "all":
            return False if False in found else None if None in found else True
        some = True if True in found else None if None in found else False
        return some if node.kind == "any" else None if some is None else not some
    return slow_leaf(node, row)


def slow_leaf(node: Leaf, row: dict[str, Any]) -> bool | None:
    seen = row.get(node.field)
    if node.op in ("exists", "not_exists"):
        return (seen is not None) == (node.op == "exists")
    operands = node.value if isinstance(node.value, tuple) else (node.value,)
    wanted = [slow_operand(one, row) for one in operands]
    if seen is None:
        return None
    if None in wanted and node.op != "between":
        return None
    if node.op.startswith("not_"):
        positive = slow_leaf(Leaf(node.field, node.op[4:], node.value, node.kind), row)
        return None if positive is None else not positive
    if node.op == "between":
        ends = [None if end is None else test for end, test in zip(wanted, slow_ends(seen, wanted), strict=True)]
        return False if False in ends else None if None in ends else True
    return slow_compare(node, seen, wanted, row)


def slow_ends(seen: Any, wanted: list[Any]) -> list[Any]:
    low, high = wanted
    return [None if low is None else seen >= low, None if high is None else seen <= high]


def slow_compare(node: Leaf, seen: Any, wanted: list[Any], row: dict[str, Any]) -> bool | None:
    if node.op == "in":
        return seen in wanted
    if node.op == "contains":
        return wanted[0] in seen
    if node.op == "within":
        age = timedelta(days=seen) if node.kind == "number" else row["at"] - seen
        return timedelta(0) <= age <= wanted[0]
    return {
        "equals": lambda a, b: a == b,
        "lt": lambda a, b: a < b,
        "lte": lambda a, b: a <= b,
        "gt": lambda a, b: a > b,
        "gte": lambda a, b: a >= b,
    }[node.op](seen, wanted[0])


def slow_operand(value: Any, row: dict[str, Any]) -> Any:
    if isinstance(value, Reference):
        seen = row.get(value.field)
        return None if seen is None else seen * value.times + value.plus
    return value


AT = datetime(2026, 6, 1, tzinfo=UTC)
numbers = st.integers(-4, 4).map(float)
instants = st.integers(-5, 2).map(lambda days: AT + timedelta(days=days))
labels = st.sampled_from(["a", "ab", "b", "低"])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "n.a": numbers, "n.b": numbers, "n.age": numbers, "f.x": st.booleans(), "l.open": labels,
    "l.closed": st.sampled_from(["low", "high"]), "t.seen": instants,
    "s.codes": st.lists(labels, max_size=3).map(tuple),
}  # fmt: skip
ORDERED = st.sampled_from(["lt", "lte", "gt", "gte"])
references = st.builds(Reference, st.sampled_from(["n.a", "n.b"]), st.sampled_from([0.5, 1.0, 2.0]), numbers)


def leaves_of(field: str) -> st.SearchStrategy[Leaf]:
    kind, values = FIELDS[field].kind, VALUES[field]
    made = [st.builds(Leaf, st.just(field), st.sampled_from(["exists", "not_exists"]), st.none(), st.just(kind))]

    def add(ops: st.SearchStrategy[str], operands: st.SearchStrategy[Any]) -> None:
        made.append(st.builds(Leaf, st.just(field), ops, operands, st.just(kind)))

    equality = st.sampled_from(["equals", "not_equals"])
    if kind in ("number", "flag", "label"):
        add(equality, values)
    if kind in ("number", "label"):
        add(st.sampled_from(["in", "not_in"]), st.lists(values, min_size=1, max_size=3, unique=True).map(tuple))
    if kind in ("number", "time"):
        add(ORDERED, values)
        add(st.just("between"), st.tuples(values, values))
    if kind == "number":
        add(ORDERED | equality, references)
        add(st.just("between"), st.tuples(references | numbers, references | numbers))
    if field in ("n.age", "t.seen"):
        add(st.just("within"), st.integers(0, 4).map(lambda days: timedelta(days=days)))
    if kind in ("list", "label"):
        add(st.just("contains"), labels)
    return st.one_of(made)


trees = st.recursive(
    st.sampled_from(sorted(VALUES)).flatmap(leaves_of),
    lambda inner: st.builds(
        Group, st.sampled_from(conditions.GROUPS), st.lists(inner, min_size=1, max_size=4).map(tuple)
    ),
    max_leaves=12,
)
rows = st.fixed_dictionaries({name: st.none() | values for name, values in VALUES.items()})


def columns_of(listed: list[dict[str, Any]]) -> dict[str, Any]:
    columns: dict[str, Any] = {"at": np.full(len(listed), AT.timestamp())}
    for name in VALUES:
        values = [row[name] for row in listed]
        if FIELDS[name].kind in ("label", "list"):
            columns[name] = np.fromiter(values, dtype=object, count=len(values))
        else:
            plain = [one.timestamp() if isinstance(one, datetime) else one for one in values]
            columns[name] = np.array([np.nan if one is None else float(one) for one in plain])
    return columns


@settings(max_examples=200, deadline=None)
@given(trees, st.lists(rows, min_size=1, max_size=6))
def test_the_evaluator_agrees_with_the_reference(tree, listed):
    evaluation = compile(tree).evaluate(columns_of(listed), len(listed))
    for i, row in enumerate(listed):
        expected = slow(tree, {**row, "at": AT})
        found = True if evaluation.matched[i] else None if evaluation.unknown[i] else False
        assert found is expected
        explained = evaluation.explain(i)
        assert [one.holds for one in explained] == [slow(one, {**row, "at": AT}) for one in conditions.leaves(tree)]


@settings(max_examples=100, deadline=None)
@given(trees, st.lists(rows, min_size=2, max_size=6))
def test_one_customer_alone_comes_out_as_in_a_batch(tree, listed):
    together = compile(tree).evaluate(columns_of(listed), len(listed))
    for i, row in enumerate(listed):
        alone = compile(tree).evaluate(columns_of([row]), 1)
        assert (alone.matched[0], alone.unknown[0]) == (together.matched[i], together.unknown[i])


@settings(max_examples=100, deadline=None)
@given(trees)
def test_what_is_written_reads_as_the_same_condition(tree):
    try:
        first = read(tree.to_dict())
    except RuleError as refused:
        assert "contradict" in refused.reason
        return
    assert first == tree
    assert read(first.to_dict()) == first


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(sorted(VALUES)).flatmap(leaves_of), min_size=1, max_size=4), rows)
def test_what_is_refused_as_a_contradiction_is_met_by_nobody(listed, row):
    group = Group("all", tuple(listed))
    try:
        read(group.to_dict())
    except RuleError:
        assert slow(group, {**row, "at": AT}) is not True


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
