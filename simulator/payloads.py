"""What the shop, its browser script and its providers would send for a simulated day: payloads, no I/O.

A customer's day runs: messages of yesterday are read from 06:30, a visit begins between 09:00 and 20:00, and an order
ends it. Ids follow from the seed, the customer and the day, so sending a day twice sends the same events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

from operation_agent.kit.ids import digest_id

from .behaviour import (
    MESSAGE_DRAWS,
    OTHER_PRODUCT,
    PRODUCTS,
    TIME,
    WHEN,
    Day,
    Floats,
    Ints,
    Messages,
    price,
    product,
    quantity,
)
from .customers import Shoppers, email, external_id
from .providers import Message

FIRST_NAMES = ("Ada", "Ben", "Chloe", "Dan", "Eve", "Finn", "Grace", "Hugo", "Iris", "Jack", "Kira", "Liam")
CHINESE_NAMES = ("伟", "芳", "娜", "敏", "静", "丽", "强", "磊", "洋", "勇", "艳", "杰")
CATEGORIES = ("rock", "jazz", "classical", "folk", "electronic", "soundtrack")
SEARCHES = ("live", "best of", "piano", "new", "box set", "remaster")
LAST_ORDER = timedelta(hours=20, minutes=40)
"""Time of day by which every order of a day has been placed."""


@dataclass(frozen=True, slots=True)
class Stamped:
    """A payload with its customer and its moment."""

    at: datetime
    number: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything needed to tell one day's story."""

    shoppers: Shoppers
    seed: int
    index: int
    midnight: datetime
    draws: Floats
    day: Day

    @classmethod
    def of(cls, shoppers: Shoppers, seed: int, index: int, starts_on: date, draws: Floats, day: Day) -> Scene:
        midnight = datetime.combine(starts_on, datetime.min.time(), UTC) + timedelta(days=index)
        return cls(shoppers, seed, index, midnight, draws, day)

    def visit_at(self, row: int) -> datetime:
        return self.midnight + timedelta(seconds=int(9 * 3600 + self.draws[row, TIME] * 11 * 3600))

    def order_at(self, row: int) -> datetime:
        return self.visit_at(row) + timedelta(minutes=40)

    def order_id(self, row: int) -> int:
        return order_id(int(self.shoppers.numbers[row]), self.index)


def order_id(number: int, day: int) -> int:
    return 5_000_000_000 + day * 1_000_000 + number


def shopify_id(number: int) -> int:
    return 7_000_000_000 + number


def iso(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def decimal(minor: int) -> str:
    return f"{minor // 100}.{minor % 100:02d}"


# --- the tracking API


def introductions(scene: Scene, rows: Ints) -> list[Stamped]:
    """Identify and consent, of customers who come for the first time."""
    found = []
    for row in rows.tolist():
        number, at = int(scene.shoppers.numbers[row]), scene.visit_at(row)
        is_chinese = bool(scene.shoppers.is_chinese[row])
        traits = {
            "email": email(number),
            "first_name": (CHINESE_NAMES if is_chinese else FIRST_NAMES)[number % 12],
            "locale": "zh-CN" if is_chinese else "en-US",
            "country": "CN" if is_chinese else "US",
            "shopify_customer_id": str(shopify_id(number)),
        }
        state = "subscribed" if scene.shoppers.is_subscriber[row] else "unsubscribed"
        consent = {"channel": "email", "topic": "marketing", "state": state}
        found.append(_message(scene, number, at, "i", {"type": "identify", "traits": traits}))
        found.append(_track(scene, number, at + timedelta(seconds=1), "c", "Consent Changed", consent))
    return _sorted(found)


def visits(scene: Scene) -> list[Stamped]:
    """What the browser script reports: searches, views, carts, checkouts. Orders come from the shop itself."""
    day, found = scene.day, []
    favourites = product(scene.shoppers, scene.draws)
    pieces = quantity(scene.draws)
    for row in np.flatnonzero(day.visited).tolist():
        number, at = int(scene.shoppers.numbers[row]), scene.visit_at(row)
        favourite = int(favourites[row])
        other = (favourite + 1 + int(scene.draws[row, OTHER_PRODUCT] * 40)) % PRODUCTS
        if day.searched[row]:
            query = {"query": SEARCHES[other % len(SEARCHES)]}
            found.append(_track(scene, number, at + timedelta(minutes=1), "s", "Products Searched", query))
        for view in range(int(day.views[row])):
            shown = _goods(favourite if view % 2 == 0 else other)
            found.append(
                _track(scene, number, at + timedelta(minutes=2 + 3 * view), f"v{view}", "Product Viewed", shown)
            )
        if day.carted[row]:
            line = _goods(favourite) | {"quantity": int(pieces[row]), "cart_id": f"cart-{number}-{scene.index}"}
            found.append(_track(scene, number, at + timedelta(minutes=25), "a", "Product Added", line))
        if day.checked_out[row]:
            value = decimal(int(price(np.array(favourite))) * int(pieces[row]))
            start = {"checkout_id": f"checkout-{number}-{scene.index}", "value": value, "currency": "USD"}
            found.append(_track(scene, number, at + timedelta(minutes=30), "k", "Checkout Started", start))
    return _sorted(found)


def _sorted(found: list[Stamped]) -> list[Stamped]:
    return sorted(found, key=lambda one: (one.at, one.number))


def _goods(number: int) -> dict[str, Any]:
    return {
        "product_id": f"cd-{number:04d}",
        "category": CATEGORIES[number % len(CATEGORIES)],
        "price": decimal(int(price(np.array(number)))),
        "currency": "USD",
    }


def _track(scene: Scene, number: int, at: datetime, suffix: str, name: str, properties: dict[str, Any]) -> Stamped:
    return _message(scene, number, at, suffix, {"type": "track", "event": name, "properties": properties})


def _message(scene: Scene, number: int, at: datetime, suffix: str, body: dict[str, Any]) -> Stamped:
    rest = {
        "userId": external_id(number),
        "messageId": f"sim-{scene.seed}-{number}-{scene.index}-{suffix}",
        "timestamp": iso(at),
    }
    return Stamped(at, number, body | rest)


# --- Shopify's webhooks


def orders(scene: Scene, codes: dict[int, str]) -> list[Stamped]:
    """orders/paid of the day; `codes` maps a message's index to the coupon code that came with it."""
    day = scene.day
    favourites, pieces = product(scene.shoppers, scene.draws), quantity(scene.draws)
    found = []
    for row in np.flatnonzero(day.ordered).tolist():
        code = codes[int(day.coupon[row])] if day.coupon[row] >= 0 else None
        found.append(_order(scene, row, int(favourites[row]), int(pieces[row]), code))
    return _sorted(found)


def _order(scene: Scene, row: int, goods: int, pieces: int, code: str | None) -> Stamped:
    number, at = int(scene.shoppers.numbers[row]), scene.order_at(row)
    gross, discount = int(scene.day.gross_minor[row]), int(scene.day.discount_minor[row])
    identifier, total = scene.order_id(row), decimal(gross - discount)
    line = {
        "id": identifier * 10 + 1,
        "product_id": goods,
        "sku": f"cd-{goods:04d}",
        "title": f"CD {goods:04d}",
        "quantity": pieces,
        "price": decimal(gross // pieces),
        "price_set": _set(decimal(gross // pieces)),
        "total_discount": decimal(discount),
    }
    body = {
        "id": identifier,
        "admin_graphql_api_id": f"gid://shopify/Order/{identifier}",
        "name": f"#{identifier}",
        "email": email(number),
        "contact_email": email(number),
        "created_at": iso(at),
        "processed_at": iso(at),
        "updated_at": iso(at),
        "currency": "USD",
        "presentment_currency": "USD",
        "financial_status": "paid",
        "test": False,
        "subtotal_price": total,
        "total_price": total,
        "total_price_set": _set(total),
        "current_total_price": total,
        "current_total_price_set": _set(total),
        "total_line_items_price": decimal(gross),
        "total_line_items_price_set": _set(decimal(gross)),
        "total_discounts": decimal(discount),
        "total_discounts_set": _set(decimal(discount)),
        "total_tax": "0.00",
        "discount_codes": [{"code": code, "amount": decimal(discount), "type": "percentage"}] if code else [],
        "customer": {"id": shopify_id(number), "email": email(number)},
        "line_items": [line],
    }
    return Stamped(at, number, body)


def refunds(scene: Scene, bought: list[tuple[int, int, int]]) -> list[Stamped]:
    """refunds/create of the day for orders `(customer, day of the order, paid in minor units)`, in full."""
    found = []
    for number, bought_on, paid in bought:
        at = scene.midnight + timedelta(hours=8, seconds=number % 3000)
        identifier, amount = order_id(number, bought_on), decimal(paid)
        line = {
            "id": identifier * 10 + 3,
            "line_item_id": identifier * 10 + 1,
            "quantity": 1,
            "subtotal": amount,
            "subtotal_set": _set(amount),
        }
        transaction = {
            "id": identifier * 10 + 2,
            "order_id": identifier,
            "kind": "refund",
            "status": "success",
            "amount": amount,
            "currency": "USD",
            "created_at": iso(at),
        }
        body = {
            "id": identifier * 10,
            "admin_graphql_api_id": f"gid://shopify/Refund/{identifier * 10}",
            "order_id": identifier,
            "created_at": iso(at),
            "processed_at": iso(at),
            "order_adjustments": [],
            "refund_line_items": [line],
            "transactions": [transaction],
        }
        found.append(Stamped(at, number, body))
    return _sorted(found)


def _set(amount: str) -> dict[str, Any]:
    money = {"amount": amount, "currency_code": "USD"}
    return {"shop_money": money, "presentment_money": money}


# --- SendGrid's event webhook


def reports(scene: Scene, received: list[Message], messages: Messages) -> list[dict[str, Any]]:
    """What SendGrid reports on yesterday's messages: rows of `messages` and of `scene.day` answer `received`."""
    found = []
    for index, message in enumerate(received):
        number = int(scene.shoppers.numbers[messages.row[index]])
        read_at = scene.midnight + timedelta(seconds=int(6.6 * 3600 + messages.draws[index, WHEN] * 2 * 3600))
        for kind, at, extra in _reports(scene.day, index, scene.midnight, read_at):
            found.append(
                {
                    **message.custom_args,
                    "email": email(number),
                    "event": kind,
                    "timestamp": int(at.timestamp()),
                    "sg_event_id": digest_id(str(scene.seed), message.key, kind).hex[:22],
                    "sg_message_id": message.message_id,
                    **({"category": message.categories} if message.categories else {}),
                    **extra,
                }
            )
    return sorted(found, key=lambda one: (one["timestamp"], one["sg_event_id"]))


def _reports(
    day: Day, index: int, midnight: datetime, read_at: datetime
) -> Iterator[tuple[str, datetime, dict[str, Any]]]:
    yield "delivered", midnight + timedelta(hours=6, minutes=30), {"response": "250 OK"}
    if day.opened[index]:
        yield "open", read_at, {"sg_machine_open": False, "useragent": "Mozilla/5.0"}
    elif day.machine_opened[index]:
        yield "open", midnight + timedelta(hours=6, minutes=31), {"sg_machine_open": True, "useragent": "Mozilla/5.0"}
    if day.clicked[index]:
        yield "click", read_at + timedelta(seconds=40), {"url": "https://shop.example.com/", "useragent": "Mozilla/5.0"}
    if day.left[index]:
        yield "unsubscribe", read_at + timedelta(seconds=90), {}


def message_draws(seed: int, keys: list[str]) -> Floats:
    """Random numbers of messages, by what identifies them whenever and however often they arrive."""
    raw = b"".join(digest_id(str(seed), key, half).bytes for key in keys for half in ("a", "b"))
    return np.frombuffer(raw, dtype=">u4").reshape(len(keys), 8)[:, :MESSAGE_DRAWS].astype(float) / 2**32
