"""A tracking message becomes exactly one event, or is refused with a reason; nothing in between."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.events.catalogue import TYPES
from operation_agent.events.segment import KINDS, normalise
from operation_agent.kit.errors import Rejected
from operation_agent.store.shops import Shop

pytestmark = pytest.mark.unit

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def shop(currency: str = "USD", **settings: object) -> Shop:
    return Shop(UUID(int=1), "s", "S", currency, "UTC", False, timedelta(0), Decimal("0.4"), "seed", settings)


def event(message: dict, *, of: Shop | None = None, sent_at: object = None):
    return normalise(message, of or shop(), now=NOW, received_at=NOW, sent_at=sent_at)


def track(name: str, properties: dict | None = None, **more: object) -> dict:
    return {"type": "track", "event": name, "userId": "u1", "messageId": "m1", "properties": properties or {}, **more}


def refusal(message: dict, **kwargs) -> Rejected:
    with pytest.raises(Rejected) as caught:
        event(message, **kwargs)
    return caught.value


ORDER = {"order_id": "o1", "total": "30.50", "discount": 2, "coupon": "SPRING", "products": [
    {"product_id": "p1", "quantity": 2, "price": 10.25, "coupon": "TWO"}, {"sku": 7, "price": "12"}]}  # fmt: skip


def order(**changes: object) -> dict:
    return track("Order Completed", ORDER | changes)


def test_what_only_the_shops_system_can_say_of_an_order_is_not_taken_from_a_browser():
    claimed = {"updated_at": "2999-01-01T00:00:00Z", "paid": False, "test": True, "financial_status": {}, "name": 5}
    line = {"product_id": "p", "price": 1, "current_quantity": "x", "discount_minor": 10}
    made = event(order(tax=1.25, shipping="2", products=[line], **claimed)).properties
    assert made.keys().isdisjoint({"updated_at", "paid", "test", "financial_status"})
    assert (made["name"], made["tax_minor"], made["shipping_minor"]) == ("5", 125, 200)
    assert made["products"][0].keys().isdisjoint({"current_quantity"})
    assert refusal(order(products=[line | {"discount_minor": "much"}])).where == "properties.products[0].discount_minor"


def test_an_order_is_in_minor_units_with_its_lines_and_codes():
    made = event(track("Order Completed", ORDER))
    assert made.type == "order.paid"
    assert made.name is None
    assert made.source_id == "m1"
    assert made.identity == {"external": "u1"}
    wanted = {"order_id": "o1", "total_minor": 3050, "discount_minor": 200, "currency": "USD", "quantity": 3}
    assert {name: made.properties[name] for name in wanted} == wanted
    assert made.properties["discount_codes"] == ["SPRING", "TWO"]
    assert [(line["product_id"], line["price_minor"]) for line in made.properties["products"]] == [
        ("p1", 1025), ("7", 1200)]  # fmt: skip


def test_a_currency_without_minor_units_keeps_its_amounts():
    assert (
        event(track("Order Completed", {"order_id": 1, "total": 500}), of=shop("JPY")).properties["total_minor"] == 500
    )


@pytest.mark.parametrize(
    ("name", "properties", "type_"),
    [
        ("Product Viewed", {"product_id": "p"}, "product.viewed"),
        ("product viewed ", {"sku": "p"}, "product.viewed"),
        ("Products Searched", {"query": "shoes"}, "product.searched"),
        ("Product Added", {"product_id": 5, "quantity": "2"}, "cart.added"),
        ("Product Removed", {"product_id": "p"}, "cart.removed"),
        ("Checkout Started", {"value": 3}, "checkout.started"),
        ("Order Refunded", {"order_id": "o", "total": 1.5}, "order.refunded"),
        ("Order Cancelled", {"order_id": "o"}, "order.cancelled"),
        ("Consent Changed", {"channel": "email", "state": "unsubscribed"}, "consent.changed"),
        ("Email Bounced", {"email": "A@b.example"}, "custom"),
        ("email.complained", {"address": "a@b.example"}, "custom"),
        ("cart.added", {"product_id": "p"}, "cart.added"),
        ("Something Else", {"a": 1}, "custom"),
        ("custom", {"a": 1}, "custom"),
    ],
)
def test_names_of_the_trade_have_types_and_others_are_custom(name, properties, type_):
    made = event(track(name, properties))
    assert made.type == type_
    assert made.name == (name if type_ == "custom" else None)
    assert properties.items() <= made.properties.items() or type_ in ("cart.added",)


def test_identify_names_a_person_by_every_identity_it_carries():
    made = event({
        "type": "identify", "userId": 42, "anonymousId": "a",
        "traits": {"email": " Ann@Shop.Example ", "phone": "138 0013 8000"},
        "context": {"externalIds": [{"type": "shopify_customer_id", "id": "gid://shopify/Customer/9"}]},
    }, of=shop(country="CN"))  # fmt: skip
    assert made.type == "customer.identified"
    assert made.identity == {
        "external": "42", "anonymous": "a", "email": "ann@shop.example", "phone": "+8613800138000", "shopify": "9",
    }  # fmt: skip
    assert made.properties["traits"]["email"] == " Ann@Shop.Example "


def test_what_is_no_address_and_no_number_identifies_nobody():
    made = event({"type": "identify", "userId": "u", "traits": {"email": "ann at shop", "phone": "none"}})
    assert made.identity == {"external": "u"}


def test_alias_carries_both_ids():
    made = event({"type": "alias", "userId": "new", "previousId": "old"})
    assert (made.type, made.identity) == ("customer.aliased", {"external": "new", "previous": "old"})
    assert refusal({"type": "alias", "userId": "new"}).where == "previousId"
    assert refusal({"type": "alias", "previousId": "old"}).where == "userId"


def test_an_alias_of_two_devices_names_nobody_else():
    claimed = {"externalIds": [{"type": "shopify_customer_id", "id": "9"}], "traits": {"email": "ann@shop.example"}}
    made = event({"type": "alias", "anonymousId": "visitor", "previousId": "cart:1", "context": claimed})
    assert (made.type, made.identity) == ("customer.aliased", {"anonymous": "visitor", "previous": "cart:1"})


def test_a_message_without_an_id_gets_one():
    message = {"type": "page", "anonymousId": "a"}
    first, second = event(message), event(message)
    assert first.source_id == str(first.id) != second.source_id


@pytest.mark.parametrize(
    ("message", "code", "where"),
    [
        ({"type": "purchase", "userId": "u"}, "unknown_type", "type"),
        ({"userId": "u"}, "unknown_type", "type"),
        ({"type": ["track"], "userId": "u"}, "unknown_type", "type"),
        ({"type": "track", "event": "x"}, "id_missing", "userId"),
        ({"type": "track", "event": "x", "userId": "  "}, "id_missing", "userId"),
        ({"type": "track", "event": "x", "userId": {"a": 1}}, "id", "userId"),
        ({"type": "track", "event": "x", "userId": True}, "id", "userId"),
        ({"type": "track", "event": "x", "userId": "u" * 513}, "id_too_long", "userId"),
        ({"type": "track", "event": "x", "userId": "u", "messageId": "m" * 513}, "id_too_long", "messageId"),
        ({"type": "track", "userId": "u"}, "event_name", "event"),
        (track("x", properties=None) | {"properties": [1]}, "not_an_object", "properties"),
        (track("x") | {"context": "here"}, "not_an_object", "context"),
        (track("Product Viewed"), "property_missing", "properties.sku"),
        (track("Order Completed", {"total": 1}), "property_missing", "properties.order_id"),
        (track("Order Completed", {"order_id": 1}), "property_missing", "properties.total"),
        (track("Order Completed", {"order_id": 1, "total": -0.01}), "negative_amount", "properties.total"),
        (track("Order Completed", {"order_id": 1, "total": "NaN"}), "amount", "properties.total"),
        (track("Order Completed", {"order_id": 1, "total": 1e300}), "amount", "properties.total"),
        (track("Order Completed", {"order_id": 1, "total": "12,50"}), "amount", "properties.total"),
        (order(currency="EUR"), "mixed_currency", "properties.currency"),
        (order(products=[{"price": -1}]), "negative_amount", "properties.products[0].price"),
        (order(products=[{"currency": "CNY"}]), "mixed_currency", "properties.products[0].currency"),
        (order(products="p"), "products", "properties.products"),
        (track("Product Added", {"product_id": "p", "quantity": 0}), "quantity", "properties.quantity"),
        (track("Product Added", {"product_id": "p", "quantity": 1.5}), "quantity", "properties.quantity"),
        (track("Product Added", {"product_id": "p", "price_minor": -5}), "amount", "properties.price_minor"),
        (track("Order Refunded", {"order_id": 1}), "property_missing", "properties.total"),
        (track("Consent Changed", {"channel": "email", "state": "yes"}), "consent_state", "properties.state"),
        (track("x", {"name": "a\0b"}), "not_storable", "properties.name"),
        (track("x", {"a\0": 1}), "not_storable", "properties.<key>"),
        (track("x", {"list": [0, "\ud800"]}), "not_storable", "properties.list[1]"),
        (track("x", {"n": 2**70}), "not_storable", "properties.n"),
        (track("x", {"text": "x" * 33_000}), "event_too_large", None),
        (track("x", timestamp="yesterday"), "timestamp", "timestamp"),
        (track("x", timestamp=1_700_000_000), "timestamp", "timestamp"),
        (track("x", timestamp="0001-01-01T00:00:00+14:00"), "timestamp", "timestamp"),
        (track("x", timestamp="1989-12-31T23:59:59Z"), "timestamp_too_old", "timestamp"),
        (track("x", timestamp="2026-03-01T13:00:01Z"), "timestamp_in_future", "timestamp"),
        (track("x", timestamp="2026-03-01T12:00:00Z", sentAt="x"), "timestamp", "sentAt"),
    ],
)  # fmt: skip
def test_bad_messages_are_refused_by_name(message, code, where):
    error = refusal(message)
    assert (error.code, error.where) == (code, where)
    assert error.detail


def test_a_foreign_currency_says_what_to_do():
    error = refusal(track("Order Completed", {"order_id": 1, "total": 1, "currency": "EUR"}))
    assert "EUR" in error.detail
    assert "USD" in error.detail
    assert "convert" in error.detail


def test_too_deep_is_refused_and_text_that_looks_like_an_escape_is_not():
    deep: dict = {}
    for _ in range(300):
        deep = {"d": deep}
    assert refusal(track("x", deep)).code in ("too_deep", "not_storable")
    assert event(track("x", {"text": "C:\\u0000 is a path"})).properties["text"] == "C:\\u0000 is a path"


def test_integers_up_to_64_bits_are_kept():
    assert event(track("x", {"n": 2**63, "m": -(2**63)})).properties == {"n": 2**63, "m": -(2**63)}


def test_up_to_an_hour_ahead_is_now_and_late_stays_late():
    assert event(track("x", timestamp="2026-03-01T12:59:59Z")).occurred_at == NOW
    assert event(track("x", timestamp="2025-01-01T08:00:00+08:00")).occurred_at == datetime(2025, 1, 1, tzinfo=UTC)
    assert event(track("x", timestamp="2025-01-01T00:00:00")).occurred_at == datetime(2025, 1, 1, tzinfo=UTC)
    assert event(track("x")).occurred_at == NOW


def test_a_wrong_device_clock_is_corrected_by_its_own_sent_at():
    """A device whose clock is in 1970 sent this ten seconds after it happened."""
    message = track("x", timestamp="1970-01-01T00:00:00Z", sentAt="1970-01-01T00:00:10Z")
    assert event(message).occurred_at == NOW - timedelta(seconds=10)
    shared = track("x", timestamp="2031-05-05T05:00:00Z")
    assert event(shared, sent_at="2031-05-05T05:01:00Z").occurred_at == NOW - timedelta(minutes=1)


def test_rudderstacks_original_timestamp_is_read():
    message = track("x", originalTimestamp="2026-02-01T00:00:00Z")
    assert event(message).occurred_at == datetime(2026, 2, 1, tzinfo=UTC)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = ["Order Completed", "Product Added", "Order Refunded", "Email Bounced", *TYPES]
PROPERTIES = (
    "order_id", "total", "products", "quantity", "price", "price_minor", "currency", "coupon", "product_id",
    "discount_codes", "query", "email", "channel", "state", "topic", "checkout_id",
)  # fmt: skip
PLAIN = (
    "userId",
    "anonymousId",
    "previousId",
    "groupId",
    "messageId",
    "timestamp",
    "sentAt",
    "traits",
    "context",
    "name",
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(KINDS) | JSON,
        "event": st.sampled_from(NAMES) | JSON,
        "properties": JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(PROPERTIES, JSON)),
        **dict.fromkeys(PLAIN, JSON),
    },
)


@given(FIELDS | JSON)
def test_any_json_becomes_a_storable_event_or_a_refusal(message):
    try:
        made = event(message)
    except Rejected as error:
        assert error.detail
        return
    assert made.type in TYPES
    assert made.identity
    assert all(isinstance(value, str) and len(value) <= 512 for value in made.identity.values())
    stored = orjson.dumps([made.identity, made.properties, made.context, made.name, made.source_id])
    assert "\0" not in str(orjson.loads(stored))
