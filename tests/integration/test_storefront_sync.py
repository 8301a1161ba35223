"""Syncs against the Shopify of the tests: asked, exported in bulk, streamed, stored; broken off in every way."""

from __future__ import annotations

from datetime import timedelta

import pytest

from operation_agent.kit.errors import Conflict
from operation_agent.store.session import for_shop
from operation_agent.storefront import sync
from tests.integration.syncing import Stage, stage
from tests.shopify_nodes import line_node, money, order_node, orders
from tests.shopify_peer.peer import Peer

pytestmark = pytest.mark.integration


@pytest.fixture
def shop(engine, shopify_peer: Peer) -> Stage:
    return stage(engine, shopify_peer.base_url)


def test_a_first_load_stores_every_order_once_and_tells_how_many(shop: Stage, shopify_peer: Peer):
    shopify_peer.settings(bulk={"lines": {"orders": orders(7)}})
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
