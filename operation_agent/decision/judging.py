"""What the guardrails are given for each candidate of a rule, and what they say.

Most of a call's customers are alike in what is asked here: what follows from how somebody can be reached is judged once
per kind of person and rule, and only those who have a past, one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from . import guardrails
from .candidates import Prepared
from .cast import Cast
from .demands import ADDRESSES, Demands, Timed
from .guardrails import Detail, Given
from .history import Past, Person

Judged = tuple[Mapping[str, Given], Mapping[str, Detail]]
"""What the guardrails were given, and what stops, by name."""

_NOTHING: Mapping[str, Any] = {}


@dataclass(slots=True)
class Judge:
    """Of one call."""

    cast: Cast
    _alike: dict[UUID, dict[int, Judged]] = field(default_factory=dict)  # rule -> identity of the person
    _quiet: dict[tuple[Any, ...], dict[str, Given]] = field(default_factory=dict)

    def all(self, one: Prepared, positions: Sequence[int]) -> list[Judged]:
        """All guardrails but those of money and capacity, which depend on who else is there; by position."""
        alike = self._alike.setdefault(one.live.rule_id, {})
        people, pasts, code, rows = self.cast.people, self.cast.pasts, self.cast.code, one.rows
        is_plain = not one.wanted.quiet
        found = []
        for position in positions:
            number = code[rows[position]]
            person, past = people[number], pasts[number]
            judged = alike.get(id(person))
            if judged is None:
                judged = alike[id(person)] = _judge(_reach(one.wanted, person))
            if past is not None or not is_plain:
                judged = self._further(one, position, past, judged)
            found.append(judged)
        return found

    def _further(self, one: Prepared, position: int, past: Past | None, judged: Judged) -> Judged:
        row = one.rows[position]
        also = {} if past is None else self._past(one, position, row, past)
        if one.wanted.quiet:
            also |= self._quiet_hours(one, row)
        if not also:
            return judged
        given, stopped = _judge(also)
        return {**judged[0], **given}, {**judged[1], **stopped}

    def _past(self, one: Prepared, position: int, row: int, past: Past) -> dict[str, Given]:
        live, wanted, at = one.live, one.wanted, self.cast.at(row)
        found: dict[str, Given] = {}
        entries = past.entries.get(live.rule_id)
        if entries:
            found["enrolment"] = _entered(one, position, entries, at)
        group = live.strategy.limits.exclusive
        if group is not None and past.belongs:
            belongs = [[other.strategy, other.until] for other in past.belongs.values()
                       if other.group == group and other.strategy != live.strategy.key]  # fmt: skip
            if belongs:
                found["exclusive"] = {"group": group, "at": at, "belongs": sorted(belongs, key=lambda other: other[0])}
        if past.complained_at is not None and not wanted.is_exempt and any(wanted.actions):
            found["complaint"] = {"at": at, "complained_at": past.complained_at, "cooldown": wanted.cooldown}
        if past.messages and wanted.caps:
            found |= self._cap(one, row, past)
        if past.coupons:
            found |= self._coupon(wanted, row, past)
        return found

    def _cap(self, one: Prepared, row: int, past: Past) -> dict[str, Given]:
        messages = messages_of(past, one)
        if not messages:
            return {}
        first = [
            [self._due(one.wanted, arm, listed[0][0], row), listed[0][1], listed[0][2], True]
            for arm, listed in enumerate(one.wanted.messages)
            if listed
        ]
        return {"cap": {"caps": one.wanted.caps, "first": first, "messages": messages}} if first else {}

    def _coupon(self, wanted: Demands, row: int, past: Past) -> dict[str, Given]:
        times = [self._due(wanted, arm, listed[0][0], row) for arm, listed in enumerate(wanted.coupons) if listed]
        if not times:
            return {}
        limits = {"limits": wanted.coupon_limits, "stacking": wanted.stacking}
        return {"coupon": {**limits, "due": times, "coupons": _others(past, wanted.offer, min(times))}}

    def _quiet_hours(self, one: Prepared, row: int) -> dict[str, Given]:
        wanted, zone, trigger = one.wanted, self.cast.zone_of(row), self.cast.triggers[row]
        known = (one.live.rule_id, zone, trigger.at) if trigger.event is None else None
        found = self._quiet.get(known) if known is not None else None
        if found is None:
            times = [self._due(wanted, arm, listed[0][0], row) for arm, listed in enumerate(wanted.messages) if listed]
            hours = [[f"{quiet.start:%H:%M}", f"{quiet.end:%H:%M}"] for quiet in wanted.quiet]
            found = {"quiet_hours": {"zone": zone, "hours": hours, "due": times}} if times else {}
            if known is not None:
                self._quiet[known] = found
        return dict(found)

    def _due(self, wanted: Demands, arm: int, one: Timed, row: int) -> float:
        if one.is_sure:
            return self.cast.at(row) + one.offset
        trigger = self.cast.triggers[row]
        properties = trigger.event.properties if trigger.event is not None else _NOTHING
        return wanted.due(arm, one, trigger.at, self.cast.zone_of(row), properties)


def _judge(given: dict[str, Given]) -> Judged:
    return given, guardrails.judge(given)


def _reach(wanted: Demands, person: Person) -> dict[str, Given]:
    """Address, suppression and consent. What is there is not worth a word, but a consent is."""
    found: dict[str, Given] = {}
    asked = [channel for channel in wanted.channels if channel in ADDRESSES]
    if not set(asked) <= person.known:
        found["address"] = {"asked": asked, "known": sorted(person.known)}
    suppressed = {channel: reason for channel, reason in person.suppressed if channel in wanted.channels}
    if suppressed:
        found["suppression"] = suppressed
    if wanted.topics:
        states = dict(person.consents)
        found["consent"] = {f"{channel}/{topic}": states.get((channel, topic)) for channel, topic in wanted.topics}
    return found


def _others(past: Past, offer: str | None, due: float) -> list[tuple[float, float | None]]:
    """Coupons that another one would come beside. Of the same offer it would be the code that is out already."""
    return [
        one[:2] for one in past.coupons if offer is None or one.offer != offer or one.until is None or one.until <= due
    ]


def _entered(one: Prepared, position: int, entries: Mapping[str, float], at: float) -> Given:
    when = one.live.rule.when
    key = one.keys[position] if one.keys is not None else ""
    given: dict[str, Any] = {"frequency": when.frequency, "at": at}
    given |= {"first": min(entries.values()), "last": max(entries.values())}
    if when.cooldown is not None:
        given["cooldown"] = when.cooldown.total_seconds()
    return {**given, "key": entries[key]} if key in entries else given


def messages_of(past: Past, one: Prepared) -> list[list[Any]]:
    """As guardrails.cap reads them: those that some cap of the rule counts."""
    strategy = one.live.strategy_id
    listed = [[due, channel, tags, whose == strategy] for due, channel, whose, tags in past.messages]
    return [message for message in listed if any(guardrails.counts(limit, message) for limit in one.wanted.caps)]
