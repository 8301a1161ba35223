"""The fake providers over real HTTP, and whole simulated days against an agent that goes away now and then."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from integrations.sendgrid import webhook as sendgrid_webhook
from integrations.sendgrid.channel import SendGridChannel, SendGridConfig
from integrations.shopify import webhook as shopify_webhook
from integrations.shopify.channel import ShopifyChannel, ShopifyConfig
from operation_agent.actions.channel import Delivery, NotSent, Sent, Unknown
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import digest_id, new_id, uniform
from simulator.agent_client import Access, Agent
from simulator.customers import History, draw
from simulator.http_server import Reply, Request, Server
from simulator.providers import Fault, Providers
from simulator.run import Mailboxes, Run

pytestmark = pytest.mark.integration


@pytest.fixture
def providers():
    return Providers()


@pytest.fixture
def server(providers):
    with Server(providers.handle) as server:
        yield server


def mail(to: str = "a@example.com", action: UUID | None = None, **args: str) -> Delivery:
    action = action or new_id()
    given = {"subject": "Hello", "html": "<p>Hi</p>", "customer": "00001", "shop": "s"}
    return Delivery(action, args.get("dedupe_key", f"rule:1:{action}"), to, given, timedelta(seconds=2))


@pytest.fixture
def sendgrid(server):
    channel = SendGridChannel(server.url, SendGridConfig("shop@example.com"), "SG.key")
    yield channel
    channel.close()


def test_a_sent_message_is_kept_and_can_be_found(providers, sendgrid):
    delivery = mail()
    sent = sendgrid.send(delivery)
    assert isinstance(sent, Sent)
    assert [message.to for message in providers.messages] == ["a@example.com"]
    assert providers.messages[0].key == delivery.dedupe_key
    assert sendgrid.find(delivery) == Sent(sent.provider_ref)
    assert isinstance(sendgrid.find(mail()), NotSent)


def test_dropped_before_nothing_happened_and_dropped_after_it_did(providers, sendgrid):
    for kind, kept in (("drop_before", 0), ("drop_after", 1)):
        providers.faults = [Fault(kind, "/v3/mail")]
        delivery = mail()
        assert isinstance(sendgrid.send(delivery), Unknown | NotSent)
        assert len(providers.messages) == kept
        assert isinstance(sendgrid.find(delivery), Sent) is bool(kept)


def test_refusals_and_delays(server, providers):
    with httpx.Client(base_url=server.url, headers={"Authorization": "Bearer k"}) as client:
        providers.faults = [Fault("status", status=429, seconds=3), Fault("delay", seconds=0.2)]
        refused = client.post("/v3/mail/send", json={})
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "3")
        late = client.post("/v3/mail/send", json={})
        assert late.elapsed > timedelta(seconds=0.19)
        assert late.json()["errors"][0]["field"] == "personalizations"
        assert client.post("/v3/mail/send", json={}, headers={"Authorization": ""}).status_code == 401
        assert client.post("/v3/mail/send", content=b"{").status_code == 400
        assert client.get("/nothing").status_code == 404
    assert Counter(status for _method, _path, status in providers.calls)[400] == 2


def test_a_coupon_code_exists_once(providers, server):
    channel = ShopifyChannel(server.url, ShopifyConfig(), "token")
    given = {"code": "SAVE-1", "percent": 12.5, "starts_at": "1998-07-01T22:00:00+00:00",
             "expires_at": "1998-07-08T22:00:00+00:00"}  # fmt: skip
    delivery = Delivery(new_id(), "k", None, given, timedelta(seconds=2))
    first = channel.send(delivery)
    assert isinstance(first, Sent)
    assert channel.send(delivery) == first  # taken: and it is ours
    assert (len(providers.coupons), providers.coupons["SAVE-1"].percent) == (1, 12.5)
    unknown = Delivery(new_id(), "k", None, given | {"code": "OTHER"}, timedelta(seconds=2))
    assert isinstance(channel.find(unknown), NotSent)
    channel.close()


def test_the_fakes_can_be_steered_from_outside(server):
    with httpx.Client(base_url=server.url) as client:
        assert client.post("/control/faults", json=[{"kind": "status", "status": 503}]).status_code == 204
        assert client.post("/v3/mail/send").status_code == 503
        assert client.get("/control/calls").json() == [["POST", "/v3/mail/send", 503]]
        assert client.post("/control/reset").status_code == 204
        assert client.get("/control/count").json() == {"messages": 0, "coupons": 0, "calls": 0}


@dataclass
class TinyAgent:
    """Enough of an agent to live with: checks what it gets, and answers the day's carts with a coupon by e-mail."""

    providers: Providers
    secret: str
    public_key: str
    flaky: bool = False
    now: datetime | None = None
    seen: dict[str, dict] = field(default_factory=dict)  # by messageId
    paid: dict[str, dict] = field(default_factory=dict)
    refunded: dict[str, int] = field(default_factory=dict)
    reports: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    calls: int = 0
    new_carts: list[str] = field(default_factory=list)
    emails: dict[str, str] = field(default_factory=dict)

    def handle(self, request: Request) -> Reply:
        self.calls += 1
        if self.flaky and self.calls % 7 == 0:
            return Reply(503) if self.calls % 2 else Reply(is_dropped=True)
        reply = self._route(request)
        # done, and then the answer is lost: the caller must repeat without doing it twice
        return Reply(is_dropped=True) if self.flaky and self.calls % 11 == 0 else reply

    def _route(self, request: Request) -> Reply:
        path = request.target
        if path == "/v1/batch":
            for event in json.loads(request.body)["batch"]:
                self._track(event)
            return Reply.json({"accepted": 1})
        if path.startswith("/webhooks/shopify/"):
            return self._shopify(request)
        if path.startswith("/webhooks/sendgrid/"):
            return self._sendgrid(request)
        if path.endswith("/clock"):
            self.now = datetime.fromisoformat(json.loads(request.body)["to"])
            return Reply.json({"now": self.now.isoformat()})
        self._act()
        return Reply.json({"events": 0, "actions_due": 0, "outbox": 0, "running": 0})

    def _track(self, event: dict) -> None:
        if event["messageId"] in self.seen:
            return
        self.seen[event["messageId"]] = event
        if datetime.fromisoformat(event["timestamp"]) > self.now:
            self.problems.append(f"from the future: {event}")
        if event["type"] == "identify":
            self.emails[event["userId"]] = event["traits"]["email"]
        elif event["userId"] not in self.emails:
            self.problems.append(f"a stranger: {event}")
        if event.get("event") == "Product Added":
            self.new_carts.append(event["userId"])

    def _shopify(self, request: Request) -> Reply:
        if not shopify_webhook.verify(request.headers, request.body, self.secret):
            return Reply(401)
        sent, now = shopify_webhook.envelope(request.headers), SYSTEM.now()
        for event in shopify_webhook.parse(sent, request.body, currency="USD", now=now, received_at=now):
            properties = event.properties
            if event.type == "order.paid":
                self.paid[properties["order_id"]] = properties | {"email": event.identity["email"]}
            elif event.type == "order.refunded" and properties["order_id"] not in self.paid:
                self.problems.append(f"a refund of nothing: {properties}")
            elif event.type == "order.refunded":
                self.refunded[properties["order_id"]] = properties["amount_minor"]
        return Reply(200)

    def _sendgrid(self, request: Request) -> Reply:
        if not sendgrid_webhook.verify(request.headers, request.body, self.public_key):
            return Reply(401)
        for event in sendgrid_webhook.parse(request.body, received_at=SYSTEM.now()):
            if not re.fullmatch(r"[0-9a-f-]{36}", event.properties["action_id"]):
                self.problems.append(f"an unknown action: {event}")
            self.reports.add(f"{event.type}:{event.source_id}")
        return Reply(200)

    def _act(self) -> None:
        """Out of order on purpose, and each message twice: an agent is as parallel as it likes."""
        for user in sorted(self.new_carts, reverse=self.flaky):
            key = f"carts/left:1:{user}:{self.now.date()}"
            code = f"C-{digest_id(key).hex[:10].upper()}"
            ends = (self.now + timedelta(days=7, seconds=self.calls % 60)).isoformat()
            coupon = {"title": code, "code": code, "startsAt": self.now.isoformat(), "endsAt": ends,
                      "context": {"all": "ALL"}, "customerGets": {"value": {"percentage": 0.1}}}  # fmt: skip
            self._call("/admin/api/2026-07/graphql.json",
                       {"query": "discountCodeBasicCreate", "variables": {"basicCodeDiscount": coupon}})  # fmt: skip
            body = {"from": {"email": "shop@example.com"}, "subject": "Back?",
                    "personalizations": [{"to": [{"email": self.emails[user]}], "custom_args": {
                        "action_id": str(digest_id(key)), "dedupe_key": key}}],
                    "content": [{"type": "text/html", "value": f"<p>take <strong>{code}</strong></p>"}]}  # fmt: skip
            for _ in range(2 if self.flaky and uniform(key) < 0.3 else 1):
                self._call("/v3/mail/send", body)
        self.new_carts = []

    def _call(self, target: str, body: dict) -> None:
        headers = {"authorization": "Bearer k", "x-shopify-access-token": "t"}
        assert self.providers.handle(Request("POST", target, headers, json.dumps(body).encode())).status < 300


def simulate(*, flaky: bool) -> tuple[dict, TinyAgent]:
    key = generate_private_key(SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    providers = Providers()
    tiny = TinyAgent(providers, "secret", base64.b64encode(public).decode(), flaky)
    random = np.random.default_rng(1)
    history = History(np.arange(1, 1501), random.geometric(0.4, 1500), random.exponential(70, 1500))
    with Server(tiny.handle) as server:
        agent = Agent(Access(server.url, "s", "write", "admin", "secret", pem.decode()), patience=20)
        try:
            result = Run(agent, Mailboxes(providers), draw(history, 3), seed=3, days=12)()
        finally:
            agent.close()
    return result, tiny


@pytest.fixture(scope="module")
def calm():
    return simulate(flaky=False)


def test_what_was_told_is_what_is_true(calm):
    result, tiny = calm
    assert tiny.problems == []
    assert result["replay_agrees"]
    assert result["refused"] == []
    assert (len(tiny.paid), len(tiny.refunded)) == (result["counts"]["orders"], len(set(tiny.refunded)))
    kept = sum(order["total_minor"] for order in tiny.paid.values()) - sum(tiny.refunded.values())
    assert kept == result["totals"]["revenue"]
    assert len(tiny.refunded) > 0
    spent = sum(order["discount_minor"] for order in tiny.paid.values()) + result["counts"]["messages"]
    assert spent == result["totals"]["spend"]
    assert result["counts"]["redeemed"] == sum(bool(order["discount_codes"]) for order in tiny.paid.values()) > 0
    assert result["truth"]["carts"] == result["truth"]["programme"]
    assert result["truth"]["programme"]["orders"] > 0
    kinds = Counter(report.split(":")[0] for report in tiny.reports)
    assert kinds["email.delivered"] > kinds["email.opened"] > kinds["email.clicked"] > 0


def test_an_agent_that_keeps_going_away_changes_nothing(calm):
    result, tiny = simulate(flaky=True)
    steady, steady_tiny = calm
    assert result["counts"]["repeated_calls"] > 10
    assert result["counts"]["duplicate_messages"] > 10
    for name in ("totals", "truth", "replay_agrees"):
        assert result[name] == steady[name], name
    for name in ("events", "orders", "messages", "coupons", "redeemed"):
        assert result["counts"][name] == steady["counts"][name], name
    assert tiny.problems == []
    assert tiny.seen == steady_tiny.seen
    assert tiny.reports == steady_tiny.reports
