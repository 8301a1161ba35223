"""The tracking API over HTTP: what is answered is stored, what is wrong is named, and nothing is a 5xx."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

import httpx
import psycopg
import pytest
import uvicorn
from sqlalchemy import text

from api import group_commit
from api.app import PUBLIC_PATHS, PUBLIC_PREFIXES, create_app
from api.description import routes
from operation_agent.access.keys import create_key, revoke_key
from operation_agent.events.event import Event
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Retryable
from operation_agent.kit.ids import new_id
from operation_agent.store.engine import connect
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop, move_clock

pytestmark = pytest.mark.integration


@contextmanager
def listening(app) -> Iterator[str]:
    """A real server on a real socket, as in production."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    server = uvicorn.Server(uvicorn.Config(app, loop="asyncio", http="httptools", log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def url(engine) -> Iterator[str]:
    with listening(create_app(engine)) as address:
        yield address


@pytest.fixture(scope="module")
def client(url) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=20) as client:
        yield client


def new_key(engine, shop_id, *scopes: str) -> str:
    with for_shop(engine, shop_id) as session:
        return create_key(session, shop_id, "test", scopes or ["events:write"], SYSTEM.now())[0]


@pytest.fixture
def key(engine, shop_id) -> str:
    return new_key(engine, shop_id)


def stored(engine, shop_id: UUID) -> list[str]:
    with for_shop(engine, shop_id) as session:
        return list(session.execute(text("SELECT source_id FROM events ORDER BY id")).scalars())


def track(**changes) -> dict:
    return {"type": "track", "event": "Wished", "userId": "u1", "messageId": new_id().hex, **changes}


def send(client: httpx.Client, key: str, path: str, body, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(f"/v1/{path}", content=content, auth=(key, ""), headers=headers)


def problem(answer: httpx.Response, status: int, code: str) -> dict:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    document = answer.json()
    assert (document["status"], document["code"]) == (status, code)
    assert document["type"] == f"/problems/{code}"
    assert document["title"]
    assert document["detail"]
    return document


# -- every route --------------------------------------------------------------------------------------------------


def test_every_route_needs_a_permission_or_is_public_by_name():
    seen = list(routes(create_app()))
    assert len(seen) > 20
    bare = [
        route.path
        for route, requirement in seen
        if requirement is None and route.path not in PUBLIC_PATHS and not route.path.startswith(PUBLIC_PREFIXES)
    ]
    assert bare == []


def test_every_route_without_a_key_says_401_or_is_public(client):
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if "security" not in operation:
                assert path in PUBLIC_PATHS or path.startswith(PUBLIC_PREFIXES), path
                continue
            address = path.replace("{", "").replace("}", "")
            answer = client.request(method, address, content=b"{}" if method != "get" else None)
            assert answer.status_code == 401, (method, path, answer.text)
            assert "WWW-Authenticate" in answer.headers


def test_the_description_has_every_tracking_route_with_its_errors(client):
    paths = client.get("/openapi.json").json()["paths"]
    for name in ("batch", "track", "identify", "page", "screen", "alias", "group"):
        operation = paths[f"/v1/{name}"]["post"]
        assert {"200", "400", "401", "403", "413", "503"} <= operation["responses"].keys()
        assert operation["x-permission"] == "events:write"
        assert operation["requestBody"]["content"]["application/json"]["schema"]["properties"]


# -- what is right ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("track", {"event": "Wished", "userId": "u"}),
        ("identify", {"userId": "u", "traits": {"email": "a@b.example"}}),
        ("page", {"anonymousId": "a", "name": "Home"}),
        ("screen", {"anonymousId": "a", "name": "Home"}),
        ("alias", {"userId": "u", "previousId": "a"}),
        ("group", {"userId": "u", "groupId": "g"}),
        ("t", {"event": "Wished", "anonymousId": "a"}),
    ],
)
def test_each_message_is_stored_before_the_answer(client, engine, shop_id, key, path, body):
    answer = send(client, key, path, {**body, "messageId": "m"})
    assert answer.status_code == 200
    assert answer.json() == {"success": True, "accepted": 1, "duplicates": 0, "rejected": 0, "errors": []}
    assert stored(engine, shop_id) == ["m"]
    assert send(client, key, path, {**body, "messageId": "m"}).json()["duplicates"] == 1
    assert stored(engine, shop_id) == ["m"]


def test_a_message_without_an_id_is_told_the_one_it_got(client, engine, shop_id, key):
    one = send(client, key, "track", {"event": "x", "userId": "u"}).json()["message_ids"]
    two = send(client, key, "batch", {"batch": [track(), track(messageId=None)]}).json()["message_ids"]
    assert [entry["index"] for entry in (*one, *two)] == [0, 1]
    assert {entry["messageId"] for entry in (*one, *two)} <= set(stored(engine, shop_id))


def test_good_items_of_a_batch_are_stored_and_bad_ones_named(client, engine, shop_id, key):
    send(client, key, "track", track(messageId="old"))
    good, paid = track(messageId="good"), {"order_id": "1", "total": 3}
    answer = send(client, key, "batch", {"batch": [
        good, {"type": "purchase", "userId": "u"}, track(userId=None),
        track(event="Order Completed", properties={**paid, "currency": "EUR"}),
        track(messageId="old"), 7, track(properties={"name": "a\0"}), good, track(timestamp="1066-10-14T09:00:00Z"),
        track(messageId="paid", event="Order Completed", properties=paid),
    ]})  # fmt: skip
    assert answer.status_code == 200
    reply = answer.json()
    assert (reply["accepted"], reply["duplicates"], reply["rejected"]) == (2, 2, 6)
    assert [(error["index"], error["code"], error["where"]) for error in reply["errors"]] == [
        (1, "unknown_type", "batch[1].type"),
        (2, "id_missing", "batch[2].userId"),
        (3, "mixed_currency", "batch[3].properties.currency"),
        (5, "not_an_object", "batch[5]"),
        (6, "not_storable", "batch[6].properties.name"),
        (8, "timestamp_too_old", "batch[8].timestamp"),
    ]
    assert all(error["reason"] for error in reply["errors"])
    assert sorted(stored(engine, shop_id)) == ["good", "old", "paid"]


def test_what_the_batch_says_once_holds_for_its_messages(client, engine, shop_id, key):
    own, dated = (
        track(messageId="a", context={"ip": "192.0.2.9"}),
        track(messageId="b", timestamp="2024-01-02T00:00:00Z"),
    )
    shared = {"context": {"ip": "192.0.2.1", "locale": "de"}, "timestamp": "2024-01-01T00:00:00Z"}
    body = {"batch": [own, dated], **shared}
    assert send(client, key, "batch", body).json()["accepted"] == 2
    with for_shop(engine, shop_id) as session:
        rows = session.execute(text("SELECT context, occurred_at FROM events ORDER BY source_id")).all()
    assert [row.context for row in rows] == [{"ip": "192.0.2.9", "locale": "de"}, {"ip": "192.0.2.1", "locale": "de"}]
    assert [row.occurred_at.day for row in rows] == [1, 2]


def test_a_packed_body_is_unpacked(client, engine, shop_id, key):
    body = gzip.compress(json.dumps({"batch": [track(), track()]}).encode())
    assert send(client, key, "batch", body, **{"Content-Encoding": "gzip"}).json()["accepted"] == 2


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/json; charset=utf-8", "application/octet-stream", ""]
)
def test_the_content_type_does_not_matter(client, key, content_type):
    assert send(client, key, "track", track(), **{"Content-Type": content_type}).status_code == 200


def test_a_moved_sandbox_clock_is_seen_at_once(client, engine, shop_id, key):
    assert send(client, key, "track", track(messageId="before")).status_code == 200
    with for_shop(engine, shop_id) as session:
        shop = move_clock(session, load_shop(session, shop_id), SYSTEM.now() + timedelta(days=30))
    stamp = (shop.now() - timedelta(minutes=30)).isoformat()
    assert send(client, key, "batch", {"batch": [track(messageId="after", timestamp=stamp)]}).status_code == 200
    with for_shop(engine, shop_id) as session:
        at = session.execute(text("SELECT occurred_at FROM events WHERE source_id = 'after'")).scalar_one()
    assert at.isoformat() == stamp


# -- who may ------------------------------------------------------------------------------------------------------


def test_the_key_comes_as_basic_as_bearer_or_in_the_body(client, key):
    body = json.dumps(track())
    basic = base64.b64encode(f"{key}:".encode()).decode()
    for headers in ({"Authorization": f"Basic {basic}"}, {"Authorization": f"Bearer {key}"}):
        assert client.post("/v1/track", content=body, headers=headers).status_code == 200
    for path, message in (("t", track()), ("batch", {"batch": [track()]})):
        assert client.post(f"/v1/{path}", content=json.dumps({**message, "writeKey": key})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, {"Cookie": "opagent_session=x"}]
    + [
        {"Authorization": value}
        for value in ("", "Basic", "Basic !!", "Basic /w==", "Digest x", "Bearer opk_" + "x" * 43)
    ],
)
def test_a_wrong_or_absent_key_is_401(client, headers):
    answer = client.post("/v1/batch", content=json.dumps({"batch": [track()]}), headers=headers)
    assert answer.status_code == 401 or (answer.status_code, answer.json()["code"]) == (403, "csrf")
    if answer.status_code == 401:
        assert answer.headers["WWW-Authenticate"].startswith("Basic")


def test_a_key_without_the_scope_is_403(client, engine, shop_id):
    answer = send(client, new_key(engine, shop_id, "audit:read"), "track", track())
    assert "events:write" in problem(answer, 403, "scope_missing")["detail"]


def test_a_revoked_key_is_refused_within_seconds(client, engine, shop_id):
    with for_shop(engine, shop_id) as session:
        token, row = create_key(session, shop_id, "short", ["events:write"], SYSTEM.now())
    assert send(client, token, "track", track()).status_code == 200
    with for_shop(engine, shop_id) as session:
        revoke_key(session, shop_id, row.id, SYSTEM.now())
    end = time.monotonic() + 4
    while send(client, token, "track", track()).status_code == 200:
        assert time.monotonic() < end
        time.sleep(0.1)
    problem(send(client, token, "track", track()), 401, "key_unknown")


def test_browsers_may_send_from_anywhere_and_read_refusals(client, key):
    preflight = client.options(
        "/v1/t", headers={"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    for answer in (send(client, key, "track", track()), send(client, key, "track", b"{"), client.post("/v1/track")):
        assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-origin" not in client.get("/api/customers").headers


# -- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("track", b"", "malformed_json"),
        ("track", b'{"event": "x", ', "malformed_json"),
        ("track", b"[1]", "malformed_json"),
        ("track", b"null", "malformed_json"),
        ("track", b'{"event": "\xff\xfe"}', "malformed_json"),
        ("track", b"[" * 100_000, "malformed_json"),
        ("track", b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "malformed_json"),
        ("track", b'{"event":"x","userId":"u","properties":' + b'{"a":' * 300 + b"1" + b"}" * 301, "not_storable"),
        ("track", b'{"event": "x", "userId": "\\ud800"}', "not_storable"),
        ("track", b'{"event": "x\\u0000y", "userId": "u"}', "not_storable"),
        ("track", b'{"event": "x", "userId": "u", "properties": {"n": 1e999}}', "not_storable"),
        ("track", b'{"event": "x", "userId": "u", "properties": {"n": NaN}}', "not_storable"),
        ("track", {"event": "x", "userId": "u", "properties": {"text": "x" * 40_000}}, "event_too_large"),
        ("track", track(event="Order Completed", properties={"order_id": 1, "total": -5}), "negative_amount"),
        ("track", {"event": "x"}, "id_missing"),
        ("track", {"event": "x", "userId": "u" * 600}, "id_too_long"),
        ("track", {"event": "x", "userId": "u", "timestamp": "3026-01-01T00:00:00Z"}, "timestamp_in_future"),
        ("alias", {"userId": "u"}, "id_missing"),
        ("batch", {"batch": {}}, "batch"),
        ("batch", {}, "batch"),
        ("batch", {"batch": [{}] * 1001}, "batch_too_long"),
        ("batch", {"batch": [{"type": "purchase"}, {"type": None}]}, "all_rejected"),
        ("batch", {"batch": [track()], "context": 5}, "all_rejected"),
        ("batch", {"batch": [track()], "sentAt": "soon", "timestamp": "2024-01-01"}, "all_rejected"),
    ],
)  # fmt: skip
def test_bad_input_is_400_and_says_what(client, engine, shop_id, key, path, body, code):
    document = problem(send(client, key, path, body), 400, code)
    if code == "all_rejected":
        assert [error["index"] for error in document["errors"]] == list(range(len(body["batch"])))
    assert stored(engine, shop_id) == []


def test_a_bad_number_or_half_a_character_costs_only_its_item(client, engine, shop_id, key):
    body = b'{"batch": [%s, {"type":"track","event":"x","userId":"u","properties":{"n":1e999,"t":"\\ud800"}}]}'
    reply = send(client, key, "batch", body % json.dumps(track(messageId="ok")).encode()).json()
    assert (reply["accepted"], reply["rejected"]) == (1, 1)
    assert stored(engine, shop_id) == ["ok"]


def test_an_empty_batch_is_nothing(client, key):
    assert send(client, key, "batch", {"batch": []}).json()["accepted"] == 0


def test_a_large_body_is_413_before_it_is_read(client, key):
    problem(send(client, key, "batch", b" " * 10_000_000), 413, "body_too_large")

    def endless() -> Iterator[bytes]:
        for _ in range(200):
            yield b" " * 10_000

    answer = client.post("/v1/batch", content=endless(), auth=(key, ""))
    problem(answer, 413, "body_too_large")


def test_a_packed_bomb_is_413_and_damage_is_400(client, key):
    packed = {"Content-Encoding": "gzip"}
    problem(send(client, key, "batch", gzip.compress(b" " * 50_000_000), **packed), 413, "body_too_large")
    problem(send(client, key, "batch", gzip.compress(b'{"batch": []}')[:-9], **packed), 400, "encoding")
    problem(send(client, key, "batch", b"not gzip", **packed), 400, "encoding")
    problem(send(client, key, "batch", b"x", **{"Content-Encoding": "br"}), 415, "encoding")


def test_another_method_or_path_is_a_problem_too(client, key):
    problem(client.get("/v1/track"), 405, "method_not_allowed")
    problem(client.post("/v1/nothing"), 404, "not_found")


# -- many at once, and a database that fails ----------------------------------------------------------------------


def test_two_hundred_at_once_are_each_stored_before_their_answer(url, engine, shop_id, key):
    """Every answer is checked against the table by its own connection, right after it came."""

    def one(number: int) -> bool:
        with httpx.Client(base_url=url, timeout=30) as client:
            answer = send(client, key, "track", track(messageId=f"m{number % 180}", userId=f"u{number}"))
        assert answer.status_code == 200, answer.text
        with for_shop(engine, shop_id) as session:
            assert session.execute(
                text("SELECT count(*) FROM events WHERE source_id = :id"), {"id": f"m{number % 180}"}
            ).scalar() == 1  # fmt: skip
        return answer.json()["accepted"] == 1

    with ThreadPoolExecutor(14) as pool:
        accepted = sum(pool.map(one, range(200)))
    assert accepted == 180
    assert sorted(stored(engine, shop_id)) == sorted(f"m{number}" for number in range(180))


def test_concurrent_requests_share_a_commit(engine, shop_id, monkeypatch):
    groups: list[int] = []
    write = group_commit.intake.write

    def counted(connection, shop, events):
        groups.append(len(events))
        return write(connection, shop, events)

    monkeypatch.setattr(group_commit.intake, "write", counted)
    results = asyncio.run(submit_all(engine, shop_id, [[plain(str(n))] for n in range(100)]))
    assert all(result == group_commit.Committed(frozenset(), {}) for result in results)
    assert sum(groups) == 100
    assert len(groups) <= 3
    assert len(stored(engine, shop_id)) == 100


def plain(source_id: str, **properties) -> Event:
    now = SYSTEM.now()
    return Event(new_id(), "test", source_id, "custom", now, now, {"external": "u"}, properties, {}, "x")


async def submit_all(engine, shop_id, submissions) -> list:
    committer = group_commit.GroupCommitter(engine)
    try:
        return await asyncio.gather(
            *(committer.submit(shop_id, events) for events in submissions), return_exceptions=True
        )
    finally:
        await committer.close()


def test_an_event_the_database_refuses_costs_nobody_else_anything(engine, shop_id):
    """Normalising lets no such event through; if one ever came, its group must not suffer."""
    submissions = [[plain("a"), plain("bad", text="\0"), plain("a")], [plain("b")], [plain("worse", text="\0")]]
    first, second, third = asyncio.run(submit_all(engine, shop_id, submissions))
    assert (first.duplicates, first.refused.keys()) == ({2}, {1})
    assert second == group_commit.Committed(frozenset(), {})
    assert third.refused[0].code == "not_storable"
    assert sorted(stored(engine, shop_id)) == ["a", "b"]


def test_a_full_queue_is_refused_before_anything_is_promised(engine, shop_id, monkeypatch):
    monkeypatch.setattr(group_commit, "MOST_WAITING", 5)
    results = asyncio.run(submit_all(engine, shop_id, [[plain(str(n))] for n in range(8)]))
    refused = [result for result in results if isinstance(result, Retryable)]
    assert len(refused) == 3
    assert len(stored(engine, shop_id)) == 5


@pytest.mark.parametrize("failure", [psycopg.errors.DiskFull("no space"), psycopg.errors.AdminShutdown("bye")])
def test_a_database_that_cannot_store_is_503_for_all_in_the_group(engine, shop_id, monkeypatch, failure):
    def fail(*_):
        raise failure

    monkeypatch.setattr(group_commit.intake, "write", fail)
    results = asyncio.run(submit_all(engine, shop_id, [[plain("a")], [plain("b"), plain("c")]]))
    assert [type(result) for result in results] == [Retryable, Retryable]


def test_a_database_that_is_gone_is_503_and_comes_back(request, postgres, database_url, engine, shop_id, key):
    """The key is known from the cache for two seconds, so both the look-up and the commit meet a dead database."""
    own = connect(database_url, pool_size=2)
    request.addfinalizer(own.dispose)
    with listening(create_app(own)) as address, httpx.Client(base_url=address, timeout=30) as client:
        assert send(client, key, "track", track(messageId="1")).status_code == 200
        with psycopg.connect(postgres.superuser_url(), autocommit=True) as admin:
            name = database_url.split("@/")[1].split("?")[0]
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
                (name,),
            )
            try:
                for _ in range(3):
                    answer = send(client, key, "track", track(messageId="2"))
                    problem(answer, 503, "unavailable")
                    assert int(answer.headers["Retry-After"]) >= 1
                time.sleep(2.1)
                problem(send(client, key, "track", track(messageId="2")), 503, "unavailable")
            finally:
                admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        answer = send(client, key, "track", track(messageId="2"))
        assert answer.status_code == 200, answer.text
    assert sorted(stored(engine, shop_id)) == ["1", "2"]
