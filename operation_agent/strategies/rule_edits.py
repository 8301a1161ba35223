"""Edits of one rule: each is an edit of its strategy's draft, made from what is live when there is none."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.kit.errors import Conflict, NotFound, Rejected
from operation_agent.store.shops import Shop

from . import authoring, forms, records, versions
from .records import StrategyRow

Definition = dict[str, Any]


def add(
    session: Session, shop: Shop, strategy: str, rule: Any, *, at: datetime, actor: str,
    expected_revision: int | None = None,
) -> UUID:  # fmt: skip
    """Add a written `rule` to the draft of a strategy; its id. Raises NotFound; Rejected where the rule does not read,
    its path told from the rule on; Conflict where `authoring.save_draft` does, or the strategy has such a rule."""
    row = records.hold(session, shop.id, strategy, expected_revision=expected_revision)
    definition = _edited(session, shop, row)
    rules = definition["rules"]
    key = rule.get("key") if isinstance(rule, dict) else None
    if any(one["key"] == key for one in rules):
        raise Conflict(f"strategy {row.key!r} has a rule {key!r} already; edit that one", where="key")
    _save(session, shop, row, {**definition, "rules": [*rules, rule]}, len(rules), at=at, actor=actor)
    return _id(session, shop.id, versions.rule_key(row.key, str(key)))


def replace(
    session: Session, shop: Shop, rule_id: UUID, rule: Any, *, at: datetime, actor: str,
    expected_revision: int | None = None,
) -> StrategyRow:  # fmt: skip
    """Put a written `rule` in the place of another; its key stays. Raises as `add`."""

    def changed(before: Definition) -> Definition:
        if not isinstance(rule, dict) or rule.get("key", before["key"]) != before["key"]:
            raise Rejected(f"the rule is {before['key']!r}: its key is for ever", code="strategy", where="key")
        return {"key": before["key"], **rule}

    return _change(session, shop, rule_id, changed, at=at, actor=actor, expected_revision=expected_revision)


def switch(
    session: Session, shop: Shop, rule_id: UUID, *, enabled: bool, at: datetime, actor: str,
    expected_revision: int | None = None,
) -> StrategyRow:  # fmt: skip
    """Switch a rule on or off. Raises NotFound, Conflict."""
    return _change(
        session, shop, rule_id, lambda before: {**before, "enabled": enabled}, at=at, actor=actor,
        expected_revision=expected_revision,
    )  # fmt: skip


def remove(
    session: Session, shop: Shop, rule_id: UUID, *, at: datetime, actor: str, expected_revision: int | None = None
) -> StrategyRow:
    """Take a rule out. Raises NotFound, Conflict; Rejected for the last rule of a strategy."""
    return _change(session, shop, rule_id, lambda _: None, at=at, actor=actor, expected_revision=expected_revision)


def _change(
    session: Session, shop: Shop, rule_id: UUID, change: Callable[[Definition], Definition | None], *, at: datetime,
    actor: str, expected_revision: int | None,
) -> StrategyRow:  # fmt: skip
    known = session.execute(
        text("SELECT key, strategy_id FROM rules WHERE shop_id = :shop AND id = :id LIMIT 1"),
        {"shop": shop.id, "id": rule_id},
    ).one_or_none()
    if known is None:
        raise NotFound(f"there is no rule {rule_id}; GET /api/rules lists them")
    row = records.hold(session, shop.id, str(known.strategy_id), expected_revision=expected_revision)
    definition = _edited(session, shop, row)
    rules = definition["rules"]
    place = next((n for n, one in enumerate(rules) if versions.rule_key(row.key, one["key"]) == known.key), None)
    if place is None:
        raise NotFound(f"strategy {row.key!r} has no rule {known.key!r} any more; roll back, or add it again")
    changed = change(rules[place])
    following = [*rules[:place], *([changed] if changed is not None else []), *rules[place + 1 :]]
    return _save(session, shop, row, {**definition, "rules": following}, place, at=at, actor=actor)


def _edited(session: Session, shop: Shop, row: StrategyRow) -> Definition:
    """The definition that an edit starts from: the draft's, or what is live."""
    draft = versions.in_state(session, shop.id, row.id, "draft")
    return records.read(draft.definition if draft is not None else row.definition).to_dict()


def _save(
    session: Session, shop: Shop, row: StrategyRow, definition: Definition, place: int, *, at: datetime, actor: str
) -> StrategyRow:
    try:
        strategy = forms.read_of_shop(session, shop.id, definition)
    except Rejected as error:
        mine = f"rules[{place}]"
        if error.where is not None and (error.where == mine or error.where.startswith(f"{mine}.")):
            error.where = error.where[len(mine) :].lstrip(".")
        raise
    return authoring.save_draft(session, shop, row.key, strategy, at=at, actor=actor)


def _id(session: Session, shop_id: UUID, key: str) -> UUID:
    return UUID(
        str(
            session.execute(
                text("SELECT id FROM rules WHERE shop_id = :shop AND key = :key LIMIT 1"), {"shop": shop_id, "key": key}
            ).scalar_one()
        )
    )
