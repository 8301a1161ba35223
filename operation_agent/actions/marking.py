"""Marking actions as done: their state, what they cost, and the coupon that came of one.

A coupon's row stands for its code: an action that only told somebody a code they have already (`first_action` in its
result) adds none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.store.shops import Shop

from .states import Happening, sources


@dataclass(frozen=True, slots=True)
class Proof:
    """That an action was done: `sent_at` is shop time, `called_at` system time; `fence` None matches any claim.
    `provider` where it is not the one that all of a call have."""

    action_id: UUID
    fence: int | None
    provider_ref: str | None
    result: dict
    sent_at: datetime
    called_at: datetime | None
    provider: str | None = None


_SENT = """
UPDATE actions a SET state = 'sent', reason = NULL, provider = COALESCE(r.provider, :provider),
  provider_ref = COALESCE(r.provider_ref, a.provider_ref), result = CAST(r.result AS jsonb), sent_at = r.sent_at,
  called_at = COALESCE(a.called_at, r.called_at), lease_until = NULL, retry_at = NULL
FROM unnest(CAST(:ids AS uuid[]), CAST(:fences AS bigint[]), CAST(:refs AS text[]), CAST(:results AS text[]),
  CAST(:sent AS timestamptz[]), CAST(:called AS timestamptz[]), CAST(:providers AS text[]))
  AS r (id, fence, provider_ref, result, sent_at, called_at, provider)
WHERE a.shop_id = :shop AND a.id = r.id AND a.fence = COALESCE(r.fence, a.fence) AND a.state = ANY(:sources)
  AND NOT a.held_out
RETURNING a.id, a.channel
"""


def mark_sent(session: Session, shop: Shop, provider: str, happening: Happening, proofs: Sequence[Proof]) -> list[UUID]:
    """These were done: their state, cost and coupon. Returns those not known as sent before; `close` them."""
    if not proofs:
        return []
    done = session.execute(
        text(_SENT),
        {
            "shop": shop.id,
            "provider": provider,
            "sources": list(sources(happening)),
            "ids": [one.action_id for one in proofs],
            "fences": [one.fence for one in proofs],
            "refs": [one.provider_ref for one in proofs],
            "results": [orjson.dumps(one.result).decode() for one in proofs],
            "sent": [one.sent_at for one in proofs],
            "called": [one.called_at for one in proofs],
            "providers": [one.provider for one in proofs],
        },
    ).all()
    ids = [row.id for row in done]
    _write_costs(session, shop, ids)
    _write_coupons(session, shop.id, [row.id for row in done if row.channel == "coupon"])
    return ids


def _write_costs(session: Session, shop: Shop, action_ids: Sequence[UUID]) -> None:
    session.execute(
        text(
            "INSERT INTO ledger (shop_id, kind, source_id, customer_id, amount_minor, currency, occurred_at)"
            " SELECT shop_id, 'message_cost', id::text, customer_id, -cost_minor, :currency, sent_at FROM actions"
            " WHERE shop_id = :shop AND id = ANY(:ids) AND cost_minor > 0 ON CONFLICT DO NOTHING"
        ),
        {"shop": shop.id, "ids": list(action_ids), "currency": shop.currency},
    )


_COUPONS = """
INSERT INTO coupons (shop_id, action_id, customer_id, code, percent, issued_at, expires_at, offer, terms, discount_ref,
  pool_id)
SELECT shop_id, id, customer_id, result ->> 'code', (result ->> 'percent')::numeric, sent_at,
  (result ->> 'expires_at')::timestamptz, parameters ->> 'offer', COALESCE(result -> 'terms', '{}'),
  COALESCE(result ->> 'discount_ref', provider_ref), (result ->> 'pool_id')::uuid
FROM actions WHERE shop_id = :shop AND id = ANY(:ids) AND NOT result ? 'first_action'
ON CONFLICT DO NOTHING
"""


def _write_coupons(session: Session, shop_id: UUID, action_ids: Sequence[UUID]) -> None:
    if action_ids:
        session.execute(text(_COUPONS), {"shop": shop_id, "ids": list(action_ids)})
