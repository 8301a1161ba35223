"""Deciding without a database: in rounds, in any batches, for long; and every decision again from its receipt."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.customers.definitions import FEATURES
from operation_agent.decision import engine, receipt
from operation_agent.decision.candidates import Circumstances
from operation_agent.decision.engine import Decision
from operation_agent.decision.explain import explain
from operation_agent.decision.facts import Trigger
from operation_agent.decision.history import History, Person, Purse
from operation_agent.decision.rationing import Cutoff
from operation_agent.decision.replay import replay
from operation_agent.decision.scoring import Estimator
from operation_agent.events.event import Event
from operation_agent.experiments.uplift import Logistic, Model, Scaling
from operation_agent.kit.ids import digest_id, new_id
from operation_agent.strategies.library import template
from operation_agent.strategies.live import LiveRule
from operation_agent.strategies.vocabulary import vocabulary
from rules.condition import columns_of
from rules.evaluate import compile
from rules.strategy import parse

pytestmark = pytest.mark.unit

AT = datetime(2026, 3, 2, 12, tzinfo=UTC)
SEED = "seed"
SHOP = Circumstances(SEED, 2, 0.4, {})
REACHABLE = Person.of({"email": "a@example.com"}, consents={("email", "marketing"): "subscribed"})


def live(key: str, **changes: Any) -> list[LiveRule]:
    """The rules of a strategy made of the conversion template; `rules`: each one's own changes."""
    definition = orjson.loads(orjson.dumps(template("conversion").to_dict()))
    first = definition["rules"][0] | {"when": {"event": ["cart.added"], "frequency": "every_time"}}
    rules = [first | {"key": f"rule-{i}"} | one for i, one in enumerate(changes.pop("rules", [{}]))]
    strategy = parse(definition | {"key": key, "caps": [], "rules": rules} | changes, vocabulary())
    strategy_id, budget = digest_id("strategy", key), digest_id("budget", key) if strategy.budget else None
    return [
        LiveRule(
            strategy_id, digest_id("rule", key, rule.key), f"{key}/{rule.key}", 1, rule, strategy,
            compile(rule.condition), budget, AT,
        )
        for rule in strategy.rules
    ]  # fmt: skip


def cart(who: int, at: datetime = AT, number: int = 0) -> Trigger:
    event = Event(new_id(), "test", f"{who}-{number}", "cart.added", at, at, {}, {"product_id": "p"})
    return Trigger(digest_id("customer", str(who)), digest_id("key", str(who)), "cart.added", event, at, at)


def history(people: int = 100) -> History:
    return History(people={digest_id("customer", str(i)): REACHABLE for i in range(people)})


def features(n: int, **values: Any) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, one in FEATURES.items():
        missing = np.nan if one.nullable else 0.0
        columns[name] = np.full(n, None, object) if one.kind == "label" else np.full(n, missing)
    for name, value in ({"open_cart": 1.0, "average_order_minor": 3000.0} | values).items():
        columns[name] = np.broadcast_to(np.asarray(value, np.float64), n).copy()
    return columns


def decide(
    rules: list[LiveRule], triggers: list[Trigger], past: History, known: dict[str, Any] | None = None, **how: Any
) -> list[Decision]:
    known = known or features(len(triggers))
    columns = {f"customer.{name}": column for name, column in known.items()}
    columns["at"] = np.array([one.at.timestamp() for one in triggers])
    return engine.decide(how.pop("shop", SHOP), rules, triggers, columns, known, past, **how)


def told(decisions: list[Decision]) -> list[tuple[Any, ...]]:
    return sorted(
        (one.trigger.key, one.rule_key, one.verdict, one.arm.key if one.arm else "", one.propensity or 0.0, one.costs)
        for one in decisions
    )


def stored(decision: Decision) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(decision.receipt_json)
    return found


CAP = [{"channel": "email", "count": 2, "window": "P2D"}]
MANY = [
    *live("four", caps=CAP, coupons={"stacking": True}),
    *live("one", rules=[{"priority": 3, "when": {"event": ["cart.added"], "frequency": "once"}}, {"priority": 1}]),
    *live("two", caps=CAP, exclusive="offers"),
    *live("three", exclusive="offers", exclusive_for="P3D", coupons={"count": 2, "window": "P9D", "stacking": True}),
]

ONE = [rule for rule in MANY if rule.strategy.key == "one"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12)), min_size=1, max_size=40, unique=True), st.data())
def test_batches_of_any_size_decide_the_same(carts, data):
    triggers = [cart(who, AT + timedelta(hours=8 * step), step) for who, step in sorted(carts, key=lambda one: one[1])]
    whole = told(decide(MANY, triggers, history()))
    past, parts, left = history(), [], list(triggers)
    while left:
        size = data.draw(st.integers(1, len(left)))
        parts += decide(MANY, left[:size], past)
        left = left[size:]
    assert told(parts) == whole
    assert told(decide(MANY, list(reversed(triggers)), history())) == whole


def test_every_decision_comes_out_again_from_its_receipt():
    triggers = [cart(who, AT + timedelta(hours=8 * step), step) for step in range(8) for who in range(40)]
    decisions = decide(MANY, triggers, history(30))  # ten cannot be reached
    assert {one.verdict for one in decisions} >= {"act", "holdout", "no_address", "capped", "excluded", "coupon_limit"}
    for one in decisions:
        assert one.rule is not None
        found = replay(stored(one), one.rule, SEED)
        assert (found.is_same, found.differences) == (True, ())
        assert (found.verdict, found.arm, found.propensity) == (
            one.verdict, one.arm.key if one.arm else None, one.propensity,
        )  # fmt: skip


def changed(recorded: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    made = copy.deepcopy(recorded)
    *places, last = path.split(".")
    inner: Any = made
    for place in places:
        inner = inner[int(place) if place.isdigit() else place]
    inner[int(last) if last.isdigit() else last] = value
    return made


@pytest.mark.parametrize(
    ("path", "value", "differs"),
    [
        ("seen", [None, None], {"condition"}),
        ("given.consent.email/marketing", None, {"guardrails.consent", "arm", "propensity", "verdict"}),
        ("score", 1.0, {"score"}),
        ("who", str(digest_id("key", "5")), {"draws"}),
        ("draws.2", 0.5, {"draws"}),
        ("holdout.1", 0.9999, {"side", "propensity", "verdict"}),
        ("arm", "another", {"arm"}),
        ("verdict", "holdout", {"verdict"}),
        ("propensity", 0.1, {"propensity"}),
    ],
)
def test_a_receipt_that_was_altered_does_not_come_out(path, value, differs):
    decisions = decide(ONE[:1], [cart(who) for who in range(40)], history())
    one = next(one for one in decisions if one.verdict == "act")
    assert one.rule is not None
    found = replay(changed(stored(one), path, value), one.rule, SEED)
    assert {difference.what for difference in found.differences} >= differs
    assert not replay(stored(one), one.rule, "another seed").is_same


def test_an_alternative_that_was_not_stopped_is_found_out():
    past = history()
    decide(ONE, [cart(1)], past)
    (one,) = decide(ONE, [cart(1, AT + timedelta(days=20), 1)], past)
    assert one.rule is not None
    assert [list(other["stopped"]) for other in stored(one)["alternatives"]] == [["enrolment"]]
    altered = changed(stored(one), "alternatives.0.given.enrolment.frequency", "every_time")
    assert [one.what for one in replay(altered, one.rule, SEED).differences] == ["alternatives.one/rule-0"]


def test_a_receipt_is_short_and_says_all_once_its_rule_is_beside_it():
    (one,) = decide(ONE[:1], [cart(2)], history())
    assert len(one.receipt_json) < 800
    whole = one.receipt
    assert [leaf["field"] for leaf in whole["seen"]] == ["customer.repeat_views_7d", "customer.open_cart"]
    assert [(arm["key"], arm["share"]) for arm in whole["arms"]] == [("reminder", 0.5), ("coupon-10", 0.5)]
    assert set(whole["guardrails"]) == set(receipt.STOPS_AS)
    assert explain(whole, "en")
    assert explain(receipt.expanded(stored(one), None), "zh")  # the rule is gone: still readable


def test_what_a_receipt_keeps_of_a_condition_is_what_the_condition_looks_at():
    for key in ("conversion", "repurchase", "win_back", "retention"):
        for rule in template(key).rules:
            assert {name for name, _ in receipt.fields(rule.condition)} == columns_of(rule.condition)


def test_the_first_form_still_explains_and_replays():
    (one,) = decide(ONE[:1], [cart(2)], history())
    assert one.rule is not None
    whole = one.receipt
    first = {name: whole[name] for name in ("strategy", "rule", "cause", "seen", "arms", "others", "score", "estimator",
                                            "side", "arm_draw", "arm", "propensity", "verdict")}  # fmt: skip
    guardrails = ("one_rule", "enrolment", "address", "suppression", "consent", "cap", "budget")
    first |= {"v": 1, "guardrails": dict.fromkeys(guardrails, True)}
    assert replay(first, one.rule, SEED).is_same
    assert not replay(changed(first, "side.draws.0.share", 1.0), one.rule, SEED).is_same or one.held_out
    assert explain(receipt.expanded(first, one.rule), "en")[0] == explain(whole, "en")[0]


def test_money_goes_to_the_best_within_a_round_and_is_counted_over_calls():
    rules = live("paid", budget={"limit": 100, "per_customer": 5}, holdout=0.0)
    past, budget = history(), digest_id("budget", "paid")
    past.purses[budget] = Purse(2000, daily=1200, per_customer=500)
    triggers = [cart(who) for who in range(30)]
    decisions = decide(rules, triggers, past, features(30, average_order_minor=np.arange(1, 31) * 100.0 + 1000))
    acted = [one for one in decisions if one.verdict == "act"]
    spent = sum(sum(one.costs) for one in acted)
    assert spent == past.purses[budget].days[AT.date()] == 2000 - past.purses[budget].left <= 1200
    worst = min(stored(one)["score"] for one in acted)
    stopped = [stored(one) for one in decisions if one.verdict == "over_budget"]
    # whoever is stopped though better than somebody served was too dear for what was left
    assert all(one["score"] < worst or one["given"]["budget"]["needed"] > one["given"]["budget"]["daily_left"]
               for one in stopped)  # fmt: skip
    assert sum(past.past[digest_id("customer", str(i))].spent.get(budget, 0) for i in range(30)
               if digest_id("customer", str(i)) in past.past) == spent  # fmt: skip


def test_below_the_cutoff_of_a_campaign_money_is_left_to_others():
    rules = live("paid", budget={"limit": 100}, holdout=0.0)
    past = history()
    past.purses[digest_id("budget", "paid")] = Purse(10**9)
    known = features(10, average_order_minor=np.arange(1, 11) * 1000.0)
    line = {digest_id("strategy", "paid"): Cutoff(90.0, "")}
    decisions = decide(rules, [cart(who) for who in range(10)], past, known, cutoffs=line)
    for one in decisions:
        assert (one.verdict == "over_budget") == (stored(one)["score"] < 90.0)
        assert one.rule is not None
        assert replay(stored(one), one.rule, SEED).is_same


def test_a_fitted_estimator_speaks_in_place_of_the_prior():
    rules = live("learned", holdout=0.0)
    scaling = Scaling("orders", 0.0, False, 0.0, 1.0)
    arms = {"reminder": Logistic(-1.0, (0.5,)), "coupon-10": Logistic(-1.0, (0.0,))}
    model = Model((scaling,), Logistic(-1.0, (0.0,)), arms)
    estimator = Estimator.read("logistic_t", 4, model.to_json())
    shop = Circumstances(SEED, 2, 0.4, {}, estimators={rules[0].strategy_id: estimator})
    known = features(2, orders=np.array([0.0, 4.0]))
    first, second = sorted(
        decide(rules, [cart(0), cart(1)], history(), known, shop=shop), key=lambda one: one.trigger.key
    )
    assert stored(first)["estimator"] == "logistic_t/4"
    # doing as much as nothing, a reminder costs its cent; four orders make it worth something
    assert stored(first)["values"][0] == pytest.approx(-1.0)
    chance = 1 / (1 + np.exp(-1.0)) - 1 / (1 + np.exp(1.0))
    assert stored(second)["values"][0] == pytest.approx(chance * 3000 * 0.4 - 1, abs=0.01)
    unknown = Estimator("logistic_t/5", Model((scaling,), Logistic(-1.0, (0.0,)), {"reminder": arms["reminder"]}))
    shop = Circumstances(SEED, 2, 0.4, {}, estimators={rules[0].strategy_id: unknown})
    (one,) = decide(rules, [cart(3)], history(), shop=shop)
    assert stored(one)["estimator"] == "prior/1"  # values of two kinds do not compare


def test_of_a_customers_decisions_at_one_moment_the_most_urgent_comes_first():
    cap = [{"channel": "email", "count": 1, "window": "P7D"}]
    rules = [*live("low", caps=cap, rules=[{"priority": 1}]), *live("high", caps=cap, rules=[{"priority": 5}])]
    decisions = decide(rules, [cart(who) for who in range(20)], history())
    assert {(one.strategy_key, one.verdict) for one in decisions if one.verdict == "capped"} == {("low", "capped")}
    assert {one.receipt["others"][0] for one in decisions if one.strategy_key == "low"} == {"high/rule-0"}
