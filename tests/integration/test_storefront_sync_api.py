"""Syncs over HTTP, on the command line and in the metrics: asked, watched, cancelled, and refused with a reason."""

from __future__ import annotations

import httpx
import orjson
import pytest
from typer.testing import CliRunner

from api.metrics import exposition
from cli.main import app
from operation_agent.access.keys import create_key
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Rejected
from operation_agent.kit.ids import new_id
from operation_agent.kit.settings import settings
from operation_agent.store.session import for_shop
from tests.integration.syncing import Stage, stage
from tests.shopify_nodes import orders
from tests.shopify_peer.peer import Peer

pytestmark = pytest.mark.integration


@pytest.fixture
def shop(engine, shopify_peer: Peer) -> Stage:
    made = stage(engine, shopify_peer.base_url)
    made.clock.at = SYSTEM.now()
    return made


def caller(shop: Stage, *scopes: str) -> dict[str, str]:
    with for_shop(shop.engine, shop.shop.id) as session:
        wanted = scopes or ("storefront:read", "storefront:write")
        token, _ = create_key(session, shop.shop.id, "test", wanted, SYSTEM.now(), actor="cli")
    return {"Authorization": f"Bearer {token}"}


def test_syncs_are_asked_watched_and_listed(client: httpx.Client, shop: Stage, shopify_peer: Peer):
    shopify_peer.settings(bulk={"lines": {"orders": orders(5)}, "limit": 5})
    ours = caller(shop, "storefront:read", "storefront:write")
    asked = client.post("/api/storefront/syncs", json={"kinds": ["orders"], "mode": "first"}, headers=ours)
    assert asked.status_code == 202, asked.text
    (made,) = asked.json()["syncs"]
    assert (made["state"], made["mode"], made["progress"]["percent"]) == ("asked", "first", None)
    shop.finish()
    seen = client.get(f"/api/storefront/syncs/{made['id']}", headers=ours).json()
    assert (seen["state"], seen["summary"], seen["progress"]["percent"]) == ("done", "missing 5, stale 0", 100.0)
    assert seen["objects_done"] == seen["objects_total"] == 5
    everything = client.post("/api/storefront/syncs", json={}, headers=ours).json()["syncs"]
    assert [one["kind"] for one in everything] == [
        "products", "collections", "inventory", "customers", "orders", "discounts",
    ]  # fmt: skip
    first = client.get("/api/storefront/syncs?limit=4", headers=ours).json()
    rest = client.get(f"/api/storefront/syncs?limit=4&cursor={first['next']}", headers=ours).json()
    assert len(first["items"]) == 4 and len(rest["items"]) == 3 and rest["next"] is None
    assert rest["items"][-1]["id"] == made["id"]


def test_a_post_that_is_sent_twice_asks_once(client: httpx.Client, shop: Stage):
    ours = caller(shop) | {"Idempotency-Key": new_id().hex}
    answers = [client.post("/api/storefront/syncs", json={"kinds": ["products"]}, headers=ours) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert shop.scalar("SELECT count(*) FROM storefront_syncs WHERE shop_id = :shop") == 1


def test_a_sync_is_cancelled_over_http(client: httpx.Client, shop: Stage):
    ours = caller(shop)
    (made,) = client.post("/api/storefront/syncs", json={"kinds": ["orders"]}, headers=ours).json()["syncs"]
    cancelled = client.post(f"/api/storefront/syncs/{made['id']}/cancel", headers=ours)
    assert cancelled.status_code == 202 and cancelled.json()["cancelled_by"]
    shop.task()
    assert client.get(f"/api/storefront/syncs/{made['id']}", headers=ours).json()["state"] == "cancelled"
    again = client.post(f"/api/storefront/syncs/{made['id']}/cancel", headers=ours)
    assert again.status_code == 409 and "already" in again.json()["detail"]


@pytest.mark.parametrize("body", [{"kinds": ["gifts"]}, {"kinds": []}, {"mode": "sometimes"}, {"days": 3}, []])
def test_what_makes_no_sense_is_refused(client: httpx.Client, shop: Stage, body):
    answer = client.post("/api/storefront/syncs", json=body, headers=caller(shop))
    assert answer.status_code == 400, answer.text
    assert shop.scalar("SELECT count(*) FROM storefront_syncs WHERE shop_id = :shop") == 0


def test_who_may_not_is_refused_and_another_shops_sync_is_not_there(client: httpx.Client, shop: Stage, engine):
    reader = caller(shop, "storefront:read")
    assert client.post("/api/storefront/syncs", json={}, headers=reader).status_code == 403
    asked = shop.ask()
    other = caller(stage(engine, shop.base_url))
    assert client.get(f"/api/storefront/syncs/{asked.id}", headers=other).status_code == 404
    assert client.post(f"/api/storefront/syncs/{asked.id}/cancel", headers=other).status_code == 404
    assert client.get("/api/storefront/syncs", headers=other).json()["items"] == []


def test_a_shop_that_is_not_connected_or_has_a_problem_says_so(client: httpx.Client, shop: Stage):
    ours = caller(shop)
    shop.run("UPDATE integrations SET problem = 'unauthorized', problem_detail = 'HTTP 401' WHERE shop_id = :shop")
    stopped = client.post("/api/storefront/syncs", json={}, headers=ours)
    assert stopped.status_code == 409 and stopped.json()["code"] == "integration_problem"
    shop.run("DELETE FROM integrations WHERE shop_id = :shop")
    absent = client.post("/api/storefront/syncs", json={}, headers=ours)
    assert absent.status_code == 409 and absent.json()["code"] == "not_connected"


def test_gaps_that_were_found_are_in_the_metrics(shop: Stage, shopify_peer: Peer):
    shopify_peer.settings(bulk={"lines": {"orders": orders(3)}})
    shop.sync(mode="reconcile")
    told = exposition(shop.engine).decode()
    assert f'opagent_storefront_gaps_total{{kind="orders",shop="{shop.shop.slug}",what="missing"}} 3.0' in told
    assert f'opagent_storefront_sync_age_seconds{{kind="orders",shop="{shop.shop.slug}"}}' in told


@pytest.fixture
def command(database_url, monkeypatch):
    monkeypatch.setenv("OPAGENT_DATABASE_URL", database_url)
    settings.cache_clear()

    def run(*words: str):
        return CliRunner().invoke(app, ["storefront", *words], env={"COLUMNS": "200"}, catch_exceptions=False)

    yield run
    monkeypatch.undo()
    settings.cache_clear()


def test_the_command_line_asks_and_tells_how_far_it_is(command, shop: Stage, shopify_peer: Peer):
    shopify_peer.settings(bulk={"lines": {"orders": orders(4)}})
    assert "nothing was synced yet" in command("status", "--shop", shop.shop.slug).output
    asked = command("sync", "--shop", shop.shop.slug, "--mode", "first", "--kind", "orders", "--json")
    assert asked.exit_code == 0 and orjson.loads(asked.output)[0]["state"] == "asked"
    shop.finish()
    told = command("status", "--shop", shop.shop.slug)
    assert "missing 4, stale 0" in told.output and "done" in told.output
    with pytest.raises(Rejected, match="a kind is one of"):
        command("sync", "--shop", shop.shop.slug, "--kind", "gifts")
