"""Preparing a campaign: which versions of its rules it runs, its chunks, and the lanes that work on them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.store import outbox
from operation_agent.store.shops import Shop
from operation_agent.strategies.live import LiveRule, live_rules

from . import chunks, records
from .records import TOPIC, Asked, Campaign

LANES = 4
"""Workers that may be at one shop's campaign at once."""

_ALONE = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")


def prepare(session: Session, shop: Shop, campaign: Campaign, *, at: datetime) -> bool:
    """Fix what a campaign runs and over whom, and let it run, or wait for a person. False: somebody else is at it.

    `at` is system time. A campaign none of whose rules is live is finished.
    """
    if not session.execute(_ALONE, {"name": campaign.tick}).scalar_one():
        return False
    rules = running(session, shop.id, campaign)
    if not rules:
        records.change(
            session, shop.id, campaign, at=at, state="finished", finished_at=at, reason="none of its rules is live"
        )
        return True
    to_do = chunks.split(session, shop.id, campaign)
    upper = campaign.upper_id or (to_do[-1].high if to_do else None)
    campaign = records.find(session, shop.id, campaign.id, lock=True)
    if campaign.state != "preparing":
        return True
    records.change(
        session, shop.id, campaign, at=at, state="running", prepared_at=at, started_at=campaign.started_at or at,
        rules=[one.to_dict() for one in asked(campaign, rules)], upper_id=upper, reason=None,
    )  # fmt: skip
    if not to_do:
        chunks.finish_if_done(session, shop.id, campaign.id, at=at)
    open_lanes(session, shop.id, len(to_do), at=at)
    return True


def running(session: Session, shop_id: UUID, campaign: Campaign) -> list[LiveRule]:
    """The campaign's rules as they are live now."""
    wanted = {one.rule_id for one in campaign.rules}
    return [live for live in live_rules(session, shop_id) if live.rule_id in wanted]


def asked(campaign: Campaign, rules: list[LiveRule]) -> list[Asked]:
    """The campaign's rules with their names and the versions that are live."""
    zones = {one.rule_id: one.zones for one in campaign.rules}
    return [Asked(one.rule_id, one.key, one.strategy_id, one.version, zones[one.rule_id]) for one in rules]


def still_holds(session: Session, shop: Shop, campaign: Campaign, *, at: datetime) -> bool:
    """Whether what a running campaign was prepared for is what is live; else it goes back to be prepared.

    Another version of a rule means other people, other costs, and a yes that was not given for it. A rule that is no
    longer live decides nothing by itself.
    """
    versions = {one.rule_id: one.version for one in campaign.rules}
    if all(versions[live.rule_id] == live.version for live in running(session, shop.id, campaign)):
        return True
    campaign = records.find(session, shop.id, campaign.id, lock=True)
    if campaign.state == "running":
        records.change(session, shop.id, campaign, at=at, state="preparing")
    return False


def open_lanes(session: Session, shop_id: UUID, chunks_to_do: int, *, at: datetime) -> None:
    """Ring for as many workers as there is work for. `at` is system time."""
    lanes = max(1, min(LANES, chunks_to_do))
    outbox.ring(session, shop_id, [(TOPIC, str(lane)) for lane in range(lanes)], at=at)
