"""What the index in memory tells of customers at past moments is what the features' own text tells."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import text

from operation_agent import agent
from operation_agent.customers import features
from operation_agent.customers.wire import Instants
from operation_agent.rehearsal.index import TOLD, Index
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from tests.integration.test_customers_features import a_history

pytestmark = pytest.mark.integration

UNTIL = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_says_what_the_features_say(engine, shop_id, seed):
    drawn = random.Random(seed)
    told = sorted(
        (event for number in range(25) for event in a_history(drawn, f"c{number}")), key=lambda one: one.occurred_at
    )
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        agent.observe(session, shop, told, recorded_at=UNTIL)
    first, last = told[0].occurred_at, told[-1].occurred_at
    moments = [first + (last - first) * drawn.random() for _ in range(12)]
    moments += [event.occurred_at + drawn.choice([0, 1, -1]) * drawn.choice(SPANS) for event in drawn.sample(told, 20)]
    with for_shop(engine, shop_id) as session:
        index = Index(session, shop, TOLD, max(moments))
        ids = list(index.ids)
        targets = [(one, at) for one in ids for at in moments]
        table = features.compute(session, shop_id, targets)
        cancelled = set(
            session.execute(
                text("SELECT customer_id FROM orders WHERE shop_id = :s AND cancelled_at IS NOT NULL"), {"s": shop_id}
            ).scalars()
        )
    numbers = np.repeat(np.arange(len(ids)), len(moments))
    assert (index.numbers_of(table.customer_ids.raw) == numbers).all()
    columns, unknown = index.columns(numbers, Instants.of([at for _, at in targets]).raw)
    assert columns.keys() == TOLD
    assert {ids[number] for number in numbers[unknown]} == cancelled & set(ids)
    assert 0 < len(cancelled) < len(ids)
    known = ~unknown
    for name, column in columns.items():
        expected = table.columns[name.removeprefix("customer.")]
        np.testing.assert_allclose(column[known], expected[known], rtol=1e-12, err_msg=name)


SPANS = [timedelta(0), timedelta(microseconds=1), timedelta(days=7), timedelta(days=30)]


def test_a_shop_where_nothing_happened_yet(engine, shop_id):
    with for_shop(engine, shop_id) as session:
        index = Index(session, load_shop(session, shop_id), TOLD, UNTIL)
    nobody = np.zeros(0, np.int64)
    columns, unknown = index.columns(nobody, nobody)
    assert len(index) == len(unknown) == 0 and all(len(column) == 0 for column in columns.values())
