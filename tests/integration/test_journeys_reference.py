"""Random arms, events and clocks: what comes of them in the database is what a plain recursion over the steps says,
in whatever batches events are taken in and whenever the time that passed is noticed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from operation_agent.kit.ids import new_id
from operation_agent.store.shops import create_shop

from .journeying import DAY, T0, mail, rule, strategy, walks

pytestmark = pytest.mark.integration

NAMES = ("ann", "bob", "eve")
TYPES = ("product.viewed", "page.viewed", "order.paid")
LATER = T0 + 400 * DAY
Steps = list[dict[str, Any]]
Told = tuple[str, str, timedelta]
"""Who did what, how long after T0. Every customer puts something into the cart at T0."""


# -- the recursion ------------------------------------------------------------------------------------------------


@dataclass
class Walk:
    """One customer's way through the written steps, knowing everything that the customer will ever do."""

    events: list[tuple[str, datetime]]
    exit_at: datetime | None
    due: list[tuple[str, datetime]]
    has_left: bool = False

    def steps(self, steps: Steps, at: datetime) -> datetime:
        for step in steps:
            if self.has_left:
                return at
            if "action" in step:
                at += hours(step.get("delay"))
                self.due.append((step["key"], at))
            elif "delay" in step:
                at += hours(step["delay"])
            elif "exit" in step:
                self.has_left = True
            elif "wait" in step:
                at = self.waits(step, at)
            else:
                at = self.branches(step, at)
        return at

    def waits(self, step: dict[str, Any], at: datetime) -> datetime:
        over, wanted = at + hours(step["wait"]["within"]), step["wait"]["event"]
        came = [when for type_, when in self.events if type_ in wanted and at <= when <= over]
        then = min(came, default=over)
        return then if self.stops(then) else self.steps(step["then"] if came else step["else"], then)

    def branches(self, step: dict[str, Any], at: datetime) -> datetime:
        if self.stops(at):
            return at
        orders = sum(type_ == "order.paid" and when <= at for type_, when in self.events)
        return self.steps(step["then"] if orders >= step["if"]["value"] else step["else"], at)

    def stops(self, at: datetime) -> bool:
        """Whether the goal was reached while the customer stood here: what is due later is called off."""
        if self.exit_at is not None and self.exit_at <= at:
            self.has_left = True
            self.due = [one for one in self.due if one[1] <= self.exit_at]
        return self.has_left


def hours(written: str | None) -> timedelta:
    return timedelta(hours=int(written[2:-1])) if written else timedelta(0)


def reference(steps: Steps, told: list[Told], who: str, exits: str | None) -> list[tuple[str, timedelta]]:
    events = [(type_, T0 + after) for name, type_, after in told if name == who]
    walk = Walk(events, min((when for type_, when in events if type_ == exits), default=None), [])
    walk.steps(steps, T0)
    return sorted((key, at - T0) for key, at in walk.due)


# -- what is drawn ------------------------------------------------------------------------------------------------

DELAYS = st.integers(0, 60).map(lambda count: f"PT{count}H")
SPANS = st.integers(1, 60).map(lambda count: f"PT{count}H")


def trees() -> st.SearchStrategy[Steps]:
    leaf = st.one_of(
        st.fixed_dictionaries({"mail": st.just(True), "delay": DELAYS}), st.fixed_dictionaries({"delay": SPANS})
    )

    def fork(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        ways = st.lists(children, max_size=2)
        types = st.lists(st.sampled_from(TYPES), min_size=1, max_size=2, unique=True)
        return st.one_of(
            st.fixed_dictionaries(
                {"wait": st.fixed_dictionaries({"event": types, "within": SPANS}), "then": ways, "else": ways}
            ),
            st.fixed_dictionaries({"if": st.integers(1, 2), "then": st.lists(children, min_size=1, max_size=2),
                                   "else": ways}),
        )  # fmt: skip

    step = st.recursive(leaf, fork, max_leaves=6)
    return st.lists(step, min_size=1, max_size=4).map(lambda drawn: written(drawn, [0]))


def written(drawn: list[Any], count: list[int]) -> Steps:
    """The drawn tree as it stands in a rule; every e-mail has a name of its own."""
    found: Steps = []
    for step in drawn:
        if "mail" in step:
            count[0] += 1
            found.append(mail(f"m{count[0]}", delay=step["delay"]))
        elif "delay" in step:
            found.append(step)
        else:
            ways = {way: written(step[way], count) for way in ("then", "else")}
            head = {"field": "customer.orders", "op": "gte", "value": step.get("if")}
            found.append({"if": head, **ways} if "if" in step else {"wait": step["wait"], **ways})
    return found


MOMENTS = st.integers(1, 150 * 60).map(lambda minutes: timedelta(minutes=minutes))
TOLD = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(TYPES), MOMENTS), max_size=12, unique_by=lambda one: one[2]
).map(lambda told: sorted(told, key=lambda one: one[2]))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_database_walks_as_the_recursion_does(engine, data):
    steps, told = data.draw(trees(), "steps"), data.draw(TOLD, "told")
    exits = data.draw(st.sampled_from([None, "order.paid"]), "exits")
    slug = f"s-{new_id().hex[-12:]}"
    shop = create_shop(engine, slug=slug, name="Walks", currency="USD", sandbox=True, seed="test")
    here = walks(engine, shop.id, strategy([rule(steps, exit_on=[exits] if exits else [])]), *NAMES)
    here.observe(*(here.event(who, "cart.added", T0) for who in NAMES))
    left = list(told)
    while left:
        taken = data.draw(st.integers(1, len(left)), "batch")
        if data.draw(st.booleans(), "advances"):  # to somewhere before the next event
            here.advance(T0 + left[0][2] * data.draw(st.floats(0, 0.999), "by"), limit=data.draw(st.integers(1, 3)))
        here.observe(*(_event(here, one) for one in left[:taken]))
        left = left[taken:]
    for _ in range(300):
        if not here.advance(LATER, limit=2).runs:
            break
    assert not here.run("SELECT 1 FROM runs WHERE shop_id = :shop AND state = 'waiting'")
    for who in NAMES:
        assert sorted(here.actions(who)) == reference(steps, told, who, exits), who


def _event(here: Any, told: Told) -> Any:
    who, type_, after = told
    properties = {
        "order.paid": {"order_id": f"{who}-{after}", "total_minor": 100, "total": 1},
        "product.viewed": {"product_id": "p"},
    }.get(type_, {})
    return here.event(who, type_, T0 + after, **properties)
