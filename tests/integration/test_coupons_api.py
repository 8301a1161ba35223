"""Code pools and taking coupons back over HTTP: who may, what is shown, what it leaves behind, and whose task it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import orjson
import pytest

from api.metrics import exposition
from operation_agent.access.keys import create_key
from operation_agent.actions import wakeups
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from tests.integration.sending import SECRET, Stage, configured, executor, stage
from tests.shopify_peer.peer import Peer
from workers import code_pools as worker

pytestmark = pytest.mark.integration

POOLS = "/api/storefront/code-pools"


@pytest.fixture
def here(engine, shop_id) -> Stage:
    return stage(engine, shop_id)


@pytest.fixture
def shop(here: Stage, shopify_peer: Peer, monkeypatch) -> Iterator[Peer]:
    """A shop system that the workers of this process are connected to."""
    from operation_agent.kit.secrets import Vault
    from workers import delivery

    shopify_peer.grant("t")
    row = configured("shopify", shopify_peer.base_url)
    here.run(
        "INSERT INTO integrations (shop_id, vendor, channel, base_url, config, secrets, updated_at)"
        " VALUES (:shop, 'shopify', 'coupon', :url, CAST(:config AS jsonb), :secrets, :at)",
        url=row.base_url, config=orjson.dumps(row.config).decode(), secrets=row.secrets, at=here.start,
    )  # fmt: skip
    ours = delivery.Senders(delivery.senders().pool, Vault(SECRET), delivery.senders().links)
    monkeypatch.setattr(worker, "senders", lambda: ours)
    yield shopify_peer
    for kept in ours.kept.values():
        kept.channel.close()


def bearer(here: Stage, *scopes: str) -> dict[str, str]:
    with for_shop(here.engine, here.shop.id) as session:
        token, _ = create_key(session, here.shop.id, "test", scopes or ["*"], SYSTEM.now())
    return {"Authorization": f"Bearer {token}"}


def asked(client, here: Stage, **changes: Any) -> Any:
    body = {"name": "spring", "terms": {"percent": 10}, "size": 3, "low_water": 1, **changes}
    return client.post(POOLS, json=body, headers=bearer(here))


def test_a_pool_is_asked_for_filled_by_its_task_and_shown(client, here: Stage, shop: Peer):
    key = bearer(here)
    made = asked(client, here).json()
    assert (made["state"], made["made"], made["problem"]) == ("asked", 0, None)
    worker.fill(here.engine, here.shop.id, UUID(made["id"]), poll=0.01)
    found = client.get(f"{POOLS}/{made['id']}", headers=key).json()
    assert (found["state"], found["made"], found["free"], found["given"], found["waiting"]) == ("ready", 3, 3, 0, 0)
    assert client.get(POOLS, headers=key).json() == {"items": [found], "next": None}
    told = exposition(here.engine).decode()
    assert f'opagent_code_pool_codes{{kind="free",pool="spring",shop="{here.shop.slug}"}} 3.0' in told
    closed = client.post(f"{POOLS}/{made['id']}/close", headers=key).json()
    assert closed["state"] == "closed"
    worker.fill(here.engine, here.shop.id, UUID(made["id"]), poll=0.01)
    assert client.get(f"{POOLS}/{made['id']}", headers=key).json()["deactivated_at"] is not None
    verbs = [row.verb for row in here.run("SELECT verb FROM audit_log WHERE shop_id = :shop ORDER BY seq")]
    assert [verb for verb in verbs if verb.startswith("code_pool")] == [
        "code_pool.created", "code_pool.closed", "code_pool.deactivated",
    ]  # fmt: skip


def test_a_pool_that_nobody_works_on_is_found_by_the_sweep(client, here: Stage, shop: Peer):
    made = asked(client, here).json()
    here.run("DELETE FROM outbox WHERE shop_id = :shop")  # as a broker that loses everything
    here.run("UPDATE code_pools SET updated_at = :at WHERE shop_id = :shop", at=here.start)
    with for_shop(here.engine, here.shop.id) as session:
        wakeups.ring_due(session, here.shop, at=SYSTEM.now())
    (rung,) = here.run("SELECT key FROM outbox WHERE shop_id = :shop AND topic = 'code_pools.fill'")
    assert rung.key == made["id"]


@pytest.mark.parametrize(
    ("changes", "status", "where"),
    [
        ({"terms": {"percent": 0}}, 400, "terms.percent"), ({"terms": {}}, 400, "terms"),
        ({"terms": {"percent": 10, "pool": "x"}}, 400, "terms.pool"), ({"size": 0}, 400, "size"),
        ({"name": "Spring Sale"}, 400, "name"), ({"low_water": 4}, 400, "size"),
        ({"ends_at": "2020-01-01T00:00:00Z"}, 400, "ends_at"),
    ],
)  # fmt: skip
def test_a_pool_that_makes_no_sense_is_refused_by_its_path(client, here, shop, changes, status, where):
    answer = asked(client, here, **changes)
    assert answer.status_code == status, answer.text
    assert where in answer.text


def test_without_a_shop_system_there_are_no_pools_and_without_permission_neither(client, here: Stage):
    assert asked(client, here).status_code == 409
    reader = bearer(here, "storefront:read")
    assert client.get(POOLS, headers=reader).status_code == 200
    assert client.post(POOLS, json={"name": "a", "terms": {"percent": 1}, "size": 1}, headers=reader).status_code == 403
    assert client.get(f"{POOLS}/{new_id()}", headers=reader).status_code == 404


def test_a_coupon_is_taken_back_by_its_action(client, here: Stage, shop: Peer):
    key = bearer(here, "actions:write", "actions:read")
    action = here.action(here.customer(), type="coupon", reserve=250)
    with executor(here.engine, here.shop, "shopify", shop.base_url) as channel:
        channel.deliver(seconds=5)
    assert here.budget() == (0, 250)
    assert client.post(f"/api/actions/{action}/undo", headers=bearer(here, "actions:read")).status_code == 403
    answer = client.post(f"/api/actions/{action}/undo", headers={**key, "Idempotency-Key": "one"})
    assert answer.status_code == 202, answer.text
    again = client.post(f"/api/actions/{action}/undo", headers={**key, "Idempotency-Key": "one"})
    assert (again.json(), again.headers["Idempotent-Replay"]) == (answer.json(), "true")
    worker.recall(here.engine, here.shop.id, action)
    worker.recall(here.engine, here.shop.id, action)
    found = client.get(f"/api/actions/{action}/coupon", headers=key).json()
    assert found["deactivated_at"] is not None
    assert found["recall_error"] is None
    assert here.budget() == (0, 0)
    assert len(shop.calls("discountCodeDeactivate")) == 1
    assert client.post(f"/api/actions/{new_id()}/undo", headers=key).status_code == 404


def test_one_code_of_a_pool_is_taken_back_and_the_others_stay(client, here: Stage, shop: Peer):
    made = asked(client, here).json()
    worker.fill(here.engine, here.shop.id, UUID(made["id"]), poll=0.01)
    given = orjson.dumps({"percent": 10, "expires_in": "P7D", "pool": "spring"}).decode()
    action = here.action(here.customer(), type="coupon", parameters=given, reserve=250)
    with executor(here.engine, here.shop, "shopify", shop.base_url) as channel:
        channel.deliver(seconds=5)
    code = here.one(action).result["code"]
    assert client.post(f"/api/actions/{action}/undo", headers=bearer(here)).status_code == 202
    worker.recall(here.engine, here.shop.id, action)
    (node,) = shop.all("DiscountCodeNode")
    left = {one["code"] for one in node["discount"]["codes"]}
    assert (len(left), code in left) == (2, False)
    assert node["discount"]["endsAt"] is None
    assert here.budget() == (0, 0)


def test_taking_back_waits_for_a_shop_that_does_not_answer(client, here: Stage, shop: Peer):
    action = here.action(here.customer(), type="coupon", reserve=250)
    with executor(here.engine, here.shop, "shopify", shop.base_url) as channel:
        channel.deliver(seconds=5)
    client.post(f"/api/actions/{action}/undo", headers=bearer(here))
    shop.fault("drop_after", "discountCodeDeactivate")
    worker.recall(here.engine, here.shop.id, action)
    (coupon,) = here.run("SELECT * FROM coupons WHERE shop_id = :shop")
    assert (coupon.deactivated_at, coupon.recall_error is None) == (None, False)
    assert coupon.recall_retry_at > SYSTEM.now()
    worker.recall(here.engine, here.shop.id, action)  # as the sweep does then
    (coupon,) = here.run("SELECT * FROM coupons WHERE shop_id = :shop")
    assert coupon.deactivated_at is not None
    assert here.budget() == (0, 0)
