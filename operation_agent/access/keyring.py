"""Key lookups, remembered for two seconds: a revocation bites within that, and a hot key costs no query."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Engine

from operation_agent.kit.clock import monotonic
from operation_agent.kit.errors import Denied
from operation_agent.store.session import for_system

from .keys import authenticate
from .principal import Principal

TIME_TO_LIVE = 2.0
"""Seconds an answer, yes or no, may be reused."""
_MOST_ENTRIES = 10_000


class KeyRing:
    """Thread-safe by the atomicity of one dict read or write; two misses at once merely look up twice."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = monotonic):
        self._engine = engine
        self._clock = clock
        self._known: dict[str, tuple[float, Principal | Denied]] = {}

    def remembered(self, token: str) -> Principal | None:
        """The caller, if looked up within the last two seconds. Raises Denied when it was refused within them."""
        entry = self._known.get(token)
        if entry is None or entry[0] < self._clock():
            return None
        if isinstance(entry[1], Denied):
            raise Denied(entry[1].detail, code=entry[1].code, unauthenticated=True)
        return entry[1]

    def look_up(self, token: str) -> Principal:
        """Ask the database, and remember. Raises Denied(unauthenticated) for an unknown or revoked key."""
        try:
            with for_system(self._engine) as session:
                answer: Principal | Denied = authenticate(session, token)
        except Denied as refusal:
            answer = refusal
        if len(self._known) >= _MOST_ENTRIES:
            self._known.clear()
        self._known[token[:256]] = (self._clock() + TIME_TO_LIVE, answer)
        if isinstance(answer, Denied):
            raise answer
        return answer
