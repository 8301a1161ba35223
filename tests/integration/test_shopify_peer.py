"""The Shopify of the tests behaves as Shopify does: what a client of ours must survive, it must be able to do."""

from __future__ import annotations

import time

import httpx
import pytest
from graphql import parse

from integrations.shopify import documents
from tests.shopify_peer.peer import CLIENT_ID, CLIENT_SECRET, VERSION, Peer

pytestmark = pytest.mark.integration

CUSTOMER = "gid://shopify/Customer/7"
PRODUCT = "gid://shopify/Product/1"
VARIANT = "gid://shopify/ProductVariant/11"
PATH = f"/admin/api/{VERSION}/graphql.json"
CREATE = """mutation($d: DiscountCodeBasicInput!) { discountCodeBasicCreate(basicCodeDiscount: $d) {
  codeDiscountNode { id codeDiscount { ... on DiscountCodeBasic { status title } } }
  userErrors { field code message } } }"""


@pytest.fixture
def stocked(shopify_peer: Peer) -> Peer:
    shopify_peer.put(
        Product={"id": 1, "title": "Tea", "variants": [{"id": 11, "price": "5.00"}, {"id": 12, "price": "6.00"}]},
        Customer={"id": 7, "email": "ada@example.com", "tags": ["new"]},
    )
    return shopify_peer


def coupon(**changes):
    return {
        "title": "Tenth off", "code": "TEN", "startsAt": "2026-01-01T00:00:00Z", "context": {"all": "ALL"},
        "customerGets": {"value": {"percentage": 0.1}, "items": {"all": True}}, **changes,
    }  # fmt: skip


def payload(answer):
    assert "errors" not in answer, answer
    (found,) = answer["data"].values()
    return found


def create(peer: Peer, **changes):
    return payload(peer.graphql(CREATE, {"d": coupon(**changes)}))


def codes(answer) -> list[str]:
    return [error["code"] for error in answer["userErrors"]]


# --- who may ask


def test_a_wrong_token_is_401_and_another_version_404(shopify_peer: Peer):
    def status(path: str, token: str) -> int:
        headers = {"X-Shopify-Access-Token": token}
        body = {"query": "{ shop { name } }"}
        return httpx.post(shopify_peer.base_url + path, json=body, headers=headers).status_code

    assert status(PATH, shopify_peer.token) == 200
    assert status(PATH, "shpat_wrong") == 401
    assert status("/admin/api/2019-01/graphql.json", shopify_peer.token) == 404


def test_a_field_without_its_scope_is_denied_and_the_others_are_answered(stocked: Peer):
    stocked.grant(scopes=["write_products"])
    answer = stocked.graphql(
        "query($id: ID!) { shop { name } products(first: 1) { nodes { id } } customer(id: $id) { id } }",
        {"id": CUSTOMER},
    )
    assert answer["data"]["products"]["nodes"] == [{"id": PRODUCT}]
    assert answer["data"]["customer"] is None
    assert [error["extensions"]["code"] for error in answer["errors"]] == ["ACCESS_DENIED"]
    assert "read_customers" in answer["errors"][0]["message"]


def test_a_document_that_is_not_of_the_schema_is_refused(shopify_peer: Peer):
    wrong = shopify_peer.graphql("{ shop { nmae } }")
    assert "data" not in wrong and "nmae" in wrong["errors"][0]["message"]
    missing = shopify_peer.graphql(CREATE, {"d": {"startsAt": "yesterday"}})
    assert "data" not in missing and "DateTime" in missing["errors"][0]["message"]
    shouted = shopify_peer.graphql("query($id: ID!) { product(id: $id) { id } }", {"id": "1"})
    assert "Invalid global id" in shouted["errors"][0]["message"]
    assert httpx.post(
        shopify_peer.base_url + PATH, content=b"{", headers={"X-Shopify-Access-Token": shopify_peer.token}
    ).status_code == 400  # fmt: skip


# --- what it costs


def test_a_bucket_empties_throttles_and_fills_again(stocked: Peer):
    stocked.settings(throttle={"maximum": 25, "restoreRate": 50, "available": 25})
    tag = 'mutation { tagsAdd(id: "%s", tags: ["a"]) { userErrors { message } } }' % CUSTOMER  # noqa: UP031
    assert stocked.graphql(tag)["extensions"]["cost"]["actualQueryCost"] == 10
    stocked.graphql(tag)
    refused = stocked.graphql(tag)
    assert refused["errors"][0]["extensions"]["code"] == "THROTTLED" and "data" not in refused
    status = refused["extensions"]["cost"]["throttleStatus"]
    assert status["maximumAvailable"] == 25 and status["restoreRate"] == 50 and status["currentlyAvailable"] < 10
    time.sleep(0.3)
    assert payload(stocked.graphql(tag))["userErrors"] == []


def test_a_query_pays_for_what_came_and_is_refused_when_it_may_cost_too_much(stocked: Peer):
    deep = "{ products(first: %d) { nodes { id variants(first: 50) { nodes { id } } } } }"
    cost = stocked.graphql(deep % 5)["extensions"]["cost"]
    assert cost["requestedQueryCost"] == 2 + 5 * (1 + 2 + 50)
    assert cost["actualQueryCost"] == 2 + (1 + 2 + 2)
    refused = stocked.graphql(deep % 250)
    assert refused["errors"][0]["extensions"]["code"] == "MAX_COST_EXCEEDED"
    many = stocked.graphql("query($ids: [ID!]!) { nodes(ids: $ids) { id } }", {"ids": [PRODUCT, CUSTOMER]})
    assert many["extensions"]["cost"]["requestedQueryCost"] == 2


# --- what it keeps, and what it refuses


def test_a_discount_is_made_once_and_found_by_its_code_whatever_its_case(shopify_peer: Peer):
    made = create(shopify_peer)
    assert made["userErrors"] == [] and made["codeDiscountNode"]["codeDiscount"]["status"] == "ACTIVE"
    again = create(shopify_peer, code="ten")
    assert codes(again) == ["TAKEN"] and again["codeDiscountNode"] is None
    found = payload(shopify_peer.graphql('{ codeDiscountNodeByCode(code: "tEn") { id } }'))
    assert found["id"] == made["codeDiscountNode"]["id"]


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"customerGets": {"value": {"percentage": 10}, "items": {"all": True}}}, "VALUE_OUTSIDE_RANGE", "percentage"),
        ({"customerGets": {"value": {"percentage": 0}, "items": {"all": True}}}, "VALUE_OUTSIDE_RANGE", "percentage"),
        ({"endsAt": "2025-12-31T00:00:00Z"}, "END_DATE_BEFORE_START_DATE", "endsAt"),
        ({"title": " "}, "BLANK", "title"),
        ({"code": ""}, "BLANK", "code"),
        ({"context": {"customers": {"add": ["gid://shopify/Customer/404"]}}}, "INVALID", "add"),
        ({"usageLimit": 0}, "GREATER_THAN", "usageLimit"),
        ({"customerGets": {"value": {}, "items": {"all": True}}}, "BLANK", "value"),
    ],
)
def test_a_wrong_discount_is_refused_by_name(shopify_peer: Peer, changes, code, field):
    refused = create(shopify_peer, **changes)
    assert codes(refused) == [code]
    assert refused["userErrors"][0]["field"][-1] == field
    assert shopify_peer.all("DiscountCodeNode") == []


def test_two_buyer_contexts_at_once_are_no_document(shopify_peer: Peer):
    both = {"context": {"all": "ALL", "customers": {"add": [CUSTOMER]}}}
    assert "exactly one" in shopify_peer.graphql(CREATE, {"d": coupon(**both)})["errors"][0]["message"].lower()


def test_codes_are_added_in_bulk_the_taken_ones_fail_and_251_are_too_many(shopify_peer: Peer):
    node = create(shopify_peer)["codeDiscountNode"]["id"]
    add = """mutation($id: ID!, $codes: [DiscountRedeemCodeInput!]!) {
      discountRedeemCodeBulkAdd(discountId: $id, codes: $codes) { bulkCreation { id done } userErrors { code } } }"""
    ask = """query($id: ID!) { discountRedeemCodeBulkCreation(id: $id) { done importedCount failedCount
      codes(first: 10) { nodes { code errors { code } discountRedeemCode { id } } } } }"""
    given = [{"code": code} for code in ("A1", "A2", "ten")]
    creation = payload(shopify_peer.graphql(add, {"id": node, "codes": given}))["bulkCreation"]
    assert creation["done"] is False
    assert payload(shopify_peer.graphql(ask, {"id": creation["id"]}))["done"] is False
    done = payload(shopify_peer.graphql(ask, {"id": creation["id"]}))
    assert (done["done"], done["importedCount"], done["failedCount"]) == (True, 2, 1)
    assert done["codes"]["nodes"][2] == {"code": "ten", "errors": [{"code": "TAKEN"}], "discountRedeemCode": None}
    assert payload(shopify_peer.graphql('{ codeDiscountNodeByCode(code: "a2") { id } }'))["id"] == node
    many = shopify_peer.graphql(add, {"id": node, "codes": [{"code": f"B{n}"} for n in range(251)]})
    assert many["errors"][0]["extensions"]["code"] == "MAX_INPUT_SIZE_EXCEEDED"


def test_deactivating_a_discount_ends_it_and_activating_takes_that_back(shopify_peer: Peer):
    node = create(shopify_peer)["codeDiscountNode"]["id"]
    ask = """mutation($id: ID!) { %s(id: $id) { userErrors { code }
      codeDiscountNode { codeDiscount { ... on DiscountCodeBasic { status endsAt } } } } }"""
    ended = payload(shopify_peer.graphql(ask % "discountCodeDeactivate", {"id": node}))
    assert ended["codeDiscountNode"]["codeDiscount"]["status"] == "EXPIRED"
    back = payload(shopify_peer.graphql(ask % "discountCodeActivate", {"id": node}))
    assert back["codeDiscountNode"]["codeDiscount"] == {"status": "ACTIVE", "endsAt": None}
    gone = payload(shopify_peer.graphql(ask % "discountCodeActivate", {"id": node[:-1] + "999"}))
    assert codes(gone) == ["INVALID"]


def test_products_and_variants_change_and_refuse(stocked: Peer):
    rename = """mutation($p: ProductUpdateInput!) { productUpdate(product: $p) {
      product { title seo { title } } userErrors { field } } }"""
    given = {"title": "Cha", "seo": {"title": "S"}}
    assert payload(stocked.graphql(rename, {"p": {"id": PRODUCT, **given}}))["product"] == given
    assert payload(stocked.graphql(rename, {"p": {"id": PRODUCT, "title": ""}}))["userErrors"] == [{"field": ["title"]}]
    assert payload(stocked.graphql(rename, {"p": {"id": CUSTOMER}}))["product"] is None
    price = """mutation($v: [ProductVariantsBulkInput!]!) {
      productVariantsBulkUpdate(productId: "gid://shopify/Product/1", variants: $v) {
        productVariants { id price inventoryPolicy } userErrors { code field } } }"""
    done = payload(stocked.graphql(price, {"v": [{"id": VARIANT, "price": "4.5", "inventoryPolicy": "CONTINUE"}]}))
    assert done["productVariants"] == [{"id": VARIANT, "price": "4.50", "inventoryPolicy": "CONTINUE"}]
    both = [{"id": VARIANT, "price": "1"}, {"id": VARIANT.replace("11", "12"), "price": "-1"}]
    refused = payload(stocked.graphql(price, {"v": both}))
    assert codes(refused) == ["GREATER_THAN_OR_EQUAL_TO"] and refused["productVariants"] is None
    assert stocked.get(VARIANT)["price"] == "4.50"
    assert codes(payload(stocked.graphql(price, {"v": [{"id": VARIANT.replace("11", "99"), "price": "1"}]}))) == [
        "PRODUCT_VARIANT_DOES_NOT_EXIST"
    ]


def test_consent_needs_an_address_and_tags_have_a_limit(stocked: Peer):
    stocked.put(Customer={"id": 8, "phone": "+13125550100"})
    ask = """mutation($i: CustomerEmailMarketingConsentUpdateInput!) { customerEmailMarketingConsentUpdate(input: $i) {
      customer { defaultEmailAddress { marketingState } } userErrors { code message } } }"""
    consent = {"marketingState": "SUBSCRIBED", "marketingOptInLevel": "SINGLE_OPT_IN"}
    given = payload(stocked.graphql(ask, {"i": {"customerId": CUSTOMER, "emailMarketingConsent": consent}}))
    assert given["customer"]["defaultEmailAddress"]["marketingState"] == "SUBSCRIBED"
    none = {"customerId": "gid://shopify/Customer/8", "emailMarketingConsent": consent}
    assert codes(payload(stocked.graphql(ask, {"i": none}))) == ["INVALID"]
    tag = "mutation($id: ID!, $t: [String!]!) { tagsAdd(id: $id, tags: $t) { userErrors { message } } }"
    assert payload(stocked.graphql(tag, {"id": CUSTOMER, "t": ["VIP", "vip", "b"]}))["userErrors"] == []
    assert stocked.get(CUSTOMER)["tags"] == ["b", "new", "VIP"]
    many = payload(stocked.graphql(tag, {"id": CUSTOMER, "t": [f"t{n}" for n in range(249)]}))
    assert "250" in many["userErrors"][0]["message"]
    assert (
        "does not exist"
        in payload(stocked.graphql(tag, {"id": CUSTOMER + "0", "t": ["x"]}))["userErrors"][0]["message"]
    )


def test_metafields_are_held_to_their_type(stocked: Peer):
    ask = """mutation($m: [MetafieldsSetInput!]!) { metafieldsSet(metafields: $m) { metafields { key compareDigest }
      userErrors { code field } } }"""
    one = {"ownerId": CUSTOMER, "namespace": "opagent", "key": "vip", "type": "boolean", "value": "true"}
    made = payload(stocked.graphql(ask, {"m": [one]}))
    assert made["userErrors"] == [] and stocked.metafields(CUSTOMER)[0]["value"] == "true"
    for changes, code in [
        ({"value": "perhaps"}, "INVALID_VALUE"), ({"type": "number_integer", "value": "1"}, "INVALID_TYPE"),
        ({"key": "n", "type": "x"}, "TOO_SHORT"), ({"key": "nn", "type": "nothing"}, "INCLUSION"),
        ({"ownerId": CUSTOMER + "0"}, "INVALID"), ({"compareDigest": "0"}, "STALE_OBJECT"),
    ]:  # fmt: skip
        assert code in codes(payload(stocked.graphql(ask, {"m": [{**one, **changes}]}))), (changes, code)
    assert stocked.metafields(CUSTOMER)[0]["value"] == "true"


# --- webhooks, bulk, OAuth


def test_a_topic_asks_for_the_scope_that_the_schema_names(shopify_peer: Peer):
    ask = """mutation($t: WebhookSubscriptionTopic!, $u: String!) {
      webhookSubscriptionCreate(topic: $t, webhookSubscription: {uri: $u}) {
        webhookSubscription { id topic uri } userErrors { field message } } }"""
    address = "https://agent.example/webhooks/shopify/x"
    assert payload(shopify_peer.graphql(ask, {"t": "ORDERS_CREATE", "u": address}))["userErrors"] == []
    assert (
        "taken" in payload(shopify_peer.graphql(ask, {"t": "ORDERS_CREATE", "u": address}))["userErrors"][0]["message"]
    )
    assert payload(shopify_peer.graphql(ask, {"t": "ORDERS_PAID", "u": "http://agent.example"}))["userErrors"]
    shopify_peer.grant(scopes=["write_products"])
    assert (
        "permission"
        in payload(shopify_peer.graphql(ask, {"t": "ORDERS_PAID", "u": address}))["userErrors"][0]["message"]
    )


BULK = "mutation($q: String!, $g: Boolean!) { bulkOperationRunQuery(query: $q, groupObjects: $g) { bulkOperation { id status } userErrors { code message } } }"  # noqa: E501
STATUS = "query($id: ID!) { bulkOperation(id: $id) { status url objectCount rootObjectCount fileSize errorCode } }"
PRODUCTS = "{ products { edges { node { id title variants { edges { node { id price } } } } } } }"


def start(peer: Peer, query: str = PRODUCTS, grouped: bool = True):
    return payload(peer.graphql(BULK, {"q": query, "g": grouped}))


def finished(peer: Peer, id_: str):
    for _ in range(5):
        found = payload(peer.graphql(STATUS, {"id": id_}))
        if found["status"] not in ("CREATED", "RUNNING", "CANCELING"):
            return found
    raise AssertionError(found)


def test_a_bulk_operation_runs_alone_and_gives_jsonl_in_parts(stocked: Peer):
    stocked.settings(bulk={"limit": 1})  # as before 2026-01; five at a time since
    stocked.put(Product={"id": 2, "title": "Pot", "variants": [{"id": 21}]})
    started = start(stocked)["bulkOperation"]
    assert started["status"] == "CREATED"
    assert codes(start(stocked)) == ["OPERATION_IN_PROGRESS"]
    done = finished(stocked, started["id"])
    assert (done["status"], done["objectCount"], done["rootObjectCount"]) == ("COMPLETED", "5", "2")
    whole = httpx.get(done["url"])
    assert len(whole.content) == int(done["fileSize"])
    lines = whole.text.splitlines()
    assert ['"__parentId":"gid://shopify/Product/1"' in line for line in lines] == [False, True, True, False, False]
    part = httpx.get(done["url"], headers={"Range": "bytes=40-"})
    assert part.status_code == 206 and part.content == whole.content[40:]
    ungrouped = finished(stocked, start(stocked, grouped=False)["bulkOperation"]["id"])
    assert ["__parentId" in line for line in httpx.get(ungrouped["url"]).text.splitlines()] == [False] * 2 + [True] * 3


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("{ shop { name } }", "at least one connection"),
        ("{ products { edges { node { nmae } } } }", "nmae"),
        ("{ products { edges { node { title variants { edges { node { id } } } } } } }", "must select the 'id' field"),
        ("{ nodes(ids: []) { id } }", "top level"),
        ("{ orders { edges { node { id refunds { refundLineItems { nodes { quantity } } } } } } }", "list field"),
        ("{ collections { edges { node { id products { edges { node { id variants { edges { node { id"
         " metafields { edges { node { id } } } } } } } } } } } } }", "nesting depth"),
    ],
)  # fmt: skip
def test_a_query_that_cannot_run_in_bulk_is_refused(shopify_peer: Peer, query, said):
    refused = start(shopify_peer, query)
    assert refused["bulkOperation"] is None and codes(refused)[0] == "INVALID"
    assert said in refused["userErrors"][0]["message"]


def test_bulk_lines_can_be_put_there_an_operation_cancelled_or_made_to_fail(shopify_peer: Peer, tmp_path):
    file = tmp_path / "products.jsonl"
    file.write_bytes(b'{"id":"gid://shopify/Product/9"}\n' * 1000)
    shopify_peer.settings(bulk={"lines": {"products": {"path": str(file), "count": 1000}}})
    done = finished(shopify_peer, start(shopify_peer)["bulkOperation"]["id"])
    assert done["objectCount"] == "1000" and httpx.get(done["url"]).content == file.read_bytes()
    cancelled = start(shopify_peer)["bulkOperation"]["id"]
    ask = "mutation($id: ID!) { bulkOperationCancel(id: $id) { bulkOperation { status } userErrors { message } } }"
    assert payload(shopify_peer.graphql(ask, {"id": cancelled}))["bulkOperation"]["status"] == "CANCELING"
    assert finished(shopify_peer, cancelled)["status"] == "CANCELED"
    shopify_peer.settings(bulk={"fail": "TIMEOUT"})
    failed = finished(shopify_peer, start(shopify_peer)["bulkOperation"]["id"])
    assert (failed["status"], failed["errorCode"], failed["url"]) == ("FAILED", "TIMEOUT", None)


def test_a_download_can_break_off_and_its_address_run_out(stocked: Peer):
    address = finished(stocked, start(stocked)["bulkOperation"]["id"])["url"]
    stocked.fault("truncate", "/bulk/", bytes=50)
    with pytest.raises(httpx.RemoteProtocolError), httpx.stream("GET", address) as broken:
        assert len(b"".join(broken.iter_bytes())) <= 50
    stocked.fault("expire", "/bulk/")
    assert httpx.get(address).status_code == 400
    assert httpx.get(address).status_code == 200


def exchange(peer: Peer, **given):
    body = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, **given}
    return httpx.post(f"{peer.base_url}/admin/oauth/access_token", json=body)


def test_a_code_works_once_and_a_refresh_token_until_its_replacement_is_used(shopify_peer: Peer):
    shopify_peer.authorize("c0de", ["write_products"])
    assert exchange(shopify_peer, code="c0de", client_secret="no").status_code == 401
    first = exchange(shopify_peer, code="c0de", expiring=1).json()
    assert first["scope"] == "write_products" and first["expires_in"] == 3600
    assert exchange(shopify_peer, code="c0de").status_code == 400
    renew = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    lost = exchange(shopify_peer, **renew).json()
    second = exchange(shopify_peer, **renew).json()  # as when the first answer never came
    assert lost["access_token"] != second["access_token"]
    assert "errors" not in shopify_peer.graphql("{ shop { name } }", token=second["access_token"])
    assert exchange(shopify_peer, **renew).status_code == 400
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        shopify_peer.graphql("{ shop { name } }", token=first["access_token"])
    shopify_peer.settings(now="2126-01-01T00:00:00Z")
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        shopify_peer.graphql("{ shop { name } }", token=second["access_token"])


# --- what goes wrong


def test_faults_happen_before_or_after_the_deed_and_only_as_often_as_asked(stocked: Peer):
    tag = 'mutation Tag($t: [String!]!) { tagsAdd(id: "%s", tags: $t) { userErrors { message } } }' % CUSTOMER  # noqa: UP031
    stocked.fault("drop_before", "Tag")
    with pytest.raises(httpx.HTTPError):
        stocked.graphql(tag, {"t": ["never"]})
    stocked.fault("drop_after", "tagsAdd")
    with pytest.raises(httpx.HTTPError):
        stocked.graphql(tag, {"t": ["done"]})
    stocked.fault("status", "tagsAdd", status=503)
    with pytest.raises(httpx.HTTPStatusError, match="503"):
        stocked.graphql(tag, {"t": ["never"]})
    stocked.fault("throttle", "tagsAdd", times=2)
    for _ in range(2):
        assert stocked.graphql(tag, {"t": ["never"]})["errors"][0]["extensions"]["code"] == "THROTTLED"
    stocked.fault("user_errors", "tagsAdd", errors=[{"field": ["id"], "message": "locked"}])
    assert payload(stocked.graphql(tag, {"t": ["never"]}))["userErrors"] == [{"message": "locked"}]
    assert stocked.get(CUSTOMER)["tags"] == ["done", "new"]
    stocked.fault("revoke", "tagsAdd")
    for _ in range(2):
        with pytest.raises(httpx.HTTPStatusError, match="401"):
            stocked.graphql(tag, {"t": ["never"]})
    calls = stocked.calls("tagsAdd")
    assert [call["status"] for call in calls] == [0, 0, 503, 200, 200, 200, 401, 401]
    assert calls[0]["variables"] == {"t": ["never"]} and calls[0]["operation"] == "Tag"


def test_what_the_peer_does_not_hold_is_mocked_from_the_schema_and_marked(shopify_peer: Peer):
    answer = shopify_peer.graphql(
        'mutation { themeDelete(id: "gid://shopify/OnlineStoreTheme/1") { deletedThemeId userErrors { message } } }'
    )
    assert payload(answer)["userErrors"] == []
    assert shopify_peer.calls("themeDelete")[0]["mocked"] == ["themeDelete"]
    assert shopify_peer.calls("shop") == []


def test_everything_that_is_sent_to_shopify_is_held_and_not_mocked(shopify_peer: Peer):
    """A mock would agree to anything: a test against it could not fail."""
    sent = {}
    for file in sorted(documents.FOLDER.glob("*.graphql")):
        operation = next(one for one in parse(file.read_text("utf-8")).definitions if hasattr(one, "operation"))
        names = (field.name.value for field in operation.selection_set.selections)
        sent[file.stem] = {name for name in names if not name.startswith("__")}
    assert {name: fields - shopify_peer.holds() for name, fields in sent.items() if fields - shopify_peer.holds()} == {}
