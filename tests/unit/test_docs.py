"""What the documentation shows can be done as it is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from operation_agent.strategies.vocabulary import vocabulary
from rules.strategy import parse_yaml

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_the_strategy_of_the_how_to_is_one():
    page = (ROOT / "docs/howto/write-a-strategy.md").read_text()
    source = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert source is not None
    strategy = parse_yaml(source.group(1), vocabulary())
    assert [arm.key for rule in strategy.rules for arm in rule.arms] == ["nothing", "reminder"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_to_a_file_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
