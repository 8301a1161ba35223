"""Events in: Segment's HTTP tracking API, so that existing Segment and RudderStack libraries work unchanged.

A request is answered only after its events are committed. Items of a batch stand for themselves: the good ones are
stored, the bad ones listed by index with the reason; a request in which nothing is good is a 400.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api import json_body
from api.dependencies import Requires, caller_of_key
from api.errors import of_any, problem
from api.metrics import count_events
from api.services import Services, services
from operation_agent.access.principal import Principal
from operation_agent.events import instants
from operation_agent.events.event import Event
from operation_agent.events.segment import KINDS, SOURCE, normalise
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Rejected
from operation_agent.kit.settings import settings
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, load_shop

Message = dict[str, Any]
Endpoint = Callable[[Request, Principal], Coroutine[Any, Any, Response]]
_ONE_ACCEPTED = b'{"success":true,"accepted":1,"duplicates":0,"rejected":0,"errors":[]}'
_ONE_DUPLICATE = b'{"success":true,"accepted":0,"duplicates":1,"rejected":0,"errors":[]}'


class WriteKey(Requires):
    """`Requires`, where the key may also stand in the body, as browsers' libraries send it."""

    async def __call__(self, request: Request) -> Principal:
        if "authorization" not in request.headers:
            key = json_body.parse(await json_body.read(request)).get("writeKey")
            if isinstance(key, str) and key:
                caller = await caller_of_key(services(request), key)
                caller.require(self.permission)
                return caller
        return await super().__call__(request)


_WRITE_KEY = WriteKey("events:write")
Tracker = Annotated[Principal, Depends(_WRITE_KEY)]


router = APIRouter(tags=["tracking"])


async def _current(shop: Shop, messages: list[Any], sent_at: object, held: Services) -> Shop:
    """The shop with its clock of this moment. A sandbox's clock may have been moved since its key was looked up."""
    if not shop.sandbox or not instants.needs_clock(messages, sent_at, shop.now()):
        return shop

    def load() -> Shop:
        with for_shop(held.engine, shop.id) as session:
            return load_shop(session, shop.id)

    return await run_in_threadpool(load)


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


async def _take_one(kind: str, request: Request, caller: Principal) -> Response:
    message = json_body.parse(await json_body.read(request))
    message["type"] = kind
    held = services(request)
    shop = await _current(caller.shop, [message], None, held)
    received_at = SYSTEM.now()
    try:
        event = normalise(message, shop, now=_shop_time(shop, received_at), received_at=received_at)
        committed = await held.committer.submit(shop.id, (event,))
        if committed.refused:
            raise committed.refused[0]
    except Rejected:
        count_events(shop.slug, SOURCE, rejected=1)
        raise
    count_events(shop.slug, SOURCE, accepted=1 - len(committed.duplicates), duplicates=len(committed.duplicates))
    if not message.get("messageId"):
        return _json(_summary([event], [event], frozenset(), [], [0]))
    return _json(_ONE_DUPLICATE if committed.duplicates else _ONE_ACCEPTED)


def _shop_time(shop: Shop, received_at: datetime) -> datetime:
    return received_at + shop.clock_offset if shop.clock_offset else received_at


async def batch(request: Request, caller: Tracker) -> Response:
    body = json_body.parse(await json_body.read(request))
    messages = _messages(body)
    held = services(request)
    shop = await _current(caller.shop, messages, body.get("sentAt"), held)
    events, positions, errors = _normalise_all(messages, body, shop)
    refused: dict[int, Rejected] = {}
    duplicates: frozenset[int] = frozenset()
    if events:
        committed = await held.committer.submit(shop.id, events)
        refused, duplicates = committed.refused, committed.duplicates
        errors += [_error(positions[index], refusal) for index, refusal in refused.items()]
    stored = [event for index, event in enumerate(events) if index not in refused]
    count_events(
        shop.slug, SOURCE, accepted=len(stored) - len(duplicates), duplicates=len(duplicates), rejected=len(errors)
    )
    if errors and len(errors) == len(messages):
        errors.sort(key=lambda one: one["index"])
        detail = f"none of the {len(messages)} events can be stored; the first: {errors[0]['reason']}"
        return problem(400, "all_rejected", detail, where=errors[0]["where"], errors=errors)
    made = [index for index in positions if not messages[index].get("messageId")]
    return _json(_summary(events, stored, duplicates, errors, made, positions))


def _messages(body: Message) -> list[Any]:
    messages = body.get("batch")
    if not isinstance(messages, list):
        raise Rejected("batch is a list of events", code="batch", where="batch")
    limit = settings().batch_limit
    if len(messages) > limit:
        raise Rejected(
            f"batch has {len(messages)} events; at most {limit} at once", code="batch_too_long", where="batch"
        )
    return messages


def _normalise_all(
    messages: list[Any], body: Message, shop: Shop
) -> tuple[list[Event], list[int], list[dict[str, Any]]]:
    """The good events, their positions in the batch, and the errors of the others."""
    context, sent_at, received_at = body.get("context"), body.get("sentAt"), SYSTEM.now()
    now = _shop_time(shop, received_at)
    events, positions, errors = [], [], []
    for index, message in enumerate(messages):
        try:
            whole = _with_shared(message, context, body.get("timestamp")) if context or "timestamp" in body else message
            events.append(normalise(whole, shop, now=now, received_at=received_at, sent_at=sent_at))
            positions.append(index)
        except Rejected as error:
            errors.append(_error(index, error))
    return events, positions, errors


def _with_shared(message: Any, context: Any, timestamp: Any) -> Any:
    """What the batch says once for all of its messages; a message's own word goes first."""
    if not isinstance(message, dict):
        return message
    whole = dict(message)
    if timestamp is not None:
        whole.setdefault("timestamp", timestamp)
    own = message.get("context")
    if context is not None and (own is None or isinstance(own, dict)):
        whole["context"] = {**context, **(own or {})} if isinstance(context, dict) else context
    return whole


def _error(index: int, error: Rejected) -> dict[str, Any]:
    where = f"batch[{index}].{error.where}" if error.where else f"batch[{index}]"
    return {"index": index, "code": error.code, "reason": error.detail, "where": where}


def _summary(
    events: list[Event],
    stored: list[Event],
    duplicates: frozenset[int],
    errors: list[dict[str, Any]],
    made: list[int],
    positions: list[int] | None = None,
) -> bytes:
    body: dict[str, Any] = {
        "success": True,
        "accepted": len(stored) - len(duplicates),
        "duplicates": len(duplicates),
        "rejected": len(errors),
        "errors": errors,
    }
    if made:
        ids = dict(zip(positions or [0], events, strict=True))
        body["message_ids"] = [{"index": index, "messageId": ids[index].source_id} for index in made]
    return orjson.dumps(body)


# -- the routes ---------------------------------------------------------------------------------------------------

_REPLY = {
    "type": "object",
    "required": ["success", "accepted", "duplicates", "rejected", "errors"],
    "properties": {
        "success": {"type": "boolean"},
        "accepted": {"type": "integer", "description": "stored now"},
        "duplicates": {"type": "integer", "description": "stored earlier, by messageId"},
        "rejected": {"type": "integer"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "code", "reason", "where"],
                "properties": {
                    "index": {"type": "integer"},
                    "code": {"type": "string"},
                    "reason": {"type": "string"},
                    "where": {"type": "string"},
                },
            },
        },
        "message_ids": {
            "type": "array",
            "description": "ids made for messages that had none",
            "items": {
                "type": "object",
                "properties": {"index": {"type": "integer"}, "messageId": {"type": "string"}},
            },
        },
    },
}
_COMMON = {
    "type": {"type": "string", "enum": list(KINDS)},
    "messageId": {"type": "string", "description": "the same id again is stored once"},
    "userId": {"type": "string"},
    "anonymousId": {"type": "string"},
    "timestamp": {"type": "string", "format": "date-time"},
    "sentAt": {"type": "string", "format": "date-time"},
    "context": {"type": "object"},
    "writeKey": {"type": "string"},
}
_OWN: dict[str, dict[str, Any]] = {
    "track": {"event": {"type": "string"}, "properties": {"type": "object"}},
    "identify": {"traits": {"type": "object"}},
    "page": {"name": {"type": "string"}, "properties": {"type": "object"}},
    "screen": {"name": {"type": "string"}, "properties": {"type": "object"}},
    "alias": {"previousId": {"type": "string"}},
    "group": {"groupId": {"type": "string"}, "traits": {"type": "object"}},
}


@dataclass(frozen=True, slots=True)
class _Path:
    path: str


async def serve_hot(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI form of the endpoints of HOT: the same check of the caller, the same translation of errors."""
    scope["route"] = path = _Path(scope["path"])  # for the metrics
    request = Request(scope, receive)
    try:
        answer = await HOT[path.path](request, await _WRITE_KEY(request))
    except Exception as error:  # noqa: BLE001 - translated, as at every border
        answer = of_any(request, error)
    await answer(scope, receive, send)


def _described(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object", "properties": properties}}},
        },
        "responses": {"200": {"description": "Committed", "content": {"application/json": {"schema": _REPLY}}}},
    }


def _one(kind: str) -> Endpoint:
    async def take(request: Request, caller: Tracker) -> Response:
        return await _take_one(kind, request, caller)

    return take


HOT: dict[str, Endpoint] = {"/v1/batch": batch}
"""What api.hot_path serves without FastAPI's machinery; the routes below describe it, and serve it under a prefix."""

for _kind in KINDS:
    _take = HOT[f"/v1/{_kind}"] = _one(_kind)
    router.add_api_route(
        f"/v1/{_kind}",
        _take,
        methods=["POST"],
        name=_kind,
        operation_id=_kind,
        summary=f"Store one {_kind} message",
        openapi_extra=_described({**_COMMON, **_OWN[_kind]}),
    )
    if _kind != "screen":  # analytics.js shortens the paths
        HOT[f"/v1/{_kind[0]}"] = _take
        router.add_api_route(f"/v1/{_kind[0]}", _take, methods=["POST"], name=f"{_kind}_short", include_in_schema=False)

_MESSAGES = {"type": "array", "items": {"type": "object", "properties": _COMMON}}
router.add_api_route(
    "/v1/batch",
    batch,
    methods=["POST"],
    name="batch",
    operation_id="batch",
    summary="Store up to 1,000 messages",
    openapi_extra=_described(
        {"batch": _MESSAGES, **{name: _COMMON[name] for name in ("context", "sentAt", "timestamp", "writeKey")}}
    ),
)
