"""Whether a definition may be published without another person's yes, and asking for it.

What is asked is that one definition, by its fingerprint: after an edit it is another question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.approvals import approvals
from operation_agent.approvals.approval import Approval as Asked
from operation_agent.approvals.approval import fingerprint
from operation_agent.kit.errors import Conflict, Rejected
from operation_agent.kit.money import minor_digits
from operation_agent.store.shops import Shop
from rules import limits, offer, program
from rules.errors import RuleError
from rules.limits import Approval
from rules.strategy import Strategy

from .records import StrategyRow

KIND: Literal["strategy"] = "strategy"


@dataclass(frozen=True, slots=True)
class Needs:
    """How many people must say yes, and why: one entry for each limit that is exceeded."""

    approvers: int
    expires_in: timedelta
    why: list[dict[str, Any]]


Audience = Callable[[Strategy], int]


def needs(
    session: Session, shop: Shop, before: Strategy | None, after: Strategy, *, audience: Audience | None = None
) -> Needs | None:
    """What publishing `after` in place of `before` needs; None: nobody's yes.

    The limits are those of the shop, of the definition, and of the one that is live: an edit that takes a limit away
    is held to it once more. `audience` tells how many customers a strategy reaches, and is asked only where a limit
    is about that; None: everybody the shop knows.
    """
    asked: list[tuple[Approval, list[dict[str, Any]]]] = []
    for source, limit in _limits(shop, before, after):
        why = [{**one, "of": source} for one in _exceeded(session, shop, limit, after, audience)]
        if why:
            asked.append((limit, why))
    if not asked:
        return None
    return Needs(
        approvers=max(limit.approvers for limit, _ in asked),
        expires_in=min(limit.expires_in for limit, _ in asked),
        why=[one for _, why in asked for one in why],
    )


def ask(
    session: Session, shop: Shop, row: StrategyRow, definition: dict[str, Any], needed: Needs, *, authors: list[str],
    at: datetime, actor: str,
) -> Asked:  # fmt: skip
    """Put the question into the inbox; the same question again is the one that is there. `at` is system time."""
    return approvals.request(
        session, shop.id, kind=KIND, subject=str(row.id), fingerprint=fingerprint(definition), needed=needed.approvers,
        why=needed.why, by=actor, authors=authors, at=at, expires_at=at + needed.expires_in,
    )  # fmt: skip


def require(
    session: Session, shop: Shop, row: StrategyRow, definition: dict[str, Any], needed: Needs | None, *, at: datetime
) -> None:
    """Raises Conflict (code 'approval_needed', with the approval's id where it was asked for) without the yes."""
    if needed is None:
        return
    wanted = fingerprint(definition)
    if approvals.is_granted(session, shop.id, KIND, str(row.id), wanted, at):
        return
    reasons = ", ".join(f"{one['rule']} {one['limit']} (found {one['found']})" for one in needed.why)
    current = approvals.current(session, shop.id, KIND, str(row.id))
    if current is None or current.fingerprint != wanted:
        raise Conflict(
            f"publishing {row.key!r} needs the yes of {needed.approvers} other people: {reasons}; ask for it first",
            code="approval_needed", why=needed.why,
        )  # fmt: skip
    raise Conflict(
        f"publishing {row.key!r} needs the yes of {needed.approvers} other people: {reasons}; approval {current.id} is"
        f" {current.state}",
        code="approval_needed", approval=str(current.id), approval_state=current.state, why=needed.why,
    )  # fmt: skip


def _limits(shop: Shop, before: Strategy | None, after: Strategy) -> Iterator[tuple[str, Approval]]:
    try:
        of_shop = limits.parse_shop(shop.settings).approval
    except RuleError as error:
        raise Rejected(f"the shop's settings: {error.reason}", where=f"settings.{error.where}") from None
    if of_shop is not None:
        yield "shop", of_shop
    of_draft = after.limits.approval
    of_live = before.limits.approval if before is not None else None
    if of_live is not None and of_live != of_draft:
        yield "live version", of_live
    if of_draft is not None:
        yield "strategy", of_draft


def _exceeded(
    session: Session, shop: Shop, limit: Approval, strategy: Strategy, audience: Audience | None
) -> Iterator[dict[str, Any]]:
    steps = [
        placed.step for rule in strategy.rules if rule.enabled for arm in rule.arms for placed in program.actions(arm)
    ]
    types = sorted({step.action for step in steps} & set(limit.types))
    if types:
        yield {"rule": "types", "limit": list(limit.types), "found": types}
    prices = offer.Prices.of(shop.settings, minor_digits(shop.currency))
    deepest = max((offer.depth(step.parameters, prices) for step in steps if step.action == "coupon"), default=0.0)
    if limit.percent_above is not None and deepest > limit.percent_above:
        yield {"rule": "percent_above", "limit": limit.percent_above, "found": deepest}
    if limit.cost_above is not None and steps and _may_cost(strategy) > limit.cost_above:
        found = str(strategy.budget.limit) if strategy.budget else "no budget"
        yield {"rule": "cost_above", "limit": str(limit.cost_above), "found": found}
    if limit.audience_above is not None and steps:
        reached = audience(strategy) if audience is not None else _everybody(session, shop)
        if reached > limit.audience_above:
            yield {"rule": "audience_above", "limit": limit.audience_above, "found": reached}


def _may_cost(strategy: Strategy) -> Decimal:
    return strategy.budget.limit if strategy.budget is not None else Decimal("Infinity")


def _everybody(session: Session, shop: Shop) -> int:
    return int(
        session.execute(
            text("SELECT count(*) FROM customers WHERE shop_id = :shop AND merged_into IS NULL"), {"shop": shop.id}
        ).scalar_one()
    )
