"""Asking for an approval, voting on it, and what stands: the one place that writes `approvals` and their votes.

The row is locked while somebody asks, votes or relies on it, before anything else of the transaction (actions,
budgets, audit): so a vote and a change of what is voted on cannot pass each other. Times are system time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.kit.errors import Conflict, Denied, NotFound, Rejected
from operation_agent.kit.ids import new_id
from operation_agent.store import audit

from .approval import Answer, Approval, Kind, State, Vote, tally
from .people import behind

_COLUMNS = (
    "p.id, p.kind, p.subject, p.fingerprint, p.state, p.needed, p.why, p.requested_by, p.authors, p.requested_at,"
    " p.expires_at, p.settled_at, p.granted_at"
)
_CURRENT = f"""
SELECT {_COLUMNS} FROM approvals p
WHERE p.shop_id = :shop AND p.kind = :kind AND p.subject = :subject AND p.state <> 'superseded'
"""  # noqa: S608
_VOTES = """
SELECT approval_id, voter, verdict, comment, at FROM approval_votes
WHERE shop_id = :shop AND approval_id = ANY(:ids) ORDER BY at, voter
"""


# -- asking -------------------------------------------------------------------------------------------------------

_INSERT = """
INSERT INTO approvals (shop_id, id, kind, subject, fingerprint, needed, why, requested_by, authors, requested_at,
                       expires_at)
VALUES (:shop, :id, :kind, :subject, :fingerprint, :needed, CAST(:why AS jsonb), :by, :authors, :at, :expires_at)
ON CONFLICT (shop_id, kind, subject) WHERE state <> 'superseded' DO NOTHING
RETURNING id
"""


def request(
    session: Session, shop_id: UUID, *, kind: Kind, subject: str, fingerprint: str, needed: int,
    why: Sequence[Mapping[str, Any]], by: str, at: datetime, expires_at: datetime, authors: Sequence[str] = (),
) -> Approval:  # fmt: skip
    """Ask for `needed` people's yes to `subject` as `fingerprint` describes it; neither `by` nor `authors` may give it.

    The same question again is the same approval, whatever became of it, unless it expired unanswered: then it is asked
    anew. Another fingerprint resets: what was said of the old one does not count any more. Writes the audit log.
    """
    made, is_new = ask(
        session, shop_id, kind=kind, subject=subject, fingerprint=fingerprint, needed=needed, why=why, by=by, at=at,
        expires_at=expires_at, authors=authors,
    )  # fmt: skip
    if is_new:
        detail = {"kind": kind, "subject": subject, "needed": needed, "why": list(why)}
        _audit(session, shop_id, made.id, "approval.requested", by, at, detail)
    return made


def ask(
    session: Session, shop_id: UUID, *, kind: Kind, subject: str, fingerprint: str, needed: int,
    why: Sequence[Mapping[str, Any]], by: str, at: datetime, expires_at: datetime, authors: Sequence[str] = (),
) -> tuple[Approval, bool]:  # fmt: skip
    """`request` without the audit log, for those who take other locks afterwards; also says whether it is new.

    Leaves the row locked, so that no vote passes before this transaction's work is there. Raises Rejected for an
    approval that nobody could give in time.
    """
    if needed < 1 or expires_at <= at:
        raise Rejected("an approval needs at least one person, and some time", where="approvers")
    approval_id = new_id()
    values = {
        "shop": shop_id, "id": approval_id, "kind": kind, "subject": subject, "fingerprint": fingerprint,
        "needed": needed, "why": orjson.dumps(list(why)).decode(), "by": by, "authors": sorted(set(authors)), "at": at,
        "expires_at": expires_at,
    }  # fmt: skip
    while True:
        old = session.execute(text(f"{_CURRENT} FOR UPDATE"), values).one_or_none()
        if old is not None and _still_stands(old, fingerprint, at):
            return _kept(session, shop_id, old, needed), False
        if old is not None:
            _supersede(session, shop_id, old.id, at)
        # somebody else may have asked at this moment: then look at theirs
        if session.execute(text(_INSERT), values).scalar() is not None:
            return find(session, shop_id, approval_id), True


def _still_stands(old: Row[Any], fingerprint: str, at: datetime) -> bool:
    has_expired = old.state == "expired" or (old.state == "pending" and old.expires_at <= at)
    return old.fingerprint == fingerprint and not has_expired


def _kept(session: Session, shop_id: UUID, old: Row[Any], needed: int) -> Approval:
    """Asked under stricter rules meanwhile: then those count."""
    if old.state == "pending" and needed > old.needed:
        session.execute(
            text("UPDATE approvals SET needed = :needed WHERE shop_id = :shop AND id = :id"),
            {"needed": needed, "shop": shop_id, "id": old.id},
        )
    return find(session, shop_id, old.id)


def _supersede(session: Session, shop_id: UUID, approval_id: UUID, at: datetime) -> None:
    session.execute(
        text(
            "UPDATE approvals SET state = 'superseded', settled_at = COALESCE(settled_at, :at)"
            " WHERE shop_id = :shop AND id = :id"
        ),
        {"at": at, "shop": shop_id, "id": approval_id},
    )


# -- voting -------------------------------------------------------------------------------------------------------


def vote(
    session: Session, shop_id: UUID, approval_id: UUID, *, by: str, verdict: Answer, comment: str, at: datetime
) -> Approval:
    """Say yes or no. Raises NotFound; Denied when it is the voter's own; Conflict when it is settled or expired, or
    the voter has voted. Writes the audit log."""
    made = cast(session, shop_id, approval_id, by=by, verdict=verdict, comment=comment, at=at)
    record_vote(session, shop_id, made, by=by, verdict=verdict, comment=comment, at=at)
    return made


def cast(
    session: Session, shop_id: UUID, approval_id: UUID, *, by: str, verdict: Answer, comment: str, at: datetime
) -> Approval:
    """`vote` without the audit log, for those who take other locks afterwards (then `record_vote`)."""
    row = session.execute(
        text("SELECT 1 FROM approvals WHERE shop_id = :shop AND id = :id FOR UPDATE"),
        {"shop": shop_id, "id": approval_id},
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no approval {approval_id}")
    found = find(session, shop_id, approval_id)
    _check_vote(session, shop_id, found, by, at)
    session.execute(
        text(
            "INSERT INTO approval_votes (shop_id, approval_id, voter, verdict, comment, at)"
            " VALUES (:shop, :id, :by, :verdict, :comment, :at)"
        ),
        {"shop": shop_id, "id": approval_id, "by": by, "verdict": verdict, "comment": comment, "at": at},
    )
    state = tally(found.needed, [*(one.verdict for one in found.votes), verdict])
    if state != "pending":
        session.execute(
            text(
                "UPDATE approvals SET state = :state, settled_at = :at,"
                " granted_at = CASE WHEN :state = 'granted' THEN CAST(:at AS timestamptz) END"
                " WHERE shop_id = :shop AND id = :id"
            ),
            {"state": state, "at": at, "shop": shop_id, "id": approval_id},
        )
    return find(session, shop_id, approval_id)


def _check_vote(session: Session, shop_id: UUID, found: Approval, by: str, at: datetime) -> None:
    if found.state != "pending":
        raise Conflict(f"this approval is {found.state}; no more votes count", code="settled")
    if at >= found.expires_at:
        raise Conflict("this approval has expired; it has to be asked for again", code="expired")
    known = behind(session, shop_id, [by, *(one.voter for one in found.votes)])
    if known[by] & {found.requested_by, *found.authors}:
        raise Denied("nobody approves what they made or asked for themselves", code="own")
    if any(known[by] & known[one.voter] for one in found.votes):
        raise Conflict(f"{by} has voted already", code="voted")


def record_vote(
    session: Session, shop_id: UUID, approval: Approval, *, by: str, verdict: Answer, comment: str, at: datetime
) -> None:
    detail = {"subject": approval.subject, "verdict": verdict, "comment": comment, "state": approval.state}
    _audit(session, shop_id, approval.id, "approval.voted", by, at, detail)


# -- what stands --------------------------------------------------------------------------------------------------


def current(session: Session, shop_id: UUID, kind: Kind, subject: str) -> Approval | None:
    """The latest approval asked for of a subject, or None."""
    row = session.execute(text(_CURRENT), {"shop": shop_id, "kind": kind, "subject": subject}).one_or_none()
    return _with_votes(session, shop_id, [row])[0] if row else None


def is_granted(session: Session, shop_id: UUID, kind: Kind, subject: str, fingerprint: str, at: datetime) -> bool:
    """Whether enough others have said yes to exactly this. Holds the row until the transaction ends: rely on it here.

    A yes does not run out; `at` is only compared with when it was given.
    """
    row = session.execute(
        text(f"{_CURRENT} FOR SHARE"), {"shop": shop_id, "kind": kind, "subject": subject}
    ).one_or_none()
    return row is not None and row.state == "granted" and row.fingerprint == fingerprint and row.granted_at <= at


def find(session: Session, shop_id: UUID, approval_id: UUID) -> Approval:
    """Raises NotFound."""
    row = session.execute(
        text(f"SELECT {_COLUMNS} FROM approvals p WHERE p.shop_id = :shop AND p.id = :id"),  # noqa: S608
        {"shop": shop_id, "id": approval_id},
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no approval {approval_id}")
    return _with_votes(session, shop_id, [row])[0]


def inbox(
    session: Session, shop_id: UUID, *, state: State | None = "pending", kind: Kind | None = None,
    subject: str | None = None, before: UUID | None = None, limit: int = 50,
) -> list[Approval]:  # fmt: skip
    """Approvals, the newest first; `before`: only those asked for earlier than that one."""
    rows = session.execute(
        text(
            f"SELECT {_COLUMNS} FROM approvals p WHERE p.shop_id = :shop"  # noqa: S608
            " AND (CAST(:state AS text) IS NULL OR p.state = CAST(:state AS text))"
            " AND (CAST(:kind AS text) IS NULL OR p.kind = CAST(:kind AS text))"
            " AND (CAST(:subject AS text) IS NULL OR p.subject = CAST(:subject AS text))"
            " AND (CAST(:before AS uuid) IS NULL OR p.id < CAST(:before AS uuid))"
            " ORDER BY p.id DESC LIMIT :limit"
        ),
        {"shop": shop_id, "state": state, "kind": kind, "subject": subject, "before": before, "limit": limit},
    ).all()
    return _with_votes(session, shop_id, rows)


def expire(session: Session, shop_id: UUID, at: datetime) -> int:
    """Close what nobody answered in time; how many that were. Writes the audit log."""
    ids = expire_silently(session, shop_id, at)
    record_expiry(session, shop_id, ids, at)
    return len(ids)


def expire_silently(session: Session, shop_id: UUID, at: datetime) -> list[UUID]:
    """`expire` without the audit log, for those who take other locks afterwards (then `record_expiry`)."""
    rows = session.execute(
        text(
            "UPDATE approvals SET state = 'expired', settled_at = :at WHERE shop_id = :shop AND id = ANY(ARRAY("
            " SELECT id FROM approvals WHERE shop_id = :shop AND state = 'pending' AND expires_at <= :at"
            " ORDER BY id FOR UPDATE)) AND state = 'pending' RETURNING id"
        ),
        {"shop": shop_id, "at": at},
    )
    return sorted(rows.scalars())


def record_expiry(session: Session, shop_id: UUID, approval_ids: Sequence[UUID], at: datetime) -> None:
    for approval_id in approval_ids:
        _audit(session, shop_id, approval_id, "approval.expired", "system", at, {})


def _with_votes(session: Session, shop_id: UUID, rows: Sequence[Row[Any]]) -> list[Approval]:
    votes: dict[UUID, list[Vote]] = {}
    if rows:
        for one in session.execute(text(_VOTES), {"shop": shop_id, "ids": [row.id for row in rows]}):
            votes.setdefault(one.approval_id, []).append(Vote(one.voter, one.verdict, one.comment, one.at))
    return [replace(Approval(**row._mapping), votes=tuple(votes.get(row.id, ()))) for row in rows]


def _audit(
    session: Session, shop_id: UUID, approval_id: UUID, verb: str, actor: str, at: datetime, detail: dict[str, Any]
) -> None:
    audit.record(session, shop_id, at=at, actor=actor, verb=verb, subject=f"approval:{approval_id}", detail=detail)
