"""Writing decisions, new assignments and enrolments: three statements, however many customers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.store import arrays

from .engine import Decision

AT_ONCE = 5_000
"""Decisions in one statement: receipts of a kilobyte each should not fill the memory of either side."""

# arrays unnested in the SELECT list are read row by row; in FROM they would be laid down in a file first
_INSERT_DECISIONS = text("""
INSERT INTO decisions (shop_id, id, recorded_at, decided_at, customer_id, strategy_id, rule_id, rule_version, trigger,
                       event_id, verdict, arm, propensity, receipt)
SELECT :shop, unnest(CAST(:ids AS uuid[])), :recorded_at, unnest(CAST(:decided AS timestamptz[])),
  unnest(CAST(:customers AS uuid[])), unnest(CAST(:strategies AS uuid[])), unnest(CAST(:rules AS uuid[])),
  unnest(CAST(:versions AS bigint[])), unnest(CAST(:triggers AS text[])), unnest(CAST(:events AS uuid[])),
  unnest(CAST(:verdicts AS text[])), unnest(CAST(:arms AS text[])), unnest(CAST(:propensities AS float8[])),
  unnest(CAST(:receipts AS jsonb[]))
""")

# the draw is the same whoever draws it: of two workers that meet here, the first writes
_INSERT_ASSIGNMENTS = text("""
INSERT INTO assignments (shop_id, strategy_id, customer_id, held_out, propensity, assigned_at, decision_id,
                         prior_revenue_minor, prior_orders)
SELECT :shop, unnest(CAST(:strategies AS uuid[])), unnest(CAST(:customers AS uuid[])),
  unnest(CAST(:held_out AS bigint[])) = 1, unnest(CAST(:propensities AS float8[])),
  unnest(CAST(:assigned AS timestamptz[])), unnest(CAST(:decisions AS uuid[])), unnest(CAST(:revenue AS bigint[])),
  unnest(CAST(:orders AS bigint[]))
ON CONFLICT (shop_id, strategy_id, customer_id) DO NOTHING
""")

_UPSERT_ENROLMENTS = text("""
INSERT INTO enrolments AS e (shop_id, rule_id, customer_id, key, entered_at, entries, decision_id)
SELECT :shop, unnest(CAST(:rules AS uuid[])), unnest(CAST(:customers AS uuid[])), unnest(CAST(:keys AS text[])),
  unnest(CAST(:entered AS timestamptz[])), unnest(CAST(:entries AS bigint[])), unnest(CAST(:decisions AS uuid[]))
ON CONFLICT (shop_id, rule_id, customer_id, key) DO UPDATE
SET entered_at = greatest(e.entered_at, EXCLUDED.entered_at), entries = e.entries + EXCLUDED.entries,
    decision_id = EXCLUDED.decision_id
""")


def write(session: Session, shop_id: UUID, decisions: Sequence[Decision], *, recorded_at: datetime) -> None:
    """Decisions, new assignments and enrolments. `recorded_at` is system time. Rows go in a fixed order, so that two
    writers cannot deadlock."""
    # by customer: the index of a customer's decisions then grows page by page
    for part in _parts(sorted(decisions, key=_customer)):
        _write_decisions(session, shop_id, part, recorded_at)
    assigned = sorted((one for one in decisions if one.is_new_assignment), key=_strategy_and_customer)
    if assigned:
        _write_assignments(session, shop_id, assigned)
    entered = _entries([one for one in decisions if one.is_enrolled])
    if entered:
        _write_enrolments(session, shop_id, entered)


def _parts(decisions: Sequence[Decision]) -> Iterator[Sequence[Decision]]:
    for start in range(0, len(decisions), AT_ONCE):
        yield decisions[start : start + AT_ONCE]


def _write_decisions(session: Session, shop_id: UUID, part: Sequence[Decision], recorded_at: datetime) -> None:
    events = [one.trigger.event for one in part]
    session.execute(
        _INSERT_DECISIONS,
        {
            "shop": shop_id,
            "recorded_at": recorded_at,
            "ids": arrays.uuids([one.id.bytes for one in part]),
            "decided": arrays.instants([one.decided_at for one in part]),
            "customers": arrays.uuids([one.customer_id.bytes for one in part]),
            "strategies": _few(one.strategy_id for one in part),
            "rules": _few(one.rule_id for one in part),
            "versions": arrays.integers([one.rule_version for one in part]),
            "triggers": arrays.texts([one.trigger.type for one in part]),
            "events": arrays.uuids([None if event is None else event.id.bytes for event in events]),
            "verdicts": arrays.texts([one.verdict for one in part]),
            "arms": arrays.texts([one.arm.key if one.arm else None for one in part]),
            "propensities": arrays.floats([one.propensity for one in part]),
            "receipts": arrays.documents([one.receipt_json for one in part]),
        },
    )


def _write_assignments(session: Session, shop_id: UUID, assigned: Sequence[Decision]) -> None:
    session.execute(
        _INSERT_ASSIGNMENTS,
        {
            "shop": shop_id,
            "strategies": _few(one.strategy_id for one in assigned),
            "customers": arrays.uuids([one.customer_id.bytes for one in assigned]),
            "held_out": arrays.integers([int(one.held_out) for one in assigned]),
            "propensities": arrays.floats([one.side_propensity for one in assigned]),
            "assigned": arrays.instants([one.decided_at for one in assigned]),
            "decisions": arrays.uuids([one.id.bytes for one in assigned]),
            "revenue": arrays.integers([one.prior_revenue_minor for one in assigned]),
            "orders": arrays.integers([one.prior_orders for one in assigned]),
        },
    )


def _write_enrolments(session: Session, shop_id: UUID, entered: Sequence[Sequence[Decision]]) -> None:
    last = [made[-1] for made in entered]
    session.execute(
        _UPSERT_ENROLMENTS,
        {
            "shop": shop_id,
            "rules": _few(one.rule_id for one in last),
            "customers": arrays.uuids([one.customer_id.bytes for one in last]),
            "keys": arrays.texts([one.enrolment_key for one in last]),
            "entered": arrays.instants([max(one.decided_at for one in made) for made in entered]),
            "entries": arrays.integers([len(made) for made in entered]),
            "decisions": arrays.uuids([one.id.bytes for one in last]),
        },
    )


def _customer(decision: Decision) -> int:
    return decision.customer_id.int


def _strategy_and_customer(decision: Decision) -> tuple[int, int]:
    return decision.strategy_id.int, decision.customer_id.int


def _entries(decisions: Sequence[Decision]) -> list[list[Decision]]:
    """Entries by rule, customer and key, in that order: one row takes up all of a call."""
    entered: dict[tuple[int, int, str], list[Decision]] = {}
    for one in decisions:
        entered.setdefault((one.rule_id.int, one.customer_id.int, one.enrolment_key), []).append(one)
    return [entered[key] for key in sorted(entered)]


def _few(ids: Iterable[UUID]) -> Any:
    """A uuid[] of ids of which there are few: the same objects come again and again."""
    known: dict[int, bytes] = {}
    listed = list(ids)
    for one in listed:
        if id(one) not in known:
            known[id(one)] = one.bytes
    return arrays.uuids([known[id(one)] for one in listed])
