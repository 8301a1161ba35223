"""Decisions that were made: read back with the rule they followed and with what came of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.kit.errors import NotFound
from operation_agent.store.shops import Shop
from operation_agent.strategies.vocabulary import vocabulary
from rules import rule as rule_form
from rules.errors import RuleError
from rules.rule import Rule
from rules.tree import Node

from . import receipt
from .replay import Replayed, replay


@dataclass(frozen=True, slots=True)
class Archived:
    """`row`: of the table decisions. `rule`: the version it followed, None where that cannot be read any more."""

    row: Mapping[str, Any]
    rule: Rule | None

    @property
    def receipt(self) -> dict[str, Any]:
        """With all that the rule says."""
        return receipt.expanded(self.row["receipt"], self.rule)


def find(session: Session, shop_id: UUID, decision_id: UUID) -> Archived:
    """Raises NotFound."""
    row = session.execute(
        text("SELECT * FROM decisions WHERE shop_id = :shop AND id = :id"), {"shop": shop_id, "id": decision_id}
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no decision {decision_id}")
    if row.receipt.get("erased"):
        raise NotFound(
            f"the customer of decision {decision_id} was forgotten, and its reasons with them", code="erased"
        )
    return Archived(row._mapping, _rule(session, shop_id, row.rule_id, row.rule_version))  # type: ignore[arg-type]


def again(session: Session, shop: Shop, decision_id: UUID) -> Replayed:
    """Recompute a decision. Raises NotFound when it, or the rule version it followed, is not there."""
    found = find(session, shop.id, decision_id)
    if found.rule is None:
        raise NotFound(f"version {found.row['rule_version']} of the rule of decision {decision_id} cannot be read")
    return replay(found.row["receipt"], found.rule, shop.seed)


def actions_of(session: Session, shop_id: UUID, decision_id: UUID) -> list[Mapping[str, Any]]:
    """The actions that a decision caused, by step."""
    rows = session.execute(
        text(
            "SELECT id, step, type, channel, held_out, state, reason, due_at, sent_at, attempt, run_id FROM actions"
            " WHERE shop_id = :shop AND decision_id = :id"
            # by the customer's index: a decision has none of its own
            " AND customer_id = (SELECT customer_id FROM decisions WHERE shop_id = :shop AND id = :id)"
            " ORDER BY step, id"
        ),
        {"shop": shop_id, "id": decision_id},
    )
    return [row._mapping for row in rows]  # type: ignore[misc]


def _rule(session: Session, shop_id: UUID, rule_id: UUID, version: int) -> Rule | None:
    row = session.execute(
        text("SELECT key, definition FROM rules WHERE shop_id = :shop AND id = :id AND version = :version"),
        {"shop": shop_id, "id": rule_id, "version": version},
    ).one_or_none()
    if row is None:
        return None
    try:
        return rule_form.parse(Node(row.definition, row.key), vocabulary())
    except RuleError:
        return None
