"""The outbox reaches the broker: nothing is lost when the broker is away, nothing is held up while it hangs."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psycopg
import pytest
from redis import Redis
from sqlalchemy import text

from operation_agent.kit.clock import SYSTEM
from operation_agent.store import outbox
from operation_agent.store.session import for_shop, for_system
from tests.integration.sending import ROOT

pytestmark = pytest.mark.integration


@pytest.fixture
def broker(redis_server) -> Iterator[Redis]:
    client = Redis.from_url(redis_server.url)
    client.flushall()
    yield client
    client.flushall()
    client.close()


@pytest.fixture
def start_relay(database_url, redis_server):
    running: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "OPAGENT_DATABASE_URL": database_url,
            "OPAGENT_BROKER_URL": redis_server.broker_url,
        }
        process = subprocess.Popen([sys.executable, "-m", "workers.relay"], cwd=ROOT, env=environment)
        running.append(process)
        return process

    yield start
    for process in running:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(timeout=10)


def published(broker: Redis) -> list[tuple[str, str, str]]:
    """(task, shop, key) of everything in the queues."""
    found = []
    for queue in ("events", "actions", "jobs"):
        for raw in broker.lrange(queue, 0, -1):
            message = json.loads(raw)
            body = json.loads(base64.b64decode(message["body"]))
            found.append((message["headers"]["task"], *body[0]))
    return found


def pending(engine) -> int:
    with for_system(engine) as session:
        return session.execute(text("SELECT count(*) FROM outbox")).scalar_one()


def ring(engine, shop_id, *wake_ups: tuple[str, str]) -> None:
    with for_shop(engine, shop_id) as session:
        outbox.ring(session, shop_id, wake_ups, at=SYSTEM.now())


def until(condition, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_a_wake_up_reaches_its_queue_once_and_leaves_the_outbox(engine, shop_id, broker, start_relay):
    ring(engine, shop_id, ("events.process", "3"), ("actions.deliver", "email"), ("clustering.fit", ""))
    start_relay()
    assert until(lambda: pending(engine) == 0)
    shop = str(shop_id)
    assert sorted(published(broker)) == [
        ("actions.deliver", shop, "email"), ("clustering.fit", shop, ""), ("events.process", shop, "3"),
    ]  # fmt: skip


def test_notify_wakes_it_within_moments(engine, shop_id, broker, start_relay):
    start_relay()
    ring(engine, shop_id, ("events.process", "0"))
    assert until(lambda: published(broker))
    time.sleep(0.1)
    start = time.monotonic()
    ring(engine, shop_id, ("events.process", "1"))
    assert until(lambda: len(published(broker)) == 2)
    assert time.monotonic() - start < 0.8  # less than its own poll


def test_many_rings_of_one_key_are_spaced_out(engine, shop_id, broker, start_relay):
    start_relay()
    ring(engine, shop_id, ("events.process", "0"))
    assert until(lambda: published(broker))
    start = time.monotonic()
    rings = 0
    while time.monotonic() - start < 1.0:
        ring(engine, shop_id, ("events.process", "0"))
        rings += 1
    assert until(lambda: pending(engine) == 0)
    assert len(published(broker)) < min(rings, 40)


def test_nothing_is_lost_while_the_broker_is_away_and_no_writer_waits(
    engine, shop_id, redis_server, broker, start_relay
):
    start_relay()
    ring(engine, shop_id, ("events.process", "0"))
    assert until(lambda: pending(engine) == 0)
    redis_server.stop()
    try:
        start = time.monotonic()
        for key in range(8):
            ring(engine, shop_id, ("events.process", str(key)))
        assert time.monotonic() - start < 2
        time.sleep(1)
        assert pending(engine) == 8
    finally:
        redis_server.start()
    assert until(lambda: pending(engine) == 0, 15)
    assert {key for _, _, key in published(broker)} == {str(key) for key in range(8)}


def test_a_ring_between_publishing_and_deleting_is_published_again(engine, database_url, shop_id, broker, monkeypatch):
    """The row that was seen goes; the row as it is now stays."""
    from operation_agent.kit.settings import settings

    monkeypatch.setenv("OPAGENT_DATABASE_URL", database_url)
    monkeypatch.setenv("OPAGENT_BROKER_URL", "redis://unused")
    settings.cache_clear()
    from workers import relay

    ring(engine, shop_id, ("events.process", "5"))
    sent = []

    def send_task(topic, args, **_):
        sent.append(args)
        if len(sent) == 1:
            ring(engine, shop_id, ("events.process", "5"))

    monkeypatch.setattr(relay.app, "send_task", send_task)
    monkeypatch.setitem(relay.SPACING, "events.process", 0.0)
    try:
        with relay.connect() as connection:
            ours = relay.Relay(connection)
            ours.pass_on()
            assert pending(engine) == 1
            ours.pass_on()
            assert (pending(engine), len(sent)) == (0, 2)
    finally:
        settings.cache_clear()


def test_it_beats(engine, start_relay, database_url):
    start_relay()

    def beats() -> bool:
        with for_system(engine) as session:
            rows = session.execute(text("SELECT 1 FROM heartbeats WHERE component = 'relay'")).all()
        return bool(rows)

    assert until(beats)
    with psycopg.connect(database_url) as connection:  # the directory tables are shut to a session without scope
        assert connection.execute("SELECT count(*) FROM heartbeats").fetchone() == (0,)
