"""kill -9 between any two steps of a change: it ends as it would have ended, and nothing is done twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from operation_agent.kit.clock import SYSTEM
from operation_agent.store.session import for_shop
from operation_agent.storefront import changes
from operation_agent.storefront.kinds import KINDS
from tests.integration.changing import ACTOR, Desk, desk
from tests.integration.test_shop_changes_kinds import CUSTOMER, drafts, fill, pages

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
DRAFT = {
    "customer_id": "7001", "note": "By phone", "lines": [{"variant_id": "6001", "quantity": 1}],
    "invoice": {"subject": "Yours"},
}  # fmt: skip
TAGS = {"customer_id": "7001", "add": ["vip"], "remove": ["sleeping"]}


@pytest.fixture
def here(engine, shop_id, shopify_peer) -> Iterator[Desk]:
    fill(shopify_peer)
    shopify_peer.grant(scopes=sorted({scope for kind in KINDS.values() for scope in kind.scopes["shopify"]}))
    with desk(engine, shop_id, shopify_peer) as made:
        yield made


def crash(here: Desk, database_url: str, step: str, count: int) -> int:
    command = [sys.executable, "-m", "tests.integration.crashing_changes", database_url, str(here.shop.id)]
    return subprocess.run(
        [*command, here.peer.base_url, step, str(count)], cwd=ROOT, timeout=60, check=False
    ).returncode  # fmt: skip


def after_a_while(here: Desk) -> None:
    """The lease of the dead has run out."""
    here.clock.at = SYSTEM.now() + timedelta(minutes=4)


PLACES = [
    ("claimed", 1), ("called", 1), ("recorded", 1), ("claimed", 2), ("mutated", 1), ("mutated", 2), ("called", 2),
    ("recorded", 2),
]  # fmt: skip


@pytest.mark.parametrize(("step", "count"), PLACES)
def test_a_draft_order_is_made_and_sent_once(here: Desk, database_url, step: str, count: int):
    change_id = here.ask("draft_order.create", DRAFT, apply=True)
    assert crash(here, database_url, step, count) == -signal.SIGKILL
    after_a_while(here)
    change = here.settled(change_id)
    assert change.state == "applied", change.reason
    assert drafts(here.peer) == [("By phone", 1)]
    assert len(here.peer.sent()) == 1
    assert here.undo(change_id).state == "undone"
    assert drafts(here.peer) == []


@pytest.mark.parametrize(("step", "count"), PLACES)
def test_tags_end_as_asked(here: Desk, database_url, step: str, count: int):
    change_id = here.ask("customer.tags", TAGS, apply=True)
    assert crash(here, database_url, step, count) == -signal.SIGKILL
    after_a_while(here)
    assert here.settled(change_id).state == "applied"
    assert here.peer.get(CUSTOMER)["tags"] == ["kept", "vip"]


@pytest.mark.parametrize("step", ["claimed", "mutated", "called", "recorded"])
def test_a_page_that_was_deleted_comes_back_once(here: Desk, database_url, step: str):
    was = pages(here.peer)
    change = here.made("page.delete", {"page_id": "4001"})
    with for_shop(here.engine, here.shop.id) as session:
        changes.undo(session, here.shop, change.id, force=False, at=SYSTEM.now(), actor=ACTOR)
    assert crash(here, database_url, step, 1) == -signal.SIGKILL
    after_a_while(here)
    assert here.settled(change.id).state == "undone"
    assert pages(here.peer) == was


def test_the_checker_sees_a_worker_that_guesses(here: Desk, database_url):
    """The negative control: whoever makes an interrupted change anew with another key makes it twice."""
    here.ask("draft_order.create", DRAFT, apply=True)
    crash(here, database_url, "mutated", 1)
    here.run("DELETE FROM shop_changes WHERE shop_id = :shop")
    here.settled(here.ask("draft_order.create", DRAFT, apply=True))
    assert len(drafts(here.peer)) == 2


def test_an_answer_that_comes_after_its_lease_is_not_written(here: Desk):
    """Two workers, one change: the first hangs while it is called, the second takes over; the first one's end counts
    for nothing."""
    change_id = here.ask("customer.vip", {"customer_id": "7001", "vip": True}, apply=True)
    here.work_once()

    def takeover(step: str) -> None:
        if step == "called":
            here.at_step = None
            here.later(timedelta(minutes=4))
            assert here.settled(change_id).state == "applied"

    here.at_step = takeover
    fence = here.change(change_id).fence
    here.work()
    change = here.change(change_id)
    assert change.state == "applied"
    assert change.fence > fence + 1
    assert here.verbs().count("applied") == 1
