"""Strategies: started from a template, paused, archived; what workers keep of them is never old."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from sqlalchemy import text

from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Conflict, NotFound, Rejected
from operation_agent.store import audit
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from operation_agent.strategies import lifecycle, live
from operation_agent.strategies.library import library, template
from rules.strategy import Budget

pytestmark = pytest.mark.integration


@pytest.fixture
def act(engine, shop_id):
    """Calls a function of the lifecycle in a transaction of its own."""

    def call(function, *args, **options):
        with for_shop(engine, shop_id) as session:
            shop = load_shop(session, shop_id)
            return function(session, shop, *args, at=SYSTEM.now(), actor="op", **options)

    return call


def keys(engine, shop_id) -> list[str]:
    with for_shop(engine, shop_id) as session:
        return [one.key for one in live.live_rules(session, shop_id)]


def test_every_template_starts_or_asks_for_the_yes_that_it_wants(engine, shop_id, act):
    for key, strategy in library().items():
        if strategy.limits.approval is not None:
            with pytest.raises(Conflict, match="needs the yes"):
                act(lifecycle.start, key)
            continue
        row = act(lifecycle.start, key)
        assert (row.state, row.key, row.goal, row.holdout) == ("live", strategy.key, strategy.goal, 0.2)
        assert lifecycle.read(row.definition) == strategy


def test_the_rules_of_what_was_started_are_live(engine, shop_id, act):
    for key in ("conversion", "retention", "repurchase", "win_back"):
        assert act(lifecycle.start, key).started_at is not None
    assert keys(engine, shop_id) == [
        "conversion/unfinished-purchase", "repurchase/due-again", "retention/next-purchase", "win-back/lapsed",
    ]  # fmt: skip
    with for_shop(engine, shop_id) as session:
        assert live.triggering_types(session, shop_id) == {"cart.added", "product.viewed", "order.paid"}
        assert [row.key for row in lifecycle.list_strategies(session, shop_id)] == [
            "conversion", "repurchase", "retention", "win-back",
        ]  # fmt: skip
        assert audit.verify(session, shop_id) is None
        verbs = session.execute(
            text("SELECT verb, count(*) FROM audit_log WHERE shop_id = :s AND actor = 'op' GROUP BY 1"), {"s": shop_id}
        ).all()
    assert dict(map(tuple, verbs)) == {"strategy.created": 4, "strategy.published": 4}


def test_every_template_becomes_a_draft_whose_rules_decide_nothing(engine, shop_id, act):
    for found in library().values():
        row = act(lifecycle.create, found)
        assert (row.state, row.version, row.draft, row.holdout) == ("draft", None, 1, found.holdout)
    assert keys(engine, shop_id) == []


def test_what_was_started_is_the_template_with_what_was_asked_for(engine, shop_id, act):
    row = act(lifecycle.start, "win_back", holdout=0.1, budget=Decimal("12.34"))
    assert lifecycle.read(row.definition) == replace(template("win_back"), holdout=0.1).limited(
        budget=Budget(Decimal("12.34"))
    )
    with for_shop(engine, shop_id) as session:
        budget = session.execute(text("SELECT * FROM budgets WHERE id = :id"), {"id": row.budget_id}).one()
    assert (budget.limit_minor, budget.currency, budget.reserved_minor) == (1234, "USD", 0)


def test_a_strategy_goes_only_where_it_may(engine, shop_id, act):
    act(lifecycle.start, "conversion")
    with pytest.raises(Conflict, match="is live"):
        act(lifecycle.start, "conversion")
    assert act(lifecycle.pause, "conversion").state == "paused"
    with pytest.raises(Conflict):
        act(lifecycle.pause, "conversion")
    assert keys(engine, shop_id) == []
    started = act(lifecycle.start, "conversion").started_at
    assert keys(engine, shop_id) == ["conversion/unfinished-purchase"]
    act(lifecycle.move, "conversion", "archived")
    with pytest.raises(Conflict):
        act(lifecycle.move, "conversion", "live")
    with for_shop(engine, shop_id) as session:
        assert lifecycle.find(session, shop_id, "conversion").started_at == started
        states = session.execute(text("SELECT DISTINCT state FROM rules WHERE shop_id = :s"), {"s": shop_id}).all()
    assert [state for (state,) in states] == ["retired"]


def test_what_is_not_there_is_not_found(act):
    with pytest.raises(NotFound, match="conversion, deal_win_back"):
        act(lifecycle.start, "growth")
    with pytest.raises(NotFound, match="win-back"):
        act(lifecycle.pause, "win-back")


def test_a_definition_that_does_not_read_is_rejected_with_its_path(act):
    raw = template("conversion").to_dict()
    raw["rules"][0]["if"] = {"any": []}
    with pytest.raises(Rejected) as caught:
        lifecycle.read(raw)
    assert (caught.value.code, caught.value.where) == ("strategy", "rules[0].if.any")
    other = template("conversion").limited(budget=Budget(Decimal(5), "EUR"))
    with pytest.raises(Rejected, match="trades in USD"):
        act(lifecycle.create, other)


def test_a_change_that_was_rolled_back_is_forgotten(engine, shop_id, act):
    act(lifecycle.start, "conversion")

    class UndoError(Exception):
        pass

    with pytest.raises(UndoError), for_shop(engine, shop_id) as session:
        lifecycle.start(session, load_shop(session, shop_id), "win_back", at=SYSTEM.now(), actor="op")
        assert len(live.live_rules(session, shop_id)) == 2
        raise UndoError
    assert keys(engine, shop_id) == ["conversion/unfinished-purchase"]
    with for_shop(engine, shop_id) as session:
        first = live.live_rules(session, shop_id)
        assert live.live_rules(session, shop_id) is first
