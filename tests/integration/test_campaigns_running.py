"""Campaigns on real PostgreSQL: everybody once, in order, whatever is paused, cancelled or changed meanwhile."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from operation_agent.approvals import approvals
from operation_agent.campaigns import chunks, consenting, due, records, steering
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Conflict, Denied, NotFound, Rejected
from operation_agent.kit.ids import digest_id, new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, load_shop
from operation_agent.strategies import lifecycle
from operation_agent.strategies.vocabulary import vocabulary
from rules import strategy as definitions
from workers import campaigns as lane

pytestmark = pytest.mark.integration

AT = datetime(2026, 3, 2, 12, tzinfo=UTC)
DAY = timedelta(days=1)

MAIL = {
    "action": "email",
    "subject": {"en": "Hello", "zh": "您好"},
    "body": dict.fromkeys(("en", "zh"), "<p>Hello</p><a href='{{ unsubscribe_url }}'>no more</a>"),
}


COUPONS = {
    "then": {
        "arms": [
            {"key": "coupon", "weight": 1, "prior": {"increment": 0.1, "redemption": 0.2},
             "steps": [{"action": "coupon", "percent": 10}, MAIL]},
            {"key": "mail", "weight": 1, "prior": {"increment": 0.05, "redemption": 0}, "steps": [MAIL]},
        ]
    }
}  # fmt: skip


def written(
    key: str, *, schedule: str = "0 12 * * *", rules: int = 1, rule: dict[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """A strategy of cron rules that write to whoever has bought, no more often than once."""
    given = {
        "when": {"schedule": schedule, "frequency": "once"},
        "if": {"field": "customer.orders", "op": "gte", "value": 1},
        "then": {"arms": [{"key": "mail", "weight": 1, "steps": [MAIL], "prior": {"increment": 0.1, "redemption": 0}}]},
    } | (rule or {})
    return {
        "key": key, "name": {"en": key, "zh": key}, "goal": "repurchase", "why": {"en": "to test", "zh": "测试"},
        "holdout": 0.2,
        "rules": [{"key": f"r{number}", "priority": -number, **given} for number in range(rules)], **changes,
    }  # fmt: skip


_ROWS = "unnest(CAST(:ids AS uuid[]), CAST(:keys AS uuid[]), CAST(:numbers AS int[])) AS r (id, key, number)"
_PEOPLE = f"""
INSERT INTO customers (shop_id, id, random_key, email, first_seen_at, last_seen_at, created_at)
SELECT :shop, id, key, key || '@example.com', :at, :at, :at FROM {_ROWS}"""  # noqa: S608
_CONSENTS = f"""
INSERT INTO consents (shop_id, customer_id, channel, topic, state, changed_at, event_id)
SELECT :shop, id, 'email', 'marketing', 'subscribed', :at, id FROM {_ROWS}"""  # noqa: S608
_ORDERS = f"""
INSERT INTO orders (shop_id, id, source_order_id, customer_id, ordered_at, currency, total_minor, updated_at, event_id)
SELECT :shop, gen_random_uuid(), key || '-' || n, id, :at, 'USD', 1000 + 100 * number, :at, id
FROM {_ROWS}, generate_series(1, :orders) n"""  # noqa: S608


@dataclass
class Place:
    engine: Engine
    shop_id: UUID

    def run(self, sql: str, **values: Any) -> list[Any]:
        with for_shop(self.engine, self.shop_id) as session:
            result = session.execute(text(sql), {"shop": self.shop_id, **values})
            return list(result.all()) if result.returns_rows else []

    @property
    def shop(self) -> Shop:
        with for_shop(self.engine, self.shop_id) as session:
            return load_shop(session, self.shop_id)

    def strategy(self, key: str, **changes: Any) -> UUID:
        """A live strategy, since long ago."""
        found = definitions.parse(written(key, **changes), vocabulary())
        with for_shop(self.engine, self.shop_id) as session:
            shop = load_shop(session, self.shop_id)
            row = lifecycle.create(session, shop, found, at=SYSTEM.now(), actor="test")
            lifecycle.move(session, shop, key, "live", at=SYSTEM.now(), actor="test")
        self.run("UPDATE strategies SET started_at = :at WHERE shop_id = :shop", at=AT - 100 * DAY)
        return row.id

    def people(self, numbers: range, *, orders: int = 1, prefix: str = "p") -> list[UUID]:
        """Customers who said yes and bought; customer n for 1000 + 100 n cents."""
        made = [(new_id(), digest_id(prefix, str(number)), number) for number in numbers]
        values = {"ids": [one[0] for one in made], "keys": [one[1] for one in made],
                  "numbers": [one[2] for one in made], "at": AT - 30 * DAY}  # fmt: skip
        self.run(_PEOPLE, **values)
        self.run(_CONSENTS, **values)
        self.run(_ORDERS, **values, orders=orders)
        return values["ids"]

    def wake(self, after: datetime, until: datetime) -> int:
        with for_shop(self.engine, self.shop_id) as session:
            return due.wake(session, load_shop(session, self.shop_id), after=after, until=until, at=SYSTEM.now())

    def work(self, seconds: float = 60) -> int:
        return lane.run(self.engine, self.shop_id, "0", seconds=seconds)

    def campaigns(self) -> list[Any]:
        return self.run("SELECT * FROM campaigns WHERE shop_id = :shop ORDER BY due_at, id")

    def chunks_done(self) -> int:
        return self.run("SELECT count(*) FROM campaign_chunks WHERE shop_id = :shop AND state = 'done'")[0][0]

    def decided(self) -> list[tuple[Any, ...]]:
        """What was decided, in stable terms."""
        rows = self.run(
            "SELECT c.random_key, r.key, d.decided_at, d.verdict, d.arm FROM decisions d"
            " JOIN customers c ON c.shop_id = d.shop_id AND c.id = d.customer_id"
            " JOIN rules r ON r.shop_id = d.shop_id AND r.id = d.rule_id AND r.version = d.rule_version"
            " WHERE d.shop_id = :shop ORDER BY 1, 2, 3, 4"
        )
        return [tuple(row) for row in rows]

    def actions(self) -> Counter:
        return Counter(row.state for row in self.run("SELECT state FROM actions WHERE shop_id = :shop"))

    def open_ticks(self) -> int:
        return self.run("SELECT count(*) FROM schedule_ticks WHERE shop_id = :shop AND finished_at IS NULL")[0][0]


@pytest.fixture
def place(engine, shop_id) -> Place:
    return Place(engine, shop_id)


@pytest.fixture
def small_chunks(monkeypatch) -> None:
    monkeypatch.setattr(chunks, "MOST", 7)


def test_rules_due_at_the_same_instant_are_one_campaign_that_takes_everybody_once(place, small_chunks):
    place.strategy("a", rules=2)
    place.strategy("b")
    place.people(range(40))
    assert place.wake(AT - DAY, AT) == 3
    assert place.wake(AT - DAY, AT) == 0  # a second scheduler
    (campaign,) = place.campaigns()
    assert (campaign.state, campaign.due_at, len(campaign.rules)) == ("preparing", AT, 3)
    place.work()
    (campaign,) = place.campaigns()
    assert campaign.state == "finished"
    assert place.open_ticks() == 0
    done = place.run("SELECT * FROM campaign_chunks WHERE shop_id = :shop ORDER BY number")
    assert [row.state for row in done] == ["done"] * 6
    assert sum(row.customers for row in done) == 40
    taken = Counter((key, rule) for key, rule, *_ in place.decided())
    assert set(taken.values()) == {1}
    assert Counter(rule for _, rule in taken) == Counter({"a/r0": 40, "a/r1": 40, "b/r0": 40}) or len(taken) == 80
    assert sum(row.decided for row in done) == len(place.decided())
    verdicts = Counter(row[3] for row in place.decided())
    assert sum((Counter(row.verdicts) for row in done), Counter()) == verdicts
    assert sum(row.actions for row in done) == place.actions().total()


def test_who_comes_after_the_start_is_not_in_it_and_erased_or_later_customers_disturb_nobody(place, small_chunks):
    place.strategy("a")
    somebody = place.people(range(30))
    place.wake(AT - DAY, AT)
    assert place.work(seconds=0) == 1  # prepared
    place.people(range(100, 110))  # known since long, but stored only now: beyond the upper bound
    place.run(
        "UPDATE customers SET first_seen_at = :at WHERE shop_id = :shop AND id = :id", at=AT + DAY, id=somebody[20]
    )
    for table, column in (("customers", "id"), ("orders", "customer_id"), ("consents", "customer_id")):
        place.run(f"DELETE FROM {table} WHERE shop_id = :shop AND {column} = :id", id=somebody[25])  # noqa: S608
    place.work()
    wanted = {digest_id("p", str(number)) for number in range(30)} - {digest_id("p", "20"), digest_id("p", "25")}
    assert Counter(row[0] for row in place.decided()) == Counter(wanted)


def test_campaigns_run_in_the_order_of_their_due_times_each_as_of_its_own(place, small_chunks):
    place.strategy("a")
    place.people(range(20))
    place.run(
        "UPDATE orders SET ordered_at = :at WHERE shop_id = :shop AND total_minor >= 2000", at=AT - timedelta(hours=36)
    )
    assert place.wake(AT - 3 * DAY, AT) == 3
    order = []
    while True:
        before = {row.id: row.state for row in place.campaigns()}
        if not place.work(seconds=0):
            break
        after = {row.id: row.state for row in place.campaigns()}
        order += [key for key in after if after[key] != before[key]]
    ids = [row.id for row in place.campaigns()]
    assert order == [one for one in ids for _ in range(2)]  # prepared, finished; then the next
    days = Counter(row[2] for row in place.decided() if row[3] in ("act", "holdout"))
    assert days == {AT - 2 * DAY: 10, AT - DAY: 10}


def test_a_pause_takes_effect_at_the_next_chunk_and_resuming_repeats_nobody(place, small_chunks):
    place.strategy("a")
    place.people(range(30))
    place.wake(AT - DAY, AT)
    place.work(seconds=0)
    place.work(seconds=0)
    (campaign,) = place.campaigns()
    with for_shop(place.engine, place.shop_id) as session:
        found = steering.pause(session, place.shop, campaign.id, by="op", at=SYSTEM.now())
    assert found.state == "paused"
    half = place.decided()
    assert len(half) == 6
    assert place.work() == 0
    assert place.open_ticks() == 0
    with for_shop(place.engine, place.shop_id) as session:
        with pytest.raises(Conflict):
            steering.pause(session, place.shop, campaign.id, by="op", at=SYSTEM.now())
        steering.resume(session, place.shop, campaign.id, by="op", at=SYSTEM.now())
    place.work()
    assert Counter(row[0] for row in place.decided()) == Counter(digest_id("p", str(one)) for one in range(30))
    assert set(half) <= set(place.decided())
    assert place.campaigns()[0].state == "finished"


def test_a_paused_campaign_does_not_hold_up_the_next(place):
    place.strategy("a")
    place.people(range(5))
    place.wake(AT - 2 * DAY, AT)
    first, second = place.campaigns()
    with for_shop(place.engine, place.shop_id) as session:
        steering.pause(session, place.shop, first.id, by="op", at=SYSTEM.now())
    place.work()
    assert [row.state for row in place.campaigns()] == ["paused", "finished"]


def test_cancelling_takes_back_what_nobody_sent_and_its_money(place, small_chunks):
    place.strategy("a", rule=COUPONS, budget={"limit": "100"})
    place.people(range(30))
    place.wake(AT - DAY, AT)
    while place.chunks_done() < 2:
        place.work(seconds=0)
    (campaign,) = place.campaigns()
    place.run(
        "UPDATE actions SET state = 'sent' WHERE id = (SELECT id FROM actions WHERE shop_id = :shop"
        " AND reserved_minor > 0 ORDER BY dedupe_key LIMIT 1)"
    )
    planned = place.actions()
    reserved = place.run("SELECT sum(reserved_minor) FROM budgets WHERE shop_id = :shop")[0][0]
    assert reserved > 0
    with for_shop(place.engine, place.shop_id) as session:
        steering.cancel(session, place.shop, campaign.id, by="op", at=SYSTEM.now())
    place.work()
    (campaign,) = place.campaigns()
    assert (campaign.state, campaign.reason) == ("cancelled", "cancelled by op")
    assert campaign.finished_at is not None
    assert place.actions() == {"sent": 1, "cancelled": planned.total() - 1}
    left = place.run("SELECT sum(reserved_minor) FROM budgets WHERE shop_id = :shop")[0][0]
    of_the_sent = place.run("SELECT reserved_minor FROM actions WHERE shop_id = :shop AND state = 'sent'")[0][0]
    assert of_the_sent > 0
    assert left == of_the_sent
    with for_shop(place.engine, place.shop_id) as session, pytest.raises(Conflict):
        steering.resume(session, place.shop, campaign.id, by="op", at=SYSTEM.now())


def test_cancelling_takes_out_whoever_waits_on_the_way(place, small_chunks):
    steps = [{"wait": {"event": ["order.paid"], "within": "P3D"}, "else": COUPONS["then"]["arms"][0]["steps"]}]
    waiting = {**COUPONS, "then": {"arms": [{"key": "later", "steps": steps}]}}
    place.strategy("a", rule=waiting)
    place.people(range(20))
    place.wake(AT - DAY, AT)
    place.work()
    (campaign,) = place.campaigns()
    states = "SELECT state, exit_reason, count(*) FROM runs WHERE shop_id = :shop GROUP BY 1, 2"
    assert [row[:2] for row in place.run(states)] == [("waiting", None)]
    place.run("UPDATE campaigns SET state = 'running', finished_at = NULL WHERE shop_id = :shop")
    with for_shop(place.engine, place.shop_id) as session:
        steering.cancel(session, place.shop, campaign.id, by="op", at=SYSTEM.now())
    place.work()
    assert [row[:2] for row in place.run(states)] == [("exited", "campaign_cancelled")]


def test_a_chunk_in_flight_when_its_campaign_is_cancelled_leaves_nothing(place, monkeypatch):
    place.strategy("a")
    place.people(range(10))
    place.wake(AT - DAY, AT)
    place.work(seconds=0)
    (campaign,) = place.campaigns()
    original = chunks.close

    def cancelled_meanwhile(*args: Any, **options: Any) -> None:
        with for_shop(place.engine, place.shop_id) as session:
            steering.cancel(session, place.shop, campaign.id, by="op", at=SYSTEM.now())
        original(*args, **options)

    monkeypatch.setattr(chunks, "close", cancelled_meanwhile)
    place.work()
    assert place.decided() == []
    assert place.actions() == {}
    assert place.campaigns()[0].finished_at is not None


def merged(place: Place, loser: UUID, survivor: UUID) -> None:
    """As customers.merging leaves two customers who turned out to be one, as far as campaigns look."""
    place.run("UPDATE customers SET merged_into = :into WHERE shop_id = :shop AND id = :id", into=survivor, id=loser)
    for table in ("orders", "decisions", "actions", "enrolments"):
        place.run(f"UPDATE {table} SET customer_id = :into WHERE shop_id = :shop AND customer_id = :id",  # noqa: S608
                  into=survivor, id=loser)  # fmt: skip


def test_a_person_of_two_customers_is_taken_once_whichever_half_came_first(place, small_chunks):
    place.strategy("a")
    somebody = place.people(range(21))
    place.run("UPDATE rules SET definition = jsonb_set(definition, '{when,frequency}', '\"every_time\"')")
    place.run("UPDATE strategies SET live_revision = live_revision + 1, revision = revision + 1")
    place.wake(AT - DAY, AT)
    place.work(seconds=0)
    place.work(seconds=0)  # the first seven
    merged(place, somebody[0], somebody[15])  # of whom the campaign has taken the first half
    merged(place, somebody[16], somebody[1])  # of whom the second half is still to come
    place.work()
    taken = Counter(row[0] for row in place.run("SELECT customer_id FROM decisions WHERE shop_id = :shop"))
    assert taken == Counter(set(somebody) - {somebody[0], somebody[16]})


def test_a_customer_merged_away_while_decided_is_not_written_about(place, monkeypatch):
    place.strategy("a")
    somebody = place.people(range(5))
    place.wake(AT - DAY, AT)
    place.work(seconds=0)
    original, did = chunks.close, []

    def meanwhile(*args: Any, **options: Any) -> None:
        if not did:
            did.append(1)
            merged(place, somebody[3], somebody[4])
        original(*args, **options)

    monkeypatch.setattr(chunks, "close", meanwhile)
    place.work()
    taken = Counter(row[0] for row in place.run("SELECT customer_id FROM decisions WHERE shop_id = :shop"))
    assert taken == Counter(set(somebody) - {somebody[3]})


def test_a_failing_chunk_fails_the_campaign_with_its_reason_and_can_be_resumed(place, monkeypatch):
    place.strategy("a")
    place.people(range(5))
    place.wake(AT - DAY, AT)
    with monkeypatch.context() as broken:
        broken.setattr(chunks, "close", lambda *a, **k: 1 // 0)
        place.work()
    (campaign,) = place.campaigns()
    assert (campaign.state, place.decided()) == ("failed", [])
    assert "ZeroDivisionError" in campaign.reason
    assert place.open_ticks() == 0
    with for_shop(place.engine, place.shop_id) as session:
        steering.resume(session, place.shop, campaign.id, by="op", at=SYSTEM.now())
    place.work()
    assert (place.campaigns()[0].state, len(place.decided())) == ("finished", 5)


def test_a_rule_changed_while_it_runs_goes_on_as_it_is_now_for_those_left(place, small_chunks):
    place.strategy("a")
    place.people(range(20))
    place.wake(AT - DAY, AT)
    place.work(seconds=0)
    place.work(seconds=0)
    place.run("UPDATE rules SET version = 2 WHERE shop_id = :shop")
    place.run("UPDATE strategies SET live_revision = live_revision + 1, revision = revision + 1 WHERE shop_id = :shop")
    place.work()
    (campaign,) = place.campaigns()
    assert (campaign.state, campaign.rules[0]["version"]) == ("finished", 2)
    versions = Counter(row[0] for row in place.run("SELECT rule_version FROM decisions WHERE shop_id = :shop"))
    assert versions == {1: 6, 2: 14} or versions == {1: 7, 2: 13}


def test_with_no_rule_live_any_more_a_campaign_is_over(place):
    place.strategy("a")
    place.people(range(3))
    place.wake(AT - DAY, AT)
    with for_shop(place.engine, place.shop_id) as session:
        lifecycle.move(session, place.shop, "a", "paused", at=SYSTEM.now(), actor="op")
    place.work()
    (campaign,) = place.campaigns()
    assert (campaign.state, campaign.reason) == ("finished", "none of its rules is live")
    assert place.decided() == []


def test_an_empty_shop_has_an_empty_campaign(place):
    place.strategy("a")
    place.wake(AT - DAY, AT)
    place.work()
    assert [row.state for row in place.campaigns()] == ["finished"]
    assert place.open_ticks() == 0


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_by_hand_a_strategy_runs_over_its_audience(place):
    place.strategy("a")
    place.people(range(10))
    audience = {"condition": {"field": "customer.average_order_minor", "op": "gte", "value": 1500}}
    with for_shop(place.engine, place.shop_id) as session:
        made = steering.start(session, place.shop, "a", audience=audience, as_of=None, by="op", at=SYSTEM.now())
    place.work()
    with for_shop(place.engine, place.shop_id) as session:
        assert records.find(session, place.shop_id, made.id).state == "finished"
    assert {row[0] for row in place.decided()} == {digest_id("p", str(one)) for one in range(5, 10)}


def test_what_cannot_be_run_by_hand_is_refused_with_what_to_do(place):
    place.strategy("a")

    def start(strategy: str = "a", audience: dict[str, Any] | None = None, as_of: datetime | None = None) -> None:
        with for_shop(place.engine, place.shop_id) as session:
            steering.start(
                session, place.shop, strategy, audience=audience or {}, as_of=as_of, by="op", at=SYSTEM.now()
            )

    with pytest.raises(NotFound):
        start("nothing")
    with pytest.raises(Rejected, match="audience.condition"):
        start(audience={"condition": {"field": "customer.nothing", "op": "equals", "value": 1}})
    with pytest.raises(Rejected, match="no triggering event"):
        start(audience={"condition": {"field": "event.type", "op": "equals", "value": "order.paid"}})
    with pytest.raises(Rejected, match="ahead"):
        start(as_of=SYSTEM.now() + DAY)
    place.strategy("b", rule={"when": {"event": ["cart.added"], "frequency": "every_time"},
                              "if": {"field": "event.quantity", "op": "gte", "value": 2}})  # fmt: skip
    with pytest.raises(Rejected, match="by hand"):
        start("b")
    with for_shop(place.engine, place.shop_id) as session:
        lifecycle.move(session, place.shop, "a", "paused", at=SYSTEM.now(), actor="op")
    with pytest.raises(Conflict):
        start()


# -- the best first ---------------------------------------------------------------------------------------------------


def receipts(place: Place) -> list[Any]:
    return place.run(
        "SELECT c.random_key, d.verdict, (d.receipt ->> 'score')::float8 AS score, d.receipt FROM decisions d"
        " JOIN customers c ON c.shop_id = d.shop_id AND c.id = d.customer_id WHERE d.shop_id = :shop"
    )


def line_of(place: Place) -> tuple[list[Any], list[Any]]:
    """Who was served and who was not, each by value and random key as everybody would stand in one line."""
    ordered = sorted(receipts(place), key=lambda row: (-row.score, row.random_key.int))
    return [row for row in ordered if row.verdict in ("act", "holdout")], ordered


def test_a_short_budget_serves_the_best_of_the_whole_audience_whatever_chunk_they_are_in(place, small_chunks):
    place.strategy("a", rule=COUPONS, budget={"limit": "30"})
    place.people(range(0, 60, 2))
    place.people(range(1, 60, 2))
    place.wake(AT - DAY, AT)
    place.work()
    served, ordered = line_of(place)
    assert 5 < len(served) < 55
    assert served == ordered[: len(served)]
    assert {row.verdict for row in ordered[len(served) :]} == {"over_budget"}
    (campaign,) = place.campaigns()
    (cut,) = campaign.cutoffs.values()
    assert (cut["served"], cut["claims"]) == (len(served), 60)
    (money,) = place.run("SELECT limit_minor, reserved_minor FROM budgets WHERE shop_id = :shop")
    following = ordered[len(served)].receipt["given"]["budget"]["needed"]
    dearest = max(row.receipt["given"]["budget"]["needed"] for row in served)
    assert money.reserved_minor <= money.limit_minor < money.reserved_minor + following + dearest


def test_a_short_day_serves_the_best_and_a_tie_is_broken_by_random_key(place, small_chunks):
    place.strategy("a", executions_per_day=9)
    place.people(range(40))
    place.run(
        "UPDATE orders SET total_minor = 2000 WHERE shop_id = :shop AND total_minor < 4500"
    )  # alike, most of them
    place.wake(AT - DAY, AT)
    place.work()
    served, ordered = line_of(place)
    assert served == ordered[: len(served)]
    assert sum(row.verdict == "act" for row in served) == 9
    assert {row.verdict for row in ordered[len(served) :]} == {"daily_limit"}
    assert served[-1].score == ordered[len(served)].score


def test_with_room_for_all_nothing_is_surveyed(place, small_chunks):
    place.strategy("a")
    place.people(range(30))
    place.wake(AT - DAY, AT)
    place.work()
    (campaign,) = place.campaigns()
    assert (campaign.survey, campaign.estimate, campaign.cutoffs) == (0, {}, {})


def test_with_money_enough_who_could_be_meant_is_all_that_is_looked_at(place, small_chunks):
    place.strategy("a", rule=COUPONS, budget={"limit": "10000"})
    place.people(range(30))
    place.wake(AT - DAY, AT)
    place.work()
    (campaign,) = place.campaigns()
    assert (campaign.survey, campaign.cutoffs) == (1, {})
    (found,) = campaign.estimate["strategies"].values()
    assert found["candidates"] == len(place.decided()) == 30


# -- one yes for all --------------------------------------------------------------------------------------------------


def answer(place: Place, campaign_id: UUID, verdict: str, by: str = "user:boss") -> None:
    with for_shop(place.engine, place.shop_id) as session:
        asked = approvals.current(session, place.shop_id, "campaign", str(campaign_id))
        assert asked is not None
        approvals.vote(session, place.shop_id, asked.id, by=by, verdict=verdict, comment="", at=SYSTEM.now())
        consenting.settle(session, place.shop, at=SYSTEM.now())


def test_one_yes_lets_the_whole_campaign_go_and_nothing_before_it(place, small_chunks):
    place.strategy("a", approval={"audience_above": 10})
    place.people(range(30))
    place.wake(AT - DAY, AT)
    place.work()
    (campaign,) = place.campaigns()
    assert (campaign.state, place.decided(), place.open_ticks()) == ("waiting_approval", [], 0)
    samples = campaign.estimate["samples"]
    assert 0 < len(samples) <= 20
    assert all(one["receipt"]["verdict"] == "act" for one in samples)
    with for_shop(place.engine, place.shop_id) as session:
        asked = approvals.current(session, place.shop_id, "campaign", str(campaign.id))
        assert asked is not None and asked.why[0]["found"] == 30
        with pytest.raises(Denied):
            approvals.vote(
                session, place.shop_id, asked.id, by="test", verdict="approve", comment="", at=SYSTEM.now()
            )  # who wrote the strategy
        assert consenting.settle(session, place.shop, at=SYSTEM.now()) == 0
    answer(place, campaign.id, "approve")
    place.work()
    assert place.campaigns()[0].state == "finished"
    assert len(place.decided()) == 30
    foreseen = {one["random_key"] for one in samples}
    assert foreseen <= {str(row[0]) for row in place.decided() if row[3] == "act"}


def test_a_no_ends_it(place):
    place.strategy("a", approval={"audience_above": 10})
    place.people(range(30))
    place.wake(AT - DAY, AT)
    place.work()
    (campaign,) = place.campaigns()
    answer(place, campaign.id, "reject")
    place.work()
    (campaign,) = place.campaigns()
    assert (campaign.state, campaign.reason, place.decided()) == ("cancelled", "rejected", [])
    assert campaign.finished_at is not None


def test_a_small_audience_needs_nobody(place):
    place.strategy("a", approval={"audience_above": 30})
    place.people(range(30))
    place.wake(AT - DAY, AT)
    place.work()
    assert (place.campaigns()[0].state, len(place.decided())) == ("finished", 30)
