"""The state machine of an action: nothing is sent twice, nothing that may have been sent is forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operation_agent.actions.states import (
    TERMINAL,
    TRANSITIONS,
    Core,
    after,
    money,
    sources,
)
from operation_agent.kit.errors import Conflict

pytestmark = pytest.mark.unit

HAPPENINGS = sorted({happening for _, happening in TRANSITIONS})


def test_no_way_leads_out_of_a_terminal_state():
    assert {state for state, _ in TRANSITIONS} & TERMINAL == set()


def test_an_expired_lease_never_leads_straight_back_to_ready():
    assert after(Core("sending", fence=1), "lost") == Core("unknown", fence=1, maybe_sent=True)


def test_a_result_of_an_older_claim_is_refused():
    with pytest.raises(Conflict, match="claim 1"):
        after(Core("sending", fence=2), "sent", fence=1)


@pytest.mark.parametrize("drop", ["suppressed", "cancelled", "failed"])
def test_what_may_have_been_sent_is_parked_instead_of_dropped(drop):
    assert after(Core("ready", maybe_sent=True), drop).state == "parked"
    assert after(Core("ready"), drop).state == drop


def test_a_refusal_for_good_after_a_lost_answer_is_parked_too():
    assert after(Core("sending", maybe_sent=True), "failed").state == "parked"


def test_an_unknown_outcome_keeps_its_money():
    assert money("unknown") is money("parked") is money("sending") is None
    assert money("sent") == "commit"
    assert {money(state) for state in TERMINAL - {"sent"}} == {"release"}


def test_sources_are_the_table_read_backwards():
    assert sources("lost") == ["sending"]
    assert set(sources("sent")) == {"ready", "sending", "unknown", "parked"}


def test_what_the_table_does_not_name_is_refused():
    with pytest.raises(Conflict, match="cannot be claimed"):
        after(Core("sent"), "claimed")


@settings(max_examples=400)
@given(st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.booleans()), max_size=40))
def test_no_history_loses_a_message_or_calls_without_a_claim(history):
    """A model provider stands beside the machine: whatever order things happen in, an action that reached it never
    ends as not sent, unless the provider itself was asked and said no."""
    core, reached, calls = Core("ready"), False, 0
    for happening, did_it in history:
        if happening == "absent" and reached:
            continue  # a truthful provider does not deny what it has
        if happening in ("sent", "found") and not reached:
            continue
        if happening in ("refused", "failed") and core.state in ("sending", "unknown") and reached:
            continue  # it cannot answer "not done" for this action: an earlier attempt was done
        before = core
        try:
            core = after(core, happening)
        except Conflict:
            continue
        if happening == "claimed":
            assert before.state == "ready"
            calls += 1
            assert core.fence == before.fence + 1 == calls
        if happening == "lost":
            reached = reached or did_it
        if reached and core.state in TERMINAL and not (before.state == "parked" and happening == "cancelled"):
            assert core.state == "sent"  # from `parked` only a person may cancel
        assert core.fence >= before.fence
