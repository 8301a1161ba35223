"""A worker that dies: `python -m tests.integration.crashing_syncs URL SHOP STEP COUNT` gets a shop's sync of orders on
and kills itself with SIGKILL at the COUNTth time it reaches STEP: 'asked' (Shopify has started the export, we have not
written it down), 'checked', 'read' (a batch is read), 'stored' (and stored, not committed), 'committed', 'ended'."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any
from uuid import UUID

from integrations.shopify.storefront import ShopifyStorefront
from operation_agent.kit.clock import FixedClock
from operation_agent.store.engine import connect
from operation_agent.store.session import for_shop
from operation_agent.storefront import loading, steps, storing, sync
from tests.integration.syncing import NOW
from workers.storefront import sync_kind


def main(database_url: str, shop: str, step: str, count: str) -> None:
    engine, shop_id, left = connect(database_url), UUID(shop), [int(count)]

    def reach(reached: str) -> None:
        left[0] -= reached == step
        if left[0] == 0 and reached == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(owner: Any, name: str, *, before: str | None = None, after: str | None = None) -> None:
        real = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            if before:
                reach(before)
            made = real(*args, **kwargs)
            if after:
                reach(after)
            return made

        setattr(owner, name, watched)

    around(ShopifyStorefront, "start_export", after="asked")
    around(ShopifyStorefront, "check_export", after="checked")
    around(storing, "store", before="read", after="stored")
    around(loading.Loader, "_store", after="committed")
    around(steps, "end", after="ended")
    loading.BATCH = 30
    clock = FixedClock(NOW)
    while True:
        with for_shop(engine, shop_id) as session:
            open_ = sync.under_way(session, shop_id)
        if not open_ or open_[0].wake_at is None:
            break
        clock.at = max(clock.at, open_[0].wake_at)
        sync_kind(engine, shop_id, "orders", clock=clock)
    engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
