"""Verdicts that nothing decided later can change: who entered a rule already, whom it may not write to. Pure.

The same guardrails as in the engine, asked in the same order; everything that may come out otherwise within a part of
the stream (caps, money) is left to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from operation_agent.decision import guardrails
from operation_agent.decision.candidates import Prepared
from operation_agent.decision.demands import ADDRESSES, Demands
from operation_agent.decision.history import Person


def is_entered(one: Prepared, position: int, entries: Mapping[str, float], at: float) -> bool:
    """Whether the rule's enrolment stops a customer with these `entries` (by key) at `at` (seconds since 1970)."""
    when = one.live.rule.when
    key = one.key(position)
    given: dict[str, Any] = {
        "frequency": when.frequency, "at": at, "first": min(entries.values()), "last": max(entries.values())
    }  # fmt: skip
    if when.cooldown is not None:
        given["cooldown"] = when.cooldown.total_seconds()
    if key in entries:
        given["key"] = entries[key]
    return guardrails.enrolment(given) is not None


def unreachable(wanted: Demands, person: Person) -> str | None:
    """'no_address', 'suppressed' or 'no_consent'; None: the rule's messages may go to this person."""
    asked = [channel for channel in wanted.channels if channel in ADDRESSES]
    given: dict[str, Any] = {"address": {"asked": asked, "known": sorted(person.known)}}
    given["suppression"] = {channel: reason for channel, reason in person.suppressed if channel in wanted.channels}
    if wanted.topics:
        states = dict(person.consents)
        given["consent"] = {f"{channel}/{topic}": states.get((channel, topic)) for channel, topic in wanted.topics}
    return guardrails.verdict_of(guardrails.judge(given))
