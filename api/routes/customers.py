"""Customers: finding one, and everything that is known about one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from api.dependencies import Database, Requires
from api.errors import Problem
from api.fields import Text
from api.pagination import Page, Paged
from operation_agent.access.principal import Principal
from operation_agent.kit.errors import NotFound
from operation_agent.store.session import for_shop

router = APIRouter(prefix="/api/customers", tags=["customers"])

RECENT = 50
"""How many of a customer's latest events, orders, decisions and actions are shown with it."""
Reader = Annotated[Principal, Depends(Requires("customers:read"))]


class Membership(BaseModel):
    """The cluster a customer is in. `lineage_id` is what rules point at."""

    clustering_id: UUID
    number: int
    lineage_id: UUID
    label_key: str
    labels: dict[str, Any]
    since: datetime


class CustomerSummary(BaseModel):
    id: UUID
    external_id: str | None
    email: str | None
    phone: str | None
    first_name: str | None
    last_name: str | None
    country: str | None
    first_seen_at: datetime
    last_seen_at: datetime
    orders: int | None = Field(description="null: no features yet")
    revenue_minor: int | None
    purchase_stage: str | None
    price_sensitivity: str | None
    engagement_level: str | None
    label_key: str | None = Field(description="Of the customer's cluster")
    labels: dict[str, Any] | None


class Identity(BaseModel):
    kind: str
    value: str
    first_seen_at: datetime


class Consent(BaseModel):
    channel: str
    topic: str
    state: str
    changed_at: datetime


class Suppression(BaseModel):
    channel: str
    address: str
    reason: str
    created_at: datetime


class TimelineEntry(BaseModel):
    event_id: UUID
    occurred_at: datetime
    type: str
    product_id: str | None
    amount_minor: int | None


class Order(BaseModel):
    id: UUID
    source_order_id: str
    ordered_at: datetime
    currency: str
    total_minor: int
    discount_minor: int
    refunded_minor: int
    quantity: int
    discount_codes: list[str]
    cancelled_at: datetime | None


class CustomerDecision(BaseModel):
    id: UUID
    decided_at: datetime
    strategy_id: UUID
    rule_id: UUID
    trigger: str
    verdict: str
    arm: str | None


class CustomerAction(BaseModel):
    id: UUID
    strategy_id: UUID
    type: str
    channel: str
    state: str
    held_out: bool
    due_at: datetime
    sent_at: datetime | None


class Customer(BaseModel):
    id: UUID
    external_id: str | None
    email: str | None
    phone: str | None
    first_name: str | None
    last_name: str | None
    locale: str | None
    time_zone: str | None
    country: str | None
    traits: dict[str, Any]
    first_seen_at: datetime
    last_seen_at: datetime
    merged_into: UUID | None = Field(description="The customer that this one turned out to be")
    identities: list[Identity]
    consents: list[Consent]
    suppressions: list[Suppression]
    features: dict[str, Any] | None = Field(description="As of the last event or refresh; null: none yet")
    cluster: Membership | None
    timeline: list[TimelineEntry] = Field(description="The latest 50, newest first")
    orders: list[Order] = Field(description="The latest 50, newest first")
    decisions: list[CustomerDecision] = Field(description="The latest 50, newest first")
    actions: list[CustomerAction] = Field(description="The latest 50, newest first")


_LIST = text("""
SELECT c.id, c.external_id, c.email, c.phone, c.first_name, c.last_name, c.country, c.first_seen_at, c.last_seen_at,
       f.orders, f.revenue_minor, f.purchase_stage, f.price_sensitivity, f.engagement_level, k.label_key, k.labels
FROM customers AS c
LEFT JOIN customer_features AS f ON f.shop_id = c.shop_id AND f.customer_id = c.id
LEFT JOIN cluster_members AS m ON m.shop_id = c.shop_id AND m.customer_id = c.id
LEFT JOIN clusters AS k ON k.shop_id = c.shop_id AND k.clustering_id = m.clustering_id AND k.number = m.number
WHERE c.shop_id = :shop AND c.merged_into IS NULL
  AND (CAST(:after AS uuid) IS NULL OR c.id > CAST(:after AS uuid))
  AND (CAST(:lineage AS uuid) IS NULL OR m.lineage_id = CAST(:lineage AS uuid))
  AND (CAST(:q AS text) IS NULL OR c.id IN (
    SELECT customer_id FROM identities
    WHERE shop_id = :shop AND kind IN ('email', 'external', 'phone', 'shopify')
      AND (value ^@ CAST(:q AS text) OR value ^@ lower(CAST(:q AS text)))))
ORDER BY c.id LIMIT :limit
""")


@router.get(
    "",
    operation_id="list_customers",
    summary="Customers, oldest first; or those whose e-mail, external id, phone or Shopify id begins with `q`",
    response_model=Page[CustomerSummary],
)
def list_all(
    caller: Reader,
    database: Database,
    paging: Paged,
    q: Annotated[Text | None, Query(max_length=320, description="Beginning of an identity")] = None,
    lineage: Annotated[UUID | None, Query(description="Members of this cluster lineage only")] = None,
) -> Any:
    (after,) = paging.after(UUID)
    values = {
        "shop": caller.shop.id, "after": after, "lineage": lineage, "q": q or None, "limit": paging.limit + 1,
    }  # fmt: skip
    with for_shop(database, caller.shop.id) as session:
        rows = session.execute(_LIST, values).all()
    return paging.page(rows, lambda row: CustomerSummary(**row._mapping), lambda row: (row.id,))


@router.get(
    "/{customer_id}",
    operation_id="get_customer",
    summary="Everything about one customer",
    response_model=Customer,
    responses={404: {"model": Problem, "description": "No such customer in this shop"}},
)
def get(customer_id: UUID, caller: Reader, database: Database) -> Customer:
    with for_shop(database, caller.shop.id) as session:
        row = session.execute(_ONE, {"shop": caller.shop.id, "id": customer_id}).one_or_none()
        if row is None:
            raise NotFound(f"there is no customer {customer_id}")
        return Customer(**row._mapping, **_related(session, caller.shop.id, customer_id))


_ONE = text("""
SELECT id, external_id, email, phone, first_name, last_name, locale, time_zone, country, traits, first_seen_at,
       last_seen_at, merged_into
FROM customers WHERE shop_id = :shop AND id = :id
""")

_RELATED: dict[str, tuple[type[BaseModel], Any]] = {
    "identities": (Identity, text("""
        SELECT kind, value, first_seen_at FROM identities WHERE shop_id = :shop AND customer_id = :id
        ORDER BY first_seen_at, kind, value LIMIT :recent""")),
    "consents": (Consent, text("""
        SELECT channel, topic, state, changed_at FROM consents WHERE shop_id = :shop AND customer_id = :id
        ORDER BY channel, topic""")),
    "suppressions": (Suppression, text("""
        SELECT channel, address, reason, created_at FROM suppressions
        WHERE shop_id = :shop AND address IN
          (SELECT value FROM identities WHERE shop_id = :shop AND customer_id = :id AND kind IN ('email', 'phone'))
        ORDER BY channel, address""")),
    "timeline": (TimelineEntry, text("""
        SELECT event_id, occurred_at, type, product_id, amount_minor FROM timeline
        WHERE shop_id = :shop AND customer_id = :id ORDER BY occurred_at DESC, event_id DESC LIMIT :recent""")),
    "orders": (Order, text("""
        SELECT id, source_order_id, ordered_at, currency, total_minor, discount_minor, refunded_minor, quantity,
               discount_codes, cancelled_at
        FROM orders WHERE shop_id = :shop AND customer_id = :id ORDER BY ordered_at DESC, id DESC LIMIT :recent""")),
    "decisions": (CustomerDecision, text("""
        SELECT id, decided_at, strategy_id, rule_id, trigger, verdict, arm FROM decisions
        WHERE shop_id = :shop AND customer_id = :id ORDER BY decided_at DESC, id DESC LIMIT :recent""")),
    "actions": (CustomerAction, text("""
        SELECT id, strategy_id, type, channel, state, held_out, due_at, sent_at FROM actions
        WHERE shop_id = :shop AND customer_id = :id ORDER BY due_at DESC, id DESC LIMIT :recent""")),
}  # fmt: skip

_CLUSTER = text("""
SELECT m.clustering_id, m.number, m.lineage_id, m.since, k.label_key, k.labels
FROM cluster_members AS m
JOIN clusters AS k ON k.shop_id = m.shop_id AND k.clustering_id = m.clustering_id AND k.number = m.number
WHERE m.shop_id = :shop AND m.customer_id = :id
""")


def _related(session: Session, shop_id: UUID, customer_id: UUID) -> dict[str, Any]:
    values = {"shop": shop_id, "id": customer_id, "recent": RECENT}
    made: dict[str, Any] = {
        name: [model(**row._mapping) for row in session.execute(query, values)]
        for name, (model, query) in _RELATED.items()
    }
    cluster = session.execute(_CLUSTER, values).one_or_none()
    made["cluster"] = Membership(**cluster._mapping) if cluster else None
    made["features"] = _features(
        session.execute(
            text("SELECT * FROM customer_features WHERE shop_id = :shop AND customer_id = :id"), values
        ).one_or_none()
    )
    return made


def _features(row: Row[Any] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {name: value for name, value in row._mapping.items() if name not in ("shop_id", "customer_id")}
