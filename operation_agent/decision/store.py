"""Reading the history that guardrails need, and writing decisions: a handful of statements, however many customers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.customers import consent
from operation_agent.strategies.live import LiveRule

from .engine import Decision
from .history import History, Kept, Person

_ADDRESS_COLUMNS = {"email": "email", "sms": "phone"}

_COUNTED_STATES = ["waiting_approval", "ready", "sending", "sent", "unknown", "parked"]
"""An action in one of these was sent, may have been, or still will be."""

_IN = "shop_id = :shop AND customer_id = ANY(CAST(:customers AS uuid[]))"


def load(
    session: Session, shop_id: UUID, rules: Sequence[LiveRule], customer_ids: Collection[UUID], since: datetime
) -> History:
    """The past of these customers, as far as these rules' guardrails ask. `since`: the earliest decision's time."""
    customers = list(customer_ids)
    values = {"shop": shop_id, "customers": customers}
    history = History(people=_people(session, shop_id, customers))
    _load_sides(session, history, values, rules)
    _load_entries(session, history, values, rules)
    _load_messages(session, history, values, rules, since)
    _load_budgets(session, history, shop_id, rules)
    return history


def _people(session: Session, shop_id: UUID, customers: list[UUID]) -> dict[UUID, Person]:
    rows = session.execute(
        text("SELECT id, email, phone FROM customers WHERE shop_id = :shop AND id = ANY(CAST(:customers AS uuid[]))"),
        {"shop": shop_id, "customers": customers},
    ).all()
    consents: dict[UUID, dict[tuple[str, str], str]] = {}
    for (customer_id, channel, topic), state in consent.states(session, shop_id, customers).items():
        consents.setdefault(customer_id, {})[channel, topic] = state
    suppressed = {
        channel: consent.suppressed(
            session, shop_id, channel, [address for row in rows if (address := getattr(row, column))]
        )
        for channel, column in _ADDRESS_COLUMNS.items()
    }
    people = {}
    for row in rows:
        addresses = {channel: getattr(row, column) for channel, column in _ADDRESS_COLUMNS.items()}
        stopped = {
            channel: suppressed[channel][address]
            for channel, address in addresses.items()
            if address in suppressed[channel]
        }
        people[row.id] = Person(addresses, stopped, consents.get(row.id, {}))
    return people


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
    channels = sorted({cap.channel for rule in rules for cap in rule.strategy.caps})
    if not channels:
        return
    rows = session.execute(
        text(
            f"SELECT customer_id, channel, extract(epoch FROM due_at)::float8 AS due FROM actions WHERE {_IN}"  # noqa: S608
            " AND channel = ANY(:channels) AND topic = 'marketing' AND state = ANY(:states) AND due_at > :since"
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


_INSERT_DECISIONS = """
INSERT INTO decisions (shop_id, id, recorded_at, decided_at, customer_id, strategy_id, rule_id, rule_version, trigger,
                       event_id, verdict, arm, propensity, receipt)
SELECT :shop, r.id, :recorded_at, r.decided_at, r.customer_id, r.strategy_id, r.rule_id, r.rule_version, r.trigger,
       r.event_id, r.verdict, r.arm, r.propensity, r.receipt::jsonb
FROM unnest(CAST(:ids AS uuid[]), CAST(:decided AS timestamptz[]), CAST(:customers AS uuid[]),
            CAST(:strategies AS uuid[]), CAST(:rules AS uuid[]), CAST(:versions AS integer[]),
            CAST(:triggers AS text[]), CAST(:events AS uuid[]), CAST(:verdicts AS text[]), CAST(:arms AS text[]),
            CAST(:propensities AS float8[]), CAST(:receipts AS text[]))
     AS r (id, decided_at, customer_id, strategy_id, rule_id, rule_version, trigger, event_id, verdict, arm,
           propensity, receipt)
"""

# the draw is the same whoever draws it: of two workers that meet here, the first writes
_INSERT_ASSIGNMENTS = """
INSERT INTO assignments (shop_id, strategy_id, customer_id, held_out, propensity, assigned_at, decision_id,
                         prior_revenue_minor, prior_orders)
SELECT :shop, r.* FROM unnest(CAST(:strategies AS uuid[]), CAST(:customers AS uuid[]), CAST(:held_out AS boolean[]),
  CAST(:propensities AS float8[]), CAST(:assigned AS timestamptz[]), CAST(:decisions AS uuid[]),
  CAST(:revenue AS bigint[]), CAST(:orders AS integer[])) AS r
ON CONFLICT (shop_id, strategy_id, customer_id) DO NOTHING
"""

_UPSERT_ENROLMENTS = """
INSERT INTO enrolments AS e (shop_id, rule_id, customer_id, key, entered_at, entries, decision_id)
SELECT :shop, r.* FROM unnest(CAST(:rules AS uuid[]), CAST(:customers AS uuid[]), CAST(:keys AS text[]),
  CAST(:entered AS timestamptz[]), CAST(:entries AS integer[]), CAST(:decisions AS uuid[])) AS r
ON CONFLICT (shop_id, rule_id, customer_id, key) DO UPDATE
SET entered_at = greatest(e.entered_at, EXCLUDED.entered_at), entries = e.entries + EXCLUDED.entries,
    decision_id = EXCLUDED.decision_id
"""


def write(session: Session, shop_id: UUID, decisions: Sequence[Decision], *, recorded_at: datetime) -> None:
    """Decisions, new assignments and enrolments. `recorded_at` is system time. Rows go in a fixed order, so that two
    writers cannot deadlock."""
    if not decisions:
        return
    _write_decisions(session, shop_id, decisions, recorded_at)
    _write_assignments(session, shop_id, [one for one in decisions if one.is_new_assignment])
    _write_enrolments(session, shop_id, [one for one in decisions if one.is_enrolled])


def _write_decisions(session: Session, shop_id: UUID, decisions: Sequence[Decision], recorded_at: datetime) -> None:
    session.execute(
        text(_INSERT_DECISIONS),
        {
            "shop": shop_id,
            "recorded_at": recorded_at,
            "ids": [one.id for one in decisions],
            "decided": [one.decided_at for one in decisions],
            "customers": [one.customer_id for one in decisions],
            "strategies": [one.strategy_id for one in decisions],
            "rules": [one.rule_id for one in decisions],
            "versions": [one.rule_version for one in decisions],
            "triggers": [one.trigger.type for one in decisions],
            "events": [one.trigger.event.id if one.trigger.event else None for one in decisions],
            "verdicts": [one.verdict for one in decisions],
            "arms": [one.arm.key if one.arm else None for one in decisions],
            "propensities": [one.propensity for one in decisions],
            "receipts": [orjson.dumps(one.receipt).decode() for one in decisions],
        },
    )


def _write_assignments(session: Session, shop_id: UUID, decisions: Sequence[Decision]) -> None:
    if not decisions:
        return
    ordered = sorted(decisions, key=lambda one: (one.strategy_id, one.customer_id))
    session.execute(
        text(_INSERT_ASSIGNMENTS),
        {
            "shop": shop_id,
            "strategies": [one.strategy_id for one in ordered],
            "customers": [one.customer_id for one in ordered],
            "held_out": [one.held_out for one in ordered],
            "propensities": [one.side_propensity for one in ordered],
            "assigned": [one.decided_at for one in ordered],
            "decisions": [one.id for one in ordered],
            "revenue": [one.prior_revenue_minor for one in ordered],
            "orders": [one.prior_orders for one in ordered],
        },
    )


def _write_enrolments(session: Session, shop_id: UUID, decisions: Sequence[Decision]) -> None:
    if not decisions:
        return
    entered: dict[tuple[UUID, UUID, str], list[Decision]] = {}
    for one in decisions:
        entered.setdefault((one.rule_id, one.customer_id, one.enrolment_key), []).append(one)
    rows = sorted(entered.items())
    session.execute(
        text(_UPSERT_ENROLMENTS),
        {
            "shop": shop_id,
            "rules": [key[0] for key, _ in rows],
            "customers": [key[1] for key, _ in rows],
            "keys": [key[2] for key, _ in rows],
            "entered": [max(one.decided_at for one in made) for _, made in rows],
            "entries": [len(made) for _, made in rows],
            "decisions": [made[-1].id for _, made in rows],
        },
    )
