"""Runs that were due when the release before stopped become campaigns, and go back to single runs on the way down."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest

from migrations.run import downgrade, upgrade
from operation_agent.kit.ids import new_id

pytestmark = pytest.mark.integration

DUE = datetime(2026, 3, 2, 9, tzinfo=UTC)


def rows(url: str, shop: UUID, sql: str) -> list[tuple]:
    with psycopg.connect(url) as connection:
        connection.execute("SELECT set_config('app.shop', %s, false)", (str(shop),))
        return connection.execute(sql).fetchall()


def test_open_runs_of_rules_survive_both_ways(postgres):
    name, shop, rules = f"m{new_id().hex}", new_id(), sorted([new_id(), new_id()])
    with psycopg.connect(postgres.superuser_url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} OWNER opagent")
    url = postgres.url.replace("/opagent?", f"/{name}?")
    try:
        upgrade(url, "0001")
        with psycopg.connect(url) as connection:
            connection.execute("SELECT set_config('app.system', 'on', false)")
            connection.execute("INSERT INTO shops (id, slug, name, currency, seed, created_at)"
                               " VALUES (%s, 'm', 'M', 'USD', 's', %s)", (shop, DUE))  # fmt: skip
            for schedule, finished in ((f"rule:{rules[0]}", None), (f"rule:{rules[1]}", None), ("rule:done", DUE)):
                connection.execute("INSERT INTO schedule_ticks (shop_id, schedule, due_at, taken_at, finished_at)"
                                   " VALUES (%s, %s, %s, %s, %s)", (shop, schedule, DUE, DUE, finished))  # fmt: skip
        upgrade(url)
        ((campaign, state, due_at, asked),) = rows(url, shop, "SELECT id, state, due_at, rules FROM campaigns")
        assert (state, due_at) == ("preparing", DUE)
        assert sorted(one["rule_id"] for one in asked) == [str(rule) for rule in rules]
        open_ticks = "SELECT schedule FROM schedule_ticks WHERE finished_at IS NULL ORDER BY schedule"
        assert rows(url, shop, open_ticks) == [(f"campaign:{campaign}",)]
        downgrade(url, "0001")
        assert rows(url, shop, open_ticks) == [(f"rule:{rule}",) for rule in rules]
    finally:
        with psycopg.connect(postgres.superuser_url(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
