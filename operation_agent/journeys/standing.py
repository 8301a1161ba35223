"""Where everybody stands in a rule: what publishing another version of it would meet."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.store.shops import Shop
from rules import program

from . import pinned
from .pinned import Pinned


class Place(NamedTuple):
    """`number` customers stand at a wait or a branch (`is_planned` False), or have an action of that step planned and
    not sent (`is_planned` True). `step`: the step's key; `path` where that version of the arm has it."""

    version: int
    arm: str
    path: str
    step: str
    number: int
    is_planned: bool


_RUNS = text("""
SELECT rule_version AS version, arm, path, count(*) AS number FROM runs
WHERE shop_id = :shop AND rule_id = :rule AND state = 'waiting' GROUP BY 1, 2, 3
""")

# the version is part of an action's dedupe key: rule:version:…
_ACTIONS = text("""
SELECT CAST(split_part(dedupe_key, ':', 2) AS integer) AS version, arm, step, count(*) AS number FROM actions
WHERE shop_id = :shop AND rule_id = :rule AND state IN ('ready', 'waiting_approval') GROUP BY 1, 2, 3
""")


def standing(session: Session, shop: Shop, rule_id: UUID) -> list[Place]:
    """Everybody on the way through a rule, by version, arm and place. A place that a version does not have (any more)
    has its path as its key."""
    values = {"shop": shop.id, "rule": rule_id}
    waiting = session.execute(_RUNS, values).all()
    planned = session.execute(_ACTIONS, values).all()
    versions = pinned.load(session, shop, {(rule_id, row.version) for row in (*waiting, *planned)})
    found = []
    for row in waiting:
        version = versions.get((rule_id, row.version))
        found.append(Place(row.version, row.arm, row.path, _key(version, row.arm, row.path), row.number, False))
    for row in planned:
        version = versions.get((rule_id, row.version))
        path = _path(version, row.arm, row.step)
        found.append(Place(row.version, row.arm, path, _key(version, row.arm, path), row.number, True))
    return sorted(found)


def _key(version: Pinned | None, arm: str, path: str) -> str:
    way = version.ways.get(arm) if version is not None else None
    step = program.at_path(way.arm, path) if way is not None else None
    return step.key or path if step is not None else path


def _path(version: Pinned | None, arm: str, number: int) -> str:
    way = version.ways.get(arm) if version is not None else None
    placed = program.actions(way.arm) if way is not None else ()
    return placed[number].path if number < len(placed) else str(number)
