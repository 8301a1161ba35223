"""Estimators are fitted to what a strategy did, as of the moments it did it, and replaced only by better ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import text

from operation_agent.experiments.uplift import Model
from operation_agent.feedback import estimators
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import digest_id, new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import create_shop
from operation_agent.strategies import lifecycle

pytestmark = pytest.mark.integration

START = datetime(1998, 3, 1, 9, tzinfo=UTC)

_CUSTOMERS = """
INSERT INTO customers (shop_id, id, random_key, email, first_seen_at, last_seen_at, created_at)
SELECT :shop, id, id, id || '@example.com', :start, :start, :start FROM unnest(CAST(:ids AS uuid[])) AS id
"""
_ORDERS = """
INSERT INTO orders (shop_id, id, source_order_id, customer_id, ordered_at, currency, total_minor, updated_at, event_id)
SELECT :shop, gen_random_uuid(), gen_random_uuid()::text, id, :at, 'USD', 5000, :at, gen_random_uuid()
FROM unnest(CAST(:ids AS uuid[])) AS id
"""
_DECISIONS = """
INSERT INTO decisions (shop_id, id, recorded_at, decided_at, customer_id, strategy_id, rule_id, rule_version, trigger,
  verdict, arm, propensity, receipt)
SELECT :shop, d, :at, :at, c, :strategy, :strategy, 1, 'schedule', CASE WHEN h THEN 'holdout' ELSE 'act' END, 'coupon',
  1, '{}' FROM unnest(CAST(:decisions AS uuid[]), CAST(:ids AS uuid[]), CAST(:held AS boolean[])) AS r (d, c, h)
"""
_ASSIGNMENTS = """
INSERT INTO assignments (shop_id, strategy_id, customer_id, held_out, propensity, assigned_at, decision_id)
SELECT :shop, :strategy, c, h, 0.5, :at, d
FROM unnest(CAST(:decisions AS uuid[]), CAST(:ids AS uuid[]), CAST(:held AS boolean[])) AS r (d, c, h)
"""


def shop_with_history(engine, slug: str, *, gain: float, n: int = 4_000):
    """Half had bought before; `gain` is what being treated adds to the chance of an order, for these alone."""
    shop = create_shop(engine, slug=slug, name="E", currency="USD", sandbox=True)
    generator = np.random.default_rng(1)
    ids = [digest_id(slug, str(i)) for i in range(n)]
    held, loyal = generator.random(n) < 0.5, generator.random(n) < 0.5
    chance = 0.15 + gain * (loyal & ~held)
    ordered = generator.random(n) < chance
    with for_shop(engine, shop.id) as session:
        row = lifecycle.start(session, shop, "win_back", at=SYSTEM.now(), actor="test")
        session.execute(text(_CUSTOMERS), {"shop": shop.id, "ids": ids, "start": START - timedelta(days=300)})
        before = {"shop": shop.id, "ids": [one for one, is_loyal in zip(ids, loyal, strict=True) if is_loyal]}
        session.execute(text(_ORDERS), {**before, "at": START - timedelta(days=200)})
        after = {"shop": shop.id, "ids": [one for one, did in zip(ids, ordered, strict=True) if did]}
        session.execute(text(_ORDERS), {**after, "at": START + timedelta(days=2)})
        values = {
            "shop": shop.id, "strategy": row.id, "at": START, "ids": ids, "held": held.tolist(),
            "decisions": [new_id() for _ in ids],
        }  # fmt: skip
        session.execute(text(_DECISIONS), values)
        session.execute(text(_ASSIGNMENTS), values)
    return shop, row.id


def fitted(engine, shop, days: int):
    with for_shop(engine, shop.id) as session:
        (found,) = estimators.fit_all(session, shop, as_of=START + timedelta(days=days), fitted_at=SYSTEM.now())
        stored = session.execute(
            text("SELECT version, state, model FROM estimators WHERE shop_id = :s ORDER BY version"), {"s": shop.id}
        ).all()
    return found, stored


def test_those_who_can_be_moved_are_found_from_features_as_of_their_assignment(engine):
    shop, _ = shop_with_history(engine, "loyal", gain=0.25)
    found, stored = fitted(engine, shop, days=60)
    assert found.state == "live" and found.quality["qini_5_percent"]["coupon"] > 0
    model = Model.from_json(stored[0].model)
    names = [one.name for one in model.scalings]
    columns = {name: np.zeros(2) for name in names} | {"orders": np.array([0.0, 1.0])}
    missing = {name for name in names if name.startswith("days_") or name.endswith("_minor")}
    columns |= {name: np.array([np.nan, 5_000.0 if name.endswith("_minor") else 200.0]) for name in missing}
    stranger, loyal = model.increments(columns)["coupon"]
    assert loyal > stranger + 0.1


def test_a_second_fit_retires_the_first_and_a_fit_that_shows_nothing_does_not(engine):
    shop, strategy = shop_with_history(engine, "again", gain=0.25)
    fitted(engine, shop, days=60)
    _, stored = fitted(engine, shop, days=61)
    assert [(row.version, row.state) for row in stored] == [(1, "retired"), (2, "live")]
    with for_shop(engine, shop.id) as session:
        session.execute(text("DELETE FROM orders WHERE shop_id = :s AND ordered_at > :at"), {"s": shop.id, "at": START})
    found, stored = fitted(engine, shop, days=62)
    assert found.quality["reason"] == "too_few"
    assert [row.state for row in stored] == ["retired", "live", "inconclusive"]
    assert isinstance(strategy, UUID)


def test_assignments_whose_window_is_not_over_say_nothing_yet(engine):
    shop, _ = shop_with_history(engine, "early", gain=0.25, n=1_200)
    found, _ = fitted(engine, shop, days=1)
    assert (found.state, found.quality["rows"], found.quality["reason"]) == ("inconclusive", 0, "too_few")
