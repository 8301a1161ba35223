"""Backtest: a strategy held against the last days as they really were, by the engine that decides live.

Triggers come in the order of their times, features are as of each one's own moment, and what the strategy would have
done earlier in the span counts against its caps, budget and enrolments later in it. Nothing is written. What the past
cannot tell is in ASSUMPTIONS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy.orm import Session

from operation_agent.clustering import membership
from operation_agent.customers import features
from operation_agent.customers.features import FeatureTable
from operation_agent.decision import reading
from operation_agent.decision.facts import Trigger
from operation_agent.decision.rationing import day_of
from operation_agent.kit.errors import Rejected
from operation_agent.store.shops import Shop
from rules.strategy import Strategy

from . import stream
from .draft import Cast, asks_of_event, cast, circumstances
from .player import Player
from .stream import Occurrences, Stream
from .tally import difference

MOST_DAYS = 366
ASSUMPTIONS: dict[str, tuple[str, ...]] = {
    "en": (
        "The version counts from the first day on: nobody has entered it before, its budget is whole.",
        "Every event came at its own time, also one that was imported later.",
        "Addresses, suppressions, consents asked for by guardrails, and the clustering are as they are today.",
        "Nobody answers what was not sent: a wait for an open or a click ends by its time-out.",
        "Of segments each customer's newest stay is known; moves between clusters are looked at once a day.",
        "Later messages of a sequence count as sent; those a cap might have skipped are counted beside them.",
    ),
    "zh": (
        "该版本自首日起生效：此前无人进入，预算未被动用。",
        "所有事件均按其发生时间计算，包括之后补录的事件。",
        "地址、禁发名单、用于拦截判断的同意状态以及分群模型按当前状态计算。",
        "未真正发送的消息不会有人响应：等待打开或点击的步骤以超时结束。",
        "分段仅保留每位客户最近一次进出；分群变化每天检查一次。",
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
    return Backtest(since, until, replay.stream.looked_at, told[0], against, diff)


def check_days(days: int) -> None:
    """Raises Rejected."""
    if not 1 <= days <= MOST_DAYS:
        raise Rejected(f"{days} days; a backtest looks at 1 to {MOST_DAYS}", where="days")


def _dates(shop: Shop, since: datetime, until: datetime) -> list[date]:
    first, last = day_of(since, shop.time_zone), day_of(until, shop.time_zone)
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


class _Replay:
    def __init__(self, session: Session, shop: Shop, casts: Sequence[Cast], since: datetime, until: datetime):
        self.session, self.shop = session, shop
        self.rules = [rule for one in casts for rule in one.rules]
        known = circumstances(session, shop, casts)
        self.players = [Player(session, shop, one, known, since, until) for one in casts]
        self.stream = Stream(session, shop, self.rules, since, until)
        needs = frozenset[str]().union(*(rule.condition.needs for rule in self.rules))
        self.needs_clusters = any(name.startswith(("cluster.", "before:cluster.")) for name in needs)
        self.needs_events = any(name.startswith("event.") for name in needs) or any(
            asks_of_event(rule.rule) for rule in self.rules
        )

    def play(self) -> None:
        for found in self.stream.parts():
            self._look(found)

    def _look(self, found: Occurrences) -> None:
        """Hold one part against the rules. Whom features alone show not to be taken goes at once."""
        table = found.table
        if table is None:
            table = features.compute(self.session, self.shop.id, list(zip(found.customer_ids, found.at, strict=True)))
        index = np.flatnonzero(self._wanted(found, table))
        if not len(index):
            return
        found, table = found.rows(index), stream.taken(table, index)
        triggers = self._triggers(found)
        clusters = membership.assign(self.session, self.shop.id, table).clusters if self.needs_clusters else None
        columns = reading.load(self.session, self.shop, triggers, table, clusters, self.rules)
        for player in self.players:
            player.decide(triggers, columns, table.columns)

    def _wanted(self, found: Occurrences, table: FeatureTable) -> np.ndarray:
        wanted = np.zeros(len(found), np.bool_)
        for code, source in enumerate(found.sources):
            mine = found.codes == code
            if mine.any():
                wanted |= mine & self.stream.screen.by_features(source, table)
        return wanted

    def _triggers(self, found: Occurrences) -> list[Trigger]:
        known = {}
        if found.event_ids is not None and self.needs_events:
            known = stream.events(self.session, self.shop.id, found.event_ids)
        ids = list(found.event_ids) if found.event_ids is not None else [None] * len(found)
        made = []
        for row, (customer_id, random_key, at, event_id) in enumerate(
            zip(found.customer_ids, found.random_keys, found.at, ids, strict=True)
        ):
            source = found.source_of(row)
            event = None
            if event_id is not None and source.has_event:
                event = known.get(event_id) or stream.placeholder(event_id, source.type, at)
            made.append(
                Trigger(customer_id, random_key, source.type, event, at, rule_ids=source.rule_ids, group=source.group)
            )
        return made
