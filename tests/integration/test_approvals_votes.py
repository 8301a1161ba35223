"""Approvals on PostgreSQL: never one's own, several people, any change resets, expiry; and what waits for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from operation_agent.access import keys
from operation_agent.actions import approving, claiming
from operation_agent.actions.approving import Group, Need
from operation_agent.approvals import approvals
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Conflict, Denied, NotFound, Rejected
from operation_agent.kit.ids import new_id
from operation_agent.store import audit
from operation_agent.store.session import for_shop
from tests.integration.sending import Stage, stage

pytestmark = pytest.mark.integration

NOW = SYSTEM.now()
DAY = timedelta(days=1)


@pytest.fixture
def here(engine, shop_id) -> Stage:
    return stage(engine, shop_id)


def request(here: Stage, **changes: Any) -> approvals.Approval:
    asked = {
        "kind": "campaign", "subject": "spring", "fingerprint": "f1", "needed": 1, "why": [{"rule": "types"}],
        "by": "user:ann", "at": NOW, "expires_at": NOW + DAY,
    } | changes  # fmt: skip
    with for_shop(here.engine, here.shop.id) as session:
        return approvals.request(session, here.shop.id, **asked)


def vote(here: Stage, approval: UUID, by: str, verdict: Any = "approve", at=NOW) -> approvals.Approval:
    with for_shop(here.engine, here.shop.id) as session:
        return approving.vote(session, here.shop, approval, by=by, verdict=verdict, comment="seen", at=at)


def is_granted(here: Stage, fingerprint: str = "f1") -> bool:
    with for_shop(here.engine, here.shop.id) as session:
        return approvals.is_granted(session, here.shop.id, "campaign", "spring", fingerprint, NOW + DAY)


def verbs(here: Stage) -> list[str]:
    rows = here.run("SELECT verb FROM audit_log WHERE shop_id = :shop AND verb LIKE 'approval.%' ORDER BY seq")
    return [row.verb for row in rows]


def test_nobody_approves_their_own(here):
    asked = request(here, authors=["user:bob"])
    for own in ("user:ann", "user:bob"):
        with pytest.raises(Denied, match="made or asked"):
            vote(here, asked.id, own)
    assert vote(here, asked.id, "user:eve").state == "granted"
    assert is_granted(here)
    assert verbs(here) == ["approval.requested", "approval.voted"]
    with for_shop(here.engine, here.shop.id) as session:
        assert audit.verify(session, here.shop.id) is None


def test_nobody_approves_their_own_by_a_key_of_theirs_nor_votes_twice_by_one(here):
    with for_shop(here.engine, here.shop.id) as session:
        for name, maker in (("tool", "user:ann"), ("robot", "key:tool"), ("other", "user:bob"), ("shell", "cli")):
            keys.create_key(session, here.shop.id, name, ["approvals:write"], NOW, actor=maker)
    asked = request(here, needed=3)
    for own in ("key:tool", "key:robot"):
        with pytest.raises(Denied):
            vote(here, asked.id, own)
    vote(here, asked.id, "user:bob")
    with pytest.raises(Conflict, match="has voted"):
        vote(here, asked.id, "key:other")
    vote(here, asked.id, "key:shell")
    assert vote(here, asked.id, "user:eve").state == "granted"


def test_several_people_are_several_people(here):
    asked = request(here, needed=2)
    assert (vote(here, asked.id, "user:bob").state, is_granted(here)) == ("pending", False)
    with pytest.raises(Conflict, match="has voted"):
        vote(here, asked.id, "user:bob")
    made = vote(here, asked.id, "user:eve")
    assert (made.state, made.approvers, made.missing) == ("granted", ("user:bob", "user:eve"), 0)
    with pytest.raises(Conflict, match="granted"):
        vote(here, asked.id, "user:zoe")


def test_one_no_ends_it_and_stays(here):
    asked = request(here, needed=2)
    vote(here, asked.id, "user:bob")
    assert vote(here, asked.id, "user:eve", "reject").state == "rejected"
    assert not is_granted(here)
    again = request(here, needed=2)
    assert (again.id, again.state) == (asked.id, "rejected")


def test_the_same_question_is_the_same_approval_and_any_change_is_another(here):
    first = request(here, needed=2)
    vote(here, first.id, "user:bob")
    assert request(here, needed=2).id == first.id
    assert request(here, needed=3).needed == 3  # asked under stricter rules meanwhile
    second = request(here, fingerprint="f2")
    assert (second.id != first.id, second.votes) == (True, ())
    with pytest.raises(Conflict, match="superseded"):
        vote(here, first.id, "user:eve")
    vote(here, second.id, "user:eve")
    assert (is_granted(here, "f1"), is_granted(here, "f2")) == (False, True)
    third = request(here, fingerprint="f1")  # changed back: the votes on the old one count no more
    assert (third.state, is_granted(here, "f1"), is_granted(here, "f2")) == ("pending", False, False)
    with for_shop(here.engine, here.shop.id) as session:
        kept = approvals.find(session, here.shop.id, first.id)
        assert [one.voter for one in kept.votes] == ["user:bob"]
        assert approvals.current(session, here.shop.id, "campaign", "spring") == third
        shown = approvals.inbox(session, here.shop.id, state=None)
    assert [one.id for one in shown] == [third.id, second.id, first.id]


def test_what_nobody_answers_in_time_expires_and_can_be_asked_anew(here):
    first = request(here)
    with pytest.raises(Conflict, match="expired"):
        vote(here, first.id, "user:bob", at=NOW + DAY)
    with for_shop(here.engine, here.shop.id) as session:
        assert approvals.expire(session, here.shop.id, NOW + DAY - timedelta(seconds=1)) == 0
        assert approvals.expire(session, here.shop.id, NOW + DAY) == 1
        assert approvals.expire(session, here.shop.id, NOW + DAY) == 0
    second = request(here, at=NOW + DAY, expires_at=NOW + 2 * DAY)
    assert (second.id != first.id, second.state) == (True, "pending")
    assert verbs(here) == ["approval.requested", "approval.expired", "approval.requested"]


def test_what_cannot_be_asked_is_refused_with_what_to_do(here):
    for wrong in ({"needed": 0}, {"expires_at": NOW}):
        with pytest.raises(Rejected):
            request(here, **wrong)
    with pytest.raises(NotFound):
        vote(here, new_id(), "user:bob")


def test_the_database_refuses_what_the_code_would_never_do(here):
    asked = request(here, needed=2)
    vote(here, asked.id, "user:bob")
    wrong = [
        "INSERT INTO approval_votes (shop_id, approval_id, voter, verdict, at)"
        " VALUES (:shop, :id, 'user:ann', 'approve', :at)",
        "UPDATE approvals SET state = 'granted', granted_at = :at, settled_at = :at WHERE shop_id = :shop AND id = :id",
    ]
    for statement in wrong:
        with pytest.raises(DatabaseError, match="own_vote|too_few"), for_shop(here.engine, here.shop.id) as session:
            session.execute(text(statement), {"shop": here.shop.id, "id": asked.id, "at": NOW})


def test_of_two_who_ask_at_once_one_asks_and_of_votes_at_once_none_is_lost(here):
    start = threading.Barrier(8)

    def ask(_: int) -> UUID:
        start.wait()
        return request(here, needed=8).id

    with ThreadPoolExecutor(8) as pool:
        (approval,) = set(pool.map(ask, range(8)))
        states = list(pool.map(lambda n: (start.wait(), vote(here, approval, f"user:{n}").state)[1], range(8)))
    assert sorted(states) == ["granted", *["pending"] * 7]
    assert len(verbs(here)) == 9


# -- actions that wait --------------------------------------------------------------------------------------------

GROUP = Group(new_id(), 3, "winback/lapsed", "types")
NEED = Need(({"rule": "types", "limit": ["email"], "found": "email", "of": "shop"},), 1, DAY)


def plan(here: Stage, *customers: UUID, group: Group = GROUP, reserve: int = 3, at=NOW, **changes: Any) -> list[UUID]:
    """As planning does: ask first, then write the actions with what came of it."""
    with for_shop(here.engine, here.shop.id) as session:
        standing = approving.ask(session, here.shop, [(group, NEED)] * len(customers), at=at)[group]
    return [
        here.action(
            customer, reserve=reserve, state=standing.state, approval_id=standing.approval_id,
            approved_by=standing.approved_by, **changes,
        )
        for customer in customers
    ]  # fmt: skip


def claim(here: Stage, at=None) -> claiming.Claim:
    with for_shop(here.engine, here.shop.id) as session:
        return claiming.claim(session, here.shop, "email", limit=100, at=at or SYSTEM.now())


def waiting(here: Stage) -> approvals.Approval:
    with for_shop(here.engine, here.shop.id) as session:
        (one,) = approvals.inbox(session, here.shop.id, kind="action")
    return one


def test_a_hundred_actions_are_one_question_and_one_yes_sends_them_all(here):
    made = plan(here, *(here.customer() for _ in range(100)))
    assert claim(here).taken == 0
    asked = waiting(here)
    assert (asked.subject, asked.requested_by) == ("winback/lapsed@3/types", "agent")
    vote(here, asked.id, "user:bob")
    assert here.states() == {"ready": 100}
    assert {row.approved_by for row in here.run("SELECT approved_by FROM actions WHERE shop_id = :shop")} == {
        "user:bob"
    }
    assert [tuple(row) for row in here.run("SELECT topic, key FROM outbox WHERE shop_id = :shop")] == [
        ("actions.deliver", "email")
    ]
    assert {one.id for one in claim(here).claimed} == set(made)
    (later,) = plan(here, here.customer())
    assert here.one(later).state == "ready"


def test_a_no_calls_them_off_and_gives_the_money_back(here):
    first, second = plan(here, here.customer(), here.customer())
    assert here.budget() == (6, 0)
    vote(here, waiting(here).id, "user:bob", "reject")
    assert [(here.one(one).state, here.one(one).reason) for one in (first, second)] == [("cancelled", "rejected")] * 2
    assert here.budget() == (0, 0)
    (later,) = plan(here, here.customer(), reserve=0)
    assert here.one(later).state == "cancelled"


def test_what_expires_is_dropped_and_what_comes_later_asks_anew(here):
    (first,) = plan(here, here.customer(), at=NOW - 2 * DAY)
    asked = waiting(here)
    with for_shop(here.engine, here.shop.id) as session:
        assert approving.has_work(session, here.shop.id, at=NOW)
        assert approving.tidy(session, here.shop, at=NOW) == 1
        assert not approving.has_work(session, here.shop.id, at=NOW)
    assert (here.one(first).state, here.one(first).reason, here.budget()) == ("cancelled", "not_approved", (0, 0))
    (second,) = plan(here, here.customer())
    assert (here.one(second).state, waiting(here).id != asked.id) == ("waiting_approval", True)


def test_a_vote_by_somebody_who_does_not_look_at_actions_is_made_up_for(here):
    (action,) = plan(here, here.customer())
    with for_shop(here.engine, here.shop.id) as session:
        asked = approvals.inbox(session, here.shop.id)[0]
        approvals.vote(session, here.shop.id, asked.id, by="user:bob", verdict="approve", comment="", at=NOW)
    assert here.one(action).state == "waiting_approval"
    with for_shop(here.engine, here.shop.id) as session:
        assert approving.has_work(session, here.shop.id, at=NOW)
        assert approving.tidy(session, here.shop, at=NOW) == 1
    assert here.one(action).state == "ready"


def test_a_vote_waits_for_a_plan_that_relies_on_it(here):
    """The plan has asked and not committed yet: its action must not be left behind."""
    customer, asked, planned = here.customer(), threading.Event(), []
    plan(here, here.customer())
    approval = waiting(here)

    def slow_plan() -> None:
        with for_shop(here.engine, here.shop.id) as session:
            standing = approving.ask(session, here.shop, [(GROUP, NEED)], at=NOW)[GROUP]
            asked.set()
            threading.Event().wait(0.3)
            planned.append(here.action(customer, state=standing.state, approval_id=standing.approval_id))

    with ThreadPoolExecutor(2) as pool:
        plans = pool.submit(slow_plan)
        assert asked.wait(5)
        vote(here, approval.id, "user:bob")
        plans.result()
    assert here.one(planned[0]).state == "ready"


def test_the_authors_of_a_rule_may_not_approve_its_actions(here):
    rule_id = new_id()
    here.run(
        "INSERT INTO rules (shop_id, id, strategy_id, key, version, definition, state, created_at, created_by)"
        " VALUES (:shop, :id, :strategy, 'test/a', 1, '{}', 'live', :at, 'user:ann')",
        id=rule_id, strategy=here.strategy_id, at=NOW,
    )  # fmt: skip
    here.run(
        "INSERT INTO strategy_versions (shop_id, strategy_id, version, state, definition, created_at, created_by,"
        " edited_at, authors, published_at, published_by) VALUES (:shop, :id, 1, 'live', '{}', :at, 'user:ann', :at,"
        " ARRAY['user:ann', 'user:bob'], :at, 'user:zoe')",
        id=here.strategy_id, at=NOW,
    )  # fmt: skip
    plan(here, here.customer(), group=Group(rule_id, 1, "test/a", "types"))
    for own in ("user:ann", "user:bob", "user:zoe"):
        with pytest.raises(Denied):
            vote(here, waiting(here).id, own)
    vote(here, waiting(here).id, "user:eve")


def test_an_action_that_slipped_past_is_stopped_when_it_is_claimed(here):
    (action,) = plan(here, here.customer())
    here.run("UPDATE actions SET state = 'ready' WHERE shop_id = :shop AND id = :id", id=action)
    assert claim(here).claimed == []
    assert (here.one(action).state, here.one(action).reason) == ("suppressed", "not_approved")


@pytest.fixture
def several(here) -> Iterator[list[UUID]]:
    yield plan(here, *(here.customer() for _ in range(3)))


def test_an_action_called_off_meanwhile_stays_called_off(here, several):
    from operation_agent.actions import manual

    with for_shop(here.engine, here.shop.id) as session:
        manual.cancel(session, here.shop, several[0], actor="user:eve", at=NOW)
    vote(here, waiting(here).id, "user:bob")
    assert [here.one(one).state for one in several] == ["cancelled", "ready", "ready"]
