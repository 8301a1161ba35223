"""What a campaign would do, found out before it runs: who could be meant, or exactly what would be decided.

Chunk by chunk, by the workers who will run it, and nothing is written but the findings. Only as far as needed: where
neither a budget, nor a day's executions, nor an audience that people must approve can be exceeded, nothing is surveyed;
where who meets the conditions cannot exceed them either, guardrails are not asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.actions.approving import rulings
from operation_agent.decision import surveying
from operation_agent.decision.candidates import Prepared
from operation_agent.decision.engine import Decision
from operation_agent.decision.rationing import day_of
from operation_agent.decision.surveying import Held
from operation_agent.store.shops import Shop
from operation_agent.strategies.live import LiveRule

from . import people
from .chunks import Chunk
from .records import Campaign
from .shortage import CLAIM, Claims, Room

NONE, BOUNDS, EXACT = 0, 1, 2
SAMPLES = 20
"""Decisions whose receipts are shown to whoever approves a campaign."""


@dataclass(slots=True)
class Found:
    """Of one strategy. At BOUNDS: `candidates` meet a condition, `cost_minor` if each took the dearest arm. At EXACT:
    those whom no guardrail stops, what they would take, of whom `acting` are treated and `held_out` are not."""

    candidates: int = 0
    cost_minor: int = 0
    acting: int = 0
    held_out: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)

    def add(self, other: Found) -> None:
        self.candidates += other.candidates
        self.cost_minor += other.cost_minor
        self.acting += other.acting
        self.held_out += other.held_out
        for verdict, count in other.verdicts.items():
            self.verdicts[verdict] = self.verdicts.get(verdict, 0) + count

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


_ROOM = text("""
SELECT s.id, b.limit_minor - b.reserved_minor - b.spent_minor AS left,
       b.daily_minor - COALESCE(d.committed_minor, 0) AS daily_left, COALESCE(e.taken, 0) AS taken
FROM strategies s
LEFT JOIN budgets b ON b.shop_id = s.shop_id AND b.id = s.budget_id
LEFT JOIN budget_days d ON d.shop_id = s.shop_id AND d.budget_id = s.budget_id AND d.day = :day
LEFT JOIN execution_days e ON e.shop_id = s.shop_id AND e.strategy_id = s.id AND e.day = :day
WHERE s.shop_id = :shop AND s.id = ANY(CAST(:strategies AS uuid[]))
""")


def rooms(session: Session, shop: Shop, rules: Iterable[LiveRule], as_of: datetime) -> dict[UUID, Room]:
    """What the strategies of these rules have left on the day of `as_of` (shop time), as things stand."""
    strategies = {one.strategy_id: one.strategy for one in rules}
    values = {"shop": shop.id, "strategies": list(strategies), "day": day_of(as_of, shop.time_zone)}
    found = {}
    for row in session.execute(_ROOM, values):
        limits = strategies[row.id].limits
        money = [left for left in (row.left, row.daily_left) if left is not None]
        asked = [one.audience_above for one in rulings(shop, limits) if one.audience_above is not None]
        found[row.id] = Room(
            money_minor=max(0, min(money)) if money else None,
            executions=None if limits.executions_per_day is None else max(0, limits.executions_per_day - row.taken),
            audience=min(asked, default=None),
        )
    return found


def needed_at_first(rooms: Mapping[UUID, Room], customers: int) -> int:
    """How closely to look before anything is known but the number of customers."""
    for room in rooms.values():
        if room.money_minor is not None or not room.holds(cost_minor=0, executions=customers):
            return BOUNDS
        if room.audience is not None and customers > room.audience:
            return BOUNDS
    return NONE


def needed_after(rooms: Mapping[UUID, Room], found: Mapping[UUID, Found]) -> int:
    """How closely to look once it is known who could be meant."""
    for strategy_id, room in rooms.items():
        one = found.get(strategy_id, Found())
        if not room.holds(cost_minor=one.cost_minor, executions=one.candidates):
            return EXACT
        if room.audience is not None and one.candidates > room.audience:
            return EXACT
    return BOUNDS


# -- one chunk --------------------------------------------------------------------------------------------------------


def look_at(session: Session, shop: Shop, campaign: Campaign, chunk: Chunk) -> None:
    """Survey one chunk as closely as the campaign wants, and keep what was found."""
    asked = people.of_chunk(session, shop, campaign, chunk)
    held = surveying.hold(session, shop, asked.triggers, asked.table, asked.clusters, campaign_id=campaign.id)
    claims: dict[UUID, Claims] = {}
    samples: list[dict[str, Any]] = []
    if not len(asked):
        found: dict[UUID, Found] = {}
    elif campaign.survey == BOUNDS:
        found = _bounds(held.prepared, len(asked))
    else:
        found, claims, samples = _exact(held, surveying.rehearse(session, shop, held))
    _keep(session, shop.id, campaign, chunk, found, claims, samples)


def _bounds(prepared: Sequence[Prepared], customers: int) -> dict[UUID, Found]:
    """A strategy acts once on a customer, and with one of its rules: the dearest, at worst."""
    dearest: dict[UUID, np.ndarray] = {}
    for one in prepared:
        costs = dearest.setdefault(one.live.strategy_id, np.full(customers, -1, np.int64))
        np.maximum.at(costs, one.rows, one.dearest)
    return {
        strategy_id: Found(candidates=int((costs >= 0).sum()), cost_minor=int(costs[costs > 0].sum()))
        for strategy_id, costs in dearest.items()
    }


def _exact(
    held: Held, decisions: Sequence[Decision]
) -> tuple[dict[UUID, Found], dict[UUID, Claims], list[dict[str, Any]]]:
    places = {
        (one.live.rule_id, held.triggers[row].customer_id): (one, at)
        for one in held.prepared
        for at, row in enumerate(one.rows)
    }
    found: dict[UUID, Found] = {}
    claims: dict[UUID, list[tuple[Any, ...]]] = {}
    for one in decisions:
        of = found.setdefault(one.strategy_id, Found())
        of.verdicts[one.verdict] = of.verdicts.get(one.verdict, 0) + 1
        if one.arm is None:
            continue
        rule, at = places[one.rule_id, one.customer_id]
        arm = next(i for i, arm in enumerate(rule.live.rule.arms) if arm.key == one.arm.key)
        takes = 0 if one.held_out else rule.arm_costs[arm][at]
        of.candidates += 1
        of.cost_minor += takes
        of.held_out += one.held_out
        of.acting += one.verdict == "act"
        claims.setdefault(one.strategy_id, []).append(
            (rule.score[at], one.random_key.bytes, rule.dearest[at], takes, one.verdict == "act")
        )
    acting = sorted((one for one in decisions if one.verdict == "act"), key=lambda one: one.random_key)[:SAMPLES]
    arrays = {strategy_id: np.array(rows, CLAIM) for strategy_id, rows in claims.items()}
    return found, arrays, [_sample(one) for one in acting]


def _sample(one: Decision) -> dict[str, Any]:
    return {"customer_id": str(one.customer_id), "random_key": str(one.random_key), "receipt": one.receipt}


_KEEP = text("""
UPDATE campaign_chunks SET surveyed = :survey, found = CAST(:found AS jsonb), claims = :claims
WHERE shop_id = :shop AND campaign_id = :campaign AND number = :number
""")


def _keep(
    session: Session, shop_id: UUID, campaign: Campaign, chunk: Chunk, found: Mapping[UUID, Found],
    claims: Mapping[UUID, Claims], samples: Sequence[Mapping[str, Any]],
) -> None:  # fmt: skip
    told = {"strategies": {str(key): one.to_dict() for key, one in found.items()}, "samples": samples}
    # rows of one width, behind a line that says whose they are
    packed = b"".join(orjson.dumps([str(key), len(rows)]) + b"\n" + rows.tobytes() for key, rows in claims.items())
    session.execute(
        _KEEP,
        {
            "shop": shop_id, "campaign": campaign.id, "number": chunk.number, "survey": campaign.survey,
            "found": orjson.dumps(told).decode(), "claims": packed or None,
        },
    )  # fmt: skip


# -- all of them ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Findings:
    """Of the chunks that are still to be run. `claims` per strategy, of all chunks."""

    found: dict[UUID, Found]
    claims: dict[UUID, Claims]
    samples: list[dict[str, Any]]


def gather(session: Session, shop_id: UUID, campaign: Campaign) -> Findings | None:
    """Everything found about the open chunks; None while one is not surveyed as closely as the campaign wants."""
    rows = session.execute(
        text(
            "SELECT surveyed, found, claims FROM campaign_chunks"
            " WHERE shop_id = :shop AND campaign_id = :campaign AND state = 'open' ORDER BY number"
        ),
        {"shop": shop_id, "campaign": campaign.id},
    ).all()
    if any(row.surveyed < (campaign.survey or 0) for row in rows):
        return None
    found: dict[UUID, Found] = {}
    claims: dict[UUID, list[Claims]] = {}
    samples: list[dict[str, Any]] = []
    for row in rows:
        for key, one in row.found.get("strategies", {}).items():
            found.setdefault(UUID(key), Found()).add(Found(**one))
        for strategy_id, part in _unpacked(row.claims):
            claims.setdefault(strategy_id, []).append(part)
        samples += row.found.get("samples", ())
    samples.sort(key=lambda one: one["random_key"])
    return Findings(found, {key: np.concatenate(parts) for key, parts in claims.items()}, samples[:SAMPLES])


def _unpacked(packed: bytes | None) -> Iterable[tuple[UUID, Claims]]:
    at, data = 0, bytes(packed or b"")
    while at < len(data):
        end = data.index(b"\n", at)
        key, count = orjson.loads(data[at:end])
        yield UUID(key), np.frombuffer(data, CLAIM, count, end + 1)
        at = end + 1 + count * CLAIM.itemsize
