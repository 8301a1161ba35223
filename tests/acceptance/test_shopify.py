"""A Shopify shop on the whole stack: connected, loaded, heard, changed, refused and connected again, and killed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import httpx
import pytest

from tests.acceptance.running import Running, eventually, opagent
from tests.acceptance.test_up import remove
from tests.shopify_peer.peer import TOKEN, Peer

pytestmark = pytest.mark.acceptance

SECRET = "hush"
AT = "2026-10-01T08:00:00Z"
ORDERS, CUSTOMERS, PRODUCTS = 240, 40, 12


class Shop:
    """A shop of a running stack, and the Shopify that it is connected to."""

    def __init__(self, stack: Running, slug: str, peer: Peer):
        self.stack, self.slug, self.peer = stack, slug, peer
        made = opagent(stack.data_dir, "shop", "create", slug, "--currency", "USD", "--sandbox")
        assert made.returncode == 0, made.stderr
        key = json.loads(opagent(stack.data_dir, "key", "create", "--shop", slug, "--scopes", "*", "--json").stdout)
        self.client = httpx.Client(
            base_url=stack.url, headers={"Authorization": f"Bearer {key['key']}"}, timeout=30
        )  # fmt: skip

    def get(self, path: str, **query: Any) -> Any:
        answer = self.client.get(f"/api/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: object = None) -> Any:
        answer = self.client.post(f"/api/{path}", json=body)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def connect(self, token: str = TOKEN) -> None:
        body = {"base_url": self.peer.base_url, "secrets": {"access_token": token, "webhook_secret": SECRET}}
        answer = self.client.put("/api/integrations/shopify", json=body)
        assert answer.status_code == 200, answer.text

    def syncs(self) -> list[dict[str, Any]]:
        return self.get("storefront/syncs")["items"]

    def sync(self, mode: str) -> dict[str, dict[str, Any]]:
        """Load every kind; what became of each."""
        self.post("storefront/syncs", {"mode": mode})
        return self.await_syncs(mode)

    def await_syncs(self, mode: str) -> dict[str, dict[str, Any]]:
        def ended() -> dict[str, dict[str, Any]] | None:
            found = {one["kind"]: one for one in reversed(self.syncs()) if one["mode"] == mode}
            return found if all(one["state"] in ("done", "failed") for one in found.values()) else None

        found = eventually(ended, within=180, what=f"the {mode} sync: {self.stack.tail()}")
        for one in found.values():
            assert (one["state"], one["refused"]) == ("done", 0), one
        return found

    def settle(self) -> None:
        """Until the pipeline has taken everything in."""
        eventually(lambda: self.backlog()["events"] == 0, within=60, what="events processed")
        assert self.backlog()["failed_events"] == 0, self.stack.tail()

    def backlog(self) -> dict[str, Any]:
        return self.get(f"shops/{self.slug}/backlog")

    def await_totals(self, **wanted: int) -> None:
        """What the customers add up to, once the pipeline has settled."""
        self.settle()
        eventually(lambda: self.totals() == wanted, within=30, what=f"{wanted}, not {self.totals()}")

    def totals(self) -> dict[str, Any]:
        customers, cursor = [], None
        while True:
            page = self.get("customers", limit=100, **({"cursor": cursor} if cursor else {}))
            customers += page["items"]
            cursor = page["next"]
            if cursor is None:
                break
        return {
            "customers": len(customers),
            "orders": sum(one["orders"] or 0 for one in customers),
            "revenue": sum(one["revenue_minor"] or 0 for one in customers),
        }

    def hear(self, topic: str, body: dict[str, Any], *, event_id: str, secret: str = SECRET) -> httpx.Response:
        raw = json.dumps(body).encode()
        signature = base64.b64encode(hmac.new(secret.encode(), raw, hashlib.sha256).digest()).decode()
        return self.client.post(
            f"/webhooks/shopify/{self.slug}",
            content=raw,
            headers={
                "Content-Type": "application/json", "X-Shopify-Topic": topic, "X-Shopify-Hmac-Sha256": signature,
                "X-Shopify-Event-Id": event_id, "X-Shopify-Webhook-Id": f"w-{event_id}",
                "X-Shopify-API-Version": "2026-07",
            },
        )  # fmt: skip


def gid(kind: str, number: int) -> str:
    return f"gid://shopify/{kind}/{number}"


def fill(peer: Peer) -> None:
    consent = {"marketingState": "SUBSCRIBED", "marketingOptInLevel": "SINGLE_OPT_IN", "consentUpdatedAt": AT}
    peer.put(
        Product=[
            {"id": gid("Product", n), "title": f"Tea {n}", "handle": f"tea-{n}", "status": "ACTIVE", "createdAt": AT,
             "updatedAt": AT, "variants": [{"id": gid("ProductVariant", 1000 + n), "title": "100 g", "price": "9.50",
                                            "sku": f"T{n}", "inventoryQuantity": 4}]}
            for n in range(1, PRODUCTS + 1)
        ],
        Customer=[
            {"id": gid("Customer", 7000 + n), "firstName": f"Ann{n}", "email": f"ann{n}@example.com", "createdAt": AT,
             "updatedAt": AT, "tags": [], "emailMarketingConsent": consent}
            for n in range(CUSTOMERS)
        ],
        Order=[
            {"id": gid("Order", 9000 + n), "name": f"#{1000 + n}", "createdAt": AT, "processedAt": AT, "updatedAt": AT,
             "customer": gid("Customer", 7000 + n % CUSTOMERS), "displayFinancialStatus": "PAID",
             "totalPriceSet": "19.00", "currentTotalPriceSet": "19.00",
             "lineItems": [{"id": gid("LineItem", 50000 + n), "title": "Tea", "quantity": 2, "currentQuantity": 2,
                            "sku": "T1", "originalUnitPriceSet": "9.50"}]}
            for n in range(ORDERS)
        ],
    )  # fmt: skip


def order(number: int, **changes: Any) -> dict[str, Any]:
    at = "2026-11-20T08:00:00Z"
    return {
        "id": number, "name": f"#{number}", "created_at": at, "processed_at": at, "updated_at": at, "currency": "USD",
        "total_price": "30.00", "total_discounts": "0.00", "financial_status": "paid",
        "customer": {"id": 7001, "email": "ann1@example.com", "updated_at": at},
        "line_items": [{"id": number * 10, "product_id": 1, "variant_id": 1001, "quantity": 1, "price": "30.00",
                        "title": "Tea", "sku": "T1"}],
        **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("shopify") / "data")
    try:
        running.await_ready()
        yield running
    finally:
        running.stop()
        remove(Path(running.data_dir))


@pytest.fixture
def shop(stack: Running, shopify_peer: Peer, request: pytest.FixtureRequest) -> Iterator[Shop]:
    fill(shopify_peer)
    made = Shop(stack, f"s-{crc32(request.node.name.encode())}", shopify_peer)
    made.connect()
    yield made
    made.client.close()


EVERYTHING = {"customers": CUSTOMERS, "orders": ORDERS, "revenue": ORDERS * 1900}


def test_a_shop_is_loaded_heard_and_compared(shop):
    first = shop.sync("first")
    # of somebody whose order came first an older state was known
    assert {kind: one["missing"] + one["stale"] for kind, one in first.items()} == {
        "products": PRODUCTS, "collections": 0, "inventory": PRODUCTS, "customers": CUSTOMERS, "orders": ORDERS,
        "discounts": 0,
    }  # fmt: skip
    shop.await_totals(**EVERYTHING)
    for _ in range(2):
        assert shop.hear("orders/create", order(9999), event_id="e-1").status_code == 200
    late = order(9999, total_price="35.00", updated_at="2026-11-20T09:00:00Z")
    assert shop.hear("orders/updated", late, event_id="e-2").status_code == 200
    assert shop.hear("orders/paid", order(9999), event_id="e-3").status_code == 200
    assert shop.hear("orders/paid", order(9998), event_id="e-4", secret="guessed").status_code == 401
    assert shop.hear("meteors/landed", {"id": 1}, event_id="e-5").json()["accepted"] == 1
    shop.await_totals(**{**EVERYTHING, "orders": ORDERS + 1, "revenue": ORDERS * 1900 + 3500})
    again = shop.sync("reconcile")
    assert {kind: (one["missing"], one["stale"]) for kind, one in again.items()} == dict.fromkeys(first, (0, 0))
    (ann,) = [one for one in shop.get("customers", limit=100)["items"] if one["email"] == "ann1@example.com"]
    kinds = [one["kind"] for one in shop.get(f"customers/{ann['id']}/behavior")["items"]]
    assert any("order" in kind for kind in kinds), kinds


def test_a_first_load_survives_its_worker_being_killed(shop):
    """Where each step may be cut is held in tests/integration; here the whole stack finds its way back."""
    shop.post("storefront/syncs", {"mode": "first"})
    os.kill(shop.stack.pids()["worker"], signal.SIGKILL)
    shop.await_syncs("first")
    shop.await_totals(**EVERYTHING)


def test_a_price_is_changed_after_a_look_and_taken_back(shop):
    asked = shop.post(
        "storefront/changes",
        {
            "kind": "product.price",
            "parameters": {"product_id": "1", "variants": [{"variant_id": "1001", "price": "10.00"}]},
        },
    )

    def state() -> str:
        return shop.get(f"storefront/changes/{asked['id']}")["state"]

    eventually(lambda: state() == "previewed", within=30, what="preview")
    shop.post(f"storefront/changes/{asked['id']}/apply")
    eventually(lambda: state() == "applied", within=30, what="apply")
    assert shop.peer.get(gid("ProductVariant", 1001))["price"] == "10.00"
    shop.post(f"storefront/changes/{asked['id']}/undo")
    eventually(lambda: state() == "undone", within=30, what="undo")
    assert shop.peer.get(gid("ProductVariant", 1001))["price"] == "9.50"


def test_a_revoked_token_stops_the_shop_tells_the_operator_and_loses_nothing(shop):
    shop.peer.grant(TOKEN, revoked=True)
    shop.post("storefront/syncs", {"mode": "first"})
    told = eventually(
        lambda: (found := shop.get("integrations/shopify"))["problem"] and found, within=30, what="the problem is told"
    )
    assert told["problem"] == "unauthorized"
    assert told["advice"]
    shop.peer.grant("shpat_new")
    shop.connect("shpat_new")
    first = shop.await_syncs("first")
    assert first["orders"]["objects_done"] == ORDERS, first["orders"]
    shop.await_totals(**EVERYTHING)
    assert shop.get("integrations/shopify")["problem"] is None
