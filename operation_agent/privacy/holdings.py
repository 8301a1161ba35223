"""Where personal data is, and what becomes of it when somebody is forgotten: one line a table, checked by a test.

Forgetting takes away everything that says who somebody is or what they did. What the shop's books and measurements
need stays, under an id that points to nobody: money, sides of an experiment, what was decided. So no effect that was
measured changes, and nobody can be found in it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Holding:
    """`whose` selects a person's rows (SQL over the parameters of `subjects.Subject.values`); None: nobody's by name.

    `erase`: delete the rows; or `blank`: assignments that take the personal part out of those that are `blank_if`;
    neither: `why` they stay.
    `shown`: columns of an export; None: none, since `why`.
    """

    table: str
    whose: str | None
    erase: bool = False
    blank: str | None = None
    blank_if: str = "true"
    shown: str | None = "*"
    why: str | None = None


_CUSTOMER = "customer_id = ANY(CAST(:customers AS uuid[]))"
_ORDERS = "source_order_id = ANY(CAST(:orders AS text[]))"
_STAYS = "the id points to nobody any more"

_RECEIPT = (
    "receipt = jsonb_strip_nulls(jsonb_build_object('erased', true, 'v', receipt -> 'v', 'strategy',"
    " receipt -> 'strategy', 'rule', receipt -> 'rule', 'cluster', receipt -> 'cluster', 'verdict',"
    " receipt -> 'verdict')), event_id = NULL"
)

HOLDINGS: tuple[Holding, ...] = (
    # who somebody is
    Holding("identities", _CUSTOMER, erase=True, shown="kind, value, first_seen_at"),
    Holding("consents", _CUSTOMER, erase=True),
    Holding("consent_changes", _CUSTOMER, erase=True),
    Holding("suppressions", "address = ANY(CAST(:addresses AS text[]))", erase=True),
    Holding(
        "customer_merges",
        "(from_customer_id = ANY(CAST(:customers AS uuid[])) OR into_customer_id = ANY(CAST(:customers AS uuid[])))",
        erase=True, shown="from_customer_id, into_customer_id, merged_at",
    ),
    # what they did
    Holding("timeline", _CUSTOMER, erase=True, shown="occurred_at, type, product_id, amount_minor"),
    Holding(
        "event_queue", "event_id = ANY(CAST(:events AS uuid[]))", erase=True, shown=None,
        why="the events themselves are shown",
    ),
    Holding(
        "event_failures", "event_id = ANY(CAST(:events AS uuid[]))", erase=True, shown=None,
        why="the events themselves are shown",
    ),
    Holding(
        "events", "id = ANY(CAST(:events AS uuid[]))", erase=True,
        shown="source, type, name, occurred_at, identity, properties, context",
    ),
    Holding(
        "import_rejections", "row::text ~ ANY(CAST(:patterns AS text[]))", erase=True, shown="line, reason, row",
    ),
    Holding("carts", "cart_token = ANY(CAST(:carts AS text[]))", erase=True),
    Holding(
        "checkouts",
        "(source_customer_id = ANY(CAST(:shopify AS text[])) OR cart_token = ANY(CAST(:carts AS text[])))", erase=True,
    ),
    Holding("order_lines", _ORDERS, why="goods sold; the order is nobody's any more"),
    Holding("fulfillments", _ORDERS, blank="tracking_company = NULL, tracking_numbers = '{}'"),
    Holding("orders", _ORDERS, blank="name = NULL"),
    Holding("unpaid_orders", _CUSTOMER, erase=True, shown="source_order_id, updated_at, snapshot"),
    Holding("unpaid_orders", f"({_CUSTOMER} OR {_ORDERS})", erase=True),
    Holding("order_changes", _ORDERS, why="money that was given back"),
    # what was thought of them
    Holding("customer_features", _CUSTOMER, erase=True),
    Holding("cluster_members", _CUSTOMER, erase=True),
    Holding("segment_members", _CUSTOMER, erase=True),
    Holding("decisions", _CUSTOMER, blank=_RECEIPT, shown="decided_at, trigger, verdict, arm, receipt"),
    Holding("assignments", _CUSTOMER, why=_STAYS),
    Holding("enrolments", _CUSTOMER, blank="key = 'erased:' || md5(key)"),
    Holding("runs", _CUSTOMER, erase=True, shown="rule_id, arm, trigger, state, entered_at, left_at"),
    Holding("watches", _CUSTOMER, erase=True, shown="rule_id, began_at, due_at, event"),
    # what was done to them
    Holding(
        "attempts", "action_id = ANY(CAST(:actions AS uuid[]))", blank="detail = NULL",
        shown="action_id, number, started_at, finished_at, outcome",
    ),
    Holding(
        "actions", _CUSTOMER,
        blank="parameters = '{}', result = result - 'to' - 'address', provider_ref = NULL,"
        " dedupe_key = 'erased:' || id",
        blank_if="state = ANY(CAST(:terminal AS text[]))",  # what is being sent is still looked up by its key
        shown="id, type, channel, state, reason, parameters, result, due_at, sent_at",
    ),
    Holding("coupons", _CUSTOMER, why=_STAYS),
    Holding("pool_codes", _CUSTOMER, why=_STAYS),
    Holding("outcomes", _CUSTOMER, why=_STAYS, shown="kind, occurred_at, value_minor"),
    Holding("ledger", _CUSTOMER, why="the shop's books", shown="kind, amount_minor, currency, occurred_at"),
    Holding("budget_entries", _CUSTOMER, why="the shop's books", shown=None),
    Holding("budget_customers", _CUSTOMER, why="the shop's books", shown=None),
    Holding("shop_changes", "(parameters::text ~ ANY(CAST(:patterns AS text[])))",
            blank="parameters = '{}', before = NULL, after = NULL, undo = NULL, errors = '[]', reason = 'erased',"
            " why_no_undo = 'the customer was forgotten', warnings = '[]', subject = kind, fence = fence + 1,"
            " lease_until = NULL, retry_at = NULL, state = CASE WHEN state IN ('asked', 'previewed', 'applying',"
            " 'undoing', 'unknown') THEN 'cancelled' ELSE state END", shown="kind, parameters, state, applied_at"),
    Holding("storefront_syncs", "first_refusals::text ~ ANY(CAST(:patterns AS text[]))", blank="first_refusals = '[]'",
            shown=None, why="a part of an order that could not be read"),
    Holding(
        "idempotency_keys", "convert_from(response, 'UTF8') ~ ANY(CAST(:patterns AS text[]))", erase=True, shown=None,
        why="an answer that was given once, kept for a day",
    ),
    # last, since the others are found by it
    Holding("customers", "id = ANY(CAST(:customers AS uuid[]))", erase=True),
)  # fmt: skip

KEPT_APART = {
    "audit_log": "who did what, without personal data: names customers by id",
    "privacy_requests": "the request itself; its subject is emptied when it is done",
    "forgotten": "where somebody stood in the shop-wide holdout, one of ten thousand places",
}
"""Tables with rows about somebody that forgetting handles by itself, or must not touch."""
