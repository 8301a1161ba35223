"""Each release's schema comes from the one before it, with its rows, and goes back to it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from migrations import run
from operation_agent.kit.ids import new_id

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


def fill(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("SELECT set_config('app.shop', %s, true)", (str(SHOP),))
        connection.execute(_ROWS)


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


def test_upgraded_and_fresh_databases_have_the_same_shape(url, database_url):
    run.upgrade(url, "0001")
    fill(url)
    run.upgrade(url)
    assert shape(url) == shape(database_url)
