"""Strategies are proposed for real clusters: reachable people, honest worth, drafts, and reasons for the rest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from operation_agent.clustering import job as clustering
from operation_agent.clustering import membership
from operation_agent.customers import features
from operation_agent.decision import batch
from operation_agent.decision.facts import SCHEDULE, Trigger
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Conflict
from operation_agent.kit.ids import digest_id
from operation_agent.proposals import evidence, job
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop, update_settings
from operation_agent.strategies import authoring, lifecycle, live
from operation_agent.strategies.predictor import Measured

pytestmark = pytest.mark.integration

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
GROUPS = {"once": (300, 1, 0, 300, 2_000), "loyal": (200, 8, 20, 30, 6_000)}
"""Size, orders, days between orders, days since the last one, minor units an order."""

_STATEMENTS = (
    """INSERT INTO customers (shop_id, id, random_key, email, first_seen_at, last_seen_at, created_at)
    SELECT :shop, md5(:name || i)::uuid, md5('key' || :name || i)::uuid, :name || i || '@example.com',
           :at - interval '400 days', :at, :at FROM generate_series(1, :size) i""",
    """INSERT INTO orders (shop_id, id, source_order_id, customer_id, ordered_at, currency, total_minor, updated_at,
                           event_id)
    SELECT :shop, md5(:name || i || '-' || o)::uuid, :name || i || '-' || o, md5(:name || i)::uuid,
           :at - (:since * (0.8 + 0.4 * (i % 97) / 97.0) + :gap * o) * interval '1 day', 'USD',
           :minor * (0.7 + 0.6 * (i % 89) / 89.0), :at, md5(:name || o)::uuid
    FROM generate_series(1, :size) i, generate_series(0, :orders - 1) o""",
    """INSERT INTO consents (shop_id, customer_id, channel, topic, state, changed_at, event_id)
    SELECT :shop, md5(:name || i)::uuid, 'email', 'marketing',
           CASE WHEN i % 4 = 0 THEN 'unsubscribed' ELSE 'subscribed' END, :at, md5(:name)::uuid
    FROM generate_series(1, :size) i""",
)


@pytest.fixture
def shop(engine, shop_id):
    with for_shop(engine, shop_id) as session:
        for name, (size, orders, gap, since, minor) in GROUPS.items():
            values = {
                "shop": shop_id, "name": name, "size": size, "orders": orders, "gap": gap, "since": since,
                "minor": minor, "at": AT,
            }  # fmt: skip
            for statement in _STATEMENTS:
                session.execute(text(statement), values)
        return load_shop(session, shop_id)


def clustered(engine, shop):
    assert clustering.run(engine, shop, now=SYSTEM.now(), as_of=AT)["state"] == "live"


def proposed(engine, shop, at=AT):
    with for_shop(engine, shop.id) as session:
        return job.propose(session, load_shop(session, shop.id), as_of=at, at=SYSTEM.now(), actor="test")


def scalars(engine, shop, sql):
    with for_shop(engine, shop.id) as session:
        return list(session.execute(text(sql), {"s": shop.id}).scalars())


def test_without_a_clustering_there_is_nothing_to_propose_for(engine, shop):
    with pytest.raises(Conflict, match="no clustering"):
        proposed(engine, shop)


_CONSENTED = """
SELECT count(*) FROM cluster_members m JOIN consents c ON c.shop_id = m.shop_id AND c.customer_id = m.customer_id
WHERE m.shop_id = :s AND m.lineage_id = '{lineage}' AND c.state = 'subscribed'
"""


def test_the_best_set_arrives_as_drafts_with_reasons_and_the_rest_says_why_not(engine, shop):
    clustered(engine, shop)
    run = proposed(engine, shop)
    chosen = [one for one in run.proposals if one.left_out is None]
    assert chosen and all(one.state == "drafted" and one.prediction.profit > 0 for one in chosen)
    assert len({one.draft.slot for one in chosen}) == len(chosen) <= job.STRATEGIES
    assert all(one.draft.reasons["zh"] and one.draft.reasons["en"] for one in run.proposals)
    assert {one.left_out.why for one in run.proposals if one.left_out} <= {
        "loses_money", "better_variant", "budget", "messages", "too_many",
    }  # fmt: skip
    states = "SELECT state FROM strategies WHERE shop_id = :s"
    assert scalars(engine, shop, states) == ["draft"] * len(chosen)
    # nobody without consent is counted: a quarter has unsubscribed
    clusters = {one.draft.cluster.lineage: one.draft.cluster for one in run.proposals}.values()
    for one in clusters:
        consented = scalars(engine, shop, _CONSENTED.format(lineage=one.lineage))
        assert (one.reachable, 0.6 < one.reachable / one.size < 0.9) == (consented[0], True)
    for one in chosen:
        assert one.prediction.customers <= one.draft.cluster.reachable * 0.8
        assert float(one.draft.strategy.budget.limit) * 100 >= one.prediction.liability


def test_a_budget_that_is_too_small_leaves_things_out_and_says_so(engine, shop):
    clustered(engine, shop)
    with for_shop(engine, shop.id) as session:
        update_settings(session, shop, {"proposals": {"budget": "20.00", "strategies": 9}})
    run = proposed(engine, shop)
    assert run.spend <= 2_000
    assert any(one.left_out and one.left_out.why == "budget" for one in run.proposals)


def test_a_second_run_keeps_its_own_drafts_and_leaves_running_strategies_alone(engine, shop):
    clustered(engine, shop)
    first = [one for one in proposed(engine, shop).proposals if one.left_out is None]
    again = [one for one in proposed(engine, shop).proposals if one.left_out is None]
    assert [one.strategy_id for one in again] == [one.strategy_id for one in first]
    assert len(scalars(engine, shop, "SELECT key FROM strategies WHERE shop_id = :s")) == len(first)
    kept = first[0].draft.strategy.key
    with for_shop(engine, shop.id) as session:
        lifecycle.move(session, shop, kept, "live", at=SYSTEM.now(), actor="op")
    second = proposed(engine, shop)
    assert scalars(engine, shop, "SELECT key FROM strategies WHERE shop_id = :s AND state = 'live'") == [kept]
    slot = first[0].draft.slot
    assert {one.left_out.why for one in second.proposals if one.draft.slot == slot} == {"running"}
    drafts = scalars(engine, shop, "SELECT key FROM strategies WHERE shop_id = :s AND state = 'draft'")
    assert sorted(drafts) == sorted(one.draft.strategy.key for one in second.proposals if one.left_out is None)


def test_a_template_that_runs_for_everybody_is_not_proposed_for_a_cluster(engine, shop):
    clustered(engine, shop)
    with for_shop(engine, shop.id) as session:
        lifecycle.start(session, shop, "win_back", at=SYSTEM.now(), actor="op")
    found = [one for one in proposed(engine, shop).proposals if one.draft.template == "win_back"]
    assert found and {one.left_out.why for one in found} == {"running"}


def test_a_draft_that_somebody_edited_is_theirs(engine, shop):
    clustered(engine, shop)
    first = next(one for one in proposed(engine, shop).proposals if one.left_out is None)
    edited = first.draft.strategy.limited(tags=("mine",))
    with for_shop(engine, shop.id) as session:
        authoring.save_draft(session, shop, edited.key, edited, at=SYSTEM.now(), actor="op")
    proposed(engine, shop)
    with for_shop(engine, shop.id) as session:
        row = lifecycle.find(session, shop.id, edited.key)
    assert (row.state, row.definition["tags"]) == ("draft", ["mine"])


def test_below_the_limit_that_the_operator_allows_a_strategy_starts_by_itself(engine, shop):
    clustered(engine, shop)
    with for_shop(engine, shop.id) as session:
        update_settings(session, shop, {"proposals": {"auto_start_below": "5.00"}})
    chosen = [one for one in proposed(engine, shop).proposals if one.left_out is None]
    assert {one.state for one in chosen} == {"started", "drafted"}
    assert all((one.prediction.liability <= 500) == (one.state == "started") for one in chosen)


def test_what_a_template_did_before_is_measured_by_cluster_without_the_shop_wide_holdout(engine, shop):
    with for_shop(engine, shop.id) as session:
        row = lifecycle.start(session, shop, "win_back", at=SYSTEM.now(), actor="test")
        people = session.execute(
            text("SELECT id FROM customers WHERE shop_id = :s AND email LIKE 'once%' ORDER BY email LIMIT 200"),
            {"s": shop.id},
        ).scalars()
        for number, customer_id in enumerate(people):
            _assign(session, shop, row.id, customer_id, held_out=number % 4 == 0, bought=number % 5 == 0)
        found = evidence.measured(session, shop, as_of=AT)
    both = found["win_back", "one_time"]
    assert (both.treated, both.treated_orders) == (150, 30)
    # of fifty held out some are of the shop-wide holdout, who are left alone by everything
    assert 40 <= both.held_out < 50 and both.held_out_orders <= 10
    assert evidence.elsewhere(found, "win_back", "loyal") == [both]
    assert isinstance(both, Measured)


def _assign(session, shop, strategy_id: UUID, customer_id: UUID, *, held_out: bool, bought: bool) -> None:
    decision, at = digest_id("decision", str(customer_id)), AT - timedelta(days=60)
    values = {
        "shop": shop.id, "strategy": strategy_id, "customer": customer_id, "decision": decision, "at": at,
        "held_out": held_out,
    }  # fmt: skip
    session.execute(
        text(
            "INSERT INTO decisions (shop_id, id, recorded_at, decided_at, customer_id, strategy_id, rule_id,"
            " rule_version, trigger, verdict, arm, propensity, receipt) VALUES (:shop, :decision, :at, :at, :customer,"
            " :strategy, :strategy, 1, 'schedule', 'act', 'reminder', 0.5, '{\"cluster\": \"one_time\"}')"
        ),
        values,
    )
    session.execute(
        text(
            "INSERT INTO assignments (shop_id, strategy_id, customer_id, held_out, propensity, assigned_at,"
            " decision_id) VALUES (:shop, :strategy, :customer, :held_out, 0.5, :at, :decision)"
        ),
        values,
    )
    if bought:
        session.execute(
            text(
                "INSERT INTO orders (shop_id, id, source_order_id, customer_id, ordered_at, currency, total_minor,"
                " updated_at, event_id) VALUES (:shop, :decision, :decision, :customer, :at + interval '2 days', 'USD',"
                " 5000, :at, :decision)"
            ),
            values,
        )


def test_receipts_say_in_which_cluster_a_customer_was(engine, shop):
    clustered(engine, shop)
    with for_shop(engine, shop.id) as session:
        lifecycle.start(session, shop, "win_back", at=SYSTEM.now(), actor="test")
        table = features.compute_all(session, shop.id, AT)
        clusters = membership.assign(session, shop.id, table).clusters
        rules = frozenset(one.rule_id for one in live.live_rules(session, shop.id))
        triggers = [
            Trigger(one, key, SCHEDULE, None, AT, rule_ids=rules)
            for one, key in zip(table.customer_ids, table.random_keys, strict=True)
        ]
        decisions = batch.decide(session, shop, triggers, table, clusters, recorded_at=AT)
        labels = {one: cluster["label_key"] for one, cluster in zip(table.customer_ids, clusters, strict=True)}
        told = session.execute(
            text("SELECT customer_id, receipt ->> 'cluster' AS label FROM decisions WHERE shop_id = :s"), {"s": shop.id}
        ).all()
    assert len(told) == len(decisions) > 100
    assert all(row.label == labels[row.customer_id] for row in told)
