"""Coupons at a real peer: every kind is made as it was said, one code for an offer, and taking them back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest

from operation_agent.actions import recalling, reconciler
from operation_agent.kit.clock import SYSTEM, FixedClock
from operation_agent.kit.errors import Conflict, NotFound
from operation_agent.store import audit
from operation_agent.store.session import for_shop
from rules import step
from rules.tree import Node
from tests.integration.sending import LINKS, Stage, channel, executor, stage
from tests.shopify_peer.peer import Peer
from workers.code_pools import _take_back

pytestmark = pytest.mark.integration


@pytest.fixture
def here(engine, shop_id) -> Stage:
    return stage(engine, shop_id)


@pytest.fixture
def shop(shopify_peer: Peer) -> Peer:
    shopify_peer.grant("t")
    shopify_peer.put(
        Product=[{"id": 1, "title": "Tea"}, {"id": 2, "title": "Pot"}], Collection={"id": 5, "title": "Green"},
        Customer={"id": 77, "email": "ada@example.com"},
    )  # fmt: skip
    return shopify_peer


def parameters(**written: Any) -> dict[str, Any]:
    """As they stand in a rule that was read."""
    return dict(step.parse(Node({"action": "coupon", **written}), frozenset()).parameters)


def plan(here: Stage, customer: UUID, *, reserve: int = 0, minutes: int = 1, **written: Any) -> UUID:
    given = orjson.dumps(parameters(**written)).decode()
    due_at = here.start + timedelta(minutes=minutes)
    return here.action(customer, type="coupon", parameters=given, reserve=reserve, due_at=due_at)


def deliver(here: Stage, shop: Peer, **options: Any) -> int:
    with executor(here.engine, here.shop, "shopify", shop.base_url, **options) as ours:
        return ours.deliver(seconds=5)


def reconcile(here: Stage, shop: Peer, *, after: float = 1.0) -> int:
    clock = FixedClock(SYSTEM.now() + timedelta(seconds=after))
    with ThreadPoolExecutor(4) as pool, closing(channel("shopify", shop.base_url)) as made:
        return reconciler.reconcile(here.engine, here.shop, "coupon", made, LINKS, pool, clock=clock)


def discounts(shop: Peer) -> list[dict[str, Any]]:
    return [node["discount"] for node in shop.all("DiscountCodeNode")]


def code_of(here: Stage, action: UUID) -> str:
    return here.one(action).result["code"]


def coupons(here: Stage) -> list[Any]:
    return here.run("SELECT * FROM coupons WHERE shop_id = :shop ORDER BY issued_at, action_id")


# -- kinds ------------------------------------------------------------------------------------------------------------

BXGY = {"buy": {"quantity": 2, "products": [1]}, "get": {"quantity": 1, "collections": ["5"], "percent": 50}}
KINDS = {
    "percent": ({"percent": 12.5}, "DiscountCodeBasic"),
    "amount": ({"amount": 5, "minimum_subtotal": "40.00", "products": [1]}, "DiscountCodeBasic"),
    "shipping": ({"free_shipping": True, "maximum_shipping": 9, "minimum_quantity": 2}, "DiscountCodeFreeShipping"),
    "bxgy": ({"buy_x_get_y": BXGY, "worth": 9}, "DiscountCodeBxgy"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_made_as_it_was_said(here: Stage, shop: Peer, kind: str):
    written, type_name = KINDS[kind]
    action = plan(here, here.customer(), combines_with=["order"], usage_limit=3, expires_in="P3D", **written)
    assert deliver(here, shop) == 1
    row = here.one(action)
    assert row.state == "sent", row.reason
    (made,) = discounts(shop)
    assert (made["__typename"], made["codes"][0]["code"]) == (type_name, row.result["code"])
    assert made["combinesWith"] == {"orderDiscounts": True, "productDiscounts": False, "shippingDiscounts": False}
    assert (made["usageLimit"], made["appliesOncePerCustomer"]) == (3, True)
    (coupon,) = coupons(here)
    assert coupon.expires_at == row.sent_at + timedelta(days=3)
    assert coupon.discount_ref == row.provider_ref == shop.all("DiscountCodeNode")[0]["id"]
    assert coupon.terms["usage_limit"] == 3
    if kind == "percent":
        assert made["customerGets"]["value"]["percentage"] == 0.125
        assert coupon.percent == 12.5
    if kind == "amount":
        assert float(made["customerGets"]["value"]["amount"]) == 5.0
        assert made["customerGets"]["items"]["products"] == ["gid://shopify/Product/1"]
        assert float(made["minimumRequirement"]["greaterThanOrEqualToSubtotal"]) == 40
        assert coupon.percent is None
    if kind == "shipping":
        assert float(made["maximumShippingPrice"]) == 9
        assert int(made["minimumRequirement"]["greaterThanOrEqualToQuantity"]) == 2
    if kind == "bxgy":
        assert int(made["customerBuys"]["value"]["quantity"]) == 2
        assert made["customerGets"]["value"]["effect"]["percentage"] == 0.5
        assert made["customerGets"]["items"]["collections"] == ["gid://shopify/Collection/5"]


def test_a_code_for_one_customer_alone_is_bound_to_their_account(here: Stage, shop: Peer):
    known, stranger = here.customer(), here.customer()
    here.run("UPDATE customers SET shopify_id = '77' WHERE shop_id = :shop AND id = :id", id=known)
    one, other = (plan(here, who, percent=10, eligible="customer") for who in (known, stranger))
    deliver(here, shop)
    assert here.one(one).state == "sent"
    (made,) = discounts(shop)
    assert made["context"]["customers"] == ["gid://shopify/Customer/77"]
    assert here.one(other).state == "failed"
    assert "no account" in here.one(other).reason


def test_what_the_shop_refuses_fails_with_the_field_it_names_and_gives_the_money_back(here: Stage, shop: Peer):
    action = plan(here, here.customer(), reserve=500, percent=10, products=["404"])
    deliver(here, shop)
    assert here.one(action).state == "failed"
    assert "Product with id: 404" in here.one(action).reason
    assert here.budget() == (0, 0)


# -- taken codes ------------------------------------------------------------------------------------------------------


def test_a_lost_answer_is_asked_about_and_made_once(here: Stage, shop: Peer):
    action = plan(here, here.customer(), amount="7.50")
    shop.fault("drop_after", "discountCodeBasicCreate")
    deliver(here, shop)
    assert here.one(action).state == "unknown"
    assert reconcile(here, shop) == 1
    assert here.one(action).state == "sent"
    assert len(discounts(shop)) == 1


def test_somebody_elses_code_of_the_same_name_is_not_taken_for_ours(here: Stage, shop: Peer):
    first = plan(here, here.customer(), percent=10)
    deliver(here, shop)
    code = code_of(here, first)
    here.run("DELETE FROM coupons WHERE shop_id = :shop")
    # the shop's people have a discount of that code, and of another title
    (node,) = shop.all("DiscountCodeNode")
    shop.put(DiscountCodeNode={"id": node["id"], "discount": {**node["discount"], "title": "Theirs"}})
    key = here.one(first).dedupe_key
    here.run("UPDATE actions SET state = 'ready', dedupe_key = :key WHERE shop_id = :shop", key=key)
    deliver(here, shop)
    row = here.one(first)
    assert row.state == "failed"
    assert "another discount" in row.reason
    assert "Theirs" in row.reason
    assert code == discounts(shop)[0]["codes"][0]["code"]


@pytest.mark.parametrize(("kind", "problem"), [("revoke", "unauthorized"), ("scopes", "scopes")])
def test_a_refused_token_stops_the_channel_and_loses_nothing(here: Stage, shop: Peer, kind: str, problem: str):
    here.run(
        "INSERT INTO integrations (shop_id, vendor, channel, base_url, updated_at)"
        " VALUES (:shop, 'shopify', 'coupon', 'x', :at)", at=here.start,
    )  # fmt: skip
    actions = [plan(here, here.customer(), percent=10) for _ in range(3)]
    shop.grant("t", **({"revoked": True} if kind == "revoke" else {"scopes": ["read_products"]}))
    deliver(here, shop)
    assert {here.one(one).state for one in actions} == {"ready"}
    assert here.run("SELECT problem FROM integrations WHERE shop_id = :shop")[0].problem == problem


# -- offers -----------------------------------------------------------------------------------------------------------


def test_the_same_customer_gets_the_same_code_for_the_same_offer(here: Stage, shop: Peer):
    ada, bob = here.customer(), here.customer()
    first = plan(here, ada, reserve=400, percent=10, offer="spring")
    deliver(here, shop)
    again = plan(here, ada, reserve=400, minutes=5, percent=10, offer="spring")
    others = plan(here, bob, reserve=400, minutes=6, percent=10, offer="spring")
    letter = here.action(ada, after_action=again, reserve=2)
    deliver(here, shop)
    assert code_of(here, first) == code_of(here, again) != code_of(here, others)
    assert here.one(again).result["first_action"] == str(first)
    assert here.one(again).state == "sent"
    assert len(discounts(shop)) == len(coupons(here)) == 2
    assert here.budget() == (2, 800)  # the letter's money waits; the offer was paid for once for each
    assert here.one(letter).state == "ready"


def test_two_sendings_of_an_offer_at_once_make_one_code(here: Stage, shop: Peer):
    ada = here.customer()
    both = [plan(here, ada, reserve=300, minutes=minute, amount=3, offer="spring") for minute in (1, 2)]
    deliver(here, shop)
    assert [here.one(one).state for one in both] == ["sent", "ready"]
    assert "being made" in here.one(both[1]).reason
    here.run("UPDATE actions SET retry_at = NULL WHERE shop_id = :shop AND state = 'ready'")
    deliver(here, shop)
    assert code_of(here, both[0]) == code_of(here, both[1])
    assert len(discounts(shop)) == 1
    assert here.budget() == (0, 300)


def test_a_second_sending_waits_for_the_first_whose_attempt_was_refused(here: Stage, shop: Peer):
    ada = here.customer()
    first = plan(here, ada, percent=10, offer="spring")
    shop.fault("throttle", "discountCodeBasicCreate")
    deliver(here, shop)
    assert here.one(first).state == "ready"
    second = plan(here, ada, minutes=2, percent=10, offer="spring")
    deliver(here, shop)
    assert here.one(second).state == "ready"
    for _ in range(2):
        here.run("UPDATE actions SET retry_at = NULL WHERE shop_id = :shop AND state = 'ready'")
        deliver(here, shop)
    assert code_of(here, first) == code_of(here, second)
    assert len(discounts(shop)) == 1


@pytest.mark.parametrize("over", ["redeemed", "expired", "taken back", "other terms"])
def test_after_a_code_is_over_the_next_sending_gets_another_one(here: Stage, shop: Peer, over: str):
    ada = here.customer()
    first = plan(here, ada, percent=10, offer="spring", expires_in="PT10M")
    deliver(here, shop)
    if over == "redeemed":
        here.run("UPDATE coupons SET redeemed_at = issued_at WHERE shop_id = :shop")
    if over == "taken back":
        here.run("UPDATE coupons SET deactivated_at = issued_at WHERE shop_id = :shop")
    minutes = 30 if over == "expired" else 2
    percent = 15 if over == "other terms" else 10
    second = plan(here, ada, minutes=minutes, percent=percent, offer="spring")
    deliver(here, shop)
    assert code_of(here, first) != code_of(here, second)
    assert len(discounts(shop)) == 2


def test_merged_customers_keep_their_code(here: Stage, shop: Peer):
    ada, alias = here.customer(), here.customer()
    first = plan(here, alias, percent=10, offer="spring")
    deliver(here, shop)
    for table in ("actions", "coupons"):  # as customers.merging does
        here.run(f"UPDATE {table} SET customer_id = :new WHERE shop_id = :shop", new=ada)  # noqa: S608 - of ours
    here.run("UPDATE customers SET merged_into = :new WHERE shop_id = :shop AND id = :old", new=ada, old=alias)
    again = plan(here, ada, minutes=3, percent=10, offer="spring")
    deliver(here, shop)
    assert code_of(here, again) == code_of(here, first)


# -- taking back ------------------------------------------------------------------------------------------------------


def take_back(here: Stage, shop: Peer, action: UUID) -> int:
    """What the worker does."""
    with for_shop(here.engine, here.shop.id) as session:
        coupon = recalling.coupon_of(session, here.shop.id, action)
    with closing(channel("shopify", shop.base_url)) as made:
        used = _take_back(made, coupon)  # type: ignore[arg-type]
    with for_shop(here.engine, here.shop.id) as session:
        return recalling.done(session, here.shop, coupon.action_id, used=used, at=SYSTEM.now())


def ask(here: Stage, action: UUID) -> recalling.Coupon:
    with for_shop(here.engine, here.shop.id) as session:
        return recalling.ask(session, here.shop, action, actor="me", at=SYSTEM.now())


def test_a_coupon_taken_back_ends_at_the_shop_and_its_money_is_there_again(here: Stage, shop: Peer):
    ada = here.customer()
    action = plan(here, ada, reserve=700, percent=10, offer="spring")
    deliver(here, shop)
    letter = here.action(ada, after_action=action, reserve=2)
    told_again = plan(here, ada, minutes=4, percent=10, offer="spring")
    assert here.budget() == (2, 700)
    coupon = ask(here, action)
    assert (coupon.recalled_by, coupon.deactivated_at) == ("me", None)
    assert here.one(letter).state == "cancelled"
    with for_shop(here.engine, here.shop.id) as session:
        assert recalling.due(session, here.shop.id, at=SYSTEM.now()) == [("coupons.recall", str(action))]
    assert take_back(here, shop, action) == 700
    assert here.budget() == (0, 0)
    assert take_back(here, shop, action) == 0  # twice is once
    assert here.budget() == (0, 0)
    (ended,) = discounts(shop)
    assert datetime.fromisoformat(ended["endsAt"]) <= SYSTEM.now()
    with for_shop(here.engine, here.shop.id) as session:
        assert recalling.due(session, here.shop.id, at=SYSTEM.now()) == []
        assert audit.verify(session, here.shop.id) is None
    deliver(here, shop)  # a new one: the old code is of no use
    assert code_of(here, told_again) != code_of(here, action)


def test_what_the_shop_counted_as_used_stays_spent(here: Stage, shop: Peer):
    action = plan(here, here.customer(), reserve=700, percent=10)
    deliver(here, shop)
    (node,) = shop.all("DiscountCodeNode")
    used = [{**node["discount"]["codes"][0], "asyncUsageCount": 1}]
    shop.put(DiscountCodeNode={"id": node["id"], "discount": {**node["discount"], "codes": used}})
    ask(here, action)
    assert take_back(here, shop, action) == 0
    assert here.budget() == (0, 700)


def test_a_used_coupon_or_none_cannot_be_taken_back(here: Stage, shop: Peer):
    action, letter = plan(here, here.customer(), percent=10), here.action(here.customer())
    deliver(here, shop)
    here.run("UPDATE coupons SET redeemed_at = issued_at WHERE shop_id = :shop")
    with pytest.raises(Conflict, match="was used"):
        ask(here, action)
    with pytest.raises(NotFound):
        ask(here, letter)
