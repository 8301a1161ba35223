"""A worker that dies: `python -m tests.integration.crashing URL SHOP PROVIDER STEP COUNT` delivers e-mail and kills
itself with SIGKILL at the COUNTth time it reaches STEP ('claimed', 'calling', 'answered', 'recorded', 'never')."""

from __future__ import annotations

import os
import signal
import sys
import threading
from datetime import timedelta
from uuid import UUID

from operation_agent.store.engine import connect
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from tests.integration.sending import executor


def main(database_url: str, shop: str, provider_url: str, step: str, count: str) -> None:
    engine = connect(database_url)
    left, lock = [int(count)], threading.Lock()

    def at_step(reached: str) -> None:
        with lock:
            left[0] -= reached == step
            if left[0] == 0 and reached == step:
                os.kill(os.getpid(), signal.SIGKILL)

    with for_shop(engine, UUID(shop)) as session:
        found = load_shop(session, UUID(shop))
    with executor(engine, found, "sendgrid", provider_url, at_step=at_step, lease=timedelta(seconds=12)) as ours:
        ours.deliver(seconds=20, limit=16)
    engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
