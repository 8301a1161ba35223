"""The steps of a sync's row, each one transaction's work.

Every step says whether the row still stood where its caller had seen it: a worker that was thought dead, or was slower
than another, changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.store import audit, outbox
from operation_agent.store.shops import Shop

from .protocol import SYNC_KINDS, Export
from .sync import COLUMNS, LEASE, TOPIC, Sync, of_row

MOST_ATTEMPTS = 9
"""Times in a row that nothing was got on with before a sync fails; the waits between add up to a quarter of an hour."""
MOST_EXPORTS = 4
"""Exports that a storefront is asked for before a sync fails: those before came to nothing."""
SHOWN_REFUSALS = 50
_FIRST_WAIT, _LONGEST_WAIT = timedelta(seconds=4), timedelta(minutes=5)


def _move(session: Session, shop_id: UUID, sync: Sync, changes: Mapping[str, Any], *, at: datetime) -> bool:
    """Change the row if it still stands where `sync` was seen; False when it does not."""
    names = ", ".join(f"{name} = :{name}" for name in changes)
    moved = session.execute(
        text(
            f"UPDATE storefront_syncs SET updated_at = :now, {names} WHERE shop_id = :shop AND id = :id"  # noqa: S608
            " AND state = :was AND bytes_done = :read AND operation_id IS NOT DISTINCT FROM :operation RETURNING 1"
        ),
        {
            "shop": shop_id, "id": sync.id, "was": sync.state, "read": sync.bytes_done,
            "operation": sync.operation_id, "now": at, **changes,
        },
    )  # fmt: skip
    return moved.scalar() is not None


def started(session: Session, shop_id: UUID, sync: Sync, export: Export, *, asked_at: datetime, at: datetime) -> bool:
    """The storefront prepares the export, asked for at `asked_at`: what changes after that may not be in it."""
    changes = {
        "state": "running", "operation_id": export.operation_id, "started_at": asked_at, "attempts": 0,
        "exports": sync.exports + 1, "wake_at": at + timedelta(seconds=1), "objects_total": export.total,
    }  # fmt: skip
    return _move(session, shop_id, sync, changes, at=at)


def still_running(session: Session, shop_id: UUID, sync: Sync, export: Export, *, at: datetime) -> bool:
    """Not ready yet: look again, the later the longer it has taken, at most every half a minute."""
    taken = at - (sync.started_at or at)
    wait = min(max(taken / 10, timedelta(seconds=1)), timedelta(seconds=30))
    changes = {"objects_total": export.total, "attempts": 0, "error": None, "error_code": None, "wake_at": at + wait}
    return _move(session, shop_id, sync, changes, at=at)


def ready(session: Session, shop_id: UUID, sync: Sync, export: Export, *, at: datetime) -> bool:
    """The result can be read, from where reading stopped. The storefront has room for another export now."""
    changes = {
        "state": "loading", "url": export.url, "url_at": at, "objects_total": export.total,
        "bytes_total": export.size, "loading_at": sync.loading_at or at, "wake_at": at,
    }  # fmt: skip
    moved = _move(session, shop_id, sync, changes, at=at)
    if moved:
        _wake_next(session, shop_id, sync.vendor, at)
    return moved


def _wake_next(session: Session, shop_id: UUID, vendor: str, at: datetime) -> None:
    """Whoever waits only because other exports ran tries again at once: the first in the order of a first load."""
    woken = session.execute(
        text(
            "UPDATE storefront_syncs SET wake_at = :at WHERE shop_id = :shop AND id = ("
            " SELECT id FROM storefront_syncs WHERE shop_id = :shop AND vendor = :vendor AND state = 'asked'"
            " AND error_code = 'export_busy' ORDER BY array_position(CAST(:order AS text[]), kind) LIMIT 1)"
            " AND wake_at > :at RETURNING kind"
        ),
        {"shop": shop_id, "vendor": vendor, "at": at, "order": list(SYNC_KINDS)},
    ).scalar()
    if woken is not None:
        outbox.ring(session, shop_id, [(TOPIC, woken)], at=at)


def address_expired(session: Session, shop_id: UUID, sync: Sync, *, at: datetime) -> bool:
    """Ask the storefront for another address of the same result; what was read stays read."""
    attempts = sync.attempts + 1
    changes = {"state": "running", "url": None, "url_at": None, "attempts": attempts, "wake_at": at + wait(attempts)}
    return _move(session, shop_id, sync, changes, at=at)


def start_anew(session: Session, shop_id: UUID, sync: Sync, error: str, code: str, *, at: datetime) -> bool:
    """The storefront has no result for us: another export is asked for and read from its beginning. What was stored
    already is known then."""
    changes = {
        "state": "asked", "operation_id": None, "url": None, "url_at": None, "objects_total": None,
        "bytes_total": None, "objects_done": 0, "bytes_done": 0, "error": error[:1000], "error_code": code,
        "wake_at": at + wait(sync.exports),
    }  # fmt: skip
    return _move(session, shop_id, sync, changes, at=at)


def waits(
    session: Session, shop_id: UUID, sync: Sync, error: str, code: str, *, at: datetime, until: datetime,
    counts: bool = True,
) -> bool:  # fmt: skip
    """Try the same again later. `counts`: as one of the attempts that a sync has."""
    changes = {
        "attempts": sync.attempts + int(counts), "error": error[:1000], "error_code": code, "wake_at": until,
    }  # fmt: skip
    return _move(session, shop_id, sync, changes, at=at)


def rests(session: Session, shop_id: UUID, sync: Sync, *, at: datetime) -> bool:
    """This worker's turn is over; the next may begin at once."""
    return _move(session, shop_id, sync, {"wake_at": at}, at=at)


def end(session: Session, shop: Shop, sync: Sync, state: str, *, at: datetime, error: str | None = None,
        code: str | None = None) -> bool:  # fmt: skip
    """It is `done`, `failed` (with what to do) or `cancelled`."""
    changes = {
        "state": state, "error": error[:1000] if error else None, "error_code": code, "finished_at": at, "url": None,
        "wake_at": None,
    }  # fmt: skip
    if not _move(session, shop.id, sync, changes, at=at):
        return False
    if sync.state == "running":
        _wake_next(session, shop.id, sync.vendor, at)
    detail = {
        "vendor": sync.vendor, "kind": sync.kind, "mode": sync.mode, "objects": sync.objects_done,
        "missing": sync.missing, "stale": sync.stale, "refused": sync.refused, "error": error,
    }  # fmt: skip
    audit.record(
        session, shop.id, at=at, actor=sync.cancel_by or "worker", verb=f"storefront.sync.{state}",
        subject=f"sync:{sync.id}", detail=detail,
    )  # fmt: skip
    return True


def wait(attempts: int) -> timedelta:
    """How long after the nth attempt in a row that came to nothing."""
    return min(_FIRST_WAIT * 2 ** max(0, attempts - 1), _LONGEST_WAIT)


@dataclass(frozen=True, slots=True)
class Counted:
    """What one batch of objects was. `missing` we did not know, `stale` ours was older, the rest was known."""

    objects: int
    missing: int = 0
    stale: int = 0
    events: int = 0
    tellings: int = 0
    refusals: Sequence[tuple[str, str]] = ()


_ADVANCE = text(f"""
UPDATE storefront_syncs SET bytes_done = :end, objects_done = objects_done + :objects, missing = missing + :missing,
  stale = stale + :stale, refused = refused + :refused, events = events + :events, tellings = tellings + :tellings,
  first_refusals = CASE WHEN jsonb_array_length(first_refusals) < :shown
    THEN jsonb_path_query_array(first_refusals || CAST(:refusals AS jsonb), '$[0 to 49]') ELSE first_refusals END,
  attempts = 0, error = NULL, error_code = NULL, updated_at = :at, wake_at = :until
WHERE shop_id = :shop AND id = :id AND state = 'loading' AND bytes_done = :read AND operation_id = :operation
RETURNING {COLUMNS}
""")  # noqa: S608


def got_on(session: Session, shop_id: UUID, sync: Sync, end: int, counted: Counted, *, at: datetime) -> Sync | None:
    """Everything up to byte `end` is stored, in this very transaction. None: somebody else has got on meanwhile, and
    this transaction must not be committed."""
    refusals = [{"key": key[:200], "reason": reason[:500]} for key, reason in counted.refusals[:SHOWN_REFUSALS]]
    row = session.execute(
        _ADVANCE,
        {
            "shop": shop_id, "id": sync.id, "read": sync.bytes_done, "operation": sync.operation_id, "end": end,
            "objects": counted.objects, "missing": counted.missing, "stale": counted.stale,
            "refused": len(counted.refusals), "events": counted.events, "tellings": counted.tellings,
            "refusals": orjson.dumps(refusals).decode(), "shown": SHOWN_REFUSALS, "at": at, "until": at + LEASE,
        },
    ).one_or_none()  # fmt: skip
    return of_row(row) if row is not None else None
