"""The link in each message with which its recipient leaves. A GET changes nothing: mail scanners follow links.

The POST is RFC 8058's one click, which mail programs send by themselves, and what the page's button does.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path
from sqlalchemy import Row, text
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse

from api.dependencies import Database
from api.errors import Problem
from operation_agent.actions import unsubscribe
from operation_agent.actions.situations import people_of
from operation_agent.events import intake
from operation_agent.events.event import Event
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import NotFound
from operation_agent.kit.ids import new_id
from operation_agent.kit.secrets import secret_key
from operation_agent.kit.settings import settings
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop

router = APIRouter(prefix=unsubscribe.PATH.rstrip("/"), tags=["webhooks"])

Token = Annotated[str, Path(pattern=r"^[A-Za-z0-9_=-]{16,128}$")]
_RESPONSES: dict[int | str, dict[str, Any]] = {
    403: {"model": Problem, "description": "The link was not made here, or is damaged"},
    404: {"model": Problem, "description": "What it was about is gone"},
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex"><title>Unsubscribe · 退订</title>
<style>
:root {{ color-scheme: light dark; font: 17px/1.6 system-ui, "PingFang SC", "Noto Sans SC", sans-serif }}
body {{ max-width: 30rem; margin: 5rem auto; padding: 0 1.25rem; text-align: center }}
button {{ font: inherit; padding: .6rem 1.6rem; cursor: pointer }}
</style></head><body>{content}</body></html>
"""
_ASK = """<p>No more messages of this kind?</p><p lang="zh">不再接收此类邮件？</p>
<form method="post"><button>Unsubscribe · 退订</button></form>"""
_DONE = """<p>Done: you will get no more of these.</p><p lang="zh">已退订，您将不再收到此类邮件。</p>"""


def _page(content: str) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(content=content), headers=_HEADERS)


@router.get(
    "/{token}",
    operation_id="ask_unsubscribe",
    summary="Ask whether to unsubscribe",
    response_class=HTMLResponse,
    responses=_RESPONSES,
)
def ask(token: Token) -> HTMLResponse:
    unsubscribe.read(secret_key(settings()), token)
    return _page(_ASK)


@router.post(
    "/{token}",
    operation_id="unsubscribe",
    summary="Unsubscribe with one click (RFC 8058)",
    response_class=HTMLResponse,
    responses=_RESPONSES,
)
def leave(token: Token, database: Database) -> HTMLResponse:
    """Stored as an event before it is answered; a second click is the same event."""
    shop_id, action_id = unsubscribe.read(secret_key(settings()), token)
    at = SYSTEM.now()
    with for_shop(database, shop_id) as session:
        shop = load_shop(session, shop_id)
        row = _action(session, shop_id, action_id)
        intake.commit(session, shop_id, [_event(session, shop_id, row, occurred_at=at + shop.clock_offset, at=at)])
    return _page(_DONE)


def _action(session: Session, shop_id: UUID, action_id: UUID) -> Row[Any]:
    row = session.execute(
        text("SELECT id, customer_id, channel, topic FROM actions WHERE shop_id = :shop AND id = :id"),
        {"shop": shop_id, "id": action_id},
    ).one_or_none()
    if row is None:
        raise NotFound("the message this link came with is not known any more")
    return row


def _event(session: Session, shop_id: UUID, row: Row[Any], *, occurred_at: datetime, at: datetime) -> Event:
    """Whoever the recipient is by now, after merges, leaves with the address they have."""
    person = people_of(session, shop_id, {row.customer_id}).get(row.customer_id)
    if person is None or (person.email is None and person.external_id is None):
        raise NotFound("the recipient of this message is not known any more")
    identity = {
        kind: value for kind, value in (("external", person.external_id), ("email", person.email)) if value is not None
    }
    properties = {"action_id": str(row.id), "topic": row.topic, "reason": "link"}
    if person.email is not None:
        properties["address"] = person.email
    return Event(
        id=new_id(), source="unsubscribe", source_id=str(row.id), type="email.unsubscribed", occurred_at=occurred_at,
        received_at=at, identity=identity, properties=properties,
    )  # fmt: skip
