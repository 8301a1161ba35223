"""What is looked at once a shop is connected: scopes, webhooks, problems; and that a revoked token loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import text

from cli import doctor
from integrations.shopify.subscriptions import COMPLIANCE, UNNEEDED, name_of
from integrations.shopify.webhook import TOPICS
from operation_agent import agent
from operation_agent.access.keys import create_key
from operation_agent.actions import wakeups
from operation_agent.events.event import Event
from operation_agent.kit.clock import SYSTEM, FixedClock
from operation_agent.kit.ids import new_id
from operation_agent.kit.secrets import Vault, secret_key
from operation_agent.kit.settings import settings
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from operation_agent.storefront import connection
from tests.integration.sending import stage
from tests.shopify_peer.peer import CLIENT_SECRET, TOKEN, Peer, peer, why_not
from workers import connecting, delivery

pytestmark = [pytest.mark.integration, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

PUBLIC = "https://agent.example"
SCOPES = [
    "write_orders", "read_fulfillments", "write_customers", "write_products", "read_inventory", "read_locations",
    "write_discounts", "write_draft_orders", "write_online_store_pages", "write_publications", "write_metaobjects",
    "write_metaobject_definitions", "read_customer_merge",
]  # fmt: skip
WANTED = sorted(set(TOPICS) - {*COMPLIANCE, *UNNEEDED})


@pytest.fixture(scope="module")
def running() -> Iterator[Peer]:
    with peer() as found:
        yield found


@pytest.fixture
def shopify(running: Peer) -> Peer:
    running.reset()
    running.grant(scopes=SCOPES)
    return running


@pytest.fixture(autouse=True)
def _public(monkeypatch) -> Iterator[None]:
    _reached_at(monkeypatch, PUBLIC)
    yield
    settings.cache_clear()


@pytest.fixture(autouse=True, scope="module")
def _hang_up() -> Iterator[None]:
    yield
    for one in delivery.senders().kept.values():
        one.channel.close()
    delivery.senders().kept.clear()


def _reached_at(monkeypatch, url: str) -> None:
    monkeypatch.setenv("OPAGENT_PUBLIC_URL", url)
    settings.cache_clear()


@pytest.fixture
def key(engine, shop_id) -> dict[str, str]:
    with for_shop(engine, shop_id) as session:
        token, _ = create_key(session, shop_id, "test", ["*"], SYSTEM.now())
    return {"Authorization": f"Bearer {token}"}


def enter(client, key, shopify: Peer, token: str = TOKEN, **changes: Any) -> dict[str, Any]:
    body = {"base_url": shopify.base_url, "secrets": {"access_token": token, "webhook_secret": "s"}, **changes}
    answer = client.put("/api/integrations/shopify", json=body, headers=key)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
def connected(client, key, shopify) -> dict[str, Any]:
    return enter(client, key, shopify)


def shown(client, key) -> dict[str, Any]:
    return client.get("/api/integrations/shopify", headers=key).json()


def row(engine, shop_id) -> Any:
    with for_shop(engine, shop_id) as session:
        return session.execute(text("SELECT * FROM integrations WHERE shop_id = :shop"), {"shop": shop_id}).one()


def verbs(engine, shop_id) -> list[str]:
    with for_shop(engine, shop_id) as session:
        found = session.execute(
            text("SELECT verb FROM audit_log WHERE shop_id = :shop AND verb LIKE 'integration.%' ORDER BY seq"),
            {"shop": shop_id},
        )
        return list(found.scalars())


def check(engine, shop_id) -> Any:
    """As the sweep has it done when somebody asked."""
    with for_shop(engine, shop_id) as session:
        connection.ask_check(session, shop_id, "shopify", at=SYSTEM.now())
    return connecting.check(engine, shop_id, "shopify")


def rung(engine, shop_id) -> set[tuple[str, str]]:
    with for_shop(engine, shop_id) as session:
        found = session.execute(text("SELECT topic, key FROM outbox WHERE shop_id = :shop"), {"shop": shop_id})
        return {(one.topic, one.key) for one in found}


def forget_rings(engine, shop_id) -> None:
    with for_shop(engine, shop_id) as session:
        session.execute(text("DELETE FROM outbox WHERE shop_id = :shop"), {"shop": shop_id})


def address(engine, shop_id: UUID, public: str = PUBLIC) -> str:
    with for_shop(engine, shop_id) as session:
        return f"{public}/webhooks/shopify/{load_shop(session, shop_id).slug}"


def mutations(shopify: Peer) -> int:
    return len([one for one in shopify.calls() if any("webhookSubscription" in name and name[-1] == "e"
                                                      for name in one.get("fields", []))])  # fmt: skip


# -- scopes -------------------------------------------------------------------------------------------------------


def test_what_is_granted_is_kept_and_what_is_missing_is_named(client, engine, shop_id, key, shopify, connected):
    shopify.grant(scopes=["write_orders", "write_discounts", "read_products"])
    check(engine, shop_id)
    found = shown(client, key)
    assert "read_orders" in found["scopes"]
    assert found["lacking_scopes"]["products"] == ["write_products"]
    assert found["lacking_scopes"]["customers"] == ["write_customers"]
    assert found["lacking_scopes"]["all_orders"] == ["read_all_orders"]
    assert "discounts" not in found["lacking_scopes"]
    assert found["problem"] is None  # nothing that runs needs them
    assert found["checked_at"] is not None
    assert found["webhooks"]["lacking_scope"]["customers/update"] == "read_customers"
    assert found["webhooks"]["refused"] == []


def test_a_scope_that_actions_wait_for_is_a_problem_until_it_is_granted(client, engine, shop_id, key, shopify):
    shopify.grant(scopes=["write_orders"])
    enter(client, key, shopify)
    scene = stage(engine, shop_id)
    scene.action(scene.customer(), type="coupon")
    check(engine, shop_id)
    found = shown(client, key)
    assert found["problem"] == "scopes"
    assert "write_discounts" in found["problem_detail"]
    assert "权限" in found["advice"]["zh"]
    check(engine, shop_id)
    assert shown(client, key)["problem"] == "scopes"
    shopify.grant(scopes=SCOPES)
    check(engine, shop_id)
    assert shown(client, key)["problem"] is None
    assert verbs(engine, shop_id).count("integration.stopped") == 1


# -- webhooks -----------------------------------------------------------------------------------------------------


def subscriptions(shopify: Peer) -> list[dict[str, Any]]:
    return shopify.all("WebhookSubscription")


def test_webhooks_of_every_topic_we_read_are_created_once(client, engine, shop_id, key, shopify, connected):
    report = check(engine, shop_id)
    assert report.created == WANTED
    assert report.refused == []
    assert report.not_in_version == []
    here = address(engine, shop_id)
    assert {one["topic"] for one in subscriptions(shopify)} == {name_of(topic) for topic in WANTED}
    assert {one["uri"] for one in subscriptions(shopify)} == {here}
    told = shown(client, key)["webhooks"]
    assert told["created"] == WANTED
    assert told["compliance"] == list(COMPLIANCE)
    assert told["address"] == here
    before, calls = subscriptions(shopify), mutations(shopify)
    again = check(engine, shop_id)
    assert not again.has_news
    assert (subscriptions(shopify), mutations(shopify)) == (before, calls)
    assert verbs(engine, shop_id).count("integration.webhooks_repaired") == 1


def test_wrong_webhooks_are_repaired_and_those_of_others_left_alone(client, engine, shop_id, key, shopify, connected):
    check(engine, shop_id)
    here = address(engine, shop_id)
    mine = {one["topic"]: one for one in subscriptions(shopify)}
    shopify.put(
        WebhookSubscription=[
            {"id": mine["ORDERS_CREATE"]["id"], "filter": "total_price:>=100"},
            {"id": mine["ORDERS_PAID"]["id"], "includeFields": ["id"]},
            {"id": mine["ORDERS_UPDATED"]["id"], "format": "XML"},
            # the same topic twice, to the same place, and a topic of which nothing is wanted
            {"id": 9001, "topic": "PRODUCTS_UPDATE", "uri": here, "format": "JSON", "filter": "id:1",
             "includeFields": [], "metafieldNamespaces": [], "apiVersion": mine["ORDERS_PAID"]["apiVersion"]},
            {"id": 9002, "topic": "THEMES_UPDATE", "uri": here, "format": "JSON", "filter": None,
             "includeFields": [], "metafieldNamespaces": [], "apiVersion": mine["ORDERS_PAID"]["apiVersion"]},
            # somebody else's
            {"id": 9003, "topic": "ORDERS_PAID", "uri": "https://other.example/hook", "format": "XML", "filter": None,
             "includeFields": [], "metafieldNamespaces": [], "apiVersion": mine["ORDERS_PAID"]["apiVersion"]},
            {"id": 9004, "topic": "THEMES_UPDATE", "uri": "pubsub://p:t", "format": "JSON", "filter": None,
             "includeFields": [], "metafieldNamespaces": [], "apiVersion": mine["ORDERS_PAID"]["apiVersion"]},
        ]
    )  # fmt: skip
    report = check(engine, shop_id)
    assert sorted(report.repaired) == ["orders/create", "orders/paid", "orders/updated"]
    assert sorted(report.removed) == ["THEMES_UPDATE", "products/update"]
    assert report.created == []
    kept = {one["id"].rsplit("/", 1)[-1]: one for one in subscriptions(shopify)}
    assert {"9003", "9004"} <= kept.keys()
    assert not {"9001", "9002"} & kept.keys()
    for one in kept.values():
        if one["uri"] == here:
            assert (one["format"], one["filter"] or None, one["includeFields"]) == ("JSON", None, [])
    assert not check(engine, shop_id).has_news


def test_webhooks_follow_us_to_a_new_address(client, engine, shop_id, key, shopify, connected, monkeypatch):
    check(engine, shop_id)
    ids = {one["id"] for one in subscriptions(shopify)}
    _reached_at(monkeypatch, "https://moved.example/base/")
    report = check(engine, shop_id)
    assert sorted(report.repaired) == WANTED
    assert (report.created, report.removed) == ([], [])
    assert {one["id"] for one in subscriptions(shopify)} == ids
    assert {one["uri"] for one in subscriptions(shopify)} == {address(engine, shop_id, "https://moved.example/base")}


@pytest.mark.parametrize("public", ["http://agent.example", "https://localhost:8000", "https://box", ""])
def test_without_an_address_that_shopify_reaches_it_says_so(
    client, engine, shop_id, key, shopify, connected, monkeypatch, public
):
    _reached_at(monkeypatch, public)
    check(engine, shop_id)
    told = shown(client, key)
    assert "OPAGENT_PUBLIC_URL" in told["webhooks"]["problem"]
    assert told["scopes"]
    assert mutations(shopify) == 0


@pytest.mark.parametrize("fault", ["drop_before", "drop_after", "throttle"])
def test_a_check_that_was_cut_off_is_completed_by_the_next(client, engine, shop_id, key, shopify, connected, fault):
    shopify.fault(fault, "webhookSubscriptionCreate", skip=7)
    first = check(engine, shop_id)
    assert len(first.created) in (7, len(WANTED))
    if first.interrupted:
        assert row(engine, shop_id).check_at < SYSTEM.now() + timedelta(minutes=3)
        second = check(engine, shop_id)
        assert second.interrupted is None
    assert sorted(one["topic"] for one in subscriptions(shopify)) == sorted(name_of(topic) for topic in WANTED)


def test_what_the_shop_refuses_of_one_topic_is_told_and_the_rest_done(
    client, engine, shop_id, key, shopify, connected
):  # fmt: skip
    why = [{"field": ["topic"], "message": "This app is not approved to subscribe to it."}]
    shopify.fault("user_errors", "webhookSubscriptionCreate", errors=why)
    report = check(engine, shop_id)
    assert len(report.refused) == 1
    assert "not approved" in report.refused[0]["why"]
    assert len(report.created) == len(WANTED) - 1
    assert shown(client, key)["webhooks"]["refused"] == report.refused


def test_checking_is_asked_for_over_the_api_and_every_night(client, engine, shop_id, key, shopify, connected):
    assert (connection.CHECK, "shopify") in rung(engine, shop_id)
    assert connecting.check(engine, shop_id, "shopify") is not None
    night = row(engine, shop_id).check_at
    assert timedelta(0) < night - SYSTEM.now() <= timedelta(hours=24)
    assert connecting.check(engine, shop_id, "shopify") is None  # nobody asked
    assert client.post("/api/integrations/shopify/check", headers=key).status_code == 202
    assert connecting.check(engine, shop_id, "shopify") is not None
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        wakeups.ring_due(session, shop, at=night + timedelta(seconds=1))
    assert (connection.CHECK, "shopify") in rung(engine, shop_id)
    enter(client, key, shopify, enabled=False)
    assert client.post("/api/integrations/shopify/check", headers=key).status_code == 409


def test_an_api_version_of_the_past_is_told(client, engine, shop_id, key, shopify, connected):
    shopify.put(App={"id": 1, "webhookApiVersion": "2025-10"})
    check(engine, shop_id)
    told = shown(client, key)["webhooks"]
    assert (told["api_version"], told["served_version"], told["webhook_version"]) == ("2026-07", "2026-07", "2025-10")
    (found,) = [one for one in doctor._integrations(engine) if one.found.startswith(told["address"].split("/")[-1])]
    assert (found.level, "2025-10" in found.found) == ("warn", True)


# -- problems -----------------------------------------------------------------------------------------------------


def deliver(engine, shop_id) -> int:
    return delivery.deliver(engine, shop_id, "coupon")


def test_a_revoked_token_stops_what_goes_out_and_nothing_is_lost_or_doubled(
    client, engine, shop_id, key, shopify, connected
):
    connecting.check(engine, shop_id, "shopify")
    scene = stage(engine, shop_id)
    for _ in range(60):
        scene.action(scene.customer(), type="coupon")
    shopify.fault("revoke", "discountCodeBasicCreate", skip=20)

    deliver(engine, shop_id)
    assert scene.states() == {"sent": 20, "ready": 40}
    told = shown(client, key)
    assert told["problem"] == "unauthorized"
    assert "401" in told["problem_detail"]
    assert told["problem_at"] is not None
    assert "token" in told["advice"]["en"]
    assert verbs(engine, shop_id).count("integration.stopped") == 1
    (found,) = [one for one in doctor._integrations(engine) if "is stopped" in one.found]
    assert (found.level, "401" in found.found) == ("fail", True)
    exposed = client.get("/metrics", headers=key).text
    with for_shop(engine, shop_id) as session:
        slug = load_shop(session, shop_id).slug
    assert f'opagent_integration_problem{{problem="unauthorized",shop="{slug}",vendor="shopify"}} 1.0' in exposed

    # while it lasts nobody claims, and the sweep does not ring for them
    calls = len(shopify.calls())
    forget_rings(engine, shop_id)
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        wakeups.ring_due(session, shop, at=SYSTEM.now() + timedelta(minutes=10))
    assert deliver(engine, shop_id) == 0
    assert len(shopify.calls()) == calls
    assert ("actions.deliver", "coupon") not in rung(engine, shop_id)
    assert scene.states() == {"sent": 20, "ready": 40}

    shopify.grant("shpat_new", scopes=SCOPES)
    enter(client, key, shopify, "shpat_new")
    assert shown(client, key)["problem"] is None
    assert ("actions.deliver", "coupon") in rung(engine, shop_id)
    while deliver(engine, shop_id):
        pass
    assert scene.states() == {"sent": 60}
    wanted = {one.code for one in scene.run("SELECT code FROM coupons WHERE shop_id = :shop")}
    made = [code["code"] for node in shopify.all("DiscountCodeNode") for code in node["discount"]["codes"]]
    assert (len(made), set(made)) == (60, wanted)
    assert verbs(engine, shop_id).count("integration.recovered") == 1


def uninstalled(shopify: Peer) -> Event:
    return Event(
        id=new_id(), source="shopify", source_id=f"app.uninstalled:1@{new_id().hex}", type="app.uninstalled",
        occurred_at=SYSTEM.now(), received_at=SYSTEM.now(), identity={}, properties={"vendor": "shopify"},
    )  # fmt: skip


def observe(engine, shop_id, *events: Event) -> None:
    with for_shop(engine, shop_id) as session:
        agent.observe(session, load_shop(session, shop_id), events, recorded_at=SYSTEM.now())


def test_an_uninstalled_app_forgets_its_token_and_keeps_its_data(client, engine, shop_id, key, shopify):
    enter(client, key, shopify, secrets={"access_token": TOKEN, "client_id": "c", "client_secret": CLIENT_SECRET})
    shopify.uninstall()
    observe(engine, shop_id, uninstalled(shopify), uninstalled(shopify))
    assert shown(client, key)["problem"] == "uninstalled"
    assert (connection.CHECK, "shopify") in rung(engine, shop_id)
    assert deliver(engine, shop_id) == 0
    connecting.check(engine, shop_id, "shopify")
    found = row(engine, shop_id)
    kept = orjson.loads(Vault(secret_key(settings())).open(bytes(found.secrets)))
    assert "access_token" not in kept
    assert kept["webhook_secret"] == CLIENT_SECRET  # so that shop/redact can still be believed
    assert (found.problem, found.check_at, found.renew_at) == ("uninstalled", None, None)
    assert verbs(engine, shop_id)[-2:] == ["integration.stopped", "integration.token_forgotten"]
    shopify.grant("shpat_again", scopes=SCOPES)
    enter(client, key, shopify, "shpat_again")
    assert shown(client, key)["problem"] is None


def test_a_late_word_of_an_uninstallation_is_not_believed(client, engine, shop_id, key, shopify, connected):
    observe(engine, shop_id, uninstalled(shopify))
    assert row(engine, shop_id).problem == "uninstalled"
    assert connecting.check(engine, shop_id, "shopify") is not None
    assert row(engine, shop_id).problem is None
    assert "access_token" in shown(client, key)["secrets"]


def test_changed_scopes_are_looked_at(client, engine, shop_id, key, shopify, connected):
    connecting.check(engine, shop_id, "shopify")
    forget_rings(engine, shop_id)
    event = uninstalled(shopify)
    changed = Event(**{name: getattr(event, name) for name in event.__slots__} | {"type": "app.scopes_changed"})
    observe(engine, shop_id, changed)
    assert (connection.CHECK, "shopify") in rung(engine, shop_id)
    assert row(engine, shop_id).check_at <= SYSTEM.now()


def test_a_frozen_shop_is_asked_again_and_goes_on_by_itself(client, engine, shop_id, key, shopify, connected):
    shopify.fault("status", "CurrentAppInstallation", times=None, status=402, body={"errors": "Payment Required"})
    check(engine, shop_id)
    found = row(engine, shop_id)
    assert found.problem == "unavailable"
    assert timedelta(minutes=5) < found.check_at - SYSTEM.now() < timedelta(minutes=15)
    shopify.reset()
    shopify.grant(scopes=SCOPES)
    assert connecting.check(engine, shop_id, "shopify", clock=FixedClock(found.check_at)) is not None
    assert row(engine, shop_id).problem is None


def test_what_was_put_off_is_due_again_once_connected(client, engine, shop_id, key, shopify, connected):
    later = SYSTEM.now() + timedelta(hours=1)
    with for_shop(engine, shop_id) as session:
        values = {"shop": shop_id, "at": SYSTEM.now(), "later": later}
        for number, code in enumerate(["unauthorized", "throttled"]):
            session.execute(
                text(
                    "INSERT INTO shop_changes (shop_id, id, vendor, kind, subject, parameters, state, reason_code,"
                    " retry_at, actor, asked_at, updated_at) VALUES (:shop, :id, 'shopify', 'customer.tags', :id, '{}',"
                    " 'applying', :code, :later, 'test', :at, :at)"
                ),
                values | {"id": new_id(), "code": code},
            )
            session.execute(
                text(
                    "INSERT INTO storefront_syncs (shop_id, id, vendor, kind, mode, state, error_code, wake_at, actor,"
                    " asked_at, updated_at) VALUES (:shop, :id, 'shopify', :kind, 'first', 'asked', :code, :later,"
                    " 'test', :at, :at)"
                ),
                values | {"id": new_id(), "code": code, "kind": ["orders", "products"][number]},
            )
        connection.note_problem(session, load_shop(session, shop_id), "shopify", "unauthorized", "no", at=SYSTEM.now())
    shopify.grant("shpat_new", scopes=SCOPES)
    enter(client, key, shopify, "shpat_new")
    with for_shop(engine, shop_id) as session:
        due = session.execute(
            text("SELECT reason_code, retry_at FROM shop_changes WHERE shop_id = :shop"
                 " UNION ALL SELECT error_code, wake_at FROM storefront_syncs WHERE shop_id = :shop"),
            {"shop": shop_id},
        ).all()  # fmt: skip
    assert len(due) == 4
    assert all((when < later) == (code == "unauthorized") for code, when in due)


def test_a_stronger_problem_is_not_hidden_by_a_weaker_one(engine, shop_id, client, key, shopify, connected):
    with for_shop(engine, shop_id) as session:
        shop, at = load_shop(session, shop_id), SYSTEM.now()
        assert connection.note_problem(session, shop, "shopify", "unauthorized", "no", at=at)
        assert not connection.note_problem(session, shop, "shopify", "unavailable", "no", at=at)
        assert not connection.note_problem(session, shop, "shopify", "unauthorized", "again", at=at)
        assert connection.note_problem(session, shop, "shopify", "uninstalled", "no", at=at)
        assert not connection.clear(session, shop, "shopify", at=at, kinds=("unauthorized",))
        assert connection.problem_of(session, shop_id, "shopify") == "uninstalled"
