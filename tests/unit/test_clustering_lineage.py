"""A lineage goes to the same people in the same place and to nobody else; numbers mean nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operation_agent.clustering.lineage import Ended, match, overlaps, shift

pytestmark = pytest.mark.unit


def _groups(*sizes_by_new_and_old):
    """Rows from (new, old, how many)."""
    new = np.concatenate([np.full(count, number) for number, _, count in sizes_by_new_and_old])
    old = np.concatenate([np.full(count, number) for _, number, count in sizes_by_new_and_old])
    return new, old


@given(st.lists(st.integers(0, 5), min_size=6, max_size=200))
@settings(max_examples=60, deadline=None)
def test_the_same_clustering_again_keeps_every_lineage_that_has_members(numbers):
    numbers = np.array(numbers)
    found = match(numbers, numbers, k_new=6, k_old=6)
    alive = set(numbers.tolist())
    assert {heir.number: heir.previous for heir in found.heirs if heir.verdict == "same"} == {n: n for n in alive}
    assert {one.previous for one in found.ended} == set(range(6)) - alive


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=5, max_size=150),
    st.permutations(range(5)),
    st.permutations(range(4)),
    st.randoms(use_true_random=False),
)
@settings(max_examples=80, deadline=None)
def test_renumbering_and_reordering_change_only_the_numbers(pairs, as_new, as_old, random):
    new, old = np.array(pairs).T
    plain = match(new, old, k_new=5, k_old=4)
    order = list(range(len(pairs)))
    random.shuffle(order)
    other = match(np.array(as_new)[new][order], np.array(as_old)[old][order], k_new=5, k_old=4)

    def same(found, to_new, to_old):
        return {(to_new[h.number], to_old[h.previous]) for h in found.heirs if h.verdict == "same"}

    assert same(plain, as_new, as_old) == same(other, range(5), range(4))
    assert {(as_old[one.previous], one.fate) for one in plain.ended} == {
        (one.previous, one.fate) for one in other.ended
    }
    kinds = {as_new[h.number]: h.kind for h in plain.heirs}
    assert kinds == {h.number: h.kind for h in other.heirs}


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=150))
@settings(max_examples=80, deadline=None)
def test_no_lineage_goes_to_two_and_each_is_kept_or_ended(pairs):
    new, old = np.array(pairs).T
    found = match(new, old, k_new=5, k_old=5)
    kept = [heir.previous for heir in found.heirs if heir.verdict == "same"]
    assert len(kept) == len(set(kept))
    assert {one.previous for one in found.ended} == set(range(5)) - set(kept)


def test_a_split_is_named_on_both_sides():
    found = match(*_groups((0, 0, 100), (1, 1, 45), (2, 1, 45), (0, 1, 10)), k_new=3, k_old=2)
    assert [heir.kind for heir in found.heirs] == ["same", "split", "split"]
    assert [heir.previous for heir in found.heirs] == [0, 1, 1]
    assert found.ended == (Ended(1, "split", (1, 2), pytest.approx(0.45)),)


def test_a_large_part_of_a_split_may_stay_the_lineage():
    found = match(*_groups((0, 0, 80), (1, 0, 20)), k_new=2, k_old=1)
    assert [(heir.verdict, heir.kind) for heir in found.heirs] == [("same", "same"), ("new", "split")]
    assert found.ended == ()


def test_a_merger_is_named_and_ends_what_it_swallowed():
    found = match(*_groups((0, 0, 50), (0, 1, 50), (1, 2, 80)), k_new=2, k_old=3)
    assert (found.heirs[0].verdict, found.heirs[0].kind, found.heirs[0].sources) == ("new", "merged", (0, 1))
    assert {(one.previous, one.fate, one.into) for one in found.ended} == {(0, "merged", (0,)), (1, "merged", (0,))}


def test_exactly_half_is_not_enough():
    found = match(*_groups((0, 0, 50), (1, 0, 50)), k_new=2, k_old=1)
    assert {heir.verdict for heir in found.heirs} == {"new"}
    assert [one.fate for one in found.ended] == ["split"]


def test_a_pair_that_fits_is_kept_even_where_two_worse_pairs_add_up_to_more():
    """Overlaps .51, .33 and .33: maximising the sum, as the Hungarian method does, would give up the good pair."""
    new, old = _groups((0, 0, 104), (0, 1, 50), (1, 0, 50))
    table = np.zeros((2, 2))
    np.add.at(table, (new, old), 1)
    jaccard = overlaps(table)
    assert jaccard[0, 1] + jaccard[1, 0] > jaccard[0, 0] > 0.5
    found = match(new, old, k_new=2, k_old=2)
    assert (found.heirs[0].verdict, found.heirs[0].previous) == ("same", 0)


def test_the_same_people_in_another_place_are_not_the_same_cluster():
    new, old = _groups((0, 0, 60), (1, 1, 60))
    moved = match(new, old, k_new=2, k_old=2, shifts=np.array([[0.1, 9.0], [9.0, 1.5]]))
    assert [(heir.verdict, heir.kind) for heir in moved.heirs] == [("same", "same"), ("new", "moved")]
    assert moved.ended == (Ended(1, "moved", (1,), 1.0),)


def test_shift_counts_in_radii_of_the_old_cluster():
    scaled = np.array([[0.0, 2.0], [0.0, -2.0], [9.0, 0.0], [11.0, 0.0]])
    old = np.array([0, 0, 1, 1])
    centroids = np.array([[0.0, 0.0], [10.0, 0.0]])
    assert shift(scaled, old, old, centroids, 2).tolist() == [[0.0, 10.0], [5.0, 0.0]]
