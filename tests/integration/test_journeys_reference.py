"""Random arms, events and clocks: what comes of them in the database is what a plain recursion over the steps says,
in whatever batches events are taken in and whenever the time that passed is noticed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest

from operation_agent.kit.ids import new_id
from operation_agent.store.shops import create_shop

from .journeying import DAY, T0, mail, rule, strategy, walks

pytestmark = pytest.mark.integration

NAMES = tuple(f"p{number}" for number in range(8))
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


def tree(draw: Random, count: list[int], depth: int = 0) -> Steps:
    """Steps of every kind, the first of the arm a fork; every e-mail has a name of its own."""
    found: Steps = []
    for index in range(draw.randint(1, 3)):
        kind = draw.choice(["mail", "mail", "delay", "wait", "if"] if depth < 2 else ["mail", "delay"])
        if depth == 0 and index == 0:
            kind = draw.choice(["wait", "if"])
        if kind == "mail":
            count[0] += 1
            found.append(mail(f"m{count[0]}", delay=f"PT{draw.randint(0, 30)}H"))
        elif kind == "delay":
            found.append({"delay": f"PT{draw.randint(1, 40)}H"})
        else:
            ways = {way: tree(draw, count, depth + 1) for way in ("then", "else")}
            if draw.random() < 0.15:
                ways["else"] = [*ways["else"], {"exit": True}]
            events = draw.sample(TYPES, draw.randint(1, 2))
            wait = {"wait": {"event": events, "within": f"PT{draw.randint(1, 60)}H"}}
            condition = {"if": {"field": "customer.orders", "op": "gte", "value": draw.randint(1, 2)}}
            found.append({**(wait if kind == "wait" else condition), **ways})
    return found


def story(draw: Random) -> list[Told]:
    """What everybody does, no two things at the same moment, and some of it on the hour: at the end of a wait."""
    moments = sorted(draw.sample(range(1, 300), 60))
    return [(draw.choice(NAMES), draw.choice(TYPES), timedelta(minutes=30 * moment)) for moment in moments]


@pytest.mark.parametrize("seed", range(12))
def test_the_database_walks_as_the_recursion_does(engine, seed):
    draw = Random(seed)
    steps, told = tree(draw, [0]), story(draw)
    exits = draw.choice([None, "order.paid"])
    slug = f"s-{new_id().hex[-12:]}"
    shop = create_shop(engine, slug=slug, name="Walks", currency="USD", sandbox=True, seed="test")
    here = walks(engine, shop.id, strategy([rule(steps, exit_on=[exits] if exits else [])]), *NAMES)
    here.observe(*(here.event(who, "cart.added", T0) for who in NAMES))
    left = list(told)
    while left:
        taken = draw.randint(1, 12)
        if draw.random() < 0.6:  # time is noticed, up to somewhere before the next event
            here.advance(T0 + left[0][2] * draw.random(), limit=draw.randint(1, 5))
        here.observe(*(_event(here, one) for one in left[:taken]))
        left = left[taken:]
    while here.advance(LATER, limit=5).runs:
        pass
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
