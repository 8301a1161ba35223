"""API keys of a shop, and the people who may log in."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from api.dependencies import Database, Requires
from api.errors import Problem
from api.fields import Text
from api.idempotency import Idempotent
from operation_agent.access import keys, users
from operation_agent.access.permissions import allows
from operation_agent.access.principal import Principal
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Denied
from operation_agent.store import audit
from operation_agent.store.session import bind_scope, for_shop, for_system

router = APIRouter(prefix="/api", tags=["access"])

Keeper = Annotated[Principal, Depends(Requires("keys:write"))]
_CONFLICT: dict[int | str, dict[str, Any]] = {409: {"model": Problem, "description": "It exists, or was done already"}}


class Key(BaseModel):
    id: UUID
    name: str
    prefix: str = Field(description="The key's first characters, to recognise it by")
    scopes: list[str]
    created_at: datetime
    revoked_at: datetime | None


class NewKey(BaseModel):
    name: Text = Field(min_length=1, max_length=200)
    scopes: list[Text] = Field(min_length=1, max_length=50, examples=[["events:write"]])


class MadeKey(Key):
    key: str = Field(description="The key itself: shown now and never again")


def _shown(key: keys.ApiKey) -> dict[str, Any]:
    return {
        "id": key.id, "name": key.name, "prefix": key.prefix, "scopes": key.scopes,
        "created_at": key.created_at, "revoked_at": key.revoked_at,
    }  # fmt: skip


@router.get("/keys", operation_id="list_keys", summary="A shop's API keys, newest first", response_model=list[Key])
def list_keys(caller: Keeper, database: Database) -> list[Key]:
    with for_shop(database, caller.shop.id) as session:
        return [Key(**_shown(key)) for key in keys.list_keys(session, caller.shop.id)]


@router.post(
    "/keys",
    operation_id="create_key",
    summary="Make an API key",
    status_code=201,
    response_model=MadeKey,
    responses=_CONFLICT,
)
def create_key(body: NewKey, caller: Keeper, database: Database, once: Idempotent) -> Response:
    """Nobody can give a key more than they have themselves."""
    for scope in body.scopes:
        if not allows(caller.scopes, scope):
            raise Denied(f"{caller.actor} cannot give {scope[:60]}, not having it", code="scope_missing")

    def work(session: Session) -> MadeKey:
        token, key = keys.create_key(session, caller.shop.id, body.name, body.scopes, SYSTEM.now(), actor=caller.actor)
        return MadeKey(key=token, **_shown(key))

    return once.run(database, caller.shop.id, work, status=201)


@router.delete(
    "/keys/{key_id}",
    operation_id="revoke_key",
    summary="Revoke a key: within two seconds it opens nothing",
    response_model=Key,
    responses={404: {"model": Problem, "description": "No such key in this shop"}, **_CONFLICT},
)
def revoke_key(key_id: UUID, caller: Keeper, database: Database) -> Key:
    with for_shop(database, caller.shop.id) as session:
        revoked = keys.revoke_key(session, caller.shop.id, key_id, SYSTEM.now(), actor=caller.actor)
    return Key(**_shown(revoked))


class User(BaseModel):
    id: UUID
    email: str
    created_at: datetime
    disabled_at: datetime | None


class NewUser(BaseModel):
    email: Text = Field(max_length=320)
    password: Text = Field(min_length=users.SHORTEST_PASSWORD, max_length=1024)


def _person(caller: Annotated[Principal, Depends(Requires("users:write"))]) -> Principal:
    """A user sees every shop, so no shop's key may make or list users. Raises Denied."""
    if caller.kind != "user":
        raise Denied("users belong to the whole installation: log in to manage them", code="log_in_needed")
    return caller


Person = Annotated[Principal, Depends(_person)]


def _user(user: users.User) -> User:
    return User(id=user.id, email=user.email, created_at=user.created_at, disabled_at=user.disabled_at)


@router.get("/users", operation_id="list_users", summary="Who may log in", response_model=list[User])
def list_users(_caller: Person, database: Database) -> list[User]:
    with for_system(database) as session:
        return [_user(user) for user in users.list_users(session)]


@router.post(
    "/users",
    operation_id="create_user",
    summary="Let somebody log in",
    status_code=201,
    response_model=User,
    responses=_CONFLICT,
)
def create_user(body: NewUser, caller: Person, database: Database, once: Idempotent) -> Response:
    """Written into the audit log of the shop that the request names."""

    def work(session: Session) -> User:
        at = SYSTEM.now()
        bind_scope(session, None, system=True)
        made = users.create_user(session, body.email, body.password, at)
        bind_scope(session, caller.shop.id)
        audit.record(
            session, caller.shop.id, at=at, actor=caller.actor, verb="user.created", subject=f"user:{made.email}"
        )
        return _user(made)

    return once.run(database, caller.shop.id, work, status=201)
