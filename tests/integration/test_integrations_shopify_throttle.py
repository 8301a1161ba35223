"""Shopify's cost allowance on a real Redis: shared by processes, by its clock, and no obstacle when Redis is away."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Iterator
from datetime import timedelta
from multiprocessing.queues import Queue
from pathlib import Path

import pytest
from redis import Redis

from embedded.redis import EmbeddedRedis
from integrations.shopify.errors import Throttled
from integrations.shopify.throttle import Account, SharedBucket
from operation_agent.kit.clock import monotonic
from operation_agent.kit.ids import new_id

pytestmark = pytest.mark.integration

NO_TIME = timedelta(0)


@pytest.fixture
def redis(redis_server: EmbeddedRedis) -> Iterator[Redis]:
    client = Redis.from_url(redis_server.url)
    yield client
    client.close()


@pytest.fixture
def host() -> str:
    return f"{new_id().hex}.myshopify.com"


def test_what_one_worker_takes_another_lacks(redis: Redis, host: str):
    waits: list[float] = []
    one, other = SharedBucket(redis, host, sleep=waits.append), SharedBucket(redis, host, sleep=waits.append)
    one.learn(maximum=1000, available=1000, restore_rate=50)
    one.take(900, patience=NO_TIME)
    with pytest.raises(Throttled) as refused:
        other.take(400, patience=timedelta(seconds=1))
    assert 5.5 < refused.value.retry_after.total_seconds() <= 6
    other.take(400, patience=timedelta(seconds=10))
    assert 5.5 < waits[0] <= 6
    other = SharedBucket(redis, f"other-{host}")
    other.learn(maximum=1000, available=1000, restore_rate=50)
    other.take(1000, patience=NO_TIME)


def test_what_the_api_tells_counts_less_what_others_hold(redis: Redis, host: str):
    bucket = SharedBucket(redis, host)
    mine, _theirs = bucket.take(100, patience=NO_TIME), bucket.take(300, patience=NO_TIME)
    bucket.learn(maximum=2000, available=1000, restore_rate=1, receipt=mine)
    with pytest.raises(Throttled) as refused:
        bucket.take(800, patience=NO_TIME)
    assert 98 <= refused.value.retry_after.total_seconds() <= 100


def test_redis_counts_as_the_account_of_one_process_does(redis: Redis, host: str):
    """A hundred calls on both, with the same corrections between: the same waits. At a thousandth of a point a second
    the time that the test itself takes does not matter."""
    waits: list[float] = []
    shared, account = SharedBucket(redis, host, sleep=waits.append), Account()
    shared.learn(maximum=500, available=500, restore_rate=0.001)
    account.learn(500, 500, 0.001, None, now=0)
    draw, forever = random.Random(4), timedelta(days=3650)
    for number in range(100):
        cost, available = draw.uniform(1, 60), draw.uniform(0, 600)
        waits.append(0.0)
        receipt = shared.take(cost, patience=forever)
        _, expected = account.take(cost, forever.total_seconds(), str(number), now=0)
        assert waits[-1] == pytest.approx(expected, abs=60)  # seconds: six hundredths of a point
        if number % 7 == 3:
            shared.learn(maximum=500, available=available, restore_rate=0.001, receipt=receipt)
            account.learn(500, available, 0.001, str(number), now=0)


def _spend(url: str, host: str, count: int, starts: Queue) -> None:
    client = Redis.from_url(url)
    bucket = SharedBucket(client, host)
    for _ in range(count):
        bucket.take(10, patience=timedelta(seconds=30))
        starts.put(monotonic())
    client.close()


def test_four_processes_together_do_not_go_over_the_allowance(redis_server: EmbeddedRedis, redis: Redis, host: str):
    """A bucket of 100 that restores 200 a second, 4 × 20 calls of 10: the last 700 points take 3.5 s."""
    SharedBucket(redis, host).learn(maximum=100, available=100, restore_rate=200)
    context = multiprocessing.get_context("spawn")
    starts: Queue = context.Queue()
    workers = [context.Process(target=_spend, args=(redis_server.url, host, 20, starts)) for _ in range(4)]
    for worker in workers:
        worker.start()
    at = sorted(starts.get(timeout=60) for _ in range(80))
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    for first in range(80):  # clocks of one machine; 50 ms for the way from Redis
        for last in range(first, 80):
            assert (last - first + 1) * 10 <= 100 + (at[last] - at[first] + 0.05) * 200


def test_without_redis_each_process_counts_for_itself(tmp_path: Path, host: str):
    bucket = SharedBucket(Redis.from_url(f"unix://{tmp_path}/none.sock"), host)
    began = monotonic()
    bucket.learn(maximum=1000, available=1000, restore_rate=50)
    receipt = bucket.take(900, patience=NO_TIME)
    with pytest.raises(Throttled):
        bucket.take(900, patience=NO_TIME)
    bucket.learn(maximum=2000, available=1900, restore_rate=100, receipt=receipt)
    bucket.take(1800, patience=NO_TIME)
    assert monotonic() - began < 2


def test_a_redis_that_lost_everything_holds_nothing_back_until_the_next_answer(redis: Redis, host: str):
    bucket = SharedBucket(redis, host)
    bucket.learn(maximum=1000, available=0, restore_rate=1)
    redis.delete(*redis.keys(f"opagent:shopify:{{{host}}}:*"))
    receipt = bucket.take(600, patience=NO_TIME)
    bucket.learn(maximum=1000, available=5, restore_rate=1, receipt=receipt)
    with pytest.raises(Throttled):
        bucket.take(100, patience=NO_TIME)
