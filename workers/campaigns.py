"""Working on a shop's campaigns: prepare, chunk after chunk, the next campaign. Each step is one transaction.

Several lanes may be at it at once; of the same chunk only one. What a killed worker was at is open again the moment
its connection ends. A step that fails is tried again, and after several times its campaign is `failed`, with the
reason, and can be resumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from operation_agent import agent
from operation_agent.campaigns import chunks, preparation, records, steering, survey
from operation_agent.campaigns.chunks import Cancelled, Chunk
from operation_agent.campaigns.records import Campaign
from operation_agent.kit.clock import SYSTEM, monotonic
from operation_agent.kit.errors import Retryable
from operation_agent.kit.logging import logger
from operation_agent.store import outbox
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, load_shop

MOST_ATTEMPTS = 3
MOST_REPEATS = 10
_PASSING = ("40001", "40P01", "55P03")  # serialization failure, deadlock, lock not available: the same step may pass

log = logger(__name__)


@dataclass
class _At:
    """What a step was at, for whoever has to say why it failed."""

    campaign: Campaign | None = None
    chunk: Chunk | None = None


def run(engine: Engine, shop_id: UUID, lane: str, *, seconds: float = 20.0) -> int:
    """Work on the shop's campaigns until there is nothing to do, or `seconds` have passed; how many steps were done.

    When time is up the lane is rung again, so that other jobs get their turn. Raises what is no campaign's fault (the
    database is away): the sweep rings again.
    """
    end, steps, repeats = monotonic() + seconds, 0, 0
    while True:
        at = _At()
        try:
            with for_shop(engine, shop_id) as session:
                is_done = step(session, load_shop(session, shop_id), at)
        except Cancelled:
            continue
        except InterfaceError:
            raise
        except Exception as error:
            if _is_passing(error) and repeats < MOST_REPEATS:
                repeats += 1
                continue
            if isinstance(error, OperationalError) and not _is_passing(error):
                raise
            _note(engine, shop_id, at, error)
            continue
        if not is_done:
            return steps
        steps, repeats = steps + 1, 0
        if monotonic() >= end:
            with for_shop(engine, shop_id) as session:
                outbox.ring(session, shop_id, [(records.TOPIC, lane)], at=SYSTEM.now())
            return steps


def step(session: Session, shop: Shop, at: _At) -> bool:
    """One transaction's worth of the campaign that is at its turn; False when there is nothing (left for us) to do."""
    campaign = at.campaign = records.current(session, shop.id)
    if campaign is None:
        return False
    now = SYSTEM.now()
    if campaign.state == "preparing" and campaign.survey is None:
        return preparation.prepare(session, shop, campaign, at=now)
    if campaign.state == "preparing":
        return _survey(session, shop, campaign, at)
    if campaign.state == "cancelled":
        steering.take_back(session, shop, campaign, at=now)
        return True
    chunk = at.chunk = chunks.claim(session, shop.id, campaign.id)
    if chunk is None:
        return chunks.finish_if_done(session, shop.id, campaign.id, at=now)
    agent.run_chunk(session, shop, campaign, chunk, recorded_at=now)
    return True


def _survey(session: Session, shop: Shop, campaign: Campaign, at: _At) -> bool:
    chunk = at.chunk = chunks.claim_unsurveyed(session, shop.id, campaign.id, campaign.survey or 0)
    if chunk is None:
        return preparation.conclude(session, shop, campaign, at=SYSTEM.now())
    if preparation.still_holds(session, shop, campaign, at=SYSTEM.now()):
        survey.look_at(session, shop, campaign, chunk)
    return True


def _is_passing(error: Exception) -> bool:
    if isinstance(error, Retryable):
        return True
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _PASSING


def _note(engine: Engine, shop_id: UUID, at: _At, error: Exception) -> None:
    """Count a failure; the campaign fails when there were too many. Raises the error when it is no campaign's."""
    if at.campaign is None:
        raise error
    told = f"{type(error).__name__}: {error}"
    log.error("campaign_step_failed", shop=str(shop_id), campaign=str(at.campaign.id), exc_info=error)
    with for_shop(engine, shop_id) as session:
        now = SYSTEM.now()
        campaign = records.find(session, shop_id, at.campaign.id, lock=True)
        if at.chunk is not None:
            attempts = chunks.failed(session, shop_id, campaign.id, at.chunk.number, told)
        else:
            attempts = campaign.attempts + 1
            records.change(session, shop_id, campaign, at=now, attempts=attempts)
        if attempts >= MOST_ATTEMPTS and campaign.state in ("preparing", "running"):
            records.change(session, shop_id, campaign, at=now, state="failed", reason=told[:1000])
