"""A definition as a request's body: JSON, or YAML with `Content-Type: application/yaml`; and which state of a strategy
its sender looked at (`If-Match`)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Header
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api import json_body
from operation_agent.kit.errors import Rejected
from operation_agent.strategies import document

JSON = frozenset({"", "application/json"})
YAML = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})


async def _written(request: Request) -> Any:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media not in JSON | YAML:
        raise Rejected("send application/json or application/yaml", code="media_type", where="Content-Type", status=415)
    raw = await json_body.read(request)
    return await run_in_threadpool(document.read, raw, yaml=media in YAML)


Written: Any = Annotated[Any, Depends(_written)]
"""The body as plain dicts and lists, within the limits of strategies.document. Raises Rejected."""


async def _expected(
    tag: Annotated[
        str | None,
        Header(
            alias="If-Match",
            description="The `revision` of the strategy you looked at, as its ETag says it; 409 when it has changed"
            " since. Leave it out, or send *, to go ahead whatever it is.",
        ),
    ] = None,
) -> int | None:
    bare = (tag or "*").strip().removeprefix("W/").strip('"')
    if bare == "*":
        return None
    if not (bare.isascii() and bare.isdigit() and len(bare) <= 9):
        raise Rejected('If-Match is a strategy\'s revision, such as "7"', code="if_match", where="If-Match")
    return int(bare)


ExpectedRevision: Any = Annotated[int | None, Depends(_expected)]
"""The revision in If-Match, or None."""


def etag(revision: int) -> dict[str, str]:
    """The header that `ExpectedRevision` reads."""
    return {"ETag": f'"{revision}"'}


def modelled(model: type[BaseModel], body: Any) -> Any:
    """A body as `model`. Raises Rejected, with every place at fault in `errors`."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        errors = [
            {"where": ".".join(str(part) for part in one["loc"]), "code": one["type"], "reason": one["msg"]}
            for one in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        first = errors[0]
        place = first["where"] or None
        raise Rejected(": ".join(filter(None, (place, first["reason"]))), where=place, errors=errors) from None


def described(schema: dict[str, Any], *, yaml: bool = True) -> dict[str, Any]:
    """What `openapi_extra` says of a route that takes `Written`."""
    kinds: dict[str, Any] = {"application/json": {"schema": schema}}
    if yaml:
        kinds["application/yaml"] = {"schema": {"type": "string", "description": "The same, as YAML"}}
    return {"requestBody": {"required": True, "content": kinds}}


DEFINITION: dict[str, Any] = {
    "type": "object",
    "title": "Definition",
    "description": "A strategy as docs/howto/write-a-strategy.md describes it; GET /api/strategies/templates has some",
    "required": ["key", "name", "goal", "why", "rules"],
    "properties": {
        "key": {"type": "string", "examples": ["spring-win-back"]},
        "name": {"type": "object"},
        "goal": {"type": "string", "examples": ["win_back"]},
        "why": {"type": "object"},
        "holdout": {"type": "number", "examples": [0.2]},
        "rules": {"type": "array", "items": {"type": "object"}},
    },
}
