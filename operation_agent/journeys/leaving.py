"""Leaving early: what is still planned for a run that ended is called off, and its money let go."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.actions import budget
from operation_agent.actions.claiming import wake_followers

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
    if gone:
        budget.finish(session, shop_id, gone, "release", at=at)
        wake_followers(session, shop_id, gone, at=at)
    return len(gone)
