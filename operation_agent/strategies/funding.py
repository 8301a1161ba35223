"""A strategy's budget row, as its definition asks for it. What was spent from it stays spent over all versions."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.kit.errors import Conflict, Rejected
from operation_agent.kit.ids import new_id
from operation_agent.kit.money import Money, to_minor
from operation_agent.store.shops import Shop
from rules.strategy import Strategy


def check_currency(shop: Shop, strategy: Strategy) -> None:
    """Raises Rejected for a budget in another currency than the shop's."""
    budget = strategy.budget
    if budget is not None and budget.currency not in (None, shop.currency):
        raise Rejected(
            f"the budget is in {budget.currency} and the shop trades in {shop.currency}", where="budget.currency"
        )


def fund(session: Session, shop: Shop, strategy: Strategy, budget_id: UUID | None) -> UUID | None:
    """Bring the budget of `strategy` to what its definition says; None when it says nothing.

    Raises Conflict when the new limit is below what is committed already, Rejected for another currency.
    """
    if strategy.budget is None:
        return None
    check_currency(shop, strategy)
    known = budget_id or _earlier(session, shop.id, strategy.key)
    values = {
        "shop": shop.id, "id": known or new_id(), "name": strategy.key, "currency": shop.currency,
        "limit": to_minor(strategy.budget.limit, shop.currency),
        "daily": _minor(strategy.budget.daily, shop.currency),
        "each": _minor(strategy.budget.per_customer, shop.currency),
    }  # fmt: skip
    if known is None:
        session.execute(_INSERT, values)
    elif session.execute(_UPDATE, values).scalar() is None:
        raise _too_low(session, shop, values)
    return UUID(str(values["id"]))


def _earlier(session: Session, shop_id: UUID, key: str) -> UUID | None:
    """The budget the strategy had before a version without one: leaving it out and asking again refills nothing."""
    return session.execute(
        text("SELECT id FROM budgets WHERE shop_id = :shop AND name = :name ORDER BY id LIMIT 1"),
        {"shop": shop_id, "name": key},
    ).scalar()


def _too_low(session: Session, shop: Shop, values: dict[str, object]) -> Conflict:
    committed = session.execute(
        text("SELECT reserved_minor + spent_minor FROM budgets WHERE shop_id = :shop AND id = :id"),
        {"shop": shop.id, "id": values["id"]},
    ).scalar_one()
    return Conflict(
        f"{Money(committed, shop.currency)} of this budget is spent or reserved already; the limit cannot be lower",
        code="budget",
        where="budget.limit",
    )


def _minor(amount: object, currency: str) -> int | None:
    return None if amount is None else to_minor(amount, currency)


_INSERT = text("""
INSERT INTO budgets (shop_id, id, name, currency, limit_minor, daily_minor, per_customer_minor)
VALUES (:shop, :id, :name, :currency, :limit, :daily, :each)
""")
_UPDATE = text("""
UPDATE budgets SET limit_minor = :limit, daily_minor = :daily, per_customer_minor = :each
WHERE shop_id = :shop AND id = :id AND reserved_minor + spent_minor <= :limit RETURNING 1
""")
