"""Every kind of change against the Shopify of the tests: previewed, made, taken back; and through all that goes wrong.

One case a kind: what stands in the shop, what is asked, how its effect is seen, and how somebody else gets in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from operation_agent.storefront.kinds import KINDS
from tests.integration.changing import Desk, desk
from tests.shopify_peer.peer import Peer

pytestmark = pytest.mark.integration

CUSTOMER, ORDER, PRODUCT, OTHER = (
    "gid://shopify/Customer/7001", "gid://shopify/Order/9001", "gid://shopify/Product/5001",
    "gid://shopify/Product/5002",
)  # fmt: skip
VARIANT, COLLECTION, PAGE = (
    "gid://shopify/ProductVariant/6001", "gid://shopify/Collection/8001", "gid://shopify/Page/4001",
)  # fmt: skip
THIRD, FOURTH = "gid://shopify/Product/5003", "gid://shopify/Product/5004"


def fill(peer: Peer) -> None:
    consent = {"marketingState": "SUBSCRIBED", "marketingOptInLevel": "SINGLE_OPT_IN",
               "consentUpdatedAt": "2025-01-01T00:00:00Z"}  # fmt: skip
    peer.put(
        Customer={
            "id": CUSTOMER, "email": "a@example.com", "phone": "+15555550100", "tags": ["kept", "sleeping"],
            "emailMarketingConsent": consent,
        },
        Product=[
            {"id": PRODUCT, "title": "Shirt", "descriptionHtml": "<p>Linen</p>", "tags": ["old"],
             "variants": [{"id": VARIANT, "price": "20.00", "compareAtPrice": None,
                           "unitCost": {"amount": "8.00", "currencyCode": "USD"}},
                          {"id": "gid://shopify/ProductVariant/6002", "title": "Large", "price": "30.00"}]},
            {"id": OTHER, "title": "Trousers"},
            {"id": THIRD, "title": "Hat"},
            {"id": FOURTH, "title": "Scarf"},
        ],
        Order={"id": ORDER, "createdAt": "2026-11-01T00:00:00Z", "customer": CUSTOMER, "tags": []},
        Collection={"id": COLLECTION, "title": "Summer", "handle": "summer", "descriptionHtml": "", "seo": {},
                    "sortOrder": "MANUAL", "productIds": [PRODUCT, OTHER, THIRD], "publications": {}},
        Page={"id": PAGE, "title": "About", "handle": "about", "body": "<p>We</p>", "isPublished": True,
              "templateSuffix": None},
    )  # fmt: skip


@dataclass(frozen=True)
class Case:
    """`seen` is what counts of the shop; `mutation` the call that does it; `meddle` somebody else's change of that.
    `leaves` is what stays after an undo, if it is not exactly what stood there before."""

    kind: str
    parameters: dict[str, Any]
    seen: Callable[[Peer], Any]
    mutation: str
    wanted: Any
    meddle: Callable[[Peer], Any]
    leaves: Any = ...


def fields(gid: str, *names: str) -> Callable[[Peer], Any]:
    return lambda peer: {name: peer.get(gid)[name] for name in names}


def one(gid: str, name: str) -> Callable[[Peer], Any]:
    return lambda peer: peer.get(gid)[name]


def metafield(owner: str, key: str) -> Callable[[Peer], Any]:
    return lambda peer: next((found["value"] for found in peer.metafields(owner) if found["key"] == key), None)


def put(**objects: Any) -> Callable[[Peer], Any]:
    return lambda peer: peer.put(**objects)


def write(owner: str, key: str, value: str, kind: str = "single_line_text_field") -> Callable[[Peer], Any]:
    given = {"ownerId": owner, "namespace": "opagent", "key": key, "type": kind, "value": value}
    return lambda peer: peer.put(Metafield=given)


def prices(peer: Peer) -> list[tuple[str, Any]]:
    return [(one["price"], one["compareAtPrice"]) for one in peer.all("ProductVariant") if one["product"] == PRODUCT]


def policies(peer: Peer) -> list[str]:
    return [one["inventoryPolicy"] for one in peer.all("ProductVariant") if one["product"] == PRODUCT]


def drafts(peer: Peer) -> list[Any]:
    return [(draft["note2"], len(draft["lineItems"])) for draft in peer.all("DraftOrder")]


def collections(peer: Peer) -> list[Any]:
    return [(found["title"], found["productIds"]) for found in peer.all("Collection") if found["id"] != COLLECTION]


def pages(peer: Peer) -> list[Any]:
    return [(page["title"], page["handle"], page["body"], page["isPublished"]) for page in peer.all("Page")]


def banners(peer: Peer) -> list[Any]:
    return [found["values"]["title"] for found in peer.all("Metaobject")]


def published(peer: Peer) -> bool:
    return "gid://shopify/Publication/1" in peer.get(PRODUCT)["publications"]


def consent(name: str) -> Callable[[Peer], Any]:
    return lambda peer: (peer.get(CUSTOMER).get(name) or {"marketingState": None})["marketingState"]


def meddle_draft(peer: Peer) -> None:
    for draft in peer.all("DraftOrder"):
        peer.put(DraftOrder={"id": draft["id"], "note2": "by hand"})


def meddle_page(peer: Peer) -> None:
    for page in peer.all("Page"):
        if page["id"] != PAGE:
            peer.put(Page={"id": page["id"], "title": "By hand"})


def meddle_collection(peer: Peer) -> None:
    for found in peer.all("Collection"):
        if found["id"] != COLLECTION:
            peer.put(Collection={"id": found["id"], "title": "By hand"})


BASE_PAGE = ("About", "about", "<p>We</p>", True)
BANNER_DEFINITION = {
    "type": "opagent_banner", "name": "Banner",
    "fieldDefinitions": [
        {"key": key, "name": key, "type": {"name": kind, "category": "TEXT"}, "required": False, "validations": []}
        for key, kind in (("visible", "boolean"), ("title", "single_line_text_field"),
                          ("text", "multi_line_text_field"), ("link_url", "single_line_text_field"),
                          ("link_label", "single_line_text_field"), ("image_url", "single_line_text_field"))
    ],
}  # fmt: skip


def meddle_banner(peer: Peer) -> None:
    document = (
        'mutation { metaobjectUpsert(handle: {type: "opagent_banner", handle: "home"},'
        ' metaobject: {fields: [{key: "title", value: "By hand"}]}) { userErrors { message } } }'
    )
    if peer.all("MetaobjectDefinition"):
        peer.graphql(document)


CASES = [
    Case("customer.tags", {"customer_id": "7001", "add": ["vip"], "remove": ["Sleeping"]}, one(CUSTOMER, "tags"),
         "tagsRemove", ["kept", "vip"], put(Customer={"id": CUSTOMER, "tags": ["kept", "sleeping"]}),
         leaves=["kept", "Sleeping"]),
    Case("order.tags", {"order_id": "9001", "add": ["gift"]}, one(ORDER, "tags"), "tagsAdd", ["gift"],
         put(Order={"id": ORDER, "tags": []})),
    Case("product.tags", {"product_id": "5001", "add": ["new"]}, one(PRODUCT, "tags"), "tagsAdd", ["new", "old"],
         put(Product={"id": PRODUCT, "tags": ["old"]})),
    Case("customer.metafields", {"customer_id": "7001", "metafields": [{"key": "last_offer", "value": "spring"}]},
         metafield(CUSTOMER, "last_offer"), "metafieldsSet", "spring", write(CUSTOMER, "last_offer", "by hand")),
    Case("order.metafields", {"order_id": "9001", "metafields": [{"key": "by", "value": "Li"}]},
         metafield(ORDER, "by"), "metafieldsSet", "Li", write(ORDER, "by", "by hand")),
    Case("product.metafields", {"product_id": "5001", "metafields": [
        {"key": "facts", "type": "json", "value": '{"a": 1, "b": [2]}'}]},
        metafield(PRODUCT, "facts"), "metafieldsSet", '{"a": 1, "b": [2]}', write(PRODUCT, "facts", "{}", "json")),
    Case("customer.recommendations", {"customer_id": "7001", "product_ids": ["5002", "5001"]},
         metafield(CUSTOMER, "recommendations"), "metafieldsSet", f'["{OTHER}","{PRODUCT}"]',
         write(CUSTOMER, "recommendations", f'["{PRODUCT}"]', "list.product_reference")),
    Case("customer.vip", {"customer_id": "7001", "vip": True}, metafield(CUSTOMER, "vip"), "metafieldsSet", "true",
         write(CUSTOMER, "vip", "false", "boolean")),
    Case("customer.agent", {"customer_id": "7001", "agent": "Li Wei"}, metafield(CUSTOMER, "agent"), "metafieldsSet",
         "Li Wei", write(CUSTOMER, "agent", "Wang")),
    Case("customer.consent", {"customer_id": "7001", "channel": "email", "state": "unsubscribed"},
         consent("emailMarketingConsent"), "customerEmailMarketingConsentUpdate", "UNSUBSCRIBED",
         put(Customer={"id": CUSTOMER, "emailMarketingConsent": {
             "marketingState": "PENDING", "marketingOptInLevel": "CONFIRMED_OPT_IN", "consentUpdatedAt": None}})),
    Case("draft_order.create", {"customer_id": "7001", "note": "By phone", "tags": ["phone"], "lines": [
        {"variant_id": "6001", "quantity": 2}, {"title": "Wrapping", "price": "3.50"}],
        "discount": {"kind": "percentage", "value": "10"}}, drafts, "draftOrderCreate", [("By phone", 2)],
        meddle_draft),
    Case("product.text", {"product_id": "5001", "title": "Linen shirt", "description_html": "<p>Light</p>",
                          "seo_title": "Shirts"}, fields(PRODUCT, "title", "descriptionHtml", "seo"), "productUpdate",
         {"title": "Linen shirt", "descriptionHtml": "<p>Light</p>", "seo": {"title": "Shirts", "description": ""}},
         put(Product={"id": PRODUCT, "title": "By hand"}),
         leaves={"title": "Shirt", "descriptionHtml": "<p>Linen</p>", "seo": {"title": "", "description": ""}}),
    Case("product.price", {"product_id": "5001", "variants": [
        {"variant_id": "6001", "price": "18.00", "compare_at": "20.00"}]}, prices, "productVariantsBulkUpdate",
        [("18.00", "20.00"), ("30.00", None)], put(ProductVariant={"id": VARIANT, "price": "19.00"})),
    Case("product.inventory_policy", {"product_id": "5001", "policy": "continue"}, policies,
         "productVariantsBulkUpdate", ["CONTINUE", "CONTINUE"], lambda peer: None),
    Case("collection.create", {"title": "Autumn", "product_ids": ["5001", "5003"], "seo_title": "Autumn things"},
         collections, "collectionCreate", [("Autumn", [PRODUCT, THIRD])], meddle_collection),
    Case("collection.update", {"collection_id": "8001", "title": "Late summer", "sort_order": "price_asc"},
         fields(COLLECTION, "title", "sortOrder"), "collectionUpdate",
         {"title": "Late summer", "sortOrder": "PRICE_ASC"}, put(Collection={"id": COLLECTION, "title": "By hand"})),
    Case("collection.products", {"collection_id": "8001", "add": ["5004"], "remove": ["5002"]},
         lambda peer: set(peer.get(COLLECTION)["productIds"]), "collectionUpdate", {PRODUCT, THIRD, FOURTH},
         lambda peer: None),
    Case("collection.order", {"collection_id": "8001", "product_ids": ["5002"]}, one(COLLECTION, "productIds"),
         "collectionReorderProducts", [OTHER, PRODUCT, THIRD],
         put(Collection={"id": COLLECTION, "productIds": [THIRD, OTHER, PRODUCT]})),
    Case("page.create", {"title": "Sizes", "body_html": "<p>S</p>", "published": False}, pages, "pageCreate",
         [BASE_PAGE, ("Sizes", "sizes", "<p>S</p>", False)], meddle_page),
    Case("page.update", {"page_id": "4001", "title": "About us", "published": False},
         fields(PAGE, "title", "isPublished"), "pageUpdate", {"title": "About us", "isPublished": False},
         put(Page={"id": PAGE, "title": "By hand"})),
    Case("page.delete", {"page_id": "4001"}, pages, "pageDelete", [],
         put(Page={"id": PAGE, "body": "<p>By hand</p>"})),
    Case("home.banner", {"title": "Free shipping", "link_url": "/collections/all"}, banners, "metaobjectUpsert",
         ["Free shipping"], meddle_banner),
    Case("publication.set", {"product_id": "5001", "published": True}, published, "publishablePublish", True,
         lambda peer: None),
]  # fmt: skip
BY_KIND = {case.kind: case for case in CASES}
each = pytest.mark.parametrize("case", CASES, ids=[case.kind for case in CASES])


@pytest.fixture
def here(engine, shop_id, shopify_peer) -> Iterator[Desk]:
    fill(shopify_peer)
    shopify_peer.grant(scopes=sorted({scope for kind in KINDS.values() for scope in kind.scopes["shopify"]}))
    with desk(engine, shop_id, shopify_peer) as made:
        yield made


def mutations(peer: Peer) -> list[str]:
    return [
        field
        for call in peer.calls()
        for field in call["fields"]
        if not call.get("fault") and call["operation"] and not call.get("errors") and field in _MUTATIONS
    ]


_MUTATIONS = {case.mutation for case in CASES} | {
    "tagsAdd", "metafieldsDelete", "draftOrderDelete", "collectionDelete", "pageCreate", "metaobjectDelete",
    "publishableUnpublish", "metaobjectDefinitionCreate", "draftOrderInvoiceSend",
}  # fmt: skip


def test_every_kind_has_a_case():
    assert set(BY_KIND) == set(KINDS)


@each
def test_a_preview_tells_what_would_change_and_changes_nothing(here: Desk, case: Case):
    was = case.seen(here.peer)
    change = here.settled(here.ask(case.kind, case.parameters))
    assert change.state == "previewed", (change.reason, change.errors)
    assert change.after is not None and change.before is not None
    assert change.after != change.before or case.kind == "page.delete"
    assert case.seen(here.peer) == was
    assert mutations(here.peer) == []


@each
def test_it_is_made_and_taken_back(here: Desk, case: Case):
    was = case.seen(here.peer)
    change = here.made(case.kind, case.parameters)
    assert change.state == "applied", (change.reason, change.errors)
    assert case.seen(here.peer) == case.wanted
    assert change.undo is not None
    undone = here.undo(change.id)
    assert undone.state == "undone", (undone.reason, undone.errors)
    assert case.seen(here.peer) == (was if case.leaves is ... else case.leaves)
    assert here.verbs() == ["asked", "apply_asked", "applied", "undo_asked", "undone"]
    assert not any(call.get("mocked") for call in here.peer.calls()), "the peer made something up"


@each
def test_what_the_shop_refuses_is_refused_field_by_field(here: Desk, case: Case):
    was = case.seen(here.peer)
    change_id = here.ask(case.kind, case.parameters)
    here.settled(change_id)
    errors = [{"field": ["input", "title"], "message": "is not to my liking"}]
    here.peer.fault("user_errors", case.mutation, errors=errors)
    change = here.apply(change_id)
    assert change.state == "refused"
    assert change.errors[0]["field"] == ["input", "title"]
    assert change.errors[0]["message"] == "is not to my liking"
    assert "is not to my liking" in (change.reason or "")
    after = case.seen(here.peer)
    assert after == was or (case.kind == "customer.tags" and after == ["kept", "sleeping"])


@each
def test_a_throttled_change_waits_and_is_made_once(here: Desk, case: Case):
    change_id = here.ask(case.kind, case.parameters)
    here.settled(change_id)
    here.peer.fault("throttle", case.mutation, times=2)
    change = here.apply(change_id)
    assert change.state == "applied", (change.reason, change.errors)
    assert case.seen(here.peer) == case.wanted
    assert sum(name == case.mutation for name in mutations(here.peer)) == 1


@each
@pytest.mark.parametrize("fault", ["drop_before", "drop_after", "garbage", "status_after"])
def test_an_uncertain_call_is_looked_up_and_never_made_twice(here: Desk, case: Case, fault: str):
    change_id = here.ask(case.kind, case.parameters)
    here.settled(change_id)
    here.peer.fault(fault, case.mutation, **({"status": 502} if fault == "status_after" else {}))
    with_one_step(here, change_id)
    assert here.change(change_id).state == "unknown"
    change = here.settled(change_id)
    assert change.state == "applied", (change.reason, change.errors)
    assert case.seen(here.peer) == case.wanted
    done = [call for call in here.peer.calls(case.mutation) if call.get("fault") != "drop_before"]
    assert len(done) == 1
    assert "unknown" in here.verbs()
    undone = here.undo(change_id)
    assert undone.state == "undone", undone.reason


def with_one_step(here: Desk, change_id: Any) -> None:
    from operation_agent.store.session import for_shop
    from operation_agent.storefront import changes

    with for_shop(here.engine, here.shop.id) as session:
        changes.apply(session, here.shop, change_id, at=here.clock.now(), actor="test")
    here.work()


_UNCONFLICTED = {
    "product.inventory_policy": "two values only: whatever somebody else sets is the old value or the new one",
    "collection.products": "as above", "publication.set": "as above", "customer.tags": "as above",
    "order.tags": "as above", "product.tags": "as above",
    "draft_order.create": "nothing stands there yet", "collection.create": "nothing stands there yet",
    "page.create": "nothing stands there yet",
    "home.banner": "there is no definition yet, so nobody can have made one",
}  # fmt: skip


@pytest.mark.parametrize("case", [case for case in CASES if case.kind not in _UNCONFLICTED], ids=lambda case: case.kind)
def test_what_somebody_changed_since_the_preview_is_not_overwritten(here: Desk, case: Case):
    change_id = here.ask(case.kind, case.parameters)
    here.settled(change_id)
    case.meddle(here.peer)
    theirs = case.seen(here.peer)
    change = here.apply(change_id)
    assert (change.state, change.reason_code) == ("refused", "changed"), change.reason
    assert case.seen(here.peer) == theirs
    assert mutations(here.peer) == []


_UNDONE_BY_OTHERS = {"customer.tags", "order.tags", "product.tags"}
_KEPT = {"product.inventory_policy", "collection.products", "publication.set", "page.delete"}


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.kind not in _KEPT | _UNDONE_BY_OTHERS], ids=lambda case: case.kind
)  # fmt: skip
def test_what_somebody_changed_since_is_taken_back_by_force_only(here: Desk, case: Case):
    was = case.seen(here.peer)
    change = here.made(case.kind, case.parameters)
    case.meddle(here.peer)
    theirs = case.seen(here.peer)
    refused = here.undo(change.id)
    assert (refused.state, refused.reason_code) == ("applied", "changed"), refused.reason
    assert case.seen(here.peer) == theirs
    undone = here.undo(change.id, force=True)
    assert undone.state == "undone", undone.reason
    if case.leaves is ...:
        assert case.seen(here.peer) == was


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.kind in _UNDONE_BY_OTHERS], ids=lambda case: case.kind
)  # fmt: skip
def test_what_somebody_took_back_already_counts_as_taken_back(here: Desk, case: Case):
    change = here.made(case.kind, case.parameters)
    case.meddle(here.peer)
    theirs = case.seen(here.peer)
    assert here.undo(change.id).state == "undone"
    assert case.seen(here.peer) == theirs


@each
@pytest.mark.parametrize("fault", ["drop_before", "drop_after"])
def test_an_uncertain_undo_is_asked_again_and_happens_once(here: Desk, case: Case, fault: str):
    was = case.seen(here.peer)
    change = here.made(case.kind, case.parameters)
    undoing = {
        "customer.tags": "tagsAdd", "order.tags": "tagsRemove", "product.tags": "tagsRemove",
        "draft_order.create": "draftOrderDelete", "collection.create": "collectionDelete", "page.create": "pageDelete",
        "page.delete": "pageCreate", "home.banner": "metaobjectDelete", "publication.set": "publishableUnpublish",
    }.get(case.kind, case.mutation)  # fmt: skip
    if "metafield" in case.mutation:
        undoing = "metafieldsDelete"
    here.peer.fault(fault, undoing)
    undone = here.undo(change.id)
    assert undone.state == "undone", (undone.reason, undone.errors)
    assert case.seen(here.peer) == (was if case.leaves is ... else case.leaves)


@each
def test_what_is_not_there_is_refused_with_its_name(here: Desk, case: Case):
    names = [name for name in case.parameters if name.endswith("_id")]
    if not names:
        pytest.skip("it names nothing that must be there")
    change = here.settled(here.ask(case.kind, case.parameters | dict.fromkeys(names, "99")))
    if case.kind == "draft_order.create":
        assert change.state == "previewed"
        change = here.apply(change.id)
    assert change.state == "refused"
    assert "99" in (change.reason or "") or change.errors
