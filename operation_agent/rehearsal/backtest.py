"""Backtest: a strategy held against the last days as they really were, by the engine that decides live.

Triggers come in the order of their times, features are as of each one's own moment, and what the strategy would have
done earlier in the span counts against its caps, budget and enrolments later in it. Nothing is written. What the past
cannot tell is in ASSUMPTIONS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import orjson
from sqlalchemy.orm import Session

from operation_agent.clustering import membership
from operation_agent.customers import features
from operation_agent.customers.features import FeatureTable
from operation_agent.decision import candidates, engine, reading, store
from operation_agent.decision.candidates import Circumstances
from operation_agent.decision.engine import Decision
from operation_agent.decision.facts import Trigger
from operation_agent.decision.history import History
from operation_agent.decision.rationing import day_of
from operation_agent.kit.errors import Rejected
from operation_agent.store.shops import Shop
from rules.evaluate import evaluate_all
from rules.strategy import Strategy

from . import stream
from .draft import Cast, asks_of_event, cast, circumstances
from .following import follow
from .stream import Occurrences
from .tally import Tally, difference

MOST_DAYS = 366
NEAR = 7 * 86_400.0
"""Seconds between a decision and another strategy's message that count as overlapping."""

ASSUMPTIONS: dict[str, tuple[str, ...]] = {
    "en": (
        "Addresses, suppressions and clusters are as they are today.",
        "Nobody answers what was not sent: a wait for an open or a click ends by its time-out.",
        "Of segments each customer's newest stay is known; moves between clusters are looked at once a day.",
        "A schedule in the customers' own time zones runs by the shop's.",
        "Later messages of a sequence count as sent; those a cap might have skipped are counted beside them.",
    ),
    "zh": (
        "地址、禁发名单与分群按当前状态计算。",
        "未真正发送的消息不会有人响应：等待打开或点击的步骤以超时结束。",
        "分段仅保留每位客户最近一次进出；分群变化每天检查一次。",
        "按客户时区的定时以店铺时区运行。",
        "序列中的后续消息视为已发送；可能因频次上限被跳过的另行计数。",
    ),
}


@dataclass(frozen=True, slots=True)
class Backtest:
    """`since` < t <= `until`, shop time. `against`: the same of the live version, where there is one; `diff`: the
    strategy's totals less the live version's."""

    since: datetime
    until: datetime
    looked_at: int
    draft: dict[str, Any]
    against: dict[str, Any] | None
    diff: dict[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "since": self.since.isoformat(), "until": self.until.isoformat(), "looked_at": self.looked_at,
            "draft": self.draft, "live": self.against, "diff": self.diff,
            "assumptions": {language: list(lines) for language, lines in ASSUMPTIONS.items()},
        }  # fmt: skip


@dataclass(slots=True)
class _Player:
    """One version on stage, with what it has done so far."""

    cast: Cast
    history: History
    tally: Tally = field(default_factory=Tally)
    met: set[UUID] = field(default_factory=set)
    acting: list[Decision] = field(default_factory=list)


def run(
    session: Session,
    shop: Shop,
    strategy: Strategy,
    *,
    days: int,
    until: datetime,
    live: Strategy | None = None,
    real_id: UUID | None = None,
) -> Backtest:
    """Replay `strategy` over the `days` before `until` (shop time), and `live` beside it.

    `real_id`: the shop's strategy that both are versions of; what that really sent is then left out of their past.
    Raises Rejected for less than a day or more than MOST_DAYS.
    """
    check_days(days)
    since = until - timedelta(days=days)
    casts = [cast(strategy, name="draft", started_at=since, real_id=real_id)]
    if live is not None:
        casts.append(cast(live, name="live", started_at=since, real_id=real_id))
    replay = _Replay(session, shop, casts, since, until)
    replay.play()
    dates = _dates(shop, since, until)
    told = [player.tally.to_dict(dates) for player in replay.players]
    against = told[1] if live is not None else None
    diff = None if against is None else difference(told[0]["total"], against["total"])
    return Backtest(since, until, replay.looked_at, told[0], against, diff)


def check_days(days: int) -> None:
    """Raises Rejected."""
    if not 1 <= days <= MOST_DAYS:
        raise Rejected(f"{days} days; a backtest looks at 1 to {MOST_DAYS}", where="days")


def _dates(shop: Shop, since: datetime, until: datetime) -> list[date]:
    first, last = day_of(since, shop.time_zone), day_of(until, shop.time_zone)
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


class _Replay:
    def __init__(self, session: Session, shop: Shop, casts: Sequence[Cast], since: datetime, until: datetime):
        self.session, self.shop, self.since, self.until = session, shop, since, until
        self.players = [_Player(one, one.history(shop)) for one in casts]
        self.rules = [rule for one in casts for rule in one.rules]
        self.circumstances: Circumstances = circumstances(session, shop, casts)
        self.limits = self.circumstances.limits()
        self.looked_at = 0
        needs = frozenset[str]().union(*(rule.condition.needs for rule in self.rules))
        self.needs_clusters = any(name.startswith(("cluster.", "before:cluster.")) for name in needs)
        self.needs_events = any(name.startswith("event.") for name in needs) or any(
            asks_of_event(rule.rule) for rule in self.rules
        )
        self.is_plain = all(name.startswith("customer.") for name in needs)

    def play(self) -> None:
        for found in stream.occurrences(self.session, self.shop, self.rules, self.since, self.until):
            self.looked_at += len(found)
            self._look(found)
        for player in self.players:
            self._settle(player, all_of=True)

    def _look(self, found: Occurrences) -> None:
        """Hold one part against the rules. Where they ask for features alone, whom they do not take goes at once."""
        table = found.table
        if table is None:
            table = features.compute(self.session, self.shop.id, list(zip(found.customer_ids, found.at, strict=True)))
        if self.is_plain:
            index = self._wanted(table)
            if not len(index):
                return
            found, table = found.rows(index), stream.taken(table, index)
        triggers = self._triggers(found)
        clusters = membership.assign(self.session, self.shop.id, table).clusters if self.needs_clusters else None
        columns = reading.load(self.session, self.shop, triggers, table, clusters, self.rules)
        for player in self.players:
            self._decide(player, triggers, table, columns)

    def _wanted(self, table: FeatureTable) -> np.ndarray:
        columns = {f"customer.{name}": column for name, column in table.columns.items()}
        told = evaluate_all([rule.condition for rule in self.rules], columns, len(table))
        return np.flatnonzero(np.logical_or.reduce([one.matched for one in told]))

    def _triggers(self, found: Occurrences) -> list[Trigger]:
        known = {}
        if found.event_ids is not None and self.needs_events:
            known = stream.events(self.session, self.shop.id, found.event_ids)
        ids = list(found.event_ids) if found.event_ids is not None else [None] * len(found)
        made = []
        for row, (customer_id, random_key, at, event_id) in enumerate(
            zip(found.customer_ids, found.random_keys, found.at, ids, strict=True)
        ):
            kind = found.type_of(row)
            event = None
            if event_id is not None:
                event = known.get(event_id) or stream.placeholder(event_id, kind, at)
            made.append(Trigger(customer_id, random_key, kind, event, at, rule_ids=found.rule_ids, group=found.group))
        return made

    def _decide(
        self, player: _Player, triggers: Sequence[Trigger], table: FeatureTable, columns: dict[str, Any]
    ) -> None:
        values = {name: column[: len(triggers)] for name, column in table.columns.items()}
        prepared = candidates.prepare(player.cast.rules, triggers, columns, values, self.circumstances)
        if not prepared:
            return
        self._meet(player, [triggers[row] for row in sorted({row for one in prepared for row in one.rows})])
        for decision in engine.settle(self.circumstances, prepared, triggers, values, player.history):
            self._count(player, decision)
        self._settle(player)

    def _meet(self, player: _Player, reached: Sequence[Trigger]) -> None:
        """Take up the real past of customers who come for the first time, without what the strategy itself did."""
        new = {one.customer_id: one for one in reached if one.customer_id not in player.met}
        if not new:
            return
        asked = [
            Trigger(one.customer_id, one.random_key, one.type, None, self.since, rule_ids=one.rule_ids, group=one.group)
            for one in new.values()
        ]
        known = store.load(self.session, self.shop, list(player.cast.rules), asked)
        player.history.people |= known.people
        for customer_id, past in known.past.items():
            past.messages = [one for one in past.messages if one.strategy_id != player.cast.real_id]
            past.coupons = [one for one in past.coupons if one.strategy_id != player.cast.real_id]
            player.history.past[customer_id] = past
        player.met |= new.keys()

    def _count(self, player: _Player, decision: Decision) -> None:
        day = player.tally.day(day_of(decision.decided_at, self.shop.time_zone))
        day.verdicts[decision.verdict] += 1
        if decision.verdict != "act":
            return
        player.tally.customers.add(decision.customer_id.bytes)
        player.acting.append(decision)
        written = orjson.loads(decision.receipt_json)
        day.expected_minor += float(written["score"] or 0)
        day.may_skip += len((written.get("may_skip") or {}).get(written["arm"], ()))
        past, at = player.history.past.get(decision.customer_id), decision.decided_at.timestamp()
        if past is not None:
            own = player.cast.strategy_id
            day.overlap += any(one.strategy_id != own and abs(one.due - at) <= NEAR for one in past.messages)

    def _settle(self, player: _Player, *, all_of: bool = False) -> None:
        """Follow what was decided, a few thousand at a time."""
        if not player.acting or (len(player.acting) < stream.PART and not all_of):
            return
        followed = follow(self.session, self.shop, player.acting, until=self.until, quiet=self.limits.quiet_hours)
        player.acting.clear()
        player.tally.under_way += followed.under_way
        for one in followed.sent:
            if one.at <= self.until:
                day = player.tally.day(day_of(one.at, self.shop.time_zone))
                day.sends[one.due.placed.step.action] += 1
                day.moved += one.is_moved
                day.spend_minor += one.decision.costs[one.due.placed.number]
        for decision, at in followed.ended:
            if at <= self.until:
                player.tally.day(day_of(at, self.shop.time_zone)).ended += 1
                assert decision.arm is not None
