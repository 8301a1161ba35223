"""Fake SendGrid and Shopify Admin, as one HTTP server: what a provider would have, and what it would refuse.

It validates, keeps every message and coupon, answers the look-ups an agent needs after an unknown outcome, logs each
call, and can be told to misbehave. `python -m simulator.providers --port 0` runs it alone, steered over HTTP:
GET /control/messages?since=0, /control/coupons, /control/calls, /control/count; POST /control/faults, /control/reset.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from operation_agent.kit.errors import Rejected
from operation_agent.kit.ids import digest_id

from .http_server import Reply, Request, Server

FAULT_KINDS = ("drop_before", "drop_after", "status", "delay")
_UNIQUE_ARG = re.compile(r"unique_args\[\s*['\"]?([\w.-]+)['\"]?\s*\]\s*=\s*['\"]([^'\"]*)['\"]")
_MESSAGE_ID = re.compile(r"msg_id\s+LIKE\s+['\"]([^'\"%]+)%?['\"]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Message:
    """An accepted e-mail, as the provider sees it. `number` counts arrivals from 0."""

    number: int
    message_id: str
    to: str
    sender: str
    subject: str
    body: str
    custom_args: dict[str, str]
    categories: list[str]

    @property
    def key(self) -> str:
        """What makes two calls the same message: the agent's dedupe key, or failing that the call itself."""
        return self.custom_args.get("dedupe_key") or self.custom_args.get("action_id") or f"~{self.number}"


@dataclass(frozen=True, slots=True)
class Coupon:
    code: str
    node_id: str
    percent: float
    title: str
    starts_at: str | None
    ends_at: str | None
    kind: str = "DiscountCodeBasic"
    amount: str | None = None
    usage_limit: int | None = None


@dataclass(slots=True)
class Fault:
    """What goes wrong with the next `times` calls whose path starts with `path` (None: with all until reset).

    drop_before: closed without doing it; drop_after: done, then closed; status: refused with `status` (429 carries
    Retry-After: `seconds`); delay: done, answered after `seconds`.
    """

    kind: str
    path: str = "/"
    status: int = 500
    seconds: float = 0.0
    times: int | None = 1

    def __post_init__(self) -> None:
        if self.kind not in FAULT_KINDS:
            raise Rejected(f"a fault is one of {', '.join(FAULT_KINDS)}, not {self.kind!r}", where="kind")


@dataclass(slots=True)
class Providers:
    """The state of the fakes. Written by the server's thread only; lists only grow, so readers may take slices."""

    sendgrid_key: str | None = None  # None: any bearer token will do
    shopify_token: str | None = None
    messages: list[Message] = field(default_factory=list)
    coupons: dict[str, Coupon] = field(default_factory=dict)  # by code in upper case
    calls: list[tuple[str, str, int]] = field(default_factory=list)  # method, path, status (0: dropped)
    faults: list[Fault] = field(default_factory=list)

    def handle(self, request: Request) -> Reply:
        path = urlsplit(request.target).path
        if path.startswith("/control/"):
            return self._control(request, path)
        fault = self._fault(path)
        if fault is not None and fault.kind in ("drop_before", "status"):
            reply = Reply(is_dropped=True) if fault.kind == "drop_before" else _refusal(fault)
        else:
            reply = self._route(request, path)
            if fault is not None and fault.kind == "drop_after":
                reply = Reply(is_dropped=True)
            elif fault is not None:
                reply = Reply(reply.status, reply.body, reply.headers, delay=fault.seconds)
        self.calls.append((request.method, path, 0 if reply.is_dropped else reply.status))
        return reply

    def _fault(self, path: str) -> Fault | None:
        for fault in self.faults:
            if path.startswith(fault.path) and fault.times != 0:
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    def _route(self, request: Request, path: str) -> Reply:
        if path == "/v3/mail/send" and request.method == "POST":
            return self._authorised(request) or self._send(request)
        if path == "/v3/messages" and request.method == "GET":
            return self._authorised(request) or self._search(request)
        if path.startswith("/admin/api/") and path.endswith("/graphql.json") and request.method == "POST":
            given = request.headers.get("x-shopify-access-token")
            if not given or (self.shopify_token is not None and given != self.shopify_token):
                return Reply.json({"errors": "[API] Invalid API key or access token"}, 401)
            return self._graphql(request)
        return Reply.json({"errors": [{"message": "not found", "field": None, "help": None}]}, 404)

    # --- SendGrid

    def _authorised(self, request: Request) -> Reply | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token and self.sendgrid_key in (None, token):
            return None
        wrong = "The provided authorization grant is invalid, expired, or revoked"
        return Reply.json({"errors": [{"message": wrong, "field": None, "help": None}]}, 401)

    def _send(self, request: Request) -> Reply:
        try:
            mail = orjson.loads(request.body)
            wrong = _mail_error(mail)
        except orjson.JSONDecodeError:
            mail, wrong = {}, ("Bad Request", None)
        if wrong is not None:
            return Reply.json({"errors": [{"message": wrong[0], "field": wrong[1], "help": None}]}, 400)
        first = ""
        for part in mail["personalizations"]:
            for recipient in part["to"]:
                message = _message(mail, part, recipient["email"], len(self.messages))
                first = first or message.message_id
                self.messages.append(message)
        return Reply(202, b"", {"X-Message-Id": first})

    def _search(self, request: Request) -> Reply:
        """Email Activity: `unique_args['action_id']="…"` (any number of them), or msg_id LIKE '…%'."""
        query = (parse_qs(urlsplit(request.target).query).get("query") or [""])[0]
        wanted, by_id = _UNIQUE_ARG.findall(query), _MESSAGE_ID.search(query)
        if not wanted and not by_id:
            return Reply.json({"errors": [{"message": "invalid query", "field": "query", "help": None}]}, 400)
        found = [
            message
            for message in self.messages
            if all(message.custom_args.get(name) == value for name, value in wanted)
            and (by_id is None or message.message_id.startswith(by_id.group(1)))
        ]
        rows = [
            {"from_email": message.sender, "msg_id": message.message_id, "subject": message.subject,
             "to_email": message.to, "status": "delivered", "opens_count": 0, "clicks_count": 0}
            for message in found
        ]  # fmt: skip
        return Reply.json({"messages": rows})

    # --- Shopify

    def _graphql(self, request: Request) -> Reply:
        try:
            body = orjson.loads(request.body)
            query, variables = str(body["query"]), body.get("variables") or {}
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return Reply.json({"errors": {"query": "Required parameter missing or invalid"}}, 400)
        for mutation, (argument, kind) in _CREATING.items():
            if mutation in query:
                return Reply.json({"data": {mutation: self._create_coupon(variables, argument, kind)}})
        if "discountCodeDeactivate" in query:
            return Reply.json({"data": {"discountCodeDeactivate": self._deactivate(str(variables.get("id")))}})
        if "codeDiscountNodeByCode" in query:
            code = str(variables.get("code") or (re.findall(r'code:\s*"([^"]+)"', query) or [""])[0])
            coupon = self.coupons.get(code.upper())
            return Reply.json({"data": {"codeDiscountNodeByCode": coupon and _node(coupon)}})
        return Reply.json({"errors": [{"message": "this fake knows discount codes only"}]})

    def _create_coupon(self, variables: dict[str, Any], argument: str, kind: str) -> dict[str, Any]:
        given = variables.get(argument) or next(
            (value for value in variables.values() if isinstance(value, dict) and "code" in value), {}
        )
        wrong = _coupon_error(given, kind)
        if wrong is None and given["code"].upper() in self.coupons:
            wrong = ("code", "Code must be unique. Please try a different code.", "TAKEN")
        if wrong is not None:
            error = {"field": [argument, wrong[0]], "message": wrong[1], "code": wrong[2], "extraInfo": None}
            return {"codeDiscountNode": None, "userErrors": [error]}
        node_id = f"gid://shopify/DiscountCodeNode/{1_000_000 + len(self.coupons)}"
        value = (given.get("customerGets") or {}).get("value") or {}
        coupon = Coupon(
            given["code"], node_id, round(float(value.get("percentage") or 0) * 100, 6), given["title"],
            given.get("startsAt"), given.get("endsAt"), kind, (value.get("discountAmount") or {}).get("amount"),
            given.get("usageLimit"),
        )  # fmt: skip
        self.coupons[coupon.code.upper()] = coupon
        return {"codeDiscountNode": _node(coupon), "userErrors": []}

    def _deactivate(self, node_id: str) -> dict[str, Any]:
        for code, coupon in self.coupons.items():
            if coupon.node_id == node_id:
                self.coupons[code] = replace(coupon, ends_at=coupon.starts_at)
                return {"codeDiscountNode": _node(self.coupons[code]), "userErrors": []}
        error = {"field": ["id"], "message": "Code discount does not exist.", "code": "INVALID", "extraInfo": None}
        return {"codeDiscountNode": None, "userErrors": [error]}

    # --- steering

    def _control(self, request: Request, path: str) -> Reply:
        what = path.removeprefix("/control/")
        if request.method == "GET" and what == "messages":
            since = int((parse_qs(urlsplit(request.target).query).get("since") or ["0"])[0])
            return Reply.json([asdict(message) for message in self.messages[since:]])
        if request.method == "GET" and what == "coupons":
            return Reply.json([asdict(coupon) for coupon in self.coupons.values()])
        if request.method == "GET" and what == "calls":
            return Reply.json(self.calls)
        if request.method == "GET" and what == "count":
            return Reply.json({"messages": len(self.messages), "coupons": len(self.coupons), "calls": len(self.calls)})
        if request.method == "POST" and what == "faults":
            self.faults = [Fault(**fault) for fault in orjson.loads(request.body)]
            return Reply(204)
        if request.method == "POST" and what == "reset":
            self.messages, self.coupons, self.calls, self.faults = [], {}, [], []
            return Reply(204)
        return Reply.json({"error": f"no such control: {what}"}, 404)


def _refusal(fault: Fault) -> Reply:
    headers = {"Retry-After": f"{fault.seconds:g}"} if fault.status in (429, 503) else {}
    return Reply.json({"errors": [{"message": "a fault was asked for"}]}, fault.status, **headers)


def _mail_error(mail: Any) -> tuple[str, str | None] | None:
    """What SendGrid would refuse, with the field it would name."""
    if not isinstance(mail, dict):
        return "Bad Request", None
    parts = mail.get("personalizations")
    if not isinstance(parts, list) or not parts:
        return "The personalizations field is required and must have at least one personalization.", "personalizations"
    for index, part in enumerate(parts):
        recipients = part.get("to") if isinstance(part, dict) else None
        if not recipients or not all("@" in str(one.get("email")) for one in recipients):
            return "Does not contain a valid address.", f"personalizations.{index}.to"
    if "@" not in str((mail.get("from") or {}).get("email")):
        return "The from object must be provided for every email send.", "from.email"
    if not mail.get("subject") and not all(part.get("subject") for part in parts):
        return "The subject is required.", "subject"
    contents = mail.get("content")
    if not mail.get("template_id") and not (contents and all(one.get("value") for one in contents)):
        return "Unless a valid template_id is provided, the content parameter is required.", "content"
    return None


def _message(mail: dict[str, Any], part: dict[str, Any], to: str, number: int) -> Message:
    """Its id follows from its key, so that two runs name a message alike, whenever it arrives."""
    custom_args = {**(mail.get("custom_args") or {}), **(part.get("custom_args") or {})}
    key = custom_args.get("dedupe_key") or f"{number}"
    return Message(
        number=number,
        message_id=digest_id("message", key, to).hex[:22],
        to=to,
        sender=mail["from"]["email"],
        subject=str(part.get("subject") or mail.get("subject")),
        body="\n".join(str(one["value"]) for one in mail.get("content") or []),
        custom_args=custom_args,
        categories=list(mail.get("categories") or []),
    )


_CREATING = {
    "discountCodeBasicCreate": ("basicCodeDiscount", "DiscountCodeBasic"),
    "discountCodeFreeShippingCreate": ("freeShippingCodeDiscount", "DiscountCodeFreeShipping"),
    "discountCodeBxgyCreate": ("bxgyCodeDiscount", "DiscountCodeBxgy"),
}
"""Mutation -> its argument, and the type of what it makes."""


def _coupon_error(given: dict[str, Any], kind: str) -> tuple[str, str, str] | None:
    for name in ("title", "code", "startsAt"):
        if not given.get(name):
            return name, f"{name} can't be blank", "BLANK"
    if not (given.get("context") or given.get("customerSelection")):
        return "context", "context can't be blank", "BLANK"
    value = (given.get("customerGets") or {}).get("value") or {}
    if kind == "DiscountCodeBxgy":
        return None if value.get("discountOnQuantity") else ("customerGets", "Value can't be blank", "BLANK")
    if kind == "DiscountCodeFreeShipping":
        return None if given.get("destination") else ("destination", "Destination can't be blank", "BLANK")
    if "discountAmount" in value:
        amount = (value["discountAmount"] or {}).get("amount")
        return None if amount else ("customerGets", "Value must be less than 0", "LESS_THAN")
    percentage = value.get("percentage")
    if not isinstance(percentage, int | float) or not 0 < percentage <= 1:
        return "customerGets", "Value must be between 0.0 and 1.0", "VALUE_OUTSIDE_RANGE"
    return None


def _node(coupon: Coupon) -> dict[str, Any]:
    value: dict[str, Any] = {"__typename": "DiscountPercentage", "percentage": coupon.percent / 100}
    if coupon.amount is not None:
        value = {"__typename": "DiscountAmount", "amount": {"amount": coupon.amount}}
    return {
        "id": coupon.node_id,
        "codeDiscount": {
            "__typename": coupon.kind,
            "title": coupon.title,
            "status": "ACTIVE",
            "startsAt": coupon.starts_at,
            "endsAt": coupon.ends_at,
            "codes": {"nodes": [{"code": coupon.code}], "edges": [{"node": {"code": coupon.code}}]},
            "usageLimit": coupon.usage_limit,
            "asyncUsageCount": 0,
            **({"customerGets": {"value": value}} if coupon.kind == "DiscountCodeBasic" else {}),
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Fake SendGrid and Shopify Admin on one port")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    # before the server's thread starts, so that it inherits the mask and only sigwait sees them
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    with Server(Providers().handle, host=options.host, port=options.port) as server:
        sys.stdout.write(json.dumps({"url": server.url}) + "\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0


if __name__ == "__main__":
    sys.exit(main())
