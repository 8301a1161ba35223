"""Shopify's client at the Shopify of the tests: what several processes spend, what it denies, what breaks off."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from datetime import timedelta
from multiprocessing.queues import Queue

import pytest
from redis import Redis

from embedded.redis import EmbeddedRedis
from integrations.shopify.client import Access, Shopify
from integrations.shopify.errors import ScopeMissing, Throttled, Unauthorized, Uncertain
from integrations.shopify.throttle import SharedBucket
from operation_agent.kit.clock import monotonic
from tests.shopify_peer.peer import Peer

pytestmark = pytest.mark.integration

CUSTOMER = "gid://shopify/Customer/7"
TAGS = {"id": CUSTOMER, "tags": ["a"]}


@pytest.fixture
def stocked(shopify_peer: Peer) -> Peer:
    shopify_peer.put(Customer={"id": 7, "email": "ada@example.com"})
    return shopify_peer


@pytest.fixture
def client(stocked: Peer) -> Iterator[Shopify]:
    client = Shopify(Access(stocked.base_url, stocked.token))
    yield client
    client.close()


def _tag(base_url: str, token: str, redis_url: str, times: int, told: Queue) -> None:
    """How many of so many changes Shopify throttled, which are made again until they are done."""
    redis = Redis.from_url(redis_url)
    access = Access(base_url, token)
    client = Shopify(access, bucket=SharedBucket(redis, access.host))
    throttled = 0
    for _ in range(times):
        while True:
            try:
                client.mutate("tags_add", TAGS, patience=timedelta(seconds=60))
                break
            except Throttled:
                throttled += 1
    client.close()
    redis.close()
    told.put(throttled)


def test_four_processes_spend_one_allowance_and_are_hardly_ever_throttled(stocked: Peer, redis_server: EmbeddedRedis):
    """120 changes of 10 points at a bucket of 100 that restores 150 a second: 1,100 points take at least 7.3 s."""
    stocked.settings(throttle={"maximum": 100, "restoreRate": 150, "available": 100})
    context = multiprocessing.get_context("spawn")
    told: Queue = context.Queue()
    given = (stocked.base_url, stocked.token, redis_server.url, 30, told)
    workers = [context.Process(target=_tag, args=given) for _ in range(4)]
    began = monotonic()
    for worker in workers:
        worker.start()
    throttled = sum(told.get(timeout=90) for _ in workers)
    for worker in workers:
        worker.join()
    took = monotonic() - began
    done = [call for call in stocked.calls("tagsAdd") if call["status"] == 200]
    assert len(done) == 120 + throttled
    assert throttled <= 6  # of 120: calls that overtake each other on their way
    assert took >= (120 * 10 - 100) / 150


def test_a_query_that_is_throttled_or_breaks_off_is_made_again(stocked: Peer, client: Shopify):
    stocked.fault("throttle", on="CurrentAppInstallation")
    stocked.fault("drop_after", on="CurrentAppInstallation")
    stocked.fault("status", on="CurrentAppInstallation", status=503)
    stocked.fault("garbage", on="CurrentAppInstallation")
    assert client.query("current_app_installation")["currentAppInstallation"]
    faults = [call.get("fault") for call in stocked.calls()]
    assert faults == ["throttle", "drop_after", "status", "garbage", None]


def test_a_change_that_was_made_and_not_answered_is_uncertain(stocked: Peer, client: Shopify):
    stocked.fault("drop_after", on="tagsAdd")
    with pytest.raises(Uncertain):
        client.mutate("tags_add", TAGS)
    assert stocked.get(CUSTOMER)["tags"] == ["a"]


def test_what_was_not_granted_is_named_and_a_revoked_token_is_told(stocked: Peer, client: Shopify):
    stocked.grant(scopes=["read_products"])
    with pytest.raises(ScopeMissing) as denied:
        client.mutate("tags_add", TAGS)
    assert "write_customers" in denied.value.scopes
    stocked.grant(revoked=True)
    with pytest.raises(Unauthorized):
        client.query("current_app_installation")
