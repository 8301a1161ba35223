"""kill -9 between any two steps, again and again: every message reaches the provider exactly once.

The worker is a process that kills itself at a chosen step; the provider is another process that also drops
connections before and after doing the work. Whatever was cut off is settled by asking, never by guessing.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta

import pytest

from operation_agent.actions import reconciler
from operation_agent.kit.clock import SYSTEM, FixedClock
from operation_agent.store.session import for_shop
from tests.integration.sending import LINKS, ROOT, Providers, Stage, channel, executor, providers, stage

pytestmark = pytest.mark.integration

MESSAGES = 60
CRASHES = [
    ("claimed", 1), ("calling", 1), ("calling", 9), ("answered", 1), ("recorded", 1), ("claimed", 2), ("calling", 25),
]  # fmt: skip


def crash(database_url: str, here: Stage, desk: Providers, step: str, count: int) -> int:
    command = [sys.executable, "-m", "tests.integration.crashing", database_url, str(here.shop.id), desk.url]
    return subprocess.run([*command, step, str(count)], cwd=ROOT, timeout=60, check=False).returncode


def settle(here: Stage, desk: Providers) -> None:
    """What the sweep and the reconciler do, a minute later: leases have run out, the provider is asked."""
    later = SYSTEM.now() + timedelta(minutes=1)
    with for_shop(here.engine, here.shop.id) as session:
        reconciler.expire_leases(session, here.shop.id, at=later)
    made = channel("sendgrid", desk.url)
    with ThreadPoolExecutor(8) as pool, closing(made):
        clock = FixedClock(later + timedelta(minutes=5))
        while reconciler.reconcile(here.engine, here.shop, "email", made, LINKS, pool, clock=clock):
            clock.advance(timedelta(hours=1))


def test_every_message_is_sent_exactly_once_through_kills_and_drops(engine, database_url, shop_id):
    here = stage(engine, shop_id)
    expected = {here.one(here.action(here.customer(), reserve=3)).dedupe_key for _ in range(MESSAGES)}
    with providers() as desk:
        for number, (step, count) in enumerate(CRASHES):
            kind = "drop_after" if number % 2 else "drop_before"
            desk.fault({"kind": kind, "path": "/v3/mail/send", "times": 3})
            code = crash(database_url, here, desk, step, count)
            assert code in (-signal.SIGKILL, 0)
            settle(here, desk)
        desk.fault()
        with executor(engine, here.shop, "sendgrid", desk.url) as ours:
            ours.deliver(seconds=10)
        settle(here, desk)
        with executor(engine, here.shop, "sendgrid", desk.url) as ours:
            ours.deliver(seconds=10)
        calls = Counter(desk.keys())
    assert here.states() == {"sent": MESSAGES}
    assert set(calls) == expected
    assert set(calls.values()) == {1}
    assert here.budget() == (0, 3 * MESSAGES)
    assert len(here.run("SELECT 1 FROM ledger WHERE shop_id = :shop")) == MESSAGES
    attempts = here.run("SELECT count(*) AS n FROM attempts WHERE shop_id = :shop AND outcome IS NULL")
    assert attempts[0].n == 0


@pytest.mark.parametrize("step", ["claimed", "calling", "answered", "recorded"])
def test_a_kill_at_each_step_neither_loses_nor_repeats(engine, database_url, shop_id, step):
    here = stage(engine, shop_id)
    action = here.action(here.customer())
    with providers() as desk:
        assert crash(database_url, here, desk, step, 1) == -signal.SIGKILL
        assert here.one(action).state == ("sent" if step == "recorded" else "sending")
        settle(here, desk)
        with executor(engine, here.shop, "sendgrid", desk.url) as ours:
            ours.deliver(seconds=5)
        assert desk.keys() == [here.one(action).dedupe_key]
    assert here.one(action).state == "sent"


def test_the_checker_sees_a_reaper_that_guesses(engine, database_url, shop_id):
    """The negative control: a lease that goes straight back to `ready` sends twice, and this test can tell."""
    here = stage(engine, shop_id)
    here.action(here.customer())
    with providers() as desk:
        crash(database_url, here, desk, "answered", 1)
        here.run("UPDATE actions SET state = 'ready' WHERE shop_id = :shop")
        with executor(engine, here.shop, "sendgrid", desk.url) as ours:
            ours.deliver(seconds=5)
        assert len(desk.keys()) == 2
