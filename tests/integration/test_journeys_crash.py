"""Workers that die or meet on the same runs: nobody is skipped, nothing is planned twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from .journeying import DAY, T0, Walks, mail, rule, strategy, wait, walks
from .sending import ROOT

pytestmark = pytest.mark.integration

PEOPLE = [f"p{number}" for number in range(20)]
BUYERS = PEOPLE[::4]
FORK = {"if": {"field": "customer.orders", "op": "gte", "value": 1}, "then": [mail("buyer")], "else": [mail("other")]}
ARM = [mail("hello"), wait("page.viewed", "P1D", then=[mail("seen")], otherwise=[mail("unseen")]), FORK]
MISSED = {"missed": {"event": ["cart.added"], "goal": ["checkout.started"], "within": "P1D"}, "frequency": "every_time"}
LATER = T0 + 30 * DAY
CRASHES = [("led", 1), ("committed", 2), ("led", 2), ("committed", 1), ("led", 1), ("committed", 50)]


def everybody(engine, shop_id) -> Walks:
    rules = [rule(ARM), {**rule([mail("missed")], when=MISSED), "key": "missed"}]
    here = walks(engine, shop_id, strategy(rules, holdout=0.3), *PEOPLE)
    here.observe(*(here.event(who, "cart.added", T0) for who in PEOPLE))
    here.observe(
        *(
            here.event(who, "order.paid", T0 + timedelta(hours=number + 1), order_id=who, total_minor=100, total=1)
            for number, who in enumerate(BUYERS)
        )
    )
    return here


def check(here: Walks) -> None:
    states = here.run("SELECT state, count(*) FROM runs WHERE shop_id = :shop GROUP BY state")
    assert [tuple(row) for row in states] == [("finished", len(PEOPLE))]
    assert here.run("SELECT 1 FROM watches WHERE shop_id = :shop") == []
    for who in PEOPLE:
        last = "buyer" if who in BUYERS else "other"
        assert sorted(subject for subject, _ in here.actions(who)) == sorted(["hello", "unseen", last, "missed"])
    spent = here.run("SELECT count(*) FROM actions WHERE shop_id = :shop")[0].count
    assert spent == 4 * len(PEOPLE)


def test_a_worker_killed_anywhere_neither_skips_nor_repeats_anybody(engine, database_url, shop_id):
    here = everybody(engine, shop_id)
    codes = Counter()
    for step, count in CRASHES:
        command = [sys.executable, "-m", "tests.integration.crashing_journeys", database_url, str(shop_id)]
        command += [LATER.isoformat(), step, str(count)]
        codes[subprocess.run(command, cwd=ROOT, timeout=60, check=False).returncode] += 1
    assert codes == {-signal.SIGKILL: len(CRASHES) - 1, 0: 1}
    check(here)


def test_workers_that_meet_share_the_runs(engine, shop_id):
    here = everybody(engine, shop_id)

    def work(_worker: int) -> int:
        total = 0
        for _ in range(40):
            done = here.advance(LATER, limit=2)
            total += done.runs
        return total

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(work, range(3))) == len(PEOPLE)
    check(here)
