"""A question to people and what their votes make of it. Pure.

Approved is *this, exactly as it is now*: a fingerprint of the content. Anything else under the same subject is another
question. One rejection ends it; `needed` different people must say yes, none of whom made or asked for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import orjson

Kind = Literal["action", "campaign", "strategy"]
State = Literal["pending", "granted", "rejected", "expired", "superseded"]
Answer = Literal["approve", "reject"]


@dataclass(frozen=True, slots=True)
class Vote:
    """`voter` is an actor as the audit log writes it (`user:…`, `key:…`); `at` is system time."""

    voter: str
    verdict: Answer
    comment: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Approval:
    """Times are system time. `why`: the rules that ask for it, in plain JSON; `authors`: who else made it, and so may
    not vote. `granted_at` stays when a later question supersedes this one."""

    id: UUID
    kind: Kind
    subject: str
    fingerprint: str
    state: State
    needed: int
    why: Sequence[Mapping[str, Any]]
    requested_by: str
    authors: Sequence[str]
    requested_at: datetime
    expires_at: datetime
    settled_at: datetime | None
    granted_at: datetime | None
    votes: tuple[Vote, ...] = ()

    @property
    def approvers(self) -> tuple[str, ...]:
        return tuple(vote.voter for vote in self.votes if vote.verdict == "approve")

    @property
    def missing(self) -> int:
        """How many more people must say yes."""
        return max(0, self.needed - len(self.approvers)) if self.state == "pending" else 0

    def is_open(self, at: datetime) -> bool:
        return self.state == "pending" and at < self.expires_at


def tally(needed: int, verdicts: Sequence[Answer]) -> State:
    """What the votes amount to: one no is a no."""
    if "reject" in verdicts:
        return "rejected"
    return "granted" if len(verdicts) >= needed else "pending"


def fingerprint(content: Any) -> str:
    """SHA-256 of plain JSON; the order of keys does not matter."""
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS, default=str)).hexdigest()
