"""Forgetting a person, or a whole shop, in one transaction: all of it or nothing, and counted by table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import CursorResult, text
from sqlalchemy.orm import Session

from operation_agent.actions import budget
from operation_agent.actions.claiming import wake_followers
from operation_agent.actions.states import TERMINAL
from operation_agent.experiments.assignment import global_salt
from operation_agent.kit.ids import uniform
from operation_agent.store.shops import Shop

from . import subjects
from .holdings import HOLDINGS
from .subjects import Subject

_OPEN = ("waiting_approval", "ready")
_PLACES = 10_000
"""Of the shop-wide draw: the digits that are kept."""


def erase(session: Session, shop: Shop, subject: Subject, *, at: datetime) -> dict[str, int]:
    """Forget a person; returns rows by table (`<table>.blanked` where a part of them stays). `at` is system
    time. Somebody whom nobody knows is forgotten already: nothing is counted.

    What is being sent at this moment settles by itself; `actions.unsettled` counts it.
    """
    events, actions = subjects.events_of(session, shop.id, subject), subjects.actions_of(session, shop.id, subject)
    _call_off(session, shop.id, actions, at)
    _remember_draws(session, shop, subject, at)
    values = subject.values(shop.id, events, actions) | {"terminal": list(TERMINAL)}
    done: dict[str, int] = {}
    for one in HOLDINGS:
        if one.erase:
            _count(done, one.table, session, f"DELETE FROM {one.table} WHERE shop_id = :shop AND {one.whose}", values)  # noqa: S608
        elif one.blank:
            which = f"{one.whose} AND {one.blank_if}"
            statement = f"UPDATE {one.table} SET {one.blank} WHERE shop_id = :shop AND {which}"  # noqa: S608
            _count(done, f"{one.table}.blanked", session, statement, values)
    unsettled = session.execute(
        text(
            "SELECT count(*) FROM actions WHERE shop_id = :shop AND id = ANY(CAST(:actions AS uuid[]))"
            " AND state <> ALL(CAST(:terminal AS text[]))"
        ),
        values,
    ).scalar_one()
    return done | ({"actions.unsettled": unsettled} if unsettled else {})


def _count(done: dict[str, int], name: str, session: Session, statement: str, values: Mapping[str, Any]) -> None:
    number = cast("CursorResult[Any]", session.execute(text(statement), values)).rowcount
    if number:
        done[name] = done.get(name, 0) + number


def _call_off(session: Session, shop_id: UUID, actions: list[UUID], at: datetime) -> None:
    """What was planned is not sent, and its money is given back."""
    rows = session.execute(
        text(
            "UPDATE actions SET state = 'cancelled', reason = 'erased', retry_at = NULL WHERE shop_id = :shop"
            " AND id = ANY(CAST(:ids AS uuid[])) AND state = ANY(CAST(:open AS text[])) AND NOT maybe_sent RETURNING id"
        ),
        {"shop": shop_id, "ids": actions, "open": list(_OPEN)},
    )
    gone = list(rows.scalars())
    budget.finish(session, shop_id, release=gone, at=at)
    wake_followers(session, shop_id, gone, at=at)


def _remember_draws(session: Session, shop: Shop, subject: Subject, at: datetime) -> None:
    rows = session.execute(
        text("SELECT id, random_key FROM customers WHERE shop_id = :shop AND id = ANY(CAST(:ids AS uuid[]))"),
        {"shop": shop.id, "ids": list(subject.customers)},
    ).all()
    draws = [uniform(shop.seed, *global_salt(str(row.random_key))) for row in rows]
    session.execute(
        text(
            "INSERT INTO forgotten (shop_id, customer_id, draw, at) SELECT :shop, r.id, r.draw, :at"
            " FROM unnest(CAST(:ids AS uuid[]), CAST(:draws AS float8[])) AS r (id, draw) ON CONFLICT DO NOTHING"
        ),
        {
            "shop": shop.id, "at": at, "ids": [row.id for row in rows],
            "draws": [math.floor(draw * _PLACES) / _PLACES for draw in draws],
        },
    )  # fmt: skip


# -- a whole shop -------------------------------------------------------------------------------------------------

_OF_SHOPS = text("""
SELECT c.relname, coalesce(array_agg(p.relname) FILTER (WHERE p.relname IS NOT NULL), '{}') AS parents
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = current_schema()
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'shop_id' AND NOT a.attisdropped
LEFT JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'f'
LEFT JOIN pg_class p ON p.oid = k.confrelid AND p.oid <> c.oid
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition GROUP BY c.relname ORDER BY c.relname
""")
_STAY = frozenset({"audit_log", "privacy_requests"})


def erase_shop(session: Session, shop_id: UUID) -> dict[str, int]:
    """Delete every row of a shop but its audit log and the requests themselves; returns rows by table.

    The shop itself stays as an empty name, so that its proof can be read and late webhooks are refused with a reason.
    """
    parents = {row.relname: set(row.parents) for row in session.execute(_OF_SHOPS)}
    done: dict[str, int] = {}
    left = set(parents) - _STAY
    while left:
        free = sorted(table for table in left if not any(table in parents[other] for other in left if other != table))
        for table in free:
            _count(done, table, session, f"DELETE FROM {table} WHERE shop_id = :shop", {"shop": shop_id})  # noqa: S608
        left -= set(free)
    session.execute(text("UPDATE shops SET name = slug, settings = '{}' WHERE id = :shop"), {"shop": shop_id})
    return done
