"""A really full disk under PostgreSQL: nothing acknowledged is lost, clients are told to wait, and it goes on after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from embedded.postgres import ROOT_HOME
from tests.acceptance.running import Running, eventually

pytestmark = pytest.mark.acceptance

SIZE = "400m"
BATCH = 400


def _can_mount() -> bool:
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return os.geteuid() == 0 and tried.returncode == 0


@pytest.fixture(scope="module")
def small() -> Iterator[Running]:
    """A stack whose PostgreSQL lives on a file system of its own, in a mount namespace of its own."""
    if not _can_mount():
        pytest.skip("needs root and `unshare -m`, to mount a small file system")
    ROOT_HOME.mkdir(parents=True, exist_ok=True)
    mount = f'mount -t tmpfs -o size={SIZE},mode=755 tmpfs {ROOT_HOME} && exec "$@"'
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"opagent-full-{os.getpid()}"
    folder.mkdir()
    running = Running(folder / "data", command=["unshare", "-m", "sh", "-c", mount, "sh", sys.executable])
    try:
        running.await_ready()
        yield running
    finally:
        running.stop()
        subprocess.run(["rm", "-rf", str(folder)], check=False)


class Shop:
    """One shop of the stack, over HTTP alone."""

    def __init__(self, stack: Running):
        admin = json.loads((stack.data_dir / "admin.json").read_text())
        self.admin = httpx.Client(base_url=stack.url, timeout=30, headers={"X-Requested-With": "test"})
        self.admin.post("/api/session", json=admin).raise_for_status()
        self.admin.post("/api/shops", json={"slug": "full", "name": "Full", "currency": "USD"}).raise_for_status()
        asked = {"name": "tracking", "scopes": ["events:write"]}
        made = self.admin.post("/api/keys", params={"shop": "full"}, json=asked)
        made.raise_for_status()
        self.tracking = httpx.Client(base_url=stack.url, auth=(made.json()["key"], ""), timeout=30)

    def close(self) -> None:
        self.admin.close()
        self.tracking.close()

    def send(self, number: int) -> httpx.Response | None:
        """One batch, the same for the same number. None: the connection was lost."""
        messages = [
            {
                "type": "track", "event": "Product Viewed",
                "userId": f"u{index % 40}", "messageId": f"{number}-{index}",
                "properties": {"product_id": f"p{index}", "note": "x" * 2000},
            }
            for index in range(BATCH // 4)
        ]  # fmt: skip
        try:
            return self.tracking.post("/v1/batch", json={"batch": messages})
        except httpx.TransportError:
            return None

    def backlog(self) -> dict[str, Any] | None:
        try:
            answer = self.admin.get("/api/shops/full/backlog")
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code == 200 else None


@pytest.fixture
def shop(small: Running) -> Iterator[Shop]:
    made = Shop(small)
    yield made
    made.close()


def test_a_full_disk_refuses_with_503_loses_nothing_and_goes_on_when_there_is_room(small, shop):
    assert shop.send(0).json()["accepted"] == BATCH // 4
    filler = Path(f"/proc/{small.pids()['postgres']}/root{ROOT_HOME}/filler")
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(1 << 20))

    accepted, refused, number, end = [0], 0, 0, time.monotonic() + 120
    while refused < 3 and time.monotonic() < end:
        number += 1
        answer = shop.send(number)
        assert answer is None or answer.status_code in (200, 503), answer.text
        if answer is not None and answer.status_code == 200:
            accepted.append(number)
        elif answer is not None:
            assert int(answer.headers["Retry-After"]) >= 1
            refused += 1
    assert refused == 3, "the disk never filled up"

    root = Path(f"/proc/{small.process.pid}/root{ROOT_HOME}/filler")
    root.unlink()
    again = eventually(lambda: (got := shop.send(number + 1)) is not None and got.status_code == 200, within=90,
                       what="taking events again")  # fmt: skip
    assert again
    for known in accepted:
        answer = eventually(lambda n=known: shop.send(n), within=30, what="an answer")
        assert answer.json()["duplicates"] == BATCH // 4, "an acknowledged event was lost"
    eventually(lambda: (b := shop.backlog()) and b["events"] == 0 and b["outbox"] == 0, within=90, what="all processed")
    assert shop.backlog()["failed_events"] == 0
