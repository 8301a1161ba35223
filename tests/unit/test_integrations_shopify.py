"""Shopify: whose webhook is believed, what an order, refund and cancellation say, what a coupon asks for."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import orjson
import pytest

from integrations.shopify import webhook
from integrations.shopify.channel import CREATE, FIND, ShopifyConfig, discount
from operation_agent.actions.channel import Delivery
from operation_agent.kit.errors import Rejected

pytestmark = pytest.mark.unit

CONTRACTS = Path(__file__).parents[2] / "../shared/contracts/shopify"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def parse(topic: str, body: dict, currency: str = "USD") -> list:
    return webhook.parse(topic, orjson.dumps(body), currency=currency, received_at=NOW)


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


def test_only_the_holder_of_the_secret_is_believed():
    body = b'{"id": 1}'
    signature = base64.b64encode(hmac.new(b"secret", body, hashlib.sha256).digest()).decode()
    assert webhook.verify({"x-shopify-hmac-sha256": signature}, body, "secret")
    assert not webhook.verify({"X-Shopify-Hmac-Sha256": signature}, body + b" ", "secret")
    assert not webhook.verify({"X-Shopify-Hmac-Sha256": signature}, body, "other")
    assert not webhook.verify({}, body, "secret")
    empty = base64.b64encode(hmac.new(b"", body, hashlib.sha256).digest()).decode()
    assert not webhook.verify({"X-Shopify-Hmac-Sha256": empty}, body, "")  # anybody can compute that one
    assert not webhook.verify({"X-Shopify-Hmac-Sha256": "ü"}, body, "secret")


def test_a_paid_order_is_in_the_shops_money_with_ids_as_text():
    (found,) = parse("orders/paid", order())
    assert (found.type, found.occurred_at) == ("order.paid", datetime(2026, 2, 3, 9, 5, 6, tzinfo=UTC))
    assert found.properties["order_id"] == "5520982911946154508"
    assert (found.properties["total_minor"], found.properties["discount_minor"]) == (4150, 400)
    assert (found.properties["quantity"], found.properties["discount_codes"]) == (3, ["SAVE10"])
    assert found.properties["products"] == [
        {"product_id": "788032119674292922", "sku": "S-1", "quantity": 2, "price_minor": 2075},
        {"quantity": 1, "price_minor": 400},
    ]
    assert found.identity == {"shopify": "115310627314723954", "email": "ann@example.com", "phone": "+14155552671"}


def test_an_order_that_is_not_paid_yet_says_nothing_and_a_paid_one_says_it_once():
    assert parse("orders/create", order(financial_status="pending")) == []
    (created,) = parse("orders/create", order())
    (paid,) = parse("orders/paid", order())
    assert created.source_id == paid.source_id


def test_an_order_without_a_customer_is_a_guests():
    (found,) = parse("orders/paid", order(customer=None, email="someone@example.com"))
    assert found.identity == {}


def test_money_of_another_currency_is_refused_and_named():
    with pytest.raises(Rejected) as refused:
        parse("orders/paid", order(total_price_set=money("1.00", "CAD")))
    assert (refused.value.code, refused.value.where) == ("mixed_currency", "total_price_set.shop_money")


def refund(**changes: object) -> dict:
    return {
        "id": 890088186047892319, "order_id": 820982911946154508, "created_at": "2026-02-05T00:00:00Z",
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
        "order_id": "820982911946154508", "refund_id": "890088186047892319", "amount_minor": 1000, "currency": "USD",
    }  # fmt: skip
    assert parse("refunds/create", refund(transactions=[])) == []


def test_a_refund_paid_in_the_buyers_currency_is_told_by_its_lines():
    lines = [{"subtotal_set": money("20.00"), "total_tax_set": money("1.60")}]
    shipping = [{"amount_set": money("-5.00"), "tax_amount_set": money("0.00")}]
    paid = [{"kind": "refund", "status": "success", "amount": "24.00", "currency": "EUR"}]
    (found,) = parse("refunds/create", refund(transactions=paid, refund_line_items=lines, order_adjustments=shipping))
    assert found.properties["amount_minor"] == 2660


def test_a_cancelled_order_names_the_order():
    (found,) = parse("orders/cancelled", order(cancelled_at="2026-02-04T00:00:00Z"))
    assert (found.type, found.properties) == ("order.cancelled", {"order_id": "5520982911946154508"})


def test_other_topics_are_none_of_ours():
    assert parse("carts/update", {"id": 1}) == []


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"[", None), (b"[]", None), (b"{}", "id"), (b'{"id": true}', "id"),
        (b'{"id": 1, "processed_at": "yesterday"}', "processed_at"), (b'{"id": 1}', "processed_at"),
    ],
)  # fmt: skip
def test_a_body_that_shopify_would_not_send_is_refused_by_name(body, where):
    with pytest.raises(Rejected) as refused:
        webhook.parse("orders/paid", body, currency="USD", received_at=NOW)
    assert refused.value.where == where


def test_shopifys_documented_samples_are_understood():
    folder = CONTRACTS / "webhooks/samples_2026-07"
    if not folder.exists():
        pytest.skip("../shared/contracts is not here")
    sample = json.loads((folder / "orders/paid.json").read_text())["response"]
    (paid,) = parse("orders/paid", sample)
    assert (paid.properties["total_minor"], paid.properties["discount_minor"]) == (40495, 2000)
    returned = json.loads((folder / "refunds/create.json").read_text())["response"]
    assert all(one.type == "order.refunded" for one in parse("refunds/create", returned))


COUPON = Delivery(
    UUID(int=1), "key", None,
    {"code": "ABCDEFGHJK", "percent": 12.5, "starts_at": "2026-01-01T00:00:00+00:00",
     "expires_at": "2026-01-15T00:00:00+00:00"},
)  # fmt: skip


def test_a_coupon_is_a_share_off_once():
    made = discount(ShopifyConfig.read({}), COUPON)
    assert made["customerGets"] == {"value": {"percentage": 0.125}, "items": {"all": True}}
    assert (made["code"], made["usageLimit"], made["appliesOncePerCustomer"]) == ("ABCDEFGHJK", 1, True)


def test_what_is_asked_for_exists_in_shopifys_schema():
    """Field names against the SDL, by hand: a GraphQL library is no dependency of ours."""
    path = CONTRACTS / "admin_2026-07.graphql.gz"
    if not path.exists():
        pytest.skip("../shared/contracts is not here")
    schema = re.sub(r'"""[\s\S]*?"""', "", gzip.decompress(path.read_bytes()).decode())

    def fields(kind: str, name: str) -> str:
        found = re.search(rf"^{kind} {name}\b[^{{]*{{([\s\S]*?)^}}", schema, re.MULTILINE)
        assert found, name
        return found.group(1)

    def has(body: str, field: str) -> bool:
        return re.search(rf"^  {field}\b", body, re.MULTILINE) is not None

    for name in discount(ShopifyConfig.read({}), COUPON):
        assert has(fields("input", "DiscountCodeBasicInput"), name), name
    assert has(fields("input", "DiscountContextInput"), "all: DiscountBuyerSelection")
    assert "ALL" in fields("enum", "DiscountBuyerSelection")
    assert has(fields("input", "DiscountCustomerGetsInput"), "items")
    assert has(fields("input", "DiscountCustomerGetsValueInput"), "percentage: Float")
    assert has(fields("input", "DiscountItemsInput"), "all: Boolean")
    payload = fields("type", "DiscountCodeBasicCreatePayload")
    assert has(payload, "codeDiscountNode: DiscountCodeNode")
    assert has(payload, "userErrors")
    for name in ("field", "code", "message"):
        assert has(fields("type", "DiscountUserError"), name), name
    assert re.search(r"codeDiscountNodeByCode\(\s*code: String!", schema)
    assert "codeDiscountNodeByCode" in FIND
    assert "discountCodeBasicCreate" in CREATE
    assert "basicCodeDiscount: DiscountCodeBasicInput!" in schema
