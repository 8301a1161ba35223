"""Leaving early: what is still planned for a run that ended is called off, and its money let go.

A run is left when its goal is reached, when somebody takes it out, or when a new version is published that does not let
the customers of older ones finish.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.actions import budget
from operation_agent.actions.claiming import wake_followers
from operation_agent.kit.errors import Conflict, NotFound
from operation_agent.store import audit
from operation_agent.store.shops import Shop

GOAL = "goal_reached"

# One that may have reached somebody stays: when it is claimed it is asked again. One that is being claimed now is
# judged there, by the same goal.
_CALL_OFF = text("""
WITH gone AS (
  SELECT a.id, r.reason FROM unnest(CAST(:runs AS uuid[]), CAST(:times AS timestamptz[]), CAST(:reasons AS text[]))
    AS r (run_id, left_at, reason)
  JOIN actions a ON a.shop_id = :shop AND a.run_id = r.run_id
  WHERE a.state IN ('ready', 'waiting_approval') AND NOT a.maybe_sent AND a.due_at > r.left_at
  ORDER BY a.id FOR UPDATE OF a SKIP LOCKED
)
UPDATE actions a SET state = 'cancelled', reason = gone.reason, retry_at = NULL
FROM gone WHERE a.shop_id = :shop AND a.id = gone.id RETURNING a.id
""")


def reason_of(exit_reason: str, exit_on: Collection[str]) -> str:
    """What a called-off action says of a run that was left: the goal was reached, or why else."""
    return GOAL if exit_reason in exit_on else exit_reason


def call_off(session: Session, shop_id: UUID, left: Sequence[tuple[UUID, datetime, str]], *, at: datetime) -> int:
    """Cancel what of these runs is not sent and was due after they were left: (run, when (shop time), why).

    Returns how many actions. `at` is system time.
    """
    if not left:
        return 0
    runs, times, reasons = (list(column) for column in zip(*left, strict=True))
    values = {"shop": shop_id, "runs": runs, "times": times, "reasons": reasons}
    gone = list(session.execute(_CALL_OFF, values).scalars())
    _let_go(session, shop_id, gone, at)
    return len(gone)


# -- taking out ---------------------------------------------------------------------------------------------------

_TAKE_OUT = text("""
UPDATE runs r SET state = 'exited', exit_reason = :reason, left_at = :now, due_at = NULL, listens_from = NULL,
  events = '{}', updated_at = :at
WHERE r.shop_id = :shop AND r.state = 'waiting'
  AND (CAST(:run AS uuid) IS NULL OR r.id = :run) AND (CAST(:rule AS uuid) IS NULL OR r.rule_id = :rule)
  AND (CAST(:before AS integer) IS NULL OR r.rule_version < :before)
  AND (CAST(:campaign AS uuid) IS NULL OR r.campaign_id = :campaign)
RETURNING r.id
""")
_NOBODY: dict[str, Any] = {"run": None, "rule": None, "before": None, "campaign": None}

# the version is part of an action's dedupe key: rule:version:…
_OF_VERSIONS = text("""
WITH gone AS (
  SELECT a.id FROM actions a
  WHERE a.shop_id = :shop AND a.rule_id = :rule AND a.state IN ('ready', 'waiting_approval') AND NOT a.maybe_sent
    AND CAST(split_part(a.dedupe_key, ':', 2) AS integer) < :before
  ORDER BY a.id FOR UPDATE
)
UPDATE actions a SET state = 'cancelled', reason = :reason, retry_at = NULL
FROM gone WHERE a.shop_id = :shop AND a.id = gone.id RETURNING a.id
""")

_OF_RUN = text("""
WITH gone AS (
  SELECT a.id FROM actions a
  WHERE a.shop_id = :shop AND a.run_id = :run AND a.state IN ('ready', 'waiting_approval') AND NOT a.maybe_sent
  ORDER BY a.id FOR UPDATE
)
UPDATE actions a SET state = 'cancelled', reason = :reason, retry_at = NULL
FROM gone WHERE a.shop_id = :shop AND a.id = gone.id RETURNING a.id
""")


def exit_runs(
    session: Session, shop: Shop, rule_id: UUID, before_version: int, reason: str, at: datetime
) -> tuple[int, int]:
    """Take everybody out of the versions of a rule before `before_version`, and call off all that they planned, those
    of arms without a wait too; how many runs and actions. `at` is system time."""
    values = {"shop": shop.id, "rule": rule_id, "before": before_version, "reason": reason}
    left = _take_out(session, shop, values, at)
    gone = list(session.execute(_OF_VERSIONS, values).scalars())
    _let_go(session, shop.id, gone, at)
    return left, len(gone)


def exit_run(session: Session, shop: Shop, run_id: UUID, *, actor: str, at: datetime) -> int:
    """Take one customer out, and call off what is planned for that run; how many actions. `at` is system time.

    Raises NotFound, or Conflict for a run that is over.
    """
    reason = f"called off by {actor}"
    values = {"shop": shop.id, "run": run_id, "reason": reason}
    if not _take_out(session, shop, values, at):
        state = session.execute(
            text("SELECT state FROM runs WHERE shop_id = :shop AND id = :run"), {"shop": shop.id, "run": run_id}
        ).scalar()
        if state is None:
            raise NotFound(f"there is no run {run_id}")
        raise Conflict(f"this run is {state}: there is nothing to leave any more", code="state")
    gone = list(session.execute(_OF_RUN, values).scalars())
    _let_go(session, shop.id, gone, at)
    audit.record(
        session, shop.id, at=at, actor=actor, verb="run.exited", subject=f"run:{run_id}", detail={"actions": len(gone)}
    )
    return len(gone)


def exit_campaign(session: Session, shop: Shop, campaign_id: UUID, *, reason: str, at: datetime) -> int:
    """Take everybody out whom a campaign set on the way; how many. What they had planned is the caller's to call off.
    `at` is system time."""
    return _take_out(session, shop, {"shop": shop.id, "campaign": campaign_id, "reason": reason}, at)


def _take_out(session: Session, shop: Shop, values: dict[str, Any], at: datetime) -> int:
    now = at + shop.clock_offset
    return len(session.execute(_TAKE_OUT, {**_NOBODY, **values, "now": now, "at": at}).all())


def _let_go(session: Session, shop_id: UUID, actions: Sequence[UUID], at: datetime) -> None:
    if actions:
        budget.finish(session, shop_id, release=actions, at=at)
        wake_followers(session, shop_id, actions, at=at)
