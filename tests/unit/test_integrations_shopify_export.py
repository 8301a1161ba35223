"""Bulk exports: what Shopify lets a bulk query ask, the same facts as by webhook, and files that break off anywhere."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from graphql import (
    FieldNode,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    OperationDefinitionNode,
    TypeInfo,
    TypeInfoVisitor,
    Visitor,
    get_named_type,
    parse,
    visit,
)
from hypothesis import given
from hypothesis import strategies as st

from integrations.shopify import documents, facts
from integrations.shopify.errors import Unreachable
from integrations.shopify.export import bulk, catalogue, customers, objects, orders, reader, stream
from integrations.shopify.export.objects import Broken, Piece
from integrations.shopify.reading import customers as webhook_customers
from integrations.shopify.reading import orders as webhook_orders
from operation_agent.kit.errors import Rejected
from operation_agent.storefront.protocol import SYNC_KINDS, ResultExpired
from operation_agent.storefront.records import Complete, Record
from tests.shopify_nodes import line_node, money, order_node
from tests.shopify_nodes import orders as order_lines
from tests.shopify_schema import published

pytestmark = pytest.mark.unit

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
SAMPLES = Path(__file__).parents[2] / "../shared/contracts/shopify/webhooks/samples_2026-07/orders"


# -- what a bulk query may ask --------------------------------------------------------------------------------------


class _Rules(Visitor):
    """Counts what Shopify's guide to bulk queries limits."""

    def __init__(self, info: TypeInfo):
        super().__init__()
        self.info, self.connections, self.deepest, self.faults = info, 0, 0, list[str]()
        self.path: list[FieldNode] = []
        self.lists = 0

    def enter_field(self, node: FieldNode, *_: Any) -> None:
        type_ = self.info.get_type()
        named = get_named_type(type_)
        bare = type_.of_type if isinstance(type_, GraphQLNonNull) else type_
        if isinstance(named, GraphQLObjectType) and named.name.endswith("Connection"):
            self.connections += 1
            if self.lists:
                self.faults.append(f"{node.name.value} is a connection within a list")
            if self.path and not _selects_id(self.path[-1]):
                self.faults.append(f"the parent of {node.name.value} does not select its id")
            if {one.name.value for one in _fields(node)} != {"edges"}:
                self.faults.append(f"{node.name.value} is not read by edges")
            self.path.append(node)
            self.deepest = max(self.deepest, len(self.path) - 1)
        elif isinstance(bare, GraphQLList) and node.name.value != "edges":
            self.lists += 1

    def leave_field(self, node: FieldNode, *_: Any) -> None:
        type_ = self.info.get_type()
        bare = type_.of_type if isinstance(type_, GraphQLNonNull) else type_
        if self.path and self.path[-1] is node:
            self.path.pop()
        elif isinstance(bare, GraphQLList) and node.name.value != "edges":
            self.lists -= 1


def _fields(node: FieldNode) -> list[FieldNode]:
    assert node.selection_set is not None
    return [one for one in node.selection_set.selections if isinstance(one, FieldNode)]


def _selects_id(connection: FieldNode) -> bool:
    (edges,) = _fields(connection)
    (node,) = _fields(edges)
    return any(one.name.value == "id" and one.alias is None for one in _fields(node))


def _checked(text: str) -> _Rules:
    info = TypeInfo(published())
    rules = _Rules(info)
    visit(parse(text), TypeInfoVisitor(info, rules))
    return rules


@pytest.mark.parametrize("kind", SYNC_KINDS)
def test_a_bulk_query_keeps_to_what_shopify_allows(kind):
    rules = _checked(bulk.document(kind, AT))
    assert not rules.faults
    assert 1 <= rules.connections <= 5 and rules.deepest <= 2
    (operation,) = parse(documents.read(bulk.DOCUMENTS[kind])).definitions
    assert isinstance(operation, OperationDefinitionNode) and not operation.variable_definitions
    assert len(operation.selection_set.selections) == 1


def test_a_query_against_the_rules_is_seen():
    inner = "edges { node { id refunds { id transactions { edges { node { id } } } } } }"
    assert _checked(f"query X {{ orders {{ {inner} }} }}").faults == ["transactions is a connection within a list"]
    assert _checked("query X { orders { edges { node { name lineItems { edges { node { id } } } } } } }").faults
    assert _checked("query X { orders { nodes { id } } }").faults


@pytest.mark.parametrize("kind", SYNC_KINDS)
def test_what_changed_since_is_asked_for_by_the_filter_alone(kind):
    assert documents.read(bulk.DOCUMENTS[kind]).count(bulk.EVERYTHING) == 1
    since = datetime(2026, 11, 20, 13, 5, 9, tzinfo=UTC)
    assert "(query: \"updated_at:>='2026-11-20T13:05:09Z'\")" in bulk.document(kind, since)
    assert "updated_at:" not in bulk.document(kind, None)
    parse(bulk.document(kind, None))


# -- the same facts by webhook and by export ----------------------------------------------------------------------


def _graphql_money(body: dict[str, Any], name: str) -> dict[str, Any] | None:
    both = body.get(f"{name}_set")
    if both is None:
        return None if body.get(name) is None else money(str(body[name]), body["currency"])
    said = both["shop_money"]
    return {"shopMoney": {"amount": said["amount"], "currencyCode": said["currency_code"]}}


def _customer_node(customer: dict[str, Any] | None) -> dict[str, Any] | None:
    if customer is None:
        return None
    email, phone = customer.get("email"), customer.get("phone")
    return {
        "id": f"gid://shopify/Customer/{customer['id']}",
        "defaultEmailAddress": {"emailAddress": email} if email else None,
        "defaultPhoneNumber": {"phoneNumber": phone} if phone else None,
    }


_SHIPPED = {None: "UNFULFILLED", "partial": "PARTIALLY_FULFILLED", "fulfilled": "FULFILLED", "restocked": "RESTOCKED"}


def _upper(value: str | None) -> str | None:
    return value.upper() if value else None


def as_nodes(body: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An order as REST and the webhooks write it, as the lines of a bulk export."""
    order = f"gid://shopify/Order/{body['id']}"
    currency = body["currency"]
    node = {
        "id": order, "name": body["name"], "test": body["test"], "createdAt": body["created_at"],
        "processedAt": body["processed_at"], "updatedAt": body["updated_at"], "cancelledAt": body["cancelled_at"],
        "currencyCode": currency, "presentmentCurrencyCode": body["presentment_currency"],
        "displayFinancialStatus": _upper(body["financial_status"]),
        "displayFulfillmentStatus": _SHIPPED[body["fulfillment_status"]], "cartToken": body["cart_token"],
        "checkoutToken": body["checkout_token"], "sourceName": body["source_name"],
        "discountCodes": [one["code"] for one in body["discount_codes"]],
        "totalPriceSet": _graphql_money(body, "total_price"), "totalTaxSet": _graphql_money(body, "total_tax"),
        "totalDiscountsSet": _graphql_money(body, "total_discounts"),
        "totalShippingPriceSet": _graphql_money(body, "total_shipping_price"),
        "customer": _customer_node(body.get("customer")),
        "refunds": [_refund_node(one, currency) for one in body["refunds"]],
        "fulfillments": [_parcel_node(one) for one in body["fulfillments"]],
    }  # fmt: skip
    return node, [_line_of(one, order) for one in body["line_items"]]


def _line_of(line: dict[str, Any], order: str) -> dict[str, Any]:
    return {
        "id": f"gid://shopify/LineItem/{line['id']}", "title": line["title"], "sku": line["sku"],
        "quantity": line["quantity"], "currentQuantity": line["current_quantity"],
        "product": line["product_id"] and {"id": f"gid://shopify/Product/{line['product_id']}"},
        "variant": line["variant_id"] and {"id": f"gid://shopify/ProductVariant/{line['variant_id']}"},
        "originalUnitPriceSet": _graphql_money(line, "price"),
        "discountAllocations": [
            {"allocatedAmountSet": _graphql_money(one, "amount")} for one in line["discount_allocations"]
        ],
        "__parentId": order,
    }  # fmt: skip


def _refund_node(refund: dict[str, Any], currency: str) -> dict[str, Any]:
    moved = [one for one in refund["transactions"] if one["kind"] == "refund" and one["status"] == "success"]
    total = sum(round(float(one["amount"]) * 100) for one in moved)
    return {
        "id": f"gid://shopify/Refund/{refund['id']}", "processedAt": refund["processed_at"],
        "totalRefundedSet": money(f"{total / 100:.2f}", currency),
    }  # fmt: skip


def _parcel_node(parcel: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"gid://shopify/Fulfillment/{parcel['id']}", "status": _upper(parcel["status"]),
        "displayStatus": _upper(parcel["shipment_status"]) or "FULFILLED", "createdAt": parcel["created_at"],
        "updatedAt": parcel["updated_at"],
        "trackingInfo": [{"company": parcel["tracking_company"], "number": one} for one in parcel["tracking_numbers"]],
    }  # fmt: skip


def _both(amount: str, shown: str) -> dict[str, Any]:
    """A yen shop's amounts as a buyer in dollars saw them, or the other way round."""
    return {
        "shop_money": {"amount": amount, "currency_code": "USD"},
        "presentment_money": {"amount": shown, "currency_code": "EUR"},
    }


def rest_order(**changes: Any) -> dict[str, Any]:
    """An order as orders/updated tells it: discounted, partly given back, sent, in two currencies."""
    return {
        "id": 9007199254740993, "name": "#1042", "test": False, "created_at": "2026-03-01T05:00:00-05:00",
        "processed_at": "2026-03-01T05:00:01-05:00", "updated_at": "2026-03-09T12:34:56+00:00", "cancelled_at": None,
        "currency": "USD", "presentment_currency": "EUR", "financial_status": "partially_refunded",
        "fulfillment_status": "fulfilled", "cart_token": "c1-abc", "checkout_token": "k9", "source_name": "web",
        "discount_codes": [{"code": "SPRING10", "amount": "5.00", "type": "percentage"}],
        "total_price_set": _both("51.98", "47.10"), "total_discounts_set": _both("5.00", "4.53"),
        "total_tax_set": _both("3.99", "3.62"), "total_shipping_price_set": _both("4.99", "4.52"),
        "customer": {"id": 9007199254740995, "email": "Ann.Lee@Example.COM", "phone": "+1 613-555-0142"},
        "line_items": [
            {"id": 9007199254740997, "title": "Linen shirt", "sku": "LS-1", "quantity": 2, "current_quantity": 1,
             "product_id": 9007199254740999, "variant_id": 9007199254741001, "currency": "USD",
             "price_set": _both("24.00", "21.75"),
             "discount_allocations": [{"amount_set": _both("3.00", "2.72"), "currency": "USD"},
                                      {"amount_set": _both("2.00", "1.81"), "currency": "USD"}]},
            {"id": 3, "title": "Gone for good", "sku": None, "quantity": 1, "current_quantity": 1, "product_id": None,
             "variant_id": None, "currency": "USD", "price_set": _both("4.00", "3.62"), "discount_allocations": []},
        ],
        "refunds": [
            {"id": 77, "order_id": 9007199254740993, "processed_at": "2026-03-08T10:00:00Z",
             "transactions": [
                 {"kind": "refund", "status": "success", "amount": "12.50", "currency": "USD", "test": False},
                 {"kind": "refund", "status": "failure", "amount": "9.00", "currency": "USD", "test": False}],
             "refund_line_items": [], "order_adjustments": []},
        ],
        "fulfillments": [
            {"id": 88, "order_id": 9007199254740993, "status": "success", "shipment_status": "in_transit",
             "tracking_company": "UPS", "tracking_numbers": ["1Z999"], "created_at": "2026-03-02T08:00:00Z",
             "updated_at": "2026-03-03T08:00:00Z"},
        ], **changes,
    }  # fmt: skip


def _told(order: facts.Order) -> list[dict[str, Any]]:
    """The events that follow, without what each receipt has of its own."""
    events = facts.order_events(order, received_at=AT, is_update=True)
    return [{name: value for name, value in asdict(event).items() if name != "id"} for event in events]


CASES = {
    "discounted, sent, partly given back": {},
    "unpaid": {"financial_status": "pending", "fulfillment_status": None, "refunds": [], "fulfillments": []},
    "a guest's": {"customer": None},
    "a test": {"test": True},
    "cancelled and given back": {"cancelled_at": "2026-03-05T00:00:00Z", "financial_status": "refunded"},
    "partly sent": {"fulfillment_status": "partial"},
    "taken back by the shop": {"fulfillment_status": "restocked", "financial_status": "voided"},
    "of nobody's cart": {"cart_token": None, "checkout_token": None},
    "without codes": {"discount_codes": []},
}


@pytest.mark.parametrize("case", CASES)
def test_an_order_is_the_same_fact_by_webhook_and_by_export(case):
    body = rest_order(**CASES[case])
    node, lines = as_nodes(body)
    by_webhook, by_export = webhook_orders.order(body, "USD"), orders.order(node, lines, "USD")
    assert by_export == by_webhook
    assert _told(by_export) == _told(by_webhook)


@pytest.mark.parametrize("topic", ["create", "paid", "updated", "cancelled", "fulfilled"])
def test_a_documented_order_is_the_same_fact_by_webhook_and_by_export(topic):
    if not SAMPLES.is_dir():
        pytest.skip(f"Shopify's documented samples are not at {SAMPLES}")
    body = orjson.loads((SAMPLES / f"{topic}.json").read_bytes())["response"]
    for line in body["line_items"]:
        line["currency"] = body["currency"]
        for one in line["discount_allocations"]:
            one["currency"] = body["currency"]
    node, lines = as_nodes(body)
    assert _told(orders.order(node, lines, "USD")) == _told(webhook_orders.order(body, "USD"))


def test_a_customer_consents_alike_by_webhook_and_by_export():
    body = {
        "id": 12, "updated_at": "2026-05-01T10:00:00Z", "created_at": "2025-01-01T00:00:00+01:00", "first_name": "Ann",
        "last_name": None, "locale": "en-CA", "state": "enabled", "verified_email": True, "tax_exempt": False,
        "email": "ann@example.com", "phone": "+16135550142", "tags": "vip, tea",
        "default_address": {"country_code": "CA"},
        "email_marketing_consent": {"state": "subscribed", "consent_updated_at": "2026-04-01T00:00:00Z"},
        "sms_marketing_consent": {"state": "unsubscribed", "consent_updated_at": None},
    }  # fmt: skip
    node = {
        "id": "gid://shopify/Customer/12", "updatedAt": "2026-05-01T10:00:00Z", "createdAt": "2024-12-31T23:00:00Z",
        "firstName": "Ann", "lastName": None, "locale": "en-CA", "state": "ENABLED", "verifiedEmail": True,
        "taxExempt": False, "tags": ["tea", "vip"], "defaultAddress": {"countryCodeV2": "CA"},
        "defaultEmailAddress": {"emailAddress": "ann@example.com", "marketingState": "SUBSCRIBED",
                                "marketingUpdatedAt": "2026-04-01T00:00:00Z"},
        "defaultPhoneNumber": {"phoneNumber": "+16135550142", "marketingState": "UNSUBSCRIBED",
                               "marketingUpdatedAt": None},
    }  # fmt: skip
    by_webhook, by_export = webhook_customers.customer(body, AT), customers.customer(node)
    said = [
        [(event.source_id, event.properties) for event in facts.customer_events(one, received_at=AT)]
        for one in (by_webhook, by_export)
    ]
    assert said[0] == said[1]
    assert by_export.consents.keys() == {"email", "sms"}


@pytest.mark.parametrize("state", ["PENDING", "NOT_SUBSCRIBED", "INVALID", "REDACTED"])
def test_who_was_only_asked_has_not_consented(state):
    address = {"emailAddress": "a@example.com", "marketingState": state, "marketingUpdatedAt": None}
    node = {"id": "gid://shopify/Customer/1", "updatedAt": "2026-05-01T10:00:00Z", "defaultEmailAddress": address}
    assert customers.customer(node).consents == {}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"currencyCode": "EUR"}, "EUR"),
        ({"totalPriceSet": money("1.00", "EUR")}, "EUR"),
        ({"totalPriceSet": None}, "totalPriceSet"),
        ({"totalPriceSet": money("-1.00")}, "negative"),
        ({"id": "gid://shopify/DraftOrder/1"}, "Order"),
        ({"updatedAt": None}, "updatedAt"),
        ({"discountCodes": "SPRING"}, "discountCodes"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_by_name(change, named):
    with pytest.raises(Rejected, match=named):
        orders.order(order_node(1, **change), [], "USD")


def test_an_order_of_more_pieces_than_a_number_holds_is_refused():
    lines = [line_node(1, number, quantity=1_000_000) for number in range(2_148)]
    with pytest.raises(Rejected, match="pieces"):
        orders.order(order_node(1), lines, "USD")


# -- lines and objects --------------------------------------------------------------------------------------------


def _jsonl(nodes: list[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(one) + b"\n" for one in nodes)


@given(st.lists(st.integers(1, 40), max_size=30), st.binary(max_size=200))
def test_lines_are_the_same_however_the_bytes_come(cuts, content):
    whole = content.replace(b"\r", b"") + b"}\n"
    expected = [line for line in whole.split(b"\n") if line.strip()]
    pieces, start = [], 0
    for cut in [*cuts, len(whole)]:
        pieces.append(whole[start : start + cut])
        start += cut
    found = list(stream._split(iter(pieces), 0))
    assert [line for line, _ in found] == expected
    assert not found or found[-1][1] == len(whole)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.data())
def test_reading_goes_on_after_any_object_with_the_next_one(sizes, data):
    nodes = [
        node
        for number, size in enumerate(sizes, 1)
        for node in (order_node(number), *(line_node(number, 100 * number + one) for one in range(size)))
    ]
    whole = _jsonl(nodes)
    all_of_them = _pieces(whole, 0)
    assert [len(one.children) for one in all_of_them] == sizes
    stop = data.draw(st.integers(0, len(all_of_them) - 1))
    offset = all_of_them[stop].end
    rest = _pieces(whole[offset:], offset)
    assert [(one.node["id"], one.end) for one in rest] == [(one.node["id"], one.end) for one in all_of_them[stop + 1 :]]


def _pieces(content: bytes, offset: int) -> list[Piece]:
    found = list(objects.grouped(stream._split(iter([content]), offset), offset))
    assert all(isinstance(one, Piece) for one in found)
    return found  # type: ignore[return-value]


def test_a_parent_with_very_many_children_comes_in_pieces(monkeypatch):
    monkeypatch.setattr(objects, "MOST_CHILDREN", 3)
    collection = {
        "id": "gid://shopify/Collection/1", "title": "All", "handle": "all", "sortOrder": "BEST_SELLING",
        "updatedAt": "2026-05-01T10:00:00Z", "sources": [],
    }  # fmt: skip
    products = [
        {"id": f"gid://shopify/Product/{number}", "__parentId": "gid://shopify/Collection/1"} for number in range(8)
    ]
    pieces = _pieces(_jsonl([collection, *products]), 0)
    assert [len(one.children) for one in pieces] == [3, 3, 2]
    read = catalogue.Collections()
    told = [read(one, "USD", AT) for one in pieces]
    assert [one.is_whole for one in told] == [False, False, True]
    assert [one.end for one in told] == [0, 0, len(_jsonl([collection, *products]))]
    record, whole = told[-1].tellings
    assert isinstance(record, Record) and record.values["sort_order"] == "best-selling"
    assert isinstance(whole, Complete) and len(whole.keys) == 8


def test_a_child_of_somebody_else_refuses_its_group_and_the_next_goes_on():
    stray = line_node(99, 5)
    content = _jsonl([*order_lines(1), stray, *order_lines(1, first=2)])
    with _serving(content) as url:
        found = list(reader.read_export("orders", url, offset=0, received_at=AT, currency="USD", secure=False))
    assert [(one.key, one.refused is None) for one in found] == [("1", False), ("2", True)]


def test_a_line_that_is_not_json_and_a_nul_are_refused_and_counted():
    nul = order_node(3, name="a\0b")
    content = _jsonl(order_lines(1)) + b"{oops}\n" + _jsonl([nul, *order_lines(1, first=4)])
    with _serving(content) as url:
        found = list(reader.read_export("orders", url, offset=0, received_at=AT, currency="USD", secure=False))
    assert [one.refused is None for one in found] == [True, False, False, True]
    assert "NUL" in (found[2].refused or "")
    assert found[-1].end == len(content)


def test_an_escaped_backslash_before_u0000_is_no_nul():
    assert not objects._has_nul(orjson.dumps({"title": "\\u0000"}))
    assert objects._has_nul(orjson.dumps({"title": "\0"}))


def test_stock_is_told_by_each_line_alone():
    lines = [
        {"id": "gid://shopify/Location/4"},
        {"id": "gid://shopify/InventoryLevel/9?inventory_item_id=8", "updatedAt": "2026-05-01T10:00:00Z",
         "item": {"id": "gid://shopify/InventoryItem/8"}, "quantities": [{"name": "available", "quantity": -3}],
         "__parentId": "gid://shopify/Location/4"},
    ]  # fmt: skip
    whole = _jsonl(lines)
    offset = len(orjson.dumps(lines[0])) + 1
    for start in (0, offset):
        with _serving(whole) as url:
            found = list(
                reader.read_export("inventory", url, offset=start, received_at=AT, currency="USD", secure=False)
            )
        (record,) = found[-1].tellings
        assert isinstance(record, Record) and record.key == ("8", "4") and record.values == {"available": -3}


# -- the file -----------------------------------------------------------------------------------------------------


class _File(BaseHTTPRequestHandler):
    """One file; `mode`: ranges, whole (knows no ranges), gzip, short (ends early), silent (no length), or a status."""

    content = b""
    mode = "ranges"
    asked: list[dict[str, str | None]]

    def do_GET(self) -> None:
        self.asked.append({"range": self.headers.get("Range"), "token": self.headers.get("X-Shopify-Access-Token")})
        if self.mode.isdigit():
            self.send_response(int(self.mode))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body, status, start = self.content, 200, 0
        asked = self.headers.get("Range")
        if asked and self.mode in ("ranges", "short"):
            start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
            body = body[start:]
        if not body and status == 206:
            status = 416
        self.send_response(status)
        if self.mode == "gzip":
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        if self.mode != "silent":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.mode in ("short", "silent") else body)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def _serving(content: bytes, mode: str = "ranges", asked: list[dict[str, str | None]] | None = None) -> Iterator[str]:
    handler = type("File", (_File,), {"content": content, "mode": mode, "asked": [] if asked is None else asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/result.jsonl?signature=x"
        finally:
            server.shutdown()
            thread.join()


CONTENT = b"".join(b'{"n": %d}\n' % number for number in range(30_000))


@pytest.mark.parametrize("mode", ["ranges", "whole", "gzip"])
@pytest.mark.parametrize("offset", [0, 9, len(CONTENT) // 2 // 9 * 9, len(CONTENT)])
def test_a_file_is_read_on_from_any_line_whatever_the_server_can(mode, offset):
    offset = CONTENT.rfind(b"\n", 0, offset) + 1
    asked: list[dict[str, str | None]] = []
    with _serving(CONTENT, mode, asked) as url:
        found = list(stream.lines(url, offset=offset, secure=False))
    assert b"".join(line + b"\n" for line, _ in found) == CONTENT[offset:]
    assert not found or found[-1][1] == len(CONTENT)
    assert asked == [{"range": f"bytes={offset}-" if offset else None, "token": None}]


@pytest.mark.parametrize("mode", ["short", "silent"])
def test_a_file_that_breaks_off_gives_what_it_had_and_says_so(mode):
    content = CONTENT[:-3]  # so that half of it ends within a line
    found = []
    with _serving(content, mode) as url, pytest.raises(Unreachable):
        for line in stream.lines(url, offset=0, secure=False):
            found.append(line)
    assert found and found[-1][1] <= len(content) // 2


@pytest.mark.parametrize("status", ["400", "403", "404", "410"])
def test_an_address_that_is_not_good_any_more_is_told_apart(status):
    with _serving(b"", status) as url, pytest.raises(ResultExpired):
        list(stream.lines(url, offset=0, secure=False))


@pytest.mark.parametrize("status", ["302", "429", "500", "503"])
def test_a_server_in_trouble_is_asked_again(status):
    with _serving(b"", status) as url, pytest.raises(Unreachable):
        list(stream.lines(url, offset=0, secure=False))


def test_a_result_of_a_real_shop_is_read_over_https_only():
    with pytest.raises(Rejected, match="https"):
        list(stream.lines("http://storage.example.com/x", offset=0))


def test_a_last_line_without_its_end_counts_when_it_is_whole():
    with _serving(b'{"n": 1}\n{"n": 2}') as url:
        assert [line for line, _ in stream.lines(url, offset=0, secure=False)] == [b'{"n": 1}', b'{"n": 2}']


def test_a_broken_line_is_shown_shortly():
    (broken,) = objects.single([(b'["' + b"x" * 500 + b'"]', 504)], 0)
    assert isinstance(broken, Broken) and len(broken.line) <= 120
