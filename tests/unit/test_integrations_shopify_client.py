"""Shopify's client: what every answer means, when it calls again, and how the cost allowance is shared."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations import http
from integrations.shopify import client as module
from integrations.shopify import documents
from integrations.shopify.access import Access, checked_version
from integrations.shopify.client import Shopify
from integrations.shopify.errors import (
    Malformed,
    ScopeMissing,
    ShopUnavailable,
    Throttled,
    Unauthorized,
    Uncertain,
    Unreachable,
    UserErrors,
)
from integrations.shopify.throttle import Account, LocalBucket
from operation_agent.kit.errors import Rejected

pytestmark = pytest.mark.unit

Reply = tuple[int, dict[str, str], bytes]
NO_TIME = timedelta(0)


class Shop:
    """A local HTTP server that answers with what it was told to, in turn, and keeps what it was asked."""

    def __init__(self) -> None:
        self.replies: list[Reply | Callable[[BaseHTTPRequestHandler], None]] = []
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        shop = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                shop.asked.append(orjson.loads(body))
                shop.headers.append(dict(self.headers.items()))
                shop.paths.append(self.path)
                reply = shop.replies.pop(0)
                if callable(reply):
                    reply(self)
                    return
                status, headers, content = reply
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def says(self, *bodies: Any, status: int = 200, **headers: str) -> None:
        self.replies += [
            (status, {name.replace("_", "-"): v for name, v in headers.items()}, _dumped(b)) for b in bodies
        ]

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def _dumped(body: Any) -> bytes:
    return body if isinstance(body, bytes) else orjson.dumps(body)


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.close()


@pytest.fixture(autouse=True)
def _operations(tmp_path, monkeypatch) -> Iterator[None]:
    (tmp_path / "shop_name.graphql").write_text("query ShopName { shop { name } }")
    (tmp_path / "product_update.graphql").write_text(
        "mutation ProductUpdate { productUpdate { userErrors { field } } }"
    )
    monkeypatch.setattr(documents, "FOLDER", tmp_path)
    documents.read.cache_clear()
    monkeypatch.setattr(module, "_costs", {})
    yield
    documents.read.cache_clear()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def shopify(shop: Shop, waits: list[float]) -> Iterator[Shopify]:
    client = Shopify(Access(shop.url, "shpat_secret"), sleep=waits.append)
    yield client
    client.close()


def cost(requested: float, available: float, *, maximum: float = 1000, rate: float = 50) -> dict[str, Any]:
    status = {"maximumAvailable": maximum, "currentlyAvailable": available, "restoreRate": rate}
    return {"cost": {"requestedQueryCost": requested, "actualQueryCost": None, "throttleStatus": status}}


def error(message: str, code: str | None = None, **rest: Any) -> dict[str, Any]:
    return {"message": message, **({"extensions": {"code": code}} if code else {}), **rest}


NAME = {"data": {"shop": {"name": "Shop"}}}
DONE = {"data": {"productUpdate": {"product": {"id": "gid://shopify/Product/1"}, "userErrors": []}}}


def test_a_call_goes_to_the_version_asked_for_with_the_token_and_the_operation(shop: Shop, shopify: Shopify):
    shop.says(NAME, X_Shopify_API_Version="2026-04")
    assert shopify.query("shop_name", {"first": 1}) == {"shop": {"name": "Shop"}}
    assert shop.paths == ["/admin/api/2026-07/graphql.json"]
    assert shop.headers[0]["X-Shopify-Access-Token"] == "shpat_secret"
    assert shop.asked == [{"query": documents.read("shop_name"), "variables": {"first": 1}}]
    assert shopify.served_version == "2026-04"
    assert "shpat_secret" not in repr(shopify.access)


STATUSES = [
    (401, Unauthorized, Unauthorized),
    (403, ScopeMissing, ScopeMissing),
    (402, ShopUnavailable, ShopUnavailable),
    (404, ShopUnavailable, ShopUnavailable),
    (423, ShopUnavailable, ShopUnavailable),
    (301, ShopUnavailable, ShopUnavailable),
    (308, ShopUnavailable, ShopUnavailable),
    (429, Throttled, Throttled),
    (430, Throttled, Throttled),
    (400, Malformed, Malformed),
    (406, Malformed, Malformed),
    (422, Malformed, Malformed),
    (408, Unreachable, Uncertain),
    (500, Unreachable, Uncertain),
    (502, Unreachable, Uncertain),
    (503, Unreachable, Uncertain),
    (504, Unreachable, Uncertain),
]


@pytest.mark.parametrize(("status", "of_query", "of_mutation"), STATUSES)
def test_what_a_status_means(shop: Shop, shopify: Shopify, status: int, of_query: type, of_mutation: type):
    shop.says(b"<html>no</html>", b"<html>no</html>", status=status, X_Request_Id="abc-1")
    with pytest.raises(of_query) as read:
        shopify.query("shop_name", patience=NO_TIME)
    assert type(read.value) is of_query
    with pytest.raises(of_mutation) as changed:
        shopify.mutate("product_update", {})
    assert type(changed.value) is of_mutation
    assert len(shop.asked) == 2


def test_a_redirect_is_not_followed_and_says_where_to(shop: Shop, shopify: Shopify):
    shop.says(b"", status=301, Location="https://renamed.myshopify.com/admin")
    with pytest.raises(ShopUnavailable, match="https://renamed.myshopify.com"):
        shopify.query("shop_name")
    assert len(shop.asked) == 1


ERRORS: list[tuple[dict[str, Any], type, type]] = [
    ({"errors": [error("Throttled", "THROTTLED")]}, Throttled, Throttled),
    ({"errors": [error("Throttled")], "data": None}, Throttled, Throttled),
    ({"errors": [error("Access denied for orders field.", "ACCESS_DENIED")]}, ScopeMissing, ScopeMissing),
    ({"errors": [error("frozen", "SHOP_INACTIVE")]}, ShopUnavailable, ShopUnavailable),
    ({"errors": [error("Internal error.", "INTERNAL_SERVER_ERROR")]}, Unreachable, Uncertain),
    ({"errors": [error("Something went wrong on our end")]}, Unreachable, Uncertain),
    ({"errors": [error("Timeout", "TIMEOUT")]}, Unreachable, Uncertain),
    ({"errors": [error("Query cost is 1002", "MAX_COST_EXCEEDED")]}, Malformed, Malformed),
    ({"errors": [error("No field x", "undefinedField", path=["mutation X", "shop", "x"])]}, Malformed, Malformed),
    ({"errors": "[API] Invalid API key or access token"}, Malformed, Malformed),
    ({"errors": [], "data": None}, Unreachable, Uncertain),
    ({"nothing": 1}, Unreachable, Uncertain),
]


@pytest.mark.parametrize(("body", "of_query", "of_mutation"), ERRORS)
def test_what_graphqls_errors_mean(shop: Shop, shopify: Shopify, body: dict, of_query: type, of_mutation: type):
    shop.says(body, body)
    with pytest.raises(of_query) as read:
        shopify.query("shop_name", patience=NO_TIME)
    assert type(read.value) is of_query
    with pytest.raises(of_mutation) as changed:
        shopify.mutate("product_update", {})
    assert type(changed.value) is of_mutation


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"null", b'{"data": '])
def test_an_answer_that_is_no_json_object_settles_nothing(shop: Shop, shopify: Shopify, body: bytes):
    shop.says(body, body)
    with pytest.raises(Unreachable):
        shopify.query("shop_name", patience=NO_TIME)
    with pytest.raises(Uncertain):
        shopify.mutate("product_update", {})


def test_missing_scopes_are_named(shop: Shop, shopify: Shopify):
    said = "Access denied for orders field. Required access: `read_orders` access scope."
    extensions = {"code": "ACCESS_DENIED", "requiredAccess": "`read_orders` and `read_all_orders` access scopes."}
    shop.says({"errors": [{"message": said, "extensions": extensions}], "data": {"shop": None}})
    with pytest.raises(ScopeMissing) as denied:
        shopify.query("shop_name")
    assert denied.value.scopes == ("read_orders", "read_all_orders")
    shop.says({"errors": "[API] This action requires merchant approval for write_price_rules scope."}, status=403)
    with pytest.raises(ScopeMissing) as refused:
        shopify.query("shop_name")
    assert refused.value.scopes == ("write_price_rules",)


def test_a_part_of_what_was_asked_is_no_answer(shop: Shop, shopify: Shopify):
    shop.says({"data": {"shop": {"name": None}}, "errors": [error("no", "ACCESS_DENIED", path=["shop", "name"])]})
    with pytest.raises(ScopeMissing):
        shopify.query("shop_name")


def test_a_change_whose_result_cannot_be_read_may_have_been_made(shop: Shop, shopify: Shopify):
    denied = error("no", "ACCESS_DENIED", path=["productUpdate", "product", "orders"])
    shop.says(
        {"data": {"productUpdate": {"product": None, "userErrors": []}}, "errors": [denied]},
        {"data": {"productUpdate": None}, "errors": [denied]},
        {"data": {"productUpdate": None}, "errors": [error("no", "ACCESS_DENIED", path=["productUpdate"])]},
        {"data": {"productUpdate": None}},
        {"data": {}},
    )
    for expected in (Uncertain, Uncertain, ScopeMissing, Uncertain, Uncertain):
        with pytest.raises(expected) as found:
            shopify.mutate("product_update", {})
        assert type(found.value) is expected


def test_what_a_change_is_refused_for_is_typed(shop: Shop, shopify: Shopify):
    errors = [{"field": ["product", "title"], "code": "BLANK", "message": "can't be blank"}, {"message": "also bad"}]
    shop.says({"data": {"productUpdate": {"product": None, "userErrors": errors}}})
    with pytest.raises(UserErrors) as refused:
        shopify.mutate("product_update", {})
    assert refused.value.where == "product.title"
    assert refused.value.has("TAKEN", "BLANK")
    assert [(one.field, one.code) for one in refused.value.errors] == [(("product", "title"), "BLANK"), ((), None)]


def test_reading_is_tried_again_and_changing_is_not(shop: Shop, shopify: Shopify, waits: list[float]):
    shop.says(b"busy", b"busy", status=503)
    shop.says(NAME)
    assert shopify.query("shop_name") == NAME["data"]
    assert len(waits) == 2
    assert all(0 <= wait <= 1 for wait in waits)
    shop.says(b"busy", status=503)
    with pytest.raises(Uncertain):
        shopify.mutate("product_update", {})
    assert len(shop.asked) == 4


def test_throttled_reading_waits_for_what_it_lacks(shop: Shop, shopify: Shopify, waits: list[float]):
    shop.says({"errors": [error("Throttled", "THROTTLED")], "extensions": cost(70, 20)}, NAME)
    assert shopify.query("shop_name") == NAME["data"]
    assert 1.0 <= waits[0] <= 2.0  # (70 - 20) / 50 a second, and a jitter


def test_throttled_changing_says_when(shop: Shop, shopify: Shopify):
    shop.says({"errors": [error("Throttled", "THROTTLED")], "extensions": cost(110, 10)})
    with pytest.raises(Throttled) as refused:
        shopify.mutate("product_update", {})
    assert refused.value.retry_after == timedelta(seconds=2)
    shop.says(b"", status=429, Retry_After="7")
    with pytest.raises(Throttled) as refused:
        shopify.mutate("product_update", {})
    assert refused.value.retry_after == timedelta(seconds=7)


def test_patience_ends(shop: Shop, waits: list[float]):
    client = Shopify(Access(shop.url, "t"), sleep=waits.append)
    shop.says({"errors": [error("Throttled", "THROTTLED")], "extensions": cost(900, 0)})
    with pytest.raises(Throttled) as refused:
        client.query("shop_name", patience=timedelta(seconds=5))
    assert refused.value.retry_after == timedelta(seconds=18)
    assert waits == []
    client.close()


def test_a_refused_connection_was_not_a_call(waits: list[float]):
    client = Shopify(Access("http://127.0.0.1:1", "t"), sleep=waits.append)
    with pytest.raises(Unreachable):
        client.mutate("product_update", {})
    with pytest.raises(Unreachable):
        client.query("shop_name", patience=NO_TIME)
    client.close()


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def trickle(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.close_connection = True
    pause = threading.Event()
    for _ in range(40):
        try:
            handler.wfile.write(b" ")
        except OSError:
            return
        pause.wait(0.05)


def test_a_reset_or_a_trickle_after_a_change_had_left_is_uncertain(shop: Shop, shopify: Shopify):
    shop.replies += [hang_up, trickle]
    with pytest.raises(Uncertain):
        shopify.mutate("product_update", {})
    with pytest.raises(Uncertain, match="ReadTimeout"):  # a byte now and then resets every other time-out
        shopify.mutate("product_update", {}, timeout=timedelta(seconds=0.4))


def test_a_huge_answer_is_not_read_to_its_end(shop: Shop, shopify: Shopify):
    bomb = gzip.compress(b" " * (http.LARGEST_ANSWER + 2**20))
    shop.says(bomb, bomb, Content_Encoding="gzip")
    with pytest.raises(Malformed, match="shop_name: the answer is larger"):
        shopify.query("shop_name")
    with pytest.raises(Uncertain):
        shopify.mutate("product_update", {})


def test_a_compressed_answer_is_read(shop: Shop, shopify: Shopify):
    shop.says(gzip.compress(orjson.dumps(DONE)), Content_Encoding="gzip")
    assert shopify.mutate("product_update", {})["product"] == {"id": "gid://shopify/Product/1"}


class Taken(LocalBucket):
    """Remembers what was taken."""

    def __init__(self) -> None:
        super().__init__(sleep=lambda _: None)
        self.costs: list[float] = []

    def take(self, cost: float, *, patience: timedelta) -> str:
        self.costs.append(cost)
        return super().take(cost, patience=patience)


def test_an_operations_cost_is_learned(shop: Shop):
    bucket = Taken()
    client = Shopify(Access(shop.url, "t"), bucket=bucket)
    shop.says(NAME | {"extensions": cost(412, 500)}, NAME, DONE)
    client.query("shop_name")
    client.query("shop_name")
    client.mutate("product_update", {})
    assert bucket.costs == [module.UNTOLD_COST, 412, module.UNTOLD_COST]
    client.close()


def test_an_allowance_that_is_used_up_stops_a_change_before_it_leaves(shop: Shop):
    bucket = LocalBucket()
    bucket.learn(maximum=1000, available=-990, restore_rate=50)
    client = Shopify(Access(shop.url, "t"), bucket=bucket)
    with pytest.raises(Throttled) as refused:
        client.mutate("product_update", {}, patience=timedelta(seconds=1))
    assert 19 <= refused.value.retry_after.total_seconds() <= 20
    assert shop.asked == []
    client.close()


def test_who_waits_goes_in_turn():
    account = Account()
    account.learn(1000, 100, 50, None, now=0)
    assert account.take(100, 30, "a", now=0) == (True, 0)
    assert account.take(100, 30, "b", now=0) == (True, 2)
    assert account.take(50, 30, "c", now=0) == (True, 3)  # smaller, and not before b
    assert account.take(1000, 3, "d", now=0) == (False, 23)
    assert account.take(50, 30, "e", now=1) == (True, 3)


def test_nothing_is_held_back_from_a_shop_that_has_told_nothing_yet():
    account = Account()
    assert all(account.take(900, 0, str(number), now=0) == (True, 0) for number in range(50))
    account.learn(1000, 950, 50, "0", now=0)  # 49 of them are still on their way
    assert account.take(1, 0, "late", now=0)[0] is False


def test_what_others_have_taken_is_held_back_from_what_the_api_tells():
    account = Account()
    account.take(100, 0, "mine", now=0)
    account.take(300, 0, "theirs", now=0)
    account.learn(2000, 1900, 100, "mine", now=1)
    assert account.level == 1600
    account.learn(2000, 1500, 100, None, now=40)  # theirs has long come back, or never will
    assert account.level == 1500


@given(
    st.lists(
        st.tuples(st.floats(0, 3), st.floats(1, 1500), st.booleans(), st.floats(-100, 1000)), min_size=1, max_size=60
    )
)
def test_never_more_is_let_through_than_the_bucket_restores(calls: list[tuple[float, float, bool, float]]):
    """Whatever is asked: in any time window the calls that start cost at most a full bucket and what it restores."""
    account, now, starts = Account(), 0.0, []
    account.learn(1000, 1000, 50, None, now=0)
    for number, (pause, asked, _, _) in enumerate(calls):
        now += pause
        taken, wait = account.take(asked, 60, str(number), now=now)
        if taken:
            starts.append((now + wait, min(asked, 1000)))
        assert account.level <= 1000
    starts.sort()
    for first in range(len(starts)):
        spent = 0.0
        for at, cost_ in starts[first:]:
            spent += cost_
            assert spent <= 1000 + (at - starts[first][0]) * 50 + 1e-6


def test_versions_are_quarters_or_unstable():
    assert [checked_version(one) for one in ("2026-07", "2030-10", "unstable")] == ["2026-07", "2030-10", "unstable"]
    for bad in ("", "2026-7", "2026-08", "2026-07\n", "latest", "../../x"):
        with pytest.raises(Rejected) as refused:
            checked_version(bad)
        assert refused.value.where == "config.api_version"
    assert Access("https://a.myshopify.com", "t", "unstable").path() == "/admin/api/unstable/graphql.json"
    with pytest.raises(Rejected):
        Shopify(Access("https://a.myshopify.com", "t", "newest"))
