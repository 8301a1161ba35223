"""E-mail through SendGrid's v3 API.

SendGrid knows no idempotency key, so an unknown outcome is asked about: the action's id travels as a custom argument,
and the Email Activity API finds it (an add-on of the account, six requests a minute; without it set
`"activity": false`, and unknown outcomes are settled by the event webhook or by a person).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx

from integrations import http
from operation_agent.actions.channel import Capability, Delivery, NotSent, Outcome, Sent, Unknown
from operation_agent.kit.errors import Rejected


@dataclass(frozen=True, slots=True)
class SendGridConfig:
    """`settle_seconds`: how long Email Activity may lag behind an accepted message."""

    from_email: str
    from_name: str | None = None
    activity: bool = True
    settle_seconds: float = 60.0
    categories: tuple[str, ...] = ()

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> SendGridConfig:
        """Raises Rejected when there is no usable sender address."""
        sender = config.get("from_email")
        if not isinstance(sender, str) or "@" not in sender:
            raise Rejected("SendGrid needs the sender's address", where="config.from_email")
        return cls(
            from_email=sender,
            from_name=config.get("from_name"),
            activity=bool(config.get("activity", True)),
            settle_seconds=float(config.get("settle_seconds", 60.0)),
            categories=tuple(config.get("categories", ())),
        )


class SendGridChannel:
    name = "sendgrid"

    def __init__(self, base_url: str, config: SendGridConfig, api_key: str):
        self._config = config
        self._client = http.Connections(base_url, {"Authorization": f"Bearer {api_key}"})
        self.capability: Capability = "queryable" if config.activity else "opaque"
        self.settle = timedelta(seconds=config.settle_seconds)

    def send(self, delivery: Delivery) -> Outcome:
        try:
            response = self._client.post("/v3/mail/send", json=mail(self._config, delivery), timeout=delivery.timeout)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return http.of_error(error)
        return http.of_status(response) or Sent(response.headers.get("X-Message-Id"))

    def find(self, delivery: Delivery) -> Outcome:
        query = f"unique_args['action_id']=\"{delivery.action_id}\""
        try:
            response = self._client.get("/v3/messages", params={"query": query, "limit": 1}, timeout=delivery.timeout)
            if response.status_code != 200:
                return Unknown(f"Email Activity answered HTTP {response.status_code}: {response.text[:200]}")
            messages = response.json()["messages"]
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            return Unknown(f"Email Activity could not be read: {type(error).__name__}: {error}"[:300])
        if messages:
            return Sent(messages[0].get("msg_id"))
        return NotSent("SendGrid has no such message", permanent=False)

    def close(self) -> None:
        self._client.close()


def mail(config: SendGridConfig, delivery: Delivery) -> dict[str, Any]:
    """The body of POST /v3/mail/send. The unsubscribe headers are RFC 2369's and RFC 8058's one click."""
    given = delivery.parameters
    sender = {"email": config.from_email, **({"name": config.from_name} if config.from_name else {})}
    recipient = {"email": delivery.address, **({"name": given["to_name"]} if given.get("to_name") else {})}
    way_out = given.get("unsubscribe_url")
    headers = (
        {"List-Unsubscribe": f"<{way_out}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"} if way_out else {}
    )
    return {
        "from": sender,
        "personalizations": [
            {
                "to": [recipient],
                "custom_args": {
                    "action_id": str(delivery.action_id),
                    "dedupe_key": delivery.dedupe_key,
                    "customer": given.get("customer", ""),
                    "shop": given.get("shop", ""),
                },
                **({"headers": headers} if headers else {}),
            }
        ],
        "subject": given["subject"],
        "content": [{"type": "text/html", "value": given["html"]}],
        **({"categories": list(config.categories)} if config.categories else {}),
    }
