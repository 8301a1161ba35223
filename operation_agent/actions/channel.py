"""The one extension point to the outside: a channel sends one delivery and tells exactly what is known of it.

Owned here, by its consumer; implemented in `integrations/`, one folder a vendor. A channel never retries, never
raises for what a provider answers, and never keeps state of its own: the executor does the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, Protocol
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
