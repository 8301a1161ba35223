"""What decisions need of a shop as a whole: its settings, and what was learned of its strategies."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.kit.money import minor_digits
from operation_agent.store.shops import Shop
from operation_agent.strategies.live import LiveRule

from .candidates import Circumstances
from .scoring import Estimator

KEPT = 1024

_kept: OrderedDict[UUID, Estimator] = OrderedDict()


def circumstances(
    session: Session, shop: Shop, rules: Sequence[LiveRule], *, campaign_id: UUID | None = None
) -> Circumstances:
    """Of a shop, with the live estimators of these rules' strategies."""
    return Circumstances(
        seed=shop.seed,
        currency_digits=minor_digits(shop.currency),
        margin_rate=float(shop.margin_rate),
        settings=shop.settings,
        zone=shop.time_zone,
        estimators=_load(session, shop.id, sorted({rule.strategy_id for rule in rules})),
        campaign_id=campaign_id,
    )


def _load(session: Session, shop_id: UUID, strategies: Sequence[UUID]) -> dict[UUID, Estimator]:
    rows = session.execute(
        text(
            "SELECT id, strategy_id FROM estimators WHERE shop_id = :shop AND state = 'live'"
            " AND strategy_id = ANY(CAST(:strategies AS uuid[]))"
        ),
        {"shop": shop_id, "strategies": list(strategies)},
    ).all()
    missing = [row.id for row in rows if row.id not in _kept]
    if missing:
        _read(session, shop_id, missing)
    return {row.strategy_id: _kept[row.id] for row in rows}


def _read(session: Session, shop_id: UUID, ids: Sequence[UUID]) -> None:
    """A version never changes: it is read once per process."""
    rows = session.execute(
        text("SELECT id, kind, version, model FROM estimators WHERE shop_id = :shop AND id = ANY(:ids)"),
        {"shop": shop_id, "ids": list(ids)},
    )
    for row in rows:
        _kept[row.id] = Estimator.read(row.kind, row.version, row.model)
        while len(_kept) > max(KEPT, len(ids)):
            _kept.popitem(last=False)
