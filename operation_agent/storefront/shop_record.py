"""What the storefront says of the shop itself: its name, time zone and currency.

The shop follows it in what nobody set by hand: what still is the default, or what the storefront said before. Its
currency it follows only while nothing is counted in it, since amounts are not converted afterwards: else the audit log
warns, once, and everything goes on in the shop's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import available_timezones

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.events.event import Event
from operation_agent.kit.errors import Rejected
from operation_agent.kit.money import minor_digits
from operation_agent.store import audit
from operation_agent.store.shops import Shop

TYPE = "shop.changed"
LONGEST_NAME = 200


def apply(session: Session, shop: Shop, events: Sequence[Event], *, at: datetime) -> None:
    """Follow the newest of these events, if it is newer than what was said before. `at` is system time."""
    told = [event for event in events if event.type == TYPE]
    if not told:
        return
    newest = max(told, key=lambda event: (event.occurred_at, event.source_id))
    row = session.execute(
        text("SELECT slug, name, time_zone, currency, storefront FROM shops WHERE id = :id FOR NO KEY UPDATE"),
        {"id": shop.id},
    ).one()
    said, before = _said(newest), row.storefront
    if before and before.get("at", "") >= said["at"]:
        return
    defaults = {"name": row.slug, "time_zone": "UTC"}
    changes = {
        name: said[name]
        for name, default in defaults.items()
        if said[name] and said[name] != getattr(row, name) and getattr(row, name) in (default, before.get(name))
    }
    differs = bool(said["currency"]) and said["currency"] != row.currency
    if differs and not _counts_money(session, shop):
        changes["currency"], differs = said["currency"], False
    _write(session, shop, changes, {**before, **{name: value for name, value in said.items() if value}})
    notes: list[tuple[str, dict[str, Any]]] = []
    if changes:
        notes.append(("shop.changed", {"before": {name: getattr(row, name) for name in changes}, "after": changes}))
    if differs and before.get("currency") != said["currency"]:
        notes.append(("shop.currency_differs", {"shop": row.currency, "storefront": said["currency"]}))
    actor = f"storefront:{newest.properties.get('vendor') or newest.source}"
    for verb, detail in notes:
        audit.record(session, shop.id, at=at, actor=actor, verb=verb, subject=f"shop:{row.slug}", detail=detail)


def _said(event: Event) -> dict[str, str]:
    """What is usable of it; empty: not said, or nothing that we know."""
    named = {name: event.properties.get(name) for name in ("name", "time_zone", "currency")}
    texts = {name: value if isinstance(value, str) else "" for name, value in named.items()}
    if texts["time_zone"] not in available_timezones():
        texts["time_zone"] = ""
    try:
        minor_digits(texts["currency"])
    except Rejected:
        texts["currency"] = ""
    moment = event.occurred_at.astimezone(UTC).isoformat(timespec="microseconds")
    return {**texts, "name": texts["name"][:LONGEST_NAME], "at": moment}


def _counts_money(session: Session, shop: Shop) -> bool:
    return bool(
        session.execute(
            text(
                "SELECT EXISTS (SELECT 1 FROM orders WHERE shop_id = :shop)"
                " OR EXISTS (SELECT 1 FROM unpaid_orders WHERE shop_id = :shop)"
                " OR EXISTS (SELECT 1 FROM timeline WHERE shop_id = :shop AND amount_minor IS NOT NULL)"
                " OR EXISTS (SELECT 1 FROM variants WHERE shop_id = :shop)"
                " OR EXISTS (SELECT 1 FROM budgets WHERE shop_id = :shop)"
                " OR EXISTS (SELECT 1 FROM strategies WHERE shop_id = :shop)"
            ),
            {"shop": shop.id},
        ).scalar_one()
    )


def _write(session: Session, shop: Shop, changes: dict[str, str], said: dict[str, Any]) -> None:
    session.execute(
        text(
            "UPDATE shops SET name = COALESCE(:name, name), time_zone = COALESCE(:time_zone, time_zone),"
            " currency = COALESCE(:currency, currency), storefront = CAST(:said AS jsonb) WHERE id = :id"
        ),
        {
            **{name: changes.get(name) for name in ("name", "time_zone", "currency")},
            "said": orjson.dumps(said).decode(),
            "id": shop.id,
        },
    )
