"""Whose event is it: links, merges and their limits, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.customers.linking import Linker
from operation_agent.events.event import Event
from operation_agent.kit.ids import digest_id, new_id

pytestmark = pytest.mark.unit

START = datetime(2026, 1, 1, tzinfo=UTC)


def event(minute: int, type: str = "page.viewed", properties: dict | None = None, **identity: str) -> Event:
    at = START + timedelta(minutes=minute)
    return Event(new_id(), "test", f"{minute}", type, at, at, identity, properties or {})


def owners(*events: Event) -> tuple[Linker, list]:
    linker = Linker("seed", {})
    people = [linker.take(one) for one in events]
    return linker, [person.root() if person else None for person in people]


def test_an_event_without_identity_is_a_guests():
    assert owners(event(1))[1] == [None]


def test_a_visitor_who_logs_in_keeps_what_they_did_before():
    _, (before, after, later) = owners(
        event(1, anonymous="a"), event(2, anonymous="a", external="7"), event(3, external="7")
    )
    assert before is after is later


def test_the_random_key_is_of_the_first_identity_of_the_first_event():
    _, (person, _) = owners(event(1, email="m@x.com", anonymous="a"), event(2, email="m@x.com", external="7"))
    assert person.random_key == digest_id("seed", "email", "m@x.com")


def test_a_shared_mailbox_does_not_make_two_accounts_one():
    _, (first, second, mail) = owners(
        event(1, external="1", email="family@x.com"),
        event(2, external="2", email="family@x.com"),
        event(3, email="family@x.com"),
    )
    assert first is not second
    assert mail is first


def test_a_shared_device_does_not_make_two_accounts_one():
    _, (first, second, later) = owners(
        event(1, external="1", anonymous="till"),
        event(2, external="2", anonymous="till"),
        event(3, external="2", anonymous="till"),
    )
    assert first is not second
    assert later is second


def test_two_shopify_customers_are_not_one_by_a_shared_phone_but_by_an_external_id():
    _, (one, two) = owners(event(1, shopify="1", phone="+861"), event(2, shopify="2", phone="+861"))
    assert one is not two
    _, (*_, joined) = owners(
        event(1, shopify="1"), event(2, shopify="2", external="7"), event(3, shopify="1", external="7")
    )
    assert joined.has_external


def test_an_alias_joins_two_accounts_whichever_comes_first():
    alias = event(2, "customer.aliased", external="new", previous="old")
    for order in ([event(1, external="old"), alias], [alias, event(1, external="old")]):
        _, people = owners(*order, event(5, external="new"))
        assert len(set(map(id, people))) == 1


def test_an_alias_of_two_devices_joins_a_visitor_with_a_customer_and_never_two_customers():
    alias = event(3, "customer.aliased", anonymous="visitor", previous="cart:1")
    bought = event(2, "order.paid", shopify="1", anonymous="cart:1")
    for order in ([bought, alias], [alias, bought]):
        linker, people = owners(*order, event(5, anonymous="visitor"), event(6, anonymous="cart:1"))
        assert len(set(map(id, people))) == 1
        assert not people[0].has_external and ("external", "cart:1") not in linker.owners
    other = event(1, shopify="2", anonymous="visitor")
    for order in ([other, bought, alias], [alias, other, bought], [bought, alias, other]):
        linker, _ = owners(*order)
        assert linker.owners["shopify", "1"].root() is not linker.owners["shopify", "2"].root()


def test_a_shop_that_joins_two_of_its_customers_says_so_with_its_own_ids():
    merged = event(2, "customer.aliased", shopify="1", previous="2")
    for order in ([event(1, shopify="2"), merged], [merged, event(1, shopify="2")]):
        linker, people = owners(*order, event(5, shopify="1"))
        assert len(set(map(id, people))) == 1
        assert set(linker.owners) == {("shopify", "1"), ("shopify", "2")}


def test_the_customer_seen_first_survives_whatever_was_processed_first():
    early, late, joining = event(1, anonymous="a"), event(5, email="m@x.com"), event(9, anonymous="a", email="m@x.com")
    keys = {owners(*order, joining)[1][-1].random_key for order in ((early, late), (late, early))}
    assert keys == {digest_id("seed", "anonymous", "a")}


def test_a_providers_event_never_makes_a_customer():
    linker, people = owners(event(1, "email.bounced", {"address": "m@x.com"}, email="m@x.com"))
    assert people == [None]
    assert not linker.links
    _, (buyer, opened) = owners(event(1, email="m@x.com"), event(2, "email.opened", {"address": "m@x.com"}))
    assert opened is buyer


IDENTITIES = st.fixed_dictionaries(
    {},
    optional={
        "external": st.sampled_from("12"), "shopify": st.sampled_from("34"), "email": st.sampled_from("ef"),
        "phone": st.sampled_from("pq"), "anonymous": st.sampled_from("xyz"),
    },
)  # fmt: skip


@given(st.lists(IDENTITIES, max_size=25))
def test_no_customer_gets_two_external_ids_without_an_alias(batch):
    linker, _ = owners(*(event(minute, **identity) for minute, identity in enumerate(batch)))
    external = [person.root() for (kind, _), (person, _) in linker.links.items() if kind == "external"]
    assert len(external) == len({id(person) for person in external})


@given(st.lists(IDENTITIES, max_size=25), st.integers(0, 25))
def test_two_batches_give_the_same_customers_as_one(batch, cut):
    events = [event(minute, **identity) for minute, identity in enumerate(batch)]
    _, whole = owners(*events)
    linker = Linker("seed", {})
    parts = [linker.take(one) for one in events[:cut]]
    second = Linker("seed", {identity: person.root() for identity, (person, _) in linker.links.items()})
    parts += [second.take(one) for one in events[cut:]]
    keys = [person and person.root().random_key for person in parts]
    assert keys == [person and person.random_key for person in whole]


def test_shopify_says_that_one_of_its_customers_was_merged_into_another():
    merged = event(2, "customer.aliased", shopify="1", previous="2")
    for order in ([event(1, shopify="2", email="m@x.com"), merged], [merged, event(1, shopify="2", email="m@x.com")]):
        _, people = owners(event(0, shopify="1"), *order, event(5, shopify="2"), event(6, email="m@x.com"))
        assert len(set(map(id, people))) == 1
    _, (one, again) = owners(event(1, shopify="1"), event(2, "customer.aliased", shopify="1", previous="1"))
    assert one is again
