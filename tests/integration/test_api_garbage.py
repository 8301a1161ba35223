"""Garbage in every parameter of every route is answered with 4xx, never 5xx; and the description matches the routes."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from api.app import PUBLIC_PATHS, PUBLIC_PREFIXES, create_app
from operation_agent.access.keys import create_key
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import create_shop
from operation_agent.strategies import lifecycle, records
from operation_agent.strategies.library import template

pytestmark = pytest.mark.integration

DOCUMENT = create_app().openapi()
OPERATIONS = [
    (method, path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]
HANDED_OUT = {"/api/session"}  # its answer is a credential: see its docstring
PROBES = {"/healthz", "/readyz", "/metrics"}

WRITTEN: dict[str, Any] = {**template("conversion").to_dict(), "key": "garbage"}

GOOD: dict[str, Any] = {
    "create_shop": {
        "slug": "made-here", "name": "Made", "currency": "CNY", "time_zone": "Asia/Shanghai", "sandbox": True,
        "margin_rate": "0.3", "seed": "s", "starts_at": "2026-01-01T00:00:00Z",
    },
    "change_shop": {
        "settings": {
            "language": "zh", "country": "CN", "typical_order_minor": 900, "attribution_days": 7, "costs": {"email": 1},
            "hard_caps": {"email": {"count": 3, "window": "P7D"}}, "approval": {"types": ["coupon"], "above_minor": 1},
            "schedules": {"clustering.fit": "0 3 * * *"}, "clustering": {"k_max": 6}, "global_holdout": 0.05,
        }
    },
    "move_clock": {"to": "2027-06-01T00:00:00Z"},
    "start_strategy": {"template": "retention", "holdout": 0.2, "budget": "100.00", "state": "draft"},
    "validate_strategy": WRITTEN,
    "save_draft": WRITTEN,
    "publish_strategy": {"note": "why", "in_flight": "exit", "revision": 1},
    "roll_back_strategy": {"version": 1, "note": "why"},
    "ask_approval": {"version": 1},
    "create_rule": {"strategy": "garbage", "definition": WRITTEN["rules"][0]},
    "edit_rule": WRITTEN["rules"][0],
    "switch_rule": {"enabled": False},
    "connect_integration": {
        "base_url": "http://127.0.0.1:9", "config": {"from_email": "a@example.com", "categories": ["x"]},
        "secrets": {"api_key": "k", "webhook_public_key": "p"}, "enabled": True,
    },
    "create_key": {"name": "k", "scopes": ["events:write"]},
    "resolve_action": {
        "outcome": "sent", "coupon": {"code": "A", "percent": "10", "expires_at": "2027-01-01T00:00:00Z"}
    },
    "change_strategy": {"state": "paused"},
    "create_segment": {
        "key": "made-here", "name": {"en": "Made", "zh": "新"},
        "definition": {"all": [{"field": "customer.orders", "op": "gte", "value": 2}]}, "format": "conditions",
    },
    "preview_segment": {
        "definition": {"combinator": "and", "rules": [{"field": "customer.orders", "operator": ">=", "value": 2}]},
        "format": "querybuilder",
    },
    "open_session": {"email": "a@example.com", "password": "long enough to try"},
}  # fmt: skip
"""A body of each route that is accepted as it is; the attack spoils one part of it."""


@pytest.fixture(scope="module")
def known(engine) -> dict[str, str]:
    """A key for everything, and a shop that exists, so that garbage gets past the door."""
    return new_shop(engine)


@pytest.fixture
def fresh(engine) -> dict[str, str]:
    """The same, not yet attacked."""
    return new_shop(engine)


def new_shop(engine) -> dict[str, str]:
    shop = create_shop(engine, slug=f"g-{new_id().hex[-12:]}", name="Garbage", currency="USD", sandbox=True)
    with for_shop(engine, shop.id) as session:
        token, _ = create_key(session, shop.id, "test", ["*"], SYSTEM.now())
        lifecycle.bring_live(session, shop, records.read(WRITTEN), at=SYSTEM.now(), actor="test")
        rule = session.execute(text("SELECT id FROM rules WHERE shop_id = :shop"), {"shop": shop.id}).scalar_one()
    return {"token": token, "shop": shop.slug, "strategy": WRITTEN["key"], "rule": str(rule)}


NASTY = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["\0", "a\0b", "\ud800", "é", "..", "../../etc", "%00", "%", "' OR 1=1 --", "{}", "null", "0", "-1", "1e999",
         "9" * 400, "NaN", "2026-13-45", "9999-12-31T23:59:59-23:59", "😀" * 20, "\r\nX: y", "true", "WzFd", " "]
    ),
    st.integers(-(2**80), 2**80).map(str),
    st.uuids().map(str),
)  # fmt: skip
LEAF = st.one_of(
    NASTY, st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.sampled_from([10**400, -(10**400)])
)
JSON = st.recursive(
    LEAF, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NASTY, inner, max_size=4)), max_leaves=12
)


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def body_of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Mostly the right names with wrong or half-right values: garbage that is not turned away at the first look."""
    schema = resolve(schema)
    choices = [JSON]
    if "properties" in schema:
        fields = {name: st.one_of(body_of(inner), LEAF) for name, inner in schema["properties"].items()}
        choices += [st.fixed_dictionaries({}, optional=fields), st.fixed_dictionaries(fields)]
    if "enum" in schema:
        choices.append(st.sampled_from(schema["enum"]))
    if "anyOf" in schema:
        choices += [body_of(inner) for inner in schema["anyOf"]]
    if schema.get("type") == "array":
        choices.append(st.lists(body_of(schema.get("items", {})), max_size=3))
    if schema.get("examples"):
        choices.append(st.sampled_from(schema["examples"]))
    if schema.get("format") == "date-time":
        choices.append(st.datetimes().map(lambda at: at.isoformat() + "Z"))
    return st.one_of(choices)


def spoilt(draw: Any, good: Any) -> Any:
    """The good body with garbage in one place, at any depth."""
    if isinstance(good, dict) and good and draw(st.integers(0, 3)):
        name = draw(st.sampled_from(sorted(good)))
        return {**good, name: spoilt(draw, good[name])}
    if isinstance(good, dict) and draw(st.booleans()):
        return {**good, draw(NASTY): draw(LEAF)}
    if isinstance(good, list) and good and draw(st.booleans()):
        return [*good[:-1], spoilt(draw, good[-1])]
    return draw(JSON)


def encoded(body: Any) -> bytes:
    """As a careless client writes it: NaN, huge integers and lone surrogates go through as they are."""
    return json.dumps(body).encode("ascii")


def url(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


@pytest.mark.parametrize(
    ("method", "path", "operation"), OPERATIONS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_garbage_is_never_our_fault(client, known, method: str, path: str, operation: dict[str, Any]):
    wanted = operation.get("parameters", [])
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")

    @settings(
        max_examples=40, deadline=None, derandomize=True, database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    )  # fmt: skip
    @given(st.data())
    def attack(data: st.DataObject) -> None:
        target, query = path, []
        headers = {"Authorization": f"Bearer {known['token']}"}
        for one in wanted:
            value = data.draw(NASTY, label=one["name"])
            if one["in"] == "path":
                real = known["shop"] if one["name"] == "shop" and data.draw(st.booleans()) else value
                target = target.replace("{" + one["name"] + "}", url(real))
            elif one["in"] == "query" and data.draw(st.booleans()):
                query.append(f"{url(one['name'])}={url(value)}")
            elif one["in"] == "header" and value.isprintable() and value.isascii():
                headers[one["name"]] = value
        content = b""
        if body is not None:
            headers["Content-Type"] = "application/json"
            good = GOOD.get(operation["operationId"])
            if good is not None and data.draw(st.booleans()):
                content = encoded(spoilt(data.draw, good))
                target = path.replace("{shop}", known["shop"]).replace("{vendor}", "sendgrid")
                target = target.replace("{strategy}", known["strategy"]).replace("{rule}", known["rule"])
                target = target.replace("{action_id}", str(new_id()))
            else:
                content = data.draw(st.one_of(body_of(body).map(encoded), st.binary(max_size=60)), label="body")
        answer = client.request(
            method, target + ("?" + "&".join(query) if query else ""), content=content, headers=headers
        )
        expected = {503} if path in PROBES or path.startswith("/webhooks/") else set()
        assert answer.status_code < 500 or answer.status_code in expected, (target, query, content, answer.text)
        if answer.status_code >= 400 and path not in PROBES:
            assert answer.headers["content-type"] == "application/problem+json"
            assert {"type", "title", "status", "detail", "code"} <= answer.json().keys()

    attack()


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/xml", "multipart/form-data", "application/json; charset=x", "\x7f"]
)
def test_another_content_type_is_refused(client, known, content_type):
    headers = {"Authorization": f"Bearer {known['token']}", "Content-Type": content_type}
    answer = client.post("/api/keys", content=b"<x/>", headers=headers)
    assert 400 <= answer.status_code < 500


def test_what_the_attack_spoils_is_accepted_unspoilt(client, fresh):
    headers = {"Authorization": f"Bearer {fresh['token']}"}
    needs_more = ("resolve_action", "change_strategy", "open_session")
    needs_more += ("publish_strategy", "roll_back_strategy", "create_rule")  # a draft; another version; another key
    for method, path, operation in OPERATIONS:
        good = GOOD.get(operation["operationId"])
        if good is not None and operation["operationId"] not in needs_more:
            target = path.replace("{shop}", fresh["shop"]).replace("{vendor}", "sendgrid")
            target = target.replace("{strategy}", fresh["strategy"]).replace("{rule}", fresh["rule"])
            good = {**good, "slug": fresh["shop"] + "x"} if "slug" in good else good
            answer = client.request(method, target, json=good, headers=headers)
            assert answer.status_code in (200, 201), (path, answer.text)


def test_the_description_is_complete():
    assert DOCUMENT["openapi"].startswith("3.1")
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(names) == len(set(names))
    for method, path, operation in OPERATIONS:
        is_public = path in PUBLIC_PATHS or path.startswith(PUBLIC_PREFIXES)
        assert is_public or operation["x-permission"], path
        assert operation["summary"], path
        assert {"400", "401", "403", "503"} <= operation["responses"].keys(), path
        answered = [operation["responses"][code] for code in operation["responses"] if code in ("200", "201", "202")]
        if method != "delete" and answered:
            assert answered[0].get("content"), path


def test_every_post_of_the_admin_api_takes_an_idempotency_key():
    for method, path, operation in OPERATIONS:
        if method == "post" and path.startswith("/api/") and path not in HANDED_OUT:
            names = {one["name"] for one in operation.get("parameters", [])}
            assert "Idempotency-Key" in names, path
            assert "409" in operation["responses"], path


def test_every_identifier_of_another_kind_is_not_found(client, fresh):
    headers = {"Authorization": f"Bearer {fresh['token']}"}
    for method, path, operation in OPERATIONS:
        names = [one["name"] for one in operation.get("parameters", []) if one["in"] == "path"]
        if method == "get" and path.startswith("/api/") and names:
            target = path
            for name in names:
                known = {"vendor": "sendgrid", "version": "7"}
                target = target.replace("{" + name + "}", known.get(name, str(new_id())))
            assert client.get(target, headers=headers).status_code == 404, path


def test_the_page_at_the_root_needs_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.status_code == 200
    assert "http://" not in page.text.replace("http://agent.test", "")
    assert "https://" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
