"""What publishing does to those who are under way, and what an older release's strategies become."""

from __future__ import annotations

import json

import psycopg
import pytest
from sqlalchemy import text

from migrations.run import downgrade, upgrade
from operation_agent.journeys.publishing import lead_out
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.store.engine import connect
from operation_agent.store.session import for_shop
from operation_agent.store.shops import create_shop, load_shop
from operation_agent.strategies import authoring, lifecycle, live, records, versions
from operation_agent.strategies.library import template

from .journeying import T0, mail, rule, strategy, wait, walks

pytestmark = pytest.mark.integration

ARM = [mail("hello", delay="PT1H"), wait("order.paid", "P2D", otherwise=[mail("nudge")])]


@pytest.mark.parametrize(("in_flight", "left"), [("finish", (0, 0)), ("exit", (1, 1))])
def test_who_is_under_way_finishes_or_leaves_as_the_publisher_says(engine, shop_id, in_flight, left):
    changing, staying = rule(ARM), {**rule(ARM), "key": "staying", "when": {"event": ["checkout.started"]}}
    made = strategy([changing, staying])
    here = walks(engine, shop_id, made, "ann", "bob")
    here.does("ann", "cart.added", T0)
    here.does("bob", "checkout.started", T0)
    edited = json.loads(json.dumps(made))
    edited["rules"][0]["priority"] = 99
    with for_shop(engine, shop_id) as session:
        shop, at = load_shop(session, shop_id), SYSTEM.now()
        authoring.save_draft(session, shop, edited["key"], records.read(edited), at=at, actor="op")
        done = authoring.publish(session, shop, edited["key"], at=at, actor="op", in_flight=in_flight)
        found = lead_out(session, shop, done, at=at)
    assert (found.runs, found.actions) == left
    waiting = here.run("SELECT count(*) AS n FROM runs WHERE shop_id = :shop AND state = 'waiting'")
    assert waiting[0].n == 2 - left[0]  # bob's rule did not change: nobody disturbs him


@pytest.fixture
def older(postgres):
    """A database of the release before, as it was migrated then."""
    name = f"m{new_id().hex}"
    with psycopg.connect(postgres.superuser_url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} OWNER opagent")
    url = postgres.url.replace("/opagent?", f"/{name}?")
    upgrade(url, "0001")
    engine = connect(url)
    yield url, engine
    engine.dispose()
    with psycopg.connect(postgres.superuser_url(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _write_as_0001(session, shop_id, key: str, state: str, rule_state: str) -> None:
    definition = {**template("conversion").to_dict(), "key": key}
    at, strategy_id = SYSTEM.now(), new_id()
    session.execute(
        text(
            "INSERT INTO strategies (shop_id, id, key, name, goal, state, definition, holdout, revision, started_at,"
            " created_at, updated_at) VALUES (:shop, :id, :key, CAST(:name AS jsonb), 'conversion', :state,"
            " CAST(:definition AS jsonb), 0.2, 3, :started, :at, :at)"
        ),
        {
            "shop": shop_id, "id": strategy_id, "key": key, "name": json.dumps(definition["name"]), "state": state,
            "definition": json.dumps(definition), "started": None if state == "draft" else at, "at": at,
        },
    )  # fmt: skip
    session.execute(
        text(
            "INSERT INTO rules (shop_id, id, strategy_id, key, version, definition, state, created_at, created_by)"
            " VALUES (:shop, :id, :strategy, :key, 1, CAST(:definition AS jsonb), :state, :at, 'user:mei')"
        ),
        {
            "shop": shop_id, "id": new_id(), "strategy": strategy_id, "key": f"{key}/{definition['rules'][0]['key']}",
            "definition": json.dumps(definition["rules"][0]), "state": rule_state, "at": at,
        },
    )  # fmt: skip


def test_strategies_of_the_release_before_become_version_1_and_go_back(older):
    url, engine = older
    shops = [
        create_shop(engine, slug=f"old-{number}", name="Old", currency="USD", sandbox=True).id for number in (1, 2)
    ]
    kinds = {"a": ("draft", "draft"), "b": ("live", "live"), "c": ("paused", "live"), "d": ("archived", "retired")}
    for shop_id in shops:
        with for_shop(engine, shop_id) as session:
            for key, (state, rule_state) in kinds.items():
                _write_as_0001(session, shop_id, key, state, rule_state)
    upgrade(url)
    for shop_id in shops:
        with for_shop(engine, shop_id) as session:
            rows = {row.key: row for row in records.list_strategies(session, shop_id)}
            assert {key: (row.version, row.draft) for key, row in rows.items()} == {
                "a": (None, 1), "b": (1, None), "c": (1, None), "d": (None, None),
            }  # fmt: skip
            (only,) = versions.list_versions(session, shop_id, rows["d"].id)
            assert (only.state, only.created_by, only.definition["key"]) == ("retired", "user:mei", "d")
            assert [one.key for one in live.live_rules(session, shop_id)] == ["b/unfinished-purchase"]
            shop, at = load_shop(session, shop_id), SYSTEM.now()
            lifecycle.move(session, shop, "a", "live", at=at, actor="op")
            assert len(live.live_rules(session, shop_id)) == 2
            edited = {**rows["b"].definition, "holdout": 0.3}
            edited["rules"] = [{**edited["rules"][0], "enabled": False}]
            authoring.save_draft(session, shop, "b", records.read(edited), at=at, actor="op")
            authoring.publish(session, shop, "b", at=at, actor="op")
            authoring.save_draft(session, shop, "c", records.read({**edited, "key": "c"}), at=at, actor="op")
    downgrade(url, "0001")
    for shop_id in shops:
        with for_shop(engine, shop_id) as session:
            states = session.execute(
                text("SELECT key, version, state FROM rules WHERE shop_id = :s ORDER BY key, version"), {"s": shop_id}
            ).all()
            assert [(row.key[0], row.version, row.state) for row in states] == [
                ("a", 1, "live"), ("b", 1, "retired"), ("b", 2, "retired"), ("c", 1, "live"), ("d", 1, "retired"),
            ]  # fmt: skip
            holdouts = session.execute(
                text("SELECT key, holdout FROM strategies WHERE shop_id = :s ORDER BY key"), {"s": shop_id}
            ).all()
            assert dict(map(tuple, holdouts)) == {"a": 0.2, "b": 0.3, "c": 0.2, "d": 0.2}
    upgrade(url)
