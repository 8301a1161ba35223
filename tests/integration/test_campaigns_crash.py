"""Workers on campaigns that are killed anywhere, and several at once: the same decisions as of one that nothing hit."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from operation_agent.kit.ids import new_id
from operation_agent.store.shops import create_shop
from tests.integration.test_campaigns_running import AT, COUPONS, DAY, Place

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.fixture
def places(engine):
    """Two shops that are alike."""

    def make() -> Place:
        shop = create_shop(
            engine, slug=f"c-{new_id().hex[-12:]}", name="c", currency="USD", sandbox=True, seed="the same"
        )
        place = Place(engine, shop.id)
        place.strategy("a", rules=2, rule=COUPONS, budget={"limit": "60"})
        place.strategy("b", caps=[{"channel": "email", "count": 1, "window": "P3D"}])
        place.people(range(60))
        place.wake(AT - 2 * DAY, AT)
        return place

    return make


def crash(database_url: str, shop_id: UUID, step: str, count: int) -> int:
    process = subprocess.run(
        [sys.executable, "-m", "tests.integration.crashing_campaigns", database_url, str(shop_id), step, str(count)],
        cwd=ROOT, check=False, timeout=120, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return process.returncode


def told(place: Place) -> dict[str, Any]:
    """Everything that came of it, in stable terms."""
    return {
        "decided": place.decided(),
        "actions": sorted(tuple(row) for row in place.run(
            "SELECT dedupe_key, state, held_out, reserved_minor FROM actions WHERE shop_id = :shop")),
        "budgets": [tuple(row) for row in place.run(
            "SELECT reserved_minor, spent_minor FROM budgets WHERE shop_id = :shop")],
        "assignments": place.run("SELECT count(*) FROM assignments WHERE shop_id = :shop")[0][0],
        "campaigns": [(row.due_at, row.state, row.reason) for row in place.campaigns()],
        "looked_at": place.run("SELECT sum(customers) FROM campaign_chunks WHERE shop_id = :shop")[0][0],
        "open": place.open_ticks(),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("step", "count"),
    [("preparing", 1), ("preparing", 2), ("claimed", 3), ("decided", 1), ("decided", 6), ("committed", 5)],
)
def test_a_kill_anywhere_neither_skips_nor_repeats_anyone(places, database_url, step, count):
    undisturbed, hit = places(), places()
    assert crash(database_url, undisturbed.shop_id, "never", 1) == 0
    assert crash(database_url, hit.shop_id, step, count) == -signal.SIGKILL
    assert told(hit) != told(undisturbed)
    crash(database_url, hit.shop_id, "decided", 2)  # and again, further on
    assert crash(database_url, hit.shop_id, "never", 1) == 0
    assert told(hit) == told(undisturbed)
    assert len(told(hit)["decided"]) > 100


def test_two_workers_share_a_campaign_and_do_what_one_does(places, database_url):
    alone, shared = places(), places()
    assert crash(database_url, alone.shop_id, "never", 1) == 0
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda _: crash(database_url, shared.shop_id, "never", 1), range(3))) == [0, 0, 0]
    shared.work()
    assert told(shared) == told(alone)
    assert AT - timedelta(days=1) in {row.due_at for row in shared.campaigns()}
