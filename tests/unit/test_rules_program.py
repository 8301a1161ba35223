"""What an arm does, step after step, against a slow reference that recurses; delays, coupons, what is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.strategies.vocabulary import vocabulary
from rules import moments, program, reading, trigger
from rules.condition import Leaf
from rules.errors import RuleError
from rules.program import AnyStep, Arm, Branch, Delay, Exit, Wait
from rules.step import Step
from rules.tree import Node

pytestmark = pytest.mark.unit

AT = datetime(2026, 3, 1, 8, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
CONDITION = Leaf("customer.orders", "gte", 1.0, "number")


def mail(delay: timedelta = timedelta(0)) -> Step:
    return Step("email", "email", "marketing", delay, {})


def coupon(delay: timedelta = timedelta(0)) -> Step:
    return Step("coupon", "coupon", "marketing", delay, {"percent": 10})


def arm(*steps: AnyStep) -> Arm:
    return Arm("a", 1.0, steps)


# -- a slow reference -------------------------------------------------------------------------------------------------


class LeftError(Exception):
    pass


@dataclass
class Reference:
    """Does an arm at once, asking `outcomes` at each fork: who does it, when, and with which coupon."""

    outcomes: Iterator[bool]
    at: datetime
    coupon: int | None = None

    def run(self, whole: Arm) -> list[tuple[str, datetime, int | None]]:
        self.whole, self.done = whole, []
        with contextlib.suppress(LeftError):
            self.do(whole.steps, "")
        return self.done

    def do(self, steps: tuple[AnyStep, ...], prefix: str) -> None:
        for index, step in enumerate(steps):
            path = f"{prefix}{index}"
            if isinstance(step, Exit):
                raise LeftError
            if isinstance(step, Step):
                self.at += step.delay
                self.done.append((path, self.at, self.coupon))
                if step.action == "coupon":
                    before = [one for one in paths(self.whole.steps, "") if isinstance(one[1], Step)]
                    self.coupon = [one for one, _ in before].index(path)
            elif isinstance(step, Delay):
                self.at += step.span
            else:
                outcome = next(self.outcomes)
                if isinstance(step, Wait):
                    self.at += step.within / 2 if outcome else step.within
                self.do(step.then if outcome else step.otherwise, f"{path}.{'then' if outcome else 'else'}.")


def paths(steps: tuple[AnyStep, ...], prefix: str) -> list[tuple[str, AnyStep]]:
    found = []
    for index, step in enumerate(steps):
        found.append((f"{prefix}{index}", step))
        if isinstance(step, Wait | Branch):
            found += paths(step.then, f"{prefix}{index}.then.") + paths(step.otherwise, f"{prefix}{index}.else.")
    return found


def follow(whole: Arm, outcomes: Iterator[bool]) -> tuple[list[tuple[str, datetime, int | None]], list[str]]:
    """The same by walk and resume, as the agent does it: the place and the coupon are all that is kept."""
    path, at, carried, done, stops = program.START, AT, None, [], []
    while True:
        walked = program.walk(whole, path, at, "UTC", {}, coupon=carried)
        done += [(one.placed.path, one.due_at, one.after_coupon) for one in walked.due]
        if walked.parked is None:
            return done, stops
        parked, carried = walked.parked, walked.coupon
        outcome = next(outcomes)
        stops.append(parked.path)
        at = parked.at
        if parked.kind == "wait":
            assert parked.deadline is not None
            at = parked.at + (parked.deadline - parked.at) / 2 if outcome else parked.deadline
        path = program.resume(whole, parked.path, outcome)


SPANS = st.integers(0, 50).map(lambda hours: timedelta(hours=hours))
LEAVES = st.one_of(
    SPANS.map(mail), SPANS.map(coupon), SPANS.map(lambda span: Delay(span=span)), st.just(Exit()), SPANS.map(mail)
)


def forks(inner: st.SearchStrategy[AnyStep]) -> st.SearchStrategy[AnyStep]:
    lists = st.lists(inner, max_size=3).map(tuple)
    return st.builds(Branch, st.just(CONDITION), lists, lists) | st.builds(
        Wait, st.just(("email.clicked",)), st.just(4 * HOUR), lists, lists
    )


ARMS = st.lists(st.recursive(LEAVES, forks, max_leaves=12), max_size=5).map(lambda steps: arm(*steps))
OUTCOMES = st.lists(st.booleans(), min_size=64, max_size=64)


@given(ARMS, OUTCOMES)
def test_walking_and_resuming_does_what_a_simple_recursion_does(whole, outcomes):
    expected = Reference(iter(outcomes), AT).run(whole)
    done, stops = follow(whole, iter(outcomes))
    assert done == expected
    assert len(stops) == len(set(stops))  # a tree has no loops: nobody stands twice at one place


@given(ARMS)
def test_actions_are_numbered_in_reading_order_and_found_at_their_paths(whole):
    listed = [(path, step) for path, step in paths(whole.steps, "") if isinstance(step, Step)]
    assert [(one.path, one.step) for one in program.actions(whole)] == listed
    assert [one.number for one in program.actions(whole)] == list(range(len(listed)))
    for path, step in paths(whole.steps, ""):
        assert program.at_path(whole, path) is step


@given(ARMS, ARMS)
def test_what_stands_behind_a_place_does_not_move_it(whole, more):
    longer = arm(*whole.steps, *more.steps)
    for path, step in paths(whole.steps, ""):
        assert program.at_path(longer, path) is step
    numbered = {one.path: one.number for one in program.actions(longer)}
    assert all(numbered[one.path] == one.number for one in program.actions(whole))


@given(ARMS, st.data())
def test_the_costliest_way_is_the_dearest_of_all_ways(whole, data):
    costs = [data.draw(st.integers(0, 9)) for _ in program.actions(whole)]
    numbers = {one.path: one.number for one in program.actions(whole)}

    def ways(outcomes: list[bool]) -> Iterator[float]:
        used: list[bool] = []

        def asked() -> Iterator[bool]:
            for outcome in outcomes:
                used.append(outcome)
                yield outcome
            used.append(False)
            raise LeftError

        done = Reference(asked(), AT).run(whole)
        if len(used) == len(outcomes):
            yield sum(costs[numbers[path]] for path, _, _ in done)
        elif len(outcomes) < 10:
            yield from ways([*outcomes, True])
            yield from ways([*outcomes, False])

    forked = sum(isinstance(step, Wait | Branch) for _, step in paths(whole.steps, ""))
    if forked <= 6:
        assert program.costliest(whole, costs) == max(ways([]))


def test_the_costliest_way_takes_arrays_too():
    import numpy as np

    fork = Branch(CONDITION, (mail(),), (coupon(), mail()))
    costs = [np.array([1.0, 9.0]), np.array([2.0, 2.0]), np.array([3.0, 3.0])]
    assert program.costliest(arm(fork), costs, np.maximum).tolist() == [5.0, 9.0]
    assert program.costliest(arm(), []) == 0


def test_places_that_are_none_lead_to_the_end():
    whole = arm(mail(), Branch(CONDITION, (mail(),), ()))
    for path in ("7", "x", "", "0.then.0", "1.sideways.0", "1.then.5", "1.else.1", "-1", "1.then", "²"):
        assert program.at_path(whole, path) is None
        walked = program.walk(whole, path, AT, "UTC", {})
        assert (walked.due, walked.parked) == ((), None)
    assert program.resume(whole, "1", True) == "1.then.0"
    assert program.resume(whole, "1", False) == "2"
    assert program.resume(whole, "9", True) == "2"
    assert program.resume(arm(Branch(CONDITION, (Branch(CONDITION, (mail(),)),)), mail()), "0.then.0", False) == "1"


def test_a_message_after_a_fork_has_the_coupon_that_the_tree_tells():
    whole = arm(coupon(), Wait(("email.clicked",), DAY, (), (mail(),)), mail())
    assert program.walk(whole, "1.else.0", AT, "UTC", {}).due[0].after_coupon == 0
    assert program.walk(whole, "2", AT, "UTC", {}).due[0].after_coupon == 0
    either = arm(Branch(CONDITION, (coupon(),), (mail(), coupon())), Wait(("email.clicked",), DAY), mail())
    taken = program.walk(either, "0.then.0", AT, "UTC", {})
    assert taken.coupon == 0
    assert program.walk(either, "2", AT, "UTC", {}, coupon=taken.coupon).due[0].after_coupon == 0
    one_way = arm(Branch(CONDITION, (coupon(),), (Exit(),)), Wait(("email.clicked",), DAY), mail())
    assert program.walk(one_way, "2", AT, "UTC", {}).due[0].after_coupon == 0
    maybe = arm(Branch(CONDITION, (coupon(),)), Wait(("email.clicked",), DAY), mail())
    assert program.walk(maybe, "2", AT, "UTC", {}).due[0].after_coupon is None


# -- times ------------------------------------------------------------------------------------------------------------

ZONES = st.sampled_from(
    ["Asia/Shanghai", "America/New_York", "Europe/London", "Australia/Lord_Howe", "America/St_Johns", "UTC"]
)
INSTANTS = st.datetimes(datetime(2015, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))


@given(ZONES, INSTANTS, st.times().map(lambda one: one.replace(second=0, microsecond=0)))
def test_the_next_time_of_day_is_the_first_at_which_clocks_show_it(zone, at, wanted):
    found = moments.next_time(wanted, at, ZoneInfo(zone))
    assert at <= found <= at + timedelta(hours=25)
    shown = found.astimezone(ZoneInfo(zone))
    offset = shown.utcoffset()
    assert offset is not None
    if shown.time() != wanted:  # only where clocks jumped over it
        naive = datetime.combine(shown.date(), wanted)
        assert naive.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) == found
        assert shown.replace(tzinfo=None) > naive
    # and none before: a minute's steps from `at` on never show it
    steps = range(0, int((found - at).total_seconds() // 60), 7)
    start = at.replace(second=0, microsecond=0)
    for minutes in steps:
        moment = start + timedelta(minutes=minutes)
        if at <= moment < found:
            assert moment.astimezone(ZoneInfo(zone)).time() != wanted


@pytest.mark.parametrize(
    ("zone", "at", "until", "due"),
    [
        ("Asia/Shanghai", "2026-03-01T00:59", "09:00", "2026-03-01T01:00"),
        ("Asia/Shanghai", "2026-03-01T01:00", "09:00", "2026-03-01T01:00"),
        ("Asia/Shanghai", "2026-03-01T01:01", "09:00", "2026-03-02T01:00"),
        # New York, 2026-03-08: 02:00 EST becomes 03:00 EDT
        ("America/New_York", "2026-03-07T14:00", "09:00", "2026-03-07T14:00"),
        ("America/New_York", "2026-03-07T14:01", "09:00", "2026-03-08T13:00"),
        ("America/New_York", "2026-03-08T06:00", "02:30", "2026-03-08T07:30"),
        ("America/New_York", "2026-03-08T07:31", "02:30", "2026-03-09T06:30"),
        # 2026-11-01: 02:00 EDT becomes 01:00 EST, and 01:30 comes twice
        ("America/New_York", "2026-11-01T05:00", "01:30", "2026-11-01T05:30"),
        ("America/New_York", "2026-11-01T05:31", "01:30", "2026-11-01T06:30"),
        ("America/New_York", "2026-11-01T06:31", "01:30", "2026-11-02T06:30"),
        ("no/where", "2026-11-01T06:31", "09:00", "2026-11-01T09:00"),
    ],
)
def test_until_waits_for_the_hour_of_the_customers_own_clock(zone, at, until, due):
    start = datetime.fromisoformat(at).replace(tzinfo=UTC)
    walked = program.walk(arm(Delay(until=time.fromisoformat(until)), mail(HOUR)), "0", start, zone, {})
    assert walked.due[0].due_at == datetime.fromisoformat(due).replace(tzinfo=UTC) + HOUR


@pytest.mark.parametrize(
    ("value", "plus", "due"),
    [
        ("2026-03-10T12:00:00Z", timedelta(0), "2026-03-10T12:00"),
        ("2026-03-10T12:00:00+08:00", -DAY, "2026-03-09T04:00"),
        ("2026-03-10T12:00:00", DAY, "2026-03-11T04:00"),  # of the customer's own clock
        ("2026-03-10", timedelta(0), "2026-03-09T16:00"),
        ("2026-02-10", timedelta(0), None),  # past
        ("2026-03-02", -9 * DAY, None),
        ("soon", timedelta(0), None),
        (17, timedelta(0), None),
        (None, timedelta(0), None),
        ("9999-12-31", 400 * DAY, None),
        ("0001-01-01", -400 * DAY, None),
    ],
)
def test_a_date_of_the_event_sets_the_time_and_none_loses_nobody(value, plus, due):
    whole = arm(Delay(date="event.starts_at", plus=plus), mail())
    walked = program.walk(whole, "0", AT, "Asia/Shanghai", {"starts_at": value})
    expected = AT if due is None else datetime.fromisoformat(due).replace(tzinfo=UTC)
    assert [one.due_at for one in walked.due] == [expected]
    assert program.walk(whole, "0", AT, "Asia/Shanghai", {}).due[0].due_at == AT


# -- reading ----------------------------------------------------------------------------------------------------------

LINK = {"en": "{{ unsubscribe_url }}", "zh": "{{ unsubscribe_url }}"}
MAIL = {"action": "email", "subject": {"en": "Hello", "zh": "您好"}, "body": LINK}
WITH_CODE = MAIL | {"subject": {"en": "{{ coupon.code }}", "zh": "{{ coupon.code }}"}}
COUPON = {"action": "coupon", "percent": 10}
WAIT = {"wait": {"event": ["email.clicked"], "within": "P3D"}}
IF = {"if": {"field": "customer.orders", "op": "gte", "value": 2}}


def read(*steps: Any, when: Any = None) -> tuple[AnyStep, ...]:
    known = vocabulary()
    return reading.arm_steps(
        Node(list(steps), "steps"), trigger.parse(Node(when or {"event": "custom"}, "when"), known), known
    )


WHOLE = [
    MAIL | {"delay": "PT1H", "key": "hello", "tags": ["welcome"]},
    WAIT | {"then": [{"exit": True}], "else": [COUPON, {"delay": "P1D"}]},
    {"delay": {"until": "09:00"}},
    IF | {"then": [WITH_CODE], "else": [{"delay": {"date": "event.starts_at", "plus": "-P1D"}}, WITH_CODE]},
    {"wait": {"event": ["custom"], "name": "booked", "within": "PT12H",
              "where": {"field": "event.seats", "op": "gte", "value": 2}}, "key": "booking"},
]  # fmt: skip


def test_an_arm_is_written_as_it_is_read():
    steps = read(*WHOLE)
    assert [type(one).__name__ for one in steps] == ["Step", "Wait", "Delay", "Branch", "Wait"]
    assert [one.key for _, one in program.walk_tree(steps)] == [
        "hello", "1", "1.then.0", "1.else.0", "1.else.1", "2", "3", "3.then.0", "3.else.0", "3.else.1", "booking",
    ]  # fmt: skip
    written = [one.to_dict() for one in steps]
    assert read(*written) == steps
    assert written[1]["else"][1] == {"delay": "P1D"}
    assert written[3]["else"][0] == {"delay": {"date": "event.starts_at", "plus": "-P1D"}}
    assert written[0] == {"topic": "marketing", **WHOLE[0]}


@pytest.mark.parametrize(
    ("steps", "where", "reason"),
    [
        ([{}], "steps[0]", "a step is one of"),
        ([{"delay": "P1D", "wait": {}}], "steps[0]", "not delay and wait"),
        (["email"], "steps[0]", "mapping"),
        ([{"delay": "P1D", "then": []}], "steps[0].then", "unknown key"),
        ([{"delay": "soon"}], "steps[0].delay", "ISO 8601"),
        ([{"delay": "-P1D"}], "steps[0].delay", "ISO 8601"),
        ([{"delay": {}}], "steps[0].delay", "give a duration"),
        ([{"delay": {"until": 540}}], "steps[0].delay.until", "in quotes"),
        ([{"delay": {"until": "24:00"}}], "steps[0].delay.until", "time of day"),
        ([{"delay": {"until": "٠٩:٠٠"}}], "steps[0].delay.until", "time of day"),
        ([{"delay": {"until": "09:00", "plus": "P1D"}}], "steps[0].delay.plus", "goes with `date`"),
        ([{"delay": {"date": "customer.birthday"}}], "steps[0].delay.date", "event.starts_at"),
        ([{"delay": {"date": "event.at", "plus": "--P1D"}}], "steps[0].delay.plus", "ISO 8601"),
        ([{"exit": False}], "steps[0].exit", "leaves the arm"),
        ([{"exit": True}, MAIL], "steps[1]", "never reached"),
        ([WAIT | {"then": [{"exit": True}], "else": [{"exit": True}]}, MAIL], "steps[1]", "never reached"),
        ([IF], "steps[0].then", "missing"),
        ([IF | {"then": []}], "steps[0]", "does nothing"),
        ([IF | {"then": [{"action": "fax"}]}], "steps[0].then[0].action", "not one of"),
        ([{"if": {"all": []}, "then": [MAIL]}], "steps[0].if.all", "empty"),
        (
            [{"if": {"field": "cluster.label", "op": "changed"}, "then": [MAIL]}],
            "steps[0].if",
            "before the trigger",
        ),
        ([{"wait": {"event": [], "within": "P1D"}}], "steps[0].wait.event", "empty"),
        ([{"wait": {"event": ["fax.read"], "within": "P1D"}}], "steps[0].wait.event[0]", "not one of"),
        ([{"wait": {"event": ["email.clicked"]}}], "steps[0].wait.within", "missing"),
        ([{"wait": {"event": ["email.clicked"], "within": "PT0S"}}], "steps[0].wait.within", "no length"),
        (
            [{"wait": {"event": ["order.paid"], "within": "P1D", "name": "x"}}],
            "steps[0].wait.name",
            "only a custom event",
        ),
        (
            [{"wait": {"event": ["order.paid"], "within": "P1D", "where": IF["if"]}}],
            "steps[0].wait.where",
            "only event.* is known",
        ),
        (
            [{"wait": {"event": ["order.paid"], "within": "P1D",
                       "where": {"field": "event.query", "op": "exists"}}}],
            "steps[0].wait.where",
            "no property 'query'",
        ),
        ([MAIL | {"key": "a"}, MAIL | {"key": "a"}], "steps[1].key", "second step"),
        ([MAIL | {"key": "1"}], "steps[0].key", "not a key"),
        ([MAIL | {"tags": ["a", "a"]}], "steps[0].tags[1]", "second tag"),
        ([WAIT | {"then": [COUPON]}, WITH_CODE], "steps[1].subject.en", "no coupon step"),
        ([WAIT | {"then": [COUPON], "else": [WITH_CODE]}], "steps[0].else[0].subject.en", "no coupon step"),
        ([WITH_CODE, COUPON], "steps[0].subject.en", "no coupon step"),
    ],
)  # fmt: skip
def test_a_step_that_cannot_be_taken_names_its_path(steps, where, reason):
    with pytest.raises(RuleError) as caught:
        read(*steps)
    assert caught.value.where == where
    assert reason in caught.value.reason


def test_a_coupon_counts_where_every_way_has_passed_one():
    assert read(WAIT | {"then": [COUPON], "else": [COUPON]}, WITH_CODE)
    assert read(WAIT | {"then": [COUPON], "else": [{"exit": True}]}, WITH_CODE)
    assert read(COUPON, WAIT | {"then": [WITH_CODE]}, WITH_CODE)


def test_an_arm_has_a_size_that_can_be_read():
    deep: Any = MAIL
    for _ in range(12):
        deep = IF | {"then": [deep]}
    with pytest.raises(RuleError, match="nest deeper"):
        read(deep)
    with pytest.raises(RuleError, match="at most 100"):
        read(*[MAIL] * 101)


def test_a_date_needs_an_event_and_the_trigger_of_a_miss_brings_its_own():
    dated = {"delay": {"date": "event.starts_at"}}
    for when in ({"schedule": "0 9 * * *"}, {"entered": "segment.vip"}):
        with pytest.raises(RuleError, match="property of the triggering event"):
            read(dated, when=when)
    missed = {"missed": {"event": "custom", "goal": "order.paid", "within": "P1D"}}
    assert read(dated, when=missed)
    with pytest.raises(RuleError, match="has no property 'starts_at'"):
        read(dated, when={"event": "order.paid"})


@pytest.mark.parametrize(
    "written",
    [
        {"event": ["order.paid"], "frequency": "once_per_key", "key": "event.order_id", "cooldown": "P1D"},
        {"schedule": "RRULE:FREQ=WEEKLY;BYDAY=MO;BYHOUR=9", "time_zone": "customer", "frequency": "every_time"},
        {"entered": "segment.vip", "frequency": "once"},
        {"left": "cluster.at_risk", "frequency": "every_time", "cooldown": "P30D"},
        {
            "missed": {"event": ["checkout.started"], "goal": ["order.paid"], "within": "P1D"},
            "frequency": "once_per_key", "key": "event.checkout_id",
        },
    ],
)  # fmt: skip
def test_every_trigger_is_written_as_it_is_read(written):
    assert trigger.parse(Node(written, "when"), vocabulary()).to_dict() == written


@pytest.mark.parametrize(
    ("when", "where", "reason"),
    [
        ({"event": "order.paid", "entered": "segment.vip"}, "when", "either"),
        ({"entered": "vip"}, "when.entered", "segment.<key>"),
        ({"entered": "segment."}, "when.entered", "segment.<key>"),
        ({"left": "cluster.At Risk"}, "when.left", "not a key"),
        ({"entered": "segment.vip", "time_zone": "customer"}, "when.time_zone", "only a schedule"),
        ({"schedule": "0 9 * * *", "time_zone": "moon"}, "when.time_zone", "not one of"),
        ({"schedule": "RRULE:FREQ=SECONDLY"}, "when.schedule", "HOURLY"),
        ({"entered": "segment.vip", "frequency": "once_per_key", "key": "event.id"}, "when.key", "triggering event"),
        ({"missed": {"event": "checkout.started", "goal": "order.paid"}}, "when.missed.within", "missing"),
        (
            {"missed": {"event": "checkout.started", "goal": "order.paid", "within": "PT0S"}},
            "when.missed.within",
            "some time",
        ),
        (
            {"missed": {"event": "order.paid", "goal": "order.paid", "within": "P1D"}},
            "when.missed.goal",
            "cannot also end it",
        ),
    ],
)
def test_a_trigger_that_cannot_be_taken_names_its_path(when, where, reason):
    with pytest.raises(RuleError) as caught:
        trigger.parse(Node(when, "when"), vocabulary())
    assert caught.value.where == where
    assert reason in caught.value.reason
