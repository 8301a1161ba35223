"""Runs over HTTP: listed, read with their actions, left; and the backlog counts those that are due."""

from __future__ import annotations

from datetime import timedelta

import pytest

from operation_agent.access.keys import create_key
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop

from .journeying import DAY, T0, mail, rule, strategy, wait, walks

pytestmark = pytest.mark.integration

ARM = [mail("hello", delay="PT1H"), wait("order.paid", "P2D", otherwise=[mail("nudge")])]


def bearer(here, *scopes):
    with for_shop(here.engine, here.shop.id) as session:
        token, _ = create_key(session, here.shop.id, "test", scopes or ["*"], SYSTEM.now())
    return {"Authorization": f"Bearer {token}"}


def test_runs_are_listed_by_pages_and_filters(client, engine, shop_id):
    here = walks(engine, shop_id, strategy([rule(ARM)]), "ann", "bob", "eve")
    for who in ("ann", "bob", "eve"):
        here.does(who, "cart.added", T0)
    here.does("eve", "order.paid", T0 + DAY, order_id="o", total_minor=100, total=1)
    key = bearer(here)
    first = client.get("/api/runs?limit=2", headers=key).json()
    rest = client.get(f"/api/runs?limit=2&cursor={first['next']}", headers=key).json()
    assert (len(first["items"]), len(rest["items"]), rest["next"]) == (2, 1, None)
    finished = client.get("/api/runs?state=finished", headers=key).json()["items"]
    assert [one["customer_id"] for one in finished] == [str(here.people["eve"])]
    of_ann = client.get(f"/api/runs?customer={here.people['ann']}&state=waiting", headers=key).json()["items"]
    assert [(one["path"], one["events"]) for one in of_ann] == [("1", ["order.paid"])]


def test_one_run_is_read_and_left_with_what_it_planned(client, engine, shop_id):
    here = walks(engine, shop_id, strategy([rule(ARM)]), "ann")
    soon = SYSTEM.now() - timedelta(minutes=1)
    here.does("ann", "cart.added", soon)
    key, run_id = bearer(here), here.one_run().id
    found = client.get(f"/api/runs/{run_id}", headers=key).json()
    assert found["trigger"]["properties"]["product_id"] == "p1"
    assert [(one["type"], one["state"]) for one in found["actions"]] == [("email", "ready")]
    headers = {**key, "Idempotency-Key": "leave"}
    left = client.post(f"/api/runs/{run_id}/exit", headers=headers).json()
    assert (left["state"], [one["state"] for one in left["actions"]]) == ("exited", ["cancelled"])
    assert client.post(f"/api/runs/{run_id}/exit", headers=headers).json() == left
    again = client.post(f"/api/runs/{run_id}/exit", headers={**key, "Idempotency-Key": "again"})
    assert (again.status_code, again.json()["code"]) == (409, "state")
    assert client.get(f"/api/runs/{new_id()}", headers=key).status_code == 404
    assert client.get("/api/runs", headers=bearer(here, "events:write")).status_code == 403


def test_the_backlog_counts_runs_and_watches_that_are_due(client, engine, shop_id):
    here = walks(engine, shop_id, strategy([rule(ARM)]), "ann")
    here.does("ann", "cart.added", T0)  # long ago: its wait is over
    key = bearer(here)
    slug = here.shop.slug
    assert client.get(f"/api/shops/{slug}/backlog", headers=key).json()["running"] == 1
    here.advance(SYSTEM.now())
    assert client.get(f"/api/shops/{slug}/backlog", headers=key).json()["running"] == 0
