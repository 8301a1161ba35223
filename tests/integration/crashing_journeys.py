"""A worker that dies: `python -m tests.integration.crashing_journeys URL SHOP AT STEP COUNT` leads runs on, three at a
time, and kills itself with SIGKILL at the COUNTth time it reaches STEP ('led': before the commit, 'committed')."""

from __future__ import annotations

import os
import signal
import sys
from datetime import datetime
from uuid import UUID

from operation_agent import agent
from operation_agent.store.engine import connect
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop


def main(database_url: str, shop: str, at: str, step: str, count: str) -> None:
    engine = connect(database_url)
    left = [int(count)]

    def reached(what: str) -> None:
        left[0] -= what == step
        if left[0] == 0 and what == step:
            os.kill(os.getpid(), signal.SIGKILL)

    while True:
        with for_shop(engine, UUID(shop)) as session:
            found = load_shop(session, UUID(shop))
            done = agent.advance(session, found, recorded_at=datetime.fromisoformat(at), limit=3)
            reached("led")
        reached("committed")
        if not done.runs and not done.watches:
            break
    engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
