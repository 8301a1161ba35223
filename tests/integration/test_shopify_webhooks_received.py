"""Who may tell a shop's orders, which deliveries are copies, and what is answered to one that will never be good."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import text

from operation_agent.access.keys import create_key
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import create_shop, load_shop

pytestmark = pytest.mark.integration

OLD, NEW = "the-old-secret-of-the-app", "the-new-secret-of-the-app"


@pytest.fixture
def shop_id(engine) -> UUID:
    """Not a sandbox: that one would not be let have Shopify's address."""
    return create_shop(engine, slug=f"s-{new_id().hex[-12:]}", name="Real", currency="USD", seed="real").id


@pytest.fixture
def key(engine, shop_id) -> dict[str, str]:
    with for_shop(engine, shop_id) as session:
        token, _ = create_key(session, shop_id, "test", ["*"], SYSTEM.now())
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def path(engine, shop_id) -> str:
    with for_shop(engine, shop_id) as session:
        return f"/webhooks/shopify/{load_shop(session, shop_id).slug}"


@pytest.fixture
def connect(client, key):
    def connecting(base_url: str = "https://ours.myshopify.com", **secrets: str) -> None:
        secrets = {"access_token": "t", "webhook_secret": NEW, **secrets}
        answer = client.put("/api/integrations/shopify", json={"base_url": base_url, "secrets": secrets}, headers=key)
        assert answer.status_code == 200, answer.text

    return connecting


def order(number: int, **changes: Any) -> dict[str, Any]:
    now = SYSTEM.now().isoformat()
    return {
        "id": number, "created_at": now, "processed_at": now, "updated_at": now, "total_price": "12.50",
        "financial_status": "paid", "customer": None, "line_items": [], **changes,
    }  # fmt: skip


def headers(body: bytes, topic: str = "orders/paid", secret: str = NEW, **named: str) -> dict[str, str]:
    digest = base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest()).decode()
    extra = {f"X-Shopify-{name.replace('_', '-')}": value for name, value in named.items()}
    return {"X-Shopify-Topic": topic, "X-Shopify-Hmac-Sha256": digest, **extra}


def stored(engine, shop_id) -> list[str]:
    with for_shop(engine, shop_id) as session:
        return sorted(session.execute(text("SELECT split_part(source_id, '@', 1) FROM events")).scalars())


def test_two_secrets_are_good_while_one_replaces_the_other(client, engine, shop_id, path, connect):
    body = orjson.dumps(order(1))
    connect(webhook_secret=NEW, webhook_secret_previous=OLD)
    for secret in (NEW, OLD):
        assert client.post(path, content=body, headers=headers(body, secret=secret)).status_code == 200
    connect(webhook_secret=NEW, webhook_secret_previous="")
    assert client.post(path, content=body, headers=headers(body, secret=NEW)).status_code == 200
    for secret in (OLD, "", "another"):
        answer = client.post(path, content=body, headers=headers(body, secret=secret))
        assert (answer.status_code, answer.json()["code"]) == (401, "signature")


def test_another_shops_delivery_is_not_taken(client, engine, shop_id, path, connect):
    """One app signs all its shops' webhooks with one secret: a subscription may point to the wrong shop's address."""
    connect()
    body = orjson.dumps(order(1))
    answer = client.post(path, content=body, headers=headers(body, Shop_Domain="theirs.myshopify.com"))
    assert (answer.status_code, answer.json()["code"]) == (401, "other_shop")
    assert stored(engine, shop_id) == []
    for domain in ("OURS.myshopify.com", ""):
        assert client.post(path, content=body, headers=headers(body, Shop_Domain=domain)).status_code == 200


def test_a_shop_behind_another_address_is_not_asked_for_its_domain(client, path, connect):
    connect("https://gateway.example.com")
    body = orjson.dumps(order(1))
    assert client.post(path, content=body, headers=headers(body, Shop_Domain="any.myshopify.com")).status_code == 200


def test_a_delivery_is_known_again_by_either_of_its_names(client, engine, shop_id, path, connect):
    connect()
    first, other, third = (orjson.dumps(order(number)) for number in (1, 2, 3))
    names = {"Event_Id": "e-1", "Webhook_Id": "w-1"}
    assert client.post(path, content=first, headers=headers(first, **names)).json()["accepted"] == 3
    for copy in ({**names, "Event_Id": "e-2"}, {**names, "Webhook_Id": "w-2"}):
        answer = client.post(path, content=other, headers=headers(other, **copy)).json()
        assert (answer["accepted"], answer["duplicates"]) == (0, 3)
    same_event = headers(third, "orders/updated", Event_Id="e-1", Webhook_Id="w-3")  # one change, another topic
    assert client.post(path, content=third, headers=same_event).json()["accepted"] == 3
    anew = headers(other, Event_Id="e-9", Webhook_Id="w-9")  # what the copies said was not used up
    assert client.post(path, content=other, headers=anew).json()["accepted"] == 3


def test_a_copy_that_races_with_its_original_is_stored_once(client, engine, shop_id, path, connect):
    connect()
    bodies = [orjson.dumps(order(number, total_price=f"{number}.00")) for number in range(1, 26)]

    def send(number: int) -> dict[str, Any]:
        body = bodies[number]
        sent = headers(body, Event_Id=f"e-{number}", Webhook_Id=f"w-{number}")
        return client.post(path, content=body, headers=sent).json()

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, [number for number in range(len(bodies)) for _ in range(4)]))
    assert sum(one["accepted"] for one in answers) == 3 * len(bodies)
    assert len(stored(engine, shop_id)) == 3 * len(bodies)


@pytest.mark.parametrize(
    "changes",
    [
        {"created_at": "1980-01-01T00:00:00Z"},  # of its three events only one is impossible
        {"name": "\x00"},
        {"line_items": [{"id": 1, "price": "1.00", "quantity": 1, "title": "\ud83d"}]},
        {"refunds": [{"id": 5, "processed_at": "2999-01-01T00:00:00Z", "transactions": [
            {"kind": "refund", "amount": "1.00", "currency": "USD"}]}]},
        {"total_price_set": {"shop_money": {"amount": "1.00", "currency_code": "EUR"}}},
    ],
)  # fmt: skip
def test_a_delivery_is_stored_whole_or_not_at_all_and_never_asked_for_again(
    client, engine, shop_id, path, connect, changes
):
    connect()
    try:
        body = orjson.dumps(order(1, **changes))
    except TypeError:  # half a character is no UTF-8, but JSON can say it
        body = orjson.dumps(order(1)).replace(b'"line_items":[]', b'"line_items":[{"id":1,"title":"\\ud83d"}]')
    answer = client.post(path, content=body, headers=headers(body))
    assert answer.status_code == 200, answer.text
    assert (answer.json()["accepted"], len(answer.json()["rejected"])) == (0, 1)
    assert answer.json()["rejected"][0]["reason"]
    assert stored(engine, shop_id) == []


def test_what_became_of_deliveries_is_counted_by_topic(client, key, path, connect):
    connect()
    good, bad = orjson.dumps(order(1)), orjson.dumps(order(None))
    before = counted(client, key)
    for body, topic in (
        (good, "orders/create"),
        (good, "orders/create"),
        (bad, "orders/create"),
        (good, "teas/poured"),
    ):
        assert client.post(path, content=body, headers=headers(body, topic)).status_code == 200
    after = counted(client, key)
    told = [("duplicate", "orders/create"), ("rejected", "orders/create"), ("kept", "teas/poured")]
    assert [after[one] - before.get(one, 0) for one in told] == [1, 1, 1]
    assert 'route="/webhooks/shopify/{shop}"' in client.get("/metrics", headers=key).text


def counted(client, key) -> dict[tuple[str, str], float]:
    """Deliveries by outcome and topic, of all shops: the process counts them together."""
    found = re.findall(
        r'^opagent_webhook_deliveries_total\{outcome="(\w+)",topic="([^"]+)",vendor="shopify"\} (\S+)$',
        client.get("/metrics", headers=key).text,
        re.MULTILINE,
    )
    return {(outcome, topic): float(number) for outcome, topic, number in found}


@pytest.mark.parametrize("slug", ["", "UPPER", "a" * 64, "a/b", "no-such-shop", "a%00b"])
def test_an_address_that_is_no_shops_is_404(client, slug):
    answer = client.post(f"/webhooks/shopify/{slug}", content=b"{}", headers=headers(b"{}"))
    assert answer.status_code in (404, 405)


def test_without_a_topic_nothing_is_known_and_nothing_is_sent_again(client, path, connect):
    connect()
    named = headers(b"{}")
    del named["X-Shopify-Topic"]
    answer = client.post(path, content=b"{}", headers=named)
    assert (answer.status_code, answer.json()["rejected"][0]["code"]) == (200, "topic")
