"""Two customers turn out to be one: everything the merged one has goes to the survivor.

What a merged customer was stays in `customer_merges.before`. Where both have a row for the same thing: the newest
consent stands; the earliest assignment stands (it is the side the person was really put on); entries of enrolments
add up. Features and clusters of the survivor are made anew by whoever processes the event that joined them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from .linking import Merge
from .traits import COLUMNS, Profile

_PAIRS = "(SELECT * FROM unnest(CAST(:losers AS uuid[]), CAST(:survivors AS uuid[])) AS m (from_id, into_id)) AS m"

_REMEMBER = """
INSERT INTO customer_merges (shop_id, from_customer_id, into_customer_id, event_id, merged_at, before)
SELECT :shop_id, m.from_id, m.into_id, m.event_id, m.at, jsonb_build_object(
  'customer', to_jsonb(c),
  'identities', (SELECT COALESCE(jsonb_agg(jsonb_build_object('kind', i.kind, 'value', i.value)), '[]')
                 FROM identities i WHERE i.shop_id = :shop_id AND i.customer_id = c.id),
  'consents', (SELECT COALESCE(jsonb_agg(to_jsonb(k)), '[]') FROM consents k
               WHERE k.shop_id = :shop_id AND k.customer_id = c.id),
  'assignments', (SELECT COALESCE(jsonb_agg(to_jsonb(a)), '[]') FROM assignments a
                  WHERE a.shop_id = :shop_id AND a.customer_id = c.id))
FROM unnest(CAST(:losers AS uuid[]), CAST(:survivors AS uuid[]), CAST(:events AS uuid[]), CAST(:times AS timestamptz[]))
  AS m (from_id, into_id, event_id, at)
JOIN customers c ON c.shop_id = :shop_id AND c.id = m.from_id
"""

# tables in which a customer's rows cannot collide with another customer's
_REPOINTED = (
    "identities", "timeline", "orders", "unpaid_orders", "consent_changes", "decisions", "actions", "coupons",
    "outcomes", "ledger", "runs", "watches",
)  # fmt: skip

_CONSENTS = f"""
INSERT INTO consents (shop_id, customer_id, channel, topic, state, changed_at, event_id)
SELECT DISTINCT ON (m.into_id, k.channel, k.topic)
       :shop_id, m.into_id, k.channel, k.topic, k.state, k.changed_at, k.event_id
FROM {_PAIRS} JOIN consents k ON k.shop_id = :shop_id AND k.customer_id = m.from_id
ORDER BY m.into_id, k.channel, k.topic, k.changed_at DESC, k.state = 'unsubscribed' DESC, k.event_id DESC
ON CONFLICT (shop_id, customer_id, channel, topic) DO UPDATE
SET state = EXCLUDED.state, changed_at = EXCLUDED.changed_at, event_id = EXCLUDED.event_id
WHERE (EXCLUDED.changed_at, EXCLUDED.state = 'unsubscribed', EXCLUDED.event_id)
    > (consents.changed_at, consents.state = 'unsubscribed', consents.event_id)
"""  # noqa: S608

_ASSIGNMENTS = f"""
INSERT INTO assignments (shop_id, strategy_id, customer_id, held_out, propensity, assigned_at, decision_id,
                         prior_revenue_minor, prior_orders)
SELECT DISTINCT ON (m.into_id, a.strategy_id)
       :shop_id, a.strategy_id, m.into_id, a.held_out, a.propensity, a.assigned_at, a.decision_id,
       a.prior_revenue_minor, a.prior_orders
FROM {_PAIRS} JOIN assignments a ON a.shop_id = :shop_id AND a.customer_id = m.from_id
ORDER BY m.into_id, a.strategy_id, a.assigned_at, a.held_out
ON CONFLICT (shop_id, strategy_id, customer_id) DO UPDATE
SET held_out = EXCLUDED.held_out, propensity = EXCLUDED.propensity, assigned_at = EXCLUDED.assigned_at,
    decision_id = EXCLUDED.decision_id, prior_revenue_minor = EXCLUDED.prior_revenue_minor,
    prior_orders = EXCLUDED.prior_orders
WHERE EXCLUDED.assigned_at < assignments.assigned_at
"""  # noqa: S608

_ENROLMENTS = f"""
INSERT INTO enrolments (shop_id, rule_id, customer_id, key, entered_at, entries, decision_id)
SELECT :shop_id, e.rule_id, m.into_id, e.key, max(e.entered_at), sum(e.entries),
       (array_agg(e.decision_id ORDER BY e.entered_at DESC))[1]
FROM {_PAIRS} JOIN enrolments e ON e.shop_id = :shop_id AND e.customer_id = m.from_id
GROUP BY e.rule_id, m.into_id, e.key
ON CONFLICT (shop_id, rule_id, customer_id, key) DO UPDATE
SET entered_at = GREATEST(enrolments.entered_at, EXCLUDED.entered_at),
    entries = enrolments.entries + EXCLUDED.entries,
    decision_id = CASE WHEN EXCLUDED.entered_at > enrolments.entered_at
                       THEN EXCLUDED.decision_id ELSE enrolments.decision_id END
"""  # noqa: S608

# who was in a segment as one of the two is in it as the one they are, and has not entered it again
_SEGMENTS = f"""
INSERT INTO segment_members (shop_id, customer_id, segment_id, since, left_at, as_of)
SELECT :shop_id, m.into_id, s.segment_id, min(s.since),
       CASE WHEN bool_or(s.left_at IS NULL) THEN NULL ELSE max(s.left_at) END, max(s.as_of)
FROM {_PAIRS} JOIN segment_members s ON s.shop_id = :shop_id AND s.customer_id = m.from_id
GROUP BY m.into_id, s.segment_id
ON CONFLICT (shop_id, customer_id, segment_id) DO UPDATE
SET since = LEAST(segment_members.since, EXCLUDED.since),
    left_at = CASE WHEN segment_members.left_at IS NULL OR EXCLUDED.left_at IS NULL THEN NULL
                   ELSE GREATEST(segment_members.left_at, EXCLUDED.left_at) END,
    as_of = LEAST(segment_members.as_of, EXCLUDED.as_of)
"""  # noqa: S608

# codes of a pool are one for each customer: where both have one, the survivor's is told from now on
_POOL_CODES = f"""
UPDATE pool_codes k SET customer_id = first.into_id
FROM (SELECT DISTINCT ON (p.pool_id, m.into_id) p.pool_id, p.number, m.into_id
      FROM {_PAIRS} JOIN pool_codes p ON p.shop_id = :shop_id AND p.customer_id = m.from_id
      WHERE NOT EXISTS (SELECT 1 FROM pool_codes s
                        WHERE s.shop_id = :shop_id AND s.pool_id = p.pool_id AND s.customer_id = m.into_id)
      ORDER BY p.pool_id, m.into_id, p.given_at, p.number) AS first
WHERE k.shop_id = :shop_id AND k.pool_id = first.pool_id AND k.number = first.number
"""  # noqa: S608

_LEFT_BEHIND = ("consents", "assignments", "enrolments", "customer_features", "cluster_members", "segment_members")


_LOCK = text("SELECT pg_advisory_xact_lock_shared(hashtextextended(:key, 0))")
_WAIT = text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))")


def hold_off(session: Session, shop_id: UUID) -> None:
    """Wait for the merges that are being carried out; no other begins before this transaction ends. Call it last.

    For who writes about customers without having locked them, and must not write about one who is merged away.
    """
    session.execute(_WAIT, {"key": f"merges:{shop_id}"})


def merge(session: Session, shop_id: UUID, merges: Sequence[Merge]) -> None:
    """Carry out merges; the customers are locked by this transaction. Losers that were never stored need nothing."""
    stored = [merge for merge in merges if not merge.loser.is_new]
    if not stored:
        return
    session.execute(_LOCK, {"key": f"merges:{shop_id}"})
    values = {
        "shop_id": shop_id,
        "losers": [merge.loser.id for merge in stored],
        "survivors": [merge.loser.root().id for merge in stored],
        "events": [merge.event.id for merge in stored],
        "times": [merge.event.occurred_at for merge in stored],
    }
    session.execute(text(_REMEMBER), values)
    _merge_rows(session, values)
    for table in _REPOINTED:
        session.execute(
            text(f"UPDATE {table} t SET customer_id = m.into_id FROM {_PAIRS}"  # noqa: S608
                 " WHERE t.shop_id = :shop_id AND t.customer_id = m.from_id"), values,
        )  # fmt: skip
    for statement in (_CONSENTS, _ASSIGNMENTS, _ENROLMENTS, _SEGMENTS, _POOL_CODES):
        session.execute(text(statement), values)
    for table in _LEFT_BEHIND:
        session.execute(
            text(f"DELETE FROM {table} WHERE shop_id = :shop_id AND customer_id = ANY(CAST(:losers AS uuid[]))"),  # noqa: S608
            values,
        )


def _merge_rows(session: Session, values: dict[str, Any]) -> None:
    """The survivors' own rows: the newest traits, the earliest ids, first and last seen of both."""
    rows = {
        row.id: row
        for row in session.execute(
            text("SELECT * FROM customers WHERE shop_id = :shop_id AND id = ANY(CAST(:ids AS uuid[]))"),
            {"shop_id": values["shop_id"], "ids": values["losers"] + values["survivors"]},
        )
    }
    losers_of: dict[UUID, list[Row[Any]]] = {}
    for loser, survivor in zip(values["losers"], values["survivors"], strict=True):
        losers_of.setdefault(survivor, []).append(rows[loser])
    update = text(
        "UPDATE customers SET external_id = :external_id, shopify_id = :shopify_id, email = :email, phone = :phone,"
        " first_name = :first_name, last_name = :last_name, locale = :locale, time_zone = :time_zone,"
        " country = :country, traits = CAST(:traits AS jsonb), trait_times = CAST(:trait_times AS jsonb),"
        " first_seen_at = :first_seen_at, last_seen_at = :last_seen_at WHERE shop_id = :shop_id AND id = :id"
    )
    session.execute(update, [_merged(rows[survivor], losers) for survivor, losers in losers_of.items()])
    session.execute(
        text(
            f"UPDATE customers c SET merged_into = m.into_id FROM {_PAIRS} WHERE c.shop_id = :shop_id"  # noqa: S608
            " AND (c.id = m.from_id OR c.merged_into = m.from_id)"
        ),
        values,
    )


def _merged(survivor: Row[Any], losers: Sequence[Row[Any]]) -> dict[str, Any]:
    everyone = [survivor, *sorted(losers, key=lambda row: (row.first_seen_at, row.random_key))]
    profile = Profile()
    for row in everyone:
        profile.absorb(Profile(row.traits, row.trait_times))
    columns = {
        name: profile.column(name) or next((getattr(row, name) for row in everyone if getattr(row, name)), None)
        for name in COLUMNS
    }
    ids = {
        name: next((getattr(row, name) for row in everyone if getattr(row, name)), None)
        for name in ("external_id", "shopify_id")
    }
    return {
        "shop_id": survivor.shop_id,
        "id": survivor.id,
        **ids,
        **columns,
        "traits": orjson.dumps(profile.traits).decode(),
        "trait_times": orjson.dumps(profile.times).decode(),
        "first_seen_at": min(row.first_seen_at for row in everyone),
        "last_seen_at": max(row.last_seen_at for row in everyone),
    }
