"""What a coupon step may say, what it costs, how deep it is, and how its customers read it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.actions.rendering import Job, Person, Sender, coupon_code, render
from operation_agent.actions.unsubscribe import Links
from operation_agent.decision import scoring
from operation_agent.kit.errors import Rejected
from rules import offer, phrases, step
from rules.errors import RuleError
from rules.offer import Prices
from rules.tree import Node

pytestmark = pytest.mark.unit

BXGY = {"buy": {"quantity": 2, "products": [1]}, "get": {"quantity": 1, "products": ["1"]}}
USD = Prices(2, 5000, 800)


def read(**written: Any) -> step.Step:
    return step.parse(Node({"action": "coupon", **written}, "steps[0]"), frozenset())


# -- reading ----------------------------------------------------------------------------------------------------------


def test_a_percentage_is_kept_as_it_always_was():
    assert list(read(percent=10).parameters.items()) == [("percent", 10), ("expires_in", "P14D")]
    defaults: dict[str, Any] = {
        "usage_limit": 1,
        "once_per_customer": True,
        "eligible": "everyone",
        "combines_with": [],
    }
    assert read(percent=10, **defaults).parameters == {"percent": 10, "expires_in": "P14D"}


def test_every_kind_reads_as_it_is_written_back():
    for written in (
        {"percent": 12.5, "products": ["1"], "minimum_quantity": 2},
        {"amount": "5.00", "minimum_subtotal": "40", "offer": "spring", "customer_segments": ["9"]},
        {"free_shipping": True, "maximum_shipping": "9", "worth": "6", "combines_with": ["order", "product"]},
        {"buy_x_get_y": {**BXGY, "get": {**BXGY["get"], "percent": 50}}, "worth": "9.50", "usage_limit": 3},
        {"percent": 5, "pool": "spring", "once_per_customer": False},
    ):
        once = read(**written)
        assert step.parse(Node(once.to_dict()), frozenset()) == once


@pytest.mark.parametrize(
    ("written", "where", "why"),
    [
        ({}, "", "gives one of percent, amount"),
        ({"percent": 10, "amount": 5}, "", "not percent and amount"),
        ({"percent": 101}, ".percent", "between"),
        ({"amount": 0}, ".amount", "nothing"),
        ({"amount": "five"}, ".amount", "is not an amount"),
        ({"amount": -1}, ".amount", "between 0"),
        ({"free_shipping": False}, ".free_shipping", "leave it out"),
        ({"buy_x_get_y": BXGY}, "", "needs `worth`"),
        ({"buy_x_get_y": {"buy": {"quantity": 1}, "get": BXGY["get"]}, "worth": 1}, ".buy_x_get_y.buy", "which"),
        ({"buy_x_get_y": {"buy": BXGY["buy"]}, "worth": 1}, ".buy_x_get_y.get", "missing"),
        ({"buy_x_get_y": {**BXGY, "take": 1}, "worth": 1}, ".buy_x_get_y.take", "unknown key"),
        ({"percent": 10, "worth": 4}, ".worth", "is known"),
        ({"percent": 10, "minimum_subtotal": 5, "minimum_quantity": 2}, ".minimum_quantity", "either"),
        ({"percent": 10, "products": [1], "collections": [2]}, ".collections", "either"),
        ({"percent": 10, "products": []}, ".products", "empty"),
        ({"percent": 10, "products": [0]}, ".products[0]", "text"),
        ({"free_shipping": True, "products": [1]}, ".products", "goes with"),
        ({"percent": 10, "maximum_shipping": 5}, ".maximum_shipping", "goes with"),
        ({"buy_x_get_y": BXGY, "worth": 1, "minimum_subtotal": 5}, ".minimum_subtotal", "goes with"),
        ({"free_shipping": True, "combines_with": ["shipping"]}, ".combines_with", "does not combine"),
        ({"percent": 10, "combines_with": ["vip"]}, ".combines_with[0]", "is not one of"),
        ({"percent": 10, "usage_limit": 0}, ".usage_limit", "between"),
        ({"percent": 10, "usage_limit": 1.5}, ".usage_limit", "whole"),
        ({"percent": 10, "once_per_customer": "yes"}, ".once_per_customer", "true or false"),
        ({"percent": 10, "eligible": "vip"}, ".eligible", "is not one of"),
        ({"percent": 10, "eligible": "customer", "customer_segments": [1]}, ".customer_segments", "alone"),
        ({"percent": 10, "offer": "Spring!"}, ".offer", "is not a key"),
        ({"percent": 10, "pool": "a", "offer": "b"}, ".offer", "does not go with `pool`"),
        ({"percent": 10, "pool": "a", "eligible": "customer"}, ".eligible", "does not go with `pool`"),
        ({"percent": 10, "colour": "red"}, ".colour", "unknown key"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_its_path(written: dict[str, Any], where: str, why: str):
    with pytest.raises(RuleError) as refused:
        read(**written)
    assert refused.value.where == f"steps[0]{where}"
    assert why in refused.value.reason


def email(text: str, *before: step.Step) -> None:
    provided: frozenset[str] = frozenset()
    for one in before:
        provided = step.provides(one, provided)
    body = {"en": text + "{{ unsubscribe_url }}", "zh": text + "{{ unsubscribe_url }}"}
    step.parse(Node({"action": "email", "subject": {"en": "x", "zh": "x"}, "body": body}), provided)


def test_a_text_may_say_what_the_latest_coupon_before_it_has():
    email("{{ coupon.percent }}{{ coupon.description }}", read(amount=5), read(percent=10))
    email("{{ coupon.amount }}", read(percent=10), read(amount=5))
    for text, coupon in (("{{ coupon.percent }}", read(amount=5)), ("{{ coupon.amount }}", read(free_shipping=True))):
        with pytest.raises(RuleError, match="does not have"):
            email(text, read(percent=10), coupon)


# -- costs ------------------------------------------------------------------------------------------------------------

ORDERS = np.array([3000.0, 9000.0])


def cost(settings: dict[str, Any] | None = None, digits: int = 2, **written: Any) -> list[float]:
    return scoring.step_cost(read(**written), ORDERS, settings or {}, digits).tolist()


def test_what_a_coupon_may_cost_at_most_is_known_for_every_kind():
    assert cost(percent=10) == [300, 900]
    assert cost(percent=10, minimum_subtotal=50) == [500, 900]  # who redeems it orders for 50 at least
    assert cost(amount="5.25") == [525, 525]
    assert cost(amount=500, digits=0) == [500, 500]
    assert cost(free_shipping=True) == [1000, 1000]
    assert cost({"free_shipping_minor": 650}, free_shipping=True) == [650, 650]
    assert cost({"free_shipping_minor": 650}, free_shipping=True, maximum_shipping=4) == [400, 400]
    assert cost(free_shipping=True, worth="7.5", maximum_shipping=9) == [750, 750]
    assert cost(buy_x_get_y=BXGY, worth=9) == [900, 900]
    assert cost({"costs": {"coupon": 3}}, amount=1) == [103, 103]


def test_a_code_that_others_may_use_too_costs_as_often():
    assert cost(percent=10, usage_limit=3) == [900, 2700]
    assert cost(percent=10, usage_limit=3, eligible="customer") == [300, 900]
    assert cost(percent=10, usage_limit=3, eligible="customer", once_per_customer=False) == [900, 2700]


@given(st.floats(0.01, 100), st.integers(1, 10**6))
def test_a_plain_percentage_costs_what_it_always_did(percent: float, order: int):
    one = scoring.step_cost(read(percent=percent), np.array([float(order)]), {})
    assert one.tolist() == [float(np.ceil(order * (percent / 100)))]


def test_depth_is_what_a_coupon_costs_of_a_typical_order():
    assert offer.depth(read(percent=17.5).parameters, USD) == 17.5
    assert offer.depth(read(amount=5).parameters, USD) == 10
    assert offer.depth(read(amount=5, minimum_subtotal=100).parameters, USD) == 5
    assert offer.depth(read(free_shipping=True).parameters, USD) == 16
    assert offer.depth(read(buy_x_get_y=BXGY, worth=20).parameters, USD) == 40


# -- words ------------------------------------------------------------------------------------------------------------


def test_an_operator_reads_a_step_in_both_languages():
    said = [
        phrases.step(read(**written).to_dict(), language, {})
        for written in ({"percent": 10}, {"amount": 5}, {"free_shipping": True}, {"buy_x_get_y": BXGY, "worth": 1})
        for language in ("en", "zh")
    ]
    assert said == [
        "coupon 10 %", "优惠券 10%", "coupon 5 off", "优惠券 立减 5", "coupon free shipping", "优惠券 免运费",
        "coupon buy 2, get 1 free", "优惠券 买 2 赠 1",
    ]  # fmt: skip


SENDER = Sender(UUID(int=1), "demo", "Tea", "UTC", "seed", "en", Links("https://agent.example", "s" * 32), "USD")
AT = datetime(2026, 3, 1, tzinfo=UTC)


def told(text: str, result: dict[str, Any], locale: str | None = None) -> str:
    person = Person(UUID(int=3), None, "a@b.c", None, None, None, locale)
    texts = {"subject": {"en": text, "zh": text}, "body": {"en": "x", "zh": "x"}}
    return render(SENDER, Job(UUID(int=2), "email", "key", texts, person, AT, result))["subject"]


def coupon(person: Person | None = None, **written: Any) -> dict[str, Any]:
    someone = person or Person(UUID(int=3), None, None, None, None, None, None)
    return render(SENDER, Job(UUID(int=2), "coupon", "key", read(**written).parameters, someone, AT))


def test_a_customer_reads_the_offer_in_their_language():
    made = coupon(amount="5.00", minimum_subtotal=40)
    text = "{{ coupon.code }} {{ coupon.description }} {{ coupon.amount }}{{ coupon.percent }}"
    assert told(text, made) == f"{made['code']} 5.00 USD off (for orders of at least 40 USD) 5.00 USD"
    assert "立减 5.00 USD（满 40 USD 可用）" in told(text, made, "zh-CN")
    assert "5.00 USD off" in told(text, made, "fr")
    assert told("{{ coupon.description }}", coupon(percent=10)) == "10% off"
    assert (
        told("{{ coupon.percent }}", {"code": "X", "percent": "12.50"}) == "12.5"
    )  # of an earlier release, or a person


def test_a_code_that_was_settled_when_it_was_taken_is_the_one_that_is_asked_for():
    assert coupon(percent=10)["code"] == coupon_code("seed", "key")
    person = Person(UUID(int=3), None, None, None, None, None, None)
    given = {**read(percent=10, offer="spring").parameters, "code": "KEPT"}
    assert render(SENDER, Job(UUID(int=2), "coupon", "key", given, person, AT))["code"] == "KEPT"


def test_a_code_for_one_customer_needs_their_account_at_the_shop():
    known = Person(UUID(int=3), None, None, None, None, None, None, shopify_id="77")
    assert coupon(known, percent=10, eligible="customer")["customer"] == "77"
    with pytest.raises(Rejected, match="no account"):
        coupon(percent=10, eligible="customer")


def test_the_steps_that_the_how_to_shows_are_steps():
    page = (Path(__file__).parents[2] / "docs/howto/coupons.md").read_text()
    listed = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0])
    assert [offer.kind_of(read(**{k: v for k, v in one.items() if k != "action"}).parameters) for one in listed] == [
        "percent", "amount", "free_shipping", "buy_x_get_y",
    ]  # fmt: skip
    assert all(f"`{key}`" in page or f"{key}:" in page for key in offer.KEYS)
