"""What a person meets when they change their shop: bounds on prices, words that are kept, connections that fail."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from integrations.shopify.client import Shopify
from operation_agent.actions import wakeups
from operation_agent.kit.errors import Conflict
from operation_agent.store.session import for_shop
from operation_agent.store.shops import update_settings
from operation_agent.storefront import changes, connection
from operation_agent.storefront.kinds import KINDS
from tests.integration.changing import ACTOR, Desk, desk
from tests.integration.test_shop_changes_kinds import (
    COLLECTION,
    CUSTOMER,
    FOURTH,
    OTHER,
    PRODUCT,
    THIRD,
    VARIANT,
    drafts,
    fill,
    pages,
    prices,
)  # fmt: skip
from workers.shop_changes import make_changes

pytestmark = pytest.mark.integration

SCOPES = sorted({scope for kind in KINDS.values() for scope in kind.scopes["shopify"]})


@pytest.fixture
def here(engine, shop_id, shopify_peer) -> Iterator[Desk]:
    fill(shopify_peer)
    shopify_peer.grant(scopes=SCOPES)
    with desk(engine, shop_id, shopify_peer) as made:
        yield made


def price(amount: str, **more: Any) -> dict[str, Any]:
    return {"product_id": "5001", "variants": [{"variant_id": "6001", "price": amount, **more}]}


def settings(here: Desk, **given: Any) -> None:
    with for_shop(here.engine, here.shop.id) as session:
        update_settings(session, here.shop, given)


# -- prices ---------------------------------------------------------------------------------------------------------


def test_a_price_beyond_the_bound_is_refused_with_the_number(here: Desk):
    change = here.settled(here.ask("product.price", price("13.99"), apply=True))
    assert (change.state, change.reason_code) == ("refused", "price_bound")
    assert "30.1%" in (change.reason or "") or "30.0%" in (change.reason or "")
    assert prices(here.peer)[0][0] == "20.00"


@pytest.mark.parametrize(("amount", "state"), [("14.00", "previewed"), ("26.00", "previewed"), ("26.01", "refused")])
def test_the_bound_itself_is_allowed_both_ways(here: Desk, amount: str, state: str):
    assert here.settled(here.ask("product.price", price(amount))).state == state


def test_the_shop_sets_its_own_bound(here: Desk):
    settings(here, price_bound=0.05)
    assert here.settled(here.ask("product.price", price("18.90"))).state == "refused"
    assert here.settled(here.ask("product.price", price("19.10"))).state == "previewed"


def test_a_price_below_its_cost_is_refused(here: Desk):
    settings(here, price_bound=0.9)
    change = here.settled(here.ask("product.price", price("7.99")))
    assert (change.state, change.reason_code) == ("refused", "below_cost")
    assert "8.00" in (change.reason or "")


def test_a_price_beyond_half_the_bound_waits_for_a_person(here: Desk):
    small = here.settled(here.ask("product.price", price("18.00"), apply=True))
    assert small.state == "applied"
    large = here.settled(here.ask("product.price", price("14.40"), apply=True))
    assert large.state == "previewed"
    assert any("person" in warning for warning in large.warnings)
    assert here.apply(large.id).state == "applied"
    assert prices(here.peer)[0][0] == "14.40"


def test_small_steps_that_add_up_beyond_the_bound_wait_for_a_person(here: Desk):
    for amount in ("18.00", "16.20", "14.60"):
        assert here.settled(here.ask("product.price", price(amount), apply=True)).state == "applied"
    last = here.settled(here.ask("product.price", price("13.50"), apply=True))
    assert last.state == "previewed"
    assert any("32.5%" in warning for warning in last.warnings)
    here.later(timedelta(days=31))
    later = here.settled(here.ask("product.price", price("13.50"), apply=True))
    assert later.state == "applied"


def test_all_prices_of_a_product_move_by_a_percentage_and_back(here: Desk):
    change = here.made("product.price", {"product_id": "5001", "percent": -10})
    assert [amount for amount, _ in prices(here.peer)] == ["18.00", "27.00"]
    assert here.undo(change.id).state == "undone"
    assert [amount for amount, _ in prices(here.peer)] == ["20.00", "30.00"]


def test_a_compare_at_price_is_kept_unless_it_is_named(here: Desk):
    here.made("product.price", price("18.00", compare_at="20.00"))
    here.made("product.price", price("17.00"))
    assert prices(here.peer)[0] == ("17.00", "20.00")
    here.made("product.price", price("17.50", compare_at=None))
    assert prices(here.peer)[0] == ("17.50", None)


def test_prices_of_a_product_are_all_changed_or_none(here: Desk):
    given = {"product_id": "5001", "variants": [
        {"variant_id": "6001", "price": "19.00"}, {"variant_id": "6002", "price": "29.00"}]}  # fmt: skip
    change_id = here.ask("product.price", given)
    here.settled(change_id)
    here.peer.put(ProductVariant={"id": "gid://shopify/ProductVariant/6002", "price": "31.00"})
    assert here.apply(change_id).reason_code == "changed"
    assert [amount for amount, _ in prices(here.peer)] == ["20.00", "31.00"]


def test_a_variant_of_another_product_is_not_there(here: Desk):
    change = here.settled(here.ask("product.price", {**price("19.00"), "product_id": "5002"}))
    assert (change.state, change.reason_code) == ("refused", "not_found")


# -- consent --------------------------------------------------------------------------------------------------------

YES = {"customer_id": "7001", "channel": "sms", "state": "subscribed", "opt_in_level": "confirmed_opt_in"}


def test_a_first_consent_cannot_be_taken_back_and_says_so(here: Desk):
    change_id = here.ask("customer.consent", YES)
    assert any("cannot be taken back" in warning for warning in here.settled(change_id).warnings)
    change = here.apply(change_id)
    assert change.state == "applied"
    assert "not_subscribed" in (change.why_no_undo or "")
    told = here.peer.get(CUSTOMER)["smsMarketingConsent"]
    assert (told["marketingState"], told["marketingOptInLevel"]) == ("SUBSCRIBED", "CONFIRMED_OPT_IN")
    assert told["consentUpdatedAt"].startswith(change.asked_at.strftime("%Y-%m-%dT%H:%M:%S"))
    with pytest.raises(Conflict, match="cannot be taken back"):
        here.undo(change_id)


def test_an_older_word_does_not_replace_a_newer_one(here: Desk):
    given = {**YES, "channel": "email", "state": "unsubscribed", "consented_at": "2024-12-31T00:00:00Z"}
    change = here.settled(here.ask("customer.consent", given))
    assert (change.state, change.reason_code) == ("refused", "older_consent")
    assert here.peer.get(CUSTOMER)["emailMarketingConsent"]["marketingState"] == "SUBSCRIBED"


def test_taking_a_consent_back_brings_its_date_back_too(here: Desk):
    change = here.made("customer.consent", {**YES, "channel": "email", "state": "unsubscribed"})
    here.undo(change.id)
    told = here.peer.get(CUSTOMER)["emailMarketingConsent"]
    assert told["marketingState"] == "SUBSCRIBED"
    assert told["consentUpdatedAt"].startswith("2025-01-01T00:00:00")


def test_who_has_no_address_cannot_consent(here: Desk):
    here.peer.put(Customer={"id": CUSTOMER, "phone": None})
    change = here.settled(here.ask("customer.consent", YES))
    assert (change.state, change.reason_code) == ("refused", "no_address")


# -- draft orders ---------------------------------------------------------------------------------------------------

DRAFT = {"customer_id": "7001", "note": "n", "lines": [{"variant_id": "6001"}], "invoice": {"message": "Hello"}}


def test_an_invoice_goes_out_and_cannot_be_taken_back(here: Desk):
    change = here.made("draft_order.create", DRAFT)
    assert [(sent["to"], sent["message"]) for sent in here.peer.sent()] == [("a@example.com", "Hello")]
    assert "cannot be taken back" in (change.why_no_undo or "")
    assert change.subject == f"draft_order:{change.ref}"
    assert here.undo(change.id).state == "undone"
    assert drafts(here.peer) == []


def test_a_draft_order_whose_invoice_is_refused_stands_and_says_so(here: Desk):
    here.peer.fault("user_errors", "draftOrderInvoiceSend", errors=[{"field": ["to"], "message": "is no address"}])
    change = here.made("draft_order.create", DRAFT)
    assert change.state == "applied"
    assert any("is no address" in warning for warning in change.warnings)
    assert len(drafts(here.peer)) == 1


def test_an_invoice_that_may_have_gone_out_is_not_sent_again(here: Desk):
    here.peer.fault("drop_after", "draftOrderInvoiceSend")
    change = here.made("draft_order.create", DRAFT)
    assert change.state == "applied"
    assert len(here.peer.sent()) == 1
    assert len(drafts(here.peer)) == 1


def test_a_draft_order_that_was_paid_stays_whatever_is_forced(here: Desk):
    change = here.made("draft_order.create", DRAFT)
    draft = here.peer.all("DraftOrder")[0]["id"]
    here.peer.put(DraftOrder={"id": draft, "status": "COMPLETED", "order": "gid://shopify/Order/9001"})
    refused = here.undo(change.id, force=True)
    assert (refused.state, refused.reason_code) == ("applied", "completed")
    assert "9001" in (refused.reason or "")
    assert len(drafts(here.peer)) == 1


def test_drafts_that_others_made_meanwhile_are_not_taken_for_its_own(here: Desk):
    change_id = here.ask("draft_order.create", DRAFT)
    here.settled(change_id)
    here.peer.put(DraftOrder=[{"id": str(2_000_000 + n), "tags": ["phone"], "lineItems": []} for n in range(120)])
    here.peer.fault("drop_before", "draftOrderCreate")
    change = here.apply(change_id)
    assert change.state == "applied"
    assert len([draft for draft in here.peer.all("DraftOrder") if draft["lineItems"]]) == 1


# -- collections, pages, publications -------------------------------------------------------------------------------


def test_a_product_that_a_condition_brings_in_cannot_be_taken_out_by_hand(here: Desk):
    here.peer.put(Collection={"id": COLLECTION, "ruleSet": {"rules": []}})
    change_id = here.ask("collection.products", {"collection_id": "8001", "remove": ["5001"]})
    here.settled(change_id)
    assert here.apply(change_id).reason_code == "by_condition"


def test_a_collection_without_a_source_of_its_own_gets_one(here: Desk):
    here.peer.put(Collection={"id": COLLECTION, "ruleSet": {"rules": []}})
    here.made("collection.products", {"collection_id": "8001", "add": ["5004"]})
    assert FOURTH in here.peer.get(COLLECTION)["productIds"]
    (call,) = here.peer.calls("collectionUpdate")
    assert "sourcesToCreate" in call["variables"]["collection"]


def test_a_collection_that_a_rule_sorts_is_not_sorted_by_hand(here: Desk):
    here.peer.put(Collection={"id": COLLECTION, "sortOrder": "PRICE_ASC"})
    change = here.settled(here.ask("collection.order", {"collection_id": "8001", "product_ids": ["5002"]}))
    assert (change.state, change.reason_code) == ("refused", "sorted")


def test_several_products_are_put_first_in_the_order_asked_for(here: Desk):
    here.made("collection.order", {"collection_id": "8001", "product_ids": ["5003", "5002"]})
    assert here.peer.get(COLLECTION)["productIds"] == [THIRD, OTHER, PRODUCT]


def test_a_deleted_page_comes_back_at_its_address(here: Desk):
    was = pages(here.peer)
    change = here.made("page.delete", {"page_id": "4001"})
    assert here.undo(change.id).state == "undone"
    assert pages(here.peer) == was
    assert (here.change(change.id).after or {})["page_id"] != "4001"


def test_an_unknown_publication_is_refused_with_those_there_are(here: Desk):
    given = {"product_id": "5001", "publication": "Nowhere", "published": True}
    change = here.settled(here.ask("publication.set", given))
    assert change.state == "refused"
    assert "Online Store, Point of Sale" in (change.reason or "")


def test_a_banner_that_exists_is_changed_and_gets_its_old_words_back(here: Desk):
    first = here.made("home.banner", {"title": "Spring", "text": "Hello"})
    second = here.made("home.banner", {"title": "Summer", "visible": False})
    assert here.undo(first.id).reason_code == "changed"
    assert here.undo(second.id).state == "undone"
    (banner,) = here.peer.all("Metaobject")
    assert (banner["values"]["title"], banner["values"]["text"]) == ("Spring", "Hello")
    assert len(here.peer.all("MetaobjectDefinition")) == 1


# -- metafields -----------------------------------------------------------------------------------------------------


def test_metafields_are_set_and_removed_together_and_come_back(here: Desk):
    common = {"ownerId": CUSTOMER, "namespace": "opagent", "type": "single_line_text_field"}
    here.peer.put(Metafield=[{**common, "key": "old", "value": "1"}, {**common, "key": "kept", "value": "2"}])
    given = [{"key": "old", "value": None}, {"key": "kept", "value": "3"}, {"key": "new", "value": "4"}]
    change = here.made("customer.metafields", {"customer_id": "7001", "metafields": given})

    def values() -> dict[str, str]:
        return {one["key"]: one["value"] for one in here.peer.metafields(CUSTOMER)}

    assert values() == {"kept": "3", "new": "4"}
    assert here.undo(change.id).state == "undone"
    assert values() == {"old": "1", "kept": "2"}


def test_a_compare_and_set_that_loses_is_a_conflict(here: Desk):
    change_id = here.ask("customer.vip", {"customer_id": "7001", "vip": True})
    here.settled(change_id)
    stale = [{"field": ["metafields", "0"], "code": "STALE_OBJECT", "message": "has been updated since"}]
    here.peer.fault("user_errors", "metafieldsSet", errors=stale)
    assert here.apply(change_id).reason_code == "changed"


def test_a_change_refused_half_way_is_put_back(here: Desk):
    change_id = here.ask("customer.tags", {"customer_id": "7001", "add": ["vip"], "remove": ["sleeping"]})
    here.settled(change_id)
    here.peer.fault("user_errors", "tagsRemove", errors=[{"field": ["tags"], "message": "no"}])
    assert here.apply(change_id).state == "refused"
    assert here.peer.get(CUSTOMER)["tags"] == ["kept", "sleeping"]


# -- connection -----------------------------------------------------------------------------------------------------


def test_a_revoked_token_stops_changes_and_loses_none(here: Desk):
    change_id = here.ask("customer.vip", {"customer_id": "7001", "vip": True})
    here.settled(change_id)
    here.peer.fault("revoke", "metafieldsSet")
    assert here.apply(change_id).state == "applying"
    with for_shop(here.engine, here.shop.id) as session:
        assert connection.problem_of(session, here.shop.id, "shopify") == "unauthorized"
        assert changes.due(session, here.shop.id, at=here.clock.now() + timedelta(days=9)) == []
    waiting = here.ask("customer.vip", {"customer_id": "7001", "vip": False})
    assert here.work() == 0
    here.peer.grant(scopes=SCOPES)
    here.peer.grant("shpat_peer", revoked=False)
    with for_shop(here.engine, here.shop.id) as session:
        connection.clear(session, here.shop, "shopify", at=here.clock.now())
    here.later(timedelta(minutes=11))
    assert here.settled(change_id).state == "applied"
    assert here.settled(waiting).state == "previewed"
    assert len(here.peer.metafields(CUSTOMER)) == 1


def test_a_missing_scope_lets_its_change_wait_and_no_other(here: Desk):
    here.peer.grant(scopes=["write_customers"])
    change_id = here.ask("page.update", {"page_id": "4001", "title": "New"}, apply=True)
    other = here.made("customer.vip", {"customer_id": "7001", "vip": True})
    assert other.state == "applied"
    waiting = here.change(change_id)
    assert (waiting.state, waiting.reason_code) == ("asked", "scope_missing")
    assert "access scope" in (waiting.reason or "")
    here.peer.grant(scopes=SCOPES)
    assert here.settled(change_id).state == "applied"


def test_a_shop_that_is_down_is_asked_again(here: Desk, monkeypatch):
    """The client itself waits half a minute of real time: here it has none."""
    monkeypatch.setitem(Shopify.query.__kwdefaults__, "patience", timedelta(0))
    change_id = here.ask("customer.vip", {"customer_id": "7001", "vip": True}, apply=True)
    here.peer.fault("status", "MetafieldsOf", times=3, status=503)
    here.work()
    waiting = here.change(change_id)
    assert (waiting.state, waiting.reason_code) == ("asked", "unreachable")
    assert here.settled(change_id).state == "applied"


def test_what_was_lost_on_the_way_is_found_by_the_sweep(here: Desk):
    change_id = here.ask("customer.vip", {"customer_id": "7001", "vip": True}, apply=True)
    here.run("DELETE FROM outbox WHERE shop_id = :shop")
    with for_shop(here.engine, here.shop.id) as session:
        wakeups.ring_due(session, here.shop, at=here.clock.now())
    rung = here.run("SELECT topic, key FROM outbox WHERE shop_id = :shop AND topic = 'storefront.change'")
    assert [(row.topic, row.key) for row in rung] == [("storefront.change", "")]
    assert make_changes(here.engine, here.shop.id, clock=here.clock) == 2
    assert here.change(change_id).state == "applied"
    assert make_changes(here.engine, here.shop.id, clock=here.clock) == 0


def test_a_connection_that_cannot_be_used_puts_changes_off_and_says_why(here: Desk):
    change_id = here.ask("customer.vip", {"customer_id": "7001", "vip": True}, apply=True)
    here.run("UPDATE integrations SET base_url = 'https://example.com' WHERE shop_id = :shop")
    assert make_changes(here.engine, here.shop.id, clock=here.clock) == 0
    waiting = here.change(change_id)
    assert waiting.state == "asked"
    assert "sandbox" in (waiting.reason or "")
    with for_shop(here.engine, here.shop.id) as session:
        assert changes.due(session, here.shop.id, at=here.clock.now()) == []
    here.run("UPDATE integrations SET base_url = :url WHERE shop_id = :shop", url=here.peer.base_url)
    with for_shop(here.engine, here.shop.id) as session:
        connection.wake_waiting(session, here.shop.id, "shopify", at=here.clock.now())
    assert make_changes(here.engine, here.shop.id, clock=here.clock) == 2
    assert here.change(change_id).state == "applied"


def test_a_change_that_nothing_was_done_of_can_be_cancelled(here: Desk):
    given = {"customer_id": "7001", "vip": True}
    asked, previewed, applied = (here.ask("customer.vip", given) for _ in range(3))

    def cancel(change_id: Any) -> str:
        with for_shop(here.engine, here.shop.id) as session:
            return changes.cancel(session, here.shop, change_id, at=here.clock.now(), actor=ACTOR).state

    assert cancel(asked) == "cancelled"
    here.settled(previewed)
    assert cancel(previewed) == "cancelled"
    here.settled(applied)
    here.apply(applied)
    with pytest.raises(Conflict):
        cancel(applied)
    assert here.settled(asked).state == "cancelled"


def test_one_change_of_a_thing_at_a_time(here: Desk):
    first = here.ask("product.text", {"product_id": "5001", "title": "One"}, apply=True)
    second = here.ask("product.text", {"product_id": "5001", "title": "Two"}, apply=True)
    here.run(
        "UPDATE shop_changes SET lease_until = :until WHERE shop_id = :shop AND id = :id",
        until=here.clock.now() + timedelta(minutes=1), id=first,
    )  # fmt: skip
    assert here.work() == 0
    here.later(timedelta(minutes=2))
    here.settled(first)
    here.settled(second)
    states = {here.change(first).state, here.change(second).state}
    assert "applied" in states
    assert here.peer.get(PRODUCT)["title"] in ("One", "Two")


def test_html_that_the_shop_laid_out_anew_is_still_its_own(here: Desk):
    change = here.made("product.text", {"product_id": "5001", "description_html": "<p>A</p>\n<p>B</p>"})
    here.peer.put(Product={"id": PRODUCT, "descriptionHtml": "<p>A</p><p>B</p>"})
    assert here.undo(change.id).state == "undone"
    assert here.peer.get(PRODUCT)["descriptionHtml"] == "<p>Linen</p>"


def test_nothing_to_do_is_said_and_done_without_a_call(here: Desk):
    change_id = here.ask("product.inventory_policy", {"product_id": "5001", "policy": "deny"})
    assert any("nothing changes" in warning for warning in here.settled(change_id).warnings)
    assert here.apply(change_id).state == "applied"
    assert here.peer.calls("productVariantsBulkUpdate") == []


def test_a_deleted_product_makes_the_undo_say_so(here: Desk):
    change = here.made("product.price", price("19.00"))
    here.peer.graphql(f'mutation {{ productDelete(input: {{id: "{PRODUCT}"}}) {{ userErrors {{ message }} }} }}')
    assert here.peer.get(VARIANT) is None
    refused = here.undo(change.id)
    assert (refused.state, refused.reason_code) == ("applied", "not_found")


def test_a_forgotten_customers_change_is_emptied_and_goes_no_further(here: Desk):
    from operation_agent.privacy.holdings import HOLDINGS

    blank = next(one.blank for one in HOLDINGS if one.table == "shop_changes")
    change_id = here.ask("customer.agent", {"customer_id": "7001", "agent": "Li Wei"}, apply=True)
    here.run(f"UPDATE shop_changes SET {blank} WHERE shop_id = :shop")  # noqa: S608 - a text of ours
    assert here.settled(change_id).state == "cancelled"
    rows = here.run("SELECT to_jsonb(c)::text AS row FROM shop_changes c WHERE shop_id = :shop")
    rows += here.run("SELECT detail::text AS row FROM audit_log WHERE shop_id = :shop AND verb LIKE 'shop_change.%'")
    assert not any("Li Wei" in one.row for one in rows)
    assert here.peer.metafields(CUSTOMER) == []
