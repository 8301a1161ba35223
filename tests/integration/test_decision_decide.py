"""Deciding on real PostgreSQL: who is held out, what stops a candidate, and that batches do not change the result."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import numpy as np
import orjson
import pytest
from sqlalchemy import text

from operation_agent.customers import features
from operation_agent.decision import archive, batch
from operation_agent.decision.explain import explain
from operation_agent.decision.facts import SCHEDULE, Trigger
from operation_agent.decision.receipt import VERDICTS
from operation_agent.events.event import Event
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id, uniform
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from operation_agent.strategies import lifecycle, live
from operation_agent.strategies.library import library
from tests.integration.deciding import AT, carts, decide, make_people, started, table

pytestmark = pytest.mark.integration


@pytest.fixture
def people(engine, shop_id):
    """Makes `n` customers with an address and consent, the same keys in every shop."""
    return lambda n, **how: make_people(engine, shop_id, n, **how)


def verdicts(decisions) -> Counter:
    return Counter(decision.verdict for decision in decisions)


def test_the_holdout_has_its_share_and_everything_logs_its_propensity(engine, shop_id, people):
    started(engine, shop_id, "conversion")
    decisions = decide(engine, shop_id, carts(people(4000)))
    counted = verdicts(decisions)
    assert set(counted) == {"act", "holdout"}
    expected = 0.05 + 0.95 * 0.2
    assert abs(counted["holdout"] / 4000 - expected) < 4 * (expected * (1 - expected) / 4000) ** 0.5
    for decision in decisions:
        wanted = expected if decision.held_out else (1 - expected) / 2
        assert decision.propensity == pytest.approx(wanted)
        assert decision.arm is not None
    arms = Counter(decision.arm.key for decision in decisions if not decision.held_out)
    assert abs(arms["reminder"] / sum(arms.values()) - 0.5) < 0.05
    with for_shop(engine, shop_id) as session:
        stored = session.execute(
            text("SELECT verdict, count(*) FROM decisions WHERE shop_id = :s GROUP BY 1"), {"s": shop_id}
        ).all()
        assigned = session.execute(
            text("SELECT held_out, count(*), avg(propensity) FROM assignments WHERE shop_id = :s GROUP BY 1"),
            {"s": shop_id},
        ).all()
        enrolled = session.execute(text("SELECT count(*) FROM enrolments WHERE shop_id = :s"), {"s": shop_id}).scalar()
    assert dict(map(tuple, stored)) == counted
    assert {row.held_out: row.count for row in assigned} == {True: counted["holdout"], False: counted["act"]}
    assert {row.held_out: pytest.approx(row.avg) for row in assigned} == {True: expected, False: 1 - expected}
    assert enrolled == 4000


def test_a_receipt_recomputes_and_explains_its_decision(engine, shop_id, people):
    shop = started(engine, shop_id, "conversion")
    decide(engine, shop_id, carts(people(50)))
    with for_shop(engine, shop_id) as session:
        ids = session.execute(text("SELECT id FROM decisions WHERE shop_id = :s"), {"s": shop_id}).scalars().all()
        archived = [archive.find(session, shop_id, one) for one in ids]
        replayed = [archive.again(session, shop, one) for one in ids]
    assert all(one.is_same for one in replayed)
    rows = [SimpleNamespace(**one.row) for one in archived]
    for row, receipt in zip(rows, (one.receipt for one in archived), strict=True):
        sides = [uniform(shop.seed, *draw["salt"]) < draw["share"] for draw in receipt["side"]["draws"]]
        assert any(sides) == (row.verdict == "holdout") == receipt["side"]["held_out"]
        draw = uniform(shop.seed, *receipt["arm_draw"]["salt"])
        assert draw == receipt["arm_draw"]["draw"]
        assert row.arm == receipt["arms"][0 if draw < 0.5 else 1]["key"]
        assert [leaf["holds"] for leaf in receipt["seen"]] == [False, True]
        assert receipt["guardrails"] == dict.fromkeys(receipt["guardrails"], True)
        assert receipt["cause"]["event_id"] == str(row.event_id)
        assert any("Open cart" in line for line in explain(receipt, "en-US"))
        assert any("有未结购物车" in line for line in explain(receipt, "zh-CN"))
    assert {row.verdict for row in rows} == {"act", "holdout"}


def outcome(decisions) -> list[tuple[Any, ...]]:
    return sorted(
        (one.trigger.key, one.rule_key, one.verdict, one.arm.key if one.arm else None, one.propensity, one.costs)
        for one in decisions
    )


@pytest.mark.parametrize("size", [1, 7, 60])
def test_batches_do_not_change_the_result(engine, shop_id, people, size):
    started(engine, shop_id, "conversion", "retention")
    somebody = people(60)
    triggers = [one for number in range(3) for one in carts(somebody, AT + timedelta(days=8 * number), number)]
    found = []
    for begin in range(0, len(triggers), size):
        found += decide(engine, shop_id, triggers[begin : begin + size])
    assert Counter(one.verdict for one in found)["already_enrolled"] == 60
    summary = orjson.dumps(outcome(found))
    reference = _REFERENCE.setdefault("outcome", summary)
    assert summary == reference


_REFERENCE: dict[str, bytes] = {}


def test_a_second_trigger_in_one_call_sees_the_first(engine, shop_id, people):
    started(engine, shop_id, "conversion")
    somebody = people(20)
    later, earlier = carts(somebody, AT + timedelta(hours=1), 2), carts(somebody, AT, 1)
    decisions = decide(engine, shop_id, [*later, *earlier])
    assert verdicts(decisions)["already_enrolled"] == 20
    assert {one.decided_at for one in decisions if one.arm is not None} == {AT}


def test_the_side_is_kept_for_later_decisions_of_the_strategy(engine, shop_id, people):
    started(engine, shop_id, "conversion")
    somebody = people(100)
    first = {one.customer_id: one for one in decide(engine, shop_id, carts(somebody))}
    with for_shop(engine, shop_id) as session:
        # a holdout widened later must not move those who have a side already
        session.execute(
            text("UPDATE shops SET settings = settings || '{\"global_holdout\": 0.9}' WHERE id = :s"), {"s": shop_id}
        )
    second = decide(engine, shop_id, carts(somebody, AT + timedelta(days=30), 1))
    for one in second:
        assert one.receipt["side"]["kept"]
        assert (one.held_out, one.arm) == (first[one.customer_id].held_out, first[one.customer_id].arm)
        assert one.side_propensity == pytest.approx(first[one.customer_id].side_propensity)


def test_the_shop_wide_holdout_is_held_out_of_every_strategy(engine, shop_id, people):
    started(engine, shop_id, "conversion", "retention", settings={"global_holdout": 0.3}, holdout=0.0)
    somebody = people(500)
    orders = [
        Trigger(
            one.id, one.random_key, "order.paid",
            Event(new_id(), "test", f"o-{one.random_key}", "order.paid", AT, AT, {}, {"order_id": one.id.hex}),
            AT + timedelta(days=20), AT,
        )
        for one in somebody
    ]  # fmt: skip
    carted = {one.customer_id: one.held_out for one in decide(engine, shop_id, carts(somebody))}
    ordered = {one.customer_id: one.held_out for one in decide(engine, shop_id, orders, table(500, orders=1.0))}
    assert carted == ordered
    assert 100 < sum(carted.values()) < 200


# -- each guardrail stops, and only it --------------------------------------------------------------------------------


def stopped_by(decisions) -> set[tuple[str, ...]]:
    return {tuple(name for name, found in one.receipt["guardrails"].items() if found is not True) for one in decisions}


@pytest.mark.parametrize("state", [None, "unsubscribed"])
def test_without_consent_nothing_is_decided_for(engine, shop_id, people, state):
    started(engine, shop_id, "conversion")
    decisions = decide(engine, shop_id, carts(people(3, consent=state)))
    assert verdicts(decisions) == {"no_consent": 3}
    assert stopped_by(decisions) == {("consent",)}
    assert decisions[0].receipt["guardrails"]["consent"] == {"channel": "email", "topic": "marketing", "state": state}


def test_without_an_address_nothing_is_decided_for(engine, shop_id, people):
    started(engine, shop_id, "conversion")
    decisions = decide(engine, shop_id, carts(people(3, email=False)))
    assert verdicts(decisions) == {"no_address": 3}
    assert stopped_by(decisions) == {("address",)}


def test_a_suppressed_address_is_left_alone(engine, shop_id, people):
    started(engine, shop_id, "conversion")
    somebody = people(2)
    with for_shop(engine, shop_id) as session:
        session.execute(
            text(
                "INSERT INTO suppressions (shop_id, channel, address, reason, created_at)"
                " VALUES (:s, 'email', :address, 'bounced', :at)"
            ),
            {"s": shop_id, "address": somebody[0].email, "at": AT},
        )
    decisions = decide(engine, shop_id, carts(somebody))
    by_customer = {one.customer_id: one for one in decisions}
    assert by_customer[somebody[0].id].verdict == "suppressed"
    assert stopped_by([by_customer[somebody[0].id]]) == {("suppression",)}
    assert by_customer[somebody[1].id].verdict in ("act", "holdout")


def planned(engine, shop_id, customer: UUID, *times: datetime, state: str = "ready", held_out: bool = False) -> None:
    with for_shop(engine, shop_id) as session:
        for due in times:
            session.execute(
                text(
                    "INSERT INTO actions (shop_id, id, decision_id, customer_id, strategy_id, rule_id, arm, step, type,"
                    " channel, held_out, parameters, dedupe_key, decided_at, state, due_at, created_at)"
                    " VALUES (:s, :id, :id, :customer, :id, :id, 'a', 0, 'email', 'email', :held_out, '{}', :key, :due,"
                    " :state, :due, :due)"
                ),
                {
                    "s": shop_id, "id": new_id(), "customer": customer, "held_out": held_out, "due": due,
                    "state": state, "key": new_id().hex,
                },
            )  # fmt: skip


@pytest.mark.parametrize("held_out", [False, True])
def test_the_frequency_cap_counts_what_is_planned_and_the_held_out_alike(engine, shop_id, people, held_out):
    started(engine, shop_id, "conversion")
    somebody = people(3)
    due = AT + timedelta(hours=1)
    planned(engine, shop_id, somebody[0].id, due - timedelta(days=6), due + timedelta(hours=1), held_out=held_out)
    planned(engine, shop_id, somebody[1].id, due - timedelta(days=7), due - timedelta(days=6), held_out=held_out)
    planned(engine, shop_id, somebody[2].id, due - timedelta(days=6), due - timedelta(days=5), state="cancelled")
    found = {one.customer_id: one for one in decide(engine, shop_id, carts(somebody))}
    assert found[somebody[0].id].verdict == "capped"
    assert stopped_by([found[somebody[0].id]]) == {("cap",)}
    assert found[somebody[1].id].verdict in ("act", "holdout")
    assert found[somebody[2].id].verdict in ("act", "holdout")


def test_a_cap_sees_what_another_strategy_planned_in_the_same_call(engine, shop_id, people):
    started(engine, shop_id, "conversion")
    definition = library()["retention"].to_dict()
    definition["rules"][0]["when"] = {"event": ["cart.added"], "frequency": "every_time"}
    definition["rules"][0]["if"] = {"all": [{"field": "customer.orders", "op": "equals", "value": 0}]}
    definition["caps"] = [{"channel": "email", "count": 1, "window": "P7D"}]
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        lifecycle.create(session, shop, lifecycle.read(definition), at=SYSTEM.now(), actor="test")
        lifecycle.move(session, shop, "retention", "live", at=SYSTEM.now(), actor="test")
    decisions = decide(engine, shop_id, carts(people(10)))
    found = Counter((one.strategy_key, one.verdict) for one in decisions)
    assert found["retention", "capped"] == 10
    assert found["conversion", "act"] + found["conversion", "holdout"] == 10


def test_a_budget_that_does_not_reach_stops_the_costliest_candidates_last(engine, shop_id, people):
    started(engine, shop_id, "conversion", budget=10, holdout=0.0, settings={"global_holdout": 0.0})
    somebody = people(10)
    orders = np.array([1000.0 * (i + 1) for i in range(10)])
    decisions = decide(engine, shop_id, carts(somebody), table(10, open_cart=1.0, average_order_minor=orders))
    stopped = [one for one in decisions if one.verdict == "over_budget"]
    assert stopped
    assert stopped_by(stopped) == {("budget",)}
    reserved = sum(sum(one.costs) for one in decisions if one.verdict == "act")
    assert 0 < reserved <= 1000
    scores = [one.receipt["score"] for one in decisions]
    assert scores == sorted(scores, reverse=True)


def test_one_trigger_moves_a_customer_by_one_rule_of_a_strategy(engine, shop_id, people):
    definition = library()["conversion"].to_dict()
    second = {**definition["rules"][0], "key": "second", "priority": 99}
    definition["rules"].append(second)
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        lifecycle.create(session, shop, lifecycle.read(definition), at=SYSTEM.now(), actor="test")
        lifecycle.move(session, shop, "conversion", "live", at=SYSTEM.now(), actor="test")
    decisions = decide(engine, shop_id, carts(people(5)))
    assert len(decisions) == 5
    assert {one.rule_key for one in decisions} == {"conversion/second"}
    for one in decisions:
        (other,) = one.receipt["alternatives"]
        assert (other["rule"], other["priority"]) == ("conversion/unfinished-purchase", 30)
        assert "stopped" not in other  # it only came after
    again = decide(engine, shop_id, [one.trigger for one in decisions])
    # the better rule's entry stops it, so the other one, whose own entry is still to come, takes the customer
    assert {one.rule_key for one in again} == {"conversion/unfinished-purchase"}
    assert {tuple(one.receipt["alternatives"][0]["stopped"]) for one in again} == {("enrolment",)}


def test_what_no_rule_matches_leaves_no_trace(engine, shop_id, people):
    started(engine, shop_id, "conversion")
    assert decide(engine, shop_id, carts(people(5)), table(5)) == []
    with for_shop(engine, shop_id) as session:
        assert session.execute(text("SELECT count(*) FROM decisions WHERE shop_id = :s"), {"s": shop_id}).scalar() == 0


def test_every_verdict_is_in_the_list(engine, shop_id):
    from operation_agent.decision.guardrails import STOPS_AS

    assert set(VERDICTS) == {"act", "holdout", *STOPS_AS.values()}


# -- schedules --------------------------------------------------------------------------------------------------------


def test_a_paused_strategy_decides_nothing_and_goes_on_as_it_was(engine, shop_id, people):
    started(engine, shop_id, "conversion")
    somebody = people(3)
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        lifecycle.pause(session, shop, "conversion", at=SYSTEM.now(), actor="test")
    assert decide(engine, shop_id, carts(somebody)) == []
    started(engine, shop_id, "conversion")
    assert len(decide(engine, shop_id, carts(somebody))) == 3


def test_real_features_of_real_orders_bring_a_customer_up_when_due(engine, shop_id, people):
    started(engine, shop_id, "repurchase")
    somebody = people(4)
    with for_shop(engine, shop_id) as session:
        for number, one in enumerate(somebody):
            last = 27 if number < 3 else 3  # bought every 30 days; the fourth customer was here just now
            for age in (last + 60, last + 30, last):
                session.execute(
                    text(
                        "INSERT INTO orders (shop_id, id, source_order_id, customer_id, ordered_at, currency,"
                        " total_minor, updated_at, event_id)"
                        " VALUES (:s, :id, :source, :c, :at, 'USD', 2000, :at, :id)"
                    ),
                    {
                        "s": shop_id, "id": new_id(), "source": new_id().hex, "c": one.id,
                        "at": AT - timedelta(days=age),
                    },
                )  # fmt: skip
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        (rule,) = live.live_rules(session, shop_id)
        found = features.compute_all(session, shop_id, AT)
        asked = zip(found.customer_ids, found.random_keys, strict=True)
        triggers = [Trigger(*one, SCHEDULE, None, AT, rule_ids=frozenset({rule.rule_id})) for one in asked]
        alone = features.compute(session, shop_id, [(one.customer_id, one.at) for one in triggers])
        assert found.columns["days_since_order"].tolist() == alone.columns["days_since_order"].tolist()
        decisions = batch.decide(session, shop, triggers, found, recorded_at=SYSTEM.now())
    assert {one.customer_id for one in decisions} == {one.id for one in somebody[:3]}
    assert {(one.prior_orders, one.prior_revenue_minor) for one in decisions} == {(3, 6000)}
    due = decisions[0].receipt["seen"][2]
    assert (due["seen"], due["against"]) == (27, [24, 45])
