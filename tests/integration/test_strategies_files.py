"""A folder of files and the database in step, by the command line: what is shown is what is done, all or nothing."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from sqlalchemy import text
from typer.testing import CliRunner, Result

from cli.main import app
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Conflict, Rejected
from operation_agent.kit.settings import settings
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop, update_settings
from operation_agent.strategies import authoring, document, folder, lifecycle, records
from operation_agent.strategies.library import template

pytestmark = pytest.mark.integration

STARTED = ("conversion", "repurchase", "retention", "win_back")


@pytest.fixture
def shop(engine, shop_id):
    with for_shop(engine, shop_id) as session:
        return load_shop(session, shop_id)


@pytest.fixture
def run(shop, database_url, monkeypatch):
    """`opagent strategy …` on the test's database and shop."""
    monkeypatch.setenv("OPAGENT_DATABASE_URL", database_url)
    settings.cache_clear()

    def call(*words: object, fails: bool = False, needs_shop: bool = True, answer: str | None = None) -> Result:
        command = ["strategy", *map(str, words), *(["--shop", shop.slug] if needs_shop else [])]
        result = CliRunner().invoke(app, command, input=answer)
        assert (result.exit_code != 0) is fails, result.output + str(result.exception)
        return result

    yield call
    settings.cache_clear()


@pytest.fixture
def started(engine, shop_id):
    """The templates of the four goals, live."""
    with for_shop(engine, shop_id) as session:
        for key in STARTED:
            lifecycle.start(session, load_shop(session, shop_id), key, at=SYSTEM.now(), actor="op")


def revisions(engine, shop_id) -> dict[str, tuple[int, str, int | None]]:
    with for_shop(engine, shop_id) as session:
        return {row.key: (row.revision, row.state, row.version) for row in records.list_strategies(session, shop_id)}


def test_export_twice_is_the_same_and_applying_it_changes_nothing(run, started, engine, shop_id, tmp_path):
    run("export", tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name.removesuffix(".yaml") for name in first} == {template(key).key for key in STARTED}
    again = json.loads(run("export", tmp_path, "--json").stdout)
    assert again["changed"] == []
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    before = revisions(engine, shop_id)
    done = json.loads(run("apply", tmp_path, "--yes", "--json").stdout)
    assert (done["applied"], {one["step"] for one in done["strategies"]}) == (False, {"unchanged"})
    assert revisions(engine, shop_id) == before


def test_what_is_exported_reads_as_it_was_in_any_yaml(run, started, engine, shop_id, tmp_path):
    run("export", tmp_path)
    for path in tmp_path.iterdir():
        with for_shop(engine, shop_id) as session:
            definition = records.read(records.find(session, shop_id, path.stem).definition).to_dict()
        assert yaml.safe_load(path.read_text()) == definition == document.read(path.read_text())


def test_apply_shows_the_difference_asks_and_publishes(run, started, engine, shop_id, tmp_path):
    run("export", tmp_path)
    file = tmp_path / "conversion.yaml"
    file.write_text(file.read_text().replace("percent: 10", "percent: 15"))
    fresh = {**template("win_back").to_dict(), "key": "spring"}
    (tmp_path / "new.yml").write_text(yaml.safe_dump(fresh))
    shown = run("apply", tmp_path, "--dry-run").stdout
    assert "15" in shown and "spring: new" in shown and "retention: as it is" in shown
    before = revisions(engine, shop_id)
    assert "nothing was changed" in run("apply", tmp_path, answer="n\n", fails=True).output
    assert revisions(engine, shop_id) == before
    run("apply", tmp_path, "--note", "spring sale", answer="y\n")
    after = revisions(engine, shop_id)
    assert (after["conversion"][2], after["spring"][1:]) == (2, ("live", 1))
    assert {key: after[key] for key in before if key != "conversion"} == {
        key: before[key] for key in before if key != "conversion"
    }
    assert "spring sale" in run("versions", "conversion", "--json").stdout


def test_what_is_in_no_file_is_reported_and_archived_only_with_prune(run, started, engine, shop_id, tmp_path):
    run("export", tmp_path)
    (tmp_path / "retention.yaml").unlink()
    assert "retention: is live and in no file" in run("apply", tmp_path, "--yes").stdout
    assert revisions(engine, shop_id)["retention"][1] == "live"
    run("apply", tmp_path, "--yes", "--prune")
    assert revisions(engine, shop_id)["retention"][1] == "archived"


def test_nothing_is_half_applied(run, started, engine, shop_id, tmp_path):
    run("export", tmp_path)
    for name in ("conversion", "win-back"):
        file = tmp_path / f"{name}.yaml"
        file.write_text(re.sub(r"percent: \d+", "percent: 33", file.read_text()))
    with for_shop(engine, shop_id) as session:  # the second of the two now needs an approval
        raw = {**template("win_back").to_dict(), "approval": {"percent_above": 20}}
        shop = load_shop(session, shop_id)
        authoring.save_draft(session, shop, "win-back", records.read(raw), at=SYSTEM.now(), actor="op")
        authoring.publish(session, shop, "win-back", at=SYSTEM.now(), actor="op")
    before = revisions(engine, shop_id)
    failed = run("apply", tmp_path, "--yes", fails=True)
    assert isinstance(failed.exception, Conflict) and failed.exception.code == "approval_needed"
    assert revisions(engine, shop_id) == before
    with for_shop(engine, shop_id) as session:
        drafts = session.execute(
            text("SELECT count(*) FROM strategy_versions WHERE shop_id = :s AND state = 'draft'"), {"s": shop_id}
        )
        assert drafts.scalar() == 0
    run("apply", tmp_path, "--yes", "--drafts")
    assert "must say yes" in run("ask", "win-back").stdout


def test_files_that_do_not_read_are_all_named_with_their_places(run, engine, shop_id, tmp_path):
    good = template("conversion").to_dict()
    (tmp_path / "a.yaml").write_text("key: [")
    (tmp_path / "b.json").write_text(json.dumps({**good, "goal": "x", "holdout": 2}))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**good, "rules": [{**good["rules"][0], "if": {"all": []}}]}))
    (tmp_path / "d.yaml").write_text(yaml.safe_dump({**good, "key": "twice"}))
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({**good, "key": "twice"}))
    failed = run("apply", tmp_path, "--yes", fails=True).exception
    assert isinstance(failed, Rejected)
    places = [one["where"] for one in failed.extra["errors"]]
    assert places == ["a.yaml: line 2", "b.json: goal", "c.yaml: rules[0].if.all", "e.yaml: key"], places
    assert revisions(engine, shop_id) == {}


def test_a_change_between_showing_and_doing_is_a_conflict(started, engine, shop_id, shop):
    with for_shop(engine, shop_id) as session:
        files = folder.export(session, shop_id)
        files["conversion.yaml"] = files["conversion.yaml"].replace("percent: 10", "percent: 15")
        planned = folder.plan(session, shop, files)
    with for_shop(engine, shop_id) as session:
        lifecycle.pause(session, shop, "conversion", at=SYSTEM.now(), actor="somebody else")
    with pytest.raises(Conflict, match="changed since"), for_shop(engine, shop_id) as session:
        folder.apply(session, shop, planned, at=SYSTEM.now(), actor="op")
    assert revisions(engine, shop_id)["conversion"][2] == 1


def test_a_draft_of_somebody_is_not_overwritten(started, engine, shop_id, shop):
    with for_shop(engine, shop_id) as session:
        files = folder.export(session, shop_id)
        files["conversion.yaml"] = files["conversion.yaml"].replace("percent: 10", "percent: 15")
        drafted = document.read(files["conversion.yaml"].replace("percent: 15", "percent: 12"))
        authoring.save_draft(session, shop, "conversion", records.read(drafted), at=SYSTEM.now(), actor="mei")
        with pytest.raises(Conflict, match="a draft of mei"):
            folder.plan(session, shop, files)
        files["conversion.yaml"] = document.write(records.read(drafted).to_dict())
        planned = folder.plan(session, shop, files)
        folder.apply(session, shop, planned, at=SYSTEM.now(), actor="op")
        assert records.find(session, shop_id, "conversion").draft is None


def test_the_files_of_a_folder_may_speak_of_each_other(engine, shop_id, shop):
    first, second = ({**template("conversion").to_dict(), "key": key} for key in ("a", "b"))
    for one, other in ((first, "b"), (second, "a")):
        leaf = {"field": f"strategy.{other}", "op": "equals", "value": False}
        one["rules"] = [{**one["rules"][0], "if": {"all": [leaf, one["rules"][0]["if"]]}}]
    files = {f"{one['key']}.yaml": document.write(one) for one in (first, second)}
    with for_shop(engine, shop_id) as session:
        folder.apply(session, shop, folder.plan(session, shop, files), at=SYSTEM.now(), actor="op")
        assert [one.step for one in folder.plan(session, shop, files)] == ["unchanged", "unchanged"]
        with pytest.raises(Rejected) as caught:
            folder.plan(session, shop, {"a.yaml": files["a.yaml"].replace("strategy.b", "strategy.c")})
    assert str(caught.value.where).startswith("a.yaml: rules[0].if.all[0].field")


def test_the_command_line_walks_a_strategy_through_its_life(run, engine, shop_id, shop, tmp_path):
    assert "win_back" in run("templates", needs_shop=False).stdout
    run("new", "--template", "win_back", "--key", "spring", "--budget", "100", "--holdout", "0.3")
    assert "spring" in run("list").stdout
    assert isinstance(run("resume", "spring", fails=True).exception, Conflict)
    assert "version 1" in run("publish", "spring").stdout
    file = tmp_path / "spring.yaml"
    file.write_text(re.sub(r"percent: \d+", "percent: 44", run("show", "spring").stdout))
    assert "reads" in run("validate", file).stdout
    with for_shop(engine, shop_id) as session:
        made = records.read(document.read(file.read_bytes()))
        authoring.save_draft(session, shop, "spring", made, at=SYSTEM.now(), actor="op")
    said = run("diff", "spring").stdout
    changes = json.loads(run("diff", "spring", "--json").stdout)
    assert "44" in said and len(changes) == len(said.splitlines()) > 0
    run("publish", "spring", "--note", "deeper")
    assert "version 3" in run("rollback", "spring", "1").stdout
    run("pause", "spring")
    run("resume", "spring")
    run("archive", "spring")
    assert revisions(engine, shop_id)["spring"][1] == "archived"


def test_plain_rules_of_a_file_become_drafts(run, engine, shop_id, tmp_path):
    rules = [
        {
            "rule_id": f"R{number}", "name": "n", "priority": number, "enabled": number > 1,
            "conditions": {"purchase_stage": "decision"},
            "actions": [{"type": "create_discount", "discount": 10, "expiry_days": 3}],
        }
        for number in (1, 2, 3)
    ]  # fmt: skip
    file = tmp_path / "rules.json"
    file.write_text(json.dumps(rules))
    made = json.loads(run("new", file, "--json").stdout)
    assert [one["key"] for one in made] == ["r1", "r2", "r3"]
    assert {state for _, state, _ in revisions(engine, shop_id).values()} == {"draft"}


def test_limits_of_the_shop_count_for_files_too(run, engine, shop_id, tmp_path):
    with for_shop(engine, shop_id) as session:
        update_settings(session, load_shop(session, shop_id), {"approval": {"cost_above": "1000"}})
    (tmp_path / "a.yaml").write_text(
        document.write(template("conversion").to_dict())
    )  # no budget: it may cost anything
    failed = run("apply", tmp_path, "--yes", fails=True).exception
    assert isinstance(failed, Conflict) and failed.code == "approval_needed"
    limited = {**template("conversion").to_dict(), "budget": {"limit": "1000"}}
    (tmp_path / "a.yaml").write_text(document.write(limited))
    run("apply", tmp_path, "--yes")
