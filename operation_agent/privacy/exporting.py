"""Everything that is held about a person, as one JSON document: {customer ids, data: {table: [rows]}}."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.store.shops import Shop

from . import subjects
from .holdings import HOLDINGS
from .subjects import Subject

_LEFT_OUT = ("shop_id", "digest", "trait_times")


def export(session: Session, shop: Shop, subject: Subject, *, at: datetime) -> tuple[bytes, dict[str, int]]:
    """The document and its rows by table. `at` is system time. Nobody known: a document that says so by being empty."""
    events, actions = subjects.events_of(session, shop.id, subject), subjects.actions_of(session, shop.id, subject)
    values = subject.values(shop.id, events, actions)
    data: dict[str, list[dict[str, Any]]] = {}
    for one in HOLDINGS:
        if one.shown is None:
            continue
        rows = session.execute(
            text(f"SELECT {one.shown} FROM {one.table} WHERE shop_id = :shop AND {one.whose}"),  # noqa: S608
            values,
        )
        found = [{name: value for name, value in row._mapping.items() if name not in _LEFT_OUT} for row in rows]
        if found:
            data[one.table] = found
    document = {
        "shop": shop.slug,
        "made_at": at,
        "customers": list(subject.customers),
        "identities": subject.identities,
        "data": data,
    }
    counts = {table: len(rows) for table, rows in data.items()}
    return orjson.dumps(document, option=orjson.OPT_INDENT_2, default=str), counts
