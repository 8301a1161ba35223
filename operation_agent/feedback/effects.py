"""What the agent changed: each strategy's treated customers against its holdout, and the programme as a whole.

By intention to treat. A strategy's effect is what it adds while the others run as they do: its treated against those
its own draw held out. The programme is everybody that any strategy met, from the first meeting on: the shop-wide
holdout, whom nothing ever reaches, against all others. That is unbiased whatever the strategies do to each other, and
imprecise, the shop-wide holdout being small; so the sum of the strategies' increments stands beside it in `detail`,
sharper, and blind to what two strategies do only together. Without a shop-wide holdout the sum is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.experiments.comparison import CONFIDENCE, Difference, Inconclusive, Ratio
from operation_agent.kit.ids import new_id
from operation_agent.store.shops import Shop

from . import estimation
from .population import METRICS, Population, of_programme, of_strategies, strategies_of

PROGRAMME = "programme"

Result = Difference | Ratio | Inconclusive
Measured = tuple[str, Result, dict[str, Any]]
"""A metric, what came out, and the detail kept with it."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One comparison. `strategy_id` None: the programme. `estimate` and its 95 % interval are the total increment over
    the treated: orders, or minor units of the shop's currency; for 'roi' profit per unit spent. Without an estimate
    there is a `reason` (of comparison.Reason); `detail` holds means per customer, p-values and what was adjusted."""

    id: UUID
    strategy_id: UUID | None
    strategy: str
    metric: str
    as_of: datetime
    computed_at: datetime
    treated: int
    held_out: int
    estimate: float | None
    lower: float | None
    upper: float | None
    reason: str | None
    detail: dict[str, Any]


def compare(session: Session, shop: Shop, *, as_of: datetime, computed_at: datetime) -> list[Effect]:
    """Compare every started strategy and the programme as of `as_of` (shop time) and keep the results.

    `computed_at` is system time. Writes one row per strategy and metric, and the programme's; returns them.
    """
    assigned = of_strategies(session, shop, as_of=as_of)
    effects = []
    for strategy_id, key in strategies_of(session, shop).items():
        population = assigned.of(strategy_id)
        effects += _effects(population, _measure(population), strategy_id, key, as_of, computed_at)
    met = of_programme(session, shop, as_of=as_of)
    population, measured = (met, _measure(met)) if met.share.any() else (assigned, [])
    measured = _beside(measured, _measure(assigned))
    effects += _effects(population, measured, None, PROGRAMME, as_of, computed_at)
    _store(session, shop, effects)
    return effects


def _beside(measured: Sequence[Measured], sums: Sequence[Measured]) -> list[Measured]:
    """The programme's results by the shop-wide holdout with the sums in their detail; the sums where there is none."""
    if not measured:
        return [(metric, result, detail | {"method": "sum_of_strategies"}) for metric, result, detail in sums]
    joined = []
    for (metric, result, detail), (_metric, total, _detail) in zip(measured, sums, strict=True):
        told = (
            _why(total)
            if isinstance(total, Inconclusive)
            else {"estimate": total.estimate, "lower": total.lower, "upper": total.upper}
        )
        joined.append((metric, result, detail | {"method": "shop_wide_holdout", "sum_of_strategies": told}))
    return joined


def latest(session: Session, shop: Shop) -> list[Effect]:
    """The results of the newest comparison; nothing when there was none."""
    rows = session.execute(
        text(
            "SELECT e.*, COALESCE(s.key, :programme) AS strategy FROM effects e"
            " LEFT JOIN strategies s ON s.shop_id = e.shop_id AND s.id = e.strategy_id"
            " WHERE e.shop_id = :shop AND e.computed_at = (SELECT max(computed_at) FROM effects WHERE shop_id = :shop)"
            " ORDER BY e.strategy_id IS NULL, s.key, e.id"
        ),
        {"shop": shop.id, "programme": PROGRAMME},
    )
    return [Effect(**{name: row._mapping[name] for name in Effect.__dataclass_fields__}) for row in rows]


def _effects(
    population: Population,
    measured: Sequence[Measured],
    strategy_id: UUID | None,
    key: str,
    as_of: datetime,
    computed_at: datetime,
) -> list[Effect]:
    treated = len(np.unique(population.customers[~population.held_out]))
    held_out = len(np.unique(population.customers)) - treated
    return [
        Effect(
            new_id(), strategy_id, key, metric, as_of, computed_at, treated, held_out,
            estimate=None if isinstance(result, Inconclusive) else result.estimate,
            lower=None if isinstance(result, Inconclusive) else result.lower,
            upper=None if isinstance(result, Inconclusive) else result.upper,
            reason=result.reason if isinstance(result, Inconclusive) else None,
            detail=detail,
        )
        for metric, result, detail in measured
    ]  # fmt: skip


def _measure(population: Population) -> list[Measured]:
    strata, nothing = estimation.comparable(population)
    fair = _balance(population)
    refusal = nothing or next(
        (p for p in fair.values() if isinstance(p, Inconclusive) and p.reason == "sample_ratio"), None
    )
    common = {
        "confidence": CONFIDENCE,
        "strata": len(strata),
        "rows_left_out": len(population) - sum(len(stratum) for stratum in strata),
        "sample_ratio_p": {key: p for key, p in fair.items() if isinstance(p, float)},
    }
    influences = {metric: estimation.influence(strata, metric) for metric in METRICS} if refusal is None else {}
    measured: list[Measured] = []
    for metric in METRICS:
        result = refusal or estimation.total(influences[metric])
        measured.append((metric, result, common | _detail(population, metric, result)))
    roi = refusal or estimation.return_on_spend(influences["profit"], influences["spend"])
    return [*measured, ("roi", roi, common | _why(roi))]


def _balance(population: Population) -> dict[str, float | Inconclusive]:
    """Each strategy's sample-ratio check by itself: two wrongs could cancel out in the sum."""
    return {
        str(name or PROGRAMME): estimation.balance(population.of(name))
        for name in population.names
        if len(population.of(name))
    }


def _detail(population: Population, metric: str, result: Result) -> dict[str, Any]:
    treated, held_out = estimation.means(population, metric)
    detail: dict[str, Any] = {"mean_treated": treated, "mean_held_out": held_out}
    if isinstance(result, Difference):
        shown = asdict(result)
        detail |= {name: shown[name] for name in ("standard_error", "p_value", "degrees", "theta")}
    return detail | _why(result)


def _why(result: Result) -> dict[str, Any]:
    return {"why": result.detail} if isinstance(result, Inconclusive) else {}


def _store(session: Session, shop: Shop, effects: Sequence[Effect]) -> None:
    session.execute(
        text(
            "INSERT INTO effects (shop_id, id, strategy_id, metric, as_of, computed_at, treated, held_out, estimate,"
            "  lower, upper, reason, detail)"
            " VALUES (:shop_id, :id, :strategy_id, :metric, :as_of, :computed_at, :treated, :held_out, :estimate,"
            "  :lower, :upper, :reason, CAST(:detail AS jsonb))"
        ),
        [
            {name: getattr(effect, name) for name in Effect.__dataclass_fields__ if name not in ("strategy", "detail")}
            | {"shop_id": shop.id, "detail": orjson.dumps(effect.detail).decode()}
            for effect in effects
        ],
    )
