"""What the guardrails need to know of the past, in memory for one call; what is decided in the call is added to it.

So the second trigger of a customer sees what the first led to before anything is written. Times are seconds since 1970
(shop time), money minor units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Person:
    """How somebody can be reached: the channels with an address, (channel, why it is suppressed), consent by channel
    and topic, and the IANA name of the time zone where it is known. People who are alike may be one object, so that
    what follows from it is worked out once."""

    known: frozenset[str] = frozenset()
    suppressed: tuple[tuple[str, str], ...] = ()
    consents: tuple[tuple[tuple[str, str], str], ...] = ()
    zone: str | None = None

    @classmethod
    def of(
        cls, addresses: Mapping[str, str | None], *, suppressed: Mapping[str, str] | None = None,
        consents: Mapping[tuple[str, str], str] | None = None, zone: str | None = None,
    ) -> Person:  # fmt: skip
        known = frozenset(channel for channel, value in addresses.items() if value)
        return cls(known, tuple(sorted((suppressed or {}).items())), tuple(sorted((consents or {}).items())), zone)


UNKNOWN_PERSON = Person()


class Kept(NamedTuple):
    """A side that was assigned earlier, and stays, whatever the shares are today."""

    held_out: bool
    propensity: float


class Message(NamedTuple):
    """A marketing message that was or will be due and that caps count; the held-out ones too."""

    due: float
    channel: str
    strategy_id: UUID
    tags: tuple[str, ...] = ()


class Coupon(NamedTuple):
    """`until`: when it stops being of use; None once it is redeemed or taken back. `strategy_id`: whose it is.
    `offer`: for as long as it is of use, another one of the same offer is this very code."""

    at: float
    until: float | None
    strategy_id: UUID | None = None
    offer: str | None = None


class Belonging(NamedTuple):
    """A strategy of an exclusive group that a customer is in. `until` None: a step there is still to come."""

    group: str
    strategy: str
    until: float | None


@dataclass(slots=True)
class Past:
    """What happened to one customer, as far as guardrails ask. `entries`: rule -> enrolment key -> last entry. `spent`:
    budget -> minor units committed for this customer."""

    sides: dict[UUID, Kept] = field(default_factory=dict)
    entries: dict[UUID, dict[str, float]] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    coupons: list[Coupon] = field(default_factory=list)
    belongs: dict[str, Belonging] = field(default_factory=dict)
    complained_at: float | None = None
    spent: dict[UUID, int] = field(default_factory=dict)

    def enter(self, rule_id: UUID, key: str, at: float) -> None:
        entries = self.entries.setdefault(rule_id, {})
        entries[key] = max(entries.get(key, at), at)

    def belong(self, one: Belonging) -> None:
        """Keep the later of two belongings to the same strategy."""
        known = self.belongs.get(one.strategy)
        if known is None or one.until is None or (known.until is not None and known.until < one.until):
            self.belongs[one.strategy] = one


@dataclass(slots=True)
class Purse:
    """What of a budget may still be committed: in all, a day of the shop's calendar (`days`: committed already), and
    for one customer ever. None: no such limit."""

    left: int
    daily: int | None = None
    per_customer: int | None = None
    days: dict[date, int] = field(default_factory=dict)


@dataclass(slots=True)
class History:
    """`past` of customers who have one; `purses` by budget; `taken`: decisions to act of (strategy, day of the shop's
    calendar). `is_lasting`: whether it is to serve a later call; otherwise only what this call may still need of its
    decisions is added."""

    people: dict[UUID, Person] = field(default_factory=dict)
    past: dict[UUID, Past] = field(default_factory=dict)
    purses: dict[UUID, Purse] = field(default_factory=dict)
    taken: dict[tuple[UUID, date], int] = field(default_factory=dict)
    is_lasting: bool = True

    def past_of(self, customer_id: UUID) -> Past:
        found = self.past.get(customer_id)
        if found is None:
            found = self.past[customer_id] = Past()
        return found
