"""Changes over HTTP: what is offered, what is refused at once and why, and the way from asking to taking back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from operation_agent.access.keys import create_key
from operation_agent.kit.clock import SYSTEM
from operation_agent.store.session import for_shop
from operation_agent.storefront.kinds import KINDS
from tests.integration.changing import Desk, connect, desk
from tests.integration.test_shop_changes_kinds import CUSTOMER, fill

pytestmark = pytest.mark.integration

PATH = "/api/storefront/changes"
VIP = {"kind": "customer.vip", "parameters": {"customer_id": "7001", "vip": True}}


def bearer(engine, shop_id, *scopes: str) -> dict[str, str]:
    with for_shop(engine, shop_id) as session:
        token, _ = create_key(session, shop_id, "test", scopes or ["*"], SYSTEM.now())
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def key(engine, shop_id) -> dict[str, str]:
    connect(engine, shop_id, "http://127.0.0.1:9")
    return bearer(engine, shop_id)


@pytest.fixture
def here(engine, shop_id, shopify_peer) -> Iterator[Desk]:
    fill(shopify_peer)
    with desk(engine, shop_id, shopify_peer) as made:
        yield made


def ask(client: httpx.Client, key: dict[str, str], kind: str, **parameters: Any) -> httpx.Response:
    return client.post(PATH, headers=key, json={"kind": kind, "parameters": parameters})


def test_every_kind_is_offered_with_a_schema_labels_and_scopes(client, key):
    told = {one["kind"]: one for one in client.get(f"{PATH}/kinds", headers=key).json()}
    assert set(told) == set(KINDS)
    for one in told.values():
        assert set(one["labels"]) == {"en", "zh"}
        assert one["parameters"]["type"] == "object"
        assert one["parameters"]["additionalProperties"] is False
        assert one["scopes"]
        assert one["undoable"] is True
    assert told["draft_order.create"]["why_no_undo"]["en"].startswith("an invoice")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_example_is_what_its_kind_takes(client, key, kind):
    answer = client.post(PATH, headers=key, json={"kind": kind, "parameters": dict(KINDS[kind].example)})
    assert answer.status_code == 201, answer.text
    assert answer.json()["state"] == "asked"


@pytest.mark.parametrize(
    ("kind", "parameters", "where"),
    [
        ("customer.tags", {"customer_id": "7001"}, "parameters"),
        ("customer.tags", {"customer_id": 7001, "add": ["a"]}, "parameters.customer_id"),
        ("customer.tags", {"customer_id": "gid://shopify/Customer/1", "add": ["a"]}, "parameters.customer_id"),
        ("customer.tags", {"customer_id": "1", "add": ["a,b"]}, "parameters.add.0"),
        ("customer.tags", {"customer_id": "1", "add": ["a"], "remove": ["A"]}, "parameters"),
        ("customer.tags", {"customer_id": "1", "add": ["a"], "extra": 1}, "parameters.extra"),
        ("customer.tags", {"customer_id": "1", "add": ["a\0"]}, "parameters.add.0"),
        ("customer.vip", {"customer_id": "1"}, "parameters.vip"),
        ("product.price", {"product_id": "1", "percent": "NaN"}, "parameters.percent"),
        ("product.price", {"product_id": "1", "variants": [{"variant_id": "2", "price": -1}]},
         "parameters.variants.0.price"),
        ("product.price", {"product_id": "1", "variants": [{"variant_id": "2", "price": 1.5}]},
         "parameters.variants.0.price"),
        ("product.price", {"product_id": "1"}, "parameters"),
        ("customer.consent", {"customer_id": "1", "channel": "fax", "state": "subscribed"}, "parameters.channel"),
        ("draft_order.create", {"lines": []}, "parameters.lines"),
        ("draft_order.create", {"lines": [{"title": "x", "price": "1"}], "invoice": {}}, "parameters"),
        ("page.create", {"title": " ", "body_html": ""}, "parameters.title"),
        ("home.banner", {"title": "x", "link_url": "javascript:alert(1)"}, "parameters.link_url"),
        ("publication.set", {"published": True}, "parameters"),
        ("product.colour", {}, "kind"),
    ],
)  # fmt: skip
def test_what_is_not_of_its_kind_is_refused_naming_the_field(client, key, kind, parameters, where):
    answer = ask(client, key, kind, **parameters)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["where"] == where
    assert client.get(PATH, headers=key).json()["items"] == []


def test_a_shop_that_is_not_connected_has_nothing_to_change(client, engine, shop_id):
    answer = client.post(PATH, headers=bearer(engine, shop_id), json=VIP)
    assert (answer.status_code, answer.json()["code"]) == (409, "not_connected")


def test_reading_is_not_writing(client, engine, shop_id, key):
    reader = bearer(engine, shop_id, "storefront:read")
    assert client.get(PATH, headers=reader).status_code == 200
    assert client.post(PATH, headers=reader, json=VIP).status_code == 403
    assert client.get(PATH, headers=bearer(engine, shop_id, "customers:read")).status_code == 403


def test_a_change_sent_twice_with_one_key_is_one_change(client, key):
    headers = {**key, "Idempotency-Key": "same"}
    first, second = (client.post(PATH, headers=headers, json=VIP) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    assert len(client.get(PATH, headers=key).json()["items"]) == 1


def test_changes_are_listed_newest_first_by_kind_state_and_subject(client, key):
    ids = [ask(client, key, "customer.vip", customer_id=str(n), vip=True).json()["id"] for n in range(5)]
    tags = ask(client, key, "customer.tags", customer_id="3", add=["a"]).json()["id"]
    first = client.get(PATH, headers=key, params={"limit": 2}).json()
    rest = client.get(PATH, headers=key, params={"limit": 50, "cursor": first["next"]}).json()
    assert [one["id"] for one in first["items"] + rest["items"]] == [tags, *reversed(ids)]
    assert rest["next"] is None

    def listed(**params: str) -> list[str]:
        return [one["id"] for one in client.get(PATH, headers=key, params=params).json()["items"]]

    assert listed(kind="customer.tags") == [tags]
    assert listed(subject="customer:3") == [tags, ids[3]]
    assert listed(state="asked") == [tags, *reversed(ids)]
    assert listed(state="applied") == []
    assert client.get(PATH, headers=key, params={"state": "lost"}).status_code == 400


def test_only_what_was_previewed_is_applied_and_only_what_was_applied_taken_back(client, key):
    change = client.post(PATH, headers=key, json=VIP).json()
    for what in ("apply", "undo"):
        answer = client.post(f"{PATH}/{change['id']}/{what}", headers=key)
        assert (answer.status_code, answer.json()["code"]) == (409, "state")
    assert client.post(f"{PATH}/{change['id']}/cancel", headers=key).json()["state"] == "cancelled"
    assert client.post(f"{PATH}/{change['id']}/cancel", headers=key).status_code == 409
    nobody = "01a1fa85-141e-75d1-901b-dfe9b1438fae"
    assert client.get(f"{PATH}/{nobody}", headers=key).status_code == 404
    assert client.post(f"{PATH}/{nobody}/apply", headers=key).status_code == 404


def test_the_whole_way_over_http(client, engine, here: Desk):
    key = bearer(engine, here.shop.id)
    change = client.post(PATH, headers=key, json=VIP).json()
    at = f"{PATH}/{change['id']}"
    here.clock.at = SYSTEM.now()
    here.work()
    previewed = client.get(at, headers=key).json()
    assert (previewed["state"], previewed["can_undo"]) == ("previewed", False)
    assert previewed["after"]["opagent.vip"]["value"] == "true"
    assert client.post(f"{at}/apply", headers=key).status_code == 202
    here.clock.at = SYSTEM.now()
    here.work()
    applied = client.get(at, headers=key).json()
    assert (applied["state"], applied["can_undo"]) == ("applied", True)
    assert [one["value"] for one in here.peer.metafields(CUSTOMER)] == ["true"]
    assert client.post(f"{at}/undo", headers=key, json={"force": False}).status_code == 202
    here.clock.at = SYSTEM.now()
    here.work()
    assert client.get(at, headers=key).json()["state"] == "undone"
    assert here.peer.metafields(CUSTOMER) == []
    actors = {
        row.actor for row in here.run("SELECT actor FROM audit_log WHERE shop_id = :shop AND verb LIKE 'shop_c%'")
    }
    assert len(actors) == 2, "whoever asked, and the system that did it"


def test_a_long_page_fits(client, key):
    answer = ask(client, key, "page.create", title="Long", body_html="<p>" + "x" * 90_000 + "</p>")
    assert answer.status_code == 201, answer.text
