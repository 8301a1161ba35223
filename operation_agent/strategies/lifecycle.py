"""A strategy's states, and moving between them: started, paused, gone on with, archived.

    draft -> live <-> paused -> archived

A draft goes live by being published (`authoring`). Each move counts `revision`, and `live_revision`, by which workers
know that what they cached is old.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.kit.errors import Conflict
from operation_agent.store import audit
from operation_agent.store.shops import Shop
from rules.strategy import Budget, Strategy

from . import authoring, versions
from .authoring import create as create
from .library import template
from .records import StrategyRow as StrategyRow
from .records import find as find
from .records import hold
from .records import list_strategies as list_strategies
from .records import read as read

FOLLOWS: dict[str, frozenset[str]] = {
    "live": frozenset({"draft", "paused"}),
    "paused": frozenset({"live"}),
    "archived": frozenset({"draft", "live", "paused"}),
}
"""Each state with those it may be reached from."""


def start(
    session: Session, shop: Shop, template_key: str, *, at: datetime, actor: str, holdout: float | None = None,
    budget: Decimal | None = None, key: str | None = None,
) -> StrategyRow:  # fmt: skip
    """Make a strategy from a template and put it live; one that was paused or is a draft goes live as it stands.

    `at` is system time. `holdout`, `budget` (units of the shop's currency) and `key` replace the template's when the
    strategy is made. Raises NotFound for an unknown template, Conflict when the strategy is live already, or when
    going live needs an approval.
    """
    strategy = adapted(template(template_key), holdout=holdout, budget=budget, key=key)
    return bring_live(session, shop, strategy, at=at, actor=actor)


def bring_live(session: Session, shop: Shop, strategy: Strategy, *, at: datetime, actor: str) -> StrategyRow:
    """Make `strategy` and publish it; one that the shop has under its key, draft or paused, goes live as it stands."""
    existing = session.execute(
        text("SELECT 1 FROM strategies WHERE shop_id = :shop AND key = :key"), {"shop": shop.id, "key": strategy.key}
    ).scalar()
    if not existing:
        create(session, shop, strategy, at=at, actor=actor)
    return move(session, shop, strategy.key, "live", at=at, actor=actor)


def adapted(
    strategy: Strategy, *, holdout: float | None = None, budget: Decimal | None = None, key: str | None = None,
    name: dict[str, str] | None = None,
) -> Strategy:  # fmt: skip
    """A template with what its user wants otherwise; a `budget` replaces the template's whole."""
    changed = {"holdout": holdout, "key": key, "name": name}
    made = replace(strategy, **{field: value for field, value in changed.items() if value is not None})  # type: ignore[arg-type]
    return made if budget is None else made.limited(budget=Budget(budget))


def pause(session: Session, shop: Shop, key: str, *, at: datetime, actor: str) -> StrategyRow:
    """Decide nothing more for it; what is planned already is the executor's to cancel. Raises NotFound, Conflict."""
    return move(session, shop, key, "paused", at=at, actor=actor)


def move(
    session: Session, shop: Shop, key: str, state: str, *, at: datetime, actor: str,
    expected_revision: int | None = None,
) -> StrategyRow:  # fmt: skip
    """Bring a strategy into another state; out of 'draft', by publishing it. `at` is system time.

    Raises NotFound; Conflict where FOLLOWS forbids, where `authoring.publish` does, or when the strategy has changed
    since `expected_revision`.
    """
    before = hold(session, shop.id, key, expected_revision=expected_revision)
    if before.state not in FOLLOWS[state]:
        raise Conflict(f"strategy {before.key!r} is {before.state}; it cannot become {state}", code="state")
    if before.state == "draft" and state == "live":
        return authoring.publish(session, shop, key, at=at, actor=actor).strategy
    session.execute(
        text(
            "UPDATE strategies SET state = :state, revision = revision + 1, live_revision = live_revision + 1,"
            " updated_at = :at WHERE shop_id = :shop AND id = :id"
        ),
        {"shop": shop.id, "id": before.id, "state": state, "at": at},
    )
    if state == "archived":  # a pause leaves versions and rules as they are: which of them count does not change
        versions.retire_all(session, shop.id, before.id)
    detail = {"from": before.state, "version": before.version}
    audit.record(
        session, shop.id, at=at, actor=actor, verb=f"strategy.{state}", subject=f"strategy:{before.key}", detail=detail
    )
    return find(session, shop.id, before.key)
