"""Order webhooks as Shopify sends them, made up: distinct, signed, about 8 kB; and the load generator that sends them.

`python -m bench.shopify_orders` prints one JSON line. Requests are rendered before the clock starts; with `--rate` they
leave at fixed times whatever becomes of those before, and a wait counts from the time one should have left.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import random
from collections import Counter, deque
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import uvloop

from bench.load import Connection, drive
from bench.signed import SECRET
from operation_agent.kit.clock import SYSTEM, monotonic
from operation_agent.kit.ids import new_id

TOPICS = ("orders/create", "orders/paid", "orders/updated")
CUSTOMERS = 20_000
_STREETS = ("Elm Street", "Market Street", "Rue de Rivoli", "Nanjing Road", "Königsallee")
_FIRST, _LAST = ("Ann", "Bob", "Chloé", "伟", "Dmitri", "Eva"), ("Smith", "Müller", "王", "García", "Okafor", "Novak")


def order(number: int, run: int, at: datetime) -> dict[str, Any]:
    """A paid order of one to six lines, as of `at`. The same number and run give the same order but for its times."""
    draw = random.Random(run * 1_000_003 + number)
    order_id, customer = 5_000_000_000_000 + run * 10_000_000 + number, draw.randrange(CUSTOMERS)
    lines = [_line(draw, order_id * 10 + index) for index in range(draw.choice((1, 2, 2, 3, 3, 4, 6)))]
    subtotal = sum(round(float(line["price"]) * 100) * line["quantity"] for line in lines)
    discount, shipping, tax = subtotal // 10 if draw.random() < 0.3 else 0, draw.choice((0, 499, 999)), subtotal // 12
    total, stamp = subtotal - discount + shipping + tax, at.isoformat(timespec="seconds")
    money: dict[str, Any] = {}
    for name, minor in {
        "current_subtotal_price": subtotal - discount, "current_total_price": total, "current_total_tax": tax,
        "current_total_discounts": discount, "subtotal_price": subtotal - discount, "total_price": total,
        "total_discounts": discount, "total_line_items_price": subtotal, "total_tax": tax,
    }.items():  # fmt: skip
        money |= _money(name, minor)
    address = _address(draw)
    return {
        "id": order_id, "admin_graphql_api_id": f"gid://shopify/Order/{order_id}", "app_id": 580111,
        "browser_ip": "203.0.113.9", "buyer_accepts_marketing": draw.random() < 0.4, "cancel_reason": None,
        "cancelled_at": None, "cart_token": f"Z2NwLX{draw.getrandbits(120):030x}",
        "checkout_id": order_id + 7, "checkout_token": f"{draw.getrandbits(128):032x}",
        "client_details": {"accept_language": "en-US", "browser_height": None, "browser_ip": "203.0.113.9",
                           "browser_width": None, "session_hash": None,
                           "user_agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15"},
        "closed_at": None, "confirmation_number": f"{draw.getrandbits(45):09X}", "confirmed": True,
        "contact_email": f"c{customer}@example.com", "created_at": stamp, "currency": "USD",
        "current_shipping_price_set": _set(shipping), "current_total_additional_fees_set": None,
        "current_total_duties_set": None, "customer_locale": "en-US", "device_id": None,
        "discount_codes": [{"code": "WELCOME10", "amount": _amount(discount), "type": "percentage"}] * bool(discount),
        "duties_included": False, "email": f"c{customer}@example.com", "estimated_taxes": False,
        "financial_status": "paid", "fulfillment_status": None, "landing_site": "/collections/all?utm_source=mail",
        "landing_site_ref": None, "location_id": None, "merchant_business_entity_id": "MTU0ODM4MDAwOQ",
        "name": f"#{1000 + number}", "note": None, "note_attributes": [], "number": number,
        "order_number": 1000 + number, "order_status_url": f"https://shop.example/orders/{draw.getrandbits(128):032x}",
        "original_total_additional_fees_set": None, "original_total_duties_set": None,
        "payment_gateway_names": ["shopify_payments"], "phone": None, "po_number": None, "presentment_currency": "USD",
        "processed_at": stamp, "reference": None, "referring_site": "https://www.example.com/",
        "source_identifier": None,
        "source_name": "web", "source_url": None, "tags": "", "tax_exempt": False,
        "tax_lines": [{"price": _amount(tax), "rate": 0.0833, "title": "Sales tax", "price_set": _set(tax),
                       "channel_liable": False}],
        "taxes_included": False, "test": False, "token": f"{draw.getrandbits(128):032x}",
        "total_outstanding": "0.00", "total_shipping_price_set": _set(shipping), "total_tip_received": "0.00",
        "total_weight": 1200, "updated_at": stamp, "user_id": None, "billing_address": address,
        "customer": {
            "id": 7_000_000_000_000 + customer, "email": f"c{customer}@example.com", "created_at": stamp,
            "updated_at": stamp, "first_name": address["first_name"], "last_name": address["last_name"],
            "state": "disabled", "note": None, "verified_email": True, "multipass_identifier": None,
            "tax_exempt": False, "phone": f"+1415{5000000 + customer}", "currency": "USD", "tax_exemptions": [],
            "admin_graphql_api_id": f"gid://shopify/Customer/{7_000_000_000_000 + customer}",
            "default_address": address,
        },
        "discount_applications": [], "fulfillments": [], "line_items": lines, "payment_terms": None, "refunds": [],
        "shipping_address": address, "returns": [], "line_item_groups": [],
        "shipping_lines": [{"id": order_id + 1, "code": "Standard", "discounted_price": _amount(shipping),
                            "discounted_price_set": _set(shipping), "is_removed": False, "price": _amount(shipping),
                            "price_set": _set(shipping), "source": "shopify", "title": "Standard", "tax_lines": [],
                            "discount_allocations": []}],
        **money,
    }  # fmt: skip


def _amount(minor: int) -> str:
    return f"{minor // 100}.{minor % 100:02d}"


def _set(minor: int) -> dict[str, Any]:
    both = {"amount": _amount(minor), "currency_code": "USD"}
    return {"shop_money": both, "presentment_money": both}


def _money(name: str, minor: int) -> dict[str, Any]:
    return {name: _amount(minor), f"{name}_set": _set(minor)}


def _line(draw: random.Random, line_id: int) -> dict[str, Any]:
    product, price, quantity = (
        8_000_000_000_000 + draw.randrange(2_000),
        draw.randrange(500, 20_000),
        draw.choice((1, 1, 2)),
    )
    tax = price // 12
    title = f"Product {product % 2_000} in {draw.choice(('Blue', 'Red', 'Sand', 'Ink'))}"
    return {
        "id": line_id, "admin_graphql_api_id": f"gid://shopify/LineItem/{line_id}", "attributed_staffs": [],
        "current_quantity": quantity, "fulfillable_quantity": quantity, "fulfillment_service": "manual",
        "fulfillment_status": None, "gift_card": False, "grams": 400, "name": f"{title} - M",
        **_money("price", price), "product_exists": True, "product_id": product, "properties": [],
        "quantity": quantity, "requires_shipping": True, "sales_line_item_group_id": None,
        "sku": f"SKU-{product % 2_000}-M",
        "taxable": True, "title": title, **_money("total_discount", 0), "variant_id": product * 10 + 3,
        "variant_inventory_management": "shopify", "variant_title": "M", "vendor": "Acme",
        "tax_lines": [{"price": _amount(tax), "rate": 0.0833, "title": "Sales tax", "price_set": _set(tax),
                       "channel_liable": False}],
        "duties": [], "discount_allocations": [],
    }  # fmt: skip


def _address(draw: random.Random) -> dict[str, Any]:
    first, last = draw.choice(_FIRST), draw.choice(_LAST)
    return {
        "first_name": first, "last_name": last, "name": f"{first} {last}", "company": None,
        "address1": f"{draw.randrange(1, 999)} {draw.choice(_STREETS)}", "address2": None, "city": "Springfield",
        "zip": f"{draw.randrange(10_000, 99_999)}", "province": "Kentucky", "province_code": "KY",
        "country": "United States", "country_code": "US", "phone": None, "latitude": 38.01, "longitude": -84.5,
    }  # fmt: skip


def request(path: str, topic: str, body: bytes) -> bytes:
    """A signed delivery with the headers that Shopify sends."""
    signature = base64.b64encode(hmac.digest(SECRET.encode(), body, hashlib.sha256)).decode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"User-Agent: Shopify-Captain-Hook\r\nAccept: */*\r\nX-Shopify-Topic: {topic}\r\n"
        f"X-Shopify-Hmac-Sha256: {signature}\r\nX-Shopify-Shop-Domain: bench.myshopify.com\r\n"
        f"X-Shopify-API-Version: 2026-07\r\nX-Shopify-Webhook-Id: {new_id()}\r\nX-Shopify-Event-Id: {new_id()}\r\n"
        f"X-Shopify-Triggered-At: {SYSTEM.now().isoformat()}\r\nX-Shopify-Test: false\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def rendered(path: str, requests: int, run: int) -> deque[bytes]:
    """`requests` orders that nobody was told of, each under one of TOPICS."""
    at = SYSTEM.now().astimezone(UTC) - timedelta(seconds=5)
    return deque(
        request(path, TOPICS[number % len(TOPICS)], orjson.dumps(order(number, run, at))) for number in range(requests)
    )


async def pace(port: int, waiting: deque[bytes], connections: int, rate: float) -> dict[str, Any]:
    """Send one every 1 / `rate` seconds over idle connections; waits in milliseconds from when each was due."""
    loop = asyncio.get_running_loop()
    statuses: Counter[bytes] = Counter()
    idle: asyncio.Queue[Connection] = asyncio.Queue()
    made = [
        (await loop.create_connection(lambda: Connection(deque(), statuses, []), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    for connection in made:
        idle.put_nowait(connection)
    waits: list[float] = []

    async def send(raw: bytes, due: float) -> None:
        connection = await idle.get()
        await connection.ask(raw)
        waits.append(monotonic() - due)
        idle.put_nowait(connection)

    start, running = monotonic(), []
    for number, raw in enumerate(waiting):
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - monotonic()))
        running.append(asyncio.ensure_future(send(raw, due)))
    await asyncio.gather(*running)
    seconds = monotonic() - start
    waits.sort()
    return {
        "requests": len(waits), "seconds": seconds, "per_second": len(waits) / seconds, "rate": rate,
        "p50_ms": waits[len(waits) // 2] * 1000, "p99_ms": waits[int(len(waits) * 0.99)] * 1000,
        "max_ms": waits[-1] * 1000, "statuses": {status.decode(): count for status, count in statuses.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--run", type=int, required=True, help="orders of another run are other orders")
    parser.add_argument("--rate", type=float, help="a second; as fast as answers come when absent")
    given = parser.parse_args()
    waiting = rendered(given.path, given.requests, given.run)
    size = sum(map(len, waiting)) / len(waiting)
    if given.rate:
        result = uvloop.run(pace(given.port, waiting, given.connections, given.rate))
    else:
        result = uvloop.run(drive(given.port, waiting, given.connections))
    print(json.dumps(result | {"bytes": size}))


if __name__ == "__main__":
    main()
