"""Each guardrail stops a decision, it and only it; the receipt says why in both languages, and comes out again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import Engine, text

from operation_agent.decision import archive, batch
from operation_agent.decision.engine import Decision
from operation_agent.decision.explain import explain
from operation_agent.decision.rationing import Cutoff
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop, update_settings
from operation_agent.strategies import lifecycle
from operation_agent.strategies.library import library
from tests.integration.deciding import AT, Somebody, carts, make_people, table

pytestmark = pytest.mark.integration

DAY = timedelta(days=1)


@dataclass
class Scene:
    """A shop with one customer who can be reached, and one live strategy that a cart sets off."""

    engine: Engine
    shop_id: UUID
    who: Somebody
    strategies: dict[str, UUID] = field(default_factory=dict)
    cutoffs: dict[UUID, Cutoff] = field(default_factory=dict)
    at: datetime = AT

    def run(self, sql: str, **values: Any) -> list[Any]:
        with for_shop(self.engine, self.shop_id) as session:
            found = session.execute(text(sql), {"shop": self.shop_id, "who": self.who.id, **values})
            return list(found.all()) if found.returns_rows else []

    def strategy(self, key: str = "subject", **changes: Any) -> UUID:
        """Live, with a reminder by e-mail and a coupon as its arms; without limits but those in `changes`."""
        definition = orjson.loads(orjson.dumps(library()["conversion"].to_dict()))
        rule = definition["rules"][0]
        rule["when"] = changes.pop("when", {"event": ["cart.added"], "frequency": "every_time"})
        rule["priority"] = changes.pop("priority", 0)
        if changes.pop("without_coupon", False):
            rule["then"]["arms"] = rule["then"]["arms"][:1]
        definition |= {"key": key, "caps": [], "holdout": 0.0, **changes}
        with for_shop(self.engine, self.shop_id) as session:
            shop = load_shop(session, self.shop_id)
            lifecycle.create(session, shop, lifecycle.read(definition), at=SYSTEM.now(), actor="test")
            row = lifecycle.move(session, shop, key, "live", at=SYSTEM.now(), actor="test")
        self.strategies[key] = row.id
        return row.id

    def settings(self, **changes: Any) -> None:
        with for_shop(self.engine, self.shop_id) as session:
            update_settings(session, load_shop(session, self.shop_id), changes)

    def action(self, at: datetime, *, state: str = "sent", strategy_id: UUID | None = None, **changes: Any) -> UUID:
        action_id = new_id()
        values = {
            "shop_id": self.shop_id, "id": action_id, "decision_id": action_id, "customer_id": self.who.id,
            "strategy_id": strategy_id or action_id, "rule_id": action_id, "arm": "a", "step": 0, "type": "email",
            "channel": "email", "held_out": False, "parameters": "{}", "dedupe_key": action_id.hex, "decided_at": at,
            "state": state, "due_at": at, "created_at": at, **changes,
        }  # fmt: skip
        marks = ", ".join(f"CAST(:{name} AS jsonb)" if name == "parameters" else f":{name}" for name in values)
        self.run(f"INSERT INTO actions ({', '.join(values)}) VALUES ({marks})", **values)  # noqa: S608 - names of ours
        return action_id

    def coupon(self, at: datetime, *, expires_at: datetime, redeemed: bool = False) -> None:
        action_id = self.action(at, type="coupon", channel="coupon", parameters='{"expires_in": "P7D"}')
        self.run(
            "INSERT INTO coupons (shop_id, action_id, customer_id, code, percent, issued_at, expires_at, redeemed_at)"
            " VALUES (:shop, :action, :who, :code, 10, :at, :until, :redeemed)",
            action=action_id, code=action_id.hex, at=at, until=expires_at, redeemed=at if redeemed else None,
        )  # fmt: skip

    def decide(self) -> list[Decision]:
        triggers = carts([self.who], self.at)
        with for_shop(self.engine, self.shop_id) as session:
            return batch.decide(
                session, load_shop(session, self.shop_id), triggers,
                table(1, open_cart=1.0, average_order_minor=3000.0), recorded_at=SYSTEM.now(), cutoffs=self.cutoffs,
            )  # fmt: skip


@pytest.fixture
def scene(engine, shop_id) -> Scene:
    (who,) = make_people(engine, shop_id, 1)
    made = Scene(engine, shop_id, who)
    made.settings(global_holdout=0.0)
    return made


# -- what stops, by guardrail -----------------------------------------------------------------------------------------


def entered_before(scene: Scene) -> None:
    scene.strategy(when={"event": ["cart.added"], "frequency": "once"})
    scene.decide()


def too_soon_after_the_last_entry(scene: Scene) -> None:
    scene.strategy(when={"event": ["cart.added"], "frequency": "every_time", "cooldown": "P2D"}, without_coupon=True)
    scene.decide()
    scene.at = AT + DAY


def entered_another_of_the_group(scene: Scene) -> None:
    scene.strategy("other", exclusive="offers", without_coupon=True)
    scene.decide()
    scene.run("UPDATE strategies SET state = 'paused' WHERE shop_id = :shop")
    scene.strategy(exclusive="offers")
    scene.at = AT + 6 * DAY


def has_a_step_to_come_in_another_of_the_group(scene: Scene) -> None:
    other = scene.strategy("other", exclusive="offers", when={"event": ["order.paid"], "frequency": "once"})
    scene.action(AT + 20 * DAY, state="ready", strategy_id=other)
    scene.strategy(exclusive="offers")


def waits_in_another_of_the_group(scene: Scene) -> None:
    other = scene.strategy("other", exclusive="offers", when={"event": ["order.paid"], "frequency": "once"})
    scene.run(
        "INSERT INTO runs (shop_id, id, strategy_id, rule_id, rule_version, customer_id, random_key, enrolment_key,"
        " decision_id, arm, held_out, trigger, dedupe_key, zone, costs, state, path, kind, due_at, entered_at,"
        " updated_at) VALUES (:shop, :id, :other, :id, 1, :who, :id, '', :id, 'a', false, '{}', 'k', 'UTC', '{}',"
        " 'waiting', '0', 'wait', :at, :at, :at)",
        id=new_id(), other=other, at=AT - 30 * DAY,
    )  # fmt: skip
    scene.strategy(exclusive="offers")


def has_no_address(scene: Scene) -> None:
    scene.strategy()
    scene.run("UPDATE customers SET email = NULL WHERE shop_id = :shop")


def is_suppressed(scene: Scene) -> None:
    scene.strategy()
    scene.run(
        "INSERT INTO suppressions (shop_id, channel, address, reason, created_at)"
        " VALUES (:shop, 'email', :address, 'bounced', :at)",
        address=scene.who.email, at=AT,
    )  # fmt: skip


def never_consented(scene: Scene) -> None:
    scene.strategy()
    scene.run("DELETE FROM consents WHERE shop_id = :shop")


def complained(scene: Scene, ago: timedelta = 89 * DAY) -> None:
    scene.strategy()
    # of a message to an address of before: the new one is not suppressed
    scene.run(
        "INSERT INTO timeline (shop_id, customer_id, occurred_at, event_id, type)"
        " VALUES (:shop, :who, :at, :id, 'email.complained')",
        at=AT - ago, id=new_id(),
    )  # fmt: skip


def capped_on_the_channel(scene: Scene) -> None:
    scene.strategy(caps=[{"count": 5, "window": "P30D"}, {"channel": "email", "count": 2, "window": "P7D"}])
    scene.action(AT - 6 * DAY)
    scene.action(AT - 5 * DAY, held_out=True, state="sent")


def capped_by_tag(scene: Scene) -> None:
    scene.strategy(tags=["sale"], caps=[{"tag": "sale", "count": 1, "window": "P7D"}])
    scene.action(AT - DAY, tags=["sale", "spring"])


def capped_within_the_strategy(scene: Scene) -> None:
    subject = scene.strategy(caps=[{"count": 1, "window": "P7D", "scope": "strategy"}])
    scene.action(AT - DAY, strategy_id=subject)


def capped_by_the_shop(scene: Scene) -> None:
    scene.settings(caps=[{"count": 1, "window": "P3D"}])
    scene.strategy()
    scene.action(AT - 2 * DAY)


def in_quiet_hours(scene: Scene) -> None:
    scene.strategy(quiet_hours={"start": "22:00", "end": "08:00", "otherwise": "skip"})
    scene.run("UPDATE customers SET time_zone = 'Asia/Tokyo' WHERE shop_id = :shop")  # 13:00 UTC is 22:00 there


def in_the_shops_quiet_hours(scene: Scene) -> None:
    scene.settings(quiet_hours={"start": "12:30", "end": "13:30", "otherwise": "skip"})
    scene.strategy()


def had_too_many_coupons(scene: Scene) -> None:
    scene.strategy(coupons={"count": 1, "window": "P30D", "stacking": True})
    scene.coupon(AT - 20 * DAY, expires_at=AT - 10 * DAY)


def has_a_coupon_still(scene: Scene) -> None:
    scene.strategy()
    scene.coupon(AT - 50 * DAY, expires_at=AT + DAY)


def the_day_is_full(scene: Scene) -> None:
    subject = scene.strategy(executions_per_day=3)
    scene.run(
        "INSERT INTO execution_days (shop_id, strategy_id, day, taken, most) VALUES (:shop, :subject, :day, 3, 3)",
        subject=subject, day=AT.date(),
    )  # fmt: skip


def below_the_line_of_the_day(scene: Scene) -> None:
    subject = scene.strategy(executions_per_day=3)
    scene.cutoffs[subject] = Cutoff(1e6, "")


def the_budget_is_used_up(scene: Scene) -> None:
    scene.strategy(budget={"limit": 3})  # the coupon may cost 3.00 and its message a cent


def the_days_budget_is_used_up(scene: Scene) -> None:
    scene.strategy(budget={"limit": 100, "daily": 10})
    scene.run(
        "INSERT INTO budget_days (shop_id, budget_id, day, committed_minor) SELECT shop_id, id, :day, 700 FROM budgets"
        " WHERE shop_id = :shop",
        day=AT.date(),
    )


def the_customers_budget_is_used_up(scene: Scene) -> None:
    scene.strategy(budget={"limit": 100, "per_customer": 10})
    scene.run(
        "INSERT INTO budget_customers (shop_id, budget_id, customer_id, committed_minor)"
        " SELECT shop_id, id, :who, 700 FROM budgets WHERE shop_id = :shop"
    )


def below_the_line_of_the_budget(scene: Scene) -> None:
    subject = scene.strategy(budget={"limit": 100})
    scene.cutoffs[subject] = Cutoff(1e6, "")


CASES: list[tuple[Callable[[Scene], None], str, str, str]] = [
    (entered_before, "enrolment", "already_enrolled", "entered at 2026-03-02"),
    (too_soon_after_the_last_entry, "enrolment", "already_enrolled", "entered at 2026-03-02"),
    (entered_another_of_the_group, "exclusive", "excluded", "the customer is in other until 2026-03-09"),
    (has_a_step_to_come_in_another_of_the_group, "exclusive", "excluded", "with a step still to come"),
    (waits_in_another_of_the_group, "exclusive", "excluded", "with a step still to come"),
    (has_no_address, "address", "no_address", "none for email"),
    (is_suppressed, "suppression", "suppressed", "(bounced)"),
    (never_consented, "consent", "no_consent", "email, marketing: never said"),
    (complained, "complaint", "cooling_down", "nothing for 90.0 days"),
    (capped_on_the_channel, "cap", "capped", "at most 2 on email in 7.0 days, 2 there already"),
    (capped_by_tag, "cap", "capped", "at most 1 tagged sale in 7.0 days"),
    (capped_within_the_strategy, "cap", "capped", "at most 1 messages of this strategy in 7.0 days"),
    (capped_by_the_shop, "cap", "capped", "at most 1 messages in 3.0 days"),
    (in_quiet_hours, "quiet_hours", "quiet", "quiet from 22:00 to 08:00 (Asia/Tokyo)"),
    (in_the_shops_quiet_hours, "quiet_hours", "quiet", "quiet from 12:30 to 13:30 (UTC)"),
    (had_too_many_coupons, "coupon", "coupon_limit", "at most 1 in 30.0 days, 1 there already"),
    (has_a_coupon_still, "coupon", "coupon_limit", "one is still out, until 2026-03-03"),
    (the_day_is_full, "executions", "daily_limit", "at most 3 a day; 3 on 2026-03-02 already"),
    (below_the_line_of_the_day, "executions", "daily_limit", "worth 1000000.0 or more, take up the day"),
    (the_budget_is_used_up, "budget", "over_budget", "301 may be needed and 300 is left (minor units)"),
    (the_days_budget_is_used_up, "budget", "over_budget", "301 may be needed and 300 is left for the day"),
    (the_customers_budget_is_used_up, "budget", "over_budget", "301 may be needed and 300 is left for this customer"),
    (below_the_line_of_the_budget, "budget", "over_budget", "worth 1000000.0 or more, take up the money"),
]


@pytest.mark.parametrize(("happened", "guardrail", "verdict", "said"), CASES, ids=[case[0].__name__ for case in CASES])
def test_it_alone_stops_an_action_and_the_receipt_says_why(scene, happened, guardrail, verdict, said):
    happened(scene)
    (decision,) = scene.decide()
    assert (decision.verdict, decision.arm, decision.strategy_key) == (verdict, None, "subject")
    with for_shop(scene.engine, scene.shop_id) as session:
        found = archive.find(session, scene.shop_id, decision.id)
        again = archive.again(session, load_shop(session, scene.shop_id), decision.id)
    assert found.receipt == orjson.loads(orjson.dumps(decision.receipt))
    assert [name for name, one in found.receipt["guardrails"].items() if one is not True] == [guardrail]
    assert said in "\n".join(explain(found.receipt, "en"))
    assert explain(found.receipt, "zh")[2].startswith("未通过「")
    assert again.is_same, again.differences


@pytest.mark.parametrize("happened", [case[0] for case in CASES], ids=[case[0].__name__ for case in CASES])
def test_without_it_the_same_customer_is_acted_on(scene, happened):
    """What each case set up is the only reason: taken away again, or a little less of it, the customer is acted on."""
    happened(scene)
    _undo(scene, happened)
    (decision,) = scene.decide()
    assert decision.verdict == "act"


def _undo(scene: Scene, happened: Callable[[Scene], None]) -> None:
    scene.cutoffs.clear()
    if happened is too_soon_after_the_last_entry:
        scene.at = AT + 2 * DAY
    elif happened is entered_another_of_the_group:
        scene.at = AT + 7 * DAY
    for statement in (
        "DELETE FROM enrolments WHERE shop_id = :shop AND entered_at >= :at AND :at = :now",
        "DELETE FROM runs WHERE shop_id = :shop",
        "DELETE FROM actions WHERE shop_id = :shop",
        "DELETE FROM coupons WHERE shop_id = :shop",
        "UPDATE customers SET email = 'c0@example.com', time_zone = NULL WHERE shop_id = :shop",
        "DELETE FROM suppressions WHERE shop_id = :shop",
        "UPDATE budgets SET limit_minor = limit_minor + 1 WHERE shop_id = :shop",
        "UPDATE budget_days SET committed_minor = committed_minor - 1 WHERE shop_id = :shop",
        "UPDATE budget_customers SET committed_minor = committed_minor - 1 WHERE shop_id = :shop",
        "UPDATE execution_days SET taken = taken - 1 WHERE shop_id = :shop",
        "UPDATE timeline SET occurred_at = occurred_at - interval '1 day' WHERE shop_id = :shop",
    ):
        values = {"at": AT, "now": scene.at} if ":now" in statement else {}
        scene.run(statement, **values)
    scene.run(
        "INSERT INTO consents (shop_id, customer_id, channel, topic, state, changed_at, event_id)"
        " VALUES (:shop, :who, 'email', 'marketing', 'subscribed', :at, :who) ON CONFLICT DO NOTHING",
        at=AT,
    )
    if happened is in_the_shops_quiet_hours:
        scene.settings(quiet_hours=None)


# -- what does not stop, and why --------------------------------------------------------------------------------------


def test_one_rule_of_a_strategy_takes_a_trigger_and_the_others_are_alternatives(scene):
    definition = library()["conversion"].to_dict() | {"caps": [], "holdout": 0.0}
    first = definition["rules"][0] | {"when": {"event": ["cart.added"], "frequency": "once"}, "priority": 9}
    definition["rules"] = [first, first | {"key": "second", "priority": 1}, first | {"key": "third", "priority": 0}]
    with for_shop(scene.engine, scene.shop_id) as session:
        shop = load_shop(session, scene.shop_id)
        lifecycle.create(session, shop, lifecycle.read(definition), at=SYSTEM.now(), actor="test")
        lifecycle.move(session, shop, "conversion", "live", at=SYSTEM.now(), actor="test")
    (one,) = scene.decide()
    assert one.rule_key == "conversion/unfinished-purchase"
    assert [other["rule"] for other in one.receipt["alternatives"]] == ["conversion/second", "conversion/third"]
    assert all("stopped" not in other for other in one.receipt["alternatives"])
    scene.at = AT + 30 * DAY  # the coupon of the first time is over
    (two,) = scene.decide()
    assert two.rule_key == "conversion/second"
    stopped = {other["rule"]: list(other.get("stopped", ())) for other in two.receipt["alternatives"]}
    assert stopped == {"conversion/unfinished-purchase": ["enrolment"], "conversion/third": []}
    said = "\n".join(explain(two.receipt, "en"))
    assert "Rule conversion/unfinished-purchase" in said
    assert "Rule conversion/third of the same strategy matched as well" in said
    with for_shop(scene.engine, scene.shop_id) as session:
        assert archive.again(session, load_shop(session, scene.shop_id), two.id).is_same


def test_when_every_rule_is_stopped_the_decision_is_the_best_ones(scene):
    definition = library()["conversion"].to_dict() | {"caps": [], "holdout": 0.0}
    first = definition["rules"][0] | {"priority": 9}
    definition["rules"] = [first, first | {"key": "second", "priority": 1}]
    with for_shop(scene.engine, scene.shop_id) as session:
        shop = load_shop(session, scene.shop_id)
        lifecycle.create(session, shop, lifecycle.read(definition), at=SYSTEM.now(), actor="test")
        lifecycle.move(session, shop, "conversion", "live", at=SYSTEM.now(), actor="test")
    scene.run("DELETE FROM consents WHERE shop_id = :shop")
    (one,) = scene.decide()
    assert (one.rule_key, one.verdict) == ("conversion/unfinished-purchase", "no_consent")
    assert [list(other["stopped"]) for other in one.receipt["alternatives"]] == [["consent"]]


@pytest.mark.parametrize("share", ["strategy", "shop"])
def test_the_holdout_leaves_alone_after_every_guardrail(scene, share):
    scene.strategy(holdout=0.999999 if share == "strategy" else 0.0)
    scene.settings(global_holdout=0.999999 if share == "shop" else 0.0)
    (one,) = scene.decide()
    assert one.verdict == "holdout"
    assert one.arm is not None
    assert one.receipt["guardrails"] == dict.fromkeys(one.receipt["guardrails"], True)


def test_transactional_messages_are_exempt_from_caps_quiet_hours_and_complaints(scene):
    definition = orjson.loads(orjson.dumps(library()["conversion"].to_dict()))
    rule = definition["rules"][0]
    rule["when"] = {"event": ["cart.added"], "frequency": "every_time"}
    rule["then"]["arms"] = rule["then"]["arms"][:1]
    rule["then"]["arms"][0]["steps"][0]["topic"] = "transactional"
    definition |= {
        "key": "subject", "holdout": 0.0, "caps": [{"channel": "email", "count": 1, "window": "P7D"}],
        "quiet_hours": {"start": "00:00", "end": "23:59", "otherwise": "skip"},
    }  # fmt: skip
    with for_shop(scene.engine, scene.shop_id) as session:
        shop = load_shop(session, scene.shop_id)
        lifecycle.create(session, shop, lifecycle.read(definition), at=SYSTEM.now(), actor="test")
        lifecycle.move(session, shop, "subject", "live", at=SYSTEM.now(), actor="test")
    scene.action(AT - DAY)
    scene.run(
        "INSERT INTO timeline (shop_id, customer_id, occurred_at, event_id, type)"
        " VALUES (:shop, :who, :at, :id, 'email.complained')",
        at=AT - DAY, id=new_id(),
    )  # fmt: skip
    (one,) = scene.decide()
    assert one.verdict == "act"


def test_what_a_cap_may_hold_back_and_what_it_counts_are_two_things(scene):
    cap = [{"channel": "email", "count": 1, "window": "P7D"}]
    scene.strategy(caps=cap, capping={"held_back": False, "counted": True})
    scene.action(AT - DAY)
    (one,) = scene.decide()
    assert one.verdict == "act"
    scene.run("UPDATE strategies SET state = 'paused' WHERE shop_id = :shop")
    scene.run("UPDATE actions SET counted = false WHERE shop_id = :shop")
    scene.strategy("second", caps=cap)
    (two,) = scene.decide()
    assert two.verdict == "act"


def test_quiet_hours_that_delay_stop_nothing(scene):
    scene.strategy(quiet_hours={"start": "00:00", "end": "23:59"})
    (one,) = scene.decide()
    assert one.verdict == "act"


def test_a_need_for_approval_is_said_and_stops_nothing(scene):
    scene.strategy()  # going live with such limits takes people's yes; an edit later does not undo what is live
    approval = {"types": ["coupon"], "percent_above": 5, "cost_above": 2, "approvers": 2}
    scene.run(
        "UPDATE strategies SET definition = definition || CAST(:more AS jsonb), live_revision = live_revision + 1"
        " WHERE shop_id = :shop",
        more=orjson.dumps({"approval": approval}).decode(),
    )
    scene.settings(approval={"types": ["email"]})
    arms = set()
    for number in range(20):
        (scene.who,) = make_people(scene.engine, scene.shop_id, 1, key=f"another-{number}")
        (one,) = scene.decide()
        assert one.verdict == "act"
        assert one.arm is not None
        arms.add(one.arm.key)
        why = [(reason["rule"], reason["of"]) for reason in one.needs_approval]
        if one.arm.key == "coupon-10":
            own = [(rule, "strategy") for rule in ("types", "percent_above", "cost_above")]
            assert why == [("types", "shop"), *own]
            assert one.receipt["approval"]["approvers"] == 2
            said = "\n".join(explain(one.receipt, "en"))
            assert "2 must say yes: action email, action coupon, 10 % off, more than 5 %, may cost 300" in said
            assert "需 2 人批准" in "\n".join(explain(one.receipt, "zh"))
        else:
            assert why == [("types", "shop")]
    assert arms == {"coupon-10", "reminder"}


def test_when_money_is_short_the_most_valuable_go_first_whatever_their_order(scene):
    scene.strategy(budget={"limit": 10}, policy={"kind": "first"})
    scene.run("UPDATE budgets SET limit_minor = 5 WHERE shop_id = :shop")  # a message costs a cent
    people = [make_people(scene.engine, scene.shop_id, 1, key=f"k{i}")[0] for i in range(12)]
    triggers = [one for i, who in enumerate(people) for one in carts([who], AT + timedelta(seconds=i))]
    definition_cost = [1000.0 * (1 + (i * 7) % 12) for i in range(12)]
    with for_shop(scene.engine, scene.shop_id) as session:
        session.execute(
            text("UPDATE rules SET definition = jsonb_set(definition, '{then,arms}',"
                 " jsonb_build_array(definition #> '{then,arms,0}')) WHERE shop_id = :s"),
            {"s": scene.shop_id},
        )  # fmt: skip
        session.execute(text("UPDATE strategies SET live_revision = live_revision + 1 WHERE shop_id = :s"),
                        {"s": scene.shop_id})  # fmt: skip
        decisions = batch.decide(
            session, load_shop(session, scene.shop_id), triggers,
            table(12, open_cart=1.0, average_order_minor=definition_cost), recorded_at=SYSTEM.now(),
        )  # fmt: skip
    acted = sorted(one.receipt["order"] for one in decisions if one.verdict == "act")
    assert acted == [8000.0, 9000.0, 10000.0, 11000.0, 12000.0]
    assert sum(one.verdict == "over_budget" for one in decisions) == 7
