"""The one extension point to the outside: a channel sends one delivery and tells exactly what is known of it.

Owned here, by its consumer; implemented in `integrations/`, one folder a vendor. A channel never retries, never
raises for what a provider answers, and never keeps state of its own: the executor does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol, runtime_checkable
from uuid import UUID

Capability = Literal["keyed", "queryable", "opaque"]
"""What a provider offers after an unknown outcome: `keyed` accepts the same key again without doing it twice,
`queryable` can be asked whether it was done, `opaque` neither: a person must look."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One thing to do, rendered and addressed. `dedupe_key` is stable over every attempt at it."""

    action_id: UUID
    dedupe_key: str
    address: str | None
    parameters: dict[str, Any]
    timeout: timedelta = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Sent:
    """The provider has it. `result` is what later steps may use (a coupon's code)."""

    provider_ref: str | None
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NotSent:
    """The provider provably did nothing. `permanent`: the same call will be refused again.

    `is_provider_down`: nothing is wrong with this delivery; the provider is unreachable, throttles, or refuses our
    credentials. Such an action waits as long as it takes, and the channel's breaker hears of it.

    `problem`: it will refuse everything until somebody does something about it (a revoked token, an uninstalled app, a
    missing scope, a frozen shop). Nothing more is claimed for that integration until then.
    """

    reason: str
    permanent: bool
    retry_after: timedelta | None = None
    is_provider_down: bool = False
    problem: Literal["unauthorized", "uninstalled", "scopes", "unavailable"] | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """Time-out, reset or 5xx after the request left: neither sent nor failed. Reconciled, never blindly retried."""

    reason: str


Outcome = Sent | NotSent | Unknown


class Channel(Protocol):
    """What an integration provides. `name` is the vendor; `capability` what `find` can do for an Unknown.

    `settle` is how long an unknown outcome rests before `find` is asked, so that the provider has finished, and
    shows, what it had begun. `send` and `find` are called from several threads at once.
    """

    name: str
    capability: Capability
    settle: timedelta

    def send(self, delivery: Delivery) -> Outcome:
        """Call the provider once, within `delivery.timeout`."""
        ...

    def find(self, delivery: Delivery) -> Outcome:
        """Ask the provider whether this delivery was done: Sent, NotSent(permanent=False), or still Unknown."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class NewDiscount:
    """A discount at a shop system. `terms`: of `rules.offer.TERMS`, money in units of the shop's currency. Instants are
    UTC in shop time; `ends_at` None: never. `customer`: the shop's id of the only one it is for."""

    title: str
    code: str
    terms: Mapping[str, Any]
    starts_at: datetime
    ends_at: datetime | None
    customer: str | None = None


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a batch of codes: `refused` says why one is not there; once it is done, all others are."""

    is_done: bool
    refused: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Codes(Protocol):
    """A channel whose shop system keeps discounts with many codes, and takes back what was given.

    Each call raises the kit's errors: Rejected (refused for good), Retryable (not done), Denied (token or scope), or
    another AgentError when it may have been done. All may be called again: twice is once.
    """

    name: str

    def make_discount(self, wanted: NewDiscount) -> str:
        """The shop's id of the discount, made now or by an earlier call. Rejected with code 'taken': the code is
        somebody else's."""
        ...

    def discount_of(self, code: str) -> str | None:
        """The id of the discount that a code belongs to."""
        ...

    def add_codes(self, discount_ref: str, codes: Sequence[str]) -> str:
        """Ask for up to 250 codes; returns the id of the job that makes them."""
        ...

    def added(self, batch_ref: str) -> Added | None:
        """None: there is no such job any more."""
        ...

    def deactivate(self, discount_ref: str) -> int:
        """No code of it can be used from now on. Returns how often they were, as far as the shop has counted."""
        ...

    def drop_code(self, discount_ref: str, code: str) -> int:
        """One of its codes cannot be used any more. Returns how often it was."""
        ...
