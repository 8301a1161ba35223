"""Every version of a strategy and of its rules: one draft that people edit, one that counts, the others kept.

The rules of a draft that differ from the live ones are rows too, in state 'draft': a rule keeps its id over all
versions, and only a rule that changed gets a new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.kit.errors import NotFound
from operation_agent.kit.ids import new_id
from rules.rule import Rule
from rules.strategy import Strategy


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a strategy. All times are system time; `authors`: everybody who wrote at it as a draft."""

    version: int
    state: str
    definition: dict[str, Any]
    created_at: datetime
    created_by: str
    edited_at: datetime
    authors: list[str]
    published_at: datetime | None
    published_by: str | None
    note: str


_COLUMNS = (
    "version, state, definition, created_at, created_by, edited_at, authors, published_at, published_by, note"
    " FROM strategy_versions WHERE shop_id = :shop AND strategy_id = :id"
)


def _version(row: Row[Any]) -> Version:
    return Version(**row._mapping)


def list_versions(
    session: Session, shop_id: UUID, strategy_id: UUID, *, before: int | None = None, limit: int | None = None
) -> list[Version]:
    """Newest first, the draft among them; `before`: those with a lower number."""
    rows = session.execute(
        text(
            f"SELECT {_COLUMNS} AND (CAST(:before AS bigint) IS NULL OR version < CAST(:before AS bigint))"
            " ORDER BY version DESC LIMIT :limit"
        ),
        {"shop": shop_id, "id": strategy_id, "before": before, "limit": limit},
    )
    return [_version(row) for row in rows]


def get(session: Session, shop_id: UUID, strategy_id: UUID, number: int) -> Version:
    """Raises NotFound."""
    values = {"shop": shop_id, "id": strategy_id, "number": number}
    row = session.execute(text(f"SELECT {_COLUMNS} AND version = :number"), values).one_or_none()
    if row is None:
        raise NotFound(f"there is no version {number} of this strategy", where="version")
    return _version(row)


def in_state(session: Session, shop_id: UUID, strategy_id: UUID, state: str) -> Version | None:
    """The draft, or the live version, where there is one."""
    values = {"shop": shop_id, "id": strategy_id, "state": state}
    row = session.execute(text(f"SELECT {_COLUMNS} AND state = :state"), values).one_or_none()
    return _version(row) if row is not None else None


def newest(session: Session, shop_id: UUID, strategy_id: UUID) -> int:
    """The highest number of a version that is no draft; 0 before the first."""
    found = session.execute(
        text(
            "SELECT max(version) FROM strategy_versions"
            " WHERE shop_id = :shop AND strategy_id = :id AND state <> 'draft'"
        ),
        {"shop": shop_id, "id": strategy_id},
    ).scalar()
    return int(found or 0)


def write_draft(
    session: Session, shop_id: UUID, strategy_id: UUID, definition: dict[str, Any], *, at: datetime, actor: str
) -> None:
    """Make `definition` the draft, in place of the one there may be. Its number follows the newest version's."""
    session.execute(
        text(
            "INSERT INTO strategy_versions (shop_id, strategy_id, version, state, definition, created_at, created_by,"
            " edited_at, authors)"
            " VALUES (:shop, :id, :version, 'draft', CAST(:definition AS jsonb), :at, :actor, :at, ARRAY[:actor])"
            " ON CONFLICT (shop_id, strategy_id) WHERE state = 'draft' DO UPDATE SET definition = EXCLUDED.definition,"
            " version = EXCLUDED.version, edited_at = EXCLUDED.edited_at,"
            " authors = CASE WHEN :actor = ANY(strategy_versions.authors) THEN strategy_versions.authors"
            " ELSE strategy_versions.authors || :actor END"
        ),
        {
            "shop": shop_id, "id": strategy_id, "version": newest(session, shop_id, strategy_id) + 1,
            "definition": orjson.dumps(definition).decode(), "at": at, "actor": actor,
        },
    )  # fmt: skip


def drop_draft(session: Session, shop_id: UUID, strategy_id: UUID) -> None:
    for table in ("strategy_versions", "rules"):
        session.execute(
            text(f"DELETE FROM {table} WHERE shop_id = :shop AND strategy_id = :id AND state = 'draft'"),  # noqa: S608
            {"shop": shop_id, "id": strategy_id},
        )


def publish_draft(session: Session, shop_id: UUID, strategy_id: UUID, *, at: datetime, actor: str, note: str) -> int:
    """The draft becomes the version that counts, and the one before retires. Returns its number."""
    _retire_live(session, shop_id, strategy_id)
    return int(
        session.execute(
            text(
                "UPDATE strategy_versions SET state = 'live', published_at = :at, published_by = :actor, note = :note"
                " WHERE shop_id = :shop AND strategy_id = :id AND state = 'draft' RETURNING version"
            ),
            {"shop": shop_id, "id": strategy_id, "at": at, "actor": actor, "note": note},
        ).scalar_one()
    )


def publish_again(
    session: Session, shop_id: UUID, strategy_id: UUID, earlier: Version, *, at: datetime, actor: str, note: str
) -> int:
    """An `earlier` version's definition becomes the one that counts, under a new number. A draft that is there stays
    the newest. Returns the number."""
    _retire_live(session, shop_id, strategy_id)
    number = newest(session, shop_id, strategy_id) + 1
    session.execute(
        text(
            "UPDATE strategy_versions SET version = :next"
            " WHERE shop_id = :shop AND strategy_id = :id AND state = 'draft'"
        ),
        {"shop": shop_id, "id": strategy_id, "next": number + 1},
    )
    session.execute(
        text(
            "INSERT INTO strategy_versions (shop_id, strategy_id, version, state, definition, created_at, created_by,"
            " edited_at, authors, published_at, published_by, note)"
            " VALUES (:shop, :id, :number, 'live', CAST(:definition AS jsonb), :at, :actor, :at, ARRAY[:actor], :at,"
            " :actor, :note)"
        ),
        {
            "shop": shop_id, "id": strategy_id, "number": number, "at": at, "actor": actor, "note": note,
            "definition": orjson.dumps(earlier.definition).decode(),
        },
    )  # fmt: skip
    return number


def _retire_live(session: Session, shop_id: UUID, strategy_id: UUID) -> None:
    session.execute(
        text(
            "UPDATE strategy_versions SET state = 'retired'"
            " WHERE shop_id = :shop AND strategy_id = :id AND state = 'live'"
        ),
        {"shop": shop_id, "id": strategy_id},
    )


def retire_all(session: Session, shop_id: UUID, strategy_id: UUID) -> None:
    """Nothing of an archived strategy counts any more; all of it is kept."""
    for table in ("strategy_versions", "rules"):
        session.execute(
            text(
                f"UPDATE {table} SET state = 'retired'"  # noqa: S608
                " WHERE shop_id = :shop AND strategy_id = :id AND state <> 'retired'"
            ),
            {"shop": shop_id, "id": strategy_id},
        )


# -- rules ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RuleChanges:
    """Rules with the version they have now, by what happened to them; a retired one keeps its last."""

    changed: tuple[tuple[UUID, int], ...]
    retired: tuple[tuple[UUID, int], ...]


def rule_key(strategy: str, rule: str) -> str:
    """How a rule is called in its shop."""
    return f"{strategy}/{rule}"


def write_draft_rules(
    session: Session, shop_id: UUID, strategy_id: UUID, before: Strategy | None, after: Strategy, *, at: datetime,
    actor: str,
) -> None:  # fmt: skip
    """The rules of the draft `after` that are not as in `before`, what is live, as rows in state 'draft'."""
    earlier = _take_drafts(session, shop_id, strategy_id)
    changed = _changed(before, after)
    _insert_rules(session, shop_id, strategy_id, after.key, changed, earlier, "draft", at=at, actor=actor)


def switch_rules(
    session: Session, shop_id: UUID, strategy_id: UUID, before: Strategy | None, after: Strategy, *, at: datetime,
    actor: str,
) -> RuleChanges:  # fmt: skip
    """Make the rules of `after` the ones that count: what changed gets a new version, what is gone retires."""
    earlier = _take_drafts(session, shop_id, strategy_id)
    changed = _changed(before, after)
    gone = {rule.key for rule in before.rules} - {rule.key for rule in after.rules} if before is not None else set()
    keys = [rule_key(after.key, key) for key in [*sorted(gone), *(rule.key for rule in changed)]]
    session.execute(
        text(
            "UPDATE rules SET state = 'retired' WHERE shop_id = :shop AND strategy_id = :id"
            " AND state IN ('live', 'disabled') AND key = ANY(CAST(:keys AS text[]))"
        ),
        {"shop": shop_id, "id": strategy_id, "keys": keys},
    )
    made = _insert_rules(session, shop_id, strategy_id, after.key, changed, earlier, "live", at=at, actor=actor)
    left = [earlier[key] for key in (rule_key(after.key, one) for one in sorted(gone)) if key in earlier]
    return RuleChanges(tuple(made), tuple(left))


def _changed(before: Strategy | None, after: Strategy) -> list[Rule]:
    known = {rule.key: rule for rule in before.rules} if before is not None else {}
    return [rule for rule in after.rules if known.get(rule.key) != rule]


def _take_drafts(session: Session, shop_id: UUID, strategy_id: UUID) -> Mapping[str, tuple[UUID, int]]:
    """Remove the rows of drafts. Returns each rule's id and newest other version: a rule that comes back, or whose
    draft is written again, is the same rule."""
    rows = session.execute(
        text(
            "SELECT key, min(id::text)::uuid AS id,"
            " COALESCE(max(version) FILTER (WHERE state <> 'draft'), 0) AS version"
            " FROM rules WHERE shop_id = :shop AND strategy_id = :id GROUP BY key"
        ),
        {"shop": shop_id, "id": strategy_id},
    ).all()
    session.execute(
        text("DELETE FROM rules WHERE shop_id = :shop AND strategy_id = :id AND state = 'draft'"),
        {"shop": shop_id, "id": strategy_id},
    )
    return {row.key: (row.id, row.version) for row in rows}


def _insert_rules(
    session: Session, shop_id: UUID, strategy_id: UUID, strategy: str, rules: Iterable[Rule],
    earlier: Mapping[str, tuple[UUID, int]], state: str, *, at: datetime, actor: str,
) -> list[tuple[UUID, int]]:  # fmt: skip
    rows: list[dict[str, Any]] = []
    for rule in rules:
        key = rule_key(strategy, rule.key)
        rule_id, version = earlier.get(key) or (new_id(), 0)
        rows.append(
            {
                "shop": shop_id, "id": rule_id, "strategy": strategy_id, "key": key, "version": version + 1,
                "definition": orjson.dumps(rule.to_dict()).decode(), "at": at, "actor": actor,
                "state": "disabled" if state == "live" and not rule.enabled else state,
            }
        )  # fmt: skip
    if rows:
        session.execute(
            text(
                "INSERT INTO rules (shop_id, id, strategy_id, key, version, definition, state, created_at, created_by)"
                " VALUES (:shop, :id, :strategy, :key, :version, CAST(:definition AS jsonb), :state, :at, :actor)"
            ),
            rows,
        )
    return [(row["id"], row["version"]) for row in rows]
