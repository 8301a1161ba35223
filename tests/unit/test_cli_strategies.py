"""`opagent strategy` without a database: what is wrong with a file, and where."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.strategies import _amount, read_version
from operation_agent.kit.errors import Rejected
from operation_agent.strategies import document
from operation_agent.strategies.library import library

pytestmark = pytest.mark.unit


def run(*words: object, answer: bytes | None = None):
    return CliRunner().invoke(app, ["strategy", *map(str, words)], input=answer)


def test_a_template_reads_from_a_file_and_from_standard_input(tmp_path):
    written = document.write(library()["win_back"].to_dict())
    file = tmp_path / "a.yaml"
    file.write_text(written)
    assert run("validate", file).exit_code == 0
    assert run("validate", "-", answer=written.encode()).exit_code == 0


def test_everything_wrong_with_a_file_is_said_with_its_path(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps({**library()["win_back"].to_dict(), "goal": "x", "rules": [{}, {"key": "a"}]}))
    result = run("validate", file)
    assert result.exit_code == 2
    lines = result.stdout.splitlines()
    places = [line.removeprefix(f"{file}: ").partition(":")[0] for line in lines]
    assert places == ["rules[0].when", "rules[1].when", "goal"]
    assert json.loads(run("validate", file, "--json").stdout)["valid"] is False


def test_a_file_that_is_not_there_is_named(tmp_path):
    result = run("validate", tmp_path / "none.yaml")
    assert result.exit_code != 0 and "none.yaml" in str(result.exception)


def test_every_template_is_listed():
    assert {one["key"] for one in json.loads(run("templates", "--json").stdout)} >= {"conversion", "win-back"}


@pytest.mark.parametrize("written", ["", "zero", "-1", "0", "NaN", "1e99", "10,0"])
def test_an_amount_that_is_none_is_refused(written):
    with pytest.raises(Rejected):
        _amount(written)


@pytest.mark.parametrize("written", ["", "newest", "-1", "1.5", "²", "9" * 30])
def test_a_version_that_is_none_is_refused(written):
    with pytest.raises(Rejected):
        read_version(written)
