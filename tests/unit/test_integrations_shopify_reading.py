"""Every topic of Shopify's webhooks: what it tells, in four API versions, and that no body can break its reader."""

from __future__ import annotations

import copy
import json
import tarfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from integrations.shopify import webhook
from integrations.shopify.reading import fields
from operation_agent.events import storable
from operation_agent.kit.errors import Rejected
from operation_agent.kit.money import to_minor
from operation_agent.storefront import records
from operation_agent.storefront.records import Complete, Record

pytestmark = pytest.mark.unit

CONTRACTS = Path(__file__).parents[2] / "../shared/contracts/shopify/webhooks"
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
TRIGGERED = NOW - timedelta(seconds=3)
needs_contracts = pytest.mark.skipif(not CONTRACTS.exists(), reason="../shared/contracts is not here")


def parse(topic: str, body: object, version: str = "2026-07", currency: str = "USD") -> list:
    sent = webhook.Envelope(topic, version, TRIGGERED)
    return webhook.parse(sent, orjson.dumps(body), currency=currency, now=NOW, received_at=NOW)


def tellings(topic: str, body: object) -> list[Record | Complete]:
    (event,) = [one for one in parse(topic, body) if one.type == "storefront.changed"]
    return records.from_json(orjson.loads(orjson.dumps(event.properties["tellings"])))


@cache
def sample(topic: str) -> dict[str, Any]:
    return json.loads((CONTRACTS / f"samples_2026-07/{topic}.json").read_text())["response"]


def changed(topic: str, **changes: Any) -> dict[str, Any]:
    return copy.deepcopy(sample(topic)) | changes


# -- headers ------------------------------------------------------------------------------------------------------


def test_headers_name_the_delivery_per_topic():
    headers = {
        "x-shopify-topic": "orders/paid", "x-shopify-event-id": "e-1", "x-shopify-webhook-id": "w-1",
        "x-shopify-api-version": "2026-07", "x-shopify-triggered-at": "2026-06-01T11:59:57.877041743Z",
    }  # fmt: skip
    assert webhook.envelope(headers) == webhook.Envelope(
        "orders/paid",
        "2026-07",
        datetime(2026, 6, 1, 11, 59, 57, 877041, tzinfo=UTC),
        ("orders/paid:event:e-1", "orders/paid:webhook:w-1"),
    )


@pytest.mark.parametrize(
    "headers", [{}, {"x-shopify-topic": ""}, {"x-shopify-topic": "orders paid"}, {"x-shopify-topic": "é" * 4}]
)
def test_a_delivery_without_a_topic_is_refused(headers):
    with pytest.raises(Rejected) as refused:
        webhook.envelope(headers)
    assert refused.value.code == "topic"


def test_headers_that_cannot_be_right_are_left_out():
    headers = {
        "shopify-topic": "shop/update", "x-shopify-event-id": "é", "x-shopify-webhook-id": "w" * 500,
        "x-shopify-triggered-at": "soon",
    }  # fmt: skip
    assert webhook.envelope(headers) == webhook.Envelope("shop/update")


def test_a_thing_without_a_date_happened_when_it_was_triggered_within_reason():
    for triggered, at in ((TRIGGERED, TRIGGERED), (NOW - timedelta(days=30), NOW), (NOW + timedelta(hours=3), NOW)):
        sent = webhook.Envelope("orders/delete", None, triggered)
        (event,) = webhook.parse(sent, b'{"id": 1}', currency="USD", now=NOW, received_at=NOW)
        assert event.occurred_at == at


# -- what nobody reads ---------------------------------------------------------------------------------------------


def test_a_newer_version_is_read_where_it_can_be_and_kept_where_not():
    body = {"id": 1, "created_at": "2026-05-01T00:00:00Z", "total_price": "1.00"}
    assert [one.type for one in parse("orders/create", body, "2031-10")] == ["order.created"]
    (kept,) = parse("orders/create", body | {"total_price": {"amount": 1}}, "2031-10")
    assert (kept.type, kept.properties["version"]) == ("webhook.kept", "2031-10")
    assert kept.properties["reason"].startswith("total_price: ")
    with pytest.raises(Rejected):
        parse("orders/create", body | {"total_price": {"amount": 1}}, "2026-07")


# -- people -------------------------------------------------------------------------------------------------------


def test_a_customer_of_2024_consents_by_a_flag():
    body = {
        "id": 2**60 + 1, "created_at": "2024-01-01T00:00:00Z", "updated_at": "2024-04-02T10:00:00+08:00",
        "first_name": "Ann", "last_name": None, "email": " Ann@Example.com ", "phone": "+1 (415) 555-2671",
        "tags": "vip, , wholesale,vip", "accepts_marketing": True,
        "accepts_marketing_updated_at": "2024-03-01T00:00:00Z",
        "default_address": {"country_code": "ca"},
    }  # fmt: skip
    identified, consent = parse("customers/update", body, "2024-04")
    assert identified.source_id.startswith(f"customer:{2**60 + 1}@2024-04-02T02:00:00Z:")
    assert identified.identity == {"shopify": str(2**60 + 1), "email": "ann@example.com", "phone": "+14155552671"}
    traits = identified.properties["traits"]
    assert (traits["first_name"], traits["last_name"], traits["country"]) == ("Ann", None, "CA")
    assert identified.properties["tags"] == ["vip", "wholesale"]
    assert consent.source_id == f"consent:{2**60 + 1}:email@2024-03-01T00:00:00Z:subscribed"
    assert consent.properties == {"channel": "email", "topic": "marketing", "state": "subscribed"}


@pytest.mark.parametrize(
    ("flags", "state"),
    [
        ({"accepts_marketing": False, "accepts_marketing_updated_at": "2024-01-01T00:00:00Z"}, None),  # never asked
        ({"accepts_marketing": False, "accepts_marketing_updated_at": "2024-02-01T00:00:00Z"}, "unsubscribed"),
        ({"accepts_marketing": False}, None),
        ({"accepts_marketing": True}, "subscribed"),
    ],
)  # fmt: skip
def test_a_flag_says_no_only_if_it_said_yes_before(flags, state):
    body = {"id": 1, "created_at": "2024-01-01T00:00:00Z", "updated_at": "2024-04-02T00:00:00Z", **flags}
    states = [one.properties["state"] for one in parse("customers/update", body) if one.type == "consent.changed"]
    assert states == ([state] if state else [])


@pytest.mark.parametrize(
    ("topic", "body", "channel"),
    [
        ("customers_email_marketing_consent/update", {"customer_id": 5, "email_marketing_consent": {}}, "email"),
        ("customers_marketing_consent/update", {"id": 5, "sms_marketing_consent": {}}, "sms"),
    ],
)
@pytest.mark.parametrize("state", ["subscribed", "UNSUBSCRIBED", "not_subscribed", "pending", None])
def test_only_yes_and_no_are_consents(topic, body, channel, state):
    consent = {"state": state, "opt_in_level": None, "consent_updated_at": "2026-01-02T03:04:05Z"}
    found = parse(topic, body | {f"{channel}_marketing_consent": consent})
    if state is None or state.lower() not in ("subscribed", "unsubscribed"):
        assert found == []
        return
    (event,) = found
    assert event.source_id == f"consent:5:{channel}@2026-01-02T03:04:05Z:{state.lower()}"
    assert (event.identity, event.occurred_at.isoformat()) == ({"shopify": "5"}, "2026-01-02T03:04:05+00:00")


def test_a_tag_taken_back_within_a_second_is_two_events_in_order():
    body = {"customerId": "gid://shopify/Customer/9007199254740993", "tags": ["b", "a"]}
    (added,) = parse("customer.tags_added", body | {"occurredAt": "2026-01-01T00:00:00.100Z"})
    (removed,) = parse("customer.tags_removed", body | {"occurredAt": "2026-01-01T00:00:00.900Z"})
    assert added.identity == {"shopify": "9007199254740993"}
    assert (added.properties, removed.properties) == (
        {"added": ["a", "b"], "removed": []}, {"added": [], "removed": ["a", "b"]},
    )  # fmt: skip
    assert added.occurred_at < removed.occurred_at
    assert added.source_id != removed.source_id


def test_customers_who_were_merged_are_one_and_a_failed_merge_is_nothing():
    body = {
        "admin_graphql_api_customer_kept_id": "gid://shopify/Customer/1",
        "admin_graphql_api_customer_deleted_id": "gid://shopify/Customer/2", "status": "completed",
    }  # fmt: skip
    (event,) = parse("customers/merge", body)
    assert (event.type, event.identity) == ("customer.aliased", {"shopify": "1", "previous": "2"})
    assert parse("customers/merge", body | {"status": "failed"}) == []


# -- the law ------------------------------------------------------------------------------------------------------

SHOP = {"shop_id": 954889, "shop_domain": "a.myshopify.com"}
PERSON = SHOP | {"customer": {"id": 191167, "email": "John@example.com", "phone": "555-625-1199"}}


def test_a_request_names_its_subject_and_its_term():
    (seen,) = parse("customers/data_request", PERSON | {"orders_requested": [1, 2**60], "data_request": {"id": 9999}})
    assert (seen.source_id, seen.identity) == ("privacy:export:9999", {})
    assert seen.properties["subject"] == {
        "shopify": "191167", "email": "john@example.com", "phone": "555-625-1199", "orders": ["1", str(2**60)],
    }  # fmt: skip
    assert datetime.fromisoformat(seen.properties["due_at"]) == TRIGGERED + timedelta(days=30)
    (gone,) = parse("customers/redact", PERSON | {"orders_to_redact": []})
    assert gone.properties["kind"] == "erase"
    (shop,) = parse("shop/redact", SHOP)
    assert (shop.properties["kind"], shop.properties["subject"]) == (
        "erase_shop", {"shop_id": "954889", "shop_domain": "a.myshopify.com"},
    )  # fmt: skip


REQUESTS = {
    "customers/data_request": PERSON | {"orders_requested": [], "data_request": {"id": 1}},
    "customers/redact": PERSON | {"orders_to_redact": []},
    "shop/redact": SHOP,
}


@pytest.mark.parametrize("topic", REQUESTS)
@pytest.mark.parametrize("told_as", REQUESTS)
def test_a_request_cannot_be_played_again_as_another(topic, told_as):
    """Topics are not signed: whoever has a body to see must not be able to make it one to forget."""
    if topic == told_as:
        assert len(parse(told_as, REQUESTS[topic])) == 1
    else:
        with pytest.raises(Rejected):
            parse(told_as, REQUESTS[topic])


@pytest.mark.parametrize("topic", ["orders", "products", "collections", "inventory_items", "customers"])
def test_what_exists_cannot_be_played_again_as_deleted(topic):
    with pytest.raises(Rejected) as refused:
        parse(f"{topic}/delete", {"id": 1, "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"})
    assert refused.value.code == "not_deleted"


# -- the shop's own things ----------------------------------------------------------------------------------------


@needs_contracts
def test_a_product_tells_of_its_variants_and_which_there_are():
    product, small, medium, listed = tellings("products/create", sample("products/create"))
    assert (product.kind, product.values["tags"], product.values["status"]) == (
        "product", ["example", "mens", "t-shirt"], "active",
    )  # fmt: skip
    assert [one.values["price_minor"] for one in (small, medium)] == [1999, 1999]
    assert [one.values["compare_at_minor"] for one in (small, medium)] == [2499, 2499]
    assert isinstance(listed, Complete)
    assert listed.parent == ("product_id", product.key[0])
    assert {("642667041472713922",), ("757650484644203962",)} <= set(listed.keys)  # from variant_gids, exact


def test_a_product_with_more_variants_than_a_webhook_tells_loses_none():
    variants = [{"id": number, "price": "1.00"} for number in range(1, 101)]
    body = {"id": 1, "updated_at": "2026-01-01T00:00:00Z", "variants": variants}
    assert not any(isinstance(one, Complete) for one in tellings("products/update", body))
    gids = [{"admin_graphql_api_id": f"gid://shopify/ProductVariant/{number}"} for number in range(1, 151)]
    listed = tellings("products/update", body | {"variant_gids": gids})[-1]
    assert isinstance(listed, Complete)
    assert len(listed.keys) == 150


def test_a_variant_may_be_renamed_and_has_no_price_in_another_currency():
    first, second = (
        tellings("variants/in_stock", {"id": 1, "product_id": 2, "title": title, "price": "10", "updated_at": at})[0]
        for title, at in (("Small", "2026-01-01T00:00:00Z"), ("S", "2026-01-02T00:00:00Z"))
    )
    assert (first.key, first.values["title"], second.values["title"]) == (("1",), "Small", "S")
    assert parse("variants/in_stock", {"id": 1, "product_id": 2, "price": "1000"}, currency="JPY")[0].properties[
        "tellings"
    ][0]["values"]["price_minor"] == 1000  # fmt: skip


@needs_contracts
def test_stock_discounts_codes_collections_and_parcels():
    assert tellings("inventory_levels/update", sample("inventory_levels/update"))[0].values == {"available": 10}
    assert tellings("inventory_levels/disconnect", sample("inventory_levels/disconnect"))[0].deleted
    (discount,) = tellings("discounts/create", sample("discounts/create"))
    assert (discount.key, discount.values["method"], discount.values["status"]) == (("1",), "automatic", "active")
    assert tellings("discounts/delete", sample("discounts/delete"))[0].deleted
    (code,) = tellings("discounts/redeemcode_removed", sample("discounts/redeemcode_removed"))
    assert (code.key, code.deleted) == (("1", "code1"), True)
    assert tellings("collections/create", sample("collections/create"))[0].values["title"] == "My New Collection"
    assert tellings("fulfillments/create", sample("fulfillments/create"))[0].values["tracking_company"] == "UPS"


@needs_contracts
def test_a_cart_is_told_whole_and_each_line_of_it_once():
    body = sample("carts/create")
    (cart,) = tellings("carts/create", body)
    assert (cart.key, cart.values["value_minor"], cart.values["quantity"]) == (("exampleCartId",), 5997, 3)
    added = [one for one in parse("carts/update", body) if one.type == "cart.added"]
    assert [(one.identity, one.properties["quantity"]) for one in added] == [({"anonymous": "cart:exampleCartId"}, 3)]
    assert added[0].source_id.startswith("cart.added:exampleCartId:704912205188288575:")


@needs_contracts
def test_a_checkout_makes_its_cart_its_buyers_whenever_the_buyer_gets_known():
    unknown, known = (parse("checkouts/update", changed("checkouts/update", **one)) for one in ({"customer": None}, {}))
    assert {one.type for one in unknown} == {"storefront.changed", "checkout.started"}
    cart = "cart:eeafa272cebfd4b22385bc4b645e762c"
    assert unknown[1].identity == {"anonymous": cart}
    (link,) = [one for one in known if one.type == "customer.identified"]
    assert (link.identity["shopify"], link.identity["anonymous"]) == ("603851970716743400", cart)
    assert known[1].properties["value_minor"] == 42188


@needs_contracts
def test_an_app_that_is_taken_away_twice_is_taken_away_twice():
    body = orjson.dumps(sample("app/uninstalled"))
    ids = set()
    for triggered in (TRIGGERED, TRIGGERED, TRIGGERED - timedelta(days=1)):
        sent = webhook.Envelope("app/uninstalled", None, triggered)
        (event,) = webhook.parse(sent, body, currency="USD", now=NOW, received_at=NOW)
        ids.add(event.source_id)
    assert len(ids) == 2


# -- versions -----------------------------------------------------------------------------------------------------


def order_of(version: str) -> dict[str, Any]:
    """The same order as four versions write it."""
    body: dict[str, Any] = {
        "id": 9007199254740993, "created_at": "2026-02-03T04:05:06-05:00", "updated_at": "2026-02-03T04:05:07-05:00",
        "processed_at": "2026-02-03T04:05:06-05:00", "currency": "USD", "financial_status": "paid",
        "fulfillment_status": None, "cancelled_at": None, "test": False, "total_price": "41.50",
        "total_discounts": "4.00", "total_tax": "1.50", "discount_codes": [{"code": "SAVE10"}],
        "customer": {"id": 7, "email": "ann@example.com", "phone": None, "accepts_marketing": True}, "refunds": [],
        "line_items": [{"id": 1, "product_id": None, "variant_id": 3, "quantity": 2, "price": "22.00", "sku": "S"}],
    }  # fmt: skip
    if version < "2024-04":
        return body  # money without `_set`, as the first versions had it
    for name in ("total_price", "total_discounts", "total_tax"):
        body[f"{name}_set"] = {"shop_money": {"amount": body[name], "currency_code": "USD"}}
        body[name] = "999.99" if version >= "2026-07" else body[name]
    if version >= "2025-04":
        del body["customer"]["accepts_marketing"]
        body["customer"]["email_marketing_consent"] = {"state": "subscribed"}
        body["presentment_currency"] = "EUR"
    return body


def test_four_versions_of_one_order_say_the_same():
    said = []
    for version in ("2022-01", "2024-04", "2025-04", "2026-07"):
        (paid,) = [one for one in parse("orders/paid", order_of(version), version) if one.type == "order.paid"]
        said.append(paid.properties | {"presentment_currency": None})
    assert all(one == said[0] for one in said)
    assert (said[0]["order_id"], said[0]["total_minor"], said[0]["discount_minor"], said[0]["tax_minor"]) == (
        "9007199254740993", 4150, 400, 150,
    )  # fmt: skip
    assert said[0]["products"][0]["product_id"] is None


# -- any body -----------------------------------------------------------------------------------------------------


@given(st.one_of(st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**9), max_value=10**9)))
@example("0.10")
@example("1e2")
@example("١٢.٣٤")  # digits, but not ASCII's
def test_the_quick_way_to_minor_units_agrees_with_the_slow_one(amount):
    written = str(amount)
    try:
        expected = to_minor(written, "USD")
    except Rejected:
        with pytest.raises(Rejected):
            fields.minor(written, "USD", "x")
        return
    assert fields.minor(written, "USD", "x") == expected


@given(st.text(max_size=45) | st.from_regex(r"\+?[0-9 ()-]{6,18}", fullmatch=True))
def test_a_phone_number_is_e164_or_none(written):
    found = fields.phone(written)
    assert found is None or (found.startswith("+") and found[1:].isdigit() and fields.phone(found) == found)


WRONG = st.sampled_from(
    [
        None, True, False, "", " ", "x", "\x00", "1", -1, 0, 2**31, 2**53 + 1, 2**63, 2**64 - 1, 1e300, -0.5,
        "9" * 40, "NaN", "-1.00", "1e400", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "a" * 3000,
        [], [None], ["x", 1], [[]], [{}], {}, {"id": None}, {"amount": "1"}, {"shop_money": None},
        {"shop_money": {"amount": "1.00", "currency_code": "EUR"}}, "\U0001f600", "2026-01-01",
    ]
)  # fmt: skip


def paths(value: object, path: tuple = ()) -> list[tuple]:
    """Of every part of a JSON value."""
    found = [path] if path else []
    if isinstance(value, dict):
        return found + [one for name, part in value.items() for one in paths(part, (*path, name))]
    if isinstance(value, list):
        return found + [one for index, part in enumerate(value) for one in paths(part, (*path, index))]
    return found


def spoil(body: dict[str, Any], path: tuple, wrong: object) -> dict[str, Any]:
    """A copy with another value at `path`; a part that an earlier spoiling has taken away stays away."""
    spoiled = copy.deepcopy(body)
    part: Any = spoiled
    for name in path[:-1]:
        try:
            part = part[name]
        except (TypeError, KeyError, IndexError):
            return spoiled
    last = path[-1]
    if (isinstance(part, dict) and isinstance(last, str)) or (isinstance(part, list) and last in range(len(part))):
        part[last] = wrong
    return spoiled


@needs_contracts
@pytest.mark.parametrize("topic", webhook.TOPICS)
@settings(max_examples=120)
@given(data=st.data())
def test_whatever_stands_in_a_body_it_is_read_or_refused(topic, data):
    body = sample(topic)
    if topic.startswith("orders/") and "line_items" in body:
        body = body | {"test": False, "financial_status": "paid", "refunds": [sample("refunds/create")]}
    for path in data.draw(st.lists(st.sampled_from(paths(body)), min_size=1, max_size=3)):
        body = spoil(body, path, data.draw(WRONG))
    try:
        events = parse(topic, body)
    except Rejected as error:
        assert error.detail
        return
    for event in events:
        written = [event.source_id, event.identity, event.properties, event.context]
        assert storable.is_suspect(written) or next(storable.faults(written), None) is None
        assert all(isinstance(value, str) and value for value in event.identity.values())
        if event.type == "storefront.changed":
            for telling in records.from_json(event.properties["tellings"]):
                records.check(telling)


@needs_contracts
def test_cut_short_bodies_are_refused():
    raw = orjson.dumps(sample("orders/paid"))
    for length in range(0, len(raw) - 1, 97):
        with pytest.raises(Rejected) as refused:
            webhook.parse(webhook.Envelope("orders/paid"), raw[:length], currency="USD", now=NOW, received_at=NOW)
        assert refused.value.code == "json"


# -- against the schemas -------------------------------------------------------------------------------------------


class _Seen(dict):
    """A body that remembers which of its fields were asked for."""

    def __init__(self, value: dict[str, Any], asked: set[str], path: str = ""):
        super().__init__({name: _seen(part, asked, f"{path}{name}.") for name, part in value.items()})
        self._asked, self._path = asked, path

    def get(self, name: str, default: Any = None) -> Any:
        self._asked.add(f"{self._path}{name}")
        return super().get(name, default)


def _seen(part: Any, asked: set[str], path: str) -> Any:
    if isinstance(part, list):
        return [_seen(one, asked, path) for one in part]
    return _Seen(part, asked, path) if isinstance(part, dict) else part


def _schema_paths(schema: dict[str, Any], path: str = "") -> set[str]:
    found = set()
    for name, part in schema.get("properties", {}).items():
        found |= {f"{path}{name}"} | _schema_paths(part, f"{path}{name}.")
    return found | (_schema_paths(schema["items"], path) if isinstance(schema.get("items"), dict) else set())


OLDER = {
    "accepts_marketing", "accepts_marketing_updated_at", "email_marketing_consent", "sms_marketing_consent", "tags",
}  # fmt: skip
"""Of a customer, in versions before: now each has topics of its own."""
PRESENCE = {"created_at", "updated_at", "line_items", "variants"}
"""What a deletion must not have, or it is none."""


def is_explained(field: str, topic: str, known: set[str]) -> bool:
    """Why we ask for a field that this version's schema of this topic does not have."""
    name = field.rsplit(".", 1)[-1]
    return (
        field.removesuffix("_set") in known  # money that this topic tells in the shop's currency only
        or (topic.startswith("customers/") and field in OLDER)
        or (topic.endswith("/delete") and field in PRESENCE | {"token"})
        or ("marketing_consent" in topic and name in {"customer_id", *OLDER})  # the two consents' topics differ
    )


@needs_contracts
@pytest.mark.parametrize("topic", webhook.TOPICS)
def test_the_fields_we_rely_on_are_in_shopifys_schema(topic):
    """Every field that our readers look for in the documented sample is one that the published schema knows."""
    from integrations.shopify.reading.telling import Webhook
    from integrations.shopify.reading.topics import READERS

    with tarfile.open(CONTRACTS / "schemas_2026-07.tar.xz") as archive:
        member = archive.extractfile(f"2026-07/{topic}.json")
        assert member is not None
        known = _schema_paths(json.load(member))
    asked: set[str] = set()
    raw = orjson.dumps(sample(topic))
    READERS[topic](_Seen(sample(topic), asked), Webhook(topic, "2026-07", TRIGGERED, "USD", NOW, NOW, raw))
    assert {one for one in asked if one not in known and not is_explained(one, topic, known)} == set()
