"""Preparing a campaign: which versions of its rules it runs, its chunks, who goes first where something is short, and
whether people must say yes. One step of it at a time, by whichever worker comes by.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.store import outbox
from operation_agent.store.shops import Shop
from operation_agent.strategies.live import LiveRule, live_rules

from . import chunks, consenting, records, shortage, survey
from .chunks import Chunk
from .records import TOPIC, Asked, Campaign
from .shortage import Room
from .survey import Findings

LANES = 4
"""Workers that may be at one shop's campaign at once."""

_ALONE = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")


def prepare(session: Session, shop: Shop, campaign: Campaign, *, at: datetime) -> bool:
    """Fix what a campaign runs and over whom, and let it run if nothing has to be found out first. False: somebody else
    is at it. A campaign none of whose rules is live is finished. `at` is system time.
    """
    if not session.execute(_ALONE, {"name": campaign.tick}).scalar_one():
        return False
    rules = running(session, shop.id, campaign)
    if not rules:
        _end(session, shop, campaign, "none of its rules is live", at)
        return True
    customers, to_do = chunks.split(session, shop.id, campaign)
    found = records.find(session, shop.id, campaign.id, lock=True)
    if found.state != "preparing":
        return True
    rooms = survey.rooms(session, shop, rules, campaign.as_of)
    closely = survey.needed_at_first(rooms, customers)
    chunks.forget_survey(session, shop.id, campaign.id)
    records.change(
        session, shop.id, found, at=at, survey=closely, rules=[one.to_dict() for one in asked(found, rules)],
        upper_id=found.upper_id or (to_do[-1].high if to_do else None), estimate={}, cutoffs={},
    )  # fmt: skip
    if closely == survey.NONE or not to_do:
        _start(session, shop, found, to_do, at)
    else:
        open_lanes(session, shop.id, len(to_do), at=at)
    return True


def conclude(session: Session, shop: Shop, campaign: Campaign, *, at: datetime) -> bool:
    """Draw the line from what was surveyed: look closer, ask people, or run. False: somebody is still surveying."""
    campaign = records.find(session, shop.id, campaign.id, lock=True)
    if campaign.state != "preparing" or campaign.survey is None:
        return True
    findings = survey.gather(session, shop.id, campaign)
    if findings is None:
        return False
    rules = running(session, shop.id, campaign)
    rooms = survey.rooms(session, shop, rules, campaign.as_of)
    to_do = chunks.to_do(session, shop.id, campaign.id)
    if campaign.survey == survey.BOUNDS and survey.needed_after(rooms, findings.found) == survey.EXACT:
        records.change(session, shop.id, campaign, at=at, survey=survey.EXACT)
        open_lanes(session, shop.id, len(to_do), at=at)
        return True
    cutoffs = _lines(rooms, findings)
    estimate = {
        "exact": campaign.survey == survey.EXACT,
        "strategies": {str(key): one.to_dict() for key, one in findings.found.items()},
        "samples": findings.samples,
    }
    records.change(session, shop.id, campaign, at=at, cutoffs=cutoffs, estimate=estimate)
    if consenting.ask(session, shop, campaign, rules, findings, cutoffs, at=at):
        records.change(session, shop.id, campaign, at=at, state="waiting_approval", prepared_at=at)
    else:
        _start(session, shop, campaign, to_do, at)
    return True


def _lines(rooms: Mapping[UUID, Room], findings: Findings) -> dict[str, Any]:
    """By strategy, where the line ends, of those where it does."""
    ends = {
        strategy_id: shortage.line(claims, rooms[strategy_id])
        for strategy_id, claims in findings.claims.items()
        if strategy_id in rooms
    }
    return {str(key): one.to_dict() for key, one in ends.items() if one is not None}


def _start(session: Session, shop: Shop, campaign: Campaign, to_do: list[Chunk], at: datetime) -> None:
    records.change(
        session, shop.id, campaign, at=at, state="running", prepared_at=at, started_at=campaign.started_at or at,
        reason=None,
    )  # fmt: skip
    if to_do:
        open_lanes(session, shop.id, len(to_do), at=at)
    else:
        chunks.finish_if_done(session, shop.id, campaign.id, at=at)


def _end(session: Session, shop: Shop, campaign: Campaign, reason: str, at: datetime) -> None:
    records.change(session, shop.id, campaign, at=at, state="finished", finished_at=at, reason=reason)


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
    if campaign.state in ("preparing", "running"):
        records.change(session, shop.id, campaign, at=at, state="preparing", survey=None)
    return False


def open_lanes(session: Session, shop_id: UUID, chunks_to_do: int, *, at: datetime) -> None:
    """Ring for as many workers as there is work for. `at` is system time."""
    lanes = max(1, min(LANES, chunks_to_do))
    outbox.ring(session, shop_id, [(TOPIC, str(lane)) for lane in range(lanes)], at=at)
