"""What the agent changed: each strategy's treated customers against its holdout, and the programme as a whole.

By intention to treat. A strategy's effect is what it adds while the others run as they do. The programme is the sum
of its strategies' increments, each against its own randomised holdout, with the error taken over customers because
one may be in several; customers "held out of everything" would be no fair comparison, for whom a strategy meets at
all depends on what the others did to them. The sum leaves out what two strategies do only together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.experiments.comparison import CONFIDENCE, Difference, Inconclusive, Ratio
from operation_agent.kit.ids import new_id
from operation_agent.store.shops import Shop

from . import estimation
from .population import METRICS, Population, load, strategies_of

PROGRAMME = "programme"


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
    names = strategies_of(session, shop)
    everyone = load(session, shop, as_of=as_of)
    effects = []
    for strategy_id, key in names.items():
        population = everyone.where(everyone.strategies == strategy_id)
        effects += _effects(population, strategy_id, key, as_of, computed_at)
    effects += _effects(everyone, None, PROGRAMME, as_of, computed_at)
    _store(session, shop, effects)
    return effects


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
    population: Population, strategy_id: UUID | None, key: str, as_of: datetime, computed_at: datetime
) -> list[Effect]:
    treated = len(set(population.customers[~population.held_out]))
    held_out = len(set(population.customers) - set(population.customers[~population.held_out]))
    return [
        Effect(
            new_id(), strategy_id, key, metric, as_of, computed_at, treated, held_out,
            estimate=None if isinstance(result, Inconclusive) else result.estimate,
            lower=None if isinstance(result, Inconclusive) else result.lower,
            upper=None if isinstance(result, Inconclusive) else result.upper,
            reason=result.reason if isinstance(result, Inconclusive) else None,
            detail=detail,
        )
        for metric, result, detail in _measure(population)
    ]  # fmt: skip


Result = Difference | Ratio | Inconclusive


def _measure(population: Population) -> list[tuple[str, Result, dict[str, Any]]]:
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
    measured: list[tuple[str, Result, dict[str, Any]]] = []
    for metric in METRICS:
        result = refusal or estimation.total(influences[metric])
        measured.append((metric, result, common | _detail(population, metric, result)))
    roi = refusal or estimation.return_on_spend(influences["profit"], influences["spend"])
    return [*measured, ("roi", roi, common | _why(roi))]


def _balance(population: Population) -> dict[str, float | Inconclusive]:
    """Each strategy's sample-ratio check by itself: two wrongs could cancel out in the sum."""
    return {
        str(strategy): estimation.balance(population.where(population.strategies == strategy))
        for strategy in sorted(set(population.strategies), key=str)
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
