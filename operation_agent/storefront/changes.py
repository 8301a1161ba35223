"""Changes at the shop: asked for, looked at, made, taken back. This writes rows and wake-ups; `change_steps` does them.

asked → previewed → applying → applied → undoing → undone; refused, cancelled; unknown until the shop was asked. What
was uncertain is never guessed. Leases, retries and everything `_at` here are system time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.kit.errors import Conflict, NotFound
from operation_agent.kit.ids import new_id
from operation_agent.store import audit, outbox
from operation_agent.store.shops import Shop

from . import kinds

TOPIC = "storefront.change"
OPEN = ("asked", "applying", "undoing", "unknown")
STATES = (*OPEN, "previewed", "applied", "undone", "refused", "cancelled")
_VENDORS = sorted({vendor for kind in kinds.KINDS.values() for vendor in kind.scopes})


@dataclass(frozen=True, slots=True)
class Change:
    """A row of `shop_changes`. `before` and `after` are the values at the shop as last seen; `undo` opens the way back.

    `reason` says why it stands where it stands; `errors` what the shop said of each field.
    """

    id: UUID
    vendor: str
    kind: str
    subject: str
    parameters: dict[str, Any]
    state: str
    apply_asked: bool
    force: bool
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    warnings: list[str]
    ref: str | None
    undo: dict[str, Any] | None
    why_no_undo: str | None
    reason: str | None
    reason_code: str | None
    errors: list[dict[str, Any]]
    fence: int
    attempts: int
    retry_at: datetime | None
    lease_until: datetime | None
    actor: str
    asked_at: datetime
    applied_at: datetime | None
    undone_at: datetime | None
    updated_at: datetime


COLUMNS = ", ".join(Change.__slots__)


def change_of(row: Row[Any]) -> Change:
    return Change(**row._mapping)


_INSERT = text("""
INSERT INTO shop_changes (shop_id, id, vendor, kind, subject, parameters, state, apply_asked, retry_at, actor, asked_at,
  updated_at)
VALUES (:shop, :id, :vendor, :kind, :subject, CAST(:parameters AS jsonb), 'asked', :apply, :at, :actor, :at, :at)
""")


def ask(
    session: Session, shop: Shop, kind: str, written: Mapping[str, Any], *, apply: bool, at: datetime, actor: str
) -> Change:
    """Write down a change to be previewed, and made too with `apply`.

    Raises Rejected for parameters that are not of this kind, Conflict when no shop is connected. `at` is system time.
    """
    parameters = kinds.read(kind, written, at=at + shop.clock_offset)
    change_id, subject = new_id(), kinds.subject_of(kind, parameters)
    session.execute(
        _INSERT,
        {
            "shop": shop.id, "id": change_id, "vendor": _vendor(session, shop), "kind": kind, "subject": subject,
            "parameters": orjson.dumps(parameters).decode(), "apply": apply, "actor": actor, "at": at,
        },
    )  # fmt: skip
    _note(session, shop, change_id, "asked", at, actor, {"kind": kind, "subject": subject, "apply": apply})
    return get(session, shop.id, change_id)


def _vendor(session: Session, shop: Shop) -> str:
    found: str | None = session.execute(
        text(
            "SELECT vendor FROM integrations WHERE shop_id = :shop AND enabled AND vendor = ANY(:vendors)"
            " ORDER BY vendor LIMIT 1"
        ),
        {"shop": shop.id, "vendors": _VENDORS},
    ).scalar()
    if found is None:
        raise Conflict(f"connect the shop first; changes can be made at {', '.join(_VENDORS)}", code="not_connected")
    return found


def apply(session: Session, shop: Shop, change_id: UUID, *, at: datetime, actor: str) -> Change:
    """Have a previewed change made. Raises NotFound, and Conflict in any other state."""
    change = get(session, shop.id, change_id, lock=True)
    if change.state != "previewed":
        raise Conflict(f"it is {change.state}; only what is previewed can be applied", code="state")
    _move(session, shop, change_id, "applying", at, apply_asked=True)
    _note(session, shop, change_id, "apply_asked", at, actor, {"kind": change.kind})
    return get(session, shop.id, change_id)


def undo(session: Session, shop: Shop, change_id: UUID, *, force: bool, at: datetime, actor: str) -> Change:
    """Have a change taken back; `force`: even if somebody else changed the values since.

    Raises NotFound, and Conflict when it was not applied or cannot be taken back.
    """
    change = get(session, shop.id, change_id, lock=True)
    if change.state != "applied":
        raise Conflict(f"it is {change.state}; only what is applied can be taken back", code="state")
    if change.undo is None:
        raise Conflict(f"it cannot be taken back: {change.why_no_undo}", code="no_undo")
    _move(session, shop, change_id, "undoing", at, force=force)
    _note(session, shop, change_id, "undo_asked", at, actor, {"kind": change.kind, "force": force})
    return get(session, shop.id, change_id)


def cancel(session: Session, shop: Shop, change_id: UUID, *, at: datetime, actor: str) -> Change:
    """Drop a change that nothing was done of. One that is unknown may be dropped too, by who has looked at the shop.

    Raises NotFound, and Conflict for what is being done or is done.
    """
    change = get(session, shop.id, change_id, lock=True)
    waits = change.state == "applying" and change.attempts == 0
    rests = change.lease_until is None or change.lease_until <= at
    if not (change.state in ("asked", "previewed", "unknown") or waits) or not rests:
        raise Conflict(f"it is {change.state}; that cannot be cancelled", code="state")
    _move(session, shop, change_id, "cancelled", at, retry_at=None)
    _note(session, shop, change_id, "cancelled", at, actor, {"kind": change.kind, "was": change.state})
    return get(session, shop.id, change_id)


def _move(session: Session, shop: Shop, change_id: UUID, state: str, at: datetime, **values: Any) -> None:
    given = {"retry_at": at, "reason": None, "reason_code": None, "attempts": 0, "lease_until": None} | values
    columns = ", ".join(f"{name} = :{name}" for name in given)
    session.execute(
        text(
            f"UPDATE shop_changes SET state = :state, fence = fence + 1, updated_at = :at, errors = '[]', {columns}"  # noqa: S608
            " WHERE shop_id = :shop AND id = :id"
        ),
        {"shop": shop.id, "id": change_id, "state": state, "at": at, **given},
    )


def _note(
    session: Session, shop: Shop, change_id: UUID, what: str, at: datetime, actor: str, detail: dict[str, Any]
) -> None:
    """The audit log is for ever: it names the change, whose row has the values, and holds no personal data."""
    audit.record(
        session, shop.id, at=at, actor=actor, verb=f"shop_change.{what}", subject=f"shop_change:{change_id}",
        detail=detail,
    )  # fmt: skip
    outbox.ring(session, shop.id, [(TOPIC, "")], at=at)


def get(session: Session, shop_id: UUID, change_id: UUID, *, lock: bool = False) -> Change:
    """Raises NotFound."""
    row = session.execute(
        text(
            f"SELECT {COLUMNS} FROM shop_changes WHERE shop_id = :shop AND id = :id"  # noqa: S608
            + (" FOR UPDATE" if lock else "")
        ),
        {"shop": shop_id, "id": change_id},
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no change {change_id} of this shop")
    return change_of(row)


def list_changes(
    session: Session, shop_id: UUID, *, kind: str | None, state: str | None, subject: str | None, before: UUID | None,
    limit: int,
) -> Sequence[Change]:  # fmt: skip
    """The newest first, those older than `before`."""
    rows = session.execute(
        text(
            f"SELECT {COLUMNS} FROM shop_changes WHERE shop_id = :shop"  # noqa: S608
            " AND (CAST(:kind AS text) IS NULL OR kind = :kind) AND (CAST(:state AS text) IS NULL OR state = :state)"
            " AND (CAST(:subject AS text) IS NULL OR subject = :subject)"
            " AND (CAST(:before AS uuid) IS NULL OR id < :before) ORDER BY id DESC LIMIT :limit"
        ),
        {"shop": shop_id, "kind": kind, "state": state, "subject": subject, "before": before, "limit": limit},
    )
    return [change_of(row) for row in rows]


DUE = """
FROM shop_changes c JOIN integrations i ON i.shop_id = c.shop_id AND i.vendor = c.vendor
WHERE c.shop_id = :shop AND c.state IN ('asked', 'applying', 'undoing', 'unknown') AND c.retry_at <= :at
  AND (c.lease_until IS NULL OR c.lease_until <= :at) AND i.enabled AND i.problem IS NULL
  AND (strpos(c.subject, ':') = 0 OR NOT EXISTS (
    SELECT 1 FROM shop_changes o WHERE o.shop_id = c.shop_id AND o.subject = c.subject
      AND o.id <> c.id AND o.lease_until > :at))
"""
"""One change of a thing at a time. A shop whose connection has a problem waits; nothing of it is lost."""


_PUT_OFF = text(f"""
UPDATE shop_changes SET retry_at = :until, reason = :reason, reason_code = 'unauthorized', updated_at = :at
WHERE shop_id = :shop AND id IN (SELECT c.id {DUE} AND c.vendor = :vendor FOR UPDATE OF c SKIP LOCKED)
""")  # noqa: S608 - a text of ours


def put_off(session: Session, shop_id: UUID, vendor: str, *, at: datetime, until: datetime, reason: str) -> None:
    """What is due cannot even be tried: say why, and look again later (or when the connection is entered anew)."""
    session.execute(
        _PUT_OFF,
        {"shop": shop_id, "vendor": vendor, "at": at, "until": until, "reason": reason},
    )


def due(session: Session, shop_id: UUID, *, at: datetime) -> list[tuple[str, str]]:
    """The wake-up that is missing, for the sweep."""
    is_due = session.execute(text(f"SELECT EXISTS (SELECT 1 {DUE})"), {"shop": shop_id, "at": at}).scalar()
    return [(TOPIC, "")] if is_due else []
