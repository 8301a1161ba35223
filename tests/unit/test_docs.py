"""What the documentation shows can be done as it is shown."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import yaml

from operation_agent.strategies.library import messages
from operation_agent.strategies.vocabulary import vocabulary
from rules import plain
from rules.limits import KEYS
from rules.strategy import parse, parse_yaml

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def blocks(language: str) -> list[str]:
    page = (ROOT / "docs/howto/write-a-strategy.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_the_strategy_of_the_how_to_is_one():
    strategy = parse_yaml(blocks("yaml")[0], vocabulary())
    assert [arm.key for rule in strategy.rules for arm in rule.arms] == ["nothing", "reminder"]


def test_the_parts_that_the_how_to_shows_are_parts_of_a_strategy():
    whole, whens, conditions, steps, limits = (yaml.safe_load(block) for block in blocks("yaml"))
    for when in whens:
        raw = copy.deepcopy(whole)
        raw["rules"][0]["when"] = when
        assert parse(raw, vocabulary()).rules[0].when.to_dict()
    raw = copy.deepcopy(whole)
    raw["rules"][0] |= {"when": {"event": "custom"}, "if": conditions[0]}
    raw["rules"][0]["then"]["arms"][1]["steps"] = steps
    strategy = parse(raw | limits, vocabulary())
    assert len(strategy.rules[0].arms[1].steps) == len(steps)
    assert set(limits) == set(KEYS)


def test_the_plain_rule_of_the_how_to_is_read():
    strategy, enabled = plain.read(json.loads(blocks("json")[0]), vocabulary(), messages())
    assert (strategy.key, enabled) == ("r-1", True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_to_a_file_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
