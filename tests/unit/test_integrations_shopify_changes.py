"""What is pure in making changes at Shopify: moves, marks, texts, and the logic of setting and putting back."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations.shopify.changes import texts
from integrations.shopify.changes.collections import moves_of
from integrations.shopify.changes.draft_orders import mark_of
from integrations.shopify.changes.ids import gid, number_of
from integrations.shopify.changes.metafields import Metafields
from integrations.shopify.changes.metafields import given as any_metafields
from integrations.shopify.changes.storefront import CHANGES
from integrations.shopify.changes.values import Parameters, ValueChange, Values
from integrations.shopify.client import Shopify
from operation_agent.kit.errors import Conflict
from operation_agent.storefront.kinds import KINDS

pytestmark = pytest.mark.unit

SHOP: Any = None
LETTERS = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)


def moved(standing: list[str], moves: list[dict[str, str]]) -> list[str]:
    """As collectionReorderProducts does it: one move after the other."""
    now = list(standing)
    for move in moves:
        name = number_of(move["id"])
        now.remove(name)
        now.insert(int(move["newPosition"]), name)
    return now


def test_shopify_makes_every_change_there_is():
    assert set(CHANGES) == {name for name, kind in KINDS.items() if "shopify" in kind.scopes}


@given(LETTERS, st.randoms())
def test_moves_lead_from_any_order_to_any_other_and_twice_is_once(standing: list[str], random: Any):
    wanted = random.sample(standing, len(standing))
    moves = moves_of(standing, wanted)
    assert moved(standing, moves) == wanted
    assert moved(wanted, moves) == wanted
    assert moves_of(wanted, wanted) == []


@given(LETTERS, LETTERS)
def test_moves_name_only_what_is_there(standing: list[str], wanted: list[str]):
    moves = moves_of(standing, wanted)
    assert {number_of(move["id"]) for move in moves} <= set(standing)
    there = [name for name in wanted if name in standing]
    assert moved(standing, moves)[: len(there)] == there


def test_a_mark_fits_into_a_tag():
    assert len(mark_of(str(uuid4()))) == 40


def test_an_id_is_what_stands_after_the_last_slash():
    assert number_of(gid("Product", "9007199254740993123")) == "9007199254740993123"
    assert number_of("gid://shopify/InventoryLevel/1?inventory_item_id=2") == "1"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("<p>a</p>\n <p>b</p>", "<p>a</p><p>b</p>", True),
        ("<p>a  b</p>", "<p>a b</p>", True),
        ("<p>a</p>", "<p>b</p>", False),
    ],
)
def test_html_is_compared_by_what_it_says(one: str, other: str, same: bool):
    assert (texts.canonical(one) == texts.canonical(other)) is same


def test_both_halves_of_seo_go_together():
    values = {"seo_title": "New", "seo_description": "Old"}
    assert texts.input_of(values, {"seo_title"}) == {"seo": {"title": "New", "description": "Old"}}


def test_json_metafields_are_the_same_however_they_are_written():
    change = Metafields("Customer", "customer_id", any_metafields)
    assert change.equal("n", {"type": "json", "value": '{"a": 1}'}, {"type": "json", "value": '{"a":1}', "digest": "x"})
    assert not change.equal("n", {"type": "json", "value": "1"}, {"type": "json", "value": "2"})
    assert not change.equal(
        "n", {"type": "single_line_text_field", "value": "1 "}, {"type": "single_line_text_field", "value": "1"}
    )


class Ledger(ValueChange):
    """Values in a dict, set one call each; `dies_after` so many of them."""

    in_steps = True

    def __init__(self, values: Values):
        self.values, self.left = values, 10**6

    def read(self, shop: Shopify, parameters: Parameters) -> Values:
        return dict(self.values)

    def target(self, parameters: Parameters, before: Values) -> Values:
        return dict(parameters)

    def write(self, shop: Shopify, parameters: Parameters, now: Values, to: Values) -> Values:
        for name, value in to.items():
            if now.get(name) != value:
                if self.left == 0:
                    raise ConnectionError
                self.left -= 1
                self.values[name] = value
        return {}


NAMES = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3), min_size=1)


@given(NAMES, NAMES, st.integers(0, 4))
def test_a_change_that_broke_off_anywhere_is_finished_and_taken_back(old: Values, new: Values, calls: int):
    shop = Ledger(dict.fromkeys("abcd", 0) | old)
    was = dict(shop.values)
    before = dict(shop.preview(SHOP, new).before)
    shop.left = calls
    try:
        shop.apply(SHOP, new, before, key="k")
    except ConnectionError:
        assert shop.is_applied(SHOP, new, before, key="k") is None
    shop.left = 10**6
    made = shop.apply(SHOP, new, before, key="k")
    assert shop.values == was | new
    assert made.undo is not None
    shop.left = calls
    try:
        shop.undo(SHOP, made.undo, key="u", force=False)
    except ConnectionError:
        shop.left = 10**6
        shop.undo(SHOP, made.undo, key="u", force=False)
    assert shop.values == was


@given(NAMES, NAMES, st.sampled_from("abcd"))
def test_a_third_value_is_never_overwritten_unless_forced(old: Values, new: Values, theirs: str):
    shop = Ledger(dict.fromkeys("abcd", 0) | old)
    was = dict(shop.values)
    before = dict(shop.preview(SHOP, new).before)
    shop.values[theirs] = 9
    if theirs in new and any(was[name] != value for name, value in new.items()):
        with pytest.raises(Conflict):
            shop.apply(SHOP, new, before, key="k")
        assert shop.values == was | {theirs: 9}
        return
    made = shop.apply(SHOP, new, before, key="k") if theirs not in new else None
    if made is not None:
        assert shop.values == was | new | {theirs: 9}
