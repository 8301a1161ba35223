"""Segments over HTTP: made, previewed, changed, listed; what does not read is answered with its path."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from operation_agent import agent
from operation_agent.access.keys import create_key
from operation_agent.events.event import Event
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from workers.regrouping import refresh

pytestmark = pytest.mark.integration

NAME = {"en": "Many orders", "zh": "多单客户"}
TWO_ORDERS = {"field": "customer.orders", "op": "gte", "value": 2}


@pytest.fixture
def call(engine, shop_id, client):
    with for_shop(engine, shop_id) as session:
        key, _ = create_key(
            session, shop_id, name="k", scopes=["segments:read", "segments:write"], actor="test", at=SYSTEM.now()
        )

    def send(method: str, path: str, **given):
        return client.request(method, f"/api/segments{path}", headers={"Authorization": f"Bearer {key}"}, **given)

    return send


def paid(who: str, days: int) -> Event:
    said = {"order_id": new_id().hex, "total_minor": 100, "discount_minor": 0, "currency": "USD", "quantity": 1,
            "discount_codes": [], "products": []}  # fmt: skip
    at = SYSTEM.now() - timedelta(days=days)
    return Event(new_id(), "test", new_id().hex, "order.paid", at, at, {"external": who}, said)


@pytest.fixture
def customers(engine, shop_id):
    with for_shop(engine, shop_id) as session:
        events = [paid(f"c{number}", days) for number in range(30) for days in (20, 10)] + [paid("single", 5)]
        agent.observe(session, load_shop(session, shop_id), events, recorded_at=SYSTEM.now())


def test_a_segment_is_made_filled_listed_changed_and_archived(engine, shop_id, call, customers):
    made = call("POST", "", json={"key": "many", "name": NAME, "definition": {"all": [TWO_ORDERS]}})
    assert made.status_code == 201, made.text
    assert made.json()["size"] is None and made.json()["used_by"] == []
    assert refresh(engine, shop_id) == 30
    assert call("GET", "/many").json()["size"] == 30
    pages, cursor = [], None
    while cursor is not None or not pages:
        page = call("GET", "/many/members", params={"limit": 20, **({"cursor": cursor} if cursor else {})}).json()
        pages.append(page["items"])
        cursor = page["next"]
    assert [len(page) for page in pages] == [20, 10]
    assert {one["external_id"] for page in pages for one in page} == {f"c{number}" for number in range(30)}
    other = call("POST", "", json={"key": "also", "name": NAME, "definition": {
        "field": "segment.many", "op": "equals", "value": True}})  # fmt: skip
    assert other.status_code == 201
    assert call("GET", "/many").json()["used_by"] == ["segment also"]
    refused = call("PATCH", "/many", json={"state": "archived"})
    assert (refused.status_code, refused.json()["code"], refused.json()["used_by"]) == (409, "in_use", ["segment also"])
    changed = call(
        "PATCH", "/many", json={"definition": {**TWO_ORDERS, "value": 1}, "name": {"en": "All", "zh": "全部"}}
    )
    assert (changed.status_code, changed.json()["version"], changed.json()["name"]["zh"]) == (200, 2, "全部")
    refresh(engine, shop_id)
    assert call("GET", "/many").json()["size"] == 31
    assert call("PATCH", "/also", json={"state": "archived"}).json()["state"] == "archived"
    assert [one["key"] for one in call("GET", "", params={"state": "active"}).json()["items"]] == ["many"]
    assert call("GET", "/nobody").status_code == 404


def test_the_same_key_twice_is_a_conflict_and_the_same_request_twice_is_one(call):
    body = {"key": "once", "name": NAME, "definition": TWO_ORDERS}
    assert call("POST", "", json=body).status_code == 201
    assert call("POST", "", json=body).status_code == 409


def test_a_preview_shows_the_values_seen_and_writes_nothing(engine, shop_id, call, customers):
    made = call("POST", "/preview", json={"definition": {"all": [{"field": "订单数", "op": "gte", "value": 2}]}})
    assert made.status_code == 200, made.text
    found = made.json()
    assert (found["customers"], found["size"], found["unknown"], len(found["sample"])) == (31, 30, 0, 20)
    assert found["definition"] == {"all": [TWO_ORDERS]}
    assert found["sample"][0]["seen"][0]["seen"] == 2 and found["sample"][0]["seen"][0]["holds"] is True
    again = call("POST", "/preview", json={"definition": {"all": [TWO_ORDERS]}}).json()
    assert again["sample"] == found["sample"]
    with for_shop(engine, shop_id) as session:
        assert session.execute(text("SELECT count(*) FROM segments WHERE shop_id = :s"), {"s": shop_id}).scalar() == 0


def test_a_visual_editors_query_is_read_and_produced(call, customers):
    query = {"combinator": "and", "rules": [{"field": "customer.orders", "operator": ">=", "value": "2", "id": "r1"}]}
    made = call("POST", "", json={"key": "drawn", "name": NAME, "definition": query, "format": "querybuilder"})
    assert made.status_code == 201, made.text
    assert made.json()["definition"] == {"all": [TWO_ORDERS]}
    drawn = call("GET", "/drawn", params={"format": "querybuilder"}).json()["definition"]
    again = call("PATCH", "/drawn", json={"definition": drawn, "format": "querybuilder"})
    assert (again.status_code, again.json()["version"]) == (200, 1)
    assert call("POST", "/preview", json={"definition": drawn, "format": "querybuilder"}).json()["size"] == 30
    wrong = {"combinator": "and", "rules": [{"field": "customer.order", "operator": "=", "value": 1}]}
    refused = call("POST", "/preview", json={"definition": wrong, "format": "querybuilder"})
    assert (refused.status_code, refused.json()["where"]) == (400, "definition.rules[0].field")


@pytest.mark.parametrize(
    ("definition", "where"),
    [
        ({"all": []}, "definition.all"),
        ({"all": [TWO_ORDERS, {"field": "customer.order", "op": "gte", "value": 2}]}, "definition.all[1].field"),
        ({**TWO_ORDERS, "value": "two"}, "definition.value"),
        ({"any": [{"field": "event.price_minor", "op": "gt", "value": 1}]}, "definition.any[0]"),
        ({"history": {"event": "product.seen"}, "op": "gte", "value": 1}, "definition.history.event"),
        ({"field": "customer.orders", "op": "changed"}, "definition.op"),
        ({}, "definition.field"),
    ],
)
def test_what_does_not_read_is_answered_with_its_path(call, definition, where):
    for path, body in (("", {"key": "k", "name": NAME}), ("/preview", {})):
        answer = call("POST", path, json={**body, "definition": definition})
        assert answer.status_code == 400, answer.text
        assert answer.json()["where"] == where


@pytest.mark.parametrize(
    "body",
    [
        {"name": NAME, "definition": TWO_ORDERS},
        {"key": "k", "name": {"en": "only"}, "definition": TWO_ORDERS},
        {"key": "K", "name": NAME, "definition": TWO_ORDERS},
        {"key": "k", "name": NAME, "definition": TWO_ORDERS, "more": 1},
        {"key": "k", "name": NAME, "definition": {"field": "trait.a\x00", "op": "equals", "value": 1}},
    ],
)
def test_a_body_that_is_none_is_refused(call, body):
    assert call("POST", "", json=body).status_code == 400
