"""A worker that dies: `python -m tests.integration.crashing_changes URL SHOP SHOPIFY STEP COUNT` makes a shop's changes
and kills itself with SIGKILL at the COUNTth time it reaches STEP ('claimed', 'called', 'recorded', or 'mutated': right
after the shop has answered a mutation)."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any
from uuid import UUID

from integrations.shopify.changes.storefront import ShopifyChanges
from integrations.shopify.client import Access, Shopify
from operation_agent.store.engine import connect
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from operation_agent.storefront.change_steps import Maker
from tests.shopify_peer.peer import TOKEN


def main(database_url: str, shop: str, base_url: str, step: str, count: str) -> None:
    engine = connect(database_url)
    left = [int(count)]

    def reached(what: str) -> None:
        left[0] -= what == step
        if left[0] == 0 and what == step:
            os.kill(os.getpid(), signal.SIGKILL)

    class Mortal(Shopify):
        def mutate(self, *given: Any, **named: Any) -> dict[str, Any]:
            told = super().mutate(*given, **named)
            reached("mutated")
            return told

    with for_shop(engine, UUID(shop)) as session:
        found = load_shop(session, UUID(shop))
    client = Mortal(Access(base_url, TOKEN))
    Maker(engine, found, "shopify", ShopifyChanges(client), at_step=reached).drain(seconds=20)
    client.close()
    engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
