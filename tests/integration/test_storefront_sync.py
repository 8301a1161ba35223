"""Syncs against the Shopify of the tests: asked, exported in bulk, streamed, stored; broken off in every way."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from integrations.registry import STOREFRONTS
from operation_agent import agent
from operation_agent.customers.identity import Resolved
from operation_agent.events.event import PAST, Event
from operation_agent.kit.errors import Conflict, NotFound, Rejected
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from operation_agent.storefront import loading, steps, storing, sync
from operation_agent.strategies import calendar
from tests.integration.syncing import NOW, Stage, stage
from tests.shopify_nodes import line_node, money, order_node, orders
from tests.shopify_peer.peer import Peer
from workers.storefront import ask_by_schedule

pytestmark = pytest.mark.integration


@pytest.fixture
def shop(engine, shopify_peer: Peer) -> Stage:
    return stage(engine, shopify_peer.base_url)


def put_lines(peer: Peer, lines: list[dict[str, Any]], root: str = "orders") -> None:
    peer.settings(bulk={"lines": {root: lines}})


# -- what is stored -----------------------------------------------------------------------------------------------


def test_a_first_load_stores_every_order_once_and_tells_how_many(shop: Stage, shopify_peer: Peer):
    put_lines(shopify_peer, orders(7))
    done = shop.sync()
    assert (done.state, done.objects_done, done.missing, done.stale, done.refused) == ("done", 7, 7, 0, 0)
    assert done.bytes_done == done.bytes_total
    assert len(shop.sources("order.created")) == len(shop.sources("order.paid")) == 7
    assert shop.sources("order.updated") == []
    shop.process()
    assert shop.scalar("SELECT count(*) FROM orders WHERE shop_id = :shop") == 7
    again = shop.sync()
    assert (again.objects_done, again.missing, again.stale, again.events) == (7, 0, 0, 0)
    assert len(shop.sources()) == 14


def test_history_that_is_told_late_counts_in_what_is_known_of_a_customer(engine, shopify_peer):
    """A customer's record is younger than their orders, and a job may have looked at everybody in between."""
    shop = stage(engine, shopify_peer.base_url)
    old, young = "2026-06-01T08:00:00Z", "2026-11-01T08:00:00Z"
    shopify_peer.put(
        Customer={"id": 7001, "firstName": "Ann", "email": "ann@example.com", "createdAt": old, "updatedAt": young},
        Order=[
            {"id": 9000 + n, "name": f"#{n}", "createdAt": old, "processedAt": old, "updatedAt": old,
             "customer": "gid://shopify/Customer/7001", "displayFinancialStatus": "PAID", "totalPriceSet": "19.00",
             "currentTotalPriceSet": "19.00", "lineItems": []}
            for n in range(3)
        ],
    )  # fmt: skip
    shop.sync("customers")
    shop.process()
    shop.sync("orders")
    shop.process()
    (known,) = shop.run("SELECT orders, revenue_minor FROM customer_features WHERE shop_id = :shop")
    assert tuple(known) == (3, 5700)


def test_what_changed_is_told_and_the_rest_is_left_alone(shop: Stage, shopify_peer: Peer):
    put_lines(shopify_peer, orders(5))
    shop.sync()
    shop.process()
    changed = order_node(2, updatedAt="2026-04-01T00:00:00Z", totalPriceSet=money("12.00"))
    put_lines(shopify_peer, [*orders(1), changed, line_node(2, 10_002), *orders(4, first=3)])
    done = shop.sync(mode="reconcile")
    assert (done.objects_done, done.missing, done.stale, done.events) == (6, 1, 1, 3)
    assert done.summary() == "missing 1, stale 1"
    shop.process()
    total = shop.scalar("SELECT total_minor FROM orders WHERE shop_id = :shop AND source_order_id = '2'")
    assert total == 1200


def test_an_order_that_waits_in_the_queue_and_changed_since_is_not_lost(shop: Stage, shopify_peer: Peer):
    put_lines(shopify_peer, orders(1))
    shop.sync()  # and not processed: nobody knows the order yet
    changed = order_node(1, updatedAt="2026-04-01T00:00:00Z", totalPriceSet=money("12.00"))
    put_lines(shopify_peer, [changed, line_node(1, 10_001)])
    done = shop.sync(mode="reconcile")
    assert (done.missing, done.stale, done.events) == (0, 1, 1)
    shop.process()
    assert shop.scalar("SELECT total_minor FROM orders WHERE shop_id = :shop") == 1200


def test_refused_objects_are_counted_and_the_first_kept_with_their_reasons(shop: Stage, shopify_peer: Peer):
    strange = [order_node(number, currencyCode="EUR") for number in range(100, 160)]
    put_lines(shopify_peer, [*orders(2), *strange, *orders(1, first=3)])
    done = shop.sync()
    assert (done.state, done.objects_done, done.missing, done.refused) == ("done", 63, 3, 60)
    assert len(done.first_refusals) == 50
    assert done.first_refusals[0] == {
        "key": "gid://shopify/Order/100", "reason": "the amount is in 'EUR' and the shop's currency is USD",
    }  # fmt: skip


def test_what_the_database_cannot_hold_is_refused_and_its_neighbours_are_stored(
    shop: Stage, shopify_peer: Peer, monkeypatch
):
    real = storing.store

    def store(session, shop_, sync_, batch):
        if any(one.key == "3" and not one.refused for one in batch):
            session.execute(text("SELECT CAST('9999999999' AS text)::integer"))
        return real(session, shop_, sync_, batch)

    monkeypatch.setattr(storing, "store", store)
    put_lines(shopify_peer, orders(6))
    done = shop.sync()
    assert (done.state, done.objects_done, done.missing, done.refused) == ("done", 6, 5, 1)
    (refusal,) = done.first_refusals
    assert refusal["key"] == "3" and "out of range for type integer" in refusal["reason"]


def test_a_mistake_of_ours_is_seen_at_the_sync_and_ends_it(shop: Stage, shopify_peer: Peer, monkeypatch):
    def store(*_):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(storing, "store", store)
    put_lines(shopify_peer, orders(2))
    asked = shop.ask()
    for _ in range(steps.MOST_ATTEMPTS + 3):
        with suppress(ZeroDivisionError):
            shop.task()
    seen = shop.get(asked.id)
    assert seen.state == "failed" and "ZeroDivisionError: oops" in (seen.error or "")


def test_refunds_and_parcels_come_with_their_orders(shop: Stage, shopify_peer: Peer):
    refund = {"id": "gid://shopify/Refund/8", "processedAt": "2026-03-05T00:00:00Z", "totalRefundedSet": money("5.00")}
    parcel = {
        "id": "gid://shopify/Fulfillment/9", "status": "SUCCESS", "displayStatus": "DELIVERED",
        "createdAt": "2026-03-03T00:00:00Z", "updatedAt": "2026-03-04T00:00:00Z",
        "trackingInfo": [{"company": "UPS", "number": "1Z"}],
    }  # fmt: skip
    put_lines(shopify_peer, orders(1, refunds=[refund], fulfillments=[parcel], displayFulfillmentStatus="FULFILLED"))
    shop.sync()
    shop.process()
    assert shop.scalar("SELECT refunded_minor FROM orders WHERE shop_id = :shop") == 500
    rows = shop.run("SELECT source_order_id, shipment_status, tracking_numbers FROM fulfillments WHERE shop_id = :shop")
    assert rows == [("1", "delivered", ["1Z"])]
    assert shop.sources("order.fulfilled") == ["order.fulfilled:1"]


def test_everything_a_shop_has_is_mirrored_from_its_own_exports(shop: Stage, shopify_peer: Peer):
    at = "2026-05-01T10:00:00Z"
    shopify_peer.put(
        Product={
            "id": 5, "title": "Tea", "handle": "tea", "status": "ACTIVE", "tags": ["green"], "createdAt": at,
            "seo": {"title": "Green tea", "description": "Leaves"},
            "variants": [{"id": 6, "title": "100 g", "sku": "T1", "price": "9.50", "inventoryQuantity": 4}],
        },
        Customer={
            "id": 7001, "firstName": "Ann", "email": "ann@example.com", "createdAt": at, "tags": ["vip"],
            "emailMarketingConsent": {"marketingState": "SUBSCRIBED", "consentUpdatedAt": at},
        },
    )  # fmt: skip
    for kind in ("products", "customers", "inventory", "collections", "discounts"):
        done = shop.sync(kind)
        assert done.state == "done" and not done.refused, (kind, done.error, done.first_refusals)
    (product,) = shop.run("SELECT title, status, tags, seo_title FROM products WHERE shop_id = :shop")
    assert product == ("Tea", "active", ["green"], "Green tea")
    (variant,) = shop.run("SELECT product_id, sku, price_minor FROM variants WHERE shop_id = :shop")
    assert variant == ("5", "T1", 950)
    shop.process()
    (customer,) = shop.run("SELECT shopify_id, email, first_name FROM customers WHERE shop_id = :shop")
    assert customer == ("7001", "ann@example.com", "Ann")
    consent = shop.run("SELECT channel, state FROM consents WHERE shop_id = :shop")
    assert consent == [("email", "subscribed")]
    again = shop.sync("products", "reconcile")
    assert (again.missing, again.stale) == (0, 0)
    again = shop.sync("customers", "reconcile")
    assert (again.missing, again.stale, again.events) == (0, 0, 0)


def test_an_order_as_shopify_itself_exports_it_is_read(shop: Stage, shopify_peer: Peer):
    """The peer answers by the published schema, from an order that was put there and no line of ours."""
    shopify_peer.put(
        Customer={"id": 7001, "email": "ann@example.com", "phone": "+16135550142"},
        Order={
            "id": 12, "name": "#12", "createdAt": "2026-05-01T10:00:00Z", "processedAt": "2026-05-01T10:00:00Z",
            "displayFinancialStatus": "PAID", "displayFulfillmentStatus": "UNFULFILLED", "test": False,
            "currencyCode": "USD", "presentmentCurrencyCode": "USD", "totalPriceSet": "24.00",
            "totalDiscountsSet": "1.00", "totalTaxSet": "2.00", "totalShippingPriceSet": "5.00", "sourceName": "web",
            "customer": "gid://shopify/Customer/7001", "discountCodes": ["SPRING"], "refunds": [], "fulfillments": [],
            "cancelledAt": None, "cartToken": None, "checkoutToken": None,
            "lineItems": [
                {"__typename": "LineItem", "id": "gid://shopify/LineItem/30", "title": "Tea", "sku": "T1",
                 "quantity": 2, "currentQuantity": 2, "product": None, "variant": None, "originalUnitPriceSet": "10.00",
                 "discountAllocations": []},
            ],
        },
    )  # fmt: skip
    done = shop.sync()
    assert (done.state, done.objects_done, done.missing) == ("done", 1, 1), (done.error, done.first_refusals)
    shop.process()
    (order,) = shop.run(
        "SELECT source_order_id, total_minor, discount_codes, quantity FROM orders WHERE shop_id = :shop"
    )
    assert order == ("12", 2400, ["SPRING"], 2)
    assert shop.run("SELECT shopify_id, email FROM customers WHERE shop_id = :shop") == [("7001", "ann@example.com")]


def test_what_has_left_a_product_is_gone_after_the_next_load(shop: Stage, shopify_peer: Peer):
    def product(at: str, *variants: int) -> list[dict[str, Any]]:
        return [
            {"id": "gid://shopify/Product/5", "title": "Tea", "status": "ACTIVE", "tags": [], "updatedAt": at},
            *({"id": f"gid://shopify/ProductVariant/{one}", "title": str(one), "price": "1.00", "updatedAt": at,
               "__parentId": "gid://shopify/Product/5"} for one in variants),
        ]  # fmt: skip

    put_lines(shopify_peer, product("2026-05-01T00:00:00Z", 1, 2), "products")
    assert shop.sync("products").tellings == 4
    put_lines(shopify_peer, product("2026-05-02T00:00:00Z", 2, 3), "products")
    done = shop.sync("products", "incremental")
    assert (done.missing, done.stale) == (0, 1)
    rows = shop.run("SELECT variant_id, deleted_at IS NULL FROM variants WHERE shop_id = :shop ORDER BY variant_id")
    assert rows == [("1", False), ("2", True), ("3", True)]


# -- what goes wrong ----------------------------------------------------------------------------------------------


def test_a_download_that_ends_early_again_and_again_is_read_on_from_the_last_object(
    shop: Stage, shopify_peer: Peer, monkeypatch
):
    monkeypatch.setattr(loading, "BATCH", 40)
    put_lines(shopify_peer, orders(400))
    shopify_peer.fault("truncate", "/bulk/", times=6, bytes=60_000)
    done = shop.sync()
    assert (done.state, done.objects_done, done.missing) == ("done", 400, 400)
    assert len(shop.sources("order.paid")) == 400
    asked = [one["range"] for one in shopify_peer.calls() if one["path"].startswith("/bulk/")]
    assert len(asked) >= 5 and asked[0] is None and all(one for one in asked[1:])
    starts = [int(one.removeprefix("bytes=").rstrip("-")) for one in asked[1:]]
    assert starts == sorted(set(starts))


def test_a_download_that_never_gets_on_fails_in_the_end_with_what_to_do(shop: Stage, shopify_peer: Peer):
    put_lines(shopify_peer, orders(50))
    shopify_peer.fault("truncate", "/bulk/", times=None, bytes=10)
    done = shop.sync()
    assert done.state == "failed" and done.error_code == "unreachable"
    assert "ask for the sync again" in (done.error or "")
    assert len([one for one in shopify_peer.calls() if one["path"].startswith("/bulk/")]) == steps.MOST_ATTEMPTS


def test_an_address_that_expired_is_asked_for_anew(shop: Stage, shopify_peer: Peer):
    put_lines(shopify_peer, orders(9))
    shopify_peer.fault("expire", "/bulk/", times=2)
    done = shop.sync()
    assert (done.state, done.objects_done, done.exports) == ("done", 9, 1)
    assert len(shopify_peer.calls("bulkOperation")) >= 3


def test_an_export_that_shopify_gives_up_is_asked_for_again_a_few_times(shop: Stage, shopify_peer: Peer):
    put_lines(shopify_peer, orders(3))
    shopify_peer.settings(bulk={"fail": "TIMEOUT"})
    done = shop.sync()
    assert (done.state, done.exports) == ("failed", steps.MOST_EXPORTS)
    assert "took too long" in (done.error or "")
    shopify_peer.settings(bulk={"fail": None})
    assert shop.sync().state == "done"


def test_an_export_that_may_not_be_read_fails_at_once_and_says_what_to_grant(shop: Stage, shopify_peer: Peer):
    shopify_peer.settings(bulk={"fail": "ACCESS_DENIED"})
    done = shop.sync()
    assert (done.state, done.exports) == ("failed", 1)
    assert "grant the scopes" in (done.error or "")
    assert shop.scalar("SELECT problem FROM integrations WHERE shop_id = :shop") is None


def test_throttling_and_errors_of_the_api_only_take_longer(shop: Stage, shopify_peer: Peer):
    put_lines(shopify_peer, orders(3))
    shopify_peer.fault("throttle", "bulkOperationRunQuery", times=2)
    shopify_peer.fault("status", "bulkOperationRunQuery", times=1, status=503)
    shopify_peer.fault("drop_before", "bulkOperation", times=1)
    done = shop.sync()
    assert (done.state, done.objects_done) == ("done", 3)


def test_a_kind_waits_while_shopify_prepares_as_many_exports_as_it_will(shop: Stage, shopify_peer: Peer):
    put_lines(shopify_peer, orders(3))
    shopify_peer.settings(bulk={"polls": 3, "limit": 1})
    shop.ask("customers")
    shop.task("customers")
    waiting = shop.ask("orders")
    for _ in range(steps.MOST_ATTEMPTS + 2):  # however long: it is nobody's failure
        shop.task("orders")
    seen = shop.get(waiting.id)
    assert (seen.state, seen.attempts, seen.error_code) == ("asked", 0, "export_busy")
    shop.finish("customers")
    assert shop.finish("orders").state == "done"


def test_a_revoked_token_stops_the_connection_and_the_sync_waits_for_it(shop: Stage, shopify_peer: Peer):
    put_lines(shopify_peer, orders(3))
    shopify_peer.fault("revoke", "bulkOperationRunQuery")
    asked = shop.ask()
    shop.task()
    assert shop.scalar("SELECT problem FROM integrations WHERE shop_id = :shop") == "unauthorized"
    for _ in range(3):
        shop.task()
    assert len(shopify_peer.calls("bulkOperationRunQuery")) == 1
    with for_shop(shop.engine, shop.shop.id) as session:
        assert sync.due(session, shop.shop.id, at=shop.clock.now() + timedelta(days=1)) == []
        with pytest.raises(Conflict, match="connect the shop again"):
            sync.vendor_of(session, shop.shop.id)
    shopify_peer.grant()
    shop.run("UPDATE integrations SET problem = NULL WHERE shop_id = :shop")
    assert shop.finish().state == "done"
    assert shop.get(asked.id).missing == 3


# -- waiting, resuming, cancelling --------------------------------------------------------------------------------


def test_a_long_load_ends_its_task_and_goes_on_in_the_next(shop: Stage, shopify_peer: Peer, monkeypatch):
    monkeypatch.setattr(loading, "BATCH", 40)
    put_lines(shopify_peer, orders(100))
    asked = shop.ask()
    while shop.get(asked.id).state != "loading":
        shop.task()
    seen = []
    while shop.task(seconds=0.0):
        rung = shop.scalar(
            "SELECT count(*) FROM outbox WHERE shop_id = :shop AND topic = 'storefront.sync' AND key = 'orders'"
        )
        assert rung == 1
        seen.append(shop.get(asked.id))
    assert [one.bytes_done for one in seen] == sorted({one.bytes_done for one in seen})
    assert all(one.share is not None and 0 < one.share <= 1 for one in seen)
    assert shop.get(asked.id).objects_done == 100


def test_loading_waits_while_too_many_events_are_not_processed(shop: Stage, shopify_peer: Peer, monkeypatch):
    monkeypatch.setattr(loading, "BATCH", 40)
    monkeypatch.setattr(loading, "_LOOK_EVERY", 0.0)
    put_lines(shopify_peer, orders(100))
    asked = shop.ask()
    for _ in range(10):
        shop.task(most_queued=50)
    seen = shop.get(asked.id)
    assert seen.state == "loading" and seen.error_code == "queue_full" and seen.attempts == 0
    assert 50 < shop.scalar("SELECT count(*) FROM event_queue WHERE shop_id = :shop") <= 100
    while shop.get(asked.id).state == "loading":
        shop.process()
        shop.task(most_queued=50)
    done = shop.get(asked.id)
    assert (done.state, done.missing, done.error) == ("done", 100, None)


def test_two_workers_that_load_the_same_store_it_once(shop: Stage, shopify_peer: Peer):
    put_lines(shopify_peer, orders(4))
    asked = shop.ask()
    while shop.get(asked.id).state != "loading":
        shop.task()
    seen = shop.get(asked.id)
    shop.task()
    with for_shop(shop.engine, shop.shop.id) as session:  # who was thought dead comes back with what it had seen
        assert steps.got_on(session, shop.shop.id, seen, 10, steps.Counted(1), at=NOW) is None
        assert not steps.waits(session, shop.shop.id, seen, "x", "x", at=NOW, until=NOW)
    assert shop.get(asked.id).objects_done == 4


def test_a_cancelled_sync_tells_shopify_and_keeps_what_was_stored(shop: Stage, shopify_peer: Peer):
    shopify_peer.settings(bulk={"polls": 50})
    asked = shop.ask()
    shop.task()
    with for_shop(shop.engine, shop.shop.id) as session:
        sync.cancel(session, shop.shop, asked.id, at=shop.clock.now(), actor="user:ann")
    shop.task()
    done = shop.get(asked.id)
    assert (done.state, done.cancel_by) == ("cancelled", "user:ann")
    assert len(shopify_peer.calls("bulkOperationCancel")) == 1
    with for_shop(shop.engine, shop.shop.id) as session, pytest.raises(Conflict, match="cancelled already"):
        sync.cancel(session, shop.shop, asked.id, at=shop.clock.now(), actor="user:ann")
    shopify_peer.calls()
    shopify_peer.settings(bulk={"polls": 0, "limit": 5})
    assert shop.sync().state == "done"


def test_a_sync_is_cancelled_though_nobody_can_be_called(shop: Stage):
    shop.run("UPDATE integrations SET problem = 'uninstalled' WHERE shop_id = :shop")
    asked = shop.ask()
    with for_shop(shop.engine, shop.shop.id) as session:
        sync.cancel(session, shop.shop, asked.id, at=shop.clock.now(), actor="user:ann")
        assert sync.due(session, shop.shop.id, at=shop.clock.now()) == [(sync.TOPIC, "orders")]
    shop.task()
    assert shop.get(asked.id).state == "cancelled"


def test_the_sweep_finds_a_sync_whose_worker_died(shop: Stage, shopify_peer: Peer):
    asked = shop.ask()
    with for_shop(shop.engine, shop.shop.id) as session:
        assert sync.claim(session, shop.shop.id, "orders", at=shop.clock.now()) is not None
        assert sync.claim(session, shop.shop.id, "orders", at=shop.clock.now()) is None
        assert sync.due(session, shop.shop.id, at=shop.clock.now()) == []
        later = shop.clock.now() + sync.LEASE
        assert sync.due(session, shop.shop.id, at=later) == [(sync.TOPIC, "orders")]
    shop.later(sync.LEASE)
    assert shop.finish().id == asked.id


# -- asking -------------------------------------------------------------------------------------------------------


def test_one_sync_of_a_kind_at_a_time_and_since_when_it_asks(shop: Stage, shopify_peer: Peer):
    first = shop.ask(mode="reconcile")
    assert first.since == NOW - timedelta(days=3)
    assert shop.ask(mode="first").id == first.id
    shop.finish()
    started = shop.get(first.id).started_at
    assert started is not None
    later = shop.ask(mode="incremental")
    assert later.since == started - sync.OVERLAP
    shop.task()
    call = shopify_peer.calls("bulkOperationRunQuery")[-1]
    assert f"updated_at:>='{later.since:%Y-%m-%dT%H:%M:%SZ}'" in call["variables"]["query"]
    assert shop.ask("customers", "first").since is None


def test_what_cannot_be_asked_is_refused(shop: Stage):
    with for_shop(shop.engine, shop.shop.id) as session:
        with pytest.raises(Rejected, match="a kind is one of"):
            sync.ask(session, shop.shop, "shopify", ["gifts"], "first", at=NOW, actor="test")  # type: ignore[list-item]
        with pytest.raises(NotFound):
            sync.get(session, shop.shop.id, shop.shop.id)
        session.connection()
    shop.run("DELETE FROM integrations WHERE shop_id = :shop")
    with for_shop(shop.engine, shop.shop.id) as session, pytest.raises(Conflict, match="not connected"):
        sync.vendor_of(session, shop.shop.id)


def test_every_night_and_every_hour_all_kinds_are_asked_for_of_a_shop_that_works(shop: Stage):
    for topic, mode in (("storefront.reconcile", "reconcile"), ("storefront.refresh", "incremental")):
        assert topic in calendar.JOBS
        assert ask_by_schedule(shop.engine, shop.shop.id, topic, mode, clock=shop.clock) == 6  # type: ignore[arg-type]
    assert shop.scalar("SELECT count(*) FROM storefront_syncs WHERE shop_id = :shop") == 6
    shop.run("UPDATE integrations SET problem = 'unauthorized' WHERE shop_id = :shop")
    assert ask_by_schedule(shop.engine, shop.shop.id, "storefront.refresh", "incremental", clock=shop.clock) == 0


def test_hourly_syncs_are_forgotten_after_a_month_and_reconciliations_stay(shop: Stage):
    shop.sync(mode="incremental")
    shop.sync(mode="reconcile")
    shop.later(timedelta(days=31))
    ask_by_schedule(shop.engine, shop.shop.id, "storefront.reconcile", "reconcile", clock=shop.clock)
    rows = shop.run("SELECT mode FROM storefront_syncs WHERE shop_id = :shop AND state = 'done'")
    assert [row.mode for row in rows] == ["reconcile"]


def test_the_vendors_that_can_be_synced_are_those_with_a_storefront():
    assert set(sync.VENDORS) == set(STOREFRONTS)


# -- what it sets off ---------------------------------------------------------------------------------------------


def test_a_first_load_sets_nothing_off_though_its_orders_are_new(shop: Stage, shopify_peer: Peer, monkeypatch):
    """A reconciliation fills a gap, and what happened lately counts; a first load tells of the past."""
    just_now = "2026-11-20T11:59:00Z"
    recent = {"createdAt": just_now, "processedAt": just_now, "updatedAt": just_now}
    wanted = frozenset({"order.created", "order.paid"})
    set_off: list[str] = []
    triggers = agent._triggers

    def watching(shop_, events, people, _wanted, recorded_at):
        made = triggers(shop_, events, people, wanted, NOW)
        set_off.extend(one.event.source_id for one in made)
        return made if _wanted else []

    monkeypatch.setattr(agent, "_triggers", watching)
    put_lines(shopify_peer, orders(2, **recent))
    shop.sync(mode="first")
    assert all(row.context == {PAST: True} for row in shop.run("SELECT context FROM events WHERE shop_id = :shop"))
    shop.process()
    assert set_off == []
    put_lines(shopify_peer, [*orders(2, **recent), *orders(1, first=3, **recent), *orders(1, first=4)])
    shop.sync(mode="reconcile")
    shop.process()
    assert set(set_off) == {"order.created:3", "order.paid:3"}


def test_moments_of_which_only_history_is_told_move_nobody_into_a_group():
    """What came by webhook at the same moment counts; and another moment of the same customer does."""

    def event(at: datetime, **context: bool) -> Event:
        return Event(new_id(), "shopify", new_id().hex, "order.paid", at, NOW, {}, context=context)

    earlier = NOW - timedelta(hours=1)
    past, both, live = event(earlier, **{PAST: True}), event(NOW, **{PAST: True}), event(NOW)
    ann = Resolved(new_id(), new_id())
    people: agent.People = dict.fromkeys((past.id, both.id, live.id), ann)
    assert agent._told_as_history([past, both, live], people) == {(ann.customer_id, earlier)}
