"""Strategies proposed for a shop's clusters: every template for every cluster, worth estimated, the best set drafted.

What is chosen arrives as drafts; a shop may allow those whose liability stays below a limit to start by themselves.
Everything that was left out is kept with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from decimal import ROUND_UP, Decimal
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.actions.catalogue import TYPES, unit_cost
from operation_agent.clustering import membership
from operation_agent.experiments.assignment import GLOBAL_HOLDOUT, held_out_share
from operation_agent.kit.errors import Conflict
from operation_agent.kit.ids import new_id
from operation_agent.kit.money import minor_digits
from operation_agent.store import audit
from operation_agent.store.shops import Shop
from operation_agent.strategies.generator import Draft, drafts
from operation_agent.strategies.library import library
from operation_agent.strategies.portfolio import Bounds, LeftOut, Option, Portfolio, choose
from operation_agent.strategies.predictor import Prediction
from rules import offer
from rules.limits import Budget

from . import drafting, evidence, reach, views, worth
from .drafting import Standing

HORIZON = timedelta(days=30)
MESSAGES, STRATEGIES = 4.0, 6
LEAST_REACHED = 30
"""Customers over the horizon, treated and held out together, below which a strategy could never be measured."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """One option with what it is worth; `left_out` None: it was chosen."""

    id: UUID
    draft: Draft
    prediction: Prediction
    left_out: LeftOut | None
    strategy_id: UUID | None
    state: str


@dataclass(frozen=True, slots=True)
class Run:
    id: UUID
    proposals: tuple[Proposal, ...]
    profit: float
    spend: float


def propose(session: Session, shop: Shop, *, as_of: datetime, at: datetime, actor: str) -> Run:
    """Look as of `as_of` (shop time), draft the best set, keep the rest with reasons; `at` is system time.

    Raises Conflict while there is no clustering. What an earlier run drafted and nobody touched is kept up to date, or
    withdrawn.
    """
    live = membership.live_model(session, shop.id)
    if live is None:
        raise Conflict("there is no clustering yet: `opagent cluster` makes one", code="no_clustering")
    known = drafting.standing(session, shop)
    everything = _options(session, shop, live.id, as_of)
    bounds = _bounds(shop)
    chosen = choose([_option(draft, found) for draft, found in everything if not known.is_taken(draft)], bounds)
    picked = [draft for draft, _ in everything if draft.strategy.key in chosen.chosen]
    drafting.withdraw(session, shop, known, picked, at=at, actor=actor)
    run = Run(
        new_id(),
        tuple(_proposal(session, shop, draft, found, chosen, known, at, actor) for draft, found in everything),
        chosen.profit,
        chosen.spend,
    )
    _write(session, shop, run, live.id, bounds, as_of, at, actor)
    return run


def propose_if_clustered(session: Session, shop: Shop, *, as_of: datetime, at: datetime, actor: str) -> Run | None:
    """As `propose`; None while there is no clustering. What the schedule asks for."""
    if membership.live_model(session, shop.id) is None:
        return None
    return propose(session, shop, as_of=as_of, at=at, actor=actor)


def _options(session: Session, shop: Shop, clustering_id: UUID, as_of: datetime) -> list[tuple[Draft, Prediction]]:
    templates = library()
    seen = evidence.measured(session, shop, as_of=as_of)
    reached = reach.measure(session, shop, templates, as_of=as_of, horizon=HORIZON)
    costs = {name: unit_cost(shop.settings, name) for name in TYPES}
    prices = offer.Prices.of(shop.settings, minor_digits(shop.currency))
    found = []
    for cluster in views.clusters(session, shop, clustering_id, as_of=as_of):
        for key, template in templates.items():
            counts = {rule.key: reached.customers(key, rule.key, cluster.lineage) for rule in template.rules}
            if sum(counts.values()) < LEAST_REACHED:
                continue
            treated = 1 - held_out_share(template.holdout, float(shop.settings.get("global_holdout", GLOBAL_HOLDOUT)))
            for draft in drafts(key, template, cluster):
                prediction = worth.predicted(
                    draft, counts, seen, treated_share=treated, margin_rate=float(shop.margin_rate), costs=costs,
                    prices=prices,
                )  # fmt: skip
                found.append((_funded(shop, draft, prediction), prediction))
    return found


def _funded(shop: Shop, draft: Draft, prediction: Prediction) -> Draft:
    """The draft with a budget for what it would commit over the horizon, rounded up to a whole unit."""
    units = Decimal(prediction.liability) / Decimal(10) ** minor_digits(shop.currency)
    limit = max(units.quantize(Decimal(1), rounding=ROUND_UP), Decimal(1))
    return replace(draft, strategy=draft.strategy.limited(budget=Budget(limit)))


def _option(draft: Draft, prediction: Prediction) -> Option:
    return Option(
        draft.strategy.key, draft.slot, str(draft.cluster.lineage), prediction.profit, prediction.liability,
        worth.messages(draft),
    )  # fmt: skip


def _bounds(shop: Shop) -> Bounds:
    """`shop.settings["proposals"]`: {budget, messages, strategies}, the budget in units of the shop's currency."""
    wanted: Mapping[str, Any] = shop.settings.get("proposals") or {}
    budget = wanted.get("budget")
    return Bounds(
        None if budget is None else float(Decimal(str(budget)) * 10 ** minor_digits(shop.currency)),
        float(wanted.get("messages", MESSAGES)),
        int(wanted.get("strategies", STRATEGIES)),
    )


def _proposal(
    session: Session, shop: Shop, draft: Draft, prediction: Prediction, chosen: Portfolio, known: Standing,
    at: datetime, actor: str,
) -> Proposal:  # fmt: skip
    if draft.strategy.key not in chosen.chosen:
        left = next((one for one in chosen.left_out if one.key == draft.strategy.key), None)
        left = left or LeftOut(draft.strategy.key, "running", {"template": draft.template})
        return Proposal(new_id(), draft, prediction, left, None, "left_out")
    draft, strategy_id = drafting.write(session, shop, draft, known, at=at, actor=actor)
    started = drafting.start(session, shop, draft.strategy.key, prediction, at=at, actor=actor)
    return Proposal(new_id(), draft, prediction, None, strategy_id, "started" if started else "drafted")


def _write(
    session: Session, shop: Shop, run: Run, clustering_id: UUID, bounds: Bounds, as_of: datetime, at: datetime,
    actor: str,
) -> None:  # fmt: skip
    session.execute(
        text(
            "INSERT INTO proposal_runs (shop_id, id, clustering_id, as_of, made_at, made_by, horizon_days, bounds,"
            " options, profit_minor, spend_minor) VALUES (:shop, :id, :clustering, :as_of, :at, :actor, :days,"
            " CAST(:bounds AS jsonb), :options, :profit, :spend)"
        ),
        {
            "shop": shop.id, "id": run.id, "clustering": clustering_id, "as_of": as_of, "at": at, "actor": actor,
            "days": HORIZON.days, "bounds": orjson.dumps(asdict(bounds)).decode(), "options": len(run.proposals),
            "profit": round(run.profit), "spend": round(run.spend),
        },
    )  # fmt: skip
    if run.proposals:
        session.execute(_INSERT, [_row(shop, run.id, one) for one in run.proposals])
    drafted: Sequence[str] = [one.draft.strategy.key for one in run.proposals if one.left_out is None]
    audit.record(
        session, shop.id, at=at, actor=actor, verb="strategies.proposed", subject=f"proposals:{run.id}",
        detail={"drafted": list(drafted), "options": len(run.proposals)},
    )  # fmt: skip


_INSERT = text(
    "INSERT INTO proposals (shop_id, id, run_id, key, template, lineage_id, cluster, depth, hour, state, prediction,"
    " reasons, left_out, definition, strategy_id) VALUES (:shop, :id, :run, :key, :template, :lineage,"
    " CAST(:cluster AS jsonb), :depth, :hour, :state, CAST(:prediction AS jsonb), CAST(:reasons AS jsonb),"
    " CAST(:left_out AS jsonb), CAST(:definition AS jsonb), :strategy)"
)


def _row(shop: Shop, run_id: UUID, one: Proposal) -> dict[str, Any]:
    cluster, strategy = one.draft.cluster, one.draft.strategy
    shown = {
        "label_key": cluster.label_key, "labels": dict(cluster.labels), "size": cluster.size,
        "reachable": cluster.reachable, "price_sensitivity": cluster.price_sensitivity,
    }  # fmt: skip
    left = None if one.left_out is None else {"why": one.left_out.why, "detail": one.left_out.detail}
    return {
        "shop": shop.id, "id": one.id, "run": run_id, "key": strategy.key, "template": one.draft.template,
        "lineage": cluster.lineage, "cluster": orjson.dumps(shown).decode(), "depth": one.draft.depth,
        "hour": one.draft.hour, "state": one.state, "prediction": orjson.dumps(asdict(one.prediction)).decode(),
        "reasons": orjson.dumps(one.draft.reasons).decode(),
        "left_out": None if left is None else orjson.dumps(left).decode(),
        "definition": orjson.dumps(strategy.to_dict()).decode(), "strategy": one.strategy_id,
    }  # fmt: skip
