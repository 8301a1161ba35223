"""A worker killed with SIGKILL anywhere in a sync: another goes on, every order is stored and counted once."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from tests.integration.syncing import stage
from tests.shopify_nodes import line_node, money, order_node
from tests.shopify_peer.peer import Peer

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
ORDERS = 60


def _lines():
    for number in range(1, ORDERS + 1):
        refund = {
            "id": f"gid://shopify/Refund/{number}", "processedAt": "2026-03-05T00:00:00Z",
            "totalRefundedSet": money("1.00"),
        }  # fmt: skip
        yield order_node(number, refunds=[refund] if number % 3 == 0 else [])
        yield line_node(number, 10_000 + number)


@pytest.mark.parametrize(
    ("step", "count"),
    [("asked", 1), ("checked", 1), ("read", 1), ("read", 4), ("stored", 1), ("stored", 3), ("committed", 1),
     ("committed", 5), ("ended", 1)],
)  # fmt: skip
def test_a_sync_that_was_killed_goes_on_and_stores_everything_once(
    engine, database_url, shopify_peer: Peer, step, count
):
    shopify_peer.settings(bulk={"lines": {"orders": list(_lines())}, "limit": 5})
    shop = stage(engine, shopify_peer.base_url)
    asked = shop.ask()
    ran = subprocess.run(
        [sys.executable, "-m", "tests.integration.crashing_syncs", database_url, str(shop.shop.id), step, str(count)],
        cwd=ROOT, timeout=120, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    before = shop.get(asked.id)
    assert before.state in ("asked", "running", "loading")
    shop.later(timedelta(minutes=5))
    done = shop.finish()
    assert (done.state, done.objects_done, done.missing, done.stale) == ("done", ORDERS, ORDERS, 0)
    assert done.events == len(shop.sources()) == ORDERS * 2 + ORDERS // 3
    assert done.bytes_done == done.bytes_total
    if before.bytes_done:
        asked_from = [one["range"] for one in shopify_peer.calls() if one["path"].startswith("/bulk/")]
        assert asked_from[-1] == f"bytes={before.bytes_done}-"
