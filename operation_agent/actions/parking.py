"""Runs are begun here, with the actions of their first segment; `journeys` leads them on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.decision.engine import Decision
from operation_agent.decision.facts import Trigger
from rules import program
from rules.program import Arm, Parked, Wait, Walked

from .segments import Entry


@dataclass(frozen=True, slots=True)
class Parking:
    """A customer who comes to a wait or a branch for the first time."""

    entry: Entry
    decision: Decision
    arm: Arm
    parked: Parked
    coupon: int | None

    @classmethod
    def of(cls, entry: Entry, decision: Decision, walked: Walked) -> Parking:
        assert decision.arm is not None and walked.parked is not None
        return cls(entry, decision, decision.arm, walked.parked, walked.coupon)


def awaited(arm: Arm, parked: Parked) -> tuple[str, ...]:
    """The event types that somebody parked there waits for; none at a branch."""
    step = program.at_path(arm, parked.path)
    return step.events if isinstance(step, Wait) else ()


def due_at(parked: Parked) -> datetime:
    """When it goes on from there if nothing comes before (shop time)."""
    return parked.at if parked.deadline is None else parked.deadline


def trigger_row(trigger: Trigger) -> dict[str, Any]:
    """What later steps need of what set a run off, in plain JSON."""
    event = trigger.event
    if event is None:
        return {"type": trigger.type, "at": trigger.at}
    return {
        "type": trigger.type, "at": trigger.at, "event_id": event.id, "source": event.source,
        "source_id": event.source_id, "event_type": event.type, "name": event.name, "occurred_at": event.occurred_at,
        "received_at": event.received_at, "properties": event.properties,
    }  # fmt: skip


# a replay of the same decision finds its run there
_INSERT = text("""
INSERT INTO runs (shop_id, id, strategy_id, rule_id, rule_version, customer_id, random_key, enrolment_key, decision_id,
  campaign_id, arm, held_out, trigger, dedupe_key, zone, costs, coupon, state, path, kind, listens_from, due_at, events,
  exit_on, entered_at, updated_at)
SELECT :shop, r.id, r.strategy_id, r.rule_id, r.rule_version, r.customer_id, r.random_key, r.enrolment_key,
  r.decision_id, r.campaign_id, r.arm, r.held_out, r.trigger, r.dedupe_key, r.zone,
  ARRAY(SELECT jsonb_array_elements_text(r.costs)::bigint), r.coupon, 'waiting', r.path, r.kind, r.listens_from,
  r.due_at, ARRAY(SELECT jsonb_array_elements_text(r.events)), ARRAY(SELECT jsonb_array_elements_text(r.exit_on)),
  r.entered_at, :at
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (id uuid, strategy_id uuid, rule_id uuid, rule_version integer,
  customer_id uuid, random_key uuid, enrolment_key text, decision_id uuid, campaign_id uuid, arm text, held_out boolean,
  trigger jsonb, dedupe_key text, zone text, costs jsonb, coupon smallint, path text, kind text,
  listens_from timestamptz, due_at timestamptz, events jsonb, exit_on jsonb, entered_at timestamptz)
ON CONFLICT (shop_id, dedupe_key) DO NOTHING
""")


def park(session: Session, shop_id: UUID, parked: Sequence[Parking], *, at: datetime) -> None:
    """Begin the runs of these; `at` is system time."""
    if parked:
        ordered = sorted(parked, key=lambda one: one.entry.key)  # two writers meet in one order
        rows = orjson.dumps([_row(one) for one in ordered]).decode()
        session.execute(_INSERT, {"shop": shop_id, "rows": rows, "at": at})


def _row(one: Parking) -> dict[str, Any]:
    entry, decision, parked = one.entry, one.decision, one.parked
    return {
        "id": entry.run_id, "strategy_id": entry.strategy_id, "rule_id": entry.rule_id,
        "rule_version": decision.rule_version, "customer_id": entry.customer_id, "random_key": decision.random_key,
        "enrolment_key": decision.enrolment_key, "decision_id": entry.decision_id, "campaign_id": entry.campaign_id,
        "arm": entry.arm, "held_out": entry.held_out, "trigger": trigger_row(decision.trigger),
        "dedupe_key": entry.key, "zone": entry.zone, "costs": entry.costs, "coupon": one.coupon, "path": parked.path,
        "kind": parked.kind, "listens_from": parked.at if parked.kind == "wait" else None, "due_at": due_at(parked),
        "events": awaited(one.arm, parked), "exit_on": entry.exit_on, "entered_at": entry.entered_at,
    }  # fmt: skip
