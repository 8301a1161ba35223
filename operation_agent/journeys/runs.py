"""The rows of runs: read under a lock to lead them on, and written back together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.actions import parking
from operation_agent.actions.segments import Entry, Segment, product_of
from operation_agent.events.event import Event
from rules import program
from rules.program import Due

from .course import Bounds, Seen, Spot
from .pinned import Pinned, Version, Way

COLUMNS = """r.id, r.strategy_id, r.rule_id, r.rule_version, r.customer_id, r.random_key, r.decision_id, r.campaign_id,
  r.arm, r.held_out, r.trigger, r.dedupe_key, r.zone, r.costs, r.coupon, r.path, r.kind, r.listens_from, r.due_at,
  r.events, r.exit_on, r.entered_at"""


@dataclass(slots=True)
class Walker:
    """A run that is being led on: its row, and how far it has come in this call. `until`: how far it may be led (shop
    time). `spot` None: it has left, at `left_at`, for `exit_reason` or (None) because its arm is at an end."""

    row: Row[Any]
    until: datetime
    spot: Spot | None
    path: str
    coupon: int | None
    due: list[list[Due]] = field(default_factory=list)
    left_at: datetime | None = None
    exit_reason: str | None = None
    has_moved: bool = False

    @classmethod
    def of(cls, row: Row[Any], until: datetime) -> Walker:
        spot = Spot(row.path, row.kind, row.due_at, row.listens_from, tuple(row.events))
        return cls(row, until, spot, row.path, row.coupon)

    @property
    def version(self) -> Version:
        return self.row.rule_id, self.row.rule_version

    @property
    def bounds(self) -> Bounds:
        row = self.row
        event_id = row.trigger.get("event_id")
        return Bounds(row.entered_at, tuple(row.exit_on), UUID(event_id) if event_id else None)

    @property
    def properties(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.row.trigger.get("properties") or {}
        return found

    def event(self) -> Event | None:
        """The event that set the run off."""
        return read_event(self.row.trigger)

    def go(self, way: Way, outcome: bool, at: datetime) -> None:
        """On from here at `at` (shop time), up to the next wait or branch, or out of the arm."""
        path = program.resume(way.arm, self.path, outcome)
        walked = program.walk(way.arm, path, at, self.row.zone, self.properties, coupon=self.coupon)
        self.has_moved, self.coupon = True, walked.coupon
        if walked.due:
            self.due.append(list(walked.due))
        parked = walked.parked
        if parked is None:
            self.spot, self.left_at = None, at
            return
        self.path = parked.path
        listens = parked.at if parked.kind == "wait" else None
        events = parking.awaited(way.arm, parked)
        self.spot = Spot(parked.path, parked.kind, parking.due_at(parked), listens, events)

    def leave(self, reason: str, at: datetime) -> None:
        self.spot, self.left_at, self.exit_reason, self.has_moved = None, at, reason, True

    def segments(self, pinned: Pinned) -> list[Segment]:
        """What is to be planned. Of who left for a reason, only what was due until then."""
        entry, found = self._entry(pinned), []
        for due in self.due:
            kept = [one for one in due if self._is_wanted(one, pinned)]
            if kept:
                found.append(Segment(entry, tuple(kept), pinned.manner))
        return found

    def _is_wanted(self, due: Due, pinned: Pinned) -> bool:
        if self.exit_reason is None or self.left_at is None:
            return True
        return pinned.manner.due_at(due, self.row.zone) <= self.left_at

    def _entry(self, pinned: Pinned) -> Entry:
        row = self.row
        return Entry(
            decision_id=row.decision_id, customer_id=row.customer_id, strategy_id=row.strategy_id, rule_id=row.rule_id,
            rule_key=pinned.rule_key, rule_version=row.rule_version, arm=row.arm, key=row.dedupe_key,
            held_out=row.held_out, entered_at=row.entered_at, exit_on=tuple(row.exit_on), costs=tuple(row.costs),
            zone=row.zone, product_id=product_of(self.properties), budget_id=pinned.budget_id, run_id=row.id,
            campaign_id=row.campaign_id,
        )  # fmt: skip


def read_event(trigger: Mapping[str, Any]) -> Event | None:
    """The event that parking.trigger_row wrote; None where there was none."""
    if trigger.get("event_id") is None:
        return None
    return Event(
        id=UUID(trigger["event_id"]), source=trigger["source"], source_id=trigger["source_id"],
        type=trigger["event_type"], occurred_at=datetime.fromisoformat(trigger["occurred_at"]),
        received_at=datetime.fromisoformat(trigger["received_at"]), identity={}, properties=trigger["properties"],
        name=trigger["name"],
    )  # fmt: skip


_KNOWN = text("""
SELECT w.id AS run_id, t.occurred_at, t.type, t.event_id
FROM unnest(CAST(:runs AS uuid[]), CAST(:customers AS uuid[]), CAST(:since AS timestamptz[]),
  CAST(:until AS timestamptz[]), CAST(:types AS text[])) AS w (id, customer_id, since, until, types)
CROSS JOIN LATERAL (
  SELECT t.occurred_at, t.type, t.event_id FROM timeline t
  WHERE t.shop_id = :shop AND t.customer_id = w.customer_id AND t.occurred_at >= w.since AND t.occurred_at <= w.until
    AND t.type = ANY(string_to_array(w.types, ' ')) OFFSET 0) AS t
ORDER BY t.occurred_at, t.event_id
""")


def known_events(
    session: Session, shop_id: UUID, walkers: Sequence[Walker], types: Sequence[Iterable[str]]
) -> dict[UUID, list[Seen]]:
    """What each customer did since it entered its run, by run and by time; `types`: of which types, for each."""
    rows = session.execute(
        _KNOWN,
        {
            "shop": shop_id,
            "runs": [one.row.id for one in walkers],
            "customers": [one.row.customer_id for one in walkers],
            "since": [one.row.entered_at for one in walkers],
            "until": [one.until for one in walkers],
            "types": [" ".join(sorted(set(one))) for one in types],
        },
    )
    found: dict[UUID, list[Seen]] = {}
    for row in rows:
        found.setdefault(row.run_id, []).append(Seen(row.occurred_at, row.type, row.event_id))
    return found


_WRITE = text("""
UPDATE runs r SET state = w.state, path = w.path, kind = w.kind, listens_from = w.listens_from, due_at = w.due_at,
  events = ARRAY(SELECT jsonb_array_elements_text(w.events)), coupon = w.coupon, exit_reason = w.exit_reason,
  left_at = w.left_at, updated_at = :at
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS w (id uuid, state text, path text, kind text,
  listens_from timestamptz, due_at timestamptz, events jsonb, coupon smallint, exit_reason text, left_at timestamptz)
WHERE r.shop_id = :shop AND r.id = w.id
""")


def write(session: Session, shop_id: UUID, walkers: Iterable[Walker], *, at: datetime) -> None:
    """Where they stand now; `at` is system time."""
    moved = [_row(one) for one in walkers if one.has_moved]
    if moved:
        session.execute(_WRITE, {"shop": shop_id, "rows": orjson.dumps(moved).decode(), "at": at})


def _row(one: Walker) -> dict[str, Any]:
    spot = one.spot
    state = "waiting" if spot is not None else "finished" if one.exit_reason is None else "exited"
    return {
        "id": one.row.id, "state": state, "path": one.path, "kind": spot.kind if spot else one.row.kind,
        "listens_from": spot.listens_from if spot else None, "due_at": spot.due_at if spot else None,
        "events": spot.events if spot else (), "coupon": one.coupon, "exit_reason": one.exit_reason,
        "left_at": one.left_at,
    }  # fmt: skip
