"""One version on stage: what it decides from trigger to trigger, and what follows from that, with what it did earlier.

Most of what a rule that looks at everybody every morning decides is that somebody was there already, or may not be
written to. That is told here at once; whoever it cannot be told of goes through decision.engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.decision import candidates, demands, engine, store
from operation_agent.decision.candidates import Circumstances, Prepared
from operation_agent.decision.demands import Demands
from operation_agent.decision.engine import Decision
from operation_agent.decision.facts import Columns, Trigger
from operation_agent.decision.history import UNKNOWN_PERSON, Coupon, History, Message, Past, Person
from operation_agent.decision.rationing import day_of
from operation_agent.store.shops import Shop
from rules.limits import ShopLimits, parse_shop

from . import verdicts
from .draft import Cast
from .following import Followed, Sent, follow
from .tally import Tally

NEAR = 7 * 86_400.0
"""Seconds between a decision and another strategy's message that count as overlapping."""


@dataclass(slots=True)
class Player:
    """`later`: by customer, what comes to be known, and when (seconds since 1970); None is a complaint."""

    session: Session
    shop: Shop
    cast: Cast
    circumstances: Circumstances
    since: datetime
    until: datetime
    history: History = field(init=False)
    tally: Tally = field(default_factory=Tally)
    met: set[UUID] = field(default_factory=set)
    later: dict[UUID, list[tuple[float, Message | Coupon | None]]] = field(default_factory=dict)
    _limits: ShopLimits = field(init=False)
    _days: dict[datetime, Any] = field(default_factory=dict)
    _complaint_span: float = field(init=False)

    def __post_init__(self) -> None:
        self.history = self.cast.history(self.shop)
        self._limits = parse_shop(self.shop.settings)
        spans = [live.strategy.limits.complaint_cooldown for live in self.cast.rules]
        self._complaint_span = max([*spans, self._limits.complaint_cooldown or timedelta(0)]).total_seconds()

    def decide(self, triggers: Sequence[Trigger], columns: Columns, features: Columns) -> None:
        """Decide about a part of the stream, in order of time; row i is trigger i. A customer's first trigger for
        everybody, then the second: what the first led to is known by then."""
        prepared = candidates.prepare(self.cast.rules, triggers, columns, features, self.circumstances)
        if not prepared:
            return
        rows = sorted({row for one in prepared for row in one.rows})
        self._meet([triggers[row] for row in rows])
        turns = _turns(rows, triggers)
        for turn in range(max(turns.values()) + 1):
            self._learn([triggers[row] for row in rows if turns[row] == turn])
            mine = [_only(one, [i for i, row in enumerate(one.rows) if turns[row] == turn]) for one in prepared]
            left = self._told_at_once(mine, triggers)
            made = engine.settle(self.circumstances, left, triggers, features, self.history) if left else []
            for decision in made:
                self._count(decision)
            self._follow([one for one in made if one.arm is not None and one.arm.steps])

    # -- who they are -------------------------------------------------------------------------------------------------

    def _meet(self, reached: Sequence[Trigger]) -> None:
        """Take up the real past of customers who come for the first time, without what the strategy itself did."""
        new = {one.customer_id: one for one in reached if one.customer_id not in self.met}
        if not new:
            return
        asked = [
            Trigger(one.customer_id, one.random_key, one.type, None, self.since, rule_ids=one.rule_ids, group=one.group)
            for one in new.values()
        ]
        known = store.load(self.session, self.shop, list(self.cast.rules), asked)
        self.history.people |= known.people
        complained = []
        for customer_id, past in known.past.items():
            past.messages = [one for one in past.messages if one.strategy_id != self.cast.real_id]
            past.coupons = [one for one in past.coupons if one.strategy_id != self.cast.real_id]
            past.belongs.pop(self.cast.strategy.key, None)
            if past.complained_at is not None:
                complained.append(customer_id)
                past.complained_at = None
            self.history.past[customer_id] = past
        self.met |= new.keys()
        self._remember_complaints(complained)

    def _remember_complaints(self, customers: Sequence[UUID]) -> None:
        """A complaint counts from when it came, not before."""
        if not customers:
            return
        values = {"shop": self.shop.id, "customers": list(customers), "until": self.until,
                  "since": self.since - timedelta(seconds=self._complaint_span)}  # fmt: skip
        for row in self.session.execute(_COMPLAINTS, values):
            self._know_later(row.occurred_at.timestamp(), row.customer_id, None)

    def _know_later(self, at: float, customer_id: UUID, what: Message | Coupon | None) -> None:
        self.later.setdefault(customer_id, []).append((at, what))

    def _learn(self, triggers: Sequence[Trigger]) -> None:
        """What has come to be known of each customer by its trigger."""
        for trigger in triggers if self.later else ():
            waiting = self.later.get(trigger.customer_id)
            if waiting is None:
                continue
            now, past = trigger.at.timestamp(), self.history.past_of(trigger.customer_id)
            for at, what in waiting:
                if at > now:
                    continue
                if what is None:
                    past.complained_at = max(past.complained_at or at, at)
                else:
                    _keep(past, what)
            self.later[trigger.customer_id] = [one for one in waiting if one[0] > now]

    # -- what is told at once -----------------------------------------------------------------------------------------

    def _told_at_once(self, prepared: Sequence[Prepared], triggers: Sequence[Trigger]) -> list[Prepared]:
        """Count whom no engine is needed for, and leave the others."""
        rules_of_row = Counter(row for one in prepared for row in one.rows)
        left = []
        for one in prepared:
            reach: dict[int, str | None] = {}
            keep = []
            for position, row in enumerate(one.rows):
                trigger = triggers[row]
                verdict = None if rules_of_row[row] > 1 else self._verdict(one, position, trigger, reach)
                if verdict is None:
                    keep.append(position)
                else:
                    self.tally.day(self._day(trigger.at)).verdicts[verdict] += 1
            left.append(_only(one, keep))
        return [one for one in left if one.rows]

    def _verdict(self, one: Prepared, position: int, trigger: Trigger, reach: dict[int, str | None]) -> str | None:
        past = self.history.past.get(trigger.customer_id)
        if past is not None:
            entries = past.entries.get(one.live.rule_id)
            if entries and verdicts.is_entered(one, position, entries, trigger.at.timestamp()):
                return "already_enrolled"
            if past.belongs:
                return None
        person: Person = self.history.people.get(trigger.customer_id, UNKNOWN_PERSON)
        found = reach.get(id(person), "")
        if found == "":
            found = reach[id(person)] = verdicts.unreachable(one.wanted, person)
        return found

    def _day(self, at: datetime) -> Any:
        found = self._days.get(at)
        if found is None:
            if len(self._days) > 10_000:
                self._days.clear()
            found = self._days[at] = day_of(at, self.shop.time_zone)
        return found

    # -- what was decided, and what follows ---------------------------------------------------------------------------

    def _count(self, decision: Decision) -> None:
        day = self.tally.day(self._day(decision.decided_at))
        day.verdicts[decision.verdict] += 1
        if decision.verdict != "act":
            return
        self.tally.customers.add(decision.customer_id.bytes)
        written = orjson.loads(decision.receipt_json)
        day.expected_minor += float(written["score"] or 0)
        day.may_skip += len((written.get("may_skip") or {}).get(written["arm"], ()))
        past, at = self.history.past.get(decision.customer_id), decision.decided_at.timestamp()
        if past is not None:
            own = self.cast.strategy_id
            day.overlap += any(one.strategy_id != own and abs(one.due - at) <= NEAR for one in past.messages)

    def _follow(self, entered: Sequence[Decision]) -> None:
        """Walk everybody who entered through what really came after, the held out like the others: what they get, and
        when it is planned, is what later decisions count."""
        if not entered:
            return
        followed = follow(self.session, self.shop, entered, until=self.until)
        for decision in entered:
            self._forget(decision)
        for one in followed.sent:
            self._plan(one)
        self._tell(followed)

    def _tell(self, followed: Followed) -> None:
        self.tally.under_way += sum(not one.held_out for one in followed.under_way)
        for sent in followed.sent:
            if sent.at <= self.until and not sent.decision.held_out:
                day = self.tally.day(self._day(sent.at))
                day.sends[sent.due.placed.step.action] += 1
                day.moved += sent.is_moved
                day.spend_minor += sent.decision.costs[sent.due.placed.number]
        for decision, at in followed.ended:
            if at <= self.until and not decision.held_out:
                self.tally.day(self._day(at)).ended += 1

    def _wanted(self, decision: Decision) -> Demands:
        live = next(one for one in self.cast.rules if one.rule_id == decision.rule_id)
        shop = self.circumstances
        return demands.demands_of(live, self._limits, shop.settings, shop.currency_digits)

    def _forget(self, decision: Decision) -> None:
        """What the engine wrote down of an arm it had not walked: every message and coupon of every way through it."""
        past = self.history.past.get(decision.customer_id)
        if past is None:
            return
        wanted, at, own = self._wanted(decision), decision.decided_at.timestamp(), self.cast.strategy_id
        arm = _place(wanted, decision)
        if wanted.is_counted:
            for timed, channel, tags in wanted.messages[arm]:
                _drop(past.messages, Message(at + timed.offset, channel, own, tags))
        for coupon in wanted.coupons_from(arm, at, own):
            _drop(past.coupons, coupon)

    def _plan(self, sent: Sent) -> None:
        """What really comes of it, from when it is planned on."""
        wanted, at = self._wanted(sent.decision), sent.at.timestamp()
        arm, number = _place(wanted, sent.decision), sent.due.placed.number
        what: Message | Coupon | None = None
        for timed, channel, tags in wanted.messages[arm] if wanted.is_counted else ():
            if timed.placed.number == number:
                what = Message(at, channel, self.cast.strategy_id, tags)
        for timed, use in wanted.coupons[arm]:
            if timed.placed.number == number:
                what = Coupon(at, at + use, self.cast.strategy_id)
        if what is None:
            return
        if sent.planned_at <= sent.decision.decided_at:
            _keep(self.history.past_of(sent.decision.customer_id), what)
        else:
            self._know_later(sent.planned_at.timestamp(), sent.decision.customer_id, what)


def _turns(rows: Sequence[int], triggers: Sequence[Trigger]) -> dict[int, int]:
    """The number of each row among those of its customer."""
    seen: Counter[UUID] = Counter()
    found = {}
    for row in rows:
        customer_id = triggers[row].customer_id
        found[row] = seen[customer_id]
        seen[customer_id] += 1
    return found


def _place(wanted: Demands, decision: Decision) -> int:
    """Of the arm that was drawn."""
    arm = decision.arm
    assert arm is not None
    return next(i for i, one in enumerate(wanted.arms) if one.key == arm.key)


def _keep(past: Past, what: Message | Coupon) -> None:
    if isinstance(what, Message):
        past.messages.append(what)
    else:
        past.coupons.append(what)


def _drop(listed: list[Any], what: Any) -> None:
    if what in listed:
        listed.remove(what)


def _only(one: Prepared, keep: Sequence[int]) -> Prepared:
    """Some of a prepared rule's rows."""
    if len(keep) == len(one.rows):
        return one

    def some(values: Sequence[Any]) -> list[Any]:
        return [values[position] for position in keep]

    return replace(
        one, rows=some(one.rows), keys=None if one.keys is None else some(one.keys), orders=some(one.orders),
        values=some(one.values), score=some(one.score), costs=[some(costs) for costs in one.costs],
        arm_costs=[some(costs) for costs in one.arm_costs], dearest=some(one.dearest), seen=some(one.seen),
    )  # fmt: skip


_COMPLAINTS = text("""
SELECT customer_id, occurred_at FROM timeline WHERE shop_id = :shop AND type = 'email.complained'
  AND customer_id = ANY(CAST(:customers AS uuid[])) AND occurred_at > :since AND occurred_at <= :until
""")
