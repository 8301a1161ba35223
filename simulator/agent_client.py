"""The agent as the outside sees it: tracking API, signed webhooks, a sandbox's clock, the backlog.

Every call may be repeated without harm (the same messageId, webhook id or Idempotency-Key), so a process that is
killed under it, or a full disk, costs time and changes nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
import orjson
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from operation_agent.kit.clock import SYSTEM, monotonic
from operation_agent.kit.errors import Rejected, Retryable
from operation_agent.kit.ids import digest_id

from .payloads import Stamped, iso

BATCH = 500
REPORTS = 200
LANES = 4
"""Connections. A customer's events always take the same one, so they arrive in order."""
PENDING = ("events", "actions_due", "outbox", "running")
_AGAIN = {408, 425, 429, 500, 502, 503, 504, 507}


@dataclass(frozen=True, slots=True)
class Access:
    """Where the agent is and what the outside world was given to talk to it."""

    base_url: str
    shop: str
    write_key: str
    admin_key: str
    shopify_secret: str
    sendgrid_private_key: str  # PEM, P-256: the agent holds its public half


@dataclass(slots=True)
class Agent:
    """`patience` is how many seconds a call or a drain may take before it raises Retryable."""

    access: Access
    patience: float = 300.0
    poll: float = 0.03
    posted: int = 0
    repeated: int = 0
    refused: list[Any] = field(default_factory=list)
    waited: float = 0.0
    _client: httpx.Client = field(init=False)
    _lanes: ThreadPoolExecutor = field(init=False)
    _signer: EllipticCurvePrivateKey = field(init=False)

    def __post_init__(self) -> None:
        key = load_pem_private_key(self.access.sendgrid_private_key.encode(), password=None)
        if not isinstance(key, EllipticCurvePrivateKey):
            raise Rejected("SendGrid signs with a P-256 key", where="sendgrid_private_key")
        self._signer = key
        limits = httpx.Limits(max_connections=LANES + 2, max_keepalive_connections=LANES + 2)
        self._client = httpx.Client(base_url=self.access.base_url, timeout=30, limits=limits)
        self._lanes = ThreadPoolExecutor(LANES, thread_name_prefix="lane")

    def close(self) -> None:
        self._lanes.shutdown()
        self._client.close()

    def track(self, events: Sequence[Stamped]) -> None:
        """POST /v1/batch, in the order given, each customer's events on one connection."""
        lanes: list[list[dict[str, Any]]] = [[] for _ in range(LANES)]
        for event in events:
            lanes[event.number % LANES].append(event.body)
        list(self._lanes.map(self._track_lane, lanes))
        self.posted += len(events)

    def _track_lane(self, bodies: list[dict[str, Any]]) -> None:
        token = base64.b64encode(f"{self.access.write_key}:".encode()).decode()
        headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}
        for at in range(0, len(bodies), BATCH):
            answer = self._call("POST", "/v1/batch", orjson.dumps({"batch": bodies[at : at + BATCH]}), headers)
            self._note_refusals(answer)

    def _note_refusals(self, answer: httpx.Response) -> None:
        said = answer.json() if answer.content else {}
        for name in ("rejected", "errors"):
            if isinstance(said.get(name), list):
                self.refused += said[name]

    def shopify(self, topic: str, payloads: Sequence[Stamped]) -> None:
        """POST signed Shopify webhooks; a customer's in order."""
        lanes: list[list[Stamped]] = [[] for _ in range(LANES)]
        for payload in payloads:
            lanes[payload.number % LANES].append(payload)
        list(self._lanes.map(lambda lane: self._shopify_lane(topic, lane), lanes))
        self.posted += len(payloads)

    def _shopify_lane(self, topic: str, lane: list[Stamped]) -> None:
        path = f"/webhooks/shopify/{self.access.shop}"
        for payload in lane:
            body = orjson.dumps(payload.body)
            digest = hmac.new(self.access.shopify_secret.encode(), body, hashlib.sha256).digest()
            event_id = str(digest_id("shopify", topic, str(payload.body["id"])))
            headers = {
                "Content-Type": "application/json",
                "X-Shopify-Topic": topic,
                "X-Shopify-Hmac-Sha256": base64.b64encode(digest).decode(),
                "X-Shopify-Shop-Domain": f"{self.access.shop}.myshopify.com",
                "X-Shopify-API-Version": "2026-07",
                "X-Shopify-Webhook-Id": event_id,
                "X-Shopify-Event-Id": event_id,
                "X-Shopify-Triggered-At": iso(payload.at),
            }
            self._note_refusals(self._call("POST", path, body, headers))

    def sendgrid(self, reports: Sequence[dict[str, Any]]) -> None:
        """POST SendGrid's event webhook, signed over time stamp and body."""
        path = f"/webhooks/sendgrid/{self.access.shop}"
        for at in range(0, len(reports), REPORTS):
            body = orjson.dumps(list(reports[at : at + REPORTS]))
            self._note_refusals(self._call("POST", path, body, None, sign=True))
        self.posted += len(reports)

    def _signed(self, body: bytes) -> dict[str, str]:
        stamp = str(int(SYSTEM.now().timestamp()))
        signature = self._signer.sign(stamp.encode() + body, ECDSA(hashes.SHA256()))
        return {
            "Content-Type": "application/json",
            "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
            "X-Twilio-Email-Event-Webhook-Timestamp": stamp,
        }

    def move_clock(self, to: datetime) -> None:
        """Set the sandbox's clock forward."""
        body = orjson.dumps({"to": to.isoformat()})
        headers = self._bearer() | {"Idempotency-Key": f"clock-{to.isoformat()}", "Content-Type": "application/json"}
        self._call("POST", f"/api/shops/{self.access.shop}/clock", body, headers)

    def drain(self) -> None:
        """Wait until the agent has nothing left to do. Raises Retryable, with the backlog, when it never ends."""
        began = monotonic()
        while True:
            backlog = self._call("GET", f"/api/shops/{self.access.shop}/backlog", None, self._bearer()).json()
            if not any(backlog[name] for name in PENDING):
                self.waited += monotonic() - began
                return
            if monotonic() - began > self.patience:
                raise Retryable(f"the agent did not finish within {self.patience:.0f} s: {backlog}")
            time.sleep(self.poll)

    def _bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access.admin_key}"}

    def _call(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str] | None, *, sign: bool = False
    ) -> httpx.Response:
        """One call, repeated while the other side is away. Raises Rejected for what it will never accept."""
        end, pause = monotonic() + self.patience, 0.05
        while True:
            try:
                answer = self._client.request(
                    method, path, content=body, headers=self._signed(body) if sign and body else headers
                )
                if answer.status_code not in _AGAIN:
                    break
                problem = f"{answer.status_code} {answer.text[:300]}"
            except httpx.TransportError as error:
                problem = repr(error)
            if monotonic() > end:
                raise Retryable(f"{method} {path} fails for {self.patience:.0f} s: {problem}")
            self.repeated += 1
            time.sleep(pause)
            pause = min(pause * 2, 2.0)
        if answer.status_code >= 400:
            raise Rejected(f"{method} {path} answered {answer.status_code}: {answer.text[:500]}")
        return answer
