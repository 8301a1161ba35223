"""Proposals over HTTP: asked for, listed, explained; and nonsense refused."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from operation_agent.kit.clock import SYSTEM
from operation_agent.proposals import job
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from tests.integration.test_proposals import AT, clustered, shop

pytestmark = pytest.mark.integration

__all__ = ["shop"]


@pytest.fixture
def api(client, engine, shop):
    from operation_agent.access import keys

    with for_shop(engine, shop.id) as session:
        key, _ = keys.create_key(session, shop.id, "test", ["*"], at=SYSTEM.now())
    client.headers["Authorization"] = f"Bearer {key}"
    return client


def test_asking_writes_a_tick_and_a_wake_up(api, engine, shop):
    assert api.post("/api/proposals").status_code == 202
    with for_shop(engine, shop.id) as session:
        rung = session.execute(text("SELECT topic FROM outbox WHERE shop_id = :s"), {"s": shop.id}).scalars().all()
        ticked = session.execute(
            text("SELECT count(*) FROM schedule_ticks WHERE shop_id = :s AND schedule = 'strategies.propose'"),
            {"s": shop.id},
        ).scalar()
    assert (rung.count("strategies.propose"), ticked) == (1, 1)


def test_a_run_is_listed_with_what_was_chosen_and_what_was_left_out(api, engine, shop):
    clustered(engine, shop)
    with for_shop(engine, shop.id) as session:
        run = job.propose(session, load_shop(session, shop.id), as_of=AT, at=SYSTEM.now(), actor="test")
    (listed,) = api.get("/api/proposals/runs").json()["items"]
    assert (listed["id"], listed["options"]) == (str(run.id), len(run.proposals))
    drafted = api.get(f"/api/proposals?run={run.id}&state=drafted").json()["items"]
    assert drafted and all(one["left_out"] is None and one["strategy_id"] for one in drafted)
    left = api.get("/api/proposals?state=left_out&limit=1").json()
    assert left["items"][0]["left_out"]["why"]
    found = api.get(f"/api/proposals/{drafted[0]['id']}").json()
    assert found["reasons"]["zh"] and found["definition"]["key"] == drafted[0]["key"]
    assert api.get(f"/api/strategies/{drafted[0]['key']}").json()["state"] == "draft"


@pytest.mark.parametrize(
    "path",
    ["/api/proposals/nonsense", "/api/proposals?state=x", "/api/proposals?run=1", "/api/proposals/runs?cursor=§"],
)
def test_nonsense_is_refused(api, path):
    assert api.get(path).status_code == 400
