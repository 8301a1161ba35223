"""What may stop a candidate: one pure function each, with a verdict that says why.

All of them stand before the holdout draw, and each asks about every arm of the rule at once: whoever reaches the draw
could have been treated with any arm, so that treated and held-out customers, and the arms, can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rules import program
from rules.program import Arm
from rules.strategy import Cap
from rules.trigger import When


@dataclass(frozen=True, slots=True)
class Verdict:
    """`detail` says what was found, in plain JSON; empty when there is nothing to tell."""

    name: str
    passed: bool
    detail: Mapping[str, Any]


_PASSED = {
    name: Verdict(name, True, {})
    for name in ("one_rule", "enrolment", "address", "suppression", "consent", "cap", "budget")
}

STOPS_AS = {
    "one_rule": "nothing",
    "enrolment": "already_enrolled",
    "address": "no_address",
    "suppression": "suppressed",
    "consent": "no_consent",
    "cap": "capped",
    "budget": "over_budget",
}
"""Each guardrail with the decision's verdict when it is the first to fail, in the order in which they are asked."""


@dataclass(frozen=True, slots=True)
class Demands:
    """What the arms of a rule ask of a customer, taken together. `messages`: per arm, each message's channel and how
    many seconds after the decision it is due; transactional ones are not in it, since no cap counts them."""

    channels: frozenset[str]
    topics: frozenset[tuple[str, str]]
    messages: tuple[tuple[tuple[str, float], ...], ...]


_START = datetime(1970, 1, 1, tzinfo=UTC)


def demands(arms: Iterable[Arm]) -> Demands:
    """Add up the message steps of all arms."""
    channels, topics, messages = set(), set(), []
    for arm in arms:
        due = []
        # when each is due is known up to the first wait; a message behind one is asked about when it is sent
        known = program.walk(arm, program.START, _START, "UTC", {}).due
        offsets = {one.placed.number: (one.due_at - _START).total_seconds() for one in known}
        for placed in program.actions(arm):
            step = placed.step
            if step.is_message:
                channels.add(step.channel)
                topics.add((step.channel, step.topic))
                if step.topic == "marketing" and placed.number in offsets:
                    due.append((step.channel, offsets[placed.number]))
        messages.append(tuple(due))
    return Demands(frozenset(channels), frozenset(topics), tuple(messages))


def is_consented(state: str | None, topic: str) -> bool:
    """Marketing needs a yes; what belongs to an order goes out unless there was a no."""
    return state == "subscribed" if topic == "marketing" else state != "unsubscribed"


def one_rule(taken_by: str | None) -> Verdict:
    """One trigger moves a customer by one rule of a strategy: the one of the highest priority."""
    return _PASSED["one_rule"] if taken_by is None else Verdict("one_rule", False, {"taken_by": taken_by})


def enrolment(when: When, key: str, entries: Mapping[str, datetime], at: datetime) -> Verdict:
    """`entries`: when the customer last entered this rule, by key. `at` is the moment of the decision (shop time)."""
    if not entries:
        return _PASSED["enrolment"]
    if when.frequency == "once" or (when.frequency == "once_per_key" and key in entries):
        first = entries[key] if key in entries else min(entries.values())
        return Verdict("enrolment", False, {"frequency": when.frequency, "entered_at": first.isoformat()})
    last = max(entries.values())
    # a late event may lie before the entry: the distance counts, not the direction
    if when.cooldown is not None and abs(at - last) < when.cooldown:
        return Verdict("enrolment", False, {"cooldown_days": _days(when.cooldown), "entered_at": last.isoformat()})
    return _PASSED["enrolment"]


def address(channels: Iterable[str], addresses: Mapping[str, str | None]) -> Verdict:
    """Every channel needs somewhere to send to."""
    for channel in sorted(channels):
        if not addresses.get(channel):
            return Verdict("address", False, {"channel": channel})
    return _PASSED["address"]


def suppression(channels: Iterable[str], suppressed: Mapping[str, str]) -> Verdict:
    """`suppressed`: the channels on which the customer's address may not be written to, with the reason."""
    for channel in sorted(channels):
        if channel in suppressed:
            return Verdict("suppression", False, {"channel": channel, "reason": suppressed[channel]})
    return _PASSED["suppression"]


def consent(topics: Iterable[tuple[str, str]], states: Mapping[tuple[str, str], str]) -> Verdict:
    """Consent of every channel and topic that an arm would use."""
    for channel, topic in sorted(topics):
        state = states.get((channel, topic))
        if not is_consented(state, topic):
            return Verdict("consent", False, {"channel": channel, "topic": topic, "state": state})
    return _PASSED["consent"]


def cap(
    caps: Iterable[Cap],
    messages: Sequence[Sequence[tuple[str, float]]],
    planned: Mapping[str, Sequence[float]],
    at: float,
) -> Verdict:
    """No rolling window may hold more than its count, whichever arm is drawn.

    `messages` as Demands.messages; `planned`: when each message of this customer was or will be due, by channel, of
    every strategy and the held-out ones too. Times are seconds since 1970.
    """
    for limit in caps:
        span = limit.window.total_seconds()
        known = [due for channel, times in planned.items() if limit.channel in (None, channel) for due in times]
        for arm in messages:
            if not known and len(arm) <= limit.count:
                continue
            added = [at + offset for channel, offset in arm if limit.channel in (None, channel)]
            most = fullest_window([*known, *added], added, span)
            if most > limit.count:
                detail = {"channel": limit.channel, "count": limit.count, "window_days": _days(limit.window)}
                return Verdict("cap", False, {**detail, "planned": most - len(added)})
    return _PASSED["cap"]


def fullest_window(times: Sequence[float], touching: Sequence[float], span: float) -> int:
    """The most of `times` in any half-open window of `span` seconds that contains one of `touching`.

    Some fullest window ends at one of the times; only those within `span` after a touching one can contain it.
    """
    ends = [end for end in times if any(0 <= end - one < span for one in touching)]
    return max((sum(1 for one in times if 0 <= end - one < span) for end in ends), default=0)


def budget(costliest: int, available: int | None) -> Verdict:
    """The costliest arm must be payable. Minor units; `available` is None for a strategy without a budget."""
    if available is None or costliest <= available:
        return _PASSED["budget"]
    return Verdict("budget", False, {"needed_minor": costliest, "available_minor": available})


def _days(span: timedelta) -> float:
    return round(span.total_seconds() / 86400, 3)
