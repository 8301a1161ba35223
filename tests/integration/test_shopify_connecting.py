"""Connecting a shop by OAuth: which callbacks are believed, what is stored of them, and how tokens are renewed."""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import orjson
import pytest
from sqlalchemy import text

from operation_agent.access.keys import create_key
from operation_agent.access.users import create_user
from operation_agent.kit.clock import SYSTEM, FixedClock
from operation_agent.kit.secrets import Vault, secret_key
from operation_agent.kit.settings import settings
from operation_agent.store.session import for_shop, for_system
from operation_agent.store.shops import load_shop
from operation_agent.storefront import connection
from tests.shopify_peer.peer import CLIENT_ID, CLIENT_SECRET, Peer, peer, why_not
from workers import connecting

pytestmark = [pytest.mark.integration, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

DOMAIN = "some-shop.myshopify.com"
PUBLIC = "https://agent.example"
SCOPES = [
    "write_orders", "read_fulfillments", "write_customers", "write_products", "read_inventory", "read_locations",
    "write_discounts", "write_draft_orders", "write_online_store_pages", "write_publications", "write_metaobjects",
    "write_metaobject_definitions",
]  # fmt: skip


@pytest.fixture(scope="module")
def running() -> Iterator[Peer]:
    with peer() as found:
        yield found


@pytest.fixture
def shopify(running: Peer) -> Peer:
    running.reset()
    running.grant(scopes=SCOPES)
    return running


@pytest.fixture(autouse=True)
def _public(monkeypatch) -> Iterator[None]:
    monkeypatch.setenv("OPAGENT_PUBLIC_URL", PUBLIC)
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def key(engine, shop_id) -> dict[str, str]:
    with for_shop(engine, shop_id) as session:
        token, _ = create_key(session, shop_id, "test", ["*"], SYSTEM.now())
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def set_up(client, key, shopify) -> dict[str, Any]:
    """Shopify with the app's id and secret, before anybody granted anything."""
    body = {
        "base_url": shopify.base_url,
        "config": {"domain": DOMAIN},
        "secrets": {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET},
    }
    answer = client.put("/api/integrations/shopify", json=body, headers=key)
    assert answer.status_code == 200, answer.text
    return answer.json()


def begin(client, key, **body: Any) -> dict[str, Any]:
    answer = client.post("/api/integrations/shopify/connect", json=body, headers=key)
    assert answer.status_code == 201, answer.text
    return answer.json()


def state_of(asked: dict[str, Any]) -> str:
    return parse_qs(urlsplit(asked["url"]).query)["state"][0]


def signed(secret: str = CLIENT_SECRET, **parameters: str) -> str:
    """A query as Shopify signs it."""
    message = "&".join(f"{name}={parameters[name]}" for name in sorted(parameters))
    signature = hmac.new(secret.encode(), message.encode(), hashlib.sha256).hexdigest()
    return urlencode({**parameters, "hmac": signature})


def callback(asked: dict[str, Any], code: str = "code-1", **changes: str) -> dict[str, str]:
    now = int(SYSTEM.now().timestamp())
    return {
        "code": code, "shop": DOMAIN, "state": state_of(asked), "timestamp": str(now), "host": "YWRtaW4"
    } | changes  # fmt: skip


def come_back(client, query: str) -> Any:
    return client.get(f"/oauth/shopify/callback?{query}", headers={"Accept": "text/html,*/*"})


def row(engine, shop_id) -> Any:
    with for_shop(engine, shop_id) as session:
        return session.execute(text("SELECT * FROM integrations WHERE shop_id = :shop"), {"shop": shop_id}).one()


def held(engine, shop_id) -> dict[str, str]:
    return orjson.loads(Vault(secret_key(settings())).open(bytes(row(engine, shop_id).secrets)))


def audited(engine, shop_id) -> list[tuple[str, dict]]:
    with for_shop(engine, shop_id) as session:
        rows = session.execute(
            text("SELECT verb, detail FROM audit_log WHERE shop_id = :shop AND verb LIKE 'integration.%' ORDER BY seq"),
            {"shop": shop_id},
        )
        return [(one.verb, one.detail) for one in rows]


def connect(client, key, shopify, scopes: list[str] | None = None) -> None:
    asked = begin(client, key)
    shopify.authorize("good", scopes or SCOPES)
    answer = come_back(client, signed(**callback(asked, "good")))
    assert answer.status_code == 200, answer.text


# -- the grant ----------------------------------------------------------------------------------------------------


def test_a_shop_is_connected_by_its_own_grant(client, engine, shop_id, key, shopify, set_up):
    assert set_up["problem"] == "unauthorized"
    asked = begin(client, key)
    query = parse_qs(urlsplit(asked["url"]).query)
    assert asked["url"].startswith(shopify.base_url)  # a sandbox never sends anybody to Shopify itself
    assert query["client_id"] == [CLIENT_ID]
    assert query["redirect_uri"] == [f"{PUBLIC}/oauth/shopify/callback"]
    assert set(query["scope"][0].split(",")) == set(SCOPES) == set(asked["scopes"])

    shopify.authorize("good", SCOPES)
    page = come_back(client, signed(**callback(asked, "good")))
    assert page.status_code == 200
    assert f"{DOMAIN} is connected" in page.text
    assert "已连接" in page.text

    secrets = held(engine, shop_id)
    assert secrets["access_token"].startswith("shpat_")
    assert secrets["refresh_token"].startswith("shprt_")
    assert secrets["webhook_secret"] == CLIENT_SECRET
    shown = client.get("/api/integrations/shopify", headers=key)
    assert shown.json()["problem"] is None
    assert shown.json()["token_expires_at"] is not None
    for secret in ("access_token", "refresh_token", "client_secret"):
        assert secrets[secret] not in shown.text + page.text
    verbs = [verb for verb, _ in audited(engine, shop_id)]
    assert verbs[-2:] == ["integration.recovered", "integration.connected"]
    assert secrets["access_token"] not in str(audited(engine, shop_id))


def test_what_was_not_granted_is_named_on_the_page(client, key, shopify, set_up):
    asked = begin(client, key)
    shopify.authorize("good", ["write_orders", "write_discounts"])
    page = come_back(client, signed(**callback(asked, "good")))
    assert page.status_code == 200
    assert "write_customers" in page.text
    assert "write_discounts" not in page.text
    assert "read_all_orders" not in page.text


REFUSALS = [
    ("hmac", 403, lambda asked: signed("another secret", **callback(asked))),
    ("hmac", 403, lambda asked: signed(**callback(asked)).replace("code-1", "code-2")),
    ("hmac", 403, lambda asked: signed(**callback(asked)) + "&extra=1"),
    ("state", 403, lambda asked: signed(**callback(asked, state=state_of(asked)[:-1] + "~"))),
    ("state", 403, lambda asked: signed(**callback(asked, state="f" * 32 + "x"))),
    ("state", 403, lambda asked: signed(**callback(asked, state="nobody's"))),
    ("domain", 403, lambda asked: signed(**callback(asked, shop="another.myshopify.com"))),
    ("domain", 400, lambda asked: signed(**callback(asked, shop="some-shop.myshopify.com.evil.example"))),
    ("domain", 400, lambda asked: signed(**callback(asked, shop="evil.example/some-shop.myshopify.com"))),
    ("timestamp", 403, lambda asked: signed(**callback(asked, timestamp="1337178173"))),
    ("timestamp", 403, lambda asked: signed(**callback(asked, timestamp="99999999999"))),
    ("callback", 400, lambda asked: signed(**callback(asked, timestamp="-1"))),
    ("callback", 400, lambda asked: signed(**{**callback(asked), "code": ""})),
    ("callback", 400, lambda asked: signed(**callback(asked)) + f"&shop={DOMAIN}"),
    ("callback", 400, lambda asked: urlencode(callback(asked))),
    ("callback", 400, lambda _: ""),
    ("callback", 400, lambda _: "a=" + "x" * 5000),
]


@pytest.mark.parametrize(("code", "status", "query"), REFUSALS)
def test_a_callback_that_shopify_did_not_send_connects_nothing(
    client, engine, shop_id, key, shopify, set_up, code, status, query
):
    shopify.authorize("code-1", SCOPES)
    before = held(engine, shop_id)
    answer = come_back(client, query(begin(client, key)))
    assert answer.status_code == status, answer.text
    assert f'<code id="code">{code}</code>' in answer.text
    assert "未" in answer.text
    assert held(engine, shop_id) == before
    assert not [one for one in shopify.calls() if one["path"] == "/admin/oauth/access_token"]


def test_who_asks_for_no_page_gets_a_problem_document(client, key, set_up):
    answer = client.get("/oauth/shopify/callback", params=callback(begin(client, key)))
    assert (answer.status_code, answer.json()["code"]) == (400, "callback")


def test_a_grant_is_good_in_the_browser_that_asked_for_it(client, engine, shop_id, shopify, set_up):
    with for_shop(engine, shop_id) as session:
        slug = load_shop(session, shop_id).slug
    who = {"email": "operator@example.com", "password": "correct horse battery"}
    with for_system(engine) as session:
        create_user(session, who["email"], who["password"], SYSTEM.now())
    with httpx.Client(transport=client._transport, base_url=PUBLIC) as browser:
        answer = browser.post("/api/session", json=who)
        assert answer.status_code == 201, answer.text
        asked = browser.post(
            f"/api/integrations/shopify/connect?shop={slug}", json={}, headers={"X-Requested-With": "x"}
        )  # fmt: skip
        assert asked.status_code == 201, asked.text
        assert all(part in asked.headers["set-cookie"] for part in ("HttpOnly", "Secure", "SameSite=lax"))
        shopify.authorize("good", SCOPES)
        query = signed(**callback(asked.json(), "good"))
        assert come_back(client, query).status_code == 403  # another browser, led here by somebody
        assert come_back(browser, query).status_code == 200


def test_a_grant_is_good_for_one_callback(client, engine, shop_id, key, shopify, set_up):
    asked = begin(client, key)
    shopify.authorize("good", SCOPES)
    query = signed(**callback(asked, "good"))
    assert come_back(client, query).status_code == 200
    first = held(engine, shop_id)
    shopify.authorize("again", SCOPES)
    for replay in (query, signed(**callback(asked, "again"))):
        answer = come_back(client, replay)
        assert (answer.status_code, '<code id="code">state</code>' in answer.text) == (403, True)
    assert held(engine, shop_id) == first


def test_two_callbacks_at_once_are_one(client, engine, shop_id, key, shopify, set_up):
    asked = begin(client, key)
    shopify.authorize("good", SCOPES)
    query, found = signed(**callback(asked, "good")), []
    callers = [threading.Thread(target=lambda: found.append(come_back(client, query).status_code)) for _ in range(6)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert sorted(found) == [200, 403, 403, 403, 403, 403]


def test_a_grant_is_good_for_ten_minutes(client, engine, shop_id, key, shopify, set_up):
    asked = begin(client, key)
    shopify.authorize("good", SCOPES)
    with for_shop(engine, shop_id) as session:
        session.execute(
            text("UPDATE oauth_states SET asked_at = asked_at - interval '11 minutes' WHERE shop_id = :shop"),
            {"shop": shop_id},
        )
    answer = come_back(client, signed(**callback(asked, "good")))
    assert (answer.status_code, "state_expired" in answer.text) == (403, True)
    assert "access_token" not in held(engine, shop_id)


def test_a_forged_callback_does_not_use_up_the_grant(client, key, shopify, set_up):
    asked = begin(client, key)
    shopify.authorize("good", SCOPES)
    assert come_back(client, signed("wrong", **callback(asked, "good"))).status_code == 403
    assert come_back(client, signed(**callback(asked, "good"))).status_code == 200


def test_the_state_is_not_kept_readable(client, engine, shop_id, key, set_up):
    state = state_of(begin(client, key))
    with for_shop(engine, shop_id) as session:
        kept = session.execute(text("SELECT * FROM oauth_states WHERE shop_id = :s"), {"s": shop_id}).one()
    assert state not in str(kept)


def test_lists_and_repeated_parameters_are_signed_as_shopify_signs_them(client, key, shopify, set_up):
    asked = begin(client, key)
    shopify.authorize("good", SCOPES)
    given = callback(asked, "good")
    message = "&".join(sorted([*(f"{name}={value}" for name, value in given.items()), 'ids=["1", "2"]']))
    signature = hmac.new(CLIENT_SECRET.encode(), message.encode(), hashlib.sha256).hexdigest()
    answer = come_back(client, urlencode([*given.items(), ("ids[]", "1"), ("ids[]", "2"), ("hmac", signature)]))
    assert answer.status_code == 200, answer.text


def test_a_code_that_shopify_refuses_or_an_outage_stores_nothing(client, engine, shop_id, key, shopify, set_up):
    answer = come_back(client, signed(**callback(begin(client, key), "never given")))
    assert (answer.status_code, "grant_refused" in answer.text) == (403, True)
    shopify.authorize("good", SCOPES)
    shopify.fault("status", "/admin/oauth", status=502)
    assert come_back(client, signed(**callback(begin(client, key), "good"))).status_code == 503
    shopify.fault("drop_before", "/admin/oauth")
    assert come_back(client, signed(**callback(begin(client, key), "good"))).status_code == 503
    assert "access_token" not in held(engine, shop_id)
    assert come_back(client, signed(**callback(begin(client, key), "good"))).status_code == 200


def test_a_grant_needs_the_app_and_the_right_shop(client, key, shopify, set_up):
    answer = client.post("/api/integrations/shopify/connect", json={"domain": "other-shop"}, headers=key)
    assert (answer.status_code, answer.json()["where"]) == (400, "body.domain")
    answer = client.post("/api/integrations/shopify/connect", json={"domain": "evil.example"}, headers=key)
    assert answer.status_code == 400
    assert begin(client, key, domain=f"https://{DOMAIN}/admin")["domain"] == DOMAIN
    body = {"base_url": shopify.base_url, "secrets": {"client_id": ""}}
    assert client.put("/api/integrations/shopify", json=body, headers=key).status_code == 200
    answer = client.post("/api/integrations/shopify/connect", json={"domain": DOMAIN}, headers=key)
    assert (answer.status_code, answer.json()["code"]) == (409, "not_configured")


# -- tokens -------------------------------------------------------------------------------------------------------


def exchanges(shopify: Peer) -> int:
    return len([one for one in shopify.calls() if one["path"] == "/admin/oauth/access_token"])


def test_a_token_is_renewed_ahead_of_its_end_and_both_are_stored(client, engine, shop_id, key, shopify, set_up):
    connect(client, key, shopify)
    before, end = held(engine, shop_id), row(engine, shop_id).token_expires_at
    clock = FixedClock(end - timedelta(minutes=11))
    assert not connecting.renew(engine, shop_id, "shopify", clock=clock)
    clock.advance(timedelta(minutes=2))
    with for_shop(engine, shop_id) as session:
        assert (connection.RENEW, "shopify") in connection.due(session, shop_id, at=clock.now())
    assert connecting.renew(engine, shop_id, "shopify", clock=clock)
    after = held(engine, shop_id)
    assert after["access_token"] != before["access_token"]
    assert after["refresh_token"] != before["refresh_token"]
    assert row(engine, shop_id).token_expires_at > end
    assert not connecting.renew(engine, shop_id, "shopify", clock=clock)


def test_an_answer_that_was_lost_loses_no_access(client, engine, shop_id, key, shopify, set_up):
    connect(client, key, shopify)
    clock = FixedClock(row(engine, shop_id).token_expires_at - timedelta(minutes=9))
    shopify.fault("drop_after", "/admin/oauth")  # Shopify has made a new pair, and we never saw it
    before = held(engine, shop_id)
    assert not connecting.renew(engine, shop_id, "shopify", clock=clock)
    assert held(engine, shop_id) == before
    assert row(engine, shop_id).problem is None
    clock.advance(timedelta(minutes=3))
    assert connecting.renew(engine, shop_id, "shopify", clock=clock)
    shopify_answers = connecting.check(engine, shop_id, "shopify", clock=FixedClock(SYSTEM.now()))
    assert shopify_answers is not None


def test_one_renewal_at_a_time(client, engine, shop_id, key, shopify, set_up):
    connect(client, key, shopify)
    clock, made = FixedClock(row(engine, shop_id).token_expires_at - timedelta(minutes=9)), []
    shopify.fault("delay", "/admin/oauth", seconds=0.3)
    before = exchanges(shopify)
    workers = [
        threading.Thread(target=lambda: made.append(connecting.renew(engine, shop_id, "shopify", clock=clock)))
        for _ in range(5)
    ]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert sorted(made) == [False, False, False, False, True]
    assert exchanges(shopify) == before + 1


def test_a_refused_token_is_renewed_at_once_where_it_can_be(client, engine, shop_id, key, shopify, set_up):
    connect(client, key, shopify)
    shopify.grant(held(engine, shop_id)["access_token"], scopes=SCOPES, revoked=True)
    assert connecting.check(engine, shop_id, "shopify") is None
    assert row(engine, shop_id).problem == "unauthorized"
    assert connecting.renew(engine, shop_id, "shopify")
    assert row(engine, shop_id).problem is None
    assert connecting.check(engine, shop_id, "shopify") is not None


def test_a_refresh_token_that_is_no_longer_taken_is_a_problem_only_when_the_token_has_ended(
    client, engine, shop_id, key, shopify, set_up
):
    connect(client, key, shopify)
    shopify.fault(
        "status", "/admin/oauth", times=None, status=400,
        body={"error": "invalid_request", "error_description": "This request requires an active refresh_token"},
    )  # fmt: skip
    end = row(engine, shop_id).token_expires_at
    clock = FixedClock(end - timedelta(minutes=9))
    assert not connecting.renew(engine, shop_id, "shopify", clock=clock)
    assert row(engine, shop_id).problem is None
    clock.at = end + timedelta(seconds=1)
    assert not connecting.renew(engine, shop_id, "shopify", clock=clock)
    found = row(engine, shop_id)
    assert found.problem == "unauthorized"
    assert "active refresh_token" in found.problem_detail
    assert found.renew_at > clock.now() + timedelta(minutes=30)  # not asked again every second
    assert "refresh_token" in held(engine, shop_id)


def test_a_renewal_never_undoes_what_an_operator_entered_meanwhile(client, engine, shop_id, key, shopify, set_up):
    connect(client, key, shopify)
    clock = FixedClock(row(engine, shop_id).token_expires_at - timedelta(minutes=9))
    shopify.fault("delay", "/admin/oauth", seconds=0.5)
    worker = threading.Thread(target=lambda: connecting.renew(engine, shop_id, "shopify", clock=clock))
    worker.start()
    while exchanges(shopify) < 2:
        pass
    body = {"base_url": shopify.base_url, "config": {"domain": DOMAIN}, "secrets": {"access_token": "mine"}}
    assert client.put("/api/integrations/shopify", json=body, headers=key).status_code == 200
    worker.join()
    found = held(engine, shop_id)
    assert found["access_token"] == "mine"
    assert "refresh_token" not in found
    assert row(engine, shop_id).token_expires_at is None


def test_a_late_refusal_of_an_old_token_is_no_problem_of_the_new_one(client, engine, shop_id, key, shopify, set_up):
    connect(client, key, shopify)
    old = bytes(row(engine, shop_id).secrets)
    connect(client, key, shopify)
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        assert not connection.note_problem(
            session, shop, "shopify", "unauthorized", "HTTP 401", at=SYSTEM.now(), credentials=old
        )
    assert row(engine, shop_id).problem is None


def test_an_app_of_the_shop_itself_asks_for_its_token(client, engine, shop_id, key, shopify):
    """The peer knows no client credentials: what it would answer is put in its place."""
    body = {
        "base_url": shopify.base_url, "config": {"grant": "client_credentials"},
        "secrets": {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET},
    }  # fmt: skip
    assert client.put("/api/integrations/shopify", json=body, headers=key).status_code == 200
    shopify.fault(
        "status", "/admin/oauth", status=200,
        body={"access_token": shopify.token, "scope": "write_orders", "expires_in": 86399},
    )  # fmt: skip
    assert connecting.renew(engine, shop_id, "shopify")
    found = row(engine, shop_id)
    assert found.problem is None
    assert timedelta(hours=23) < found.token_expires_at - SYSTEM.now() < timedelta(hours=24)
    assert held(engine, shop_id)["webhook_secret"] == CLIENT_SECRET
    assert connecting.check(engine, shop_id, "shopify") is not None
