"""A worker on campaigns that dies: `python -m tests.integration.crashing_campaigns URL SHOP STEP COUNT` kills itself
with SIGKILL at the COUNTth time it reaches STEP: 'claimed' a chunk, 'decided' it (nothing committed), 'committed' it,
'preparing' (nothing committed), 'never'."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any
from uuid import UUID

from operation_agent import agent
from operation_agent.campaigns import chunks, preparation
from operation_agent.store.engine import connect
from workers import campaigns

SMALL = 9


def main(database_url: str, shop: str, step: str, count: str) -> None:
    left = int(count)

    def after(name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            nonlocal left
            found = act(*args, **options)
            if name == step:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return found

        return run

    chunks.MOST = SMALL
    chunks.claim = after("claimed", chunks.claim)
    agent.run_chunk = after("decided", agent.run_chunk)
    preparation.prepare = after("preparing", preparation.prepare)
    engine = connect(database_url)
    for _ in range(1000):  # one step a call: between two, what is done is committed
        if not campaigns.run(engine, UUID(shop), "0", seconds=0):
            break
        after("committed", lambda: None)()
    engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
