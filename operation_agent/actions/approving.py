"""Actions that people must say yes to: when, in which groups, and what a yes or a no does to those that wait.

One approval stands for every action that one version of a rule leads to for the same reason, however many there are:
what is approved is the rule's content. Actions planned after the yes go out with it; after a no they are called off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.approvals import approvals
from operation_agent.approvals.approval import Answer, Approval, fingerprint
from operation_agent.kit.money import minor_digits, to_minor
from operation_agent.store import outbox
from operation_agent.store.shops import Shop
from rules import offer
from rules.limits import Approval as Wish
from rules.limits import Limits, parse_shop
from rules.step import Step

from . import budget
from .claiming import TOPIC, wake_followers

REQUESTER = "agent"
KIND: Literal["action"] = "action"
_LATELY = timedelta(days=1)


# -- when ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ruling:
    """When people must say yes, by the shop's settings or a strategy's definition. Money in minor units; `prices` tell
    how deep a coupon is."""

    of: Literal["shop", "strategy"]
    types: frozenset[str]
    percent_above: float | None
    cost_above: int | None
    audience_above: int | None
    approvers: int
    expires_in: timedelta
    prices: offer.Prices = offer.Prices.of({}, 2)


@dataclass(frozen=True, slots=True)
class Need:
    """`why`: each rule that asks, as {"rule", "limit", "found", "of"}; `needed` people, within `expires_in`."""

    why: tuple[dict[str, Any], ...]
    needed: int
    expires_in: timedelta

    @property
    def reason(self) -> str:
        return "+".join(sorted({one["rule"] for one in self.why}))


def rulings(shop: Shop, limits: Limits) -> tuple[Ruling, ...]:
    """What a strategy with these limits must ask for in this shop. Empty: nothing."""
    wish = parse_shop(shop.settings).approval
    older = (shop.settings.get("approval") or {}).get("above_minor")
    found = [] if wish is None else [_ruling("shop", wish, shop, older)]
    if limits.approval is not None:
        found.append(_ruling("strategy", limits.approval, shop, None))
    return tuple(found)


def _ruling(of: Literal["shop", "strategy"], wish: Wish, shop: Shop, older: int | None) -> Ruling:
    costs = [older, to_minor(wish.cost_above, shop.currency) if wish.cost_above is not None else None]
    return Ruling(
        of=of,
        types=frozenset(wish.types),
        percent_above=wish.percent_above,
        cost_above=min((one for one in costs if one is not None), default=None),
        audience_above=wish.audience_above,
        approvers=wish.approvers,
        expires_in=wish.expires_in,
        prices=offer.Prices.of(shop.settings, minor_digits(shop.currency)),
    )


def need(asked: Sequence[Ruling], step: Step, *, reserve_minor: int, audience: int | None = None) -> Need | None:
    """Whose yes an action of `step` needs that may cost up to `reserve_minor`; None: nobody's.

    `audience`: how many customers the same goes to; None where it is one customer's own trigger. Pure.
    """
    why = [(ruling, one) for ruling in asked for one in _exceeded(ruling, step, reserve_minor, audience)]
    if not why:
        return None
    found = [ruling for ruling, _ in why]
    return Need(
        why=tuple(one for _, one in why),
        needed=max(ruling.approvers for ruling in found),
        expires_in=min(ruling.expires_in for ruling in found),
    )


def _exceeded(ruling: Ruling, step: Step, reserve_minor: int, audience: int | None) -> Iterable[dict[str, Any]]:
    if step.action in ruling.types:
        yield {"rule": "types", "limit": sorted(ruling.types), "found": step.action, "of": ruling.of}
    depth = offer.depth(step.parameters, ruling.prices) if step.action == "coupon" else None
    measured = (
        ("percent_above", ruling.percent_above, depth),
        ("cost_above", ruling.cost_above, reserve_minor),
        ("audience_above", ruling.audience_above, audience),
    )
    for rule, limit, found in measured:
        if limit is not None and found is not None and float(found) > limit:
            yield {"rule": rule, "limit": limit, "found": float(found) if rule == "percent_above" else found,
                   "of": ruling.of}  # fmt: skip


# -- asking -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Group:
    """The actions of one version of a rule that need a yes for one reason. `rule_key` is unique in the shop."""

    rule_id: UUID
    rule_version: int
    rule_key: str
    reason: str

    @property
    def subject(self) -> str:
        return f"{self.rule_key}@{self.rule_version}/{self.reason}"


@dataclass(frozen=True, slots=True)
class Standing:
    """What an action of a group starts as. `approved_by`: once people have said yes."""

    approval_id: UUID
    state: Literal["waiting_approval", "ready", "cancelled"]
    approved_by: str | None = None
    reason: str | None = None


def ask(session: Session, shop: Shop, wanted: Iterable[tuple[Group, Need]], *, at: datetime) -> dict[Group, Standing]:
    """Put each group's question to people, once, and say how its actions start. `at` is system time.

    Keeps the approvals locked until the transaction ends, so that a vote finds every action that was planned to wait
    for it: call it once per transaction, before the actions are written. Neither the rule's authors nor whoever
    published it may answer.
    """
    needs: dict[Group, list[Need]] = {}
    for group, one in wanted:
        needs.setdefault(group, []).append(one)
    groups = sorted(needs, key=lambda group: group.subject)
    rules = _rules(session, shop.id, groups)
    made = {}
    for group in groups:
        definition, authors = rules.get((group.rule_id, group.rule_version), (None, ()))
        asked = needs[group]
        approval, _ = approvals.ask(
            session, shop.id, kind=KIND, subject=group.subject, fingerprint=fingerprint([definition, group.reason]),
            needed=max(one.needed for one in asked), why=_largest(asked), by=REQUESTER, authors=authors, at=at,
            expires_at=at + min(one.expires_in for one in asked),
        )  # fmt: skip
        made[group] = standing(approval)
    return made


def standing(approval: Approval) -> Standing:
    if approval.state == "granted":
        return Standing(approval.id, "ready", approved_by=", ".join(approval.approvers))
    if approval.state == "rejected":
        return Standing(approval.id, "cancelled", reason="rejected")
    return Standing(approval.id, "waiting_approval")


def _largest(needs: Sequence[Need]) -> list[dict[str, Any]]:
    """Each rule that asks once, with the largest that was found."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for one in (one for need in needs for one in need.why):
        key = one["rule"], one["of"]
        if key not in found or (one["rule"] != "types" and one["found"] > found[key]["found"]):
            found[key] = one
    return [found[key] for key in sorted(found)]


# the definition of a rule, and everybody who wrote at the version of its strategy that brought it
_RULES = """
SELECT r.id, r.version, r.definition, r.created_by,
  (SELECT array_agg(DISTINCT w.who) FROM strategy_versions v
   CROSS JOIN LATERAL unnest(v.authors || v.published_by || v.created_by) AS w (who)
   WHERE v.shop_id = r.shop_id AND v.strategy_id = r.strategy_id AND v.published_at = r.created_at
     AND w.who IS NOT NULL) AS authors
FROM unnest(CAST(:ids AS uuid[]), CAST(:versions AS int[])) AS w (id, version)
JOIN rules r ON r.shop_id = :shop AND r.id = w.id AND r.version = w.version
"""


def _rules(session: Session, shop_id: UUID, groups: Sequence[Group]) -> dict[tuple[UUID, int], tuple[Any, list[str]]]:
    if not groups:
        return {}
    rows = session.execute(
        text(_RULES),
        {"shop": shop_id, "ids": [one.rule_id for one in groups], "versions": [one.rule_version for one in groups]},
    )
    return {(row.id, row.version): (row.definition, sorted({row.created_by, *(row.authors or ())})) for row in rows}


# -- what an answer does ------------------------------------------------------------------------------------------


def vote(
    session: Session, shop: Shop, approval_id: UUID, *, by: str, verdict: Answer, comment: str, at: datetime
) -> Approval:
    """Vote on any approval, and let the actions that wait for it go, or call them off. `at` is system time.

    Raises as `approvals.vote` does.
    """
    made = approvals.cast(session, shop.id, approval_id, by=by, verdict=verdict, comment=comment, at=at)
    if made.kind == KIND and made.state != "pending":
        settle(session, shop, [made.id], at=at)
    approvals.record_vote(session, shop.id, made, by=by, verdict=verdict, comment=comment, at=at)
    return made


def expire(session: Session, shop: Shop, *, at: datetime) -> int:
    """Close every approval that nobody answered in time, and drop what waited for it; how many. `at` is system time."""
    ids = approvals.expire_silently(session, shop.id, at)
    settle(session, shop, ids, at=at)
    approvals.record_expiry(session, shop.id, ids, at)
    return len(ids)


_RELEASE = """
UPDATE actions a SET state = 'ready', reason = NULL, due_at = GREATEST(a.due_at, :now),
  approved_by = (SELECT string_agg(v.voter, ', ' ORDER BY v.at, v.voter) FROM approval_votes v
                 WHERE v.shop_id = :shop AND v.approval_id = p.id AND v.verdict = 'approve')
FROM approvals p
WHERE a.shop_id = :shop AND a.approval_id = ANY(:ids) AND a.state = 'waiting_approval'
  AND p.shop_id = :shop AND p.id = a.approval_id AND p.granted_at IS NOT NULL
RETURNING a.channel
"""

_DROP = """
UPDATE actions a SET state = 'cancelled', reason = CASE p.state WHEN 'rejected' THEN 'rejected' ELSE 'not_approved' END
FROM approvals p
WHERE a.shop_id = :shop AND a.approval_id = ANY(:ids) AND a.state = 'waiting_approval'
  AND p.shop_id = :shop AND p.id = a.approval_id AND p.granted_at IS NULL AND p.state <> 'pending'
RETURNING a.id
"""


def settle(session: Session, shop: Shop, approval_ids: Sequence[UUID], *, at: datetime) -> int:
    """Bring the actions that wait for settled approvals to where they belong; how many that were.

    Those that were due meanwhile are due now: a yes at night is for quiet hours to hold back, and what has become
    stale is dropped when it is claimed.
    """
    if not approval_ids:
        return 0
    values = {"shop": shop.id, "ids": list(approval_ids), "now": at + shop.clock_offset}
    released = session.execute(text(_RELEASE), values).scalars().all()
    dropped = session.execute(text(_DROP), values).scalars().all()
    budget.finish(session, shop.id, release=dropped, at=at)
    if dropped:
        wake_followers(session, shop.id, dropped, at=at)
    outbox.ring(session, shop.id, {(TOPIC, channel) for channel in released}, at=at)
    return len(released) + len(dropped)


_LEFT = """
SELECT p.id FROM approvals p
WHERE p.shop_id = :shop AND p.kind = 'action' AND p.state <> 'pending' AND p.settled_at > :since
  AND EXISTS (SELECT 1 FROM actions a
              WHERE a.shop_id = p.shop_id AND a.approval_id = p.id AND a.state = 'waiting_approval')
ORDER BY p.id
"""
"""Settled lately by somebody who did not look at actions."""

_OVERDUE = "SELECT EXISTS (SELECT 1 FROM approvals WHERE shop_id = :shop AND state = 'pending' AND expires_at <= :at)"


def has_work(session: Session, shop_id: UUID, *, at: datetime) -> bool:
    """Whether `tidy` would find anything; cheap enough to be asked every second."""
    if session.execute(text(_OVERDUE), {"shop": shop_id, "at": at}).scalar_one():
        return True
    return bool(
        session.execute(text(f"SELECT EXISTS ({_LEFT})"), {"shop": shop_id, "since": at - _LATELY}).scalar_one()
    )


def tidy(session: Session, shop: Shop, *, at: datetime) -> int:
    """Expire what is overdue, settle what was left behind; how many approvals that were. `at` is system time."""
    expired = expire(session, shop, at=at)
    left = session.execute(text(_LEFT), {"shop": shop.id, "since": at - _LATELY}).scalars().all()
    settle(session, shop, left, at=at)
    return expired + len(left)
