"""A provider that refuses everything: what is ready stays ready, nobody is called in vain, and then it all goes out."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from operation_agent.actions import wakeups
from operation_agent.actions.channel import Delivery, NotSent, Outcome, Sent, Unknown
from operation_agent.actions.executor import Executor
from operation_agent.kit.clock import SYSTEM
from operation_agent.store import audit
from operation_agent.store.session import for_shop
from operation_agent.storefront import connection
from tests.integration.sending import LINKS, Stage, stage

pytestmark = pytest.mark.integration

OLD, NEW = b"sealed before", b"sealed after"


@dataclass
class Door:
    """A provider that lets `left` deliveries in, then none."""

    left: int
    problem: Any = "unauthorized"
    name: str = "shopify"
    capability: str = "queryable"
    settle: timedelta = timedelta(seconds=1)
    keys: list[str] = field(default_factory=list)
    calls: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, delivery: Delivery) -> Outcome:
        with self._lock:
            self.calls += 1
            if self.left <= 0:
                return NotSent("HTTP 401", permanent=False, problem=self.problem)
            self.left -= 1
            self.keys.append(delivery.dedupe_key)
            return Sent(f"ref-{delivery.dedupe_key}")

    def find(self, delivery: Delivery) -> Outcome:
        return Unknown("not asked")

    def close(self) -> None: ...


@pytest.fixture
def scene(engine, shop_id) -> Stage:
    made = stage(engine, shop_id)
    made.run(
        "INSERT INTO integrations (shop_id, vendor, channel, base_url, secrets, updated_at)"
        " VALUES (:shop, 'shopify', 'coupon', 'http://127.0.0.1:9', :secrets, :at)",
        secrets=OLD, at=SYSTEM.now(),
    )  # fmt: skip
    return made


def deliver(scene: Stage, door: Door, *, credentials: bytes | None = OLD, pool: int = 4) -> Executor:
    with ThreadPoolExecutor(pool) as threads:
        executor = Executor(scene.engine, scene.shop, "coupon", door, LINKS, threads, credentials=credentials)
        executor.deliver(seconds=20, limit=16)
    return executor


def clear(scene: Stage) -> bool:
    with for_shop(scene.engine, scene.shop.id) as session:
        return connection.clear(session, scene.shop, "shopify", at=SYSTEM.now(), actor="user:me")


def problem(scene: Stage) -> Any:
    return scene.run("SELECT problem FROM integrations WHERE shop_id = :shop")[0].problem


def told(scene: Stage) -> list[tuple[str, str]]:
    return [
        (row.verb, row.actor)
        for row in scene.run(
            "SELECT verb, actor FROM audit_log WHERE shop_id = :shop AND verb LIKE 'integ%' ORDER BY seq"
        )
    ]


@pytest.mark.parametrize("what", connection.PROBLEMS)
def test_the_rest_stays_ready_and_goes_out_once_when_it_works_again(scene, what):
    for _ in range(60):
        scene.action(scene.customer(), type="coupon")
    door = Door(20, what)
    deliver(scene, door)
    assert scene.states() == {"sent": 20, "ready": 40}
    assert problem(scene) == what
    calls = door.calls
    deliver(scene, door)
    deliver(scene, Door(99))
    assert (door.calls, scene.states()) == (calls, {"sent": 20, "ready": 40})
    assert told(scene) == [("integration.stopped", "system")]
    with for_shop(scene.engine, scene.shop.id) as session:
        assert ("actions.deliver", "coupon") not in wakeups._actions(session, scene.shop, SYSTEM.now())

    assert clear(scene)
    assert not clear(scene)
    with for_shop(scene.engine, scene.shop.id) as session:
        assert ("actions.deliver", "coupon") in wakeups._actions(session, scene.shop, SYSTEM.now())
    door.left = 99
    deliver(scene, door)
    assert scene.states() == {"sent": 60}
    assert len(door.keys) == len(set(door.keys)) == 60
    assert told(scene) == [("integration.stopped", "system"), ("integration.recovered", "user:me")]
    with for_shop(scene.engine, scene.shop.id) as session:
        assert audit.verify(session, scene.shop.id) is None


def test_an_action_is_never_given_up_for_it(scene):
    action_id = scene.action(scene.customer(), type="coupon")
    for _ in range(12):
        deliver(scene, Door(0))
        assert clear(scene)
    assert scene.one(action_id).state == "ready"
    deliver(scene, Door(1))
    assert scene.one(action_id).state == "sent"


def test_credentials_that_were_replaced_meanwhile_stop_nothing(scene):
    action_id = scene.action(scene.customer(), type="coupon")
    scene.run("UPDATE integrations SET secrets = :new WHERE shop_id = :shop", new=NEW)
    executor = deliver(scene, Door(0), credentials=OLD)
    assert executor.is_stopped  # by whoever still calls with the old ones
    assert (problem(scene), scene.one(action_id).state) == (None, "ready")
    deliver(scene, Door(1), credentials=NEW)
    assert scene.one(action_id).state == "sent"


def test_other_channels_and_shops_go_on(scene):
    scene.action(scene.customer(), type="coupon")
    scene.action(scene.customer(), type="email")
    deliver(scene, Door(0))
    with for_shop(scene.engine, scene.shop.id) as session:
        assert wakeups._actions(session, scene.shop, SYSTEM.now()) == [("actions.deliver", "email")]


def test_many_who_hear_of_it_at_once_tell_it_once(scene):
    def note(_: int) -> bool:
        with for_shop(scene.engine, scene.shop.id) as session:
            return connection.note_problem(session, scene.shop, "shopify", "unauthorized", "HTTP 401", at=SYSTEM.now())

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(note, range(16))) == [False] * 15 + [True]
    assert told(scene) == [("integration.stopped", "system")]


def test_a_switched_off_integration_is_not_looked_at(scene):
    scene.run("UPDATE integrations SET renew_at = :at, check_at = :at WHERE shop_id = :shop", at=scene.start)
    with for_shop(scene.engine, scene.shop.id) as session:
        assert {topic for topic, _ in connection.due(session, scene.shop.id, at=SYSTEM.now())} == {
            connection.RENEW, connection.CHECK
        }  # fmt: skip
        session.execute(text("UPDATE integrations SET enabled = false"))
        assert connection.due(session, scene.shop.id, at=SYSTEM.now()) == []
        assert connection.take_check(session, scene.shop.id, "shopify", at=SYSTEM.now()) is None
