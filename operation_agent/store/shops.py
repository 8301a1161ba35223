"""Shops: the tenants, and whose time it is in each."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import available_timezones

import orjson
from sqlalchemy import Engine, Row, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from operation_agent.kit.clock import SYSTEM, Clock, OffsetClock
from operation_agent.kit.errors import Conflict, NotFound, Rejected
from operation_agent.kit.ids import new_id
from operation_agent.kit.money import minor_digits

from . import audit
from .session import for_shop, for_system


@dataclass(frozen=True, slots=True)
class Shop:
    """A tenant. `seed` fixes its holdouts and draws; `clock_offset` is zero unless it is a sandbox."""

    id: UUID
    slug: str
    name: str
    currency: str
    time_zone: str
    sandbox: bool
    clock_offset: timedelta
    margin_rate: Decimal
    seed: str
    settings: dict[str, Any]

    def clock(self, base: Clock = SYSTEM) -> Clock:
        return OffsetClock(base, self.clock_offset) if self.clock_offset else base

    def now(self, base: Clock = SYSTEM) -> datetime:
        """The instant in this shop (UTC)."""
        return self.clock(base).now()


_SELECT = "SELECT id, slug, name, currency, time_zone, sandbox, clock_offset, margin_rate, seed, settings FROM shops"


def _shop(row: Row[Any]) -> Shop:
    return Shop(**row._mapping)


def create_shop(
    engine: Engine, *, slug: str, name: str, currency: str, time_zone: str = "UTC", sandbox: bool = False,
    seed: str | None = None, margin_rate: Decimal = Decimal("0.4"), starts_at: datetime | None = None,
    actor: str = "system",
) -> Shop:  # fmt: skip
    """Make a shop. `starts_at` sets a sandbox's clock. Raises Rejected or Conflict with what to change."""
    minor_digits(currency)
    if time_zone not in available_timezones():
        raise Rejected(
            f"{time_zone!r} is not a time zone of the IANA database, such as Asia/Shanghai", where="time_zone"
        )
    if starts_at is not None and not sandbox:
        raise Rejected("only a sandbox shop has a clock of its own", where="starts_at")
    now = SYSTEM.now()
    shop_id = new_id()
    values = {
        "id": shop_id, "slug": slug, "name": name, "currency": currency, "time_zone": time_zone, "sandbox": sandbox,
        "clock_offset": starts_at - now if starts_at else timedelta(0), "margin_rate": margin_rate,
        "seed": seed or secrets.token_hex(8), "now": now,
    }  # fmt: skip
    try:
        with for_system(engine) as session:
            session.execute(
                text(
                    "INSERT INTO shops (id, slug, name, currency, time_zone, sandbox, clock_offset, margin_rate, seed,"
                    " created_at) VALUES (:id, :slug, :name, :currency, :time_zone, :sandbox, :clock_offset,"
                    " :margin_rate, :seed, :now)"
                ),
                values,
            )
    except IntegrityError as error:
        if "shops_slug_key" in str(error.orig):
            raise Conflict(f"a shop named {slug!r} exists already", where="slug") from None
        raise Rejected("a shop's slug is lower-case letters, digits and hyphens, at most 63", where="slug") from None
    with for_shop(engine, shop_id) as session:
        audit.record(session, shop_id, at=now, actor=actor, verb="shop.created", subject=f"shop:{slug}")
        return load_shop(session, shop_id)


def load_shop(session: Session, shop_id: UUID) -> Shop:
    row = session.execute(text(_SELECT + " WHERE id = :id"), {"id": shop_id}).one_or_none()
    if row is None:
        raise NotFound(f"there is no shop {shop_id}")
    return _shop(row)


def find_shop(session: Session, name: str) -> Shop:
    """By slug or id, in system scope (or the shop's own)."""
    row = session.execute(text(_SELECT + " WHERE slug = :name OR id::text = :name"), {"name": name}).one_or_none()
    if row is None:
        raise NotFound(f"there is no shop {name!r}; `opagent shop list` shows them")
    return _shop(row)


def list_shops(session: Session) -> list[Shop]:
    return [_shop(row) for row in session.execute(text(_SELECT + " ORDER BY slug"))]


def move_clock(session: Session, shop: Shop, to: datetime, *, base: Clock = SYSTEM) -> Shop:
    """Set a sandbox's clock forward to `to`. Raises Rejected for a real shop, or a clock set back."""
    if not shop.sandbox:
        raise Rejected(f"{shop.slug} is a real shop: its clock cannot be moved")
    now = base.now()
    if to < now + shop.clock_offset:
        raise Rejected("a shop's clock only goes forward", where="to")
    session.execute(text("UPDATE shops SET clock_offset = :offset WHERE id = :id"), {"offset": to - now, "id": shop.id})
    return load_shop(session, shop.id)


def update_settings(session: Session, shop: Shop, changes: dict[str, Any]) -> Shop:
    """Replace the settings that `changes` names; None removes one, so that its default counts again."""
    given = {name: value for name, value in changes.items() if value is not None}
    session.execute(
        text(
            "UPDATE shops SET settings = (settings - CAST(:removed AS text[])) || CAST(:given AS jsonb) WHERE id = :id"
        ),
        {"given": orjson.dumps(given).decode(), "removed": sorted(changes.keys() - given.keys()), "id": shop.id},
    )
    return load_shop(session, shop.id)
