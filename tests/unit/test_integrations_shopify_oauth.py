"""Shopify's grant of access: what is signed, asked for and missing; and which webhooks are to be changed."""

from __future__ import annotations

import gzip
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx
import orjson
import pytest
import shopify
from hypothesis import given
from hypothesis import strategies as st

from integrations.shopify import oauth, scopes, subscriptions, tokens
from integrations.shopify.subscriptions import COMPLIANCE, UNNEEDED, Subscription, name_of, plan
from integrations.shopify.tokens import GrantRefused
from integrations.shopify.webhook import TOPICS
from operation_agent.kit.errors import Denied, Rejected, Retryable

pytestmark = pytest.mark.unit

SCHEMA = Path(__file__).parents[2] / "../shared/contracts/shopify/admin_2026-07.graphql.gz"
APP = oauth.App("client", "hush")
NOW = datetime(2026, 7, 1, tzinfo=UTC)

# the example of Shopify's documentation, which its own library is tested with
DOCUMENTED = {
    "shop": "some-shop.myshopify.com",
    "code": "a94a110d86d2452eb3e2af4cfb8a3828",
    "timestamp": "1337178173",
    "hmac": "2cb1a277650a659f1b11e92a4a64275b128e037f2c3390e3c8fd2d8721dac9e2",
}


class TestSignature:
    def test_the_documented_example_is_believed(self):
        assert oauth.is_signed(APP, DOCUMENTED)
        # it has no state, which an address of ours always has; its signature is over the others all the same
        with pytest.raises(Rejected) as caught:
            oauth.read(urlencode(DOCUMENTED))
        assert caught.value.where == "state"

    @pytest.mark.parametrize("name", ["shop", "code", "timestamp", "hmac"])
    def test_a_changed_character_is_not(self, name):
        changed = DOCUMENTED[name][:-1] + ("0" if DOCUMENTED[name][-1] != "0" else "1")
        assert not oauth.is_signed(APP, DOCUMENTED | {name: changed})

    def test_another_secret_is_not_and_no_secret_is_shared(self):
        before = shopify.Session.secret
        assert not oauth.is_signed(oauth.App("client", "other"), DOCUMENTED)
        assert oauth.is_signed(APP, DOCUMENTED)
        assert shopify.Session.secret == before

    @pytest.mark.parametrize("hmac", ["", "é", "\udcff".encode("utf-8", "replace").decode(), "2CB1"])
    def test_what_is_no_signature_is_refused_quietly(self, hmac):
        assert not oauth.is_signed(APP, DOCUMENTED | {"hmac": hmac})

    @given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=6))
    def test_no_query_is_too_odd_to_be_refused(self, parameters):
        with pytest.raises((Rejected, Denied)):
            oauth.check(APP, oauth.read(urlencode({**DOCUMENTED, "state": "s", **parameters})), at=NOW)

    @given(st.text(max_size=200))
    def test_no_text_is_too_odd_either(self, query):
        with pytest.raises(Rejected):
            oauth.read(query)


class TestAddress:
    def test_it_asks_for_what_is_needed_and_comes_back_to_us(self):
        url = oauth.permission_url(
            APP, "some-shop.myshopify.com", redirect_uri="https://a.example/cb", state="s&1", asked=["write_orders"]
        )
        parts, query = urlsplit(url), parse_qs(urlsplit(url).query)
        assert (parts.scheme, parts.netloc, parts.path) == (
            "https", "some-shop.myshopify.com", "/admin/oauth/authorize"
        )  # fmt: skip
        assert query == {
            "client_id": ["client"], "scope": ["write_orders"], "redirect_uri": ["https://a.example/cb"],
            "state": ["s&1"],
        }  # fmt: skip
        assert "hush" not in url
        moved = oauth.moved_to(url, "http://127.0.0.1:99")
        assert (urlsplit(moved).netloc, dict(parse_qsl(urlsplit(moved).query))["state"]) == ("127.0.0.1:99", "s&1")

    @pytest.mark.parametrize(
        "entered", ["some-shop", "https://Some-Shop.myshopify.com/admin", " some-shop.myshopify.com "]
    )
    def test_a_shop_may_be_named_as_people_do(self, entered):
        assert oauth.domain_of(entered) == "some-shop.myshopify.com"

    @pytest.mark.parametrize(
        "entered",
        ["", "-a", "a.b.myshopify.com", "shop.example", "x.myshopify.com.evil.example", "evil.example#.myshopify.com",
         "evil@x.myshopify.com", "x.myshopify.com:8443", "évil", "a\n.myshopify.com", "a" * 200],
    )  # fmt: skip
    def test_tokens_go_to_shopify_only(self, entered):
        with pytest.raises(Rejected):
            oauth.domain_of(entered)


class TestTokens:
    def answer(self, status: int = 200, **body: object) -> httpx.Response:
        return httpx.Response(status, content=orjson.dumps(body))

    def test_a_pair_with_its_end(self):
        made = tokens.read(
            self.answer(access_token="shpat_1", scope="b, a", expires_in=3600, refresh_token="shprt_1"), NOW
        )  # fmt: skip
        assert (made.access_token, made.refresh_token, made.scopes) == ("shpat_1", "shprt_1", ("a", "b"))
        assert made.expires_at == NOW + timedelta(hours=1)
        assert made.renew_at == NOW + timedelta(minutes=50)
        assert "_1" not in repr(made)

    def test_one_that_stays(self):
        made = tokens.read(self.answer(access_token="a", scope=""), NOW)
        assert (made.expires_at, made.refresh_token, made.renew_at) == (None, None, None)

    @pytest.mark.parametrize("seconds", [None, "3600", 0, -5, True, 1e300])
    def test_one_to_be_renewed_ends_whether_the_answer_says_when_or_not(self, seconds):
        made = tokens.read(self.answer(access_token="a", refresh_token="r", expires_in=seconds), NOW)
        assert made.expires_at == NOW + tokens.LIFE

    def test_no_secret_is_repeated_in_what_is_told(self):
        for status in (200, 400, 401, 500):
            with pytest.raises((GrantRefused, Rejected, Retryable)) as caught:
                tokens.read(self.answer(status, access_tokens="shpat_1", error="invalid_request"), NOW)
            assert "shpat_1" not in caught.value.detail

    @pytest.mark.parametrize(
        ("status", "kind"),
        [(400, GrantRefused), (401, GrantRefused), (302, GrantRefused), (429, Retryable), (502, Retryable)],
    )  # fmt: skip
    def test_what_may_pass_is_told_from_what_does_not(self, status, kind):
        with pytest.raises(kind):
            tokens.read(httpx.Response(status, content=b"<html>"), NOW)


class TestScopes:
    def test_writing_implies_reading_and_strange_names_do_no_harm(self):
        held = ["write_orders", "customer_read_orders", "unauthenticated_read_product_listings"]
        assert scopes.lacking(held, ["read_orders", "write_orders", "read_products"]) == ["read_products"]
        assert scopes.lacking(["read_orders"], ["write_orders"]) == ["write_orders"]
        assert scopes.lacking([], []) == []

    def test_everything_asked_for_leaves_only_what_is_optional(self):
        assert scopes.lacking_by_feature(scopes.requested()) == {"all_orders": ["read_all_orders"]}
        assert scopes.lacking_by_feature(scopes.requested(optional=True)) == {}
        assert scopes.lacking_by_feature(scopes.requested(), optional=False) == {}

    def test_every_change_we_offer_is_covered(self):
        from operation_agent.storefront.kinds import KINDS

        needed = {scope for kind in KINDS.values() for scope in kind.scopes.get("shopify", ())}
        assert needed
        assert scopes.lacking(scopes.requested(), needed) == []

    @pytest.mark.skipif(not SCHEMA.exists(), reason="the Admin API schema is not here (shared/contracts/shopify)")
    def test_topics_take_the_scopes_that_the_schema_documents(self):
        documented = _documented_topics()
        subscribed = set(TOPICS) - {*COMPLIANCE, *UNNEEDED}
        assert {name_of(topic) for topic in subscribed} <= documented.keys()
        assert not {name_of(topic) for topic in COMPLIANCE} & documented.keys()
        for topic in subscribed:
            any_of = documented[name_of(topic)]
            needed = scopes.of_topic(topic)
            assert (needed in any_of) if any_of else needed is None, topic


def _documented_topics() -> dict[str, list[str]]:
    """WebhookSubscriptionTopic -> the scopes of which it takes one."""
    text = gzip.decompress(SCHEMA.read_bytes()).decode()
    block = text[text.index("enum WebhookSubscriptionTopic {") :]
    block = block[: block.index("\n}")]
    found = {}
    for said, name in re.findall(r'"""(.*?)"""\s+([A-Z_]+)', block, re.DOTALL):
        needed = re.search(r"Requires (.*)$", " ".join(said.split()))
        found[name] = re.findall(r"\b(?:read|write)_[a-z_]+", needed[1]) if needed else []
    return found


HERE, BEFORE, OTHERS = "https://now.example/w", "https://before.example/w", "https://others.example/w"
WANTED = ("orders/create", "orders/paid", "products/update")
NAMES = [*map(name_of, WANTED), "THEMES_UPDATE"]

found_subscriptions = st.lists(
    st.builds(
        Subscription,
        id=st.just(""),
        topic=st.sampled_from(NAMES),
        uri=st.sampled_from([HERE, BEFORE, OTHERS]),
        format=st.sampled_from(["JSON", "XML"]),
        filter=st.sampled_from([None, "", "id:1"]),
        include_fields=st.sampled_from([(), ("id",)]),
    ),
    max_size=12,
).map(lambda every: [_numbered(one, number) for number, one in enumerate(every, 1)])


def _numbered(one: Subscription, number: int) -> Subscription:
    return Subscription(
        f"gid://shopify/WebhookSubscription/{number}", one.topic, one.uri, one.format, one.filter, one.include_fields
    )


def _carry_out(todo: subscriptions.Plan, found: list[Subscription], *, steps: int | None = None) -> list[Subscription]:
    """What the shop has after the first `steps` of a plan, in the order of `repair`."""
    by_id, done = {one.id: one for one in found}, 0
    for kind, these in (("repair", todo.repair), ("create", todo.create), ("remove", todo.remove)):
        for one in these:
            if steps is not None and done >= steps:
                return list(by_id.values())
            done += 1
            if kind == "create":
                new_id = f"gid://shopify/WebhookSubscription/{1000 + len(found) * 100 + done}"
                by_id[new_id] = Subscription(new_id, name_of(one), HERE)
            elif kind == "repair":
                by_id[one.id] = Subscription(one.id, one.topic, HERE)
            else:
                del by_id[one.id]
    return list(by_id.values())


class TestSubscriptions:
    @given(found_subscriptions, st.integers(0, 12))
    def test_whatever_was_there_and_wherever_it_was_cut_off_it_ends_as_wanted(self, found, cut):
        ours = {BEFORE}
        half = _carry_out(plan(WANTED, found, address=HERE, ours=ours), found, steps=cut)
        end = _carry_out(plan(WANTED, half, address=HERE, ours=ours), half)
        mine = [one for one in end if one.uri in {HERE, BEFORE}]
        assert sorted(one.topic for one in mine) == sorted(map(name_of, WANTED))
        assert all(one.uri == HERE and one.says_all() for one in mine)
        assert [one for one in end if one.uri == OTHERS] == [one for one in found if one.uri == OTHERS]
        again = plan(WANTED, end, address=HERE, ours=ours)
        assert again == subscriptions.Plan()

    @given(found_subscriptions)
    def test_what_is_right_is_not_touched(self, found):
        todo = plan(WANTED, found, address=HERE, ours={BEFORE})
        for topic in WANTED:
            right = [one for one in found if one.topic == name_of(topic) and one.uri == HERE and one.says_all()]
            if right:
                assert topic not in todo.create
                assert not [one for one in todo.repair if one.topic == name_of(topic)]
                assert len([one for one in right if one not in todo.remove]) == 1

    @pytest.mark.parametrize("url", [None, "", "http://a.example", "https://localhost", "https://box", "ftp://a.example",
                                     "https://shop.internal"])  # fmt: skip
    def test_shopify_delivers_to_a_public_https_address_only(self, url):
        with pytest.raises(Rejected, match="OPAGENT_PUBLIC_URL"):
            subscriptions.address_of(url, "tea")

    def test_an_address_below_a_path_is_kept(self):
        assert subscriptions.address_of("https://a.example/x/", "tea") == "https://a.example/x/webhooks/shopify/tea"
