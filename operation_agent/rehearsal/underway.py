"""Who is on the way through rules that another version changes or drops, and where they go from there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.journeys import pinned
from operation_agent.journeys.pinned import Pinned
from operation_agent.journeys.standing import Place, standing
from operation_agent.store.shops import Shop
from operation_agent.strategies.authoring import InFlight
from operation_agent.strategies.records import StrategyRow
from rules import program
from rules.program import AnyStep
from rules.rule import Rule
from rules.strategy import Strategy


@dataclass(frozen=True, slots=True)
class Held:
    """`number` customers at one place of a rule's `version`: waiting there, or (`is_planned`) with that action still to
    go out. `step_is`: in the new version 'same', 'changed' or 'gone'. `goes`: 'finishes' on the version it entered, or
    'exits' (waiting ones leave, planned actions are called off)."""

    rule: str
    place: Place
    step_is: str
    goes: str

    def to_dict(self) -> dict[str, Any]:
        place = self.place
        return {
            "rule": self.rule, "version": place.version, "arm": place.arm, "step": place.step, "path": place.path,
            "customers": place.number, "is_planned": place.is_planned, "step_is": self.step_is, "goes": self.goes,
        }  # fmt: skip


_RULES = text("SELECT DISTINCT id, key FROM rules WHERE shop_id = :shop AND strategy_id = :strategy ORDER BY key, id")


def held_up(
    session: Session, shop: Shop, real: StrategyRow, strategy: Strategy, changes: Mapping[str, str],
    in_flight: InFlight,
) -> list[Held]:  # fmt: skip
    """Everybody on the way through a rule that `changes` (by the rule's key) says is changed or removed."""
    goes = "exits" if in_flight == "exit" else "finishes"
    found = []
    for key, rule_id in _changing(session, shop, real, changes):
        places = standing(session, shop, rule_id)
        versions = pinned.load(session, shop, {(rule_id, place.version) for place in places})
        rule = next((one for one in strategy.rules if one.key == key), None)
        for place in places:
            found.append(Held(key, place, _step_is(versions.get((rule_id, place.version)), rule, place), goes))
    return found


def _changing(session: Session, shop: Shop, real: StrategyRow, changes: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for row in session.execute(_RULES, {"shop": shop.id, "strategy": real.id}):
        key = row.key.removeprefix(f"{real.key}/")
        if changes.get(key, "removed") in ("changed", "removed"):
            yield key, row.id


def _step_is(entered: Pinned | None, after: Rule | None, place: Place) -> str:
    way = entered.ways.get(place.arm) if entered is not None else None
    known = program.at_path(way.arm, place.path) if way is not None else None
    wanted = _step(after, place)
    if wanted is None:
        return "gone"
    return "same" if known == wanted else "changed"


def _step(rule: Rule | None, place: Place) -> AnyStep | None:
    """The step of that key in an arm; one without a key of its own is known by its path."""
    for arm in rule.arms if rule is not None else ():
        if arm.key == place.arm:
            for path, step in program.walk_tree(arm.steps):
                if place.step in (step.key, path):
                    return step
    return None
