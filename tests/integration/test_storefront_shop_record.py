"""The shop follows its storefront in what nobody set by hand, and never silently in its currency."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from sqlalchemy import Engine, text

from operation_agent import agent
from operation_agent.events.event import Event
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, create_shop, load_shop

pytestmark = pytest.mark.integration

START = datetime(2026, 3, 1, tzinfo=UTC)


def told(minute: int, **said: str) -> Event:
    at = START + timedelta(minutes=minute)
    properties = {"vendor": "shopify", **said}
    return Event(new_id(), "shopify", f"shop@{minute}", "shop.changed", at, at, {}, properties)


def paid(minute: int) -> Event:
    said = {"order_id": "o", "total_minor": 5, "discount_minor": 0, "currency": "USD", "quantity": 1,
            "discount_codes": [], "products": []}  # fmt: skip
    at = START + timedelta(minutes=minute)
    return Event(new_id(), "shopify", "order.paid:o", "order.paid", at, at, {}, said)


def make(engine: Engine, **given: str) -> Shop:
    slug = f"r-{new_id().hex[-12:]}"
    return create_shop(engine, **{"slug": slug, "name": slug, "currency": "USD", "sandbox": True, **given})


def take(engine: Engine, shop: Shop, *events: Event) -> tuple[Shop, list[tuple[str, dict]]]:
    with for_shop(engine, shop.id) as session:
        for event in events:
            agent.observe(session, load_shop(session, shop.id), [event], recorded_at=SYSTEM.now())
        noted = session.execute(
            text("SELECT verb, detail FROM audit_log WHERE actor = 'storefront:shopify' ORDER BY seq")
        )
        return load_shop(session, shop.id), [tuple(row) for row in noted]


def test_what_nobody_set_follows_and_is_noted(engine):
    shop, noted = take(engine, make(engine), told(1, name="Tea House", time_zone="Asia/Shanghai", currency="USD"))
    assert (shop.name, shop.time_zone) == ("Tea House", "Asia/Shanghai")
    assert [verb for verb, _ in noted] == ["shop.changed"]
    assert noted[0][1]["after"] == {"name": "Tea House", "time_zone": "Asia/Shanghai"}
    shop, noted = take(engine, shop, told(2, name="Tea & Co", time_zone="Asia/Shanghai", currency="USD"))
    assert (shop.name, len(noted)) == ("Tea & Co", 2)


def test_what_an_operator_set_stays(engine):
    made = make(engine, name="My own name", time_zone="Europe/Rome")
    shop, noted = take(engine, made, told(1, name="Tea House", time_zone="Asia/Shanghai"), told(2, name="Tea"))
    assert (shop.name, shop.time_zone, noted) == ("My own name", "Europe/Rome", [])


def test_the_newest_stands_whatever_came_first(engine):
    sayings = [told(1, name="A", time_zone="Asia/Shanghai"), told(2, name="B", time_zone="Asia/Tokyo"),
               told(3, name="C", time_zone="Nowhere/Land", currency="ZZZ")]  # fmt: skip
    for arrival in permutations(sayings):
        shop, _ = take(engine, make(engine), *arrival)
        assert shop.name == "C"
        assert shop.currency == "USD"


def test_the_currency_follows_until_something_is_counted_in_it_and_then_there_is_a_warning_once(engine):
    shop, noted = take(engine, make(engine), told(1, currency="CAD"))
    assert (shop.currency, [verb for verb, _ in noted]) == ("CAD", ["shop.changed"])
    shop, noted = take(engine, make(engine), paid(0), told(1, currency="CAD"), told(2, currency="CAD"))
    assert shop.currency == "USD"
    assert noted == [("shop.currency_differs", {"shop": "USD", "storefront": "CAD"})]
