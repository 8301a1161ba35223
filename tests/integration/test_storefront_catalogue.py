"""The catalogue over HTTP: searched, paged, and without what is gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from operation_agent.access.keys import create_key
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import create_shop, load_shop
from operation_agent.storefront import mirror
from operation_agent.storefront.records import Complete, Record, Telling

pytestmark = pytest.mark.integration

START = datetime(2026, 5, 1, tzinfo=UTC)


def at(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


def _products() -> list[Telling]:
    told: list[Telling] = []
    for number in range(1, 8):
        values = {"title": f"Shirt {number}", "status": "ACTIVE" if number < 6 else "DRAFT", "tags": ["new"]}
        told.append(Record("product", (f"p{number}",), at(1), values))
        for size in (1, 2):
            told.append(
                Record(
                    "variant", (f"v{number}-{size}",), at(1),
                    {"product_id": f"p{number}", "sku": f"SH_{number}-{size}", "price_minor": 1000 * size,
                     "position": size, "inventory_item_id": f"i{number}-{size}", "inventory_quantity": 3},
                )
            )  # fmt: skip
    return told


TOLD = [
    *_products(),
    Record("product", ("p7",), at(2), deleted=True),
    Record("variant", ("v1-3",), at(1), {"product_id": "p1", "sku": "GONE"}),
    Complete("variant", ("product_id", "p1"), [("v1-1",), ("v1-2",)], at(3)),
    Complete("variant", ("product_id", "only-listed"), [("v99",)], at(3)),
    Record("inventory_level", ("i1-1", "here"), at(1), {"available": 2}),
    Record("inventory_level", ("i1-1", "there"), at(1), {"available": -1}),
    Record("inventory_level", ("i1-1", "closed"), at(1), {"available": 9}),
    Record("inventory_level", ("i1-1", "closed"), at(2), deleted=True),
    Record("collection", ("k1",), at(1), {"title": "100% cotton", "is_automatic": False}),
    Record("collection", ("k2",), at(1), {"title": "Sale"}),
    *(Record("collection_product", ("k1", f"p{number}"), at(1)) for number in (1, 2, 7)),
    Record("discount", ("d1",), at(1), {"title": "Ten", "status": "ACTIVE", "usage_limit": 5, "used": 1}),
    *(Record("discount_code", ("d1", f"TEN-{number:03}"), at(1)) for number in range(60)),
    Record("discount_code", ("d1", "TEN-059"), at(2), deleted=True),
    Record("discount", ("d2",), at(1), {"title": "Old", "status": "EXPIRED"}),
]


@pytest.fixture
def call(engine, shop_id, client):
    with for_shop(engine, shop_id) as session:
        mirror.write(session, load_shop(session, shop_id), TOLD)
        key, _ = create_key(session, shop_id, name="k", scopes=["storefront:read"], actor="test", at=SYSTEM.now())

    def send(path: str, **params):
        return client.get(f"/api/storefront{path}", headers={"Authorization": f"Bearer {key}"}, params=params)

    return send


def ids(answer, name: str) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item[name] for item in answer.json()["items"]]


def test_products_are_paged_without_what_is_gone(call):
    seen, cursor = [], None
    while cursor is not None or not seen:
        page = call("/products", limit=4, **({"cursor": cursor} if cursor else {}))
        seen += ids(page, "product_id")
        cursor = page.json()["next"]
        if cursor is None:
            break
    assert seen == [f"p{number}" for number in range(1, 7)]
    first = call("/products", limit=1).json()["items"][0]
    assert (first["variants"], first["lowest_minor"], first["highest_minor"], first["inventory"]) == (2, 1000, 2000, 6)
    assert first["tags"] == ["new"]


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({"q": "shirt 3"}, ["p3"]),
        ({"q": "SH_4"}, ["p4"]),
        ({"q": "sh_4-2"}, ["p4"]),
        ({"q": "H_4"}, []),
        ({"q": "%"}, []),
        ({"q": "GONE"}, []),
        ({"q": "", "status": "draft"}, ["p6"]),
        ({"collection": "k1"}, ["p1", "p2"]),
        ({"collection": "k1", "q": "2"}, ["p2"]),
        ({"status": "nothing"}, []),
    ],
)
def test_products_are_found_by_title_sku_status_and_collection(call, params, found):
    assert ids(call("/products", **params), "product_id") == found


def test_one_product_has_its_variants_stock_and_collections(call):
    product = call("/products/p1").json()
    assert [(one["variant_id"], one["price_minor"]) for one in product["variants"]] == [("v1-1", 1000), ("v1-2", 2000)]
    assert [(one["location_id"], one["available"]) for one in product["variants"][0]["levels"]] == [
        ("here", 2), ("there", -1),
    ]  # fmt: skip
    assert product["variants"][1]["levels"] == []
    assert product["collections"] == [{"collection_id": "k1", "title": "100% cotton"}]
    for missing in ("p7", "only-listed", "p99"):
        answer = call(f"/products/{missing}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_collections_count_the_products_that_are_there(call):
    found = call("/collections").json()["items"]
    assert [(one["collection_id"], one["products"]) for one in found] == [("k1", 2), ("k2", 0)]
    assert ids(call("/collections", q="0% c"), "collection_id") == ["k1"]
    assert ids(call("/collections", limit=1), "collection_id") == ["k1"]


def test_discounts_have_their_first_codes_and_the_number_of_all(call):
    first, _ = call("/discounts").json()["items"]
    assert (first["code_count"], len(first["codes"]), first["codes"][0], first["used"]) == (59, 50, "TEN-000", 1)
    assert ids(call("/discounts", code="ten-058"), "discount_id") == ["d1"]
    assert ids(call("/discounts", code="TEN-059"), "discount_id") == []
    assert ids(call("/discounts", status="expired"), "discount_id") == ["d2"]


def test_the_counts_are_of_what_is_there(call):
    assert call("/counts").json() == {
        "products": 6, "variants": 12, "collections": 2, "discounts": 2, "discount_codes": 59, "inventory_levels": 2,
    }  # fmt: skip


def test_another_shop_and_another_key_see_nothing(engine, client, call):
    other = create_shop(engine, slug=f"x-{new_id().hex[-12:]}", name="x", currency="USD", sandbox=True).id
    with for_shop(engine, other) as session:
        key, _ = create_key(session, other, name="k", scopes=["storefront:read"], actor="test", at=SYSTEM.now())
        wrong, _ = create_key(session, other, name="w", scopes=["customers:read"], actor="test", at=SYSTEM.now())
    theirs, blind = ({"Authorization": f"Bearer {one}"} for one in (key, wrong))
    assert client.get("/api/storefront/products", headers=theirs).json() == {"items": [], "next": None}
    assert client.get("/api/storefront/products/p1", headers=theirs).status_code == 404
    assert client.get("/api/storefront/counts", headers=blind).status_code == 403
    assert client.get("/api/storefront/products", headers=theirs, params={"cursor": "zz"}).status_code == 400
