"""The script for Shopify's customer events, ready to be pasted.

Its key is read by every visitor, so only a key that can send events and nothing else is ever written into it. We keep
keys as digests: the text comes from the caller, in a body and never in an address, which logs and histories keep.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from api.dependencies import Database, Requires
from api.errors import Problem
from api.fields import Text
from api.idempotency import REPLAY_HEADER, Idempotent
from integrations.shopify import pixel
from operation_agent.access import keys
from operation_agent.access.principal import Principal
from operation_agent.kit.errors import Denied, NotFound, Rejected
from operation_agent.kit.settings import settings
from operation_agent.store.session import for_shop, for_system
from operation_agent.store.shops import Shop
from operation_agent.storefront import connection

router = APIRouter(prefix="/api/integrations/shopify/pixel", tags=["integrations"])

Reader = Annotated[Principal, Depends(Requires("integrations:read"))]
Carts = Annotated[
    Literal["pixel", "webhooks"] | None,
    Query(
        description="Who tells of carts and checkouts; absent: the webhooks where they are subscribed, else the pixel"
    ),
]
EVENTS_ONLY = ["events:write"]
_TOLD_BY_WEBHOOK = frozenset({"carts/create", "checkouts/create"})
_SCRIPT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The script; how to install it stands in its first lines, in Chinese and English",
        "content": {"text/javascript": {"schema": {"type": "string"}}},
    },
}


class PixelKey(BaseModel):
    write_key: Text = Field(max_length=250, description="An API key whose only scope is events:write")


class PixelScript(BaseModel):
    script: str


@router.get(
    "",
    operation_id="get_shopify_pixel",
    summary="The script that reports what visitors do, without its key",
    response_class=Response,
    responses={**_SCRIPT, 404: {"model": Problem, "description": "No such key in this shop"}},
)
def get(caller: Reader, database: Database, key_id: UUID | None = None, carts: Carts = None) -> Response:
    """Where the key belongs stands the beginning of the one meant by `key_id`: its text is not known here. POST with
    the key gives the script complete."""
    with for_shop(database, caller.shop.id) as session:
        prefix = _prefix(session, caller.shop, key_id) if key_id else keys.MARK
        made = _made(session, caller.shop, pixel.placeholder(prefix), carts)
    return _answer(made.script)


@router.post(
    "",
    operation_id="make_shopify_pixel",
    summary="The script that reports what visitors do, with its key: ready to be pasted",
    response_class=Response,
    responses={**_SCRIPT, 409: {"model": Problem, "description": "The Idempotency-Key was used for another request"}},
)
def make(body: PixelKey, caller: Reader, database: Database, once: Idempotent, carts: Carts = None) -> Response:
    """A key that may do more than send events, or is of another shop, is refused."""
    try:
        with for_system(database) as session:
            owner = keys.authenticate(session, body.write_key)
    except Denied as error:
        raise Rejected(error.detail, code=error.code, where="body.write_key") from None
    if owner.shop.id != caller.shop.id:
        raise Rejected("this key is of another shop", code="key_of_another_shop", where="body.write_key")
    _check_scopes(sorted(owner.scopes), "body.write_key")
    kept = once.run(
        database, caller.shop.id, lambda session: _made(session, caller.shop, body.write_key, carts), status=200
    )
    return _answer(orjson.loads(kept.body)["script"], kept.headers.get(REPLAY_HEADER))


def _prefix(session: Session, shop: Shop, key_id: UUID) -> str:
    """How the text of a key begins that may be given to everybody. Raises NotFound, Rejected."""
    found = next((key for key in keys.list_keys(session, shop.id) if key.id == key_id), None)
    if found is None:
        raise NotFound(f"there is no key {key_id}")
    if found.revoked_at is not None:
        raise Rejected("this key was revoked; make another with the scope events:write", where="query.key_id")
    _check_scopes(found.scopes, "query.key_id")
    return found.prefix


def _check_scopes(scopes: list[str], where: str) -> None:
    if scopes != EVENTS_ONLY:
        raise Rejected(
            f"everybody who visits the shop could read this key, and it may do more than send events"
            f" ({', '.join(scopes)}); make one with the scope events:write alone",
            code="key_too_powerful",
            where=where,
        )


def _made(session: Session, shop: Shop, write_key: str, carts: pixel.Carts | None) -> PixelScript:
    address = settings().public_url or f"http://{settings().host}:{settings().port}"
    carts = carts or ("webhooks" if _webhooks_tell_of_carts(session, shop) else "pixel")
    return PixelScript(script=pixel.snippet(address, write_key, currency=shop.currency, carts=carts))


def _answer(script: str, replayed: str | None = None) -> Response:
    headers = {"Cache-Control": "no-store"} | ({REPLAY_HEADER: replayed} if replayed else {})
    return Response(script, media_type="text/javascript", headers=headers)


def _webhooks_tell_of_carts(session: Session, shop: Shop) -> bool:
    """As the last look at the subscriptions found it."""
    row = connection.find(session, shop.id, "shopify")
    if row is None or not row.enabled:
        return False
    told = row.subscriptions
    refused = {one.get("topic") for one in told.get("refused", [])}
    missing = refused | set(told.get("lacking_scope", {})) | set(told.get("not_in_version", []))
    return _TOLD_BY_WEBHOOK.issubset(set(told.get("wanted", [])) - missing)
