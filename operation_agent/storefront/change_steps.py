"""Doing changes at the shop: claim → call → record, three steps because a crash may fall between any two.

A claim is a lease and a fence; the call runs outside any transaction; its answer is written only while the fence is
still ours. A lease that ran out while a change was being made leaves it `unknown`: then the shop is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from operation_agent.kit.clock import SYSTEM, Clock, monotonic
from operation_agent.kit.errors import AgentError, Conflict, Denied, NotFound, Rejected, Retryable
from operation_agent.kit.logging import logger
from operation_agent.store import audit, outbox
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop

from . import connection, kinds, price_bound
from .changes import COLUMNS, DUE, TOPIC, Change, change_of
from .protocol import Applied, Changes

LEASE = timedelta(minutes=3)
"""Longer than any call of a change with all its waiting: who still holds a claim after it has died."""
SETTLE = timedelta(seconds=15)
"""How long an uncertain call rests before the shop is asked, so that it shows what it had begun."""
_DENIED_WAIT = timedelta(minutes=10)
_LONGEST_WAIT = timedelta(minutes=10)
_MOST_ATTEMPTS = 8

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a change. `wait` from now until it is looked at again; None: it rests. `problem` of the
    connection, if the answer was about that."""

    state: str
    values: dict[str, Any] = field(default_factory=dict)
    wait: timedelta | None = None
    reason: str | None = None
    code: str | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)
    problem: connection.Problem | None = None


@dataclass
class Maker:
    """Makes one shop's changes. `credentials` are the sealed secrets that are used; `at_step` is called between the
    steps: tests crash there."""

    engine: Engine
    shop: Shop
    vendor: str
    changes: Changes
    credentials: bytes | None = None
    clock: Clock = SYSTEM
    lease: timedelta = LEASE
    settle: timedelta = SETTLE
    at_step: Callable[[str], None] = lambda step: None

    def drain(self, *, seconds: float = 5.0) -> int:
        """Make what is due; returns how many steps were taken. After `seconds` it rings for the rest and ends."""
        end, taken = monotonic() + seconds, 0
        while True:
            with for_shop(self.engine, self.shop.id) as session:
                change = claim(session, self.shop, self.vendor, at=self.clock.now(), lease=self.lease)
            if change is None:
                return taken
            taken += 1
            self.at_step("claimed")
            outcome = self._call(change)
            self.at_step("called")
            with for_shop(self.engine, self.shop.id) as session:
                if not record(session, self.shop, change, outcome, self.credentials, at=self.clock.now()):
                    log.warning("late_change", shop=self.shop.slug, change=str(change.id))
            self.at_step("recorded")
            if monotonic() >= end:
                with for_shop(self.engine, self.shop.id) as session:
                    outbox.ring(session, self.shop.id, [(TOPIC, "")], at=self.clock.now())
                return taken

    def _call(self, change: Change) -> Outcome:
        try:
            return _STEPS[change.state](self, change)
        except (Rejected, NotFound, Conflict) as error:
            return self._refused(change, error)
        except Denied as error:
            return self._denied(change, error)
        except Retryable as error:
            problem: connection.Problem | None = "unavailable" if error.code == "shop_unavailable" else None
            return Outcome(change.state, wait=error.retry_after, reason=error.detail, code=error.code, problem=problem)
        except Exception as error:  # noqa: BLE001 - whatever it was, the shop is asked what became of it
            return self._uncertain(change, error)

    def preview(self, change: Change) -> Outcome:
        preview = self.changes.preview(change.kind, change.parameters)
        before, after, warnings = dict(preview.before), dict(preview.after), list(preview.warnings)
        waits = change.kind == kinds.PRICES and self._needs_a_person(change, before, after, warnings)
        values = {"before": before, "after": after, "warnings": warnings}
        if change.apply_asked and not waits:
            return Outcome("applying", values, wait=timedelta(0))
        return Outcome("previewed", values)

    def _needs_a_person(
        self, change: Change, before: dict[str, Any], after: dict[str, Any], warnings: list[str]
    ) -> bool:
        """Raises Rejected beyond the bound. Small steps that add up to more than it need a person too."""
        bound = price_bound.bound_of(self.shop.settings)
        price_bound.check(before, after, bound)
        since = self.clock.now() - price_bound.MEMORY
        with for_shop(self.engine, self.shop.id) as session:
            first = price_bound.first_known(before, changes_since(session, self.shop.id, change.subject, since))
        drift = price_bound.largest_move(first, after)
        if drift > bound:
            days = price_bound.MEMORY.days
            warnings.append(f"with the changes of the last {days} days a price moves by {drift:.1%} in all")
        waits = drift > bound or price_bound.needs_a_person(before, after, bound)
        if waits and change.apply_asked:
            warnings.append(f"it moves a price by more than half of the bound of {bound:.1%}: a person applies it")
        return waits

    def apply(self, change: Change) -> Outcome:
        made = self.changes.apply(change.kind, change.parameters, change.before or {}, key=str(change.id))
        return _applied(change, made)

    def settle_unknown(self, change: Change) -> Outcome:
        try:
            made = self.changes.is_applied(change.kind, change.parameters, change.before or {}, key=str(change.id))
        except (Rejected, NotFound, Conflict) as error:
            told = f"look at the shop: {error.detail}"
            return Outcome("unknown", reason=told, code=error.code, errors=error.extra.get("errors", []))
        return _applied(change, made) if made is not None else Outcome("applying", wait=timedelta(0))

    def undo(self, change: Change) -> Outcome:
        now = self.changes.undo(change.kind, change.undo or {}, key=f"{change.id}:undo", force=change.force)
        return Outcome("undone", {"after": dict(now), "undone": True})

    def _refused(self, change: Change, error: AgentError) -> Outcome:
        state = "applied" if change.state == "undoing" else "refused"
        return Outcome(state, reason=error.detail, code=error.code, errors=error.extra.get("errors", []))

    def _denied(self, change: Change, error: Denied) -> Outcome:
        """The connection's trouble, not the change's: it waits as long as that takes."""
        problem: connection.Problem | None = "unauthorized" if error.code == "unauthorized" else None
        return Outcome(change.state, wait=_DENIED_WAIT, reason=error.detail, code=error.code, problem=problem)

    def _uncertain(self, change: Change, error: Exception) -> Outcome:
        """It may have been done. What only reads is tried again, and given up if it never works."""
        told = error.detail if isinstance(error, AgentError) else f"{type(error).__name__}: {error}"[:300]
        if not isinstance(error, AgentError):
            log.error("change_failed", shop=self.shop.slug, change=str(change.id), exc_info=error)
        if change.state == "asked" and change.attempts >= _MOST_ATTEMPTS:
            return Outcome("refused", reason=told, code="internal")
        wait = min(_LONGEST_WAIT, self.settle * 2 ** min(change.attempts - 1, 10))
        state = "unknown" if change.state == "applying" else change.state
        return Outcome(state, wait=wait, reason=told, code="uncertain")


_STEPS: dict[str, Callable[[Maker, Change], Outcome]] = {
    "asked": Maker.preview,
    "applying": Maker.apply,
    "unknown": Maker.settle_unknown,
    "undoing": Maker.undo,
}


def _applied(change: Change, made: Applied) -> Outcome:
    values = {
        "after": dict(made.after), "ref": made.ref, "undo": dict(made.undo) if made.undo is not None else None,
        "why_no_undo": made.why_no_undo, "warnings": [*change.warnings, *made.warnings], "applied": True,
    }  # fmt: skip
    return Outcome("applied", values)


def changes_since(session: Session, shop_id: UUID, subject: str, since: datetime) -> list[dict[str, Any]]:
    """The values before each price change of a product that stands since then, the oldest first."""
    rows = session.execute(
        text(
            "SELECT before FROM shop_changes WHERE shop_id = :shop AND subject = :subject AND kind = :kind"
            " AND state = 'applied' AND applied_at > :since ORDER BY applied_at, id"
        ),
        {"shop": shop_id, "subject": subject, "kind": kinds.PRICES, "since": since},
    )
    return [row.before for row in rows]


_CLAIM = text(f"""
WITH one AS (SELECT c.id {DUE} AND c.vendor = :vendor ORDER BY c.retry_at, c.id LIMIT 1 FOR UPDATE OF c SKIP LOCKED)
UPDATE shop_changes SET fence = fence + 1, attempts = attempts + 1, lease_until = :until, updated_at = :at,
  state = CASE WHEN state = 'applying' AND lease_until IS NOT NULL THEN 'unknown' ELSE state END
WHERE shop_id = :shop AND id = (SELECT id FROM one)
RETURNING {COLUMNS}
""")  # noqa: S608 - texts of this room


def claim(session: Session, shop: Shop, vendor: str, *, at: datetime, lease: timedelta) -> Change | None:
    """Take one change that is due. One that was left behind while it was being made comes back as `unknown`."""
    session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": f"changes:{shop.id}"})
    row = session.execute(_CLAIM, {"shop": shop.id, "vendor": vendor, "at": at, "until": at + lease}).one_or_none()
    return change_of(row) if row is not None else None


_RECORD = text("""
UPDATE shop_changes SET state = :state, lease_until = NULL, updated_at = :at, retry_at = :retry_at,
  reason = :reason, reason_code = :code, errors = CAST(:errors AS jsonb),
  attempts = CASE WHEN state = :state OR (state, :state) IN (('unknown', 'applying'), ('applying', 'unknown'))
             THEN attempts ELSE 0 END,
  subject = CASE WHEN strpos(subject, ':') = 0 AND CAST(:ref AS text) IS NOT NULL THEN subject || ':' || :ref
            ELSE subject END,
  before = COALESCE(CAST(:before AS jsonb), before), after = COALESCE(CAST(:after AS jsonb), after),
  warnings = COALESCE(CAST(:warnings AS jsonb), warnings), ref = COALESCE(:ref, ref),
  undo = COALESCE(CAST(:undo AS jsonb), undo), why_no_undo = COALESCE(:why_no_undo, why_no_undo),
  applied_at = CASE WHEN :applied THEN CAST(:at AS timestamptz) ELSE applied_at END,
  undone_at = CASE WHEN :undone THEN CAST(:at AS timestamptz) ELSE undone_at END
WHERE shop_id = :shop AND id = :id AND fence = :fence
RETURNING id
""")
_AUDITED = {"applied", "undone", "refused", "unknown"}


def record(
    session: Session, shop: Shop, change: Change, outcome: Outcome, credentials: bytes | None, *, at: datetime
) -> bool:
    """Write what became of a claimed change; False when somebody else has taken it over. `at` is system time."""
    values = outcome.values
    written = session.execute(
        _RECORD,
        {
            "shop": shop.id, "id": change.id, "fence": change.fence, "state": outcome.state, "at": at,
            "retry_at": at + outcome.wait if outcome.wait is not None else None,
            "reason": outcome.reason, "code": outcome.code, "errors": orjson.dumps(outcome.errors).decode(),
            **{name: _json(values.get(name)) for name in ("before", "after", "warnings", "undo")},
            "ref": values.get("ref"), "why_no_undo": values.get("why_no_undo"),
            "applied": bool(values.get("applied")), "undone": bool(values.get("undone")),
        },
    ).one_or_none()  # fmt: skip
    if written is None:
        return False
    if outcome.state in _AUDITED and (outcome.state != change.state or outcome.reason != change.reason):
        _note(session, shop, change, outcome, at)
    _tell_connection(session, shop, change, outcome, credentials, at)
    if outcome.wait is not None:
        outbox.ring(session, shop.id, [(TOPIC, "")], at=at)
    return True


def _json(value: Any) -> str | None:
    return orjson.dumps(value).decode() if value is not None else None


def _note(session: Session, shop: Shop, change: Change, outcome: Outcome, at: datetime) -> None:
    verb = "undo_refused" if outcome.state == "applied" and change.state == "undoing" else outcome.state
    detail = {"kind": change.kind, "asked_by": change.actor, "code": outcome.code, "ref": outcome.values.get("ref")}
    audit.record(
        session, shop.id, at=at, actor="system", verb=f"shop_change.{verb}", subject=f"shop_change:{change.id}",
        detail={name: value for name, value in detail.items() if value is not None},
    )  # fmt: skip


def _tell_connection(
    session: Session, shop: Shop, change: Change, outcome: Outcome, credentials: bytes | None, at: datetime
) -> None:
    if outcome.problem is not None:
        detail = outcome.reason or outcome.problem
        connection.note_problem(session, shop, change.vendor, outcome.problem, detail, at=at, credentials=credentials)
    elif outcome.code == "scope_missing":
        connection.ask_check(session, shop.id, change.vendor, at=at)
