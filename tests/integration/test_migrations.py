"""Each release's schema comes from the one before it, with its rows, and goes back to it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from migrations import run
from operation_agent.customers import history
from operation_agent.events.event import Event
from operation_agent.kit.ids import new_id
from operation_agent.store.engine import connect
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop

pytestmark = pytest.mark.integration

_SHAPE = """
SELECT 'column ' || c.table_name || '.' || c.column_name, c.data_type || ' ' || c.is_nullable || ' '
       || COALESCE(c.column_default, '') FROM information_schema.columns c WHERE c.table_schema = 'public'
UNION ALL
SELECT 'constraint ' || conrelid::regclass || '.' || conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND conrelid <> 0
UNION ALL
SELECT 'index ' || indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT 'trigger ' || tgrelid::regclass || '.' || tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL
SELECT 'function ' || proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL
SELECT 'policy ' || tablename || '.' || policyname, COALESCE(qual, '') FROM pg_policies
UNION ALL
SELECT 'security ' || relname, relrowsecurity || ' ' || relforcerowsecurity FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
"""

SHOP, STRATEGY, RULE, BUDGET, ACTION, CUSTOMER, DECISION = (new_id() for _ in range(7))

_ROWS = f"""
INSERT INTO shops (id, slug, name, currency, created_at, seed)
  VALUES ('{SHOP}', 'old', 'Old', 'USD', now(), 'seed');
INSERT INTO budgets (shop_id, id, name, currency, limit_minor, reserved_minor, spent_minor)
  VALUES ('{SHOP}', '{BUDGET}', 'old', 'USD', 1000, 300, 200);
INSERT INTO strategies (shop_id, id, key, name, goal, state, definition, holdout, budget_id, started_at, created_at,
                        updated_at)
  VALUES ('{SHOP}', '{STRATEGY}', 'old', '{{"en": "Old", "zh": "旧"}}', 'win_back', 'live', '{{"key": "old"}}', 0.2,
          '{BUDGET}', now(), now(), now());
INSERT INTO rules (shop_id, id, strategy_id, key, version, definition, state, created_at, created_by)
  VALUES ('{SHOP}', '{RULE}', '{STRATEGY}', 'old/rule', 1, '{{}}', 'live', now(), 'me');
INSERT INTO customers (shop_id, id, random_key, first_seen_at, last_seen_at, created_at)
  VALUES ('{SHOP}', '{CUSTOMER}', '{CUSTOMER}', now(), now(), now());
INSERT INTO decisions (shop_id, id, recorded_at, decided_at, customer_id, strategy_id, rule_id, rule_version, trigger,
                       verdict, arm, propensity, receipt)
  VALUES ('{SHOP}', '{DECISION}', now(), now(), '{CUSTOMER}', '{STRATEGY}', '{RULE}', 1, 'schedule', 'act', 'a', 0.5,
          '{{"v": 1}}');
INSERT INTO actions (shop_id, id, decision_id, customer_id, strategy_id, rule_id, arm, step, type, channel, held_out,
                     parameters, dedupe_key, decided_at, state, due_at, budget_id, reserved_minor, created_at)
  VALUES ('{SHOP}', '{ACTION}', '{DECISION}', '{CUSTOMER}', '{STRATEGY}', '{RULE}', 'a', 0, 'coupon', 'coupon', false,
          '{{"percent": 10}}', 'k', now(), 'ready', now(), '{BUDGET}', 300, now());
INSERT INTO budget_entries (shop_id, budget_id, action_id, kind, amount_minor, at)
  VALUES ('{SHOP}', '{BUDGET}', '{ACTION}', 'reserve', 300, now());
"""  # noqa: S608


@pytest.fixture
def url(postgres) -> Iterator[str]:
    name = f"m{new_id().hex}"
    with psycopg.connect(postgres.superuser_url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} OWNER opagent")
    yield postgres.url.replace("/opagent?", f"/{name}?")
    with psycopg.connect(postgres.superuser_url(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def shape(url: str) -> dict[str, str]:
    with psycopg.connect(url) as connection:
        return dict(connection.execute(_SHAPE).fetchall())


def rows(url: str, statement: str) -> list[tuple]:
    with psycopg.connect(url) as connection:
        connection.execute("SELECT set_config('app.shop', %s, true)", (str(SHOP),))
        return connection.execute(statement).fetchall()


def fill(url: str, *statements: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("SELECT set_config('app.shop', %s, true)", (str(SHOP),))
        for statement in statements or (_ROWS,):
            connection.execute(statement)


def test_the_release_before_becomes_this_one_with_its_rows_and_goes_back(url):
    run.upgrade(url, "0001")
    before = shape(url)
    fill(url)
    run.upgrade(url)
    versions = "SELECT version, state, created_by FROM strategy_versions"
    assert rows(url, versions) == [(1, "live", "me")]
    assert rows(url, "SELECT reserved_minor, spent_minor, limit_minor FROM budgets") == [(300, 200, 1000)]
    assert rows(url, "SELECT state, counted, held_back FROM actions") == [("ready", True, True)]
    run.downgrade(url, "0001")
    assert shape(url) == before
    assert rows(url, "SELECT key, state FROM strategies") == [("old", "live")]
    assert rows(url, "SELECT state, parameters ->> 'percent' FROM actions") == [("ready", "10")]
    run.upgrade(url)
    assert rows(url, versions) == [(1, "live", "me")]


_THE_SHOP = f"""
INSERT INTO products (shop_id, product_id, source_updated_at, digest) VALUES ('{SHOP}', 'p', now(), '{RULE}');
INSERT INTO variants (shop_id, variant_id, listed_at) VALUES ('{SHOP}', 'v', now());
INSERT INTO storefront_listings (shop_id, kind, parent, listed_at) VALUES ('{SHOP}', 'variant', 'p', now());
INSERT INTO carts (shop_id, cart_token, lines) VALUES ('{SHOP}', 't', '[]');
INSERT INTO order_lines (shop_id, source_order_id, line_id, quantity, unit_minor) VALUES ('{SHOP}', 'o', '1', 2, 33.5);
INSERT INTO unpaid_orders (shop_id, source_order_id, updated_at, digest, event_id, snapshot)
  VALUES ('{SHOP}', 'u', now(), '{RULE}', '{RULE}', '{{}}');
INSERT INTO storefront_syncs (shop_id, id, vendor, kind, mode, state, actor, asked_at, updated_at)
  VALUES ('{SHOP}', '{RULE}', 'shopify', 'orders', 'first', 'asked', 'me', now(), now());
INSERT INTO outcomes (shop_id, action_id, event_id, kind, customer_id, strategy_id, occurred_at, source_order_id)
  VALUES ('{SHOP}', '{ACTION}', '{RULE}', 'ordered', '{CUSTOMER}', '{STRATEGY}', now(), 'o');
UPDATE orders SET digest = '{RULE}', customer_at = now(), paid_event_id = '{RULE}', name = '#1';
UPDATE shops SET storefront = '{{"name": "x"}}';
"""  # noqa: S608
_ORDER = f"""
INSERT INTO orders (shop_id, id, source_order_id, customer_id, ordered_at, currency, total_minor, updated_at, event_id)
  VALUES ('{SHOP}', '{ACTION}', 'o', '{CUSTOMER}', '2026-01-01', 'USD', 900, '2026-01-01', '{DECISION}');
"""  # noqa: S608


def test_the_shops_things_go_with_this_release_and_the_orders_stay(url):
    run.upgrade(url, "0002")
    before = shape(url)
    fill(url, _ROWS, _ORDER)
    run.upgrade(url)
    fill(url, _THE_SHOP)
    assert rows(url, "SELECT count(*) FROM products") == [(1,)]
    run.downgrade(url, "0002")
    assert shape(url) == before
    assert rows(url, "SELECT source_order_id, total_minor FROM orders") == [("o", 900)]
    assert rows(url, "SELECT kind FROM outcomes") == [("ordered",)]
    run.upgrade(url)
    assert rows(url, "SELECT count(*) FROM products") == [(0,)]


def test_an_order_of_the_release_before_is_followed_from_there(url):
    """It has neither digest nor lines nor the event it was paid by: its newest event was that."""
    run.upgrade(url, "0002")
    fill(url, _ROWS, _ORDER)
    run.upgrade(url)
    at = datetime(2026, 2, 1, tzinfo=UTC)
    said = {"order_id": "o", "total_minor": 700, "quantity": 1, "products": [{"line_id": "1", "quantity": 1}]}
    told = Event(new_id(), "shopify", "u", "order.updated", at, at, {}, said)
    engine = connect(url)
    try:
        with for_shop(engine, SHOP) as session:
            history.apply(session, load_shop(session, SHOP), [told], {told.id: None})
    finally:
        engine.dispose()
    found = rows(url, "SELECT total_minor, ordered_at, paid_event_id, event_id, customer_id FROM orders")
    assert found == [(700, datetime(2026, 1, 1, tzinfo=UTC), DECISION, told.id, CUSTOMER)]
    assert rows(url, "SELECT source_order_id, line_id FROM order_lines") == [("o", "1")]


def test_upgraded_and_fresh_databases_have_the_same_shape(url, database_url):
    run.upgrade(url, "0001")
    fill(url)
    run.upgrade(url)
    assert shape(url) == shape(database_url)
