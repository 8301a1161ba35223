"""Every hour: whom time, a fit or a changed definition has moved from one segment or cluster to another."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Engine

from operation_agent import agent
from operation_agent.clustering import membership as clusters
from operation_agent.kit.clock import SYSTEM
from operation_agent.segments import active
from operation_agent.segments import membership as segments
from operation_agent.store import ticks
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from operation_agent.strategies import live

PART = 1_000
"""Customers per transaction: about a second of their locks."""


def refresh(engine: Engine, shop_id: UUID) -> int:
    """Do what is due: as of the newest open tick, so that a run that died is done again as of the same instant, and
    those it had moved already are not moved again. Returns how many customers were looked at a second time."""
    with for_shop(engine, shop_id) as session:
        due_at = ticks.newest_open(session, shop_id, ticks.SEGMENTS)
        if due_at is None:
            return 0
        shop = load_shop(session, shop_id)
        watched = frozenset(group for group, _ in live.watched_groups(session, shop_id))
        held_against = [one.id for one in active.segments(session, shop_id)]
    labels = frozenset(group.removeprefix("cluster.") for group in watched if group.startswith("cluster."))
    _settle(engine, shop_id, labels)
    with for_shop(engine, shop_id) as session:
        found = dict.fromkeys([*clusters.elsewhere(session, shop_id, labels), *segments.screen(session, shop, due_at)])
    movers = list(found)
    for start in range(0, len(movers), PART):
        with for_shop(engine, shop_id) as session:
            agent.regroup(session, shop, movers[start : start + PART], due_at, recorded_at=SYSTEM.now())
    with for_shop(engine, shop_id) as session:
        segments.refreshed(session, shop_id, held_against, due_at)
        ticks.finish(session, shop_id, ticks.SEGMENTS, up_to=due_at, at=SYSTEM.now())
    return len(movers)


def _settle(engine: Engine, shop_id: UUID, labels: frozenset[str]) -> None:
    there_is_more = True
    while there_is_more:
        with for_shop(engine, shop_id) as session:
            there_is_more = clusters.settle(session, shop_id, labels)
