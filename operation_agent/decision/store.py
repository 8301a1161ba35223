"""Reading the history that guardrails need, and writing decisions: a handful of statements, however many customers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.customers import consent
from operation_agent.strategies.live import LiveRule

from .engine import Decision
from .guardrails import demands
from .history import History, Kept, Person

_ADDRESS_COLUMNS = {"email": "email", "sms": "phone"}

_COUNTED_STATES = ["waiting_approval", "ready", "sending", "sent", "unknown", "parked"]
"""An action in one of these was sent, may have been, or still will be."""

_IN = "shop_id = :shop AND customer_id = ANY(CAST(:customers AS uuid[]))"


def load(
    session: Session, shop_id: UUID, rules: Sequence[LiveRule], customer_ids: Collection[UUID], since: datetime
) -> History:
    """The past of these customers, as far as these rules' guardrails ask. `since`: the earliest decision's time."""
    # an array's text, made once for every statement below
    values = {"shop": shop_id, "customers": f"{{{','.join(map(str, customer_ids))}}}"}
    channels = sorted(frozenset[str]().union(*(demands(rule.rule.arms).channels for rule in rules)))
    history = History(people=_people(session, values, customer_ids, channels))
    _load_sides(session, history, values, rules)
    _load_entries(session, history, values, rules)
    _load_messages(session, history, values, rules, since)
    _load_budgets(session, history, shop_id, rules)
    return history


def _people(
    session: Session, values: dict[str, Any], customer_ids: Collection[UUID], channels: Sequence[str]
) -> dict[UUID, Person]:
    shop_id = values["shop"]
    rows = session.execute(
        text("SELECT id, email, phone FROM customers WHERE shop_id = :shop AND id = ANY(CAST(:customers AS uuid[]))"),
        values,
    ).all()
    consents: dict[UUID, dict[tuple[str, str], str]] = {}
    for (customer_id, channel, topic), state in consent.states(session, shop_id, customer_ids).items():
        consents.setdefault(customer_id, {})[channel, topic] = state
    addresses = {row.id: {channel: getattr(row, _ADDRESS_COLUMNS[channel]) for channel in channels} for row in rows}
    stopped = {
        channel: consent.suppressed(
            session, shop_id, channel, [known[channel] for known in addresses.values() if known[channel]]
        )
        for channel in channels
    }
    return {
        customer_id: Person(
            known,
            {channel: stopped[channel][known[channel]] for channel in channels if known[channel] in stopped[channel]},
            consents.get(customer_id, {}),
        )
        for customer_id, known in addresses.items()
    }


def _load_sides(session: Session, history: History, values: dict[str, Any], rules: Sequence[LiveRule]) -> None:
    rows = session.execute(
        text(
            f"SELECT strategy_id, customer_id, held_out, propensity FROM assignments WHERE {_IN}"  # noqa: S608
            " AND strategy_id = ANY(CAST(:strategies AS uuid[]))"
        ),
        {**values, "strategies": sorted({rule.strategy_id for rule in rules})},
    )
    for row in rows:
        history.sides[row.strategy_id, row.customer_id] = Kept(row.held_out, row.propensity)


def _load_entries(session: Session, history: History, values: dict[str, Any], rules: Sequence[LiveRule]) -> None:
    rows = session.execute(
        text(
            f"SELECT rule_id, customer_id, key, entered_at FROM enrolments WHERE {_IN}"  # noqa: S608
            " AND rule_id = ANY(CAST(:rules AS uuid[]))"
        ),
        {**values, "rules": sorted({rule.rule_id for rule in rules})},
    )
    for row in rows:
        history.entries.setdefault((row.rule_id, row.customer_id), {})[row.key] = row.entered_at


def _load_messages(
    session: Session, history: History, values: dict[str, Any], rules: Sequence[LiveRule], since: datetime
) -> None:
    windows = [cap.window for rule in rules for cap in rule.strategy.caps]
    named = {cap.channel for rule in rules for cap in rule.strategy.caps}
    channels = None if None in named else sorted(channel for channel in named if channel)
    if not named:
        return
    rows = session.execute(
        text(
            f"SELECT customer_id, channel, extract(epoch FROM due_at)::float8 AS due FROM actions WHERE {_IN}"  # noqa: S608
            " AND (CAST(:channels AS text[]) IS NULL OR channel = ANY(:channels)) AND topic = 'marketing' AND state = ANY(:states) AND due_at > :since"
        ),
        {
            **values,
            "channels": channels,
            "states": _COUNTED_STATES,
            "since": since - max(windows, default=timedelta(0)),
        },
    )
    for row in rows:
        history.messages.setdefault(row.customer_id, {}).setdefault(row.channel, []).append(row.due)


def _load_budgets(session: Session, history: History, shop_id: UUID, rules: Sequence[LiveRule]) -> None:
    budgets = sorted({rule.budget_id for rule in rules if rule.budget_id is not None})
    if not budgets:
        return
    rows = session.execute(
        text(
            "SELECT id, limit_minor - reserved_minor - spent_minor AS available FROM budgets"
            " WHERE shop_id = :shop AND id = ANY(CAST(:budgets AS uuid[]))"
        ),
        {"shop": shop_id, "budgets": budgets},
    )
    history.available = {row.id: row.available for row in rows}


# One JSON document a statement: psycopg escapes every quote of a text[] by itself, which took ten times as long.
# Receipts come beside it, one a line (JSON has no line break of its own), so that the server reads them once only.
_INSERT_DECISIONS = """
INSERT INTO decisions (shop_id, id, recorded_at, decided_at, customer_id, strategy_id, rule_id, rule_version, trigger,
                       event_id, verdict, arm, propensity, receipt)
SELECT :shop, r.id, :recorded_at, r.decided_at, r.customer_id, r.strategy_id, r.rule_id, r.rule_version, r.trigger,
       r.event_id, r.verdict, r.arm, r.propensity, CAST(r.receipt AS jsonb)
FROM ROWS FROM (
  jsonb_to_recordset(CAST(:rows AS jsonb)) AS (id uuid, decided_at timestamptz, customer_id uuid, strategy_id uuid,
    rule_id uuid, rule_version integer, trigger text, event_id uuid, verdict text, arm text, propensity float8),
  string_to_table(:receipts, E'\\n')
) AS r (id, decided_at, customer_id, strategy_id, rule_id, rule_version, trigger, event_id, verdict, arm, propensity,
        receipt)
"""

# the draw is the same whoever draws it: of two workers that meet here, the first writes
_INSERT_ASSIGNMENTS = """
INSERT INTO assignments (shop_id, strategy_id, customer_id, held_out, propensity, assigned_at, decision_id,
                         prior_revenue_minor, prior_orders)
SELECT :shop, r.strategy_id, r.customer_id, r.held_out, r.propensity, r.assigned_at, r.decision_id, r.revenue, r.orders
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (strategy_id uuid, customer_id uuid, held_out boolean,
  propensity float8, assigned_at timestamptz, decision_id uuid, revenue bigint, orders integer)
ON CONFLICT (shop_id, strategy_id, customer_id) DO NOTHING
"""

_UPSERT_ENROLMENTS = """
INSERT INTO enrolments AS e (shop_id, rule_id, customer_id, key, entered_at, entries, decision_id)
SELECT :shop, r.rule_id, r.customer_id, r.key, r.entered_at, r.entries, r.decision_id
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (rule_id uuid, customer_id uuid, key text, entered_at timestamptz,
  entries integer, decision_id uuid)
ON CONFLICT (shop_id, rule_id, customer_id, key) DO UPDATE
SET entered_at = greatest(e.entered_at, EXCLUDED.entered_at), entries = e.entries + EXCLUDED.entries,
    decision_id = EXCLUDED.decision_id
"""


def write(session: Session, shop_id: UUID, decisions: Sequence[Decision], *, recorded_at: datetime) -> None:
    """Decisions, new assignments and enrolments. `recorded_at` is system time. Rows go in a fixed order, so that two
    writers cannot deadlock."""
    if not decisions:
        return
    receipts = b"\n".join(one.receipt_json for one in decisions).decode()
    common = {"shop": shop_id, "recorded_at": recorded_at, "receipts": receipts}
    session.execute(text(_INSERT_DECISIONS), {**common, "rows": _json(map(_decision_row, decisions))})
    assigned = sorted((one for one in decisions if one.is_new_assignment), key=_strategy_and_customer)
    if assigned:
        session.execute(text(_INSERT_ASSIGNMENTS), {"shop": shop_id, "rows": _json(map(_assignment_row, assigned))})
    entered = _entries([one for one in decisions if one.is_enrolled])
    if entered:
        session.execute(text(_UPSERT_ENROLMENTS), {"shop": shop_id, "rows": _json(map(_enrolment_row, entered))})


def _json(rows: Iterable[dict[str, Any]]) -> str:
    return orjson.dumps(list(rows)).decode()


def _strategy_and_customer(decision: Decision) -> tuple[UUID, UUID]:
    return decision.strategy_id, decision.customer_id


def _entries(decisions: Sequence[Decision]) -> list[list[Decision]]:
    """Entries by rule, customer and key, in that order: one row takes up all of a call."""
    entered: dict[tuple[UUID, UUID, str], list[Decision]] = {}
    for one in decisions:
        entered.setdefault((one.rule_id, one.customer_id, one.enrolment_key), []).append(one)
    return [made for _, made in sorted(entered.items(), key=lambda item: item[0])]


def _decision_row(one: Decision) -> dict[str, Any]:
    return {
        "id": one.id, "decided_at": one.decided_at, "customer_id": one.customer_id, "strategy_id": one.strategy_id,
        "rule_id": one.rule_id, "rule_version": one.rule_version, "trigger": one.trigger.type,
        "event_id": one.trigger.event.id if one.trigger.event else None, "verdict": one.verdict,
        "arm": one.arm.key if one.arm else None, "propensity": one.propensity,
    }  # fmt: skip


def _assignment_row(one: Decision) -> dict[str, Any]:
    return {
        "strategy_id": one.strategy_id, "customer_id": one.customer_id, "held_out": one.held_out,
        "propensity": one.side_propensity, "assigned_at": one.decided_at, "decision_id": one.id,
        "revenue": one.prior_revenue_minor, "orders": one.prior_orders,
    }  # fmt: skip


def _enrolment_row(made: Sequence[Decision]) -> dict[str, Any]:
    last = made[-1]
    return {
        "rule_id": last.rule_id, "customer_id": last.customer_id, "key": last.enrolment_key,
        "entered_at": max(one.decided_at for one in made), "entries": len(made), "decision_id": last.id,
    }  # fmt: skip
