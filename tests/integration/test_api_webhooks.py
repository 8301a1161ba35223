"""Webhooks in: nothing without a secret or with a wrong signature, each fact once, one bad entry spoils no other."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import timedelta
from uuid import UUID

import httpx
import hypothesis
import orjson
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import strategies as st
from sqlalchemy import text

from operation_agent.access.keys import create_key
from operation_agent.actions import unsubscribe
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.kit.secrets import secret_key
from operation_agent.kit.settings import settings
from operation_agent.store.session import for_shop
from operation_agent.store.shops import create_shop, load_shop

pytestmark = pytest.mark.integration

SECRET = "hush-hush-hush"


@pytest.fixture
def key(engine, shop_id) -> dict[str, str]:
    with for_shop(engine, shop_id) as session:
        token, _ = create_key(session, shop_id, "test", ["*"], SYSTEM.now())
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def slug(engine, shop_id) -> str:
    with for_shop(engine, shop_id) as session:
        return load_shop(session, shop_id).slug


@pytest.fixture
def shopify(client, key) -> None:
    answer = client.put(
        "/api/integrations/shopify",
        json={"base_url": "http://127.0.0.1:9", "secrets": {"access_token": "t", "webhook_secret": SECRET}},
        headers=key,
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["secrets"] == ["access_token", "webhook_secret"]


def order(number: int, **changes) -> dict:
    return {
        "id": number, "processed_at": SYSTEM.now().isoformat(), "total_price": "12.50", "total_discounts": "0.00",
        "financial_status": "paid", "customer": {"id": 77, "email": "Buyer@Example.com"}, "line_items": [], **changes,
    }  # fmt: skip


def signed(body: bytes, topic: str = "orders/paid", secret: str = SECRET) -> dict[str, str]:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).digest()
    return {"X-Shopify-Topic": topic, "X-Shopify-Hmac-Sha256": base64.b64encode(digest).decode()}


def stored(engine, shop_id: UUID) -> list:
    with for_shop(engine, shop_id) as session:
        return session.execute(text("SELECT type, identity, properties FROM events ORDER BY id")).all()


def test_nothing_is_accepted_without_a_secret(client, engine, shop_id, slug):
    body = orjson.dumps(order(1))
    answer = client.post(f"/webhooks/shopify/{slug}", content=body, headers=signed(body, secret=""))
    assert (answer.status_code, answer.json()["code"]) == (503, "webhook_not_configured")
    assert "webhook_secret" in answer.json()["detail"]
    assert client.post("/webhooks/shopify/no-such-shop", content=body, headers=signed(body)).status_code == 404
    assert stored(engine, shop_id) == []


def test_a_wrong_signature_stores_nothing(client, engine, shop_id, slug, shopify):
    body = orjson.dumps(order(1))
    for headers in ({}, signed(body, secret="other"), signed(body + b" "), {"X-Shopify-Hmac-Sha256": "é!"}):
        answer = client.post(
            f"/webhooks/shopify/{slug}", content=body, headers={k: v.encode() for k, v in headers.items()}
        )
        assert (answer.status_code, answer.json()["code"]) == (401, "signature")
    assert stored(engine, shop_id) == []


def test_an_order_is_stored_once_however_often_it_comes(client, engine, shop_id, slug, shopify):
    body = orjson.dumps(order(1))
    first = client.post(f"/webhooks/shopify/{slug}", content=body, headers=signed(body))
    again = client.post(f"/webhooks/shopify/{slug}", content=body, headers=signed(body))
    assert first.json() == {"accepted": 3, "duplicates": 0, "ignored": 0, "rejected": []}
    assert again.json() == {"accepted": 0, "duplicates": 3, "ignored": 0, "rejected": []}
    found = stored(engine, shop_id)
    assert sorted(one.type for one in found) == ["order.created", "order.paid", "order.updated"]
    ((kind, identity, properties),) = [one for one in found if one.type == "order.paid"]
    assert (kind, identity["email"], properties["total_minor"]) == ("order.paid", "buyer@example.com", 1250)


def test_a_topic_that_nobody_reads_is_kept(client, engine, shop_id, slug, key, shopify):
    body = orjson.dumps({"id": 1, "big": 2**60})
    headers = signed(body, "metaobjects/create") | {"X-Shopify-API-Version": "2031-01"}
    answer = client.post(f"/webhooks/shopify/{slug}", content=body, headers=headers)
    assert answer.json() == {"accepted": 1, "duplicates": 0, "ignored": 0, "rejected": []}
    ((kind, _, properties),) = stored(engine, shop_id)
    expected = {"topic": "metaobjects/create", "version": "2031-01", "body": {"id": 1, "big": 2**60}}
    assert (kind, properties) == ("webhook.kept", expected)
    counted = 'opagent_webhook_deliveries_total{outcome="kept",topic="metaobjects/create",vendor="shopify"} 1.0'
    assert counted in client.get("/metrics", headers=key).text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'"x"'])
def test_a_signed_body_that_can_never_be_read_is_answered_2xx_with_the_reason(
    client, engine, shop_id, slug, shopify, body
):
    """Shopify would send anything else again, and then delete the subscription."""
    answer = client.post(f"/webhooks/shopify/{slug}", content=body, headers=signed(body))
    assert (answer.status_code, answer.json()["rejected"][0]["code"]) == (200, "json")
    assert stored(engine, shop_id) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None}, {"processed_at": "yesterday"}, {"total_price": "NaN"}, {"total_price": "1e400"},
        {"customer": {"id": "a\0b"}}, {"processed_at": "0001-01-01T00:00:00+23:59"},
        {"processed_at": "9999-12-31T23:59:59-23:59"},
        {"total_price_set": {"shop_money": {"amount": "1", "currency_code": "EUR"}}},
    ],
)  # fmt: skip
def test_an_order_that_cannot_be_understood_is_reported(client, engine, shop_id, slug, shopify, changes):
    body = orjson.dumps(order(5, **changes))
    answer = client.post(f"/webhooks/shopify/{slug}", content=body, headers=signed(body))
    assert answer.status_code == 200, answer.text
    assert [one["index"] for one in answer.json()["rejected"]] == [0]
    assert stored(engine, shop_id) == []


def test_an_order_ahead_of_the_shops_clock_is_refused_and_a_little_ahead_is_now(client, engine, slug, shopify):
    for ahead, accepted in ((timedelta(minutes=30), 3), (timedelta(hours=3), 0)):
        body = orjson.dumps(order(int(ahead.total_seconds()), processed_at=(SYSTEM.now() + ahead).isoformat()))
        answer = client.post(f"/webhooks/shopify/{slug}", content=body, headers=signed(body))
        assert answer.json()["accepted"] == accepted


def test_a_body_over_the_limit_is_413(client, slug, shopify, monkeypatch):
    body = b"[" + b" " * settings().webhook_limit_bytes + b"]"
    assert client.post(f"/webhooks/shopify/{slug}", content=body, headers=signed(body)).status_code == 413


@pytest.fixture(scope="module")
def signer() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


class TestSendGrid:
    @pytest.fixture
    def connected(self, client, key, signer) -> None:
        public = signer.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        secrets = {"webhook_public_key": base64.b64encode(public).decode()}
        body = {"base_url": "http://127.0.0.1:9", "config": {"from_email": "s@example.com"}, "secrets": secrets}
        assert client.put("/api/integrations/sendgrid", json=body, headers=key).status_code == 200

    def post(self, client, slug, signer, body: bytes) -> httpx.Response:
        stamp = str(int(SYSTEM.now().timestamp()))
        signature = signer.sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))
        headers = {
            "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
            "X-Twilio-Email-Event-Webhook-Timestamp": stamp,
        }
        return client.post(f"/webhooks/sendgrid/{slug}", content=body, headers=headers)

    def test_one_bad_entry_spoils_no_other(self, client, engine, shop_id, slug, connected, signer):
        now = int(SYSTEM.now().timestamp())
        good = {"event": "delivered", "email": "a@example.com", "timestamp": now, "sg_message_id": "m1.x"}
        entries = [
            good,
            {"event": "open"},
            {**good, "event": "processed"},
            7,
            {**good, "event": "open", "x": "\ud83d"[:0]},
        ]
        answer = self.post(client, slug, signer, orjson.dumps(entries)).json()
        assert (answer["accepted"], answer["ignored"]) == (2, 1)
        assert [one["index"] for one in answer["rejected"]] == [1, 3]
        assert [row.type for row in stored(engine, shop_id)] == ["email.delivered", "email.opened"]

    def test_another_signer_is_refused(self, client, slug, connected):
        other = ec.generate_private_key(ec.SECP256R1())
        assert self.post(client, slug, other, b"[]").status_code == 401


def test_a_secret_is_never_shown_and_never_sent_to_a_new_address(client, engine, shop_id, key, shopify):
    shown = client.get("/api/integrations/shopify", headers=key)
    assert SECRET not in shown.text
    with for_shop(engine, shop_id) as session:
        sealed = session.execute(text("SELECT secrets FROM integrations")).scalar_one()
        assert SECRET.encode() not in bytes(sealed)
        logged = session.execute(text("SELECT detail::text FROM audit_log WHERE verb = 'integration.changed'")).scalar()
    assert SECRET not in logged
    moved = client.put("/api/integrations/shopify", json={"base_url": "http://127.0.0.1:10"}, headers=key)
    assert (moved.status_code, moved.json()["code"]) == (400, "secret_needed")
    again = {"base_url": "http://127.0.0.1:10", "secrets": {"access_token": "new"}}
    assert client.put("/api/integrations/shopify", json=again, headers=key).json()["secrets"] == [
        "access_token",
        "webhook_secret",
    ]


@pytest.mark.parametrize(
    "address",
    [
        "http://api.sendgrid.com", "https://127.0.0.1", "https://127.1", "https://0x7f.0.0.1", "https://2130706433",
        "https://[::1]", "https://[::ffff:10.0.0.1]", "https://localhost", "https://db.internal", "https://a:b@c.com",
        "https://169.254.169.254", "ftp://x.com", "https://", "https://x.com:0", "https://x.com:99999", "javascript:1",
        "https://x.com?y=1", "https://x.com#y", "https://exa mple.com", "https://éxample.com", "//x.com", "https://-x.com",
    ],
)  # fmt: skip
def test_a_real_shop_calls_public_https_addresses_only(client, engine, address):
    real = create_shop(engine, slug=f"r-{new_id().hex[-12:]}", name="Real", currency="USD")
    with for_shop(engine, real.id) as session:
        token, _ = create_key(session, real.id, "test", ["*"], SYSTEM.now())
    body = {"base_url": address, "config": {"from_email": "a@b.c"}, "secrets": {"api_key": "k"}}
    headers = {"Authorization": f"Bearer {token}"}
    answer = client.put("/api/integrations/sendgrid", json=body, headers=headers)
    assert (answer.status_code, answer.json()["where"]) == (400, "body.base_url"), answer.text
    fine = {**body, "base_url": "https://api.sendgrid.com/"}
    assert client.put("/api/integrations/sendgrid", json=fine, headers=headers).json()["base_url"] == (
        "https://api.sendgrid.com"
    )


def test_a_sandbox_is_never_connected_to_a_real_provider(client, key):
    for host in ("https://api.sendgrid.com", "https://x.myshopify.com"):
        answer = client.put("/api/integrations/shopify", json={"base_url": host}, headers=key)
        assert answer.status_code == 400


def test_vendors_and_secrets_are_those_the_workers_know():
    from api.routes.integrations import CHANNELS, CONFIGS, SECRETS
    from api.webhooks import sendgrid, shopify
    from integrations.registry import VENDORS

    assert {name: vendor.channel for name, vendor in VENDORS.items()} == CHANNELS
    for name, vendor in VENDORS.items():
        assert {*vendor.secrets, vendor.webhook_secret} <= SECRETS[name]
        assert name in CONFIGS
    for provider in (sendgrid.PROVIDER, shopify.PROVIDER):
        assert VENDORS[provider.vendor].webhook_secret == provider.secret


def test_a_recipient_leaves_with_one_click_and_a_scanner_changes_nothing(client, engine, shop_id):
    action_id, customer_id, now = new_id(), new_id(), SYSTEM.now()
    with for_shop(engine, shop_id) as session:
        session.execute(
            text(
                "INSERT INTO customers (shop_id, id, random_key, email, first_seen_at, last_seen_at, created_at)"
                " VALUES (:shop, :customer, :customer, 'leaver@example.com', :now, :now, :now)"
            ),
            {"shop": shop_id, "customer": customer_id, "now": now},
        )
        session.execute(
            text(
                "INSERT INTO actions (shop_id, id, decision_id, customer_id, strategy_id, rule_id, arm, step, type,"
                " channel, held_out, parameters, dedupe_key, decided_at, state, due_at, created_at)"
                " VALUES (:shop, :id, :id, :customer, :id, :id, 'a', 0, 'email', 'email', false, '{}', 'k', :now,"
                " 'sent', :now, :now)"
            ),
            {"shop": shop_id, "id": action_id, "customer": customer_id, "now": now},
        )
    link = unsubscribe.PATH + unsubscribe.sign(secret_key(settings()), shop_id, action_id)
    assert client.get(link).status_code == 200
    assert stored(engine, shop_id) == []
    assert client.post(link, content=b"List-Unsubscribe=One-Click").status_code == 200
    assert client.post(link).status_code == 200
    ((kind, identity, properties),) = stored(engine, shop_id)
    assert (kind, identity["email"]) == ("email.unsubscribed", "leaver@example.com")
    assert properties["action_id"] == str(action_id)
    assert client.post(link[:-4] + "AAAA").status_code == 403


NASTY = st.one_of(
    st.none(), st.booleans(), st.text(max_size=20), st.integers(-(2**70), 2**70), st.floats(), st.just("a\0b"),
    st.just("\ud800"), st.lists(st.none(), max_size=2), st.dictionaries(st.text(max_size=5), st.none(), max_size=2),
    st.sampled_from(["1e999", "NaN", "-5", "9999-12-31T23:59:59-23:59", "0001-01-01", "9" * 300]),
)  # fmt: skip
WHOLE = {
    "id": 9, "order_id": 8, "processed_at": "2026-01-01T00:00:00Z", "created_at": "2026-01-01T00:00:00Z",
    "cancelled_at": "2026-01-01T00:00:00Z", "total_price": "5.00", "total_discounts": "0.50", "name": "#9",
    "financial_status": "paid", "customer": {"id": 1, "email": "a@example.com", "phone": "+14155550100"},
    "discount_codes": [{"code": "X"}], "refund_line_items": [{"subtotal": "1.00", "total_tax": "0.1"}],
    "line_items": [{"product_id": 5, "quantity": 2, "price": "2.50", "sku": "s"}],
    "transactions": [{"kind": "refund", "status": "success", "amount": "1.00", "currency": "USD"}],
    "order_adjustments": [{"amount": "-1.00", "tax_amount": "0"}],
}  # fmt: skip
ENTRY = {
    "event": "bounce", "email": "a@example.com", "timestamp": 1767225600, "sg_message_id": "m.1", "reason": "r",
    "action_id": "x", "customer": "c", "type": "bounce", "url": "https://example.com",
}  # fmt: skip


def spoilt(draw, good):
    """The good value with garbage in one place, at any depth."""
    if isinstance(good, dict) and draw(st.integers(0, 4)):
        name = draw(st.sampled_from(sorted(good)))
        return {**good, name: spoilt(draw, good[name])}
    if isinstance(good, list) and draw(st.booleans()):
        return [spoilt(draw, good[0])]
    return draw(NASTY)


FUZZ = hypothesis.settings(
    max_examples=150, deadline=None, derandomize=True, database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)  # fmt: skip


@pytest.mark.parametrize("topic", ["orders/paid", "orders/create", "refunds/create", "orders/cancelled"])
def test_garbage_that_is_signed_is_reported_and_not_our_fault(client, slug, shopify, topic):
    @FUZZ
    @hypothesis.given(st.data())
    def attack(data: st.DataObject) -> None:
        body = json.dumps(spoilt(data.draw, WHOLE)).encode()
        answer = client.post(f"/webhooks/shopify/{slug}", content=body, headers=signed(body, topic))
        assert answer.status_code in (200, 400), (body, answer.text)

    attack()


def test_garbage_signed_by_sendgrid_spoils_nothing_else(client, engine, shop_id, key, slug, signer):
    sendgrid = TestSendGrid()
    public = signer.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    secrets = {"webhook_public_key": base64.b64encode(public).decode()}
    body = {"base_url": "http://127.0.0.1:9", "config": {"from_email": "s@example.com"}, "secrets": secrets}
    assert client.put("/api/integrations/sendgrid", json=body, headers=key).status_code == 200
    good = 0

    @FUZZ
    @hypothesis.given(st.data())
    def attack(data: st.DataObject) -> None:
        nonlocal good
        good += 1
        entries = [spoilt(data.draw, ENTRY), {**ENTRY, "sg_message_id": f"good-{good}.x"}]
        answer = sendgrid.post(client, slug, signer, json.dumps(entries).encode())
        assert answer.status_code in (200, 400), (entries, answer.text)
        if answer.status_code == 400:  # the JSON itself: NaN, half a surrogate pair
            good -= 1

    attack()
    kept = [row for row in stored(engine, shop_id) if row.properties.get("provider_ref", "").startswith("good-")]
    assert len(kept) == good
