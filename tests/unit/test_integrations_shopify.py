"""Shopify: whose webhook is believed, what an order and a refund say, what a coupon asks for."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations.shopify import webhook
from operation_agent.kit.errors import Rejected

pytestmark = pytest.mark.unit

CONTRACTS = Path(__file__).parents[2] / "../shared/contracts/shopify"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def parse(topic: str, body: dict, currency: str = "USD") -> list:
    return webhook.parse(webhook.Envelope(topic), orjson.dumps(body), currency=currency, now=NOW, received_at=NOW)


def told(topic: str, body: dict, type_: str):
    """The one event of a type among those that a body gives."""
    (found,) = [event for event in parse(topic, body) if event.type == type_]
    return found


def money(amount: str, currency: str = "USD", shown: str = "EUR") -> dict:
    return {
        "shop_money": {"amount": amount, "currency_code": currency},
        "presentment_money": {"amount": "999.99", "currency_code": shown},
    }


def order(**changes: object) -> dict:
    return {
        "id": 5520982911946154508, "processed_at": "2026-02-03T04:05:06-05:00", "currency": "USD",
        "total_price": "999.99", "total_price_set": money("41.50"), "total_discounts_set": money("4.00"),
        "financial_status": "paid", "discount_codes": [{"code": "SAVE10", "amount": "4.00", "type": "percentage"}],
        "customer": {"id": 115310627314723954, "email": "Ann@Example.com", "phone": "+1 415 555 2671"},
        "line_items": [
            {"product_id": 788032119674292922, "sku": "S-1", "quantity": 2, "price_set": money("20.75")},
            {"product_id": None, "quantity": 1, "price": "4.00"},
        ],
    } | changes  # fmt: skip


@pytest.mark.parametrize("name", ["x-shopify-hmac-sha256", "shopify-hmac-sha256"])
def test_only_the_holder_of_the_secret_is_believed(name):
    body = b'{"id": 1}'
    signature = base64.b64encode(hmac.new(b"secret", body, hashlib.sha256).digest()).decode()
    assert webhook.verify({name: signature}, body, "secret")
    assert not webhook.verify({name: signature}, body + b" ", "secret")
    assert not webhook.verify({name: signature}, body, "other")
    assert not webhook.verify({}, body, "secret")
    empty = base64.b64encode(hmac.new(b"", body, hashlib.sha256).digest()).decode()
    assert not webhook.verify({name: empty}, body, "")  # anybody can compute that one
    for rubbish in ("ü", "\udcff", signature[:-1], signature.lower()):
        assert not webhook.verify({name: rubbish}, body, "secret")


@given(body=st.text(max_size=40), signed_with=st.sampled_from(["now", "before", "", "other"]), spoiled=st.booleans())
def test_the_official_library_believes_the_same_webhooks(body, signed_with, spoiled):
    from shopify_app import ShopifyApp

    raw = body.encode("utf-8", "surrogatepass")
    if raw.decode("utf-8", "ignore") != body:
        return
    signature = base64.b64encode(hmac.new(signed_with.encode(), raw, hashlib.sha256).digest()).decode()
    headers = {"x-shopify-hmac-sha256": signature[::-1] if spoiled else signature, "x-shopify-topic": "orders/paid"}
    request = {"method": "POST", "url": "https://a.example/webhooks", "headers": headers, "body": body}
    official = ShopifyApp("id", "now", "before").verify_webhook_req(request).ok
    assert official == any(webhook.verify(headers, raw, secret) for secret in ("now", "before"))


def test_a_paid_order_is_in_the_shops_money_with_ids_as_text():
    found = told("orders/paid", order(), "order.paid")
    assert found.occurred_at == datetime(2026, 2, 3, 9, 5, 6, tzinfo=UTC)
    said = found.properties
    assert (found.source_id, said["order_id"]) == ("order.paid:5520982911946154508", "5520982911946154508")
    assert (said["total_minor"], said["discount_minor"], said["currency"]) == (4150, 400, "USD")
    assert (said["quantity"], said["discount_codes"], said["paid"]) == (3, ["SAVE10"], True)
    assert [(one["product_id"], one["sku"], one["quantity"], one["price_minor"]) for one in said["products"]] == [
        ("788032119674292922", "S-1", 2, 2075), (None, None, 1, 400),
    ]  # fmt: skip
    assert found.identity == {"shopify": "115310627314723954", "email": "ann@example.com", "phone": "+14155552671"}


def test_an_order_that_is_not_paid_was_made_and_no_more():
    assert [event.type for event in parse("orders/create", order(financial_status="pending"))] == ["order.created"]


def test_every_topic_tells_the_same_facts_of_one_order():
    """What came first decides nothing: two topics with one body give one set of source ids."""
    bodies = ("orders/create", "orders/paid", "orders/updated", "orders/fulfilled")
    ids = [{event.source_id for event in parse(topic, order())} for topic in bodies]
    assert all(one == ids[0] for one in ids)
    assert {one.split(":")[0] for one in ids[0]} == {"order.created", "order.paid", "order.updated"}


def test_two_changes_in_one_second_are_two():
    first, second = (
        told("orders/updated", order(fulfillment_status=status), "order.updated") for status in (None, "partial")
    )
    assert first.properties["updated_at"] == second.properties["updated_at"]
    assert first.source_id != second.source_id


def test_a_cancelled_and_refunded_order_tells_of_both():
    body = order(cancelled_at="2026-02-04T00:00:00Z", financial_status="refunded", refunds=[refund()])
    found = {event.type: event for event in parse("orders/updated", body)}
    assert set(found) == {"order.created", "order.paid", "order.updated", "order.cancelled", "order.refunded"}
    assert found["order.cancelled"].properties == {"order_id": "5520982911946154508"}
    assert found["order.refunded"].source_id == told("refunds/create", refund(), "order.refunded").source_id


def test_a_test_order_is_never_paid():
    (only,) = parse("orders/paid", order(test=True, refunds=[refund()]))
    assert (only.type, only.properties["paid"], only.properties["test"]) == ("order.updated", False, True)


def test_an_order_without_a_customer_is_a_guests():
    for found in parse("orders/paid", order(customer=None, email="someone@example.com", cart_token="c-1")):
        assert found.identity == {}


def test_a_cart_becomes_its_buyers():
    found = told("orders/paid", order(cart_token="c-1"), "order.paid")
    assert found.identity["anonymous"] == "cart:c-1"


def test_money_of_another_currency_is_refused_and_named():
    with pytest.raises(Rejected) as refused:
        parse("orders/paid", order(total_price_set=money("1.00", "CAD")))
    assert (refused.value.code, refused.value.where) == ("mixed_currency", "total_price_set.shop_money")
    with pytest.raises(Rejected) as refused:
        parse("orders/paid", order(currency="CAD"))
    assert (refused.value.code, refused.value.where) == ("mixed_currency", "currency")


def refund(**changes: object) -> dict:
    return {
        "id": 890088186047892319, "order_id": 5520982911946154508, "created_at": "2026-02-05T00:00:00Z",
        "processed_at": None, "order_adjustments": [], "refund_line_items": [],
        "transactions": [
            {"kind": "refund", "status": "success", "amount": "10.00", "currency": "USD"},
            {"kind": "refund", "status": "failure", "amount": "10.00", "currency": "USD"},
            {"kind": "void", "status": "success", "amount": "3.00", "currency": "USD"},
        ],
    } | changes  # fmt: skip


def test_a_refund_is_the_money_that_went_back():
    (found,) = parse("refunds/create", refund())
    assert found.type == "order.refunded"
    assert found.properties == {
        "order_id": "5520982911946154508", "refund_id": "890088186047892319", "amount_minor": 1000, "currency": "USD",
    }  # fmt: skip
    assert parse("refunds/create", refund(transactions=[])) == []
    tested = [{"kind": "refund", "status": "success", "amount": "10.00", "currency": "USD", "test": True}]
    assert parse("refunds/create", refund(transactions=tested)) == []


def test_a_refund_paid_in_the_buyers_currency_is_told_by_its_lines():
    lines = [{"subtotal_set": money("20.00"), "total_tax_set": money("1.60")}]
    shipping = [{"amount_set": money("-5.00"), "tax_amount_set": money("0.00")}]
    paid = [{"kind": "refund", "status": "success", "amount": "24.00", "currency": "EUR"}]
    (found,) = parse("refunds/create", refund(transactions=paid, refund_line_items=lines, order_adjustments=shipping))
    assert found.properties["amount_minor"] == 2660


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"[", None), (b"[]", None), (b"{}", "id"), (b'{"id": true}', "id"), (b'{"id": 1.5e300}', "id"),
        (b'{"id": 1, "processed_at": "yesterday"}', "processed_at"), (b'{"id": 1}', "processed_at"),
        (b'{"id": 1, "created_at": "2026-01-01T00:00:00Z"}', "total_price"),
        (b'{"id": 1, "created_at": "2026-01-01T00:00:00Z", "total_price": "-1.00"}', "total_price"),
    ],
)  # fmt: skip
def test_a_body_that_shopify_would_not_send_is_refused_by_name(body, where):
    with pytest.raises(Rejected) as refused:
        webhook.parse(webhook.Envelope("orders/paid"), body, currency="USD", now=NOW, received_at=NOW)
    assert refused.value.where == where
