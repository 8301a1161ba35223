"""Syncs: loads of one kind of thing from the shop's system. Asking for them, looking at them, calling them off.

asked → running (the storefront prepares an export) → loading (its result is read and stored) → done, or failed, or
cancelled. The steps between are in `steps`, who walks them in `loading`. At most one sync of a kind is open at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Literal, cast
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.kit.errors import Conflict, NotFound, Rejected
from operation_agent.kit.ids import new_id
from operation_agent.store import audit, outbox
from operation_agent.store.shops import Shop

from .protocol import SYNC_KINDS, SyncKind

TOPIC = "storefront.sync"
Mode = Literal["first", "incremental", "reconcile"]
MODES: tuple[Mode, ...] = ("first", "incremental", "reconcile")
OPEN = ("asked", "running", "loading")

OVERLAP = timedelta(minutes=15)
"""Before the start of the last sync, where an incremental one begins: a storefront's search lags behind its changes."""
RECONCILE_DAYS = 3
"""How far a reconciliation looks back; `shop.settings["reconcile_days"]` changes it."""
KEPT = timedelta(days=30)
LEASE = timedelta(seconds=60)
"""A worker that has not been heard of for so long has died: another goes on."""


@dataclass(frozen=True, slots=True)
class Sync:
    """A row of `storefront_syncs`. `since` is shop time, all other instants system time; `*_done` is committed."""

    id: UUID
    vendor: str
    kind: SyncKind
    mode: Mode
    state: str
    since: datetime | None
    operation_id: str | None
    url: str | None
    url_at: datetime | None
    objects_total: int | None
    objects_done: int
    bytes_total: int | None
    bytes_done: int
    missing: int
    stale: int
    refused: int
    events: int
    tellings: int
    first_refusals: list[dict[str, str]]
    error: str | None
    error_code: str | None
    attempts: int
    exports: int
    wake_at: datetime | None
    cancel_by: str | None
    actor: str
    asked_at: datetime
    started_at: datetime | None
    loading_at: datetime | None
    updated_at: datetime
    finished_at: datetime | None

    @property
    def share(self) -> float | None:
        """Of what is to be read, 0 to 1; None while nobody knows how much there is."""
        if self.state == "done":
            return 1.0
        if self.bytes_total and self.state in ("loading", "failed", "cancelled"):
            return min(1.0, self.bytes_done / self.bytes_total)
        return None

    def summary(self) -> str:
        """What it found."""
        return f"missing {self.missing:,}, stale {self.stale:,}"

    def per_second(self) -> float | None:
        """Objects a second since the loading began; None before."""
        if self.loading_at is None or self.objects_done == 0:
            return None
        seconds = (self.updated_at - self.loading_at).total_seconds()
        return self.objects_done / seconds if seconds > 0 else None

    def left(self) -> timedelta | None:
        """How much longer it takes at the rate so far; None when nobody can tell."""
        share = self.share
        if self.loading_at is None or self.state != "loading" or not share:
            return None
        return (self.updated_at - self.loading_at) * ((1 - share) / share)


COLUMNS = ", ".join(field.name for field in fields(Sync))
_SELECT = f"SELECT {COLUMNS} FROM storefront_syncs WHERE shop_id = :shop"  # noqa: S608


def of_row(row: Any) -> Sync:
    return Sync(**row._mapping)


# -- asking -------------------------------------------------------------------------------------------------------


VENDORS = ("shopify",)
"""Vendors that are shop systems; each implements `protocol.Exports`."""


def vendor_of(session: Session, shop_id: UUID, vendors: Collection[str] = VENDORS) -> str:
    """The shop system that the shop is connected to. Raises Conflict when there is none, or it has a problem."""
    row = session.execute(
        text(
            "SELECT vendor, problem, problem_detail FROM integrations"
            " WHERE shop_id = :shop AND vendor = ANY(CAST(:vendors AS text[])) AND enabled ORDER BY vendor LIMIT 1"
        ),
        {"shop": shop_id, "vendors": sorted(vendors)},
    ).one_or_none()
    if row is None:
        raise Conflict(
            f"the shop is not connected to a storefront ({', '.join(sorted(vendors))}); connect it, then sync",
            code="not_connected",
        )
    if row.problem is not None:
        raise Conflict(
            f"{row.vendor} refuses us ({row.problem}: {row.problem_detail or 'no detail'}); connect the shop again",
            code="integration_problem",
        )
    return cast(str, row.vendor)


def ask(
    session: Session, shop: Shop, vendor: str, kinds: Sequence[SyncKind], mode: Mode, *, at: datetime, actor: str
) -> list[Sync]:
    """Write down that these kinds are to be loaded, and ring. A kind that is being loaded already is not asked again:
    the sync that is under way is returned in its place. `at` is system time. Raises Rejected for an unknown kind.

    `first` loads everything, `incremental` what changed since the last one, `reconcile` what changed lately.
    """
    unknown = set(kinds) - set(SYNC_KINDS)
    if unknown or not kinds:
        raise Rejected(f"a kind is one of {', '.join(SYNC_KINDS)}", where="kinds")
    wanted = [kind for kind in SYNC_KINDS if kind in kinds]
    made = [_insert(session, shop, vendor, kind, mode, at, actor) for kind in wanted]
    new = [kind for kind, is_new in zip(wanted, made, strict=True) if is_new]
    if new:
        audit.record(
            session, shop.id, at=at, actor=actor, verb="storefront.sync.asked", subject=f"shop:{shop.slug}",
            detail={"vendor": vendor, "kinds": new, "mode": mode},
        )  # fmt: skip
    outbox.ring(session, shop.id, [(TOPIC, kind) for kind in wanted], at=at)
    found = {one.kind: one for one in under_way(session, shop.id, vendor)}
    return [found[kind] for kind in wanted]


_INSERT = text("""
INSERT INTO storefront_syncs (shop_id, id, vendor, kind, mode, state, since, actor, asked_at, updated_at, wake_at)
VALUES (:shop, :id, :vendor, :kind, :mode, 'asked', :since, :actor, :at, :at, :at)
ON CONFLICT (shop_id, vendor, kind) WHERE state IN ('asked', 'running', 'loading') DO NOTHING RETURNING 1
""")


def _insert(
    session: Session, shop: Shop, vendor: str, kind: SyncKind, mode: Mode, at: datetime, actor: str
) -> bool:  # fmt: skip
    values = {
        "shop": shop.id, "id": new_id(), "vendor": vendor, "kind": kind, "mode": mode, "actor": actor, "at": at,
        "since": _since(session, shop, vendor, kind, mode, at),
    }  # fmt: skip
    return session.execute(_INSERT, values).scalar() is not None


def _since(session: Session, shop: Shop, vendor: str, kind: SyncKind, mode: Mode, at: datetime) -> datetime | None:
    """Shop time from which changes are asked for; None: everything there is."""
    if mode == "first":
        return None
    now = at + shop.clock_offset
    days = now - timedelta(days=int(shop.settings.get("reconcile_days", RECONCILE_DAYS)))
    if mode == "reconcile":
        return days
    last = session.execute(
        text(
            "SELECT max(started_at) FROM storefront_syncs"
            " WHERE shop_id = :shop AND vendor = :vendor AND kind = :kind AND state = 'done'"
        ),
        {"shop": shop.id, "vendor": vendor, "kind": kind},
    ).scalar()
    return last + shop.clock_offset - OVERLAP if last is not None else days


# -- looking ------------------------------------------------------------------------------------------------------


def under_way(session: Session, shop_id: UUID, vendor: str | None = None) -> list[Sync]:
    """The open syncs of a shop, of each kind at most one."""
    rows = session.execute(
        text(
            _SELECT + " AND state IN ('asked', 'running', 'loading')"
            " AND (CAST(:vendor AS text) IS NULL OR vendor = :vendor) ORDER BY id"
        ),
        {"shop": shop_id, "vendor": vendor},
    )
    return [of_row(row) for row in rows]


def newest(session: Session, shop_id: UUID, *, before: UUID | None, limit: int) -> list[Sync]:
    """At most `limit` syncs older than `before`, newest first."""
    rows = session.execute(
        text(_SELECT + " AND (CAST(:before AS uuid) IS NULL OR id < CAST(:before AS uuid)) ORDER BY id DESC LIMIT :n"),
        {"shop": shop_id, "before": before, "n": limit},
    )
    return [of_row(row) for row in rows]


def latest(session: Session, shop_id: UUID) -> list[Sync]:
    """The newest sync of each kind."""
    rows = session.execute(
        text(
            f"SELECT DISTINCT ON (vendor, kind) {COLUMNS} FROM storefront_syncs WHERE shop_id = :shop"  # noqa: S608
            " ORDER BY vendor, kind, id DESC"
        ),
        {"shop": shop_id},
    )
    found = [of_row(row) for row in rows]
    return sorted(found, key=lambda one: SYNC_KINDS.index(one.kind))


@dataclass(frozen=True, slots=True)
class Health:
    """Of one kind: what reconciliations have found in all, and up to when (system time) everything is synced."""

    missing: int
    stale: int
    synced_at: datetime | None


def health(session: Session, shop_id: UUID) -> dict[str, Health]:
    """By kind, of those that were ever asked for."""
    rows = session.execute(
        text(
            "SELECT kind, COALESCE(sum(missing) FILTER (WHERE mode = 'reconcile'), 0)::bigint AS missing,"
            " COALESCE(sum(stale) FILTER (WHERE mode = 'reconcile'), 0)::bigint AS stale,"
            " max(started_at) FILTER (WHERE state = 'done') AS synced_at"
            " FROM storefront_syncs WHERE shop_id = :shop GROUP BY kind ORDER BY kind"
        ),
        {"shop": shop_id},
    )
    return {row.kind: Health(row.missing, row.stale, row.synced_at) for row in rows}


def get(session: Session, shop_id: UUID, sync_id: UUID) -> Sync:
    row = session.execute(text(_SELECT + " AND id = :id"), {"shop": shop_id, "id": sync_id}).one_or_none()
    if row is None:
        raise NotFound(f"there is no sync {sync_id}")
    return of_row(row)


_CLAIM = text(f"""
UPDATE storefront_syncs SET wake_at = :until WHERE shop_id = :shop AND kind = :kind
  AND state IN ('asked', 'running', 'loading') AND (wake_at <= :at OR cancel_by IS NOT NULL)
RETURNING {COLUMNS}
""")  # noqa: S608 - our own names


def claim(session: Session, shop_id: UUID, kind: str, *, at: datetime) -> Sync | None:
    """The open sync of a kind that is due, with a lease on it; None: nothing is to be done now."""
    values = {"shop": shop_id, "kind": kind, "at": at, "until": at + LEASE}
    row = session.execute(_CLAIM, values).one_or_none()
    return of_row(row) if row is not None else None


_DUE = text("""
SELECT s.kind FROM storefront_syncs s
LEFT JOIN integrations i ON i.shop_id = s.shop_id AND i.vendor = s.vendor
WHERE s.shop_id = :shop AND s.state IN ('asked', 'running', 'loading') AND (s.wake_at <= :at OR s.cancel_by IS NOT NULL)
  AND ((i.enabled AND i.problem IS NULL) OR s.cancel_by IS NOT NULL)
""")


def due(session: Session, shop_id: UUID, *, at: datetime) -> list[tuple[str, str]]:
    """The wake-ups of syncs that should be got on with by now. Those of a storefront that refuses us wait."""
    return [(TOPIC, kind) for kind in session.execute(_DUE, {"shop": shop_id, "at": at}).scalars()]


def cancel(session: Session, shop: Shop, sync_id: UUID, *, at: datetime, actor: str) -> Sync:
    """Have a worker end it, which also tells the storefront. What was stored stays.

    Raises NotFound, and Conflict when it has ended.
    """
    session.execute(
        text("SELECT 1 FROM storefront_syncs WHERE shop_id = :shop AND id = :id FOR UPDATE"),
        {"shop": shop.id, "id": sync_id},
    )
    found = get(session, shop.id, sync_id)
    if found.state not in OPEN:
        raise Conflict(f"this sync is {found.state} already")
    session.execute(
        text("UPDATE storefront_syncs SET cancel_by = :actor, wake_at = :at WHERE shop_id = :shop AND id = :id"),
        {"shop": shop.id, "id": sync_id, "actor": actor, "at": at},
    )
    outbox.ring(session, shop.id, [(TOPIC, found.kind)], at=at)
    return get(session, shop.id, sync_id)


def forget_old(session: Session, shop_id: UUID, *, at: datetime) -> int:
    """Hourly syncs that ended a month ago tell nobody anything; how many went. First loads and reconciliations stay."""
    gone = session.execute(
        text(
            "DELETE FROM storefront_syncs WHERE shop_id = :shop AND mode = 'incremental' AND finished_at < :before"
            " RETURNING 1"
        ),
        {"shop": shop_id, "before": at - KEPT},
    )
    return len(gone.all())
