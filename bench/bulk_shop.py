"""A shop with a bulk export ready: `python -m bench.bulk_shop FILE ORDERS` writes the file, tells what is in it, and
serves it (with ranges) beside the three GraphQL operations that a load asks. Orders as a shop of 200,000 customers has
them: guests, tests, unpaid, cancelled and refunded ones, codes, two and a half lines each, parcels on their way.

What it answers is checked for nothing: it is here so that the file comes over HTTP from another process.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import orjson

CUSTOMERS_PER_ORDER = 0.2
PRODUCTS = 4_000
_FIRST = datetime(2019, 1, 1, tzinfo=UTC)
_STRETCH = timedelta(days=7 * 365)
_OPERATION = "gid://shopify/BulkOperation/1"
_WORDS = ("Linen", "Wool", "Cotton", "Oak", "Ceramic", "Brass", "Travel", "Evening", "Garden", "Winter")
_THINGS = ("shirt", "scarf", "bowl", "lamp", "chair", "bag", "candle", "blanket", "mug", "notebook")


def _at(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def _money(minor: int) -> dict[str, Any]:
    return {"shopMoney": {"amount": f"{minor // 100}.{minor % 100:02}", "currencyCode": "USD"}}


def _line(random: Random, order: int, number: int) -> tuple[dict[str, Any], int]:
    """A line and what it costs together."""
    product, pieces = random.randrange(PRODUCTS), random.choices((1, 2, 3, 5), (80, 14, 4, 2))[0]
    unit = 500 + product * 7 % 19_500
    off = unit * pieces // 10 if random.random() < 0.2 else 0
    line = {
        "id": f"gid://shopify/LineItem/{14_000_000_000_000 + order * 10 + number}",
        "title": f"{_WORDS[product % 10]} {_THINGS[product // 10 % 10]} No. {product}",
        "sku": f"SKU-{product:05}", "quantity": pieces, "currentQuantity": pieces,
        "product": {"id": f"gid://shopify/Product/{7_900_000_000_000 + product}"},
        "variant": {"id": f"gid://shopify/ProductVariant/{43_000_000_000_000 + product * 4 + random.randrange(4)}"},
        "originalUnitPriceSet": _money(unit),
        "discountAllocations": [{"allocatedAmountSet": _money(off)}] if off else [],
        "__parentId": f"gid://shopify/Order/{5_000_000_000_000 + order}",
    }  # fmt: skip
    return line, unit * pieces - off


def _customer(random: Random, customers: int) -> dict[str, Any]:
    number = int(customers * random.random() ** 1.6)  # a few order often
    return {
        "id": f"gid://shopify/Customer/{6_100_000_000_000 + number}",
        "defaultEmailAddress": {"emailAddress": f"customer{number}@example.com"},
        "defaultPhoneNumber": {"phoneNumber": f"+1613555{number % 10_000:04}"} if number % 10_000 == number else None,
    }  # fmt: skip


def _refunds(random: Random, order: int, total: int, at: datetime) -> list[dict[str, Any]]:
    if random.random() >= 0.06:
        return []
    given = total if random.random() < 0.4 else max(1, total // 3)
    return [
        {"id": f"gid://shopify/Refund/{900_000_000_000 + order}", "processedAt": _at(at + timedelta(days=9)),
         "totalRefundedSet": _money(given)}
    ]  # fmt: skip


def _order(random: Random, order: int, orders: int, customers: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    placed = _FIRST + _STRETCH * (order / orders)
    lines = [_line(random, order, number) for number in range(random.choices((1, 2, 3, 4, 6), (30, 28, 22, 12, 8))[0])]
    total = sum(cost for _, cost in lines) + 499
    fate = random.random()
    is_paid, is_cancelled = fate >= 0.02, 0.02 <= fate < 0.04
    refunds = _refunds(random, order, total, placed) if is_paid else []
    is_sent = is_paid and not is_cancelled and random.random() < 0.92
    sent = _at(placed + timedelta(days=2))
    node = {
        "id": f"gid://shopify/Order/{5_000_000_000_000 + order}", "name": f"#{1000 + order}",
        "test": random.random() < 0.001, "createdAt": _at(placed), "processedAt": _at(placed),
        "updatedAt": _at(placed + timedelta(days=10)),
        "cancelledAt": _at(placed + timedelta(days=1)) if is_cancelled else None, "currencyCode": "USD",
        "presentmentCurrencyCode": "USD",
        "displayFinancialStatus": ("PARTIALLY_REFUNDED" if refunds else "PAID") if is_paid else "PENDING",
        "displayFulfillmentStatus": "FULFILLED" if is_sent else "UNFULFILLED",
        "cartToken": f"{random.getrandbits(128):032x}", "checkoutToken": f"{random.getrandbits(128):032x}",
        "sourceName": "web", "discountCodes": ["WELCOME10"] if random.random() < 0.15 else [],
        "totalPriceSet": _money(total), "totalDiscountsSet": _money(0), "totalTaxSet": _money(total // 11),
        "totalShippingPriceSet": _money(499),
        "customer": None if random.random() < 0.08 else _customer(random, customers), "refunds": refunds,
        "fulfillments": [
            {"id": f"gid://shopify/Fulfillment/{4_400_000_000_000 + order}", "status": "SUCCESS",
             "displayStatus": "DELIVERED", "createdAt": sent, "updatedAt": sent,
             "trackingInfo": [{"company": "UPS", "number": f"1Z{random.getrandbits(50):016}"}]}
        ] if is_sent else [],
    }  # fmt: skip
    return node, [line for line, _ in lines]


def _events(node: dict[str, Any]) -> Iterator[str]:
    """What must follow from an order, said without the code under test."""
    if node["test"]:
        return
    yield "order.created"
    if node["displayFinancialStatus"] != "PENDING":
        yield "order.paid"
    if node["cancelledAt"]:
        yield "order.cancelled"
    if node["displayFulfillmentStatus"] == "FULFILLED":
        yield "order.fulfilled"
    for _ in node["refunds"]:
        yield "order.refunded"


def write(path: Path, orders: int) -> dict[str, Any]:
    """Write the file; what is in it: orders, rows, orders of which nothing is kept, bytes, events by type."""
    random, events, rows, silent = Random(7), Counter[str](), 0, 0
    customers = max(1, int(orders * CUSTOMERS_PER_ORDER))
    with path.open("wb", buffering=1 << 20) as file:
        for order in range(orders):
            node, lines = _order(random, order, orders, customers)
            file.write(b"\n".join([orjson.dumps(one) for one in (node, *lines)]) + b"\n")
            events.update(_events(node))
            rows += 1 + len(lines)
            silent += node["test"] and not node["fulfillments"]
    return {"orders": orders, "rows": rows, "silent": silent, "bytes": path.stat().st_size, "events": dict(events)}


class _Shop(BaseHTTPRequestHandler):
    path_of_file: Path
    told: dict[str, Any]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        operation = {"id": _OPERATION, "status": "COMPLETED"}
        if b"bulkOperationRunQuery" in body:
            data: dict[str, Any] = {"bulkOperationRunQuery": {"bulkOperation": operation, "userErrors": []}}
        else:
            url = f"http://{self.headers['Host']}/result.jsonl"
            sizes = {"rootObjectCount": str(self.told["orders"]), "fileSize": str(self.told["bytes"])}
            data = {"bulkOperation": {**operation, "errorCode": None, "url": url, **sizes}}
        self._send(200, orjson.dumps({"data": data}), {"Content-Type": "application/json"})

    def do_GET(self) -> None:
        size, asked = self.told["bytes"], self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        if start >= size:
            self._send(416, b"", {"Content-Range": f"bytes */{size}"})
            return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(size - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        with self.path_of_file.open("rb") as file:
            try:
                while start < size:
                    start += os.sendfile(self.wfile.fileno(), file.fileno(), start, 1 << 20)
            except (BrokenPipeError, ConnectionResetError):  # a task whose turn is over stops reading
                self.close_connection = True

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def main() -> None:
    path, orders = Path(sys.argv[1]), int(sys.argv[2])
    _Shop.path_of_file, _Shop.told = path, write(path, orders)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Shop) as server:
        print(json.dumps({"port": server.server_port, **_Shop.told}), flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
