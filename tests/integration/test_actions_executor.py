"""Claim, send, record against real providers over HTTP: what is checked, what is written, what a fault leads to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta

import pytest
from sqlalchemy import text

from operation_agent import agent
from operation_agent.actions import budget, reconciler
from operation_agent.actions.budget import Wanted
from operation_agent.actions.executor import Breaker
from operation_agent.actions.recording import MOST_ATTEMPTS
from operation_agent.events.event import Event
from operation_agent.kit.clock import SYSTEM, FixedClock
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from tests.integration.sending import LINKS, Providers, Stage, channel, executor, providers, stage

pytestmark = pytest.mark.integration
NOW = SYSTEM.now()


@pytest.fixture(scope="module")
def servers() -> Iterator[Providers]:
    with providers() as running:
        yield running


@pytest.fixture
def desk(servers: Providers) -> Providers:
    servers.reset()
    return servers


@pytest.fixture
def here(engine, shop_id) -> Stage:
    return stage(engine, shop_id)


def deliver(here: Stage, desk: Providers, vendor: str = "sendgrid", **options) -> int:
    with executor(here.engine, here.shop, vendor, desk.url, **options) as ours:
        return ours.deliver(seconds=5)


def reconcile(here: Stage, desk: Providers, vendor: str = "sendgrid", *, after: float = 1.0, **config) -> int:
    """Settle what is unknown, `after` seconds from now."""
    made = channel(vendor, desk.url, **config)
    name = {"sendgrid": "email", "shopify": "coupon"}[vendor]
    clock = FixedClock(SYSTEM.now() + timedelta(seconds=after))
    with ThreadPoolExecutor(4) as pool, closing(made):
        return reconciler.reconcile(here.engine, here.shop, name, made, LINKS, pool, clock=clock)


def test_a_due_message_is_sent_once_and_everything_that_follows_is_written(here, desk):
    customer = here.customer()
    action = here.action(customer, reserve=5)
    later = here.action(customer, due_at=SYSTEM.now() + timedelta(hours=1))
    assert deliver(here, desk) == 1
    row = here.one(action)
    (message,) = desk.get("messages")
    assert (row.state, row.provider, row.provider_ref) == ("sent", "sendgrid", message["message_id"])
    assert message["custom_args"]["action_id"] == str(action)
    assert row.sent_at == row.due_at  # a sandbox plays as though it were punctual
    assert row.called_at is not None
    assert here.one(later).state == "ready"
    assert here.budget() == (0, 5)
    (cost,) = here.run("SELECT * FROM ledger WHERE shop_id = :shop")
    assert (cost.kind, cost.source_id, cost.amount_minor) == ("message_cost", str(action), -2)
    (attempt,) = here.run("SELECT * FROM attempts WHERE shop_id = :shop")
    assert (attempt.number, attempt.outcome, attempt.fence) == (1, "sent", 1)
    assert deliver(here, desk) == 0


def test_a_message_waits_for_its_coupon_and_carries_the_code(here, desk):
    customer = here.customer()
    coupon = here.action(customer, type="coupon")
    message = here.action(customer, after_action=coupon)
    assert deliver(here, desk) == 0
    assert deliver(here, desk, "shopify") == 1
    rung = here.run("SELECT topic, key FROM outbox WHERE shop_id = :shop")
    assert [tuple(row) for row in rung] == [("actions.deliver", "email")]
    assert deliver(here, desk) == 1
    (row,) = here.run("SELECT * FROM coupons WHERE shop_id = :shop")
    (made,) = desk.get("coupons")
    (sent,) = desk.get("messages")
    assert row.code == made["code"] and row.code in sent["body"]
    assert (float(row.percent), row.action_id) == (10.0, coupon)
    assert row.expires_at - row.issued_at == timedelta(days=7)
    assert here.one(message).state == "sent"


def test_a_message_whose_coupon_failed_is_not_sent(here, desk):
    customer = here.customer()
    coupon = here.action(customer, type="coupon", parameters='{"percent": 0.0}')
    message = here.action(customer, after_action=coupon, reserve=3)
    deliver(here, desk, "shopify")
    assert here.one(coupon).state == "failed"
    deliver(here, desk)
    row = here.one(message)
    assert (row.state, row.reason) == ("cancelled", "prerequisite_failed")
    assert here.budget() == (0, 0)
    assert desk.get("messages") == []


def test_the_held_out_walk_the_same_path_into_the_trap(here, desk):
    customer = here.customer()
    coupon = here.action(customer, type="coupon", held_out=True)
    message = here.action(customer, held_out=True, after_action=coupon)
    refused = here.action(here.customer(consent=None), held_out=True)
    deliver(here, desk, "shopify")
    deliver(here, desk)
    row = here.one(message)
    assert (row.state, row.provider, row.cost_minor, row.sent_at) == ("sent", None, 0, row.due_at)
    assert here.one(refused).state == "suppressed"
    assert desk.get("calls") == []
    assert here.run("SELECT 1 FROM ledger WHERE shop_id = :shop") == []
    assert here.run("SELECT 1 FROM coupons WHERE shop_id = :shop") == []


def test_what_changed_since_the_decision_stops_it(here, desk):
    gone = here.action(here.customer(consent="unsubscribed"), reserve=5)
    bounced_customer = here.customer(email="gone@example.com")
    here.run(
        "INSERT INTO suppressions (shop_id, channel, address, reason, created_at)"
        " VALUES (:shop, 'email', 'gone@example.com', 'bounced', :at)", at=here.start,
    )  # fmt: skip
    bounced = here.action(bounced_customer)
    nowhere = here.action(here.customer(email=None))
    buyer = here.customer()
    bought = here.action(buyer, exit_on=["order.paid"])
    not_asked = here.action(buyer, exit_on=["product.viewed"])
    before = here.customer()
    still = here.action(before, exit_on=["order.paid"])
    for customer, at in ((buyer, here.start + timedelta(seconds=30)), (before, here.start)):
        here.run(
            "INSERT INTO orders (shop_id, id, source_order_id, customer_id, ordered_at, currency, total_minor,"
            " updated_at, event_id) VALUES (:shop, :id, :key, :customer, :at, 'USD', 1, :at, :id)",
            id=new_id(), key=new_id().hex, customer=customer, at=at,
        )  # fmt: skip
    deliver(here, desk)
    found = {name: (row.state, row.reason) for name, row in (
        ("gone", here.one(gone)), ("bounced", here.one(bounced)), ("nowhere", here.one(nowhere)),
        ("bought", here.one(bought)))}  # fmt: skip
    assert found == {
        "gone": ("suppressed", "no_consent"), "bounced": ("suppressed", "suppressed:bounced"),
        "nowhere": ("suppressed", "no_address"), "bought": ("cancelled", "goal_reached"),
    }  # fmt: skip
    assert here.one(not_asked).state == here.one(still).state == "sent"
    assert here.budget() == (0, 0)
    assert len(desk.keys()) == 2


def test_a_paused_strategy_holds_and_an_ended_one_cancels(here, desk):
    action = here.action(here.customer())
    here.run("UPDATE strategies SET state = 'paused' WHERE shop_id = :shop")
    assert deliver(here, desk) == 0
    here.run("UPDATE strategies SET state = 'archived' WHERE shop_id = :shop")
    deliver(here, desk)
    assert (here.one(action).state, here.one(action).reason) == ("cancelled", "strategy_ended")


def test_the_cap_is_a_hard_stop_within_and_across_batches(engine, shop_id, desk):
    here = stage(engine, shop_id, definition={"caps": [{"channel": "email", "count": 2, "window": "P1D"}]})
    customer = here.customer()
    due = [here.start + timedelta(minutes=minute) for minute in (1, 2, 3)]
    sent, _, capped = (here.action(customer, due_at=at) for at in due)
    receipt = here.action(customer, due_at=due[2], topic="transactional")
    here.run(
        "INSERT INTO consents (shop_id, customer_id, channel, topic, state, changed_at, event_id)"
        " VALUES (:shop, :id, 'email', 'transactional', 'subscribed', :at, :id)", id=customer, at=here.start,
    )  # fmt: skip
    deliver(here, desk)
    assert (here.one(capped).state, here.one(capped).reason) == ("suppressed", "capped")
    assert here.one(sent).state == here.one(receipt).state == "sent"
    again = here.action(customer, due_at=here.start + timedelta(minutes=9))
    deliver(here, desk)
    assert here.one(again).reason == "capped"


def test_an_unsubscribe_and_a_claim_have_one_order(here, desk):
    """The claim locks the consent it relied on: an unsubscribe waits for it, and the next claim sees it."""
    customer = here.customer()
    first = here.action(customer)
    here.action(customer, due_at=here.start + timedelta(minutes=2), dedupe_key="second")
    waited = []
    with executor(here.engine, here.shop, "sendgrid", desk.url) as ours:
        with for_shop(here.engine, here.shop.id) as session:
            from operation_agent.actions.claiming import claim

            batch = claim(session, here.shop, "email", limit=1, at=SYSTEM.now())
            other = threading.Thread(target=lambda: (here.consent(customer, "unsubscribed"), waited.append(1)))
            other.start()
            other.join(0.3)
            assert other.is_alive() and not waited
        other.join(5)
        ours.send(batch.claimed)
        ours.deliver(seconds=2)
    assert here.one(first).state == "sent"
    assert desk.keys() == [here.one(first).dedupe_key]
    assert here.states() == {"sent": 1, "suppressed": 1}


# -- faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
def test_a_lost_answer_is_unknown_and_the_provider_is_asked(here, desk, kind):
    action = here.action(here.customer(), reserve=5)
    desk.fault({"kind": kind, "path": "/v3/mail/send"})
    deliver(here, desk)
    row = here.one(action)
    assert (row.state, row.maybe_sent, here.budget()) == ("unknown", True, (5, 0))
    assert deliver(here, desk) == 0  # never sent again on a guess
    assert reconcile(here, desk) == 1
    row = here.one(action)
    if kind == "drop_after":
        assert (row.state, row.provider_ref) == ("sent", desk.get("messages")[0]["message_id"])
    else:
        assert (row.state, row.maybe_sent) == ("ready", False)
        deliver(here, desk)
        assert here.one(action).state == "sent"
    assert len(desk.keys()) == 1
    assert here.budget() == (0, 5)
    assert len(here.run("SELECT 1 FROM ledger WHERE shop_id = :shop")) == 1


def test_a_slow_provider_is_unknown_after_the_timeout_and_found_later(here, desk):
    action = here.action(here.customer())
    desk.fault({"kind": "delay", "path": "/v3/mail/send", "seconds": 3})
    deliver(here, desk, timeout=timedelta(seconds=1))
    assert here.one(action).state == "unknown"
    reconcile(here, desk, after=5)
    assert here.one(action).state == "sent"
    assert len(desk.keys()) == 1


def test_a_server_error_is_unknown_and_a_bad_request_is_final(here, desk):
    doubtful = here.action(here.customer())
    desk.fault({"kind": "status", "path": "/v3/mail/send", "status": 500})
    deliver(here, desk)
    wrong = here.action(here.customer(email="no-at-sign"), reserve=5)
    deliver(here, desk)
    assert here.one(doubtful).state == "unknown"
    assert here.one(wrong).state == "failed"
    assert "valid address" in here.one(wrong).reason
    assert here.budget() == (0, 0)


def test_throttling_is_respected_and_never_fails_an_action(here, desk):
    action = here.action(here.customer())
    here.run("UPDATE actions SET attempt = :most WHERE shop_id = :shop", most=MOST_ATTEMPTS)
    desk.fault({"kind": "status", "path": "/v3/mail/send", "status": 429, "seconds": 90})
    before = SYSTEM.now()
    deliver(here, desk)
    row = here.one(action)
    assert (row.state, row.maybe_sent) == ("ready", False)
    assert row.retry_at >= before + timedelta(seconds=89)
    assert deliver(here, desk) == 0
    deliver(here, desk, clock=FixedClock(row.retry_at + timedelta(seconds=300)))
    assert here.one(action).state == "sent"


def test_a_provider_that_is_away_keeps_actions_ready_and_opens_the_breaker(here):
    actions = [here.action(here.customer()) for _ in range(30)]
    breaker = Breaker(limit=5)
    nobody = Providers("http://127.0.0.1:9", None)  # type: ignore[arg-type]
    deliver(here, nobody, breaker=breaker)
    assert {here.one(action).state for action in actions} == {"ready"}
    assert breaker.failures >= 5
    tried = sum(here.one(action).attempt for action in actions)
    deliver(here, nobody, breaker=breaker)
    assert sum(here.one(action).attempt for action in actions) == tried  # open: nothing was claimed


def test_a_taken_coupon_code_was_ours(here, desk):
    action = here.action(here.customer(), type="coupon")
    desk.fault({"kind": "drop_after", "path": "/admin/"})
    deliver(here, desk, "shopify")
    assert here.one(action).state == "unknown"
    # a worker that would try again, as after a wrong answer to the look-up, still makes no second code
    here.run("UPDATE actions SET state = 'ready', maybe_sent = false, retry_at = NULL WHERE shop_id = :shop")
    deliver(here, desk, "shopify")
    assert here.one(action).state == "sent"
    assert len(desk.get("coupons")) == 1
    assert len(here.run("SELECT 1 FROM coupons WHERE shop_id = :shop")) == 1


def test_an_unknown_coupon_is_found_by_its_code(here, desk):
    action = here.action(here.customer(), type="coupon")
    desk.fault({"kind": "drop_after", "path": "/admin/"})
    deliver(here, desk, "shopify")
    reconcile(here, desk, "shopify")
    row = here.one(action)
    assert (row.state, row.result["code"]) == ("sent", desk.get("coupons")[0]["code"])
    assert here.run("SELECT code FROM coupons WHERE shop_id = :shop")[0].code == row.result["code"]


def test_an_opaque_provider_leaves_it_to_a_person_and_keeps_the_money(here, desk):
    action = here.action(here.customer(), reserve=5)
    desk.fault({"kind": "drop_after", "path": "/v3/mail/send"})
    deliver(here, desk, config={"activity": False})
    reconcile(here, desk, activity=False)
    assert (here.one(action).state, here.budget()) == ("parked", (5, 0))
    with for_shop(here.engine, here.shop.id) as session:
        seen = reconciler.Evidence(action, "ref", SYSTEM.now())
        assert reconciler.accept_evidence(session, here.shop, "sendgrid", [seen], at=SYSTEM.now()) == 1
        assert reconciler.accept_evidence(session, here.shop, "sendgrid", [seen], at=SYSTEM.now()) == 0
    assert (here.one(action).state, here.budget()) == ("sent", (0, 5))


def test_a_providers_report_settles_what_it_reports_on(here, desk):
    action = here.action(here.customer())
    desk.fault({"kind": "drop_after", "path": "/v3/mail/send"})
    deliver(here, desk)
    assert here.one(action).state == "unknown"
    now = SYSTEM.now()
    said = {"action_id": str(action), "provider_ref": "m-1", "address": "a@example.com"}
    report = Event(new_id(), "sendgrid", "r-1", "email.delivered", now, now, {"email": "a@example.com"}, said)
    with for_shop(here.engine, here.shop.id) as session:
        agent.observe(session, here.shop, [report], recorded_at=now)
    row = here.one(action)
    assert (row.state, row.provider, row.provider_ref) == ("sent", "sendgrid", "m-1")


def test_an_expired_lease_becomes_unknown_and_a_late_answer_still_counts(here, desk):
    action = here.action(here.customer(), reserve=5)
    with executor(here.engine, here.shop, "sendgrid", desk.url) as ours:
        batch = ours.claim(10)
        with for_shop(here.engine, here.shop.id) as session:
            later = SYSTEM.now() + timedelta(minutes=2)
            assert reconciler.expire_leases(session, here.shop.id, at=later) == 1
        assert (here.one(action).state, here.one(action).maybe_sent) == ("unknown", True)
        ours.send(batch.claimed)
    assert (here.one(action).state, here.budget()) == ("sent", (0, 5))


def test_a_late_answer_of_an_older_claim_changes_nothing(here, desk):
    action = here.action(here.customer())
    with executor(here.engine, here.shop, "sendgrid", desk.url) as ours:
        batch = ours.claim(10)
        here.run("UPDATE actions SET fence = fence + 1 WHERE shop_id = :shop")
        ours.send(batch.claimed)
    assert here.one(action).state == "sending"


def test_a_sender_that_slept_through_its_lease_does_not_call(here, desk):
    action = here.action(here.customer())
    with executor(here.engine, here.shop, "sendgrid", desk.url, lease=timedelta(seconds=10.5)) as ours:
        ours.send(ours.claim(10).claimed)  # less time left than a call may take
    assert desk.get("calls") == []
    assert (here.one(action).state, here.one(action).maybe_sent) == ("ready", False)


def test_consent_withdrawn_while_the_outcome_was_unknown_sends_nothing_more(here, desk):
    customer = here.customer()
    action = here.action(customer, reserve=5)
    desk.fault({"kind": "drop_before", "path": "/v3/mail/send"})
    deliver(here, desk)
    here.consent(customer, "unsubscribed")
    reconcile(here, desk)
    deliver(here, desk)
    assert (here.one(action).state, here.one(action).reason, here.budget()) == ("suppressed", "no_consent", (0, 0))
    assert desk.keys() == []


# -- money --------------------------------------------------------------------------------------------------------


def test_a_budget_is_never_overspent_by_many_at_once(engine, shop_id):
    here = stage(engine, shop_id, limit=100)
    granted = []

    def ask(_: int) -> None:
        for _ in range(10):
            group = new_id()
            with for_shop(engine, shop_id) as session:
                wanted = [Wanted(here.budget_id, new_id(), amount, group, group, NOW.date()) for amount in (1, 2)]
                if not budget.reserve(session, shop_id, wanted, at=SYSTEM.now()):
                    granted.append(wanted)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    assert len(granted) == 33
    assert here.budget() == (99, 0)
    with for_shop(engine, shop_id) as session:
        ids = [one.action_id for wanted in granted for one in wanted]
        for kind in ("commit", "release", "commit"):
            budget.finish(session, shop_id, **{kind: ids[:10]}, at=SYSTEM.now())
    assert here.budget() == (84, 15)
    total = here.run("SELECT kind, sum(amount_minor) AS s FROM budget_entries WHERE shop_id = :shop GROUP BY kind")
    assert {row.kind: int(row.s) for row in total} == {"reserve": 99, "commit": 15}


def test_two_workers_at_once_send_each_message_once(here, desk):
    for _ in range(120):
        here.action(here.customer())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: deliver(here, desk), range(4)))
    assert here.states() == {"sent": 120}
    assert len(desk.keys()) == len(set(desk.keys())) == 120


def test_the_database_refuses_what_the_code_would_never_do(engine, shop_id):
    here = stage(engine, shop_id, limit=10)
    from sqlalchemy.exc import IntegrityError

    with pytest.raises(IntegrityError, match="budgets_check"), for_shop(engine, shop_id) as session:
        session.execute(text("UPDATE budgets SET reserved_minor = 11 WHERE shop_id = :shop"), {"shop": here.shop.id})
