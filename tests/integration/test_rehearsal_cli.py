"""`opagent backtest` and `opagent strategy impact`, as somebody at a terminal uses them."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from cli.main import app
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Rejected
from operation_agent.kit.settings import settings
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from operation_agent.strategies import authoring
from tests.integration.test_rehearsal_backtest import CARTS, START, identified, live_through, stories, strategy

pytestmark = pytest.mark.integration


@pytest.fixture
def shop(engine, shop_id, database_url, monkeypatch):
    monkeypatch.setenv("OPAGENT_DATABASE_URL", database_url)
    settings.cache_clear()
    identified(engine, shop_id)
    live_through(engine, shop_id, stories(1, customers=30))
    with for_shop(engine, shop_id) as session:
        offset = START + timedelta(days=30) - SYSTEM.now()
        session.execute(
            text("UPDATE shops SET clock_offset = :offset WHERE id = :id"), {"offset": offset, "id": shop_id}
        )
        shop = load_shop(session, shop_id)
        authoring.create(session, shop, strategy(CARTS), at=SYSTEM.now(), actor="t")
        authoring.publish(session, shop, "tried", at=SYSTEM.now(), actor="t")
        stricter = strategy(CARTS, caps=[{"channel": "email", "count": 1, "window": "P30D"}])
        authoring.save_draft(session, shop, "tried", stricter, at=SYSTEM.now(), actor="t")
    yield shop
    settings.cache_clear()


def said(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_backtest_prints_its_table_its_totals_and_its_assumptions(shop):
    english = said("backtest", "tried", "--shop", shop.slug, "--days", "30")
    assert "triggers looked at" in english and "stopped: caps" in english and "Assumptions:" in english
    assert english.count("2026-0") >= 5  # a line a week
    chinese = said("backtest", "tried", "--shop", shop.slug, "--days", "5", "--language", "zh")
    assert "前提" in chinese and "频次上限" in chinese and "差异" in chinese


def test_as_json_it_is_what_the_table_is_made_of(shop):
    told = json.loads(said("backtest", "tried", "--shop", shop.slug, "--days", "30", "--json"))
    assert (told["version"], told["live_version"]) == (2, 1)
    assert told["diff"]["verdicts"]["capped"] > 0
    alone = json.loads(said("backtest", "tried", "--shop", shop.slug, "--version", "live", "--days", "30", "--json"))
    assert alone["live"] is None and alone["draft"]["total"] == told["live"]["total"]


def test_a_file_is_held_against_the_past_without_being_saved(shop, tmp_path):
    file = tmp_path / "tried.yaml"
    file.write_text(json.dumps(strategy(CARTS, holdout=0.0).to_dict()))
    told = json.loads(said("backtest", "tried", "--shop", shop.slug, "--file", str(file), "--days", "30", "--json"))
    assert told["version"] is None and told["live_version"] == 1
    assert told["diff"]["verdicts"]["holdout"] < 0


def test_impact_is_told_in_lines(shop):
    told = said("strategy", "impact", "tried", "--shop", shop.slug)
    assert "60 customers looked at" in told and "carts" in told
    assert json.loads(said("strategy", "impact", "tried", "--shop", shop.slug, "--json"))["rules"][0]["matching"] > 0


@pytest.mark.parametrize(
    "words", [("--language", "fr"), ("--version", "newest"), ("--file", "x.yaml", "--version", "live")]
)
def test_wrong_words_are_refused(shop, words):
    with pytest.raises(Rejected):
        CliRunner().invoke(app, ["backtest", "tried", "--shop", shop.slug, *words], catch_exceptions=False)
