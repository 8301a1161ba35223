"""Segments of a shop: saved conditions under a key, made, changed and archived. Who is in them says `membership`.

Making or changing one asks for a refresh: everybody is held against it by a worker, not by the request. Who is in a
new segment from the start has not entered it; who meets a changed definition has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.kit.errors import Conflict, NotFound, Rejected
from operation_agent.kit.ids import new_id
from operation_agent.store import audit, outbox, ticks
from operation_agent.store.shops import Shop
from rules.condition import Condition
from rules.errors import RuleError
from rules.fields import Vocabulary
from rules.tree import Node

from .definition import PREFIX, Form, in_order, parse, refers_to
from .vocabulary import vocabulary as of_everything


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """`definition`: the canonical form of rules.condition. `size`: members as of `refreshed_at` (shop time); None for
    both: nobody was held against it yet. The other times are system time."""

    id: UUID
    key: str
    name: dict[str, str]
    definition: dict[str, Any]
    version: int
    state: str
    size: int | None
    refreshed_at: datetime | None
    created_at: datetime
    created_by: str
    updated_at: datetime


_COLUMNS = "id, key, name, definition, version, state, size, refreshed_at, created_at, created_by, updated_at"


def _row(row: Row[Any]) -> SegmentRow:
    return SegmentRow(**row._mapping)


def list_segments(
    session: Session, shop_id: UUID, *, state: str | None = None, after: str | None = None, limit: int | None = None
) -> list[SegmentRow]:
    """By key, from after the key `after`."""
    rows = session.execute(
        text(
            f"SELECT {_COLUMNS} FROM segments WHERE shop_id = :shop"  # noqa: S608
            " AND (CAST(:state AS text) IS NULL OR state = :state) AND (CAST(:after AS text) IS NULL OR key > :after)"
            " ORDER BY key LIMIT :limit"
        ),
        {"shop": shop_id, "state": state, "after": after, "limit": limit},
    )
    return [_row(row) for row in rows]


def find(session: Session, shop_id: UUID, key: str) -> SegmentRow:
    """By key or id. Raises NotFound."""
    row = session.execute(
        text(f"SELECT {_COLUMNS} FROM segments WHERE shop_id = :shop AND (key = :key OR id::text = :key)"),  # noqa: S608
        {"shop": shop_id, "key": key},
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no segment {key!r}")
    return _row(row)


def read(raw: Any, vocabulary: Vocabulary, *, form: Form = "conditions") -> Condition:
    """A definition in plain dicts. Raises Rejected (code 'segment') with the path at fault."""
    try:
        return parse(raw, vocabulary, form=form)
    except RuleError as error:
        raise Rejected(error.reason, code="segment", where=error.where) from None


def create(
    session: Session, shop: Shop, *, key: str, name: Mapping[str, str], definition: Any, vocabulary: Vocabulary,
    at: datetime, actor: str, form: Form = "conditions",
) -> SegmentRow:  # fmt: skip
    """Make a segment, and ask for everybody to be held against it. `at` is system time; `vocabulary` the shop's.

    Raises Rejected with the path at fault, Conflict when the key is taken (also by an archived segment).
    """
    _check_key(key)
    written = {"name": _name(name), "definition": read(definition, vocabulary, form=form).to_dict()}
    _one_at_a_time(session, shop.id)
    made = session.execute(
        text(
            "INSERT INTO segments (shop_id, id, key, name, definition, state, created_at, created_by, updated_at)"
            " VALUES (:shop, :id, :key, CAST(:name AS jsonb), CAST(:definition AS jsonb), 'active', :at, :actor, :at)"
            " ON CONFLICT (shop_id, key) DO NOTHING RETURNING 1"
        ),
        {"shop": shop.id, "id": new_id(), "key": key, "at": at, "actor": actor} | _dumped(written),
    ).scalar()
    if not made:
        raise Conflict(f"the shop has a segment {key!r} already; archived ones keep their key", where="key")
    _ask_for_refresh(session, shop, at)
    _audit(session, shop, "created", key, at, actor, {"after": written})
    return find(session, shop.id, key)


def change(
    session: Session, shop: Shop, key: str, *, vocabulary: Vocabulary, at: datetime, actor: str,
    name: Mapping[str, str] | None = None, definition: Any = None, form: Form = "conditions",
) -> SegmentRow:  # fmt: skip
    """Give a segment another name or definition; with another definition it has a new version, and everybody is held
    against it again. `at` is system time.

    Raises NotFound; Conflict when it is archived; Rejected with the path at fault, also for segments that would refer
    to each other in a circle.
    """
    _one_at_a_time(session, shop.id)
    before = find(session, shop.id, key)
    if before.state != "active":
        raise Conflict(f"the segment {key!r} is archived; make a new one", code="state")
    now = {"name": before.name, "definition": before.definition}
    wanted = dict(now)
    if name is not None:
        wanted["name"] = _name(name)
    if definition is not None:
        condition = read(definition, vocabulary, form=form)
        _refuse_circle(session, shop.id, before.key, condition)
        wanted["definition"] = condition.to_dict()
    if wanted == now:
        return before
    is_redefined = wanted["definition"] != now["definition"]
    session.execute(
        text(
            "UPDATE segments SET name = CAST(:name AS jsonb), definition = CAST(:definition AS jsonb),"
            " version = version + :step, updated_at = :at WHERE shop_id = :shop AND id = :id"
        ),
        {"shop": shop.id, "id": before.id, "step": int(is_redefined), "at": at} | _dumped(wanted),
    )
    if is_redefined:
        _ask_for_refresh(session, shop, at)
    _audit(session, shop, "changed", before.key, at, actor, {"before": now, "after": wanted})
    return find(session, shop.id, key)


def archive(session: Session, shop: Shop, key: str, *, at: datetime, actor: str) -> SegmentRow:
    """Hold nobody against it any more; its key stays taken. `at` is system time.

    Raises NotFound; Conflict naming the strategies that are live or paused, or the segments, that still ask for it.
    """
    _one_at_a_time(session, shop.id)
    before = find(session, shop.id, key)
    if before.state == "archived":
        return before
    users = used_by(session, shop.id, before.key)
    if users:
        raise Conflict(
            f"the segment {before.key!r} is used by {', '.join(users)}; change them first",
            code="in_use",
            used_by=list(users),
        )
    session.execute(
        text("UPDATE segments SET state = 'archived', updated_at = :at WHERE shop_id = :shop AND id = :id"),
        {"shop": shop.id, "id": before.id, "at": at},
    )
    _audit(session, shop, "archived", before.key, at, actor, {"definition": before.definition})
    return find(session, shop.id, key)


# any text of the definition that is the segment's name: a field of a condition, or a group that is entered or left
_USERS = text("""
SELECT DISTINCT 'strategy ' || s.key AS name FROM strategies s
JOIN rules r ON r.shop_id = s.shop_id AND r.strategy_id = s.id AND r.state NOT IN ('draft', 'retired')
WHERE s.shop_id = :shop AND s.state IN ('live', 'paused')
  AND jsonb_path_exists(r.definition, '$.** ? (@ == $name)', jsonb_build_object('name', CAST(:name AS text)))
UNION ALL
SELECT 'segment ' || key FROM segments WHERE shop_id = :shop AND state = 'active'
  AND jsonb_path_exists(definition, '$.** ? (@ == $name)', jsonb_build_object('name', CAST(:name AS text)))
ORDER BY name
""")


def used_by(session: Session, shop_id: UUID, key: str) -> Sequence[str]:
    """Who asks for a segment: strategies that are live or paused, and segments, as "strategy vip" or "segment big"."""
    return session.execute(_USERS, {"shop": shop_id, "name": PREFIX + key}).scalars().all()


def _one_at_a_time(session: Session, shop_id: UUID) -> None:
    """So that two changes cannot close a circle between them, nor one use what the other archives."""
    session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": f"segments:{shop_id}"}
    )  # fmt: skip


def _refuse_circle(session: Session, shop_id: UUID, key: str, condition: Condition) -> None:
    found = session.execute(
        text("SELECT key, definition FROM segments WHERE shop_id = :shop AND state = 'active'"), {"shop": shop_id}
    )
    references = {row.key: refers_to(parse(row.definition, of_everything())) for row in found}
    try:
        in_order({**references, key: refers_to(condition)})
    except RuleError as error:
        raise Rejected(error.reason, code="segment", where=error.where) from None


def _check_key(key: str) -> None:
    try:
        Node(key, "key").key()
    except RuleError as error:
        raise Rejected(error.reason, code="segment", where="key") from None
    if "." in key:
        raise Rejected("a segment's key has no dots: conditions name it segment.<key>", code="segment", where="key")


def _name(name: Mapping[str, str]) -> dict[str, str]:
    try:
        return Node(dict(name), "name").languages(longest=200)
    except RuleError as error:
        raise Rejected(error.reason, code="segment", where=error.where) from None


def _dumped(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: orjson.dumps(value).decode() for name, value in values.items()}


def _ask_for_refresh(session: Session, shop: Shop, at: datetime) -> None:
    ticks.take(session, shop.id, ticks.SEGMENTS, at + shop.clock_offset, at=at)
    outbox.ring(session, shop.id, [(ticks.SEGMENTS, "")], at=at)


def _audit(session: Session, shop: Shop, verb: str, key: str, at: datetime, actor: str, detail: dict[str, Any]) -> None:
    audit.record(session, shop.id, at=at, actor=actor, verb=f"segment.{verb}", subject=f"segment:{key}", detail=detail)
