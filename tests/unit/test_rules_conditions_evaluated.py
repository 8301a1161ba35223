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


@settings(max_examples=800, deadline=None)
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


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["all", "none"]), st.lists(CONJUNCTIONS, min_size=1, max_size=4), st.lists(some_rows, min_size=9)
)
def test_what_is_refused_as_a_contradiction_is_met_by_nobody(kind, listed, several):
    """The part that the error names lies in an innermost group, which is what nobody can meet."""
    group = Group(kind, tuple(listed))
    try:
        read(group.to_dict())
    except RuleError as refused:
        part = _refused(group, refused.where)
        assert not any(slow(part, row) is True for row in several)


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
