"""A worker that dies: `python -m tests.integration.crashing_pools URL SHOP PROVIDER POOL STEP COUNT` fills a code pool
and kills itself with SIGKILL at the COUNTth time it reaches STEP ('added', 'made', 'checked', …)."""

from __future__ import annotations

import os
import signal
import sys
from uuid import UUID

from operation_agent.actions.channel import Codes
from operation_agent.store.engine import connect
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from tests.integration.sending import channel
from workers.code_pools import Filler


def main(database_url: str, shop: str, provider_url: str, pool: str, step: str, count: str) -> None:
    engine, left = connect(database_url), [int(count)]

    def at_step(reached: str) -> None:
        left[0] -= reached == step
        if left[0] == 0 and reached == step:
            os.kill(os.getpid(), signal.SIGKILL)

    with for_shop(engine, UUID(shop)) as session:
        found = load_shop(session, UUID(shop))
    codes = channel("shopify", provider_url)
    assert isinstance(codes, Codes)
    Filler(engine, found, codes, poll=0.02, at_step=at_step).run(UUID(pool))
    engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
