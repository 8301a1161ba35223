"""The one evaluator agrees with a slow reference: every operator; many rows, few, one; blocks; explanations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rules.columns
from rules import condition as conditions
from rules import evaluate
from rules.condition import Group
from rules.errors import RuleError
from rules.evaluate import Batch, Evaluation, Labels, compile, evaluate_all
from rules.tree import Node
from tests.unit.slow_conditions import VOCABULARY, columns_of, leaves, slow, trees
from tests.unit.slow_conditions import rows as some_rows

pytestmark = pytest.mark.unit


def read(raw: Any) -> conditions.Condition:
    return conditions.parse(Node(raw, "if"), VOCABULARY)


def told(evaluation: Evaluation, row: int) -> bool | None:
    assert not (evaluation.matched[row] and evaluation.unknown[row])
    return True if evaluation.matched[row] else None if evaluation.unknown[row] else False


ways = st.sampled_from(["arrays", "one by one", "blocks"])


@contextmanager
def taking(way: str) -> Iterator[None]:
    """The three ways in which rows are taken; every outcome has to be the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "FEW", 1000 if way == "one by one" else 0)
        patch.setattr(evaluate, "BLOCK", 2 if way == "blocks" else 1000)
        patch.setattr(rules.columns, "LARGE", 1 if way == "blocks" else 1000)
        yield


@settings(max_examples=200, deadline=None)
@given(way=ways, tree=trees, listed=st.lists(some_rows, min_size=2, max_size=6), coded=st.booleans())
def test_the_evaluator_agrees_with_the_reference(way, tree, listed, coded):
    with taking(way):
        evaluation = compile(tree).evaluate(columns_of(listed, coded=coded), len(listed))
    assert [told(evaluation, i) for i in range(len(listed))] == [slow(tree, row) for row in listed]


@settings(max_examples=300, deadline=None)
@given(way=ways, leaf=leaves, listed=st.lists(some_rows, min_size=2, max_size=6), coded=st.booleans())
def test_every_comparison_agrees_with_the_reference(way, leaf, listed, coded):
    with taking(way):
        evaluation = compile(leaf).evaluate(columns_of(listed, coded=coded), len(listed))
    assert [told(evaluation, i) for i in range(len(listed))] == [slow(leaf, row) for row in listed]


@settings(max_examples=100, deadline=None)
@given(way=ways, tree=trees, listed=st.lists(some_rows, min_size=2, max_size=6))
def test_every_leaf_is_explained_also_where_it_was_not_needed(way, tree, listed):
    with taking(way):
        evaluation = compile(tree).evaluate(columns_of(listed), len(listed))
    for i, row in enumerate(listed):
        explained = evaluation.explain(i)
        assert [one.holds for one in explained] == [slow(leaf, row) for leaf in conditions.leaves(tree)]
        assert len({one.path for one in explained}) == len(explained)


@settings(max_examples=100, deadline=None)
@given(way=ways, tree=trees, listed=st.lists(some_rows, min_size=2, max_size=6))
def test_one_customer_alone_comes_out_as_in_a_batch(way, tree, listed):
    compiled = compile(tree)
    with taking(way):
        together = compiled.evaluate(columns_of(listed), len(listed))
    for i, row in enumerate(listed):
        alone = compiled.evaluate(columns_of([row]), 1)
        assert told(alone, 0) is told(together, i)
        assert [one.to_dict() for one in alone.explain(0)] == [one.to_dict() for one in together.explain(i)]


@settings(max_examples=100, deadline=None)
@given(way=ways, several=st.lists(trees, min_size=2, max_size=4), listed=st.lists(some_rows, min_size=2, max_size=6))
def test_conditions_that_share_a_batch_do_not_disturb_each_other(way, several, listed):
    compiled, batch = [compile(tree) for tree in several], Batch(columns_of(listed), len(listed))
    with taking(way):
        first = evaluate_all(compiled, batch, len(listed))
        again = [one.evaluate(batch, len(listed)) for one in reversed(compiled)][::-1]
    for tree, one, two in zip(several, first, again, strict=True):
        expected = [slow(tree, row) for row in listed]
        assert [told(one, i) for i in range(len(listed))] == expected
        assert [told(two, i) for i in range(len(listed))] == expected


@settings(max_examples=50, deadline=None)
@given(trees, some_rows)
def test_a_column_that_is_not_there_is_missing_for_everybody(tree, row):
    nothing = dict.fromkeys(row)
    evaluation = compile(tree).evaluate({}, 9)
    assert [told(evaluation, i) for i in range(9)] == [slow(tree, nothing)] * 9
    assert told(compile(tree).evaluate({}, 1), 0) is slow(tree, nothing)


@settings(max_examples=200, deadline=None)
@given(trees)
def test_what_is_written_reads_as_the_same_condition(tree):
    try:
        first = read(tree.to_dict())
    except RuleError as refused:
        assert "contradict" in refused.reason
        return
    assert first == tree
    assert first.to_dict() == tree.to_dict()
    assert compile(first).needs == {name for leaf in conditions.leaves(tree) for name in leaf.columns}


CONJUNCTIONS = st.recursive(
    leaves,
    lambda inner: st.builds(
        Group, st.sampled_from(["all", "none"]), st.lists(inner, min_size=1, max_size=3).map(tuple)
    ),
    max_leaves=5,
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(["all", "none"]), st.lists(CONJUNCTIONS, min_size=1, max_size=4), some_rows)
def test_what_is_refused_as_a_contradiction_is_met_by_nobody(kind, listed, row):
    """The part that the error names lies in an innermost group, which is what nobody can meet."""
    group = Group(kind, tuple(listed))
    try:
        read(group.to_dict())
    except RuleError as refused:
        assert slow(_refused(group, refused.where), row) is not True


def _refused(condition: conditions.Condition, where: str) -> conditions.Condition:
    """The innermost group, on the way to what the path names, that is refused by itself."""
    found, rest = condition, where.removeprefix("if")
    while isinstance(found, Group) and rest:
        place = rest[rest.index("[") + 1 : rest.index("]")]
        inner, rest = found.children[int(place)], rest[rest.index("]") + 1 :]
        try:
            read(inner.to_dict())
            return found
        except RuleError:
            found = inner
    return found


def leaf(field: str, op: str, value: Any = None) -> dict[str, Any]:
    return {"field": field, "op": op} | ({} if value is None else {"value": value})


def test_labels_may_come_as_codes():
    labels = Labels(np.array([0, 1, -1], np.int8), ("a", "ab"))
    assert list(labels.objects()) == ["a", "ab", None] == [labels[i] for i in range(3)]
    for raw, expected in [
        (leaf("l.open", "equals", "a"), [True, False, None]),
        (leaf("l.open", "not_in", ["a", "z"]), [False, True, None]),
        (leaf("l.open", "contains", "b"), [False, True, None]),
        (leaf("l.open", "not_exists"), [False, False, True]),
    ]:
        evaluation = compile(read(raw)).evaluate({"l.open": labels}, 3)
        assert [told(evaluation, i) for i in range(3)] == expected
        assert compile(read(raw)).evaluate({"l.open": labels[1:]}, 2).explain(0)[0].seen == "ab"


def test_a_batch_leaves_nothing_behind_that_only_the_garbage_collector_frees():
    import gc
    import weakref

    batch = Batch({"n.a": np.arange(40_000.0), "l.open": np.array(["a"] * 40_000, dtype=object)}, 40_000)
    evaluation = compile(read({"all": [leaf("n.a", "gt", 5), leaf("l.open", "equals", "a")]})).evaluate(batch, 40_000)
    evaluation.explain(7)
    gc.disable()
    try:
        watched = weakref.ref(batch)
        del batch, evaluation
        assert watched() is None
    finally:
        gc.enable()


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
